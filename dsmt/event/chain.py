"""Chains: what makes a missing event noticed (rule B1, B2).

Rule 1: a source numbers all its events 1, 2, 3... in an incarnation, and those of each topic 1, 2, 3... beside it, each
    with the leaf hash of the one before on that topic (zeros for the first).
Rule 2: a reader keeps number and hash for each (source, topic, incarnation) it reads, and says of each event what it is.
    Of what was before the first that it read nothing is missing; what comes of that nevertheless is `earlier`.
Rule 3: at most `MAX_MISSING` missing ranges are remembered for a chain; the oldest is then lost, and what comes of it is
    taken for a duplicate. What was given up otherwise and comes nevertheless is `found`, as long as that is remembered.
Rule 4: a missing range remembers the hashes at its edges, so that what fills it must link on both sides.
Rule 5: at most `most` chains are followed; the least recently read is forgotten and begins anew as a baseline (B7). What was
    missing of it is then lost.
Rule 6: each incarnation is a chain of its own: what one has said may come after what a later one says, where a broker had
    it alone and was away.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from dsmt.event.envelope import NO_LEAF, ChainLink, Event, SignedEvent

MAX_MISSING: Final = 64
CHAINS: Final = 100_000

Line = tuple[str, str, int]
"""A chain: source, topic and incarnation."""


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


class ChainPosition(StrEnum):
    """What an event is to a reader's chain."""

    NEXT = "next"
    BASELINE = "baseline"
    """The first event read of this chain: nothing is known of what was before."""
    EARLIER = "earlier"
    """It is before the baseline, and was not read."""
    GAP = "gap"
    """It is beyond the next one: `missing` names the range between."""
    LATE = "late"
    """It was missing and has come."""
    FOUND = "found"
    """It was given up, and has come all the same."""
    DUPLICATE = "duplicate"
    """It was read, or is remembered no more."""
    EQUIVOCATION = "equivocation"
    """Its source signed two different events with one number."""


class _Range(msgspec.Struct, frozen=True):
    """Numbers not seen, both ends included; the hash of the event before them and the one after links to, if known.

    `owed` is False for what was before the baseline, and for what was given up.
    """

    low: int
    high: int
    before: bytes | None
    after: bytes | None
    owed: bool = True


@dataclass(slots=True)
class _Chain:
    number: int
    leaf: bytes
    sequence: int
    missing: list[_Range]
    """Lowest first."""
    first: int
    """The baseline."""

    def give_up_oldest(self) -> tuple[int, int] | None:
        """Have no more than are remembered: first goes what was given up, last what was before the baseline.

        Returns the range that is lost, if one is.
        """
        if len(self.missing) <= MAX_MISSING:
            return None
        oldest = min(self.missing, key=lambda gap: (gap.high < self.first, gap.owed))
        self.missing.remove(oldest)
        return (oldest.low, oldest.high) if oldest.owed else None

    def position(self, gap: _Range) -> ChainPosition:
        """What of a range that has come is."""
        if gap.owed:
            return ChainPosition.LATE
        return ChainPosition.FOUND if gap.low >= self.first else ChainPosition.EARLIER


class Judged(msgspec.Struct, frozen=True):
    """What `ChainReader.judge` says: the position, and the range that is given up for it (rule 3).

    `missing` (GAP) is the range that is missing, and `after` the sequence of the event before it. `forgotten` is the chain
    that is followed no more (rule 5), and what was still missing of it.
    """

    position: ChainPosition
    missing: tuple[int, int] | None = None
    after: int = 0
    lost: tuple[int, int] | None = None
    forgotten: tuple[Line, tuple[tuple[int, int], ...]] | None = None


_BASELINE, _NEXT = Judged(ChainPosition.BASELINE), Judged(ChainPosition.NEXT)
_DUPLICATE, _EQUIVOCATION = Judged(ChainPosition.DUPLICATE), Judged(ChainPosition.EQUIVOCATION)


class ChainReader:
    """Follows all the chains that one reader reads."""

    def __init__(self, *, most: int = CHAINS) -> None:
        self._most, self._chains = most, OrderedDict[Line, _Chain]()

    def judge(self, signed: SignedEvent) -> Judged:
        """Say what an event is, and take note of it."""
        event = signed.event
        line = (event.source, event.topic, event.incarnation)
        chain = self._chains.get(line)
        number, previous = event.chain.number, event.chain.previous
        if chain is None:
            before = [_Range(1, number - 1, NO_LEAF, previous, owed=False)] if number > 1 else []
            self._chains[line] = _Chain(number, signed.leaf, event.sequence, before, number)
            return Judged(ChainPosition.BASELINE, forgotten=self._forget()) if len(self._chains) > self._most else _BASELINE
        self._chains.move_to_end(line)
        if number <= chain.number:
            return self._behind(chain, signed)
        if number > chain.number + 1:
            judged = self._gap(chain, signed)
        else:
            judged = _NEXT if previous == chain.leaf else _EQUIVOCATION
        chain.number, chain.leaf, chain.sequence = number, signed.leaf, event.sequence
        return judged

    def missing(self, line: Line) -> list[tuple[int, int]]:
        """The ranges still missing of a chain."""
        chain = self._chains.get(line)
        return [] if chain is None else [(gap.low, gap.high) for gap in chain.missing if gap.owed]

    def forgive(self, line: Line, low: int, high: int) -> None:
        """What is missing between two numbers, both included, is given up: nobody waits for it, and it may come yet."""
        chain = self._chains.get(line)
        if chain is None:
            return
        left = []
        for gap in chain.missing:
            if gap.high < low or high < gap.low:
                left.append(gap)
                continue
            below, above = replace(gap, high=low - 1, after=None), replace(gap, low=high + 1, before=None)
            given_up = _Range(
                max(gap.low, low),
                min(gap.high, high),
                gap.before if low <= gap.low else None,
                gap.after if gap.high <= high else None,
                owed=False,
            )
            left += [part for part in (below, given_up, above) if part.low <= part.high]
        chain.missing = left

    def _forget(self) -> tuple[Line, tuple[tuple[int, int], ...]]:
        line, chain = self._chains.popitem(last=False)
        return line, tuple((gap.low, gap.high) for gap in chain.missing if gap.owed)

    @staticmethod
    def _gap(chain: _Chain, signed: SignedEvent) -> Judged:
        link = signed.event.chain
        gap = _Range(chain.number + 1, link.number - 1, chain.leaf, link.previous)
        chain.missing.append(gap)
        return Judged(ChainPosition.GAP, (gap.low, gap.high), chain.sequence, chain.give_up_oldest())

    @staticmethod
    def _behind(chain: _Chain, signed: SignedEvent) -> Judged:
        number, previous, leaf = signed.event.chain.number, signed.event.chain.previous, signed.leaf
        for i, gap in enumerate(chain.missing):
            if gap.low <= number <= gap.high:
                if (number == gap.low and gap.before not in (None, previous)) or (
                    number == gap.high and gap.after not in (None, leaf)
                ):
                    return _EQUIVOCATION
                below, above = replace(gap, high=number - 1, after=previous), replace(gap, low=number + 1, before=leaf)
                chain.missing[i : i + 1] = [part for part in (below, above) if part.low <= part.high]
                return Judged(chain.position(gap), lost=chain.give_up_oldest())
        if number == chain.number and leaf != chain.leaf:
            return _EQUIVOCATION
        return _DUPLICATE
