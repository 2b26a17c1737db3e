"""The deployment agent as a whole, in the simulator's time, over a bus and a machine in memory."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from dsmt.agents.rules.container import (
    EXIT_GONE,
    EXIT_RECREATE,
    EXIT_STOPPED,
    OUTCOME,
    RECORD,
    carried,
    dump_record,
    load_record,
)
from dsmt.agents.rules.launching import place_of
from dsmt.errors import FailedError, TransportError
from dsmt.event.envelope import EventId
from dsmt.event.kinds.instance import Command
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.kinds.slot import Previous
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft
from dsmt.ports.processes import Exit

from .world import WEB, Bus, MemoryFiles, Realm, Site, in_virtual_time

Doing = Callable[[Site], Awaitable[None]]
CHECKED = WEB + "    health: {http: {port: http, path: /}}\n"


def test_a_new_slot_is_installed_started_ready_and_served() -> None:
    async def main() -> None:
        site = Site(Realm())
        slot = site.place()
        agent = site.start()
        await site.until("running")
        assert site.states() == ["requested", "initiated", "instantiated", "running"]
        (program,) = site.machine.alive
        assert program.launch.argv == ("sleep", "forever")
        port = program.launch.env["PORT_HTTP"]
        assert 20000 <= int(port) < 30000
        assert program.launch.env["PORT"] == port
        assert program.launch.env["DSMT_INSTANCE"] == "web/app/0"
        assert program.launch.env["PATH"] == "/bin"
        assert "SECRET" not in program.launch.env
        assert site.endpoint() is None
        await site.realm.until(lambda: site.health() == "none")
        assert site.endpoint() == {"address": "127.0.0.1", "ports": {"http": int(port)}, "generation": 1, "ready": True}
        first = next(s for s in site.realm.log if s.event.source == "agent/n1/web/app/0")
        assert first.event.cause == (slot.id,)
        agent.kill()

    in_virtual_time(main)


def test_a_death_after_a_healthy_run_is_answered_before_anything_is_said() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.realm.until(lambda: site.health() == "none")
        (program,) = site.machine.alive
        site.logs.write("stderr", "the last words\n")
        before = len(site.realm.log)
        found = []
        publish = site.realm.publish
        site.realm.publish = lambda signed: (found.append((len(site.machine.alive), site.kept_pid())), publish(signed))  # type: ignore[method-assign]
        program.end(Exit(None, 9))
        await site.realm.until(lambda: site.states()[-1] == "running" and "failed" in site.states())
        (new,) = site.machine.alive
        assert new is not program
        assert found[0] == (1, new.identity.pid), "started first, then written down, then told"
        told = [s.event for s in site.realm.log[before:] if s.event.type == "dsmt.status"]
        assert [e.data["state"] for e in told] == ["failed", "instantiated", "running"]
        failed, *after = told
        assert failed.data["reason"]["code"] == "run.signal"
        assert failed.data["reason"]["signal"] == "SIGKILL"
        assert "the last words" in failed.data["reason"]["last_output"]
        assert failed.data["last_exit"]["signal"] == "SIGKILL"
        assert all(e.cause == (failed.id,) for e in after)
        assert after[-1].data["restarts"] == 1
        assert after[-1].data["last_exit"]["reason"]["code"] == "run.signal"
        assert site.machine.alive[0].launch.env == program.launch.env
        agent.kill()

    in_virtual_time(main)


def test_a_program_that_never_lives_backs_off_escalates_and_is_parked() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        site.machine.steps["sleep"] = Exit(1, None)
        agent = site.start()
        codes = []
        while True:
            status = await agent.wait()
            codes.append(status.code)
            assert status.code == EXIT_RECREATE
            record = load_record(site.files.read(f"{site.slot.directory}/{RECORD}"))
            assert record is not None
            site.files.write(f"{site.slot.directory}/{RECORD}", dump_record(carried(record)))
            site.files.remove(f"{site.slot.directory}/files")
            agent = site.start()
            if len(codes) == 2:
                break
        await site.realm.until(lambda: site.statuses()[-1]["parked"], 1000)
        last = site.statuses()[-1]
        assert last["state"] == "failed"
        assert last["reason"]["code"] == "run.flapping"
        assert last["reason"]["step"] == "move"
        assert last["next_try_ms"] is not None
        failed = [s for s in site.statuses() if s["state"] == "failed"]
        steps = [s["reason"]["step"] for s in failed]
        assert steps == ["restart"] * 5 + ["reinstall"] * 2 + ["recreate"] * 2 + ["move"]
        tries = len(site.machine.programs)
        await site.realm.until(lambda: len(site.machine.programs) > tries, 700)
        agent.kill()

    in_virtual_time(main)


def test_what_cannot_be_started_counts_its_failures_as_restarts_and_keeps_the_reason_while_it_is_tried_again() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        site.machine.wrong = FailedError(
            "start.cannot_exec", "sleep in .: not found", program="sleep", dir=".", error="not found"
        )
        agent = site.start()
        await site.realm.until(lambda: len([s for s in site.statuses() if s["state"] == "failed"]) == 4)
        told = site.statuses()
        assert [(s["restarts"], s["failures"]) for s in told if s["state"] == "failed"] == [(1, 1), (2, 2), (3, 3), (4, 4)]
        trying = [s for s in told if s["state"] == "initiated" and s["attempt"] > 1]
        assert all(s["last_exit"]["reason"]["code"] == "start.cannot_exec" for s in trying)
        agent.kill()

    in_virtual_time(main)


def test_what_is_never_tried_again_says_that_only_an_operator_acts() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place(WEB + "    restart: never\n")
        agent = site.start()
        await site.until("running")
        site.machine.alive[0].end(Exit(3, None))
        await site.until("failed")
        why = site.statuses()[-1]["reason"]
        assert (why["code"], why["who"], why["next"]) == ("run.exited", "you", "dsmt retry web/app/0")
        agent.kill()

    in_virtual_time(main)


def test_a_killed_agent_is_followed_by_one_that_takes_the_program_over() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.realm.until(lambda: site.health() == "none")
        agent.kill()
        site.realm.up.clear()
        agent = site.start()
        said = len(site.realm.log)
        await site.realm.until(lambda: len(site.realm.log) >= said + 3)
        assert len(site.machine.programs) == 1
        assert site.state() == "running"
        assert site.endpoint()["ready"]
        site.machine.alive[0].end(Exit(3, None))
        await site.realm.until(lambda: len(site.machine.programs) == 2)
        assert site.statuses()[-1]["last_exit"]["code"] == 3
        agent.kill()

    in_virtual_time(main)


def test_a_program_that_died_while_no_agent_lived_is_told_and_started_again() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.realm.until(lambda: site.health() == "none")
        agent.kill()
        site.machine.alive[0].end(Exit(7, None))
        agent = site.start()
        await site.realm.until(lambda: len(site.machine.alive) == 1)
        failed = [s for s in site.statuses() if s["state"] == "failed"]
        assert failed[-1]["reason"]["code"] == "run.exited"
        assert failed[-1]["reason"]["exit_code"] == 7
        await site.until("running")
        agent.kill()

    in_virtual_time(main)


def killed_at(
    moment: int, scenario: Callable[[Site], Awaitable[None]], afterwards: Callable[[Site], Awaitable[None]]
) -> bool:
    """Kill the agent of a scenario at its n-th start of a program or write; another one follows. Whether there was one."""
    site = Site(Realm())

    async def main() -> bool:
        site.artifacts.takes_s = 0.05
        site.machine.steps["set"] = Exit(0, None)
        site.machine.moment.left = moment
        agent = site.start()
        doing = asyncio.ensure_future(scenario(site))
        await asyncio.wait((doing, asyncio.ensure_future(agent.wait())), return_when=asyncio.FIRST_COMPLETED)
        killed = not site.machine.moment.left
        assert killed or doing.exception() is None
        doing.cancel()
        site.machine.moment.left = 0
        agent.kill()
        last = site.start()
        await afterwards(site)
        assert not site.machine.copies
        last.kill()
        return killed

    return bool(in_virtual_time(main))


DEPOT = CHECKED.replace(
    "    run:", "    artifact: {url: 'depot:aa', sha256: " + "a" * 64 + "}\n    configure: set it\n    run:"
)


async def installed_and_died_twice(site: Site) -> None:
    spec = site.spec(DEPOT)
    site.assign(spec)
    for _ in range(2):
        await site.realm.until(lambda: site.health() == "ready")
        site.machine.alive[0].end(Exit(1, None))
        await site.realm.until(lambda: site.state() == "failed")
    await site.realm.until(lambda: site.health() == "ready")
    site.assign(spec, version=2, restart=1)
    await site.realm.until(lambda: site.statuses()[-1]["generation"] == 2 and site.health() == "ready")


async def runs_once(site: Site) -> None:
    await site.realm.until(lambda: site.health() == "ready" and len(site.machine.alive) == 1)
    await asyncio.sleep(30)
    assert site.state() == "running"
    assert len(site.machine.alive) == 1


async def left(site: Site) -> None:
    site.assign(site.spec(DEPOT))
    await site.realm.until(lambda: site.health() == "ready")
    site.assign(site.spec_of(), version=2, desired="gone")
    await site.until("gone")


async def is_gone(site: Site) -> None:
    site.assign(site.spec_of(), version=3, desired="gone")
    await site.realm.until(lambda: site.state() == "gone" and site.process is not None and not site.process.alive)
    assert not site.machine.alive


@pytest.mark.parametrize(("scenario", "afterwards"), [(installed_and_died_twice, runs_once), (left, is_gone)])
def test_an_agent_killed_at_any_start_or_write_leaves_one_program_at_most(scenario: Doing, afterwards: Doing) -> None:
    moment = 1
    while killed_at(moment, scenario, afterwards):
        moment += 1
    assert moment > 30


def test_an_agent_killed_at_any_time_leaves_at_most_one_program_and_ends_with_one_running() -> None:
    for step in range(1, 60):

        async def main(step: int = step) -> None:
            site = Site(Realm())
            site.artifacts.takes_s = 0.05
            site.place(DEPOT)
            site.machine.steps["set"] = Exit(0, None)
            agent = site.start()
            await asyncio.sleep(step * 0.004)
            agent.kill()
            agent = site.start()
            await site.realm.until(lambda: site.health() == "ready")
            assert len(site.machine.alive) == 1
            assert not site.machine.copies
            agent.kill()

        in_virtual_time(main)


class FullDisk(MemoryFiles):
    full = True

    def write(self, path: str, content: bytes, *, mode: int = 0o600) -> None:
        if self.full:
            raise FailedError("fetch.no_space", "no space", need="1 KiB", path=path, free="0")
        super().write(path, content, mode=mode)


def test_nothing_is_started_of_which_no_record_can_be_kept() -> None:
    async def main() -> None:
        site = Site(Realm())
        disk, deps = FullDisk(site.disk, f"/n1/{site.slot.directory}"), site.deps
        site.deps = lambda: replace(deps(), quick=disk)  # type: ignore[method-assign]
        site.place()
        agent = site.start()
        await site.until("failed")
        assert site.statuses()[-1]["reason"]["code"] == "fetch.no_space"
        assert not site.machine.programs
        disk.full = False
        await site.until("running")
        agent.kill()

    in_virtual_time(main)


def test_a_damaged_record_ends_what_runs_before_anything_is_started_anew() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.realm.until(lambda: site.health() == "none")
        agent.kill()
        (before,) = site.machine.alive
        site.files.below(site.slot.directory).write(RECORD, b"{half of")
        agent = site.start()
        await site.realm.until(lambda: len(site.machine.programs) == 2)
        assert before.ended == Exit(None, 9)
        assert not site.machine.copies
        agent.kill()

    in_virtual_time(main)


def test_a_new_revision_is_installed_beside_what_runs_and_replaces_it_then() -> None:
    async def main() -> None:
        site = Site(Realm())
        one_by_one = WEB + "    update: {order: stop_first}\n"
        site.place(one_by_one)
        agent = site.start()
        await site.until("running")
        old = site.machine.alive[0]
        site.artifacts.takes_s = 5.0
        text = one_by_one.replace(
            "    run: sleep", "    artifact: {url: 'depot:aa', sha256: " + "b" * 64 + "}\n    run: doze"
        )
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

    in_virtual_time(main)


PARKS = (
    "    restart: {first: 100ms, factor: 1, park: {after: 3}, escalate: [{restart: 9}]}\n    update: {healthy_after: 1s}\n"
)
FAILS = WEB + PARKS + "    install: 'false'\n"


DOZES = CHECKED.replace("    run: sleep", "    run: doze")


async def served(site: Site, text: str = CHECKED) -> Any:
    """An instance that is ready; its program, which holds its port."""
    site.place(text)
    await site.realm.until(lambda: site.endpoint() and site.endpoint()["ready"])
    (program,) = site.machine.alive
    site.machine.held[int(program.launch.env["PORT"])] = "the program"
    return program


def test_an_update_starts_the_new_copy_beside_the_old_one_which_is_served_until_the_new_one_is_ready() -> None:
    async def main() -> None:
        site = Site(Realm())
        agent = site.start()
        old = await served(site)
        site.checks.passed = False
        site.assign(site.spec(DOZES, version=2), version=2)
        await site.realm.until(lambda: len(site.machine.alive) == 2)
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

    in_virtual_time(main)


def test_a_third_revision_that_is_being_installed_while_the_second_takes_over_is_installed_to_its_end() -> None:
    async def main() -> None:
        site = Site(Realm())
        agent = site.start()
        old = await served(site)
        site.checks.passed = False
        site.assign(site.spec(DOZES, version=2), version=2)
        await site.realm.until(lambda: len(site.machine.alive) == 2)
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

    in_virtual_time(main)


def test_what_may_not_overlap_is_not_started_beside_a_copy_whose_successor_failed() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_what_runs_is_served_at_its_own_ports_while_another_revision_is_installed() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_an_update_that_never_becomes_ready_leaves_the_old_copy_served_and_going_back_restarts_nothing() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_a_new_copy_that_is_ready_for_a_moment_only_leaves_the_old_one_served() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


@pytest.mark.parametrize("installs", ["", "    install: 'true'\n"], ids=["the same installation", "another installation"])
def test_no_step_of_its_escalation_lets_a_new_copy_end_the_old_one_or_take_its_files(installs: str) -> None:
    async def main() -> None:
        site = Site(Realm())
        agent = site.start()
        old = await served(site)
        record = load_record(site.files.read(f"{site.slot.directory}/{RECORD}"))
        assert record is not None
        mine = f"{site.slot.directory}/{place_of(record.install_key)}/mine"
        site.files.write(mine, b"written by the old copy")
        site.machine.steps |= {"doze": Exit(1, None), "true": Exit(0, None)}
        site.assign(site.spec(DOZES + installs, version=2), version=2)
        await site.realm.until(lambda: site.statuses()[-1]["parked"], 1000)
        assert agent.alive
        assert site.machine.alive == [old]
        assert site.files.read(mine) == b"written by the old copy"
        assert all(one["ready"] for one in site.realm.told(site.slot.on("endpoint", site.node)))
        site.machine.steps.pop("doze")
        site.assign(site.spec(DOZES + installs + "    env: {FIXED: 'yes'}\n", version=3), version=3)
        await site.realm.until(lambda: site.endpoint()["generation"] == 3 and old not in site.machine.alive)
        agent.kill()

    in_virtual_time(main)


def test_an_old_copy_that_ends_while_it_is_handed_over_is_served_no_more() -> None:
    async def main() -> None:
        site = Site(Realm())
        agent = site.start()
        old = await served(site)
        site.checks.passed = False
        site.assign(site.spec(DOZES, version=2), version=2)
        await site.realm.until(lambda: len(site.machine.alive) == 2)
        old.end(Exit(None, 9))
        await site.realm.until(lambda: not site.endpoint()["ready"])
        site.checks.passed = True
        await site.realm.until(lambda: site.endpoint()["ready"])
        assert len(site.machine.alive) == 1
        agent.kill()

    in_virtual_time(main)


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

        in_virtual_time(main)


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

        in_virtual_time(main)


def test_a_copy_that_was_ready_when_its_agent_was_killed_while_it_hands_over_is_the_one_that_is_served() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


@pytest.mark.parametrize("dies", ["old", "new", "both"])
def test_what_dies_of_two_copies_while_no_agent_lives_is_not_served_and_the_other_is(dies: str) -> None:
    async def main() -> None:
        site = Site(Realm())
        agent = site.start()
        old = await served(site)
        site.checks.passed = False
        site.assign(site.spec(DOZES, version=2), version=2)
        await site.realm.until(lambda: len(site.machine.alive) == 2)
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

    in_virtual_time(main)


def test_going_back_while_another_agent_has_taken_both_copies_over_restarts_nothing() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_a_slot_that_leaves_while_it_hands_over_leaves_nothing_running() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_a_fix_to_a_parked_instance_is_not_said_to_be_parked() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_an_update_whose_installation_fails_leaves_what_runs_served_and_going_back_says_that_it_runs() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_an_update_that_comes_while_the_first_start_is_not_over_never_says_that_it_runs() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_a_generation_that_changes_nothing_of_what_runs_restarts_nothing() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


OTHERWISE = CHECKED.replace("path: /", "path: /nothere").replace("    run:", "    update: {healthy_after: 2s}\n    run:")


def healths(site: Site, generation: int) -> list[str]:
    """What was said of its health in a generation."""
    return [one["health"] for one in site.realm.told(site.slot.on("health", site.node)) if one["generation"] == generation]


@pytest.mark.parametrize("killed", [False, True], ids=["", "its agent is killed meanwhile"])
def test_what_is_checked_by_something_else_is_served_and_ready_only_when_that_has_passed(killed: bool) -> None:
    async def main() -> None:
        site = Site(Realm())
        agent = site.start()
        program = await served(site)
        good = site.spec_of().id
        await asyncio.sleep(20)
        site.checks.passed = False
        site.assign(site.spec(OTHERWISE, version=2), version=2)
        await site.realm.until(lambda: healths(site, 2))
        if killed:
            agent.kill()
            agent = site.start()
        await asyncio.sleep(3)
        assert site.endpoint()["ready"], "it goes on as it is, until readiness says otherwise"
        site.checks.passed = True
        await site.realm.until(lambda: site.health() == "ready")
        assert {*healths(site, 2)[:-1]} == {"unready"}
        assert site.endpoint()["generation"] == 2
        assert site.machine.programs == [program]
        assert all(one["ready"] for one in site.realm.told(site.slot.on("endpoint", site.node))), "it was never withdrawn"
        assert site.statuses()[-1]["good"]["spec"] == str(good)
        agent.kill()

    in_virtual_time(main)


@pytest.mark.parametrize("killed", [False, True], ids=["", "its agent is killed meanwhile"])
def test_a_check_that_never_passes_makes_nothing_ready_or_good_and_restarts_nothing_before_a_start_may_take_so_long(
    killed: bool,
) -> None:
    async def main() -> None:
        site = Site(Realm())
        agent = site.start()
        program = await served(site)
        good = site.spec_of().id
        await asyncio.sleep(20)
        site.checks.passed = False
        site.assign(site.spec(OTHERWISE, version=2), version=2)
        await site.realm.until(lambda: not site.endpoint()["ready"], 30)
        if killed:
            agent.kill()
            agent = site.start()
        await asyncio.sleep(50)
        assert healths(site, 2)
        assert {*healths(site, 2)} == {"unready"}
        assert site.machine.programs == [program], "liveness waits for as long as a start may take"
        assert site.statuses()[-1]["good"]["spec"] == str(good)
        site.assign(site.spec(CHECKED, version=3), version=3)
        site.checks.passed = True
        await site.realm.until(lambda: site.health() == "ready")
        assert site.endpoint()["ready"]
        assert site.machine.programs == [program]
        agent.kill()

    in_virtual_time(main)


def test_a_generation_that_came_while_no_agent_lived_is_ready_when_its_own_check_has_passed() -> None:
    async def main() -> None:
        site = Site(Realm())
        agent = site.start()
        program = await served(site)
        await asyncio.sleep(20)
        agent.kill()
        site.checks.passed = False
        site.assign(site.spec(OTHERWISE, version=2), version=2)
        agent = site.start()
        await site.realm.until(lambda: site.statuses()[-1]["generation"] == 2)
        await asyncio.sleep(3)
        assert "ready" not in healths(site, 2)
        assert site.endpoint()["ready"]
        site.checks.passed = True
        await site.realm.until(lambda: site.endpoint()["generation"] == 2 and site.health() == "ready")
        assert site.machine.programs == [program]
        agent.kill()

    in_virtual_time(main)


def test_an_update_of_what_is_checked_by_something_else_starts_beside_it_all_the_same() -> None:
    async def main() -> None:
        site = Site(Realm())
        agent = site.start()
        old = await served(site)
        await asyncio.sleep(20)
        site.checks.passed = False
        site.assign(site.spec(OTHERWISE, version=2), version=2)
        await site.realm.until(lambda: healths(site, 2))
        site.assign(site.spec(OTHERWISE.replace("run: sleep", "run: doze"), version=3), version=3)
        await site.realm.until(lambda: len(site.machine.alive) == 2)
        assert site.machine.alive[0] == old
        assert site.endpoint()["ready"]
        agent.kill()

    in_virtual_time(main)


def test_the_restart_number_of_a_slot_restarts_it_once() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_a_stopped_slot_stops_in_order_and_starts_again() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_a_program_is_looked_at_before_its_stop_command_may_end_it() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_what_does_not_stop_is_killed_and_that_is_told() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_a_slot_given_to_another_node_leaves_this_one_and_the_agent_says_gone() -> None:
    async def main() -> None:
        site = Site(Realm())
        spec = site.spec(WEB + "    uninstall: clean up\n")
        site.machine.steps["clean"] = Exit(0, None)
        site.assign(spec)
        agent = site.start()
        await site.until("running")
        site.assign(spec, version=2, node="n2")
        status = await agent.wait()
        assert status.code == EXIT_GONE
        assert site.states()[-3:] == ["terminated", "stopped", "gone"]
        assert site.files.read(f"{site.slot.directory}/{OUTCOME}") == b"gone"
        assert not site.machine.alive
        assert [p.launch.argv for p in site.machine.programs][-1] == ("clean", "up")

    in_virtual_time(main)


def test_the_previous_node_keeps_its_copy_until_the_new_one_is_ready() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_the_previous_node_leaves_at_the_deadline() -> None:
    async def main() -> None:
        site = Site(Realm())
        spec = site.spec()
        site.assign(spec)
        agent = site.start()
        await site.until("running")
        deadline = site.spec_bus.now_ms() + 60_000
        site.assign(spec, version=2, node="n2", previous=Previous(node="n1", generation=1, deadline_ms=deadline))
        assert (await agent.wait()).code == EXIT_GONE
        assert abs(site.spec_bus.now_ms() - deadline) < 1000

    in_virtual_time(main)


def test_absence_stops_nothing() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_an_older_fact_changes_nothing() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_a_slot_that_begins_anew_after_its_service_was_removed_is_obeyed_whatever_its_version() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_the_spec_that_the_slot_names_is_awaited_and_no_other_is_taken() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


@pytest.mark.parametrize("topic", ["service/web/barrier/b/released", "service/other/spec"])
def test_what_the_slot_names_and_is_no_spec_of_its_service_is_no_program(topic: str) -> None:
    """A controller says where what an operator has signed runs, and no more than that."""

    async def main() -> None:
        site = Site(Realm())
        made = site.spec()
        site.assign(Bus(site.realm, "controller/c1").emit(Draft(topic, made.event.data, version=1, epoch=1)).signed)
        agent = site.start()
        await site.until("requested")
        await asyncio.sleep(60)
        assert not site.machine.programs
        assert site.realm.fetched > 1
        agent.kill()

    in_virtual_time(main)


def test_after_a_reboot_it_starts_from_the_kept_facts_after_a_sync() -> None:
    async def main() -> None:
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
        agent.kill()

    in_virtual_time(main)


def test_after_a_reboot_with_no_broker_it_starts_after_thirty_seconds() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_an_install_that_fails_is_tried_again_and_says_why() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.artifacts.wrong = FailedError("fetch.not_found", "depot:aa does not exist (gone)", url="depot:aa")
        site.place(WEB.replace("    run:", "    artifact: {url: 'depot:aa', sha256: " + "a" * 64 + "}\n    run:"))
        agent = site.start()
        await site.until("failed")
        reason = site.statuses()[-1]["reason"]
        assert (reason["code"], reason["who"], reason["step"]) == ("fetch.not_found", "you", "restart")
        site.artifacts.wrong = None
        await site.until("running")
        assert site.realm.told("service/web/progress/app/0/n1")
        agent.kill()

    in_virtual_time(main)


def test_a_newer_fact_breaks_off_an_installation() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.artifacts.takes_s = 3000.0
        spec = site.spec(WEB.replace("    run:", "    artifact: {url: 'depot:aa', sha256: " + "a" * 64 + "}\n    run:"))
        site.assign(spec)
        agent = site.start()
        await site.until("initiated")
        site.assign(spec, version=2, desired="gone")
        assert (await agent.wait()).code == EXIT_GONE
        assert not site.machine.programs
        assert asyncio.get_running_loop().time() < 100

    in_virtual_time(main)


@pytest.mark.parametrize(("step", "key"), [("install", "install"), ("configure", "configure")])
def test_a_step_that_fails_is_told_with_its_last_words(step: str, key: str) -> None:
    async def main() -> None:
        site = Site(Realm())
        site.machine.steps["prepare"] = Exit(4, None)
        site.place(WEB + f"    {key}: prepare it\n")
        agent = site.start()
        await site.until("failed")
        reason = site.statuses()[-1]["reason"]
        assert (reason["code"], reason["step"], reason["exit_code"]) == ("install.command", step, 4)
        assert reason["command"] == "prepare it"
        agent.kill()

    in_virtual_time(main)


def test_a_fixed_port_that_is_taken_names_its_holder_and_is_tried_again() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.machine.held[8080] = "pid 41 nginx"
        site.place(WEB.replace("http: auto", "http: 8080"))
        agent = site.start()
        await site.until("failed")
        reason = site.statuses()[-1]["reason"]
        assert reason["code"] == "start.port_in_use"
        assert "pid 41 nginx" in reason["message"]
        site.machine.held.clear()
        await site.until("running")
        agent.kill()

    in_virtual_time(main)


def test_an_automatic_port_that_was_taken_meanwhile_is_chosen_anew_and_configured() -> None:
    async def main() -> None:
        site = Site(Realm())
        spec = site.spec(WEB + "    configure: prepare {port.http}\n")
        site.machine.steps["prepare"] = Exit(0, None)
        site.assign(spec)
        agent = site.start()
        await site.until("running")
        old = site.machine.alive[0].launch.env["PORT"]
        site.assign(spec, version=2, desired="stopped")
        await site.until("stopped")
        site.machine.held[int(old)] = "pid 2 other"
        site.assign(spec, version=3)
        await site.until("running")
        new = site.machine.alive[0].launch.env["PORT"]
        assert new != old
        configured = [p.launch.argv[1] for p in site.machine.programs if p.launch.argv[0] == "prepare"]
        assert configured[-1] == new
        agent.kill()

    in_virtual_time(main)


def test_an_instance_that_is_not_live_is_restarted_and_that_is_told() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place(CHECKED)
        agent = site.start()
        await site.realm.until(lambda: site.health() == "ready")
        assert site.endpoint()["ready"]
        site.checks.passed = False
        await site.realm.until(lambda: site.health() == "unready")
        assert not site.endpoint()["ready"]
        assert len(site.machine.programs) == 1
        await site.realm.until(lambda: "failed" in site.states())
        assert [s["reason"]["code"] for s in site.statuses() if s["reason"]] == ["health.not_live"]
        site.checks.passed = True
        await site.realm.until(lambda: site.health() == "ready")
        assert len(site.machine.alive) == 1
        assert len(site.machine.programs) == 2
        agent.kill()

    in_virtual_time(main)


def test_what_is_ready_and_not_live_is_served_no_more_when_that_is_told() -> None:
    async def main() -> None:
        site = Site(Realm())
        each = ", ".join(f"{role}: {{http: {{port: http, path: /{role[0]}}}}}" for role in ("readiness", "liveness"))
        site.place(f"{WEB}    health: {{{each}}}\n")
        checks, run = site.checks, site.checks.run

        async def only_readiness(check: Any, **where: Any) -> Any:
            checks.passed = not dead or check.how.path == "/r"
            return await run(check, **where)

        dead: list[bool] = []
        checks.run = only_readiness  # type: ignore[method-assign]
        agent = site.start()
        await site.realm.until(lambda: site.endpoint() and site.endpoint()["ready"])
        served: list[bool] = []
        publish = site.realm.publish

        def watched(signed: Any) -> None:
            publish(signed)
            if signed.event.type == "dsmt.status" and signed.event.data["state"] == "failed":
                served.append(site.endpoint()["ready"])

        site.realm.publish = watched  # type: ignore[method-assign]
        dead.append(True)
        await site.realm.until(lambda: served)
        assert served == [False]
        assert [one["reason"]["code"] for one in site.statuses() if one["reason"]] == ["health.not_live"]
        agent.kill()

    in_virtual_time(main)


@pytest.mark.parametrize("reboots", [True, False], ids=["its machine", "it and its program"])
def test_what_was_good_is_remembered_though_nobody_lived_to_say_so_when_it_ended(reboots: bool) -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.until("running")
        await asyncio.sleep(60)
        agent.kill()
        if reboots:
            site.machine.reboot()
        else:
            site.machine.alive[0].end(Exit(None, 9))
        agent = site.start()
        await site.until("failed")
        assert site.statuses()[-1]["good"] == {"spec": str(site.spec_of().id), "revision": 1}
        agent.kill()

    in_virtual_time(main)


def test_what_has_no_check_is_good_once_it_has_lived_for_long_enough_to_be_ready() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.realm.until(lambda: site.health() == "none")
        (program,) = site.machine.alive
        program.end(Exit(None, 9))
        await site.realm.until(lambda: "failed" in site.states())
        assert site.statuses()[-1]["good"] == {"spec": str(site.spec_of().id), "revision": 1}
        agent.kill()

    in_virtual_time(main)


def test_an_instance_that_is_never_ready_is_restarted_at_its_deadline() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.checks.passed = False
        site.place(CHECKED)
        agent = site.start()
        await site.until("failed")
        assert site.statuses()[-1]["reason"]["code"] == "start.timeout"
        assert 59 < asyncio.get_running_loop().time() < 63
        agent.kill()

    in_virtual_time(main)


def test_shutdown_stops_the_instance_and_leaves_no_process() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.until("running")
        assert site.last is not None
        site.last.shutdown()
        assert (await agent.wait()).code == EXIT_STOPPED
        assert site.state() == "stopped"
        assert not site.machine.alive
        agent = site.start()
        await site.until("running")
        agent.kill()

    in_virtual_time(main)


def command(
    site: Site, verb: str, id_: str = "c1", generation: int = 1, ttl_ms: int | None = None, **arguments: object
) -> None:
    told = Command(id=id_, verb=verb, generation=generation, asker="operator/op", arguments=arguments)  # type: ignore[arg-type]
    site.spec_bus.emit(Draft(site.slot.command_topic, to_data(told), to=("node/n1",), ttl_ms=ttl_ms))


def test_a_command_is_executed_once_and_only_in_its_generation() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.until("running")
        command(site, "RESTART", generation=9)
        await asyncio.sleep(5)
        assert len(site.machine.programs) == 1
        command(site, "RESTART")
        await site.realm.until(lambda: len(site.machine.programs) == 2)
        command(site, "RESTART")
        await asyncio.sleep(30)
        assert len(site.machine.programs) == 2
        assert site.statuses()[-1]["last_command"] == "c1"
        asked = next(s for s in site.realm.log if s.event.type == "dsmt.command" and s.event.data["generation"] == 1)
        terminated = next(s for s in site.realm.log if s.event.data.get("state") == "terminated")
        assert terminated.event.cause == (asked.id,)
        agent.kill()

    in_virtual_time(main)


def test_a_command_that_overtakes_the_slot_fact_of_its_generation_waits_for_it() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.until("running")
        agent.kill()
        site.assign(site.spec_of(), version=2)
        command(site, "RESTART", generation=2, ttl_ms=60_000)
        command(site, "STOP", "late", generation=3, ttl_ms=10_000)
        agent = site.start()
        await site.realm.until(lambda: len(site.machine.programs) == 2)
        assert site.statuses()[-1]["generation"] == 2
        await asyncio.sleep(30)
        site.assign(site.spec_of(), version=3)
        await site.realm.until(lambda: site.statuses()[-1]["generation"] == 3)
        await asyncio.sleep(30)
        assert site.states()[-1] == "running"
        assert site.statuses()[-1]["last_command"] == "c1"
        agent.kill()

    in_virtual_time(main)


def test_a_command_said_while_the_agent_was_away_is_executed_once_when_it_is_back() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.until("running")
        agent.kill()
        command(site, "RESTART", ttl_ms=60_000)
        await asyncio.sleep(30)
        agent = site.start()
        await site.realm.until(lambda: len(site.machine.programs) == 2)
        agent.kill()
        agent = site.start()
        await asyncio.sleep(30)
        assert len(site.machine.programs) == 2
        agent.kill()

    in_virtual_time(main)


def test_a_command_that_comes_after_its_time_is_not_executed_and_said_to_have_expired() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.until("running")
        agent.kill()
        command(site, "RESTART", ttl_ms=60_000)
        await asyncio.sleep(61)
        agent = site.start()
        await site.realm.until(lambda: site.statuses()[-1]["expired_command"] == "c1")
        await asyncio.sleep(30)
        assert len(site.machine.programs) == 1
        assert site.statuses()[-1]["last_command"] is None
        agent.kill()

    in_virtual_time(main)


def test_a_stop_by_command_holds_until_a_start() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.until("running")
        command(site, "STOP", "c1")
        await site.until("stopped")
        await asyncio.sleep(100)
        assert not site.machine.alive
        command(site, "START", "c2")
        await site.until("running")
        agent.kill()

    in_virtual_time(main)


def test_an_installation_that_fails_is_tried_again_as_its_own_spec_says() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.machine.steps["prepare"] = Exit(4, None)
        site.place(WEB + "    install: prepare it\n    restart: {first: 5s, park: {after: 1}}\n")
        agent = site.start()
        await site.until("failed")
        began = asyncio.get_running_loop().time()
        await site.realm.until(lambda: site.statuses()[-1]["parked"], 10)
        assert 4 <= asyncio.get_running_loop().time() - began <= 6
        agent.kill()

    in_virtual_time(main)


def test_retry_tries_at_once_what_is_parked() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.machine.steps["sleep"] = Exit(1, None)
        site.place(WEB + "    restart: {escalate: [{restart: 2}]}\n")
        agent = site.start()
        await site.realm.until(lambda: site.statuses() and site.statuses()[-1]["parked"])
        site.machine.steps.clear()
        began = asyncio.get_running_loop().time()
        command(site, "RETRY")
        await site.until("running")
        assert asyncio.get_running_loop().time() - began < 1
        assert not site.statuses()[-1]["parked"]
        agent.kill()

    in_virtual_time(main)


def test_logs_are_answered_to_the_asker_also_of_the_run_before() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.realm.until(lambda: site.health() == "none")
        site.logs.write("stdout", "one\ntwo\n")
        site.machine.alive[0].end(Exit(1, None))
        await site.realm.until(lambda: len(site.machine.programs) == 2)
        site.logs.write("stdout", "three\nfour\n")
        command(site, "LOGS", "l1", lines=1, stream="stdout")
        command(site, "LOGS", "l2", lines=5, stream="stdout", previous=True)
        topic = "service/web/log/app/0/n1/stdout"
        await site.realm.until(lambda: len(site.realm.told(topic)) == 2)
        now, before = site.realm.told(topic)
        assert (now["lines"], now["last"]) == (["four"], True)
        assert before["lines"] == ["one", "two"]
        assert next(s.event.to for s in site.realm.log if s.event.topic == topic) == ("operator/op",)
        agent.kill()

    in_virtual_time(main)


def test_the_log_of_a_step_is_answered_under_its_name() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.machine.steps["prepare"] = Exit(4, None)
        site.place(WEB + "    install: prepare it\n")
        site.logs.write("install", "no such thing\n")
        agent = site.start()
        await site.until("failed")
        command(site, "LOGS", "l1", step="install")
        topic = "service/web/log/app/0/n1/install"
        await site.realm.until(lambda: site.realm.told(topic))
        (told,) = site.realm.told(topic)
        assert (told["command"], told["lines"], told["last"]) == ("l1", ["no such thing"], True)
        agent.kill()

    in_virtual_time(main)


def test_a_depot_that_cannot_be_reached_is_a_reason_and_no_crash() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.artifacts.wrong = TransportError("link.lost", "the broker was lost before it answered")
        site.place(WEB.replace("    run:", "    artifact: {url: 'depot:aa', sha256: " + "a" * 64 + "}\n    run:"))
        agent = site.start()
        await site.until("failed")
        assert site.statuses()[-1]["reason"]["code"] == "fetch.unreachable"
        assert "the broker was lost" in site.statuses()[-1]["reason"]["message"]
        agent.kill()

    in_virtual_time(main)


def test_followed_logs_bring_what_is_written_later() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.until("running")
        command(site, "LOGS", "l1", stream="stdout", follow_s=10)
        await asyncio.sleep(2)
        site.logs.write("stdout", "new\nhalf")
        await asyncio.sleep(2)
        site.logs.write("stdout", " a line\n")
        topic = "service/web/log/app/0/n1/stdout"
        await site.realm.until(lambda: site.realm.told(topic) and site.realm.told(topic)[-1]["last"])
        lines = [line for told in site.realm.told(topic) for line in told["lines"]]
        assert lines == ["new", "half a line"]
        agent.kill()

    in_virtual_time(main)


def test_a_followed_line_has_its_time_and_one_that_was_there_before_has_none() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.until("running")
        site.logs.write("stdout", "old\n")
        command(site, "LOGS", "l1", stream="stdout", follow_s=5)
        await asyncio.sleep(2)
        site.logs.write("stdout", "new\n")
        wrote_ms = site.bus.now_ms()
        topic = "service/web/log/app/0/n1/stdout"
        await site.realm.until(lambda: site.realm.told(topic) and site.realm.told(topic)[-1]["last"])
        by_line = {line: told["written_ms"] for told in site.realm.told(topic) for line in told["lines"]}
        assert by_line["old"] is None
        assert 0 <= by_line["new"] - wrote_ms <= 1000
        agent.kill()

    in_virtual_time(main)


def test_who_follows_goes_on_where_the_answer_before_ended_over_a_restart_of_the_program() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.realm.until(lambda: site.health() == "none")
        site.logs.write("stdout", "one\n")
        command(site, "LOGS", "l1", stream="stdout", follow_s=2)
        topic = "service/web/log/app/0/n1/stdout"
        await site.realm.until(lambda: site.realm.told(topic) and site.realm.told(topic)[-1]["last"])
        place = site.realm.told(topic)[-1]["upto"]
        site.logs.write("stdout", "two\nhal")
        site.machine.alive[0].end(Exit(1, None))
        await site.realm.until(lambda: len(site.machine.programs) == 2)
        site.logs.write("stdout", "f\nthree\n")
        command(site, "LOGS", "l2", stream="stdout", after={"stdout": place}, follow_s=2)
        await site.realm.until(lambda: site.realm.told(topic)[-1]["command"] == "l2" and site.realm.told(topic)[-1]["last"])
        lines = [line for told in site.realm.told(topic) if told["command"] == "l2" for line in told["lines"]]
        assert lines == ["two", "half", "three"]
        agent.kill()

    in_virtual_time(main)


def test_logs_since_a_time_leave_out_what_was_written_half_a_minute_before_it() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.realm.until(lambda: site.health() == "none")
        site.logs.write("stdout", "early\n")
        await asyncio.sleep(90)
        since_ms = site.bus.now_ms()
        site.logs.write("stdout", "late\n")
        command(site, "LOGS", "l1", stream="stdout", lines=10, since_ms=since_ms)
        command(site, "LOGS", "l2", stream="stdout", lines=10, since_ms=since_ms - 3_600_000)
        topic = "service/web/log/app/0/n1/stdout"
        await site.realm.until(lambda: len(site.realm.told(topic)) == 2)
        assert [told["lines"] for told in site.realm.told(topic)] == [["late"], ["early", "late"]]
        agent.kill()

    in_virtual_time(main)


def test_who_asks_for_logs_changes_nothing_that_is_said_of_the_instance() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.realm.until(lambda: site.health() == "none")
        said = len(site.statuses())
        command(site, "LOGS", "l1", lines=1)
        await site.realm.until(lambda: site.realm.told("service/web/log/app/0/n1/stderr"))
        assert len(site.statuses()) == said
        agent.kill()

    in_virtual_time(main)


def test_facts_are_renewed_each_half_of_their_life_and_heartbeats_go_on() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.realm.until(lambda: site.health() == "none")
        said = len(site.statuses())
        await asyncio.sleep(12 * 3600 - 60)
        assert len(site.statuses()) == said
        await asyncio.sleep(180)
        assert len(site.statuses()) == said + 1
        assert site.bus.beats > 1000
        agent.kill()

    in_virtual_time(main)


def test_what_changes_more_often_than_an_agent_beats_is_renewed_and_its_output_trimmed() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place(CHECKED)
        agent = site.start()
        await site.realm.until(lambda: site.health() == "ready")
        topic = f"{site.slot.on('status', 'n1')}/application"
        for _ in range(25 * 180):
            site.checks.passed = not site.checks.passed
            await asyncio.sleep(20)
        last = [signed.event for signed in site.realm.log if signed.event.topic == topic][-1]
        assert last.data["state"] == "running"
        assert not last.is_dead(site.bus.now_ms())
        assert max(after - before for (before, _), (after, _) in pairwise(site.logs.trims)) < 40
        agent.kill()

    in_virtual_time(main)


def test_output_is_trimmed_as_often_as_it_is_written_and_an_idle_program_is_looked_at_with_a_beat_only() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place(WEB + "    logs: {size: 16KiB}\n")
        agent = site.start()
        await site.until("running")
        await asyncio.sleep(10)
        idle = len(site.logs.trims)
        for _ in range(90 * 10):  # 20 KiB/s
            site.logs.write("stdout", "x" * 2048)
            await asyncio.sleep(0.1)
        flooded = [end for _, end in site.logs.trims[idle:] if end > 0][1:]  # the first look tells no rate
        assert max(after - before for before, after in pairwise(flooded)) <= 16384 + 2 * 2048
        await asyncio.sleep(60)
        trims, beats = len(site.logs.trims), site.bus.beats
        await asyncio.sleep(600)
        assert len(site.logs.trims) - trims <= site.bus.beats - beats
        agent.kill()

    in_virtual_time(main)


def test_causes_are_ids_of_events_that_exist() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.realm.until(lambda: site.health() == "none")
        site.machine.alive[0].end(Exit(1, None))
        await site.realm.until(lambda: site.state() == "running" and "failed" in site.states())
        ids = {signed.id for signed in site.realm.log}
        for signed in site.realm.log:
            assert all(isinstance(cause, EventId) and cause in ids for cause in signed.event.cause)
        agent.kill()

    in_virtual_time(main)


def test_an_endpoint_is_renewed_before_it_dies() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        agent = site.start()
        await site.realm.until(site.endpoint)
        topic = site.slot.on("endpoint", site.node)
        await asyncio.sleep(600)
        told = [signed.event.time_ms for signed in site.realm.log if signed.event.topic == topic]
        assert max(after - before for before, after in pairwise(told)) < 90_000
        assert 10 <= len(told) <= 22
        agent.kill()

    in_virtual_time(main)


def test_a_driver_that_can_run_nothing_here_says_why_and_is_asked_again() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.machine.lacking = "no user namespaces: sysctl user.max_user_namespaces is 0"
        site.place()
        agent = site.start()
        await site.until("failed")
        reason = site.statuses()[-1]["reason"]
        assert (reason["code"], reason["message"]) == ("start.driver", f"process refused: {site.machine.lacking}")
        assert site.machine.programs == []
        site.machine.lacking = ""
        await site.until("running")
        agent.kill()

    in_virtual_time(main)


def test_what_is_prepared_for_and_not_wanted_any_more_is_let_go_and_never_started() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.machine.preparing_s = 3600.0
        spec = site.spec()
        site.assign(spec)
        agent = site.start()
        await site.realm.until(lambda: site.machine.prepared)
        site.assign(spec, version=2, desired="stopped")
        await site.until("stopped", 10)
        assert site.machine.programs == []
        agent.kill()

    in_virtual_time(main)


def test_what_was_taken_over_is_started_again_without_being_prepared_anew() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.place()
        first = site.start()
        await site.realm.until(lambda: site.health() == "none")
        first.kill()
        before = site.bus
        agent = site.start()
        await site.realm.until(lambda: site.bus is not before and site.bus is not None and site.bus.beats > 0)
        site.machine.alive[0].end(Exit(None, 9))
        await site.realm.until(lambda: len(site.machine.programs) == 2)
        assert len(site.machine.prepared) == 1
        agent.kill()

    in_virtual_time(main)


@pytest.mark.parametrize("desired", ["stopped", "gone"])
@pytest.mark.parametrize("dies", [False, True], ids=["the first start", "a start after a death"])
def test_what_is_not_wanted_any_more_while_it_is_being_started_is_ended_once_it_runs(desired: str, dies: bool) -> None:
    async def main() -> None:
        site = Site(Realm())
        spec = site.spec()
        site.machine.starting_s = 0.0 if dies else 5.0
        site.assign(spec)
        agent = site.start()
        if dies:
            await site.realm.until(lambda: site.health() == "none")
            site.machine.starting_s = 5.0
            site.machine.alive[0].end(Exit(None, 9))
        await site.realm.until(lambda: site.machine.starts > len(site.machine.programs))
        site.assign(spec, version=2, desired=desired)
        await site.until(desired, 10)
        await site.realm.until(lambda: site.machine.starts == len(site.machine.programs))
        assert site.machine.alive == []
        assert site.machine.copies == []
        assert [program.signals for program in site.machine.programs[1:]] in ([], [[15]])
        agent.kill()

    in_virtual_time(main)


def test_a_driver_whose_starts_take_long_never_has_two_programs_of_an_instance() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.machine.starting_s = 3.0
        site.place()
        agent = site.start()
        for count in range(1, 5):
            await site.realm.until(lambda count=count: len(site.machine.programs) == count and site.health() == "none")
            site.assign(site.spec_of(), version=count + 1)
            site.machine.alive[0].end(Exit(1, None))
        await site.until("running")
        await site.realm.until(lambda: site.health() == "none")
        assert site.machine.copies == []
        agent.kill()

    in_virtual_time(main)


def test_a_step_is_prepared_for_as_a_program_is_and_a_driver_that_cannot_run_here_runs_none() -> None:
    async def main() -> None:
        site = Site(Realm())
        site.machine.steps["set-up"] = Exit(0, None)
        site.machine.lacking = "it is not installed"
        site.place(WEB + "    install: set-up\n")
        agent = site.start()
        await site.until("failed")
        assert site.statuses()[-1]["reason"]["message"] == "process refused: it is not installed"
        assert site.machine.programs == []
        site.machine.lacking = ""
        await site.until("running")
        assert [launch.argv[0] for launch in site.machine.prepared] == ["set-up", "sleep"]
        agent.kill()

    in_virtual_time(main)
