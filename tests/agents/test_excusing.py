"""An agent that dsmt itself ends in a step has not ended by that step (C13.5); one that hangs may have."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest

from dsmt.agents.node.excusing import end_excused
from dsmt.agents.node.hearing import Hearing
from dsmt.agents.rules import after
from dsmt.agents.rules.container import OUTCOME, AgentOutcome
from dsmt.ports.processes import Exit
from dsmt.simulator.engine.run import run
from dsmt.trust.identity import root_issued
from dsmt.trust.keys import SecretKey
from tests.loops import in_virtual_time

from .managed import Managed
from .memory_bus import EPOCH_MS
from .memory_machine import MemoryFiles
from .world import WEB

INSTALLS = WEB + "    install: take time\n    restart: {park: {after: 2}}\n"


def rotate(at: Managed, count: int) -> None:
    """Give the node its next key: none of its agents is below that."""
    key = SecretKey(bytes([count]) * 32)
    issued_s = EPOCH_MS // 1000 + 60 * count
    at.node.identity = root_issued("node/n1", SecretKey(b"r" * 32), key=key, now_s=issued_s, serial=bytes([count]) * 16)


def kill_manager(at: Managed) -> None:
    assert at.process is not None
    at.process.kill()


async def upgrade(at: Managed, _count: int) -> None:
    at.site.files.below(at.site.slot.directory).write(OUTCOME, AgentOutcome.FOLLOWED.encode())
    at.node.agents.started[-1].process.kill()


async def upgrade_whose_manager_dies(at: Managed, count: int) -> None:
    kill_manager(at)
    await upgrade(at, count)
    at.start()


async def rotation(at: Managed, count: int) -> None:
    kill_manager(at)
    rotate(at, count)
    at.start()


async def rotation_whose_manager_dies(at: Managed, count: int) -> None:
    await rotation(at, count)
    last = at.node.agents.started[-1]
    await at.realm.until(lambda: not last.process.alive)
    kill_manager(at)
    at.start()


async def shutdown(at: Managed, _count: int) -> None:
    assert at.process is not None
    assert at.manager is not None
    at.process.call_soon(lambda: asyncio.ensure_future(at.manager.shutdown(1.0)))  # type: ignore[union-attr]
    await at.process.wait()
    at.start()


async def shutdown_of_who_does_not_end_when_told(at: Managed, count: int) -> None:
    at.node.agents.started[-1].signal = at.node.agents.started[-1].process.send_signal  # type: ignore[method-assign]
    at.node.agents.started[-1].process.on_signal(signal.SIGTERM, lambda: None)
    await shutdown(at, count)


async def reboot(at: Managed, _count: int) -> None:
    kill_manager(at)
    at.node.agents.started[-1].process.kill()
    at.node.machine.reboot()
    at.start()


ENDS = (
    upgrade,
    upgrade_whose_manager_dies,
    rotation,
    rotation_whose_manager_dies,
    shutdown,
    shutdown_of_who_does_not_end_when_told,
    reboot,
)


async def in_install(at: Managed, agents: int) -> None:
    """Wait until the last of so many agents is in the step."""
    await at.realm.until(lambda: len(at.node.agents.started) >= agents and len(at.node.machine.alive) == 1)


def codes(at: Managed) -> list[str]:
    return [status["reason"]["code"] for status in at.site.statuses() if status.get("reason") is not None]


@pytest.mark.parametrize("end", ENDS)
@in_virtual_time
async def test_a_step_in_which_dsmt_ends_agents_itself_goes_on_until_it_is_done(
    end: Callable[[Managed, int], Awaitable[None]],
) -> None:
    at = Managed()
    at.start()
    at.site.place(INSTALLS)
    for count in range(1, after.CUT_MOST + 3):
        await in_install(at, count)
        assert at.site.record().doing.startswith("install ")
        await end(at, count)
    at.node.machine.steps["take"] = Exit(0, None)
    await in_install(at, after.CUT_MOST + 3)
    at.node.machine.alive[0].end(Exit(0, None))
    await at.site.until("running")
    assert "install.cut" not in codes(at)
    at.end()


def test_an_agent_that_hangs_in_a_step_is_ended_and_may_have_been_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hung = list[str]()

    def said(_hearing: Hearing, _now_s: float, _mute: object) -> list[str]:
        return [hung.pop()] if hung else []

    monkeypatch.setattr(Hearing, "hung", said)

    async def main() -> None:
        at = Managed()
        at.start()
        at.site.place(INSTALLS)
        for count in range(1, after.CUT_MOST + 1):
            await in_install(at, count)
            hung.append(at.site.slot.agent("n1"))
            await at.realm.until(lambda count=count: len(at.node.agents.started) > count)
        await at.site.until("failed")
        assert codes(at)[-1] == "install.cut"
        at.end()

    run(main())


@in_virtual_time
async def test_who_was_ended_by_its_step_after_another_was_by_dsmt_counts_from_then_on() -> None:
    at = Managed()
    at.start()
    at.site.place(INSTALLS)
    for count in range(1, after.CUT_MOST + 2):
        await in_install(at, count)
        await upgrade(at, count) if count == 1 else at.node.agents.started[-1].process.kill()
        await at.realm.until(lambda count=count: len(at.node.agents.started) > count)
    await at.site.until("failed")
    assert codes(at)[-1] == "install.cut"
    at.end()


@in_virtual_time
async def test_an_agent_is_written_down_as_excused_before_it_is_ended() -> None:
    """Who ends it may be killed at any moment after."""
    files, seen = MemoryFiles(), list[bytes | None]()

    class Agent:
        def signal(self, _number: int) -> None:
            seen.append(files.read(OUTCOME))

        async def wait(self) -> Exit:
            return Exit(None, signal.SIGKILL)

    await end_excused(Agent(), files)  # type: ignore[arg-type]
    assert seen == [AgentOutcome.EXCUSED.encode()]
