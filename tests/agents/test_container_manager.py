"""The container manager with its agents, in the simulator's time, over a bus and a machine in memory."""

import asyncio
import signal

import pytest

from dsmt.agents.rules.container import HELD, IDENTITY, KEPT_BY_RECREATION, LOGS, OUTCOME, PROCESS, RECORD, TOLD
from dsmt.agents.rules.record import InstanceRecord, dump_record, load_record
from dsmt.bus.rules.ended_keys import NAMESAKE
from dsmt.errors import FailedError
from dsmt.event.kinds.slot import Good, Previous
from dsmt.event.slots import SlotKey
from dsmt.ports.bus import Complete, Cursor, Notice
from dsmt.ports.processes import Exit
from dsmt.simulator.engine.run import run
from dsmt.trust.identity import load
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import Realm as TrustRealm
from dsmt.trust.store import TrustStore
from tests.loops import in_virtual_time

from .managed import SLOT, Managed
from .memory_bus import EPOCH_MS, wants
from .memory_machine import MemoryFiles


@in_virtual_time
async def test_a_slot_for_this_node_gets_a_container_and_an_agent_that_runs_it() -> None:
    at = Managed()
    at.start()
    slot = at.site.place()
    await at.site.until("running")
    assert at.states("container") == ["selected", "installing", "installed"]
    await at.realm.until(lambda: at.states("agent") == ["requested", "initiated", "instantiated", "running"])
    assert at.told("agent")[-1]["pid"] == 9000
    assert at.told("agent")[-1]["generation"] == 1
    first = next(s for s in at.realm.log if s.event.source == "node/n1")
    assert first.event.cause == (slot.id,)
    at.end()


@in_virtual_time
async def test_the_agents_identity_is_delegated_and_believed() -> None:
    at = await Managed.running()
    identity = load(at.node.files.read(f"{SLOT.directory}/{IDENTITY}") or b"", where="test")
    assert identity.name == "agent/n1/web/app/0"
    trust = TrustStore(TrustRealm(name="test", roots=(SecretKey(b"r" * 32).public,)))
    trust.add_all([signed.raw for signed in identity.chain])
    assert trust.certificate(identity.key.key_id, identity.name) is not None
    at.end()


@in_virtual_time
async def test_a_slot_of_another_node_is_left_alone() -> None:
    at = Managed()
    at.start()
    at.site.place(node="n2")
    await asyncio.sleep(10)
    assert at.manager is not None
    assert at.manager.slots == ()
    assert not at.node.files.content
    at.end()


@in_virtual_time
async def test_what_stands_beside_containers_under_no_slots_name_is_left_alone() -> None:
    """Somebody has made a copy of one; half of a container goes."""
    at = Managed()
    for name in ("0.bak", "01", "7"):
        at.node.files.write(f"containers/web/app/{name}/data/orders", b"all of them")
    at.start()
    await asyncio.sleep(1)
    assert at.node.files.names("containers/web/app") == ["0.bak", "01"]
    assert at.manager is not None
    assert at.manager.slots == ()
    at.end()


@pytest.mark.parametrize(("whole", "node", "stays"), [(True, "n1", True), (True, "n2", False), (False, "n2", True)])
@in_virtual_time
async def test_what_was_good_in_a_container_that_was_cleared_away_goes_when_its_slot_is_elsewhere(
    whole: bool, node: str, stays: bool
) -> None:
    at = Managed()
    record = dump_record(InstanceRecord(boot="b", good=Good(spec="operator/a#1-1", revision=1), good_key="k"))
    at.node.files.write(f"{SLOT.directory}/{RECORD}", record)
    at.realm.whole = whole
    at.site.place(node=node)
    at.start()
    await asyncio.sleep(10)
    assert at.manager is not None
    assert at.manager.slots == ((SLOT,) if node == "n1" else ())
    left = load_record(at.node.files.read(f"{SLOT.directory}/{RECORD}"))
    assert (left is not None and left.good == Good(spec="operator/a#1-1", revision=1)) is stays
    at.end()


@in_virtual_time
async def test_a_node_says_of_a_copy_that_went_with_its_directory_that_it_is_gone() -> None:
    at = Managed()
    at.start()
    spec = at.site.spec()
    at.site.assign(spec)
    await at.site.until("running")
    at.end()
    at.node.files.content.clear()
    at.start()
    at.site.assign(spec, version=2, node="n2", previous=Previous(node="n1", generation=1, deadline_ms=EPOCH_MS))
    await at.realm.until(lambda: at.states("container")[-1] == "gone")
    assert at.told("container")[-1]["generation"] == 2
    assert at.manager is not None
    assert at.manager.slots == ()
    at.end()


@in_virtual_time
async def test_an_older_fact_that_comes_late_makes_no_container() -> None:
    at = Managed()
    at.start()
    spec = at.site.spec()
    at.site.assign(spec, version=8, node="n2")
    await asyncio.sleep(1)
    del at.realm.facts[SLOT.topic]
    at.site.assign(spec, version=7)
    await asyncio.sleep(10)
    assert at.manager is not None
    assert at.manager.slots == ()
    at.end()


@in_virtual_time
async def test_a_manager_reads_and_keeps_nothing_of_the_slots_of_others() -> None:
    at = await Managed.running()
    for number in range(20):
        other = at.node.agents.site(SlotKey("web", "app", number + 1))
        other.assign(at.site.spec_of(), node="n2", to=("node/n2",))
    await asyncio.sleep(10)
    assert at.manager is not None
    assert set(at.manager._known) == {SLOT}
    (interest,) = [interest for interest, source, _ in at.realm.readers if source == "node/n1"]
    others = [signed.event for signed in at.realm.facts.values() if signed.event.to == ("node/n2",)]
    assert len(others) == 20
    assert not [event for event in others if wants(interest, "node/n1", event)]
    at.end()


@in_virtual_time
async def test_a_winner_that_was_never_addressed_to_this_node_ends_its_copy_for_good() -> None:
    at = Managed()
    at.start()
    spec = at.site.spec()
    at.site.assign(spec, version=8)
    await at.site.until("running")
    at.site.assign(spec, version=9, node="n3", to=("node/n3",))
    await at.realm.until(lambda: at.states("container")[-1] == "gone")
    assert at.told("container")[-1]["generation"] == 9
    await asyncio.sleep(60)
    assert at.states("container")[-1] == "gone"
    assert at.manager is not None
    assert at.manager.slots == ()
    assert not at.node.machine.alive
    at.end()


def test_escalation_to_a_new_container_keeps_the_count_also_where_it_ends_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[set[str]] = []
    remove = MemoryFiles.remove

    def noting(files: MemoryFiles, path: str) -> None:
        if path == OUTCOME and files.read(OUTCOME) == b"recreate":
            left.append({*files.names("")})
        remove(files, path)

    async def main() -> None:
        monkeypatch.setattr(MemoryFiles, "remove", noting)
        at = Managed()
        at.start()
        at.node.machine.steps["sleep"] = Exit(1, None)
        at.site.place()
        await at.site.until("failed")
        log = f"{SLOT.directory}/{LOGS}/stdout.log"
        at.node.files.write(log, b"what a program wrote")
        await at.realm.until(lambda: any(s["parked"] for s in at.site.statuses()), 2000)
        assert at.node.files.read(log), "it says why a new container was made"
        steps = [s["reason"]["step"] for s in at.site.statuses() if s["state"] == "failed"]
        assert steps == ["restart"] * 5 + ["reinstall"] * 2 + ["recreate"] * 2 + ["move"]
        assert at.states("container").count("selected") == 3
        assert left == [KEPT_BY_RECREATION - {TOLD, HELD} | {OUTCOME, RECORD}] * 2, (
            "what asks for it goes when all else is done"
        )
        at.end()

    run(main())


@in_virtual_time
async def test_the_spawner_may_be_away_when_an_agent_is_needed() -> None:
    at = Managed()
    at.node.agents.away = 5
    began = asyncio.get_running_loop().time()
    at.start()
    at.site.place()
    await at.site.until("running")
    assert asyncio.get_running_loop().time() > began + 1, "it is given time to be there again"
    assert "failed" not in at.states("agent")
    at.end()


@in_virtual_time
async def test_shutdown_ends_every_instance_and_then_the_manager() -> None:
    at = Managed()
    process = at.start()
    at.site.place()
    other = at.node.agents.site(SlotKey("web", "app", 1))
    other.assign(at.site.spec_of())
    await at.site.until("running")
    await other.until("running")
    assert at.manager is not None
    assert at.manager.slots == (SLOT, SlotKey("web", "app", 1))
    process.call_soon(lambda: asyncio.ensure_future(at.manager.shutdown()))  # type: ignore[union-attr]
    status = await process.wait()
    assert status.code == 0
    assert not at.node.machine.alive
    assert not [one for one in at.node.agents.started if one.process.alive]
    assert at.states("agent")[-1] == "stopped"
    assert at.site.state() == "stopped"
    at.end()


@in_virtual_time
async def test_shutdown_kills_what_does_not_stop_in_time() -> None:
    at = Managed()
    process = at.start()
    at.site.place("service: web\ncomponents:\n  app:\n    run: sleep stubborn\n    stop: {grace: 1h}\n")
    await at.site.until("running")
    assert at.manager is not None
    process.call_soon(lambda: asyncio.ensure_future(at.manager.shutdown(patience_s=5)))  # type: ignore[union-attr]
    assert (await process.wait()).code == 0
    assert asyncio.get_running_loop().time() < 30
    assert not at.node.machine.alive
    assert at.node.machine.programs[0].signals == [signal.SIGTERM]
    at.end()


@in_virtual_time
async def test_shutdown_ends_what_an_agent_leaves_that_dies_meanwhile() -> None:
    at = Managed()
    process = at.start()
    at.site.place("service: web\ncomponents:\n  app:\n    run: sleep stubborn\n    stop: {grace: 1h}\n")
    await at.site.until("running")
    assert at.manager is not None
    process.call_soon(lambda: asyncio.ensure_future(at.manager.shutdown()))  # type: ignore[union-attr]
    await asyncio.sleep(1)
    at.node.agents.started[0].process.kill()
    assert (await process.wait()).code == 0
    assert not at.node.machine.alive
    at.end()


@in_virtual_time
async def test_after_a_reboot_agents_are_started_anew_and_say_so() -> None:
    at = await Managed.running()
    assert at.process is not None
    at.process.kill()
    at.node.agents.started[0].process.kill()
    at.node.machine.reboot()
    at.start()
    await at.realm.until(lambda: len(at.node.machine.alive) == 1)
    reasons = [told["reason"]["code"] for told in at.told("agent") if told["reason"]]
    assert reasons == ["node.rebooted"]
    at.end()


@in_virtual_time
async def test_of_an_agent_that_ended_while_no_manager_lived_nobody_says_how_long_it_lived() -> None:
    at = await Managed.running()
    assert at.process is not None
    at.process.kill()
    at.node.agents.started[0].process.kill()
    at.start()
    await at.realm.until(lambda: len(at.node.agents.started) == 2)
    (reason,) = [told["reason"] for told in at.told("agent") if told["reason"]]
    assert reason["code"] == "run.vanished"
    at.end()


@pytest.mark.parametrize(("store", "whole", "anew"), [("s", True, 0), ("another", True, 1), ("s", False, 2)])
@in_virtual_time
async def test_what_a_manager_has_said_it_says_again_to_a_store_that_may_not_have_it(
    store: str, whole: bool, anew: int
) -> None:
    at = await Managed.running()
    layers = ("container", "agent")
    said = [len(at.told(layer)) for layer in layers]
    for _ in range(2):  # the second time it is known there
        at.realm.tell(Complete(Cursor(store, 1, 0), whole=whole))
        await asyncio.sleep(5)
    assert [len(at.told(layer)) for layer in layers] == [one + anew for one in said]
    at.end()


@in_virtual_time
async def test_what_a_manager_has_said_it_says_again_where_another_key_of_its_node_has_ended() -> None:
    at = await Managed.running()
    second = SlotKey("web", "app", 1)
    other = at.node.agents.site(second)
    other.place()
    await other.until("running")
    topics = [f"{slot.on('status', 'n1')}/{layer}" for slot in (SLOT, second) for layer in ("container", "agent")]
    said = [len(at.realm.told(topic)) for topic in topics]
    at.realm.tell(Notice("dsmt.notice.trimmed", "nothing to this node"))
    at.realm.tell(NAMESAKE)
    await asyncio.sleep(5)
    assert [len(at.realm.told(topic)) for topic in topics] == [one + 1 for one in said]
    at.end()


@in_virtual_time
async def test_a_manager_beats_each_second_and_renews_each_half_life() -> None:
    at = await Managed.running()
    said = len(at.told("container"))
    await asyncio.sleep(14 * 3600)
    assert len(at.told("container")) == said + 1
    assert at.node.bus is not None
    assert abs(at.node.bus.beats - 14 * 3600) < 10
    at.end()


@in_virtual_time
async def test_an_agent_that_lived_for_a_while_is_started_at_once_however_often_it_has_ended() -> None:
    at = await Managed.running()
    for _ in range(6):
        await asyncio.sleep(60)
        started = at.node.agents.started
        count, began = len(started), asyncio.get_running_loop().time()
        started[-1].process.kill()
        await at.realm.until(lambda count=count: len(at.node.agents.started) > count)  # type: ignore[misc]
        assert asyncio.get_running_loop().time() - began < 0.5
    at.end()


def test_of_an_agent_that_a_full_disk_lets_nobody_note_no_former_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    write = MemoryFiles.write

    def full(files: MemoryFiles, path: str, content: bytes, *, mode: int = 0o600) -> None:
        if path == PROCESS:
            raise FailedError("fetch.no_space", "no space", need="1 KiB", path=path, free="0")
        write(files, path, content, mode=mode)

    async def main() -> None:
        at = await Managed.running()
        files = at.node.files.below(SLOT.directory)
        assert files.read(PROCESS) is not None
        monkeypatch.setattr(MemoryFiles, "write", full)
        at.node.agents.started[-1].process.kill()
        await at.realm.until(lambda: len(at.node.agents.started) == 2)
        await at.realm.until(lambda: at.states("agent")[-1] == "running")
        assert files.read(PROCESS) is None, "a manager that comes later would take the former for the last"
        at.end()

    run(main())
