"""Moves: what operators have asked of slots, and what was made of it, by the facts that a realm has signed.

Rule 1: every slot that is to exist has been where an operator wanted it moved, if that takes it now; and once for one word.
Rule 2: another word, such as that it be restarted, may come with a move for a node that died.
Rule 3: what comes from the other side of a partition comes in any order, and counts where it stands here (E2). A move that
    was made there, where that was overruled, is asked for no more by who has said another word there since: for them it was
    done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.order import newer
from dsmt.simulator.fleet import SimFleet


def moved_as_asked(fleet: SimFleet) -> list[str]:
    """Rule 1."""
    facts = list(fleet.in_turn("dsmt.slot.control", "dsmt.slot", "dsmt.tombstone"))
    lost, kept = _overruled(facts), {signed.id for _, signed in fleet.rows()}
    undone = {(_slot_of(one), one.event.data.get("move_number", 0)) for one in facts if one.id in lost and _is_slot(one)}
    moves = _Moves(kept, {one.id: _node_of(one) for one in facts if _is_slot(one)}, undone)
    for signed in _not_lost(facts, lost):
        moves.take(signed)
    known = frozenset(fleet.wanted())
    return [
        f"12.2: {slot} was to be moved to {to or 'another node'}, and never was ({signed.id})"
        for slot, (signed, to, _) in moves.asked.items()
        if slot in known and (not to or fleet.will.mode(to) == "active")
    ] + [f"12.2: {slot} was moved {n} times for one word ({word})" for (slot, word), n in moves.made.items() if n > 1]


class _Asked(NamedTuple):
    """By which word a slot is to be moved, to which node, empty for another one; and which one it leaves."""

    word: SignedEvent
    to: str
    leaves: str

    @property
    def number(self) -> int:
        """The number of this move."""
        return int(self.word.event.data["move_number"])


class _Moves:
    """The moves of all slots. `kept` are the events that a store has, `nodes` where each slot fact has its slot.

    `undone` are slots with the numbers of moves that were made where that was overruled.
    """

    def __init__(
        self, kept: Collection[EventId], nodes: Mapping[EventId, str | None], undone: Collection[tuple[str, int]]
    ) -> None:
        self._kept, self._nodes, self._undone = kept, nodes, undone
        self.asked: dict[str, _Asked] = {}
        """What is yet to be made."""
        self.made: Counter[tuple[str, EventId]] = Counter()
        """How often a slot was moved for a word."""
        self._words: set[EventId] = set()
        self._numbers: dict[tuple[str, int | None], int] = {}
        """By slot and epoch, the number of the last move that was asked for."""
        self._done: set[tuple[str, int]] = set()
        self._last: dict[str, str | None] = {}

    def take(self, signed: SignedEvent) -> None:
        """Take in a tombstone, a slot's fact, or an operator's will for one."""
        event = signed.event
        if event.type == "dsmt.tombstone":
            self._ended(event.topic.rpartition("/")[2], event.epoch or 0)
            return
        slot = _slot_of(signed)
        if _is_slot(signed):
            self._placed(slot, signed)
        else:
            self._told(slot, signed)

    def _ended(self, service: str, epoch: int) -> None:
        over = [slot for slot, one in self.asked.items() if slot.split("/")[0] == service and _epoch(one.word) <= epoch]
        for slot in over:
            del self.asked[slot]

    def _placed(self, slot: str, signed: SignedEvent) -> None:
        event, node, before = signed.event, self._nodes[signed.id], self._last.get(slot)
        if event.replaces is not None and event.replaces in self._nodes:
            before = self._nodes[event.replaces]
        if slot in self.asked and node is not None:
            _, to, leaves = self.asked[slot]
            if node == to or (not to and node != (leaves or before)):
                del self.asked[slot]
        if None not in (node, before) and node != before:
            self.made.update((slot, cause) for cause in event.cause if cause in self._words)
            self._done.add((slot, event.data.get("move_number", 0)))
        self._last[slot] = node

    def _told(self, slot: str, signed: SignedEvent) -> None:
        data, place = signed.event.data, (slot, signed.event.epoch)
        number = data["move_number"]
        if data["move"] is None:
            asked = self.asked.get(slot)
            if asked is not None and asked.number == number and (slot, number) in self._undone:
                del self.asked[slot]
            return
        if number <= self._numbers.get(place, 0):
            return
        self._words.add(signed.id)
        self._numbers[place] = number
        if signed.id in self._kept and (slot, number) not in self._done:
            self.asked[slot] = _Asked(signed, data["move"], data.get("leave", ""))


def _is_slot(signed: SignedEvent) -> bool:
    return signed.event.type == "dsmt.slot"


def _slot_of(signed: SignedEvent) -> str:
    _, service, _, component, index = signed.event.topic.split("/")
    return f"{service}/{component}/{index}"


def _epoch(signed: SignedEvent) -> int:
    return signed.event.epoch or 0


def _node_of(fact: SignedEvent) -> str | None:
    """Where a slot is to be, by a fact of it."""
    node: str | None = fact.event.data["node"]
    return node if fact.event.data["desired"] != "gone" else None


def _not_lost(facts: Sequence[SignedEvent], lost: Collection[EventId]) -> Iterator[SignedEvent]:
    """Those that come from the other side of a partition, and lose or are hidden here, are left out (E2)."""
    ended = dict[str, int]()
    for signed in facts:
        event = signed.event
        if event.type == "dsmt.tombstone":
            service = event.topic.rpartition("/")[2]
            ended[service] = max(_epoch(signed), ended.get(service, 0))
            yield signed
        elif signed.id not in lost and _epoch(signed) > ended.get(event.topic.split("/")[1], -1):
            yield signed


def _overruled(facts: Sequence[SignedEvent]) -> set[EventId]:
    """The shared facts in whose place another one of their version stands, and those that follow it (E2)."""
    by_id = {signed.id: signed for signed in facts}
    ends: dict[tuple[str, int | None], SignedEvent] = {}
    for signed in facts:
        place = signed.event.topic, signed.event.epoch
        if place not in ends or newer(signed.event, ends[place].event):
            ends[place] = signed
    stands: dict[tuple[str, int | None, int | None], EventId] = {}
    for end in ends.values():
        one: SignedEvent | None = end
        while one is not None:
            stands[one.event.topic, one.event.epoch, one.event.version] = one.id
            one = None if one.event.replaces is None else by_id.get(one.event.replaces)
    place_of = ((one.id, (one.event.topic, one.event.epoch, one.event.version)) for one in facts)
    return {identity for identity, place in place_of if stands.get(place, identity) != identity}
