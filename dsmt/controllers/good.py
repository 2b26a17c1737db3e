"""Good: what was good in the slots of a component, and which of them stay with their data for that (rule A18, A19).

Rule 1: what was good in a slot its agent says, and is believed of what the slot's fact names; or it has been ready for long
    enough.
Rule 2: a slot stays with its data while what governs it keeps data. It also stays while a revision that keeps none is tried
    in it, for it may yet go back to one that keeps data: any that its fact names, but for those before the last good one.
    So what nobody has said yet lets no data go. One in which it was good stays while another slot may yet refuse it, and all
    would go back: one that is held, or on a dead node, refuses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import msgspec

from dsmt.controllers.left_data import data_left
from dsmt.controllers.readiness import Component
from dsmt.event.kinds.slot import DataHome, Good, Slot
from dsmt.view import SlotEntry, SlotKey


class KnownGood(Component):
    """One component of one service, at one time, and what was good in its slots."""

    # --- data ----------------------------------------------------------------------------------------------------

    def stays(self, slot: SlotEntry) -> bool:
        """Whether a slot stays where its data is (rule 2)."""
        return self.component.on_partition == "pinned" or self.may_go_back_to_data(slot)

    def home_of(self, key: SlotKey) -> DataHome | None:
        """Where the data is that a slot stays with; None for one that may be anywhere, or was nowhere yet."""
        return self.data_of(key) if self.stays(self.slot(key)) else None

    def data_of(self, key: SlotKey) -> DataHome | None:
        """Where the data of a slot is, whether it stays there or not. A fact that ends an orphan (revision 0) names none."""
        fact = self.slot(key).fact
        return fact.record.home if fact is not None and fact.record.revision else self._left.get((key.component, key.index))

    @cached_property
    def _left(self) -> dict[tuple[str, int], DataHome]:
        return data_left(self.fleet, self.entry.name)

    def may_go_back_to_data(self, slot: SlotEntry) -> bool:
        """Whether a slot has data of a revision to which it may yet go back, or may be found to (rule 2)."""
        if slot.fact is None or slot.fact.record.home is None:
            return False
        if self.is_good(slot):
            return self._tries_beside_data
        good = self.good(slot)
        last = 1 if good is None else good.revision
        back = (one for one in slot.fact.record.revisions if last <= one.revision and self._is_earlier(one))
        return any(self.runs(one).on_partition == "pinned" for one in back)

    @cached_property
    def _tries_beside_data(self) -> bool:
        """Whether a slot that runs may yet refuse what stands, and all would go back to a revision that keeps data."""
        before = self.before if self.component.update.rollback else None
        return before is not None and self.runs(before).on_partition == "pinned" and any(map(self._tries, self.slots))

    def _tries(self, slot: SlotEntry) -> bool:
        fact = slot.fact
        if fact is None or fact.record.node is None or fact.record.desired != "running" or self.is_good(slot):
            return False
        return not self.fleet.is_lost(fact.record.node)

    def gone_fact(self, slot: SlotEntry, fact: Slot) -> Slot:
        """The fact that ends a slot. It says what was good there, which nobody says any more once it is gone.

        What it implements is named as what stands has it, if that says it again: so is what was good in it.
        """
        good, again = self.good(slot), self.stands
        if fact.implements != again and self._stands_for(fact.implements, fact):
            fact = msgspec.structs.replace(fact, spec=again.spec, revision=again.revision, former=fact.implements)
        good_ended = fact.good_ended if good in (None, fact.good) else None
        return gone(msgspec.structs.replace(fact, good=good or fact.good, good_ended=good_ended))

    # --- the revision --------------------------------------------------------------------------------------------

    @cached_property
    def before(self) -> Good | None:
        """What to go back to: the newest revision that was good in a slot of the component before what stands was said."""
        return self._newest(slot for slot in self.slots if slot.record is not None and slot.record.desired != "gone")

    @cached_property
    def before_all_ended(self) -> Good | None:
        """The same; where none is left that knows, by those that have ended."""
        return self.before or self._newest(self.slots)

    def _newest(self, slots: Iterable[SlotEntry]) -> Good | None:
        earlier = (good for good in map(self.good, slots) if good is not None and self._is_earlier(good))
        return max(earlier, key=lambda good: (good.revision, good.spec), default=None)

    def _is_earlier(self, one: Good) -> bool:
        """Whether a revision is one before what stands: also one of its number that was overruled (E2)."""
        return 0 < one.revision <= self.spec.version and not self.entry.says_again(one.spec)

    def called(self, earlier: Good) -> str:
        """What a revision before what stands is called: one of the same number was overruled by it (E2)."""
        return f"r{earlier.revision}" + (", which it overruled" if earlier.revision == self.spec.version else "")

    @cached_property
    def has_earlier(self) -> bool:
        """Whether a slot names a revision before what stands: else there is nothing to go back to."""
        facts = (slot.fact.record for slot in self.slots if slot.fact is not None)
        return any(self._is_earlier(one) for fact in facts for one in fact.revisions)

    @cached_property
    def held_in(self) -> int | None:
        """The index of a slot that was stopped by hand while what stands was tried there; None if that is good anywhere."""
        own = (
            (index, self.entry.slots[name, index]) for name, index in sorted(self.entry.held) if name == self.component.name
        )
        known = ((index, slot, slot.record) for index, slot in own if slot.record is not None)
        held = next((index for index, slot, told in known if self._is_held_tried(slot, told)), None)
        return None if held is None or any(map(self.is_good, self.slots)) else held

    def _is_held_tried(self, slot: SlotEntry, fact: Slot) -> bool:
        """Whether a hold has stopped what stands where it was tried; or is to, and its fact does not say so yet."""
        if self.is_over_there(slot, fact):
            return False
        is_held = fact.tried if fact.held else fact.desired == "running" and slot.hold is not None
        return is_held and self.entry.says_again(fact.spec)

    def is_over_there(self, slot: SlotEntry, fact: Slot) -> bool:
        """Whether nobody can ever be good where a slot stays: its node has left, or is another machine without its data."""
        home = fact.home if self.stays(slot) else None
        if home is not None and not self.fleet.is_machine(home.node, home.key):
            return True
        return (home is not None or self.component.each_node) and self.fleet.state(fact.node or "") == "left"

    def is_good(self, slot: SlotEntry) -> bool:
        """Whether what stands was good in a slot."""
        good = self.good(slot)
        return good is not None and self.entry.says_again(good.spec)

    def good(self, slot: SlotEntry) -> Good | None:
        """The last revision that was good in a slot: the present one, what its agent says, or what its fact carries.

        An agent is believed of what the slot's fact names: the present revision, the one before, the last good one. What
        stands now is good where it says again what was (`_stands_for`): the earlier event may be one that nobody believes.
        A revision that is yet to come was good nowhere.
        """
        found = self._known_good(slot)
        if found is not None and found.revision > self.spec.version:
            return None
        if found is None or slot.fact is None or not self._stands_for(found, slot.fact.record):
            return found
        return self.stands

    def _stands_for(self, good: Good, told: Slot) -> bool:
        """Whether what stands now says again what was good in a slot; but for how many instances there are.

        Or it was signed anew as it runs, where a later revision was refused: it then follows from what the slot implements.
        """
        return self.entry.says_again(good.spec) or (
            told.refuses is not None and told.spec in map(str, self.spec.signed.event.cause)
        )

    def _known_good(self, slot: SlotEntry) -> Good | None:
        fact = slot.fact
        if fact is None:
            return None
        present, told = fact.record.implements, fact.record
        due = self.good_from(slot)
        if due is not None and due <= self.fleet.lost_since(told.node or ""):
            return present
        if told.good == present:
            return present
        said = slot.current_status
        return said.record.good if said is not None and said.record.good in told.revisions else told.good


def gone(fact: Slot) -> Slot:
    """A slot fact that ends its slot."""
    return msgspec.structs.replace(fact, desired="gone", previous=None, reason=None, parked=False)
