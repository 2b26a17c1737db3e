"""Rollout: what stands of a component, in which slots it is tried and has failed, and what governs a slot meanwhile.

Rule 1: what stands has failed when it is parked, or overdue, or was moved, in a slot in which it was never good; or was
    stopped by hand where it was tried. A fact that moves or ends such a slot says so (`tried`): it has failed there until
    it is good there, also where the slot is gone by now; it comes back with what it had.
Rule 2: while it has failed and was not refused, a slot that implements another revision keeps that, and one that has no
    place gets what was good. So each slot is decided of, placed and told of by what governs it, whoever asks. But which
    slots there are is as what stands has it: also on which node each is, where there is one on each.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import msgspec

from dsmt.controllers.good import KnownGood
from dsmt.controllers.placement import Chooser
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.broker import SILENT_S
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good, Slot
from dsmt.event.phrases import whose
from dsmt.event.reason import Reason, reason
from dsmt.spec.records import ComponentSpec
from dsmt.view import Fleet, Held, ServiceEntry, SlotEntry, SlotKey


class Rollout(KnownGood):
    """One component at one time; with `kept` as those slots have it that keep an earlier revision."""

    def __init__(
        self, fleet: Fleet, entry: ServiceEntry, spec: Held[SpecFact], component: ComponentSpec, kept: Good | None = None
    ) -> None:
        super().__init__(fleet, entry, spec, component)
        self.kept = kept

    @cached_property
    def chooser(self) -> Chooser:
        """Chooses nodes for it."""
        return Chooser(self.fleet, self.entry.name, self.component)

    @cached_property
    def refusal(self) -> Held[Slot] | None:
        """A slot fact that says that this revision was rolled back; it implements the revision before."""
        return self.entry.refusal(self.component.name)

    @cached_property
    def refused_because(self) -> Reason | None:
        """Why that was rolled back, if a fact says so still."""
        return self.entry.refused_because(self.component.name)

    @property
    def basis(self) -> Good:
        """What slots are to implement."""
        return self.kept or (self.stands if self.refusal is None else self.refusal.record.implements)

    def kept_of(self, fact: Held[Slot] | None) -> Good | None:
        """The revision that a slot keeps, or begins with, while what stands has failed in another; None for what stands."""
        if fact is None or fact.record.wanted_on is None:
            keeps_none = self.refusal is not None or not self.has_failed or self._comes_back(fact)
            return None if keeps_none else self.before_all_ended
        if not self.lags(fact.record) or not self.has_failed:
            return None
        # where what stands was signed anew, all that it says is, too
        return None if self.entry.says_again(fact.record.spec) else fact.record.implements

    def _comes_back(self, fact: Held[Slot] | None) -> bool:
        """Whether a slot that is nowhere had what stands: it has failed there, or was good."""
        if fact is None or not self.entry.says_again(fact.record.spec):
            return False
        good = fact.record.good
        return fact.record.tried or (good is not None and self.entry.says_again(good.spec))

    def as_kept(self, kept: Good) -> ComponentSpec:
        """What a slot keeps; but how many there are, and whether one on each node, is as what stands has it."""
        return msgspec.structs.replace(self.runs(kept), instances=self.component.instances)

    def lags(self, slot: Slot) -> bool:
        """Whether a slot fact implements another revision than what is tried."""
        return self.refusal is None and slot.desired != "gone" and slot.spec != self.basis.spec

    @cached_property
    def has_failed(self) -> bool:
        """Whether what stands has failed in a slot in which it was never good, or was stopped by hand there."""
        return self.failed_in is not None or self.held_in is not None

    @cached_property
    def failed_in(self) -> int | None:
        """The index of the first slot in which what stands has failed, and was never good; None where there is none."""
        own = (place for place in sorted(self.entry.slots) if place[0] == self.component.name)
        return next((index for name, index in own if self.fails(self.entry.slots[name, index])), None)

    def fails(self, slot: SlotEntry) -> bool:
        """Whether what stands has failed in a slot, and was never good there (rule 1)."""
        fact = slot.fact
        if fact is None or not self.entry.says_again(fact.record.spec) or self.is_good(slot):
            return False
        told = fact.record
        if self.is_over_there(slot, told):
            return False
        if told.desired == "gone":
            return told.tried
        if told.tried and not told.held and (told.node is None or told.desired == "stopped"):
            return True
        has_failed = told.tried or told.moves > 0 or self.parked(slot) or self.is_late(slot, fact)
        return has_failed and self._is_tried(slot, fact)

    def tried_in(self, slot: SlotEntry, after: Slot) -> bool:
        """What the next fact of a slot says: whether what it had has failed in it, or is stopped there by a hold (rule 1).

        One that ends says it until it is good there. One that goes on says it no more once it was good there, is held no
        more, or implements something else.
        """
        before = slot.record
        if before is None or self.is_good(slot):
            return False
        if after.desired == "gone":
            return before.tried or self.fails(slot)
        if before.held and not after.held:
            return False
        if before.implements != after.implements and not self.entry.says_again(before.spec):
            return False
        return before.tried or (after.held and before.desired == "running") or self.fails(slot)

    def _is_tried(self, slot: SlotEntry, fact: Held[Slot]) -> bool:
        """Whether a slot is to run what stands, and somebody could say so, or has said that it fails."""
        told = fact.record
        if told.node is None or told.desired != "running" or slot.hold is not None:
            return False
        if not self.entry.says_again(told.spec):
            return False
        return not self.fleet.is_lost(told.node) or told.tried or told.moves > 0 or self.parked(slot)

    @cached_property
    def _is_unproven(self) -> bool:
        """Whether what stands is tried, and was good in no slot yet."""
        return self.refusal is None and not any(map(self.is_good, self.slots))

    def was_lost_untold(self, fact: Held[Slot]) -> bool:
        """Whether the node of a slot may have died with what stands, before anybody could know whether it is good."""
        lived_ms = self.fleet.lost_since(fact.record.node or "") + round(SILENT_S * 1000)
        is_tried = self.entry.says_again(fact.record.spec)
        tried = is_tried and fact.time_ms <= lived_ms and self.ready_by(fact) > self.now_ms
        return tried and self._is_unproven

    def rolls_in_place_only(self, slot: SlotEntry, component: ComponentSpec | None = None) -> bool:
        """Whether no two copies of a slot may run at once, as what governs it says, or another revision of that."""
        component = component or self.component
        return component.update.order == "stop_first" or component.on_partition != "at_least_one" or self.stays(slot)

    @cached_property
    def tried_until(self) -> list[int]:
        """When (realm ms) it is first known whether a slot is ready in time with what stands, or long enough; if ever."""
        tried = [(slot, slot.fact) for slot in self.slots if slot.fact is not None and self._is_tried(slot, slot.fact)]
        return self._next([*(self.ready_by(fact) for _, fact in tried), *(self.good_from(slot) for slot, _ in tried)])

    @property
    def is_anew(self) -> bool:
        """Whether what stands was signed anew, for a key was revoked (J3): it names then what it says again."""
        return bool(self.spec.signed.event.cause)

    @cached_property
    def ripening(self) -> list[int]:
        """When (realm ms) an earlier revision will first have been ready for long enough in a slot that implements it."""
        told = [(slot, slot.fact.record) for slot in self.slots if slot.fact is not None]
        earlier = [slot for slot, fact in told if not self.entry.says_again(fact.spec)]
        return self._next(map(self.good_from, earlier))

    @property
    def trials(self) -> list[int]:
        """When (realm ms) what a slot implements will first have been ready for long enough in it."""
        return self._next(map(self.good_from, self.slots))

    def _next(self, times: Iterable[int | None]) -> list[int]:
        """The first of these times (realm ms) that is to come; none where none is."""
        return sorted(at for at in times if at is not None and at > self.now_ms)[:1]

    def refused_at(self, slot: SlotEntry) -> int | None:
        """When (realm ms) what stands is refused in a slot, unless it is ready by then; None where it is not."""
        told = slot.record
        if told is None or told.desired != "running" or told.spec != self.stands.spec:
            return None
        if self.refusal is not None or self.ready_since(slot) is not None:
            return None
        if self.fleet.state(told.node or "") != "alive" or self.is_good(slot):
            return None
        since = self.unready_from(slot)
        return None if since is None else since + self.allowed_ms(told)


def who_applied(spec: Held[SpecFact]) -> str:
    """Whose word a spec is."""
    return whose(spec.record.by, spec.signed.event.source)


def held_because(slot: SlotEntry, key: SlotKey) -> Reason | None:
    """Why a slot is held; None when it is not."""
    hold = slot.hold
    if hold is None:
        return None
    if slot.control is None and slot.record is not None:
        return slot.record.reason
    told = slot.control if slot.control is not None and slot.control.record.hold == hold else None
    by = hold.by if told is None else whose(hold.by, told.signed.event.source)
    return reason("hold.operator", by=by, time=rfc3339(hold.at_ms), their=hold.reason or "no reason given", target=key)


def standing(fleet: Fleet, key: SlotKey) -> Rollout | None:
    """The component of a slot, as what stands has it or, where that was refused, what was gone back to.

    None where no spec that stands wants it.
    """
    entry = fleet.view.services.get(key.service)
    component = None if entry is None else entry.component(key.component)
    if entry is None or entry.spec is None or component is None or entry.spec.record.removed:
        return None
    return Rollout(fleet, entry, entry.spec, component)


class Governing:
    """What governs slots, at one time; of those that are governed alike it is found out once."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._found: dict[tuple[str, str, Good | None], Rollout | None] = {}

    def of(self, key: SlotKey) -> Rollout | None:
        """The component of a slot by the revision that governs it; None where no spec that stands wants it."""
        stands = self._what_stands(key)
        kept = None if stands is None else stands.kept_of(stands.slot(key).fact)
        if stands is None or kept is None:
            return stands
        named = (key.service, key.component, kept)
        if named not in self._found:
            self._found[named] = Rollout(self.fleet, stands.entry, stands.spec, stands.as_kept(kept), kept)
        return self._found[named]

    def _what_stands(self, key: SlotKey) -> Rollout | None:
        named = (key.service, key.component, None)
        if named not in self._found:
            self._found[named] = standing(self.fleet, key)
        return self._found[named]
