"""An agent, or who makes its container anew, is killed at any moment: there is one program at most, and nothing is lost."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from dsmt.agents.rules.container import OUTCOME, RECORD, AgentOutcome
from dsmt.errors import FailedError
from dsmt.ports.processes import Exit
from dsmt.simulator.engine.run import run
from tests.loops import in_virtual_time

from .managed import SLOT, Managed
from .memory_bus import Realm
from .memory_machine import MemoryFiles
from .sights import CHECKED, Doing
from .world import Site


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

    return bool(run(main()))


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

        run(main())


class FullDisk(MemoryFiles):
    full = True

    def write(self, path: str, content: bytes, *, mode: int = 0o600) -> None:
        if self.full:
            raise FailedError("fetch.no_space", "no space", need="1 KiB", path=path, free="0")
        super().write(path, content, mode=mode)


@in_virtual_time
async def test_nothing_is_started_of_which_no_record_can_be_kept() -> None:
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


@in_virtual_time
async def test_a_damaged_record_ends_what_runs_before_anything_is_started_anew() -> None:
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


@in_virtual_time
async def test_an_agent_that_was_killed_says_again_when_it_had_the_slot_fact() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.until("running")
    taken_ms = site.statuses()[-1]["taken_ms"]
    assert taken_ms == site.statuses()[0]["since_ms"]
    await asyncio.sleep(20)
    agent.kill()
    site.machine.alive[0].end(Exit(1, None))
    agent = site.start()
    await site.until("failed")
    await site.until("running")
    assert {status["taken_ms"] for status in site.statuses()} == {taken_ms}
    await asyncio.sleep(20)
    site.place(version=2)
    await site.realm.until(lambda: site.statuses()[-1]["generation"] == 2)
    assert site.statuses()[-1]["taken_ms"] >= taken_ms + 20_000
    agent.kill()


@pytest.mark.parametrize(("healthy_s", "counted"), [(30.0, 6), (100.0, 1)])
@in_virtual_time
async def test_a_run_that_was_healthy_when_its_agent_died_too_is_worth_as_much_as_any(
    healthy_s: float, counted: int
) -> None:
    """Else a node that is killed as a whole has what failed a while ago wait for a minute, or parks it."""
    site = Site(Realm())
    site.place(CHECKED)
    agent = site.start()
    await site.realm.until(lambda: site.health() == "ready")
    for failures in range(1, 6):
        site.machine.alive[0].end(Exit(1, None))
        await site.realm.until(lambda n=failures: site.record().history.failures == n)  # type: ignore[misc]
        await site.realm.until(lambda: site.health() == "ready")
    await asyncio.sleep(healthy_s)
    agent.kill()
    site.machine.alive[0].end(Exit(None, 9))
    began = asyncio.get_running_loop().time()
    agent = site.start()
    await site.until("failed")
    assert site.statuses()[-1]["failures"] == counted
    await site.until("running")
    waited = asyncio.get_running_loop().time() - began
    assert waited < 0.5 if counted == 1 else waited > 1, waited
    agent.kill()


def test_who_dies_while_a_container_is_made_anew_loses_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what always fails is made anew again and again, and never parked."""
    write, killed = MemoryFiles.write, list[str]()

    async def main() -> None:
        at = await Managed.running()
        at.site.machine.alive[0].end(Exit(1, None))
        await at.realm.until(lambda: at.site.record().restarts == 1 and at.site.state() == "running")
        files = at.site.files.below(SLOT.directory)

        def kills(where: MemoryFiles, path: str, content: bytes, *, mode: int = 0o600) -> None:
            if path == RECORD and at.process is not None and not killed:
                killed.append(path)
                at.process.kill()
            write(where, path, content, mode=mode)

        files.write(OUTCOME, AgentOutcome.RECREATE.encode())
        monkeypatch.setattr(MemoryFiles, "write", kills)
        at.node.agents.started[-1].process.kill()
        await at.realm.until(lambda: killed != [])
        assert at.process is not None
        await at.process.wait()
        at.start()
        await at.realm.until(lambda: len(at.node.machine.programs) == 3)
        assert (at.site.record().restarts, at.site.record().history.failures) == (1, 1)
        at.end()

    run(main())
