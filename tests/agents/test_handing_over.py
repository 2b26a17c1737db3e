"""An update: the new copy runs beside the old one, and takes over when it is ready."""

import asyncio

import pytest

from dsmt.agents.instance.handover import FOLLOW_S, HEARD_S
from dsmt.agents.rules.container import RECORD
from dsmt.agents.rules.record import load_record
from dsmt.errors import FailedError
from dsmt.ports.processes import Exit
from tests.loops import in_virtual_time

from .memory_bus import Realm
from .sights import CHECKED, DOZES, PARKS, served, two_copies
from .world import WEB, Site


@in_virtual_time
async def test_a_new_revision_is_installed_beside_what_runs_and_replaces_it_then() -> None:
    site = Site(Realm())
    one_by_one = WEB + "    update: {order: stop_first}\n"
    site.place(one_by_one)
    agent = site.start()
    await site.until("running")
    old = site.machine.alive[0]
    site.artifacts.takes_s = 4.5
    text = one_by_one.replace("    run: sleep", "    artifact: {url: 'depot:aa', sha256: " + "b" * 64 + "}\n    run: doze")
    site.assign(site.spec(text, version=2), version=2)
    await site.until("initiated")
    await asyncio.sleep(4)
    assert old.ended is None
    await site.until("running")
    assert old.ended is not None
    (new,) = site.machine.alive
    assert new.launch.argv[0] == "doze"
    assert new.launch.directory != old.launch.directory
    assert new.launch.env["PORT"] == old.launch.env["PORT"]
    status = site.statuses()[-1]
    assert (status["generation"], status["revision"]) == (2, 2)
    passed = ["requested", "initiated", "terminated", "stopped", "initiated", "instantiated", "running"]
    assert site.states()[-7:] == passed
    agent.kill()


@in_virtual_time
async def test_an_update_starts_the_new_copy_beside_the_old_one_which_is_served_until_the_new_one_is_ready() -> None:
    site = Site(Realm())
    agent = site.start()
    old = await two_copies(site)
    await asyncio.sleep(3)
    new = site.machine.alive[1]
    assert new.launch.argv[0] == "doze"
    before, after = int(old.launch.env["PORT"]), int(new.launch.env["PORT"])
    assert before != after
    assert site.endpoint() == {"address": "127.0.0.1", "ports": {"http": before}, "generation": 1, "ready": True}
    site.checks.passed = True
    await site.realm.until(lambda: site.machine.alive == [new])
    told = site.realm.told(site.slot.on("endpoint", site.node))
    assert [one["ready"] for one in told] == [True, True], "it was never withdrawn"
    assert (told[-1]["ports"], told[-1]["generation"]) == ({"http": after}, 2)
    assert "terminated" not in site.states()
    agent.kill()


@pytest.mark.parametrize("how", ["unready", "dead"])
@in_virtual_time
async def test_a_copy_that_is_being_ended_is_not_served_again_when_its_successor_fails(how: str) -> None:
    """It would be served when it has ended, too: nobody withdraws it a second time."""
    site = Site(Realm())
    agent = site.start()
    old = await served(site, CHECKED.replace("run: sleep", "run: stubborn") + "    stop: {grace: 60s}\n")
    site.assign(site.spec(DOZES, version=2), version=2)
    await site.realm.until(lambda: old.signals != [])
    (new,) = [one for one in site.machine.alive if one is not old]
    assert site.endpoint()["ready"]
    assert old.ended is None
    site.checks.passed = False
    if how == "dead":
        new.end(Exit(1, None))
    await site.realm.until(lambda: not site.endpoint()["ready"])
    await site.realm.until(lambda: old.ended is not None)
    await asyncio.sleep(2)
    told = site.realm.told(site.slot.on("endpoint", site.node))
    said = [(one["generation"], one["ready"]) for one in told]
    assert list(dict.fromkeys(said)) == [(1, True), (2, True), (2, False)]
    assert said[-1] == (2, False)
    site.checks.passed = True
    await site.realm.until(lambda: site.endpoint()["ready"])
    assert site.endpoint()["generation"] == 2
    agent.kill()


@in_virtual_time
async def test_a_third_revision_that_is_being_installed_while_the_second_takes_over_is_installed_to_its_end() -> None:
    site = Site(Realm())
    agent = site.start()
    old = await two_copies(site)
    second = site.machine.alive[1]
    site.artifacts.takes_s = 5.0
    artifact = "    artifact: {url: 'depot:aa', sha256: " + "b" * 64 + "}\n    run: nap"
    site.assign(site.spec(CHECKED.replace("    run: sleep", artifact), version=3), version=3)
    await site.realm.until(lambda: site.realm.told(site.slot.on("progress", site.node)))
    site.checks.passed = True
    await site.realm.until(lambda: old.ended is not None)
    await asyncio.sleep(1)
    record = load_record(site.files.read(f"{site.slot.directory}/{RECORD}"))
    assert record is not None
    assert second.ended is None
    assert record.install_key in record.installed, "what runs is not installed any more"
    await site.realm.until(lambda: any(one.launch.argv[0] == "nap" for one in site.machine.alive))
    assert len(site.artifacts.installed) == 1, "it was started where nothing is installed"
    await site.realm.until(lambda: len(site.machine.alive) == 1)
    agent.kill()


@in_virtual_time
async def test_what_may_not_overlap_is_not_started_beside_a_copy_whose_successor_failed() -> None:
    site = Site(Realm())
    agent = site.start()
    old = await served(site, CHECKED + PARKS)
    site.machine.steps["doze"] = Exit(1, None)
    site.assign(site.spec(DOZES + PARKS, version=2), version=2)
    await site.realm.until(lambda: site.statuses()[-1]["parked"])
    assert site.machine.alive == [old]
    alone = CHECKED.replace("    run: sleep", "    run: nap") + "    update: {order: stop_first}\n"
    site.assign(site.spec(alone, version=3), version=3)
    await site.realm.until(lambda: any(one.launch.argv[0] == "nap" for one in site.machine.alive))
    assert [one for one in site.machine.copies if one.launch.argv[0] == "nap"] == []
    assert old.ended is not None
    await site.realm.until(lambda: site.endpoint() == {**site.endpoint(), "generation": 3, "ready": True})
    agent.kill()


@pytest.mark.parametrize("ready", [True, False])
@in_virtual_time
async def test_of_a_revision_that_cannot_be_installed_the_process_is_named_that_runs_on_served_or_not(ready: bool) -> None:
    """It holds its ports and its memory, and whoever asks what runs on a node finds it."""
    site = Site(Realm())
    agent = site.start()
    old = await served(site)
    site.checks.passed = ready
    await site.realm.until(lambda: site.endpoint()["ready"] == ready)
    site.machine.steps["false"] = Exit(1, None)
    site.assign(site.spec(DOZES + "    install: 'false'\n", version=2), version=2)
    await site.until("failed")
    assert site.machine.alive == [old]
    assert site.statuses()[-1]["pid"] == old.pid
    assert (site.endpoint()["ready"], site.health()) == (ready, "ready" if ready else "unready")
    agent.kill()


@in_virtual_time
async def test_what_was_good_before_another_revision_could_not_be_installed_is_said_by_then() -> None:
    site = Site(Realm())
    agent = site.start()
    await served(site)
    good = {"spec": str(site.spec_of().id), "revision": 1}
    site.artifacts.takes_s = 60.0
    site.artifacts.wrong = FailedError("fetch.not_found", "depot:aa does not exist (gone)", url="depot:aa")
    artifact = "    artifact: {url: 'depot:aa', sha256: " + "b" * 64 + "}\n    run: nap"
    site.assign(site.spec(CHECKED.replace("    run: sleep", artifact), version=2), version=2)
    assert site.good() is None
    await site.until("failed")
    failed = next(status for status in site.statuses() if status["state"] == "failed")
    assert failed["good"] == good
    agent.kill()


@in_virtual_time
async def test_what_runs_is_served_at_its_own_ports_while_another_revision_is_installed() -> None:
    site = Site(Realm())
    agent = site.start()
    alone = CHECKED + "    update: {order: stop_first}\n"
    old = await served(site, alone)
    site.artifacts.takes_s = 60.0
    artifact = "    artifact: {url: 'depot:aa', sha256: " + "b" * 64 + "}\n    run: nap"
    site.assign(site.spec(alone.replace("    run: sleep", artifact).replace("auto", "8080"), version=2), version=2)
    await site.realm.until(lambda: site.realm.told(site.slot.on("progress", site.node)))
    for passed in (False, True):
        site.checks.passed = passed
        await site.realm.until(lambda passed=passed: site.endpoint()["ready"] == passed)
    assert site.machine.alive == [old]
    assert site.endpoint()["ports"] == {"http": int(old.launch.env["PORT"])}
    site.artifacts.takes_s = 0.0
    await site.realm.until(lambda: site.endpoint() == {**site.endpoint(), "generation": 2, "ready": True})
    assert site.endpoint()["ports"] == {"http": 8080}
    agent.kill()


@in_virtual_time
async def test_an_update_that_never_becomes_ready_leaves_the_old_copy_served_and_going_back_restarts_nothing() -> None:
    site = Site(Realm())
    agent = site.start()
    old = await served(site, CHECKED + PARKS)
    site.machine.steps["doze"] = Exit(1, None)
    site.assign(site.spec(DOZES + PARKS, version=2), version=2)
    await site.realm.until(lambda: site.statuses()[-1]["parked"])
    assert site.endpoint()["ready"]
    site.assign(site.spec(CHECKED + PARKS, version=3), version=3)
    await site.realm.until(lambda: site.state() == "running" and site.statuses()[-1]["generation"] == 3)
    assert site.machine.alive == [old]
    assert all(one["ready"] for one in site.realm.told(site.slot.on("endpoint", site.node)))
    assert site.endpoint()["ports"] == {"http": int(old.launch.env["PORT"])}
    old.end(Exit(None, 9))
    await site.realm.until(lambda: len(site.machine.alive) == 1 and old not in site.machine.alive)
    agent.kill()


@in_virtual_time
async def test_a_new_copy_that_is_ready_for_a_moment_only_leaves_the_old_one_served() -> None:
    site = Site(Realm())
    agent = site.start()
    old = await served(site, CHECKED + PARKS)
    site.assign(site.spec(DOZES + PARKS, version=2), version=2)
    await site.realm.until(lambda: site.endpoint()["generation"] == 2)
    await asyncio.sleep(0.2)
    site.machine.steps["doze"] = Exit(1, None)
    site.machine.alive[1].end(Exit(1, None))
    await site.realm.until(lambda: site.endpoint()["generation"] == 1 and site.endpoint()["ready"], 1)
    assert site.endpoint()["ports"] == {"http": int(old.launch.env["PORT"])}
    await site.realm.until(lambda: site.statuses()[-1]["parked"])
    site.assign(site.spec(CHECKED + PARKS, version=3), version=3)
    await site.realm.until(lambda: site.state() == "running" and site.statuses()[-1]["generation"] == 3)
    assert site.machine.alive == [old]
    assert site.endpoint() == {**site.endpoint(), "ports": {"http": int(old.launch.env["PORT"])}, "ready": True}
    agent.kill()


async def said_to_nobody(site):
    """The copy before, when the new one is ready beside it and no broker is there to be told."""
    old = await served(site, CHECKED + PARKS)
    site.assign(site.spec(DOZES + PARKS, version=2), version=2)
    await site.realm.until(lambda: site.state() == "running" and len(site.machine.alive) == 2)
    site.realm.up.clear()
    await site.realm.until(lambda: site.endpoint()["generation"] == 2)
    return old


@in_virtual_time
async def test_the_old_copy_is_stopped_when_readers_had_a_second_to_follow_since_a_broker_knows_of_the_new_one() -> None:
    site = Site(Realm())
    agent = site.start()
    old = await said_to_nobody(site)
    await asyncio.sleep(20)
    assert old.ended is None, "nobody knows of the new one yet"
    site.realm.up.set()
    await asyncio.sleep(FOLLOW_S - 0.1)
    assert old.ended is None
    await site.realm.until(lambda: len(site.machine.alive) == 1, 0.2)
    assert old.ended is not None
    agent.kill()


@in_virtual_time
async def test_where_no_broker_takes_in_where_the_new_copy_is_reached_the_old_one_is_stopped_after_a_minute() -> None:
    site = Site(Realm())
    agent = site.start()
    old = await said_to_nobody(site)
    await asyncio.sleep(HEARD_S)
    assert old.ended is None
    await site.realm.until(lambda: old.ended is not None, FOLLOW_S + 0.1)
    agent.kill()


@in_virtual_time
async def test_a_copy_that_ends_by_itself_while_its_successor_starts_is_served_no_more() -> None:
    site = Site(Realm())
    agent = site.start()
    old = await two_copies(site)
    assert (site.endpoint()["ready"], site.endpoint()["generation"]) == (True, 1)
    old.end(Exit(1, None))
    await site.realm.until(lambda: not site.endpoint()["ready"], 1.0)
    agent.kill()


@in_virtual_time
async def test_what_a_copy_that_ends_while_its_successor_starts_has_left_behind_is_ended() -> None:
    site = Site(Realm())
    agent = site.start()
    old = await two_copies(site)
    swept: list[float] = []

    async def kill(*, deadline: float) -> tuple[int, ...]:
        swept.append(deadline)
        return ()

    old.kill = kill  # type: ignore[method-assign]
    old.end(Exit(1, None))
    await site.realm.until(lambda: bool(swept), 5.0)
    agent.kill()
