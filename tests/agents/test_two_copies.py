"""Two copies of an instance: what becomes of them when something dies, fails or goes back."""

import asyncio
from pathlib import Path

import pytest

from dsmt.agents.rules.container import RECORD
from dsmt.agents.rules.launching import place_of
from dsmt.agents.rules.record import load_record
from dsmt.ports.processes import Exit
from dsmt.simulator.engine.run import run
from tests.loops import in_virtual_time

from .memory_bus import Realm
from .memory_machine import Program
from .sights import CHECKED, DOZES, FAILS, PARKS, served, two_copies
from .world import WEB, Site


async def find_their_port_taken(site: Site, old: Program) -> None:
    """All but the old copy end soon, and say why on standard output."""
    while True:
        for one in site.machine.alive:
            if one is not old and one.launch.argv[0] == "doze":
                site.logs.write(Path(one.launch.stdout).stem, "bind: Address already in use\n")
                one.end(Exit(1, None))
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("installs", ["", "    install: 'true'\n"], ids=["the same installation", "another installation"])
@in_virtual_time
async def test_no_step_of_its_escalation_lets_a_new_copy_end_the_old_one_or_take_its_files(installs: str) -> None:
    site = Site(Realm())
    agent = site.start()
    old = await served(site)
    record = load_record(site.files.read(f"{site.slot.directory}/{RECORD}"))
    assert record is not None
    mine = f"{site.slot.directory}/{place_of(record.install_key)}/mine"
    site.files.write(mine, b"written by the old copy")
    site.machine.steps |= {"true": Exit(0, None)}
    fails = asyncio.ensure_future(find_their_port_taken(site, old))
    site.assign(site.spec(DOZES + installs, version=2), version=2)
    await site.realm.until(lambda: site.statuses()[-1]["parked"], 1000)
    assert agent.alive
    hinted = [s["reason"] for s in site.statuses() if s["reason"]]
    assert {reason["code"] for reason in hinted} == {"start.exited", "run.flapping"}
    assert all("`update: {order: stop_first}`" in reason["message"] for reason in hinted)
    assert site.machine.alive == [old]
    assert site.files.read(mine) == b"written by the old copy"
    assert all(one["ready"] for one in site.realm.told(site.slot.on("endpoint", site.node)))
    fails.cancel()
    site.assign(site.spec(DOZES + installs + "    env: {FIXED: 'yes'}\n", version=3), version=3)
    await site.realm.until(lambda: site.endpoint()["generation"] == 3 and old not in site.machine.alive)
    site.machine.alive[-1].end(Exit(1, None))
    await site.until("failed")
    assert "stop_first" not in site.statuses()[-1]["reason"]["message"]
    agent.kill()


@in_virtual_time
async def test_of_what_fails_beside_the_copy_before_that_one_is_named_and_its_restarts_are_its_own_when_it_is_gone_back_to():
    site = Site(Realm())
    agent = site.start()
    old = await served(site)
    before = site.spec_of()
    site.machine.steps["doze"] = Exit(1, None)
    for version in (2, 4):
        site.assign(site.spec(DOZES, version=version), version=version)
        await site.realm.until(lambda: site.statuses()[-1]["restarts"] >= 2)
        await site.until("failed")
        assert site.statuses()[-1]["pid"] == old.pid
        if version == 4:
            agent.kill()
            agent = site.start()
        site.assign(before, version=version + 1)
        await site.until("running")
        told = site.statuses()[-1]
        assert (told["pid"], told["restarts"], told["restarts_recent"]) == (old.pid, 0, 0)
    agent.kill()


@in_virtual_time
async def test_an_old_copy_that_ends_while_it_is_handed_over_is_served_no_more() -> None:
    site = Site(Realm())
    agent = site.start()
    old = await two_copies(site)
    old.end(Exit(None, 9))
    await site.realm.until(lambda: not site.endpoint()["ready"])
    site.checks.passed = True
    await site.realm.until(lambda: site.endpoint()["ready"])
    assert len(site.machine.alive) == 1
    agent.kill()


def test_an_agent_killed_while_it_hands_over_is_followed_by_one_that_leaves_one_copy() -> None:
    for step in range(1, 40):

        async def main(step: int = step) -> None:
            site = Site(Realm())
            agent = site.start()
            await served(site)
            site.assign(site.spec(DOZES, version=2), version=2)
            await asyncio.sleep(step * 0.003)
            agent.kill()
            agent = site.start()
            await site.realm.until(lambda: site.state() == "running" and site.endpoint()["generation"] == 2)
            await site.realm.until(lambda: len(site.machine.alive) == 1)
            (program,) = site.machine.alive
            assert program.launch.argv[0] == "doze"
            assert site.endpoint()["ports"] == {"http": int(program.launch.env["PORT"])}
            agent.kill()

        run(main())


def test_an_agent_killed_while_it_hands_over_leaves_the_old_copy_served_until_the_new_one_is_ready() -> None:
    for step in range(1, 60):

        async def main(step: int = step) -> None:
            site = Site(Realm())
            agent = site.start()
            old = await served(site)
            site.checks.passed = False
            site.assign(site.spec(DOZES, version=2), version=2)
            await asyncio.sleep(step * 0.002)
            for _ in range(2):
                agent.kill()
                agent = site.start()
                await asyncio.sleep(3)
                assert len(site.machine.alive) == 2
                assert old in site.machine.alive
                ports = {"http": int(old.launch.env["PORT"])}
                assert site.endpoint() == {"address": "127.0.0.1", "ports": ports, "generation": 1, "ready": True}
            told = [endpoint["ready"] for endpoint in site.realm.told(site.slot.on("endpoint", site.node))]
            assert all(told)
            site.checks.passed = True
            await site.realm.until(lambda: old not in site.machine.alive and site.endpoint()["generation"] == 2)
            (new,) = site.machine.alive
            assert new.launch.argv[0] == "doze"
            agent.kill()

        run(main())


@in_virtual_time
async def test_a_copy_that_was_ready_when_its_agent_was_killed_while_it_hands_over_is_the_one_that_is_served() -> None:
    site = Site(Realm())
    agent = site.start()
    old = await served(site)
    site.assign(site.spec(DOZES, version=2), version=2)
    await site.realm.until(lambda: site.endpoint()["generation"] == 2)
    new = site.machine.alive[1]
    await asyncio.sleep(0.1)
    agent.kill()
    agent = site.start()
    await site.realm.until(lambda: old not in site.machine.alive)
    assert site.machine.alive == [new]
    assert site.endpoint()["ports"] == {"http": int(new.launch.env["PORT"])}
    agent.kill()


@pytest.mark.parametrize("dies", ["old", "new", "both"])
@in_virtual_time
async def test_what_dies_of_two_copies_while_no_agent_lives_is_not_served_and_the_other_is(dies: str) -> None:
    site = Site(Realm())
    agent = site.start()
    old = await two_copies(site)
    await asyncio.sleep(1)
    agent.kill()
    new = site.machine.alive[1]
    for program in {"old": [old], "new": [new], "both": [old, new]}[dies]:
        program.end(Exit(None, 9))
    agent = site.start()
    await asyncio.sleep(5)
    assert site.endpoint()["ready"] == (dies == "new")
    assert (old in site.machine.alive, new in site.machine.alive) == (dies == "new", dies == "old")
    site.checks.passed = True
    await site.realm.until(lambda: site.endpoint()["ready"] and site.endpoint()["generation"] == 2)
    await site.realm.until(lambda: len(site.machine.alive) == 1)
    agent.kill()


@in_virtual_time
async def test_going_back_while_another_agent_has_taken_both_copies_over_restarts_nothing() -> None:
    site = Site(Realm())
    agent = site.start()
    old = await served(site)
    before = site.spec_of()
    site.checks.passed = False
    site.assign(site.spec(DOZES, version=2), version=2)
    await site.realm.until(lambda: len(site.machine.alive) == 2)
    agent.kill()
    agent = site.start()
    await asyncio.sleep(3)
    site.assign(before, version=3)
    await site.realm.until(lambda: site.machine.alive == [old])
    site.checks.passed = True
    await site.realm.until(lambda: site.endpoint()["ready"] and site.endpoint()["generation"] == 3)
    assert len(site.machine.programs) == 2
    agent.kill()


@in_virtual_time
async def test_a_slot_that_leaves_while_it_hands_over_leaves_nothing_running() -> None:
    site = Site(Realm())
    agent = site.start()
    await served(site)
    site.checks.passed = False
    spec = site.spec(DOZES, version=2)
    site.assign(spec, version=2)
    await site.realm.until(lambda: len(site.machine.alive) == 2)
    site.assign(spec, version=3, desired="gone")
    await site.until("gone")
    assert not site.machine.alive
    assert not site.endpoint()["ready"]
    agent.kill()


@in_virtual_time
async def test_a_fix_to_a_parked_instance_is_not_said_to_be_parked() -> None:
    site = Site(Realm())
    site.machine.steps["false"] = Exit(1, None)
    site.machine.steps["true"] = Exit(0, None)
    site.place(FAILS)
    agent = site.start()
    await site.realm.until(lambda: site.statuses() and site.statuses()[-1]["parked"])
    site.assign(site.spec(FAILS.replace("false", "true"), version=2), version=2)
    await site.realm.until(lambda: site.health() == "none")
    fixed = [status for status in site.statuses() if status["generation"] == 2]
    assert [status["state"] for status in fixed] == ["initiated", "instantiated", "running"]
    assert not any(status["parked"] or status["next_try_ms"] for status in fixed)
    agent.kill()


@in_virtual_time
async def test_an_update_whose_installation_fails_leaves_what_runs_served_and_going_back_says_that_it_runs() -> None:
    site = Site(Realm())
    site.machine.steps["false"] = Exit(1, None)
    site.place(WEB + PARKS)
    agent = site.start()
    await site.realm.until(lambda: site.endpoint() and site.endpoint()["ready"])
    (program,) = site.machine.alive
    await asyncio.sleep(5)
    first = str(site.spec_of().id)
    site.assign(site.spec(FAILS, version=2), version=2)
    await site.realm.until(lambda: site.statuses()[-1]["parked"])
    assert site.endpoint()["ready"], "nothing of what is served has failed"
    assert site.machine.alive == [program]
    assert site.statuses()[-1]["good"] == {"spec": first, "revision": 1}
    site.assign(site.spec(WEB + PARKS, version=3), version=3)
    await site.until("running")
    assert site.machine.alive == [program]
    assert site.statuses()[-1]["generation"] == 3
    agent.kill()


@in_virtual_time
async def test_what_runs_is_not_taken_for_the_revision_that_is_being_installed_when_its_agent_is_killed() -> None:
    site = Site(Realm())
    site.place(WEB)
    agent = site.start()
    await site.realm.until(lambda: site.endpoint() and site.endpoint()["ready"])
    await asyncio.sleep(60)
    (program,) = site.machine.alive
    first = str(site.spec_of().id)
    site.artifacts.takes_s = 600
    text = CHECKED.replace("    run: sleep", "    artifact: {url: 'depot:aa', sha256: " + "b" * 64 + "}\n    run: doze")
    site.assign(site.spec(text, version=2), version=2)
    await site.until("initiated")
    agent.kill()
    site.checks.passed = False
    agent = site.start()
    await asyncio.sleep(120)
    assert site.machine.alive == [program]
    assert site.endpoint()["ready"], "the checks of the other revision are not its own"
    good = site.record().good
    assert good is not None
    assert good.spec == first
    agent.kill()


@in_virtual_time
async def test_an_update_that_comes_while_the_first_start_is_not_over_never_says_that_it_runs() -> None:
    site = Site(Realm())
    site.checks.passed = False
    site.place(CHECKED)
    agent = site.start()
    await site.until("instantiated")
    text = CHECKED.replace("    run: sleep", "    artifact: {url: 'depot:aa', sha256: " + "b" * 64 + "}\n    run: doze")
    site.assign(site.spec(text, version=2), version=2)
    await site.realm.until(lambda: site.machine.alive and site.machine.alive[0].launch.argv[0] == "doze")
    await site.until("instantiated")
    assert "running" not in site.states()
    agent.kill()


@in_virtual_time
async def test_a_generation_that_changes_nothing_of_what_runs_restarts_nothing() -> None:
    site = Site(Realm())
    site.place(CHECKED)
    agent = site.start()
    await site.realm.until(lambda: site.health() == "ready")
    text = CHECKED.replace("path: /", "path: /other")
    site.assign(site.spec(text, version=2), version=2)
    await site.realm.until(lambda: site.statuses()[-1]["generation"] == 2)
    assert len(site.machine.programs) == 1
    await site.realm.until(lambda: site.endpoint()["generation"] == 2)
    assert site.state() == "running"
    agent.kill()


@pytest.mark.parametrize("configures", [0, 1], ids=["never ready", "its configure fails"])
@in_virtual_time
async def test_what_is_taken_back_has_its_small_files_again(configures: int) -> None:
    site = Site(Realm())
    site.machine.steps |= {"mine": Exit(0, None), "other": Exit(configures, None)}
    text = CHECKED + "    files: [{to: conf, content: 'of the first'}]\n    configure: mine {port.http}\n"
    agent = site.start()
    old = await served(site, text)
    place = f"{site.slot.directory}/{place_of(site.record().install_key)}"
    site.checks.passed = False
    other = text.replace("of the first", "of another").replace("mine", "other")
    site.assign(site.spec(other, version=2), version=2)
    await site.realm.until(lambda: any(p.launch.argv[0] == "other" for p in site.machine.programs))
    await asyncio.sleep(2)
    site.assign(site.spec(text, version=3), version=3)
    await site.realm.until(lambda: site.statuses()[-1]["generation"] == 3 and site.state() == "running")
    assert site.machine.alive == [old]
    assert site.files.read(f"{place}/conf") == b"of the first"
    steps = [p.launch.argv for p in site.machine.programs if p.launch.argv[0] in ("mine", "other")]
    assert steps[-1] == ("mine", old.launch.env["PORT"])
    assert all(one["ready"] for one in site.realm.told(site.slot.on("endpoint", site.node)))
    agent.kill()


@in_virtual_time
async def test_what_is_taken_back_with_other_checks_and_dies_before_they_pass_is_served_no_more() -> None:
    site = Site(Realm())
    agent = site.start()
    old = await two_copies(site)
    site.assign(site.spec(CHECKED.replace("path: /", "path: /other"), version=3), version=3)
    await site.realm.until(lambda: site.machine.alive == [old] and site.statuses()[-1]["generation"] == 3)
    assert site.endpoint()["ready"]
    old.end(Exit(1, None))
    await site.realm.until(lambda: not site.endpoint()["ready"], 5)
    agent.kill()


@in_virtual_time
async def test_a_small_file_of_which_a_revision_says_nothing_more_is_there_no_more() -> None:
    site = Site(Realm())
    agent = site.start()
    files = "    files: [{to: a, content: A}, {to: b, content: B}]\n"
    old = await served(site, CHECKED + files)
    site.assign(site.spec(CHECKED + files.replace(", {to: b, content: B}", ""), version=2), version=2)
    await site.realm.until(lambda: site.endpoint()["generation"] == 2 and old not in site.machine.alive)
    below = f"{site.slot.directory}/{place_of(site.record().install_key)}"
    assert site.files.read(f"{below}/a") == b"A"
    assert site.files.read(f"{below}/b") is None
    agent.kill()
