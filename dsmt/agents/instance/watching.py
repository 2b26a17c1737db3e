"""Watching: the two waits that a run needs: for its end, and for its next check."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from msgspec.structs import replace

from dsmt.agents.instance.run import Run
from dsmt.agents.rules.launching import working_directory
from dsmt.agents.shared.dependencies import Dependencies
from dsmt.errors import InputError
from dsmt.monitors.rules.health import FOREVER, Effect, Try
from dsmt.ports.check import Result
from dsmt.ports.processes import Exit
from dsmt.spec.placeholders import expand
from dsmt.spec.records import Check, ExecCheck, HttpCheck, TcpCheck


class Watching:
    """Waits for runs; what happens is handed to callbacks, in the task that waited."""

    def __init__(self, deps: Dependencies, address: str) -> None:
        self._deps = deps
        self._address = address

    async def until_death(self, run: Run, died: Callable[[Run, Exit], Awaitable[None]]) -> None:
        """Wait for the end of the program, then sweep up what it left."""
        ended = await run.instance.wait()
        await died(run, ended)
        if not run.stopping:
            await run.instance.kill(deadline=5.0)

    async def check(self, run: Run, apply: Callable[[Run, list[Effect]], None]) -> None:
        """Make each try when it is due, until nothing is due any more."""
        clock, health = self._deps.clock, run.health
        while (due := health.due()) != FOREVER:
            wait = due - clock.boottime()
            if wait > 0:
                await asyncio.sleep(wait)
            now = clock.boottime()
            effects = health.timer(now)
            tries = health.tries(now)
            if effects:
                apply(run, effects)
            for tried in tries:
                result = await self._try(run, tried)
                now = clock.boottime()
                apply(
                    run,
                    health.result(tried, passed=result.passed, evidence=result.evidence, broken=result.broken, now=now),
                )

    async def _try(self, run: Run, tried: Try) -> Result:
        plan, site = run.plan, run.site
        if plan is None or site is None:
            return Result(False, "what is needed for the check is not known", 0.0, broken=True)
        try:
            check = _filled(tried.check, site.values)
        except InputError as error:
            return Result(False, str(error), 0.0, broken=True)
        address = self._address
        how = check.how
        if isinstance(how, HttpCheck | TcpCheck):
            address = plan.component.port(how.port).bind or address
        ports = {port.name: int(site.values[f"port.{port.name}"]) for port in plan.component.ports}
        directory = working_directory(plan.component, site.directory)
        user = plan.component.user or ""
        return await self._deps.checks.run(check, address=address, ports=ports, env=site.env, directory=directory, user=user)


def _filled(check: Check, values: Mapping[str, str]) -> Check:
    """The check with the placeholders of its command filled in. Raises `InputError`."""
    if not isinstance(check.how, ExecCheck):
        return check
    command = tuple(expand(word, values) for word in check.how.command)
    return replace(check, how=replace(check.how, command=command))
