"""Readiness: since when what a slot is to run is ready there, until when it is to be, and why it is not.

Rule 1: what is ready is the present generation: healthy, or running where nothing is checked.
Rule 2: no time is believed that is later than the word which says it.
"""

from __future__ import annotations

from typing import Final

from dsmt.event.kinds.instance import STEPS
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good, Slot
from dsmt.event.phrases import cut, stepped
from dsmt.event.reason import happened
from dsmt.event.status import State
from dsmt.spec.records import ComponentSpec
from dsmt.view import NO_SLOT, Fleet, Held, ServiceEntry, SlotEntry, SlotKey
from dsmt.view.entries import answers

_ENDED_BY_ORDER: Final = frozenset({State.TERMINATED, State.STOPPED})
_UP: Final = frozenset({State.INSTALLED, State.RUNNING})
"""What is said of a container, and of an agent, that has done its part."""
EVIDENCE_MOST: Final = 200
"""So many characters of what a check has found stand in a reason."""


class Component:
    """One component of one service, at one time: what governs it, and how its slots stand."""

    def __init__(self, fleet: Fleet, entry: ServiceEntry, spec: Held[SpecFact], component: ComponentSpec) -> None:
        self.fleet, self.entry, self.spec = fleet, entry, spec
        self.component = component
        """What governs its slots: what stands or, where that was refused, what was gone back to."""
        self.now_ms = fleet.now_ms
        self.stands = Good(spec=str(spec.id), revision=spec.version)
        """What stands, as it is named once it was good, or refused."""

    @property
    def slots(self) -> list[SlotEntry]:
        """Its slots."""
        return [slot for (component, _), slot in self.entry.slots.items() if component == self.component.name]

    def slot(self, key: SlotKey) -> SlotEntry:
        """What is known of one of its slots."""
        return self.entry.slots.get((key.component, key.index), NO_SLOT)

    def runs(self, one: Slot | Good) -> ComponentSpec:
        """The component as the revision has it that a slot fact implements, or names."""
        return self.entry.component_of(self.component.name, one.spec) or self.component

    # --- when it is ready ----------------------------------------------------------------------------------------

    def ready_since(self, slot: SlotEntry) -> int | None:
        """Since when the present generation is ready (realm ms): healthy, or running where nothing is checked."""
        since, there = running_since(slot), slot.instance
        if since is None or slot.fact is None or there is None:
            return None
        if there.health is None:
            return since if self.runs(slot.fact.record).health is None else None
        health = slot.health
        if health is None or health.record.health == "unready":
            return None
        return max(since, min(health.record.since_ms, health.time_ms) if health.record.health == "ready" else since)

    def good_from(self, slot: SlotEntry) -> int | None:
        """When the present generation will have been ready for long enough (realm ms), if it stays so."""
        since = self.ready_since(slot)
        if since is None or slot.fact is None:
            return None
        return since + round(self.runs(slot.fact.record).update.healthy_after_s * 1000)

    def is_late(self, slot: SlotEntry, fact: Held[Slot]) -> bool:
        """Whether the present generation was not ready in time; one that is good for no longer yet was."""
        until, since = self.ready_by(fact), self.ready_since(slot)
        return until <= self.now_ms and (since is None or since > until)

    def ready_by(self, fact: Held[Slot]) -> int:
        """When (realm ms) the present generation is to be ready."""
        return fact.time_ms + self.allowed_ms(fact.record)

    def allowed_ms(self, slot: Slot) -> int:
        """How long it may take until the program of a slot fact is ready: one that must end first has its time to end."""
        runs, former = self.runs(slot), slot.former
        ends_ms = 0 if former is None or runs.overlaps else self.ending_ms(former.spec)
        return round(runs.update.deadline_s * 1000) + ends_ms

    def ending_ms(self, spec: str) -> int:
        """How long a program of a revision may take to end."""
        return round((self.entry.component_of(self.component.name, spec) or self.component).stop.most_s * 1000)

    def is_overdue(self, slot: SlotEntry) -> bool:
        """Whether the present generation is parked, or was not ready in time."""
        if slot.fact is None or self.ready_since(slot) is not None:
            return False
        return self.parked(slot) or self.is_late(slot, slot.fact)

    def parked(self, slot: SlotEntry) -> bool:
        """Whether the present generation is parked on its node, or was when it was stopped to leave it."""
        told, said = slot.record, slot.current_status
        if told is None or told.parked:
            return told is not None
        return said is not None and said.record.state is State.FAILED and said.record.parked

    def unready_from(self, slot: SlotEntry) -> int | None:
        """From when on (realm ms) it counts that the present generation is not ready; None while nobody says so.

        That nobody says anything proves nothing (R4): words die, a broker comes up empty, a node boots. Who speaks for the
        program knows what was good, and the time counts from when it had the slot's fact, which may have waited for a link;
        who speaks only of what is to run it does not, and the time counts from that word. What was ended by order, with its
        machine, and has not begun again since, was late for no fault of its own.
        """
        fact, instance, said = slot.fact, slot.instance, slot.current_status
        if fact is None or instance is None:
            return None
        if said is not None:
            if said.record.state in _ENDED_BY_ORDER or self.fleet.is_closed(said.signed.event.source):
                return None
            is_unready = slot.health is not None and slot.health.record.health == "unready"
            since = max(fact.time_ms, said.record.taken_ms or 0)
            return since if said.record.state is not State.RUNNING or is_unready else None
        below = [one.record for one in (instance.container, instance.agent) if one is not None]
        waits = [one for one in below if answers(fact, one) and one.state not in _UP]
        return max([fact.time_ms, *(one.since_ms for one in waits)]) if waits else None

    def lateness(self, slot: SlotEntry, allowed_ms: int) -> str:
        """How the present generation was not ready in time, and what is known of why."""
        last = None if slot.status is None else slot.status.record.reason
        held_s = 0.0 if slot.record is None else self.runs(slot.record).update.healthy_after_s
        for_long = f" for {held_s:g} s on end" if held_s and last is not None and last.code.startswith("run.") else ""
        return f"was not ready{for_long} within {allowed_ms / 1000:g} s{self._last_evidence(slot)}"

    def _last_evidence(self, slot: SlotEntry) -> str:
        """What is known of why the present generation is not ready, as it stands behind that; nothing where nothing is."""
        said = slot.current_status
        if said is not None and said.record.reason is not None:
            return f": {happened(said.record.reason)}"
        step = None if said is None else said.record.step
        if step is not None:
            took_s, see = max(0, self.now_ms - step.since_ms) / 1000, f"; see dsmt logs {self.entry.name} --step {step.name}"
            return f": {stepped(step.name)} had taken {took_s:.4g} s, and had not ended{see if step.name in STEPS else ''}"
        evidence = slot.health.record.evidence if slot.health is not None and slot.health.record.health == "unready" else ""
        return f": {cut(evidence, EVIDENCE_MOST)}" if evidence else ""


def running_since(slot: SlotEntry) -> int | None:
    """Since when the present generation runs on its node (realm ms); None when it does not.

    No time is believed that is later than the word which says it.
    """
    said = slot.current_status
    return min(said.record.since_ms, said.time_ms) if said is not None and said.record.state == "running" else None
