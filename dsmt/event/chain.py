"""Chains: what makes a missing event noticed (SEMANTICS B1, B2).

Rule 1: a source numbers all its events 1, 2, 3... in an incarnation, and those of each topic 1, 2, 3... beside it, each
    with the leaf hash of the one before on that topic (zeros for the first).
Rule 2: a reader keeps (incarnation, number, hash) for each (source, topic) it reads, and says of each event what it is.
Rule 3: D, the sum modulo 2^256 of SHA-256(topic, number, hash) over a source's heads, tells who holds all of them
    whether something is missing.
Rule 4: at most `MAX_MISSING` missing ranges are remembered for a pair; the oldest is then lost.
Rule 5: at most `max_pairs` pairs are followed; the least recently read is forgotten and begins anew as a baseline (B7).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Final

from dsmt.event.envelope import NO_LEAF, Event, Link, SignedEvent

MAX_MISSING: Final = 64
_MODULUS: Final = 2**256


def head_hash(topic: str, number: int, leaf: bytes) -> int:
    """One head's part of D."""
    return int.from_bytes(sha256(b"%s\0%d\0%s" % (topic.encode(), number, leaf)).digest(), "big")


class SourceChain:
    """A source's own counters in one incarnation. Numbers are taken only for what is then signed."""

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.sequence = 0
        self._heads: dict[str, Link] = {}
        self._sum = 0

    def next(self, topic: str) -> tuple[int, Link]:
        """The sequence and link of the next event on a topic; it takes effect by `signed`."""
        head = self._heads.get(topic)
        return self.sequence + 1, Link(1, NO_LEAF) if head is None else Link(head.number + 1, head.previous)

    def signed(self, event: Event, leaf: bytes) -> None:
        """Note that an event was signed."""
        self.sequence = event.sequence
        topic, number = event.topic, event.chain.number
        before = self._heads.get(topic)
        if before is not None:
            self._sum -= head_hash(topic, before.number, before.previous)
        self._sum = (self._sum + head_hash(topic, number, leaf)) % _MODULUS
        self._heads[topic] = Link(number, leaf)

    @property
    def digest(self) -> bytes:
        """D, 32 bytes."""
        return self._sum.to_bytes(32, "big")


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
    """It is before everything that this reader knows, or of an older incarnation."""
    EQUIVOCATION = "equivocation"
    """Its source signed two different events with one number."""


@dataclass(slots=True)
class _Pair:
    incarnation: int
    first: int
    number: int
    leaf: bytes
    missing: list[tuple[int, int]] = field(default_factory=list)
    """Closed ranges of numbers not seen, lowest first."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What `ChainReader.judge` says: the verdict, the range that is missing (GAP), the range given up (rule 4)."""

    verdict: Verdict
    missing: tuple[int, int] | None = None
    lost: tuple[int, int] | None = None


class ChainReader:
    """Follows the chains of all (source, topic) pairs that one reader reads."""

    def __init__(self, *, max_pairs: int = 100_000) -> None:
        self._pairs: OrderedDict[tuple[str, str], _Pair] = OrderedDict()
        self._max_pairs = max_pairs

    def judge(self, signed: SignedEvent) -> Judged:
        """Say what an event is, and take note of it."""
        event = signed.event
        key = (event.source, event.topic)
        pair = self._pairs.get(key)
        number = event.chain.number
        if pair is None or event.incarnation > pair.incarnation:
            return self._begin(key, event.incarnation, number, signed.leaf)
        self._pairs.move_to_end(key)
        if event.incarnation < pair.incarnation or number < pair.first:
            return Judged(Verdict.OLD)
        if number == pair.number + 1:
            if event.chain.previous != pair.leaf:
                return Judged(Verdict.EQUIVOCATION)
            pair.number, pair.leaf = number, signed.leaf
            return Judged(Verdict.NEXT)
        if number > pair.number:
            return self._gap(pair, number, signed.leaf)
        return self._behind(pair, number, signed.leaf)

    def missing(self, source: str, topic: str) -> list[tuple[int, int]]:
        """The ranges still missing of a pair."""
        pair = self._pairs.get((source, topic))
        return [] if pair is None else list(pair.missing)

    def forgive(self, source: str, topic: str, until: int) -> None:
        """What was missing up to a number was trimmed or declared: nobody waits for it."""
        pair = self._pairs.get((source, topic))
        if pair is not None:
            pair.missing = [(max(low, until + 1), high) for low, high in pair.missing if high > until]

    def _begin(self, key: tuple[str, str], incarnation: int, number: int, leaf: bytes) -> Judged:
        self._pairs[key] = _Pair(incarnation, number, number, leaf)
        self._pairs.move_to_end(key)
        if len(self._pairs) > self._max_pairs:
            self._pairs.popitem(last=False)
        return Judged(Verdict.BASELINE)

    @staticmethod
    def _gap(pair: _Pair, number: int, leaf: bytes) -> Judged:
        missing = (pair.number + 1, number - 1)
        pair.missing.append(missing)
        pair.number, pair.leaf = number, leaf
        lost = pair.missing.pop(0) if len(pair.missing) > MAX_MISSING else None
        return Judged(Verdict.GAP, missing, lost)

    @staticmethod
    def _behind(pair: _Pair, number: int, leaf: bytes) -> Judged:
        for i, (low, high) in enumerate(pair.missing):
            if low <= number <= high:
                pair.missing[i : i + 1] = [r for r in ((low, number - 1), (number + 1, high)) if r[0] <= r[1]]
                return Judged(Verdict.LATE)
        if number == pair.number and leaf != pair.leaf:
            return Judged(Verdict.EQUIVOCATION)
        return Judged(Verdict.DUPLICATE)
