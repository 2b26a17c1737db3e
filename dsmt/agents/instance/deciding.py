"""Deciding: what is due now, from all that an agent knows; `dsmt.agents.rules.acts` names the act."""

from __future__ import annotations

from dsmt.agents.instance.facts import SlotFacts
from dsmt.agents.instance.held_here import HoldHere
from dsmt.agents.instance.memory import Memory
from dsmt.agents.instance.present import Present
from dsmt.agents.rules import after
from dsmt.agents.rules.acts import FOREVER, Do, Situation, next_act
from dsmt.agents.rules.launching import RunPlan
from dsmt.agents.rules.reconcile import OFFLINE_AGAIN_AFTER_S, OFFLINE_START_AFTER_S, Owed
from dsmt.agents.shared.surroundings import InstanceSurroundings
from dsmt.event.kinds.slot import Ended


class Deciding:
    """The situation of one instance, looked at anew each time."""

    def __init__(
        self, deps: InstanceSurroundings, memory: Memory, facts: SlotFacts, present: Present, hold: HoldHere
    ) -> None:
        self._deps = deps
        self._memory = memory
        self._facts = facts
        self._present = present
        self._hold = hold

    def situation(self) -> Situation:
        """All that the next act depends on."""
        record, present, facts = self._memory.record, self._present, self._facts
        run, old = present.run, present.old
        owed = facts.owed()
        plan = facts.plan(owed.duty)
        return Situation(
            duty=owed.duty,
            wanted=None if plan is None else plan.wanted,
            running=None if run is None else run.goal,
            installed=record.installed,
            configured=record.configured,
            prepared=present.prepared,
            closing=present.closing,
            unheeded=facts.cause is not None and (facts.epoch, facts.generation) != (record.epoch, record.generation),
            condemned=run is not None and run.condemned is not None,
            restart_asked=present.restart_asked,
            outgoing=None if old is None else old.goal,
            ready=run is not None and run.health.serves,
            followed=run is not None and run.followed,
            overlaps=plan is not None and plan.component.overlaps,
            held=record.held != 0 and record.held == facts.generation,
            held_here=self._hold.held is not None,
            ended=after.ended(
                record, None if plan is None else plan.wanted, None if plan is None else plan.component.restart
            ),
            came_ended=self._came_ended(plan),
            ended_good=record.good_key == record.run_key,
            reinstall=record.step == "reinstall",
            recreate=record.step == "recreate",
            not_before=self._not_before(),
            left_s=self._left_s(owed),
            now=self._deps.clock.boottime(),
        )

    def _came_ended(self, plan: RunPlan | None) -> Ended | None:
        """How what is wanted has ended well on another node, or here before what was refused."""
        record, facts = self._memory.record, self._facts
        if record.run_generation == facts.generation:
            return None
        wanted = None if plan is None else plan.wanted
        before = after.ended_before(record, wanted) if facts.goes_back else None
        return after.ended_elsewhere(record, wanted, facts.ended) or before

    def _not_before(self) -> float:
        """When the next try is due; where nothing of before runs there is time for a first word from a broker (A15)."""
        due, begins = self._memory.record.not_before_s, self._present.begins
        waits = (self._memory.rebooted or self._present.lost) and self._present.run is None and begins
        wait_s = OFFLINE_START_AFTER_S if self._memory.rebooted else OFFLINE_AGAIN_AFTER_S
        return max(due, begins + wait_s) if waits else due

    def _left_s(self, owed: Owed) -> float:
        return FOREVER if owed.until_ms is None else (owed.until_ms - self._deps.bus.now_ms()) / 1000

    def plan_to_start(self) -> RunPlan | None:
        """The plan to start now, if a start is what is due."""
        at = self.situation()
        return self._facts.plan(at.duty) if next_act(at) is Do.START else None

    def is_due(self, act: Do, plan: RunPlan) -> bool:
        """Whether an act that was begun for a plan is still what is due."""
        at = self.situation()
        return next_act(at) is act and self._facts.plan(at.duty) == plan
