"""What a slot fact asks of an agent: restarts, stops, moves, epochs, specs, reboots."""

import asyncio

import pytest

from dsmt.agents.rules.container import EXIT_GONE, FILES, OUTCOME
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.kinds.slot import Previous
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft
from dsmt.ports.processes import Exit
from tests.loops import in_virtual_time

from .memory_bus import Bus, Realm
from .memory_machine import MemoryFiles
from .sights import CHECKED
from .world import WEB, Site


@in_virtual_time
async def test_the_restart_number_of_a_slot_restarts_it_once() -> None:
    site = Site(Realm())
    spec = site.spec()
    site.assign(spec)
    agent = site.start()
    await site.until("running")
    site.assign(spec, version=2, restart=1)
    await site.realm.until(lambda: len(site.machine.programs) == 2)
    await site.until("running")
    await asyncio.sleep(30)
    assert len(site.machine.programs) == 2
    agent.kill()


@in_virtual_time
async def test_a_stopped_slot_stops_in_order_and_starts_again() -> None:
    site = Site(Realm())
    spec = site.spec(WEB + "    stop: {delay: 2s}\n")
    site.assign(spec)
    agent = site.start()
    await site.realm.until(lambda: site.health() == "none")
    site.assign(spec, version=2, desired="stopped")
    await site.realm.until(lambda: not site.endpoint()["ready"])
    program = site.machine.alive[0]
    assert program.signals == []
    await site.until("stopped")
    assert program.signals == [15]
    assert site.states()[-2:] == ["terminated", "stopped"]
    site.assign(spec, version=3, desired="stopped")
    await site.realm.until(lambda: site.statuses()[-1]["generation"] == 3)
    assert site.states()[-1] == "stopped"
    site.assign(spec, version=4)
    await site.until("running")
    agent.kill()


@in_virtual_time
async def test_a_program_is_looked_at_before_its_stop_command_may_end_it() -> None:
    site = Site(Realm())
    spec = site.spec(WEB + "    stop: {command: bin/stop}\n")
    site.assign(spec)
    agent = site.start()
    await site.until("running")
    program = site.machine.alive[0]
    assert program.looks == 0
    site.assign(spec, version=2, desired="stopped")
    await site.until("stopped")
    assert program.looks == 1
    assert [what for what, name in site.logs.done if name == "stop"] == ["begin", "trim"], "its log is bounded, too"
    agent.kill()


@in_virtual_time
async def test_what_does_not_stop_is_killed_and_that_is_told() -> None:
    site = Site(Realm())
    spec = site.spec(WEB.replace("forever", "stubborn"))
    site.assign(spec)
    agent = site.start()
    await site.until("running")
    site.assign(spec, version=2, desired="stopped")
    await site.until("stopped")
    assert site.statuses()[-1]["reason"]["code"] == "stop.killed"
    assert not site.machine.alive
    agent.kill()


@in_virtual_time
async def test_a_slot_given_to_another_node_leaves_this_one_and_the_agent_says_gone() -> None:
    site = Site(Realm())
    spec = site.spec(WEB + "    uninstall: clean {port.http}\n")
    site.machine.steps["clean"] = Exit(0, None)
    site.assign(spec)
    agent = site.start()
    await site.until("running")
    (port,) = site.record().ports.values()
    site.machine.held[port] = "another"
    site.assign(spec, version=2, node="n2")
    status = await agent.wait()
    assert status.code == EXIT_GONE
    assert site.states()[-3:] == ["terminated", "stopped", "gone"]
    assert site.files.read(f"{site.slot.directory}/{OUTCOME}") == b"gone"
    assert not site.machine.alive
    assert [p.launch.argv for p in site.machine.programs][-1] == ("clean", str(port))


@in_virtual_time
async def test_what_said_that_it_is_gone_and_is_held_here_after_all_says_that_it_is_stopped() -> None:
    site = Site(Realm())
    spec = site.spec(WEB)
    site.assign(spec)
    agent = site.start()
    await site.until("running")
    site.assign(spec, version=2, node="n2", desired="stopped")  # said where this node was not seen
    await site.until("gone")
    site.assign(spec, version=3, desired="stopped")
    await site.until("stopped", 10.0)
    assert site.statuses()[-1]["generation"] == 3
    site.assign(spec, version=4)
    await site.until("running")
    agent.kill()


@pytest.mark.parametrize(
    ("component", "said"),
    [
        ("    uninstall: clean up\n", "uninstall command ended with code 3"),
        ("    uninstall: clean up\n    env: {KEY: {file: /etc/key}}\n", "/etc/key"),
        ("    env: {KEY: {file: /etc/key}}\n", None),
    ],
)
@in_virtual_time
async def test_an_uninstall_that_fails_or_cannot_be_run_is_told_and_blocks_nothing(component: str, said: str | None) -> None:
    site = Site(Realm())
    host = MemoryFiles(site.disk, "")
    host.write("etc/key", b"secret")
    site.machine.steps["clean"] = Exit(3, None)
    spec = site.spec(WEB + component)
    site.assign(spec)
    agent = site.start()
    await site.until("running")
    host.remove("etc/key")
    site.assign(spec, version=2, node="n2")
    assert (await agent.wait()).code == EXIT_GONE
    told = site.statuses()[-1]
    assert told["state"] == "gone"
    why = told.get("reason")
    assert (why is None) == (said is None)
    if why is not None:
        assert why["code"] == "stop.leftover"
        assert why.get("exit_code") == (3 if "code 3" in why["message"] else None)
        assert why["message"].startswith("`uninstall` failed: ")
        assert said in why["message"]
        assert why["message"].endswith("; what it holds outside its directory remains")
    assert not site.files.names(FILES)


@in_virtual_time
async def test_the_previous_node_keeps_its_copy_until_the_new_one_is_ready() -> None:
    realm = Realm()
    site, other = Site(realm, "n1"), Site(realm, "n2")
    spec = site.spec(CHECKED)
    site.assign(spec)
    agent = site.start()
    await realm.until(lambda: site.health() == "ready")
    previous = Previous(node="n1", generation=1, deadline_ms=site.spec_bus.now_ms() + 300_000)
    site.assign(spec, version=2, node="n2", previous=previous)
    await asyncio.sleep(20)
    assert len(site.machine.alive) == 1
    site.machine.alive[0].end(Exit(1, None))
    await realm.until(lambda: len(site.machine.alive) == 1)
    new = other.start()
    assert (await agent.wait()).code == EXIT_GONE
    assert other.health() == "ready"
    new.kill()


@in_virtual_time
async def test_the_previous_node_leaves_at_the_deadline() -> None:
    site = Site(Realm())
    spec = site.spec()
    site.assign(spec)
    agent = site.start()
    await site.until("running")
    deadline = site.spec_bus.now_ms() + 60_000
    site.assign(spec, version=2, node="n2", previous=Previous(node="n1", generation=1, deadline_ms=deadline))
    assert (await agent.wait()).code == EXIT_GONE
    assert abs(site.spec_bus.now_ms() - deadline) < 1000


@in_virtual_time
async def test_absence_stops_nothing() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.until("running")
    agent.kill()
    site.realm.facts.clear()
    agent = site.start()
    await asyncio.sleep(120)
    assert len(site.machine.alive) == 1
    assert len(site.machine.programs) == 1
    offered = {signed.event.topic for signed in site.bus.offered}
    assert offered == {"service/web/slot/app/0", "service/web/spec"}
    agent.kill()


@in_virtual_time
async def test_an_older_fact_changes_nothing() -> None:
    site = Site(Realm())
    spec = site.spec()
    site.assign(spec, version=5)
    agent = site.start()
    await site.until("running")
    late = Bus(site.realm, "controller/c2")
    del site.realm.facts[site.slot.topic]
    site.slot_bus = late
    site.assign(spec, version=4, desired="gone")
    await asyncio.sleep(60)
    assert len(site.machine.alive) == 1
    agent.kill()


@in_virtual_time
async def test_a_slot_that_begins_anew_after_its_service_was_removed_is_obeyed_whatever_its_version() -> None:
    site = Site(Realm())
    site.place(version=5)
    agent = site.start()
    await site.until("running")
    await asyncio.sleep(1)
    site.spec_bus.emit(Draft("tombstone/service/web", to_data(Tombstone(by="op", reason="")), version=1))
    await asyncio.sleep(30)
    assert len(site.machine.alive) == 1
    site.place(WEB.replace("forever", "anew"), epoch=2)
    await site.realm.until(lambda: [p.launch.argv[1] for p in site.machine.alive] == ["anew"])
    await site.realm.until(lambda: site.statuses()[-1]["generation"] == 1 and site.state() == "running")
    agent.kill()
    agent = site.start()
    await asyncio.sleep(30)
    assert [p.launch.argv[1] for p in site.machine.alive] == ["anew"]
    agent.kill()


@in_virtual_time
async def test_the_spec_that_the_slot_names_is_awaited_and_no_other_is_taken() -> None:
    site = Site(Realm())
    spec = site.spec()
    site.realm.log.remove(spec)
    site.spec(WEB.replace("sleep", "wrong"), version=2)
    site.assign(spec)
    agent = site.start()
    await site.until("requested")
    await asyncio.sleep(60)
    assert not site.machine.programs
    site.realm.log.append(spec)
    await site.until("running")
    assert site.machine.alive[0].launch.argv[0] == "sleep"
    assert site.realm.fetched > 1
    agent.kill()


@in_virtual_time
async def test_of_a_spec_that_is_not_to_be_had_that_is_told_until_it_is_here() -> None:
    site = Site(Realm())
    spec = site.spec()
    site.realm.log.remove(spec)
    site.spec(WEB, version=2)
    site.realm.up.clear()
    site.assign(spec)
    agent = site.start()
    await asyncio.sleep(60)
    assert [one for one in site.statuses() if one["reason"]] == [], "no broker has answered"
    site.realm.up.set()
    await site.realm.until(lambda: any(one["reason"] for one in site.statuses()))
    assert (site.states()[-1], site.statuses()[-1]["reason"]["code"]) == ("requested", "wait.spec")
    site.realm.log.append(spec)
    await site.until("running")
    assert site.statuses()[-1]["reason"] is None
    agent.kill()


@pytest.mark.parametrize("topic", ["service/web/barrier/b/released", "service/other/spec"])
@in_virtual_time
async def test_what_the_slot_names_and_is_no_spec_of_its_service_is_no_program(topic: str) -> None:
    """A controller says where what an operator has signed runs, and no more than that."""
    site = Site(Realm())
    made = site.spec()
    site.assign(Bus(site.realm, "controller/c1").emit(Draft(topic, made.event.data, version=1, epoch=1)).signed)
    agent = site.start()
    await site.until("requested")
    await asyncio.sleep(60)
    assert not site.machine.programs
    assert site.realm.fetched > 1
    agent.kill()


@in_virtual_time
async def test_after_a_reboot_it_starts_from_the_kept_facts_after_a_sync() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.until("running")
    agent.kill()
    site.machine.reboot()
    agent = site.start()
    await site.realm.until(lambda: len(site.machine.programs) == 2)
    await site.until("running")
    assert "node.rebooted" in [s["reason"]["code"] for s in site.statuses() if s["reason"]]
    assert site.statuses()[-1]["restarts"] == 0  # that its machine ended is no failure of its own
    agent.kill()


@in_virtual_time
async def test_what_was_moved_while_it_and_its_agent_were_dead_is_not_started_for_a_moment() -> None:
    """All of a node was killed, and is begun again in the same boot."""
    site = Site(Realm())
    spec = site.spec()
    site.assign(spec)
    agent = site.start()
    await site.until("running")
    agent.kill()
    site.machine.alive[0].end(Exit(None, 9))
    site.realm.up.clear()
    site.assign(spec, version=2, node="n2")
    agent = site.start()
    await asyncio.sleep(1.0)
    site.realm.up.set()
    assert (await agent.wait()).code == EXIT_GONE
    assert len(site.machine.programs) == 1


@in_virtual_time
async def test_what_has_died_with_its_agent_starts_after_two_seconds_with_no_broker() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.until("running")
    agent.kill()
    site.machine.alive[0].end(Exit(None, 9))
    site.realm.up.clear()
    began = asyncio.get_running_loop().time()
    agent = site.start()
    await site.realm.until(lambda: len(site.machine.programs) == 2)
    assert 1.9 <= asyncio.get_running_loop().time() - began < 3
    agent.kill()


@in_virtual_time
async def test_after_a_reboot_with_no_broker_it_starts_after_thirty_seconds() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.until("running")
    agent.kill()
    site.machine.reboot()
    site.realm.up.clear()
    began = asyncio.get_running_loop().time()
    agent = site.start()
    await asyncio.sleep(20)
    assert len(site.machine.programs) == 1
    await site.realm.until(lambda: len(site.machine.programs) == 2)
    assert 29.9 <= asyncio.get_running_loop().time() - began < 31
    agent.kill()
