"""Chains: what makes a missing event noticed (rule B1, B2).

Rule 1: a source numbers all its events 1, 2, 3... in an incarnation, and those of each topic 1, 2, 3... beside it, each
    with the leaf hash of the one before on that topic (zeros for the first).
Rule 2: a reader keeps (incarnation, number, hash) for each (source, topic) it reads, and says of each event what it is.
Rule 3: at most `MAX_MISSING` missing ranges are remembered for a pair; the oldest is then lost, and so is what an older
    incarnation still owed when a newer one begins. What was given up and comes nevertheless is `old`.
Rule 4: a missing range remembers the hashes at its edges, so that what fills it must link on both sides.
Rule 5: at most `max_pairs` pairs are followed; the least recently read is forgotten and begins anew as a baseline (B7).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from dsmt.event.envelope import NO_LEAF, ChainLink, Event, SignedEvent
from dsmt.newest import Newest

MAX_MISSING: Final = 64


class SourceChain:
    """A source's own counters in one incarnation. Numbers are taken only for what is then signed."""

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.sequence = 0
        self._heads: dict[str, ChainLink] = {}

    @property
    def topics(self) -> int:
        """On how many topics something was said."""
        return len(self._heads)

    def next(self, topic: str) -> tuple[int, ChainLink]:
        """The sequence and link of the next event on a topic; it takes effect by `signed`."""
        head = self._heads.get(topic)
        return self.sequence + 1, ChainLink(1, NO_LEAF) if head is None else ChainLink(head.number + 1, head.previous)

    def signed(self, event: Event, leaf: bytes) -> None:
        """Note that an event was signed."""
        self.sequence = event.sequence
        self._heads[event.topic] = ChainLink(event.chain.number, leaf)


class Verdict(StrEnum):
    """What an event is to a reader's chain."""

    NEXT = "next"
    BASELINE = "baseline"
    """The first event read of this topic or of a newer incarnation: nothing is known of what was before."""
    GAP = "gap"
    """It is beyond the next one: `missing` names the range between."""
    LATE = "late"
    """It was missing and has come."""
    DUPLICATE = "duplicate"
    OLD = "old"
    """It is before everything that this reader knows or still waits for, or of an older incarnation."""
    EQUIVOCATION = "equivocation"
    """Its source signed two different events with one number."""


class _Range(msgspec.Struct, frozen=True):
    """Numbers not seen, both ends included; the hash of the event before them and the one after links to, if known."""

    low: int
    high: int
    before: bytes | None
    after: bytes | None


@dataclass(slots=True)
class _Pair:
    incarnation: int
    first: int
    number: int
    leaf: bytes
    missing: list[_Range] = field(default_factory=list)
    """Lowest first."""

    def give_up_oldest(self) -> tuple[int, int] | None:
        if len(self.missing) <= MAX_MISSING:
            return None
        oldest = self.missing.pop(0)
        self.first = oldest.high + 1
        return oldest.low, oldest.high


class Judged(msgspec.Struct, frozen=True):
    """What `ChainReader.judge` says: the verdict, the range that is missing (GAP), the range given up (rule 3).

    `abandoned` (BASELINE) are the ranges that the incarnation before still owed.
    """

    verdict: Verdict
    missing: tuple[int, int] | None = None
    lost: tuple[int, int] | None = None
    abandoned: tuple[tuple[int, int], ...] = ()


_NEXT, _OLD, _DUPLICATE, _EQUIVOCATION = map(Judged, (Verdict.NEXT, Verdict.OLD, Verdict.DUPLICATE, Verdict.EQUIVOCATION))


class ChainReader:
    """Follows the chains of all (source, topic) pairs that one reader reads."""

    def __init__(self, *, max_pairs: int = 100_000) -> None:
        self._pairs: Newest[tuple[str, str], _Pair] = Newest(max_pairs)

    def judge(self, signed: SignedEvent) -> Judged:
        """Say what an event is, and take note of it."""
        event = signed.event
        key = (event.source, event.topic)
        pair = self._pairs.get(key)
        number = event.chain.number
        if pair is None or event.incarnation > pair.incarnation:
            return self._begin(key, event.incarnation, number, signed.leaf, before=pair)
        self._pairs.move_to_end(key)
        if event.incarnation < pair.incarnation or number < pair.first:
            return _OLD
        previous = event.chain.previous
        if number == pair.number + 1:
            linked = previous == pair.leaf
            pair.number, pair.leaf = number, signed.leaf
            return _NEXT if linked else _EQUIVOCATION
        if number > pair.number:
            return self._gap(pair, number, previous, signed.leaf)
        return self._behind(pair, number, previous, signed.leaf)

    def missing(self, source: str, topic: str) -> list[tuple[int, int]]:
        """The ranges still missing of a pair."""
        pair = self._pairs.get((source, topic))
        return [] if pair is None else [(gap.low, gap.high) for gap in pair.missing]

    def forgive(self, source: str, topic: str, low: int, high: int) -> None:
        """What was missing between two numbers, both included, was trimmed or declared: nobody waits for it."""
        pair = self._pairs.get((source, topic))
        if pair is None:
            return
        left = []
        for gap in pair.missing:
            if gap.high < low or high < gap.low:
                left.append(gap)
                continue
            below, above = replace(gap, high=low - 1, after=None), replace(gap, low=high + 1, before=None)
            left += [part for part in (below, above) if part.low <= part.high]
        pair.missing = left
        if not left or left[0].low > high:
            pair.first = max(pair.first, min(high + 1, pair.number))

    def _begin(self, key: tuple[str, str], incarnation: int, number: int, leaf: bytes, *, before: _Pair | None) -> Judged:
        self._pairs[key] = _Pair(incarnation, number, number, leaf)
        abandoned = () if before is None else tuple((gap.low, gap.high) for gap in before.missing)
        return Judged(Verdict.BASELINE, abandoned=abandoned)

    @staticmethod
    def _gap(pair: _Pair, number: int, previous: bytes, leaf: bytes) -> Judged:
        gap = _Range(pair.number + 1, number - 1, pair.leaf, previous)
        pair.missing.append(gap)
        pair.number, pair.leaf = number, leaf
        return Judged(Verdict.GAP, (gap.low, gap.high), pair.give_up_oldest())

    @staticmethod
    def _behind(pair: _Pair, number: int, previous: bytes, leaf: bytes) -> Judged:
        for i, gap in enumerate(pair.missing):
            if gap.low <= number <= gap.high:
                if (number == gap.low and gap.before not in (None, previous)) or (
                    number == gap.high and gap.after not in (None, leaf)
                ):
                    return _EQUIVOCATION
                below, above = replace(gap, high=number - 1, after=previous), replace(gap, low=number + 1, before=leaf)
                pair.missing[i : i + 1] = [part for part in (below, above) if part.low <= part.high]
                return Judged(Verdict.LATE, lost=pair.give_up_oldest())
        if number == pair.number and leaf != pair.leaf:
            return _EQUIVOCATION
        return _DUPLICATE
