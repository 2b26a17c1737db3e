"""What if: what would become of the realm, by the very decisions that controllers make, on a copy of the live view.

Rule 1: what is asked for happens at once, in this order: services are applied (`planning`), nodes fall silent, others are
    drained. Whatever else there is goes on as it is, brokers and controllers on those nodes too.
Rule 2: that a silent node is dead is taken as found after F2's time, for there is nobody to probe it. What follows is
    decided, the brake too.
Rule 3: time passes to when a controller would look again, for `HORIZON_MS` at most; nodes that live do all well (`trial`).
Rule 4: what nodes that live were told before, and are at, they bring to its good end: what has only just been asked for,
    as by a `scale`, counts among what would be ready. What is parked, or has failed for good, does not, wherever it goes:
    it has failed by itself, and nobody knows that it would not there. Where what it runs is applied anew, it may.
Rule 5: the longer it takes, the less it tells: what has no place at the end has none, for whatever reason that says.
Rule 6: what is under way and would be done though nothing of this happened, as by a rollout, is told apart: it is played
    once more without anything that was asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from dsmt.controllers.decide import decide
from dsmt.controllers.intents import Intent
from dsmt.controllers.loop.agenda import Agenda
from dsmt.errors import InputError
from dsmt.event.kinds.node import NodeControl, NodeVerdict
from dsmt.event.kinds.slot import Slot
from dsmt.event.phrases import person
from dsmt.event.reason import Reason
from dsmt.event.records import to_data
from dsmt.event.status import Shown
from dsmt.operations.read.ahead.plan_words import PlacementReasons
from dsmt.operations.read.ahead.planning import ApplyPlan
from dsmt.operations.read.ahead.trial import (
    MAX_ROUNDS,
    PlannedStep,
    Trial,
    Unplaced,
    Wanted,
    action_of,
    key_of,
    reason_in,
    wanted_in,
)
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.holding import Undrained, left_on
from dsmt.operations.read.rows.instance_row import InstanceRow
from dsmt.operations.read.rows.instances import instances, is_ready, serves
from dsmt.operations.read.screens.summaries import Service, service, services
from dsmt.operations.read.waits.lasting import has_failed
from dsmt.operations.words.targets import Target
from dsmt.view import View
from dsmt.view.liveness import judged

HORIZON_MS: Final = 30 * 60_000


class ForeseenStep(PlannedStep, frozen=True, kw_only=True):
    """A step, `at_s` seconds after all that was asked for has happened; `leaves` is the node that it was on before.

    `anyway`: it would be made though nothing of that happened (rule 6).
    """

    at_s: float
    leaves: str | None
    anyway: bool = False


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """How many instances of a service are ready: `before`, at the `least` moment, and `after`; how many it wants then."""

    service: str
    wanted: int
    before: int
    least: int
    after: int


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of the realm. `unready` is what would not be ready at the end, and why.

    `left` is what would still be on nodes that are drained.

    `brake` says why replacing would wait, if the brake came on, or is `braked` now; `took_s` is when the last step is made.
    """

    killed: list[str]
    drained: list[str]
    plans: list[ApplyPlan]
    steps: list[ForeseenStep]
    services: list[Forecast]
    unready: list[Unplaced]
    brake: Reason | None
    braked: bool
    took_s: float
    left: list[Undrained] = []


def what_if(sight: Sight, plans: list[ApplyPlan], trial: View, *, kill: list[str], drain: list[str], by: str) -> WhatIf:
    """What would become of it all. `trial` is a copy of the view, on which those plans were made.

    Raises `InputError` where no node would be left.
    """
    if kill and not set(sight.fleet.members) - set(kill):
        raise InputError("whatif.all", "no node would be left, and nothing would run", next="leave one of them out")
    applied_ms = max((round(1000 * one.estimate_s) for one in plans), default=0)
    anew = {one.service for one in plans if one.changes}
    foreseen = _Foreseen(sight, trial, sight.now_ms + applied_ms, anew)
    foreseen.begin(kill, drain, by)
    foreseen.run()
    foreseen.steps = _told_apart(sight, foreseen.steps)
    return WhatIf(
        killed=kill,
        drained=drain,
        plans=plans,
        steps=foreseen.steps,
        services=foreseen.forecasts(),
        unready=foreseen.unready(),
        brake=foreseen.brake,
        braked=sight.brake.on or sight.brake.held,
        took_s=foreseen.steps[-1].at_s if foreseen.steps else 0.0,
        left=foreseen.left(drain),
    )


def _told_apart(sight: Sight, steps: list[ForeseenStep]) -> list[ForeseenStep]:
    """Steps, of which those are named that are made anyway (rule 6)."""
    if not steps:
        return steps
    alone = _Foreseen(sight, sight.view.copy(), sight.now_ms, ())
    alone.begin((), (), "")
    alone.run()
    anyway = {(one.instance, one.action, one.node) for one in alone.steps}
    return [msgspec.structs.replace(one, anyway=(one.instance, one.action, one.node) in anyway) for one in steps]


class _Foreseen:
    """The play: its steps, how many of each service were ready at the least moment, and why replacing waited."""

    def __init__(self, sight: Sight, view: View, began_ms: int, anew: Collection[str]) -> None:
        self.steps: list[ForeseenStep] = []
        self.brake: Reason | None = None
        self._sight, self._view, self._began_ms = sight, view, began_ms
        self._trial = Trial(view, began_ms, sight.broker, "")
        self._before = {one.service: one.ready for one in services(sight)}
        self._least: dict[str, int] = {}
        rows = (row for row in instances(sight) if has_failed(row) and row.service not in anew)
        self._failed = frozenset(row.instance for row in rows if not serves(sight, row))

    def _seen(self) -> Sight:
        """What an operator would see there."""
        trial = self._trial
        return Sight(self._view, trial.now_ms, trial.now_ms, trial.broker, self._sight.whole)

    # --- what is asked for ---------------------------------------------------------------------------------------

    def begin(self, killed: Collection[str], drained: Collection[str], by: str) -> None:
        """Have nodes fall silent, and be known for dead, and others be drained."""
        trial = self._trial
        for node in killed:
            self._silence(node)
        if killed:
            trial.now_ms += trial.fleet.dead_after_ms
        for node in killed:
            attachments, others = judged(self._view.nodes[node])
            dead = NodeVerdict(
                state="dead",
                road="silent",
                attachments=attachments,
                others=others,
                evidence=(),
                message="nobody hears it",
                since_ms=self._began_ms,
            )
            trial.say("controller/plan", f"node/{node}/verdict", to_data(dead), shared=True)
        for node in drained:
            control = NodeControl(mode="draining", by=by, reason="")
            trial.say(f"operator/{person(by)}", f"node/{node}/control", to_data(control), shared=True)
        self._note(self._before)
        for row in instances(self._sight):
            if _under_way(self._sight, row) and not trial.is_lost(row.node or ""):
                trial.finish(row.key)

    def _silence(self, node: str) -> None:
        """Say what its broker says of each of a node's sources that is heard no more."""
        for known in self._view.nodes[node].sources.values():
            if known.newest is None:
                continue
            broker, held = known.newest
            silent = msgspec.structs.replace(held.record, state="silent", how=None, since_ms=self._trial.now_ms)
            self._trial.say(f"broker/{broker}", held.signed.event.topic, to_data(silent))

    # --- what follows --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Decide, and have it done, until nothing is to be done any more."""
        trial, agenda = self._trial, Agenda()
        for _ in range(MAX_ROUNDS):
            look = agenda.look(self._view, self._view.take_dirty(), trial.now_ms)
            decided = decide(self._view, trial.now_ms, may_accuse=False, broker=trial.broker, look=look)
            agenda.note(decided)
            self.brake = self.brake or decided.brake.reason
            wanted = wanted_in(decided.intents)
            if wanted:
                self._round(wanted)
                continue
            wake = agenda.wake_ms
            if wake is None or wake > self._began_ms + HORIZON_MS:
                return
            trial.now_ms = max(wake, trial.now_ms + 1)

    def _round(self, wanted: Sequence[Wanted]) -> None:
        fleet = self._trial.fleet
        names = {key_of(intent).service for intent, _ in wanted}
        places = {name: PlacementReasons(fleet, name) for name in names}
        for intent, slot in wanted:
            self._step(intent, slot, places[key_of(intent).service])
        self._trial.play(wanted, lambda: self._note(names))

    def _step(self, intent: Intent, slot: Slot, places: PlacementReasons) -> None:
        key = key_of(intent)
        old = self._trial.told(key)
        action = action_of(old, slot)
        if action is None:
            return
        entry = self._view.services.get(key.service)
        component = None if entry is None else entry.component(key.component)
        because = "it is not wanted any more" if action == "remove" else reason_in(intent)
        if action in ("new", "move") and slot.node is not None and component is not None:
            because += f"; {places.why(component, slot.node)}"
        because += "; done; is not run again" if slot.ended is not None and action == "move" else ""
        leaves = None if old is None or old.node == slot.node else old.node
        at_s = round((self._trial.now_ms - self._began_ms) / 1000, 1)
        step = ForeseenStep(at_s=at_s, instance=str(key), action=action, leaves=leaves, node=slot.node, because=because)
        self.steps.append(step)

    # --- what comes of it ----------------------------------------------------------------------------------------

    def _note(self, names: Collection[str]) -> None:
        """See how many of some services are ready now."""
        seen = self._seen()
        for told in (service(seen, name) for name in names):
            if told is not None:
                ready = self._ready(seen, told)
                self._least[told.service] = min(ready, self._least.get(told.service, ready))

    def _ready(self, seen: Sight, told: Service) -> int:
        """How many of a service would be ready: not those that had failed by themselves (rule 4)."""
        if not any(instance.partition("/")[0] == told.service for instance in self._failed):
            return told.ready
        rows = instances(seen, Target(told.service))
        return told.ready - sum(serves(seen, row) for row in rows if row.instance in self._failed and not row.rests)

    def forecasts(self) -> list[Forecast]:
        """Each service that is touched, sorted."""
        found = []
        touched = {step.instance.partition("/")[0] for step in self.steps}
        seen = self._seen()
        for one in services(seen):
            after = self._ready(seen, one)
            before, least = self._before.get(one.service, 0), self._least.get(one.service, after)
            if one.service in touched or before != min(least, after):
                least = min(before, least, after)
                found.append(Forecast(service=one.service, wanted=one.wanted, before=before, least=least, after=after))
        return found

    def unready(self) -> list[Unplaced]:
        """What would not be ready, and was to be, with the reason; not what was so before."""
        before = {row.instance for row in instances(self._sight) if not is_ready(self._sight, row)}
        seen = self._seen()
        return [
            Unplaced(instance=row.instance, reason=row.reason)
            for row in instances(seen)
            if not row.rests and not is_ready(seen, row) and row.instance not in before
        ]

    def left(self, drained: Collection[str]) -> list[Undrained]:
        """What would still be placed on nodes that are drained, and why."""
        seen = self._seen()
        placed = {str(key) for node in drained for key in self._view.allocations.node(node).slots}
        return [one for node in drained for one in left_on(seen, node) if one.instance in placed]


def _under_way(sight: Sight, row: InstanceRow) -> bool:
    """Whether its node is alive and still working at what it was told, and nothing of that has failed."""
    if row.node is None or row.failures or row.held is not None or sight.fleet.state(row.node) != "alive":
        return False
    instance = sight.view.slot(row.key).instances.get(row.node)
    checked = None if instance is None or instance.health is None else instance.health.record
    if row.state is Shown.RUNNING:
        return row.health == "unready" and checked is not None and not checked.failures
    return row.state in (Shown.WAITING, Shown.INSTALLING, Shown.STARTING)
