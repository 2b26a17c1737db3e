"""Stopping: what `dsmt.agents.rules.life` wants done to end a run (docs/reference/service-file.md, `stop`).

Rule 1: what no record names is swept up by its mark alone, and at once: nobody knows how it wants to be asked.
Rule 2: both return when nothing is left; what does not die is told, and tried again each `STUCK_S`.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Final

from dsmt.agents.instance.context import Context
from dsmt.agents.instance.installing import Installer
from dsmt.agents.instance.present import Run
from dsmt.agents.instance.under_way import under_way
from dsmt.agents.rules.endings import words
from dsmt.agents.rules.life import STUCK_S, Effect, Failed, Kill, RunStopCommand, Signal, State, Stays, StopWay
from dsmt.agents.shared.unforeseen import as_failed
from dsmt.event.reason import Reason
from dsmt.ports.driver import KILL_S, Handle, Instance
from dsmt.ports.processes import Exit
from dsmt.spec.placeholders import expand

UNKNOWN: Final = StopWay(0.0, asks=False, signal=signal.SIGTERM, grace_s=10.0)
"""How what runs is ended while its spec is not known."""


def way_of(run: Run) -> StopWay:
    """How a run wants to be ended."""
    if run.plan is None:
        return UNKNOWN
    policy = run.plan.component.stop
    asks = policy.command is not None and run.site is not None
    return StopWay(policy.delay_s, asks=asks, signal=signal.Signals[policy.signal], grace_s=policy.grace_s)


class Stopper:
    """Ends runs."""

    def __init__(self, context: Context, installer: Installer) -> None:
        self._context = context
        self._deps = context.deps
        self._installer = installer
        self._reporter = context.reporter

    async def stop(self, run: Run) -> tuple[Exit, Reason | None]:
        """End a run that is not wanted; how its program ended, and a reason when it had to be killed."""
        return await self.end(run, run.life.stop(way_of(run), self._deps.clock.boottime()))

    async def end(self, run: Run, effects: Sequence[Effect]) -> tuple[Exit, Reason | None]:
        """Do what the life of a run wants until it is over."""
        life, instance, left = run.life, run.instance, list(effects)
        if instance is None:
            return Exit(None, None), None
        while life.state is not State.ENDED:
            left += await (self._do(left.pop(0), run, instance) if left else self._wait(run, instance))
        grace = way_of(run).grace_s
        why = self._reporter.why("stop.killed", grace=words(grace)) if life.overdue else None
        return await instance.wait(), why

    async def _do(self, effect: Effect, run: Run, instance: Instance) -> Sequence[Effect]:
        life, clock = run.life, self._deps.clock
        match effect:
            case RunStopCommand():
                instance.look()
                await self._ask(run)
                return life.answered(clock.boottime())
            case Signal(number):
                instance.signal(number)
            case Kill():
                return life.killed(await instance.kill(deadline=KILL_S), clock.boottime())
            case Stays(pid):
                self._reporter.note(reason=self._reporter.why("stop.stuck", pid=pid, state="D"))
            case Failed():
                pass  # told by who failed it
        return ()

    async def _wait(self, run: Run, instance: Instance) -> Sequence[Effect]:
        """Wait for what is next: the end of the program, once it was signalled, or the time."""
        life, clock = run.life, self._deps.clock
        left = max(0.0, (life.due or 0.0) - clock.boottime())
        if life.state is not State.SIGNALLED:
            await asyncio.sleep(left)
            return life.timer(clock.boottime())
        try:
            async with asyncio.timeout(left):
                await instance.wait()
        except TimeoutError:
            return life.timer(clock.boottime())
        return life.exit(clock.boottime(), jitter=0.0)

    async def sweep(self, spared: Sequence[Handle] = ()) -> None:
        """Kill all that earlier agents have left running and no record names (rule 1); the `spared` programs live on."""
        for driver in self._deps.drivers.values():
            while stuck := await driver.clear(deadline=KILL_S, spared=spared):
                self._reporter.note(reason=self._reporter.why("stop.stuck", pid=stuck[0], state="D"))
                await asyncio.sleep(STUCK_S)

    async def _ask(self, run: Run) -> None:
        """Run the stop command; the signal follows whatever it does, also where it ends the agents that run it."""
        plan, site = run.plan, run.site
        if plan is None or site is None:
            return
        policy = plan.component.stop
        argv = tuple(expand(word, site.values) for word in policy.command or ())
        try:
            with under_way(self._context, "stop", run.goal):
                self._installer.begin_log("stop")
                await self._installer.command(argv, plan, site, log="stop", timeout_s=policy.grace_s)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the command's
            self._reporter.note(reason=self._reporter.why_failed(as_failed(error)))
