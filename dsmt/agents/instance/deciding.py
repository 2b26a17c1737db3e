"""Deciding: what is due now, from all that an agent knows; `dsmt.agents.rules.reconcile` names the act."""

from __future__ import annotations

from typing import Final

from dsmt.agents.instance.facts import Facts
from dsmt.agents.instance.memory import Memory
from dsmt.agents.instance.present import Present
from dsmt.agents.rules.launching import Plan
from dsmt.agents.rules.reconcile import OFFLINE_START_AFTER_S, Do, Situation, next_act
from dsmt.agents.shared.dependencies import Dependencies

FOREVER: Final = float("inf")


class Deciding:
    """The situation of one instance, looked at anew each time."""

    def __init__(self, deps: Dependencies, memory: Memory, facts: Facts, present: Present) -> None:
        self._deps = deps
        self._memory = memory
        self._facts = facts
        self._present = present

    def situation(self) -> Situation:
        """All that the next act depends on."""
        record, present = self._memory.record, self._present
        run, old = present.run, present.old
        owed = self._facts.owed()
        plan = self._facts.plan(owed.duty)
        not_before = record.not_before_s
        if self._memory.rebooted and run is None and present.begins:
            not_before = max(not_before, present.begins + OFFLINE_START_AFTER_S)
        return Situation(
            duty=owed.duty,
            wanted=None if plan is None else plan.wanted,
            running=None if run is None else run.wanted,
            installed=record.installed,
            configured=record.configured,
            prepared=present.prepared,
            condemned=run is not None and run.condemned is not None,
            restart_asked=present.restart_asked,
            outgoing=None if old is None else old.wanted,
            ready=run is not None and run.health.serves,
            overlaps=plan is not None and plan.component.overlaps,
            held=record.held != 0 and record.held == self._facts.generation,
            finished=record.finished,
            reinstall=record.step == "reinstall",
            recreate=record.step == "recreate",
            not_before=not_before,
            now=self._deps.clock.boottime(),
        )

    def plan_to_start(self) -> Plan | None:
        """The plan to start now, if a start is what is due."""
        at = self.situation()
        return self._facts.plan(at.duty) if next_act(at) is Do.START and not self._present.closing else None

    def is_due(self, act: Do, plan: Plan) -> bool:
        """Whether an act that was begun for a plan is still what is due."""
        at = self.situation()
        return not self._present.closing and next_act(at) is act and self._facts.plan(at.duty) == plan

    def wait_s(self, at: Situation) -> float:
        """Seconds until something is due by itself."""
        waits = [FOREVER]
        if at.not_before > at.now:
            waits.append(at.not_before - at.now)
        until_ms = self._facts.owed().until_ms
        if until_ms is not None:
            waits.append((until_ms - self._deps.bus.now_ms()) / 1000)
        return min(waits)
