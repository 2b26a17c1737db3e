"""Checking: the health of what runs: each try of its checks when it is due, and what follows of what it shows."""

from __future__ import annotations

import asyncio
from typing import Any

from dsmt.agents.instance.context import Context
from dsmt.agents.instance.failing import Failing
from dsmt.agents.instance.handover import HandOver
from dsmt.agents.instance.present import Run
from dsmt.agents.instance.serving import Serving
from dsmt.agents.instance.taking_turns import its_turn
from dsmt.agents.rules import endings
from dsmt.agents.rules.launching import working_directory
from dsmt.agents.rules.taking_turns import Turn, start_s_of, try_s_of
from dsmt.errors import InputError
from dsmt.event.status import State
from dsmt.monitors.rules.health import (
    FOREVER,
    Broken,
    Effect,
    Live,
    NotLive,
    Ready,
    Started,
    Starting,
    TimedOut,
    Try,
    Unready,
)
from dsmt.ports.check import Checks, Result
from dsmt.spec.health import filled, port_of
from dsmt.spec.placeholders import expand


class Checking:
    """Checks the runs of one instance."""

    def __init__(self, context: Context, serving: Serving, handover: HandOver, failing: Failing) -> None:
        self._config = context.config
        self._deps = context.deps
        self._memory = context.memory
        self._reporter = context.reporter
        self._present = context.present
        self._serving = serving
        self._handover = handover
        self._failing = failing

    def begin(self, run: Run) -> None:
        """Check a run from now on, by the health monitor that it has now."""
        run.unchecked()
        run.checking = self._present.tasks.start(self._check(run))

    async def _check(self, run: Run) -> None:
        """Make each try when it is due, until nothing is due any more."""
        clock, health = self._deps.clock, run.health
        while (due := health.due()) != FOREVER:
            wait = due - clock.boottime()
            if wait > 0:
                await asyncio.sleep(wait)
            now = clock.boottime()
            effects = health.timer(now)
            tries = health.tries(now)
            self.apply(run, effects)
            for tried in tries:
                seen = await make(run, tried, self._deps.checks, self._config.address)
                now = clock.boottime()
                told = health.result(tried, passed=seen.passed, evidence=seen.evidence, broken=seen.broken, now=now)
                self.apply(run, told)

    def apply(self, run: Run, effects: list[Effect]) -> None:
        """Do what the health monitor of a run wants."""
        if run is not self._present.run or not run.life.alive:
            return
        for effect in effects:
            match effect:
                case Started():
                    run.life.up()
                    self._memory.save_soon(started=True)
                    self._reporter.tell(State.RUNNING, **self._failing.about_run(run))
                case Ready(check, evidence, checked):
                    run.life.ready(self._deps.clock.boottime())
                    self._memory.save_soon(check=run.check)
                    self._serving.ready(check=check, evidence=evidence, checked=checked)
                    self._present.awake.set()
                case Unready(check, evidence, failures, live):
                    self._failing.note_good(run)
                    run.life.unready()
                    self._serving.unready(check=check, evidence=evidence, failures=failures, live=live)
                    self._handover.serve_again()
                case Starting() | Broken():
                    self._serving.tell(effect)
                case NotLive():
                    run.turning = self._present.tasks.start(self._end_in_turn(run, effect))
                case Live():
                    run.turn_back()
                case TimedOut(evidence, after_s):
                    self._condemn(run, "start.timeout", time=endings.words(after_s), result=evidence)

    async def _end_in_turn(self, run: Run, told: NotLive) -> None:
        """Have what is not live ended, when it is its turn."""

        def waits(turn: Turn) -> None:
            self._serving.braked(told.check, told.evidence, told.failures, turn)

        self._serving.not_live(told.check, told.evidence, told.failures)
        component = None if run.plan is None else run.plan.component
        start_s, try_s = (0.0, 0.0) if component is None else (start_s_of(component), try_s_of(component))
        await its_turn(self._config, self._deps.bus, check=told.check, start_s=start_s, try_s=try_s, waits=waits)
        if run is self._present.run and run.life.alive:
            run.health.end()
            self._condemn(run, "health.not_live", check=told.check, n=told.failures, result=told.evidence)

    def _condemn(self, run: Run, code: str, **fields: Any) -> None:
        run.condemned = self._reporter.why(code, **fields)
        run.life.condemn()
        self._present.awake.set()


async def make(run: Run, tried: Try, checks: Checks, address: str) -> Result:
    """Make a try, where its port is bound or else at this address; what cannot be made is broken."""
    plan, site = run.plan, run.site
    if plan is None or site is None:
        return Result(False, "what is needed for the check is not known", 0.0, broken=True)
    try:
        check = filled(tried.check, lambda word: expand(word, site.values))
    except InputError as error:
        return Result(False, str(error), 0.0, broken=True)
    port = port_of(check.how)
    at = (plan.component.port(port).bind if port is not None else None) or address
    ports = {port.name: int(site.values[f"port.{port.name}"]) for port in plan.component.ports}
    directory = working_directory(plan.component, site.directory)
    user = plan.component.user or ""
    return await checks.run(check, address=at, ports=ports, env=site.env, directory=directory, user=user)
