"""What a verification follows: the chains and sequences of all sources, of which it keeps hashes and numbers only.

Rule 1: each topic's chain of each source is followed from the first event of it; what is missing in it is a gap, unless its
    source declared, then or later, that it was dropped. Nobody else's word explains one: a notice of a broker does not (B9).
Rule 2: a source's sequence is followed from its first heartbeat on, up to what its last one vouches for; that of a
    source with no heartbeats, from its `started`.
Rule 3: what a key signed that was revoked counts for nothing.
Rule 4: what many events have alike is kept once: each is read with names, ids and hashes of its own.

What is added was `opened` (B9): a type stands on its own topic, with its record.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeVar, cast

import msgspec

from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.kinds.broker import BrokerNotice
from dsmt.event.kinds.source import Heartbeat
from dsmt.event.records import from_data
from dsmt.event.rowset import RowSet
from dsmt.trust.store import Signer

_T = TypeVar("_T", bound=Hashable)
_HEARTBEAT: Final = "dsmt.heartbeat"
_BEGINNINGS: Final = (_HEARTBEAT, "dsmt.source.started")


class Gap(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Numbers that are missing, both ends included; `topic` null where only the source's sequence shows it."""

    source: str
    topic: str | None
    first: int = msgspec.field(name="from")
    last: int = msgspec.field(name="to")


class PlacedGap(NamedTuple):
    """A gap of a chain, and the rows between which it stands."""

    gap: Gap
    after_row: int
    before_row: int

    @property
    def between(self) -> tuple[int, int]:
        """Where it may have stood: before both, where the first of them was stored later than the second."""
        return (self.after_row, self.before_row) if self.after_row <= self.before_row else (1, self.after_row)


class _Seen(NamedTuple):
    sequence: int
    leaf: bytes
    previous: bytes
    declares: tuple[int, int] | None
    key_id: bytes
    row: int


class Equivocation(NamedTuple):
    """Two things that their source cannot both have meant."""

    event: EventId
    message: str


class Followed:
    """Takes in checked events; says what is missing among them."""

    def __init__(self) -> None:
        self.equivocations: list[Equivocation] = []
        self.duplicates = 0
        self._known: dict[tuple[str, int], dict[int, bytes]] = defaultdict(dict)
        """By source and incarnation, the leaf of each sequence."""
        self._alike: dict[Hashable, Any] = {}
        """Rule 4."""
        self._chains: dict[tuple[str, str, int], dict[int, _Seen]] = defaultdict(dict)
        self._times: dict[Signer, tuple[int, int]] = {}
        self._notices: list[tuple[Signer, BrokerNotice]] = []
        self._vouched: dict[tuple[str, int], tuple[int, int, str]] = {}
        """For each incarnation: the first sequence that vouches, the last one vouched for, and by what."""

    def add(self, signed: SignedEvent, row: int = 0) -> bool:
        """Take in an event; False for one that is there already."""
        event = signed.event
        source, incarnation, key_id = self._once(event.source), self._once(event.incarnation), self._once(signed.key_id)
        held = self._known[source, incarnation].setdefault(event.sequence, signed.leaf)
        if held is not signed.leaf and held == signed.leaf:
            self.duplicates += 1
            return False
        if held != signed.leaf:
            self.equivocations.append(Equivocation(event.id, "two different events have this id"))
        chain = self._chains[source, event.topic, incarnation]
        before, previous = chain.get(event.chain.number - 1), event.chain.previous
        if before is not None and before.leaf == previous:
            previous = before.leaf
        seen = _Seen(event.sequence, signed.leaf, previous, event.declares, key_id, row)
        other = chain.setdefault(event.chain.number, seen)
        if other.leaf != signed.leaf and other.sequence != event.sequence:
            self.equivocations.append(Equivocation(event.id, f"{event.topic} #{event.chain.number} was signed twice"))
        signer = (key_id, source)
        first, last = self._times.get(signer, (event.time_ms, event.time_ms))
        self._times[signer] = min(first, event.time_ms), max(last, event.time_ms)
        if event.type in _BEGINNINGS:
            self._vouch(signed)
        elif event.type == "dsmt.notice":
            self._notices.append((signer, from_data(BrokerNotice, event.data)))
        return True

    def _once(self, value: _T) -> _T:
        return cast(_T, self._alike.setdefault(value, value))

    def _vouch(self, signed: SignedEvent) -> None:
        event = signed.event
        first, last, by = self._vouched.get((event.source, event.incarnation), (event.sequence, event.sequence, event.type))
        if by != _HEARTBEAT and event.type == _HEARTBEAT:
            first, by = event.sequence, _HEARTBEAT
        elif by == event.type:
            first = min(first, event.sequence)
        said = from_data(Heartbeat, event.data).sequence if event.type == _HEARTBEAT else 0
        self._vouched[event.source, event.incarnation] = first, max(last, event.sequence, said), by

    # --- who is believed -----------------------------------------------------------------------------------------

    @property
    def who_signed(self) -> AbstractSet[Signer]:
        """Who signed, as whom."""
        return self._times.keys()

    def ids_of(self, ended: AbstractSet[Signer]) -> Iterator[EventId]:
        """What they signed."""
        for (source, _, incarnation), chain in self._chains.items():
            for seen in chain.values():
                if (seen.key_id, source) in ended:
                    yield EventId(source, incarnation, seen.sequence)

    def forget(self, ended: AbstractSet[Signer]) -> None:
        """Rule 3."""
        for key, chain in list(self._chains.items()):
            left = {number: seen for number, seen in chain.items() if (seen.key_id, key[0]) not in ended}
            if left:
                self._chains[key] = left
            else:
                del self._chains[key]
        self._notices = [one for one in self._notices if one[0] not in ended]
        self._times = {signer: times for signer, times in self._times.items() if signer not in ended}

    @property
    def events(self) -> int:
        """How many there are."""
        return sum(map(len, self._chains.values()))

    @property
    def signers(self) -> int:
        """How many sources have said something."""
        return len({source for source, _, _ in self._chains})

    @property
    def span(self) -> tuple[int | None, int | None]:
        """The times of the first and the last event, in realm ms."""
        times = self._times.values()
        return min((first for first, _ in times), default=None), max((last for _, last in times), default=None)

    # --- what is missing -----------------------------------------------------------------------------------------

    def chains(self) -> list[PlacedGap]:
        """The gaps of all chains (rule 1)."""
        found = []
        for (source, topic, incarnation), chain in self._chains.items():
            told = (seen.declares for seen in chain.values() if seen.declares is not None)
            declared = RowSet((first, last) for first, last in told if first <= last)  # also what is told later
            for before, after in pairwise(sorted(chain)):
                low, high = chain[before], chain[after]
                if after == before + 1:
                    if high.previous != low.leaf:
                        said = f"it does not link to #{before} of {topic}"
                        self.equivocations.append(Equivocation(EventId(source, incarnation, high.sequence), said))
                    continue
                if declared.within(before + 1, after - 1) < after - before - 1:
                    gap = Gap(source=source, topic=topic, first=before + 1, last=after - 1)
                    found.append(PlacedGap(gap, low.row, high.row))
        return found

    def lost(self, broker: str) -> list[BrokerNotice]:
        """What a broker says that never came to it; a history holds what others say of themselves, too."""
        own = (one for (_, source), one in self._notices if source == broker)
        return [one for one in own if one.kind == "gap" and one.unit == "sequence"]

    def has_brokers_heartbeats(self) -> bool:
        """Whether everything was recorded, heartbeats too."""
        return any(source.startswith("broker/") and by == _HEARTBEAT for (source, _), (_, _, by) in self._vouched.items())

    def sequences(self) -> Iterator[Gap]:
        """The gaps of all sequences (rule 2), but for what the chains show to be missing, explained or not."""
        shown: dict[str, int] = defaultdict(int)
        there: dict[tuple[str, int], list[int]] = defaultdict(list)
        for (source, _, incarnation), chain in self._chains.items():
            there[source, incarnation] += [seen.sequence for seen in chain.values()]
            first = min(chain)
            declared = chain[first].declares
            shown[source] += max(chain) - first + 1 - len(chain) + (declared[1] - declared[0] + 1 if declared else 0)
        for (source, incarnation), sequences in sorted(there.items()):
            if (source, incarnation) in self._vouched:
                first, last, _ = self._vouched[source, incarnation]
                numbers = sorted(number for number in sequences if number >= first)
                yield from _holes(source, numbers, last, shown[source])


def _holes(source: str, numbers: list[int], last: int, shown: int) -> Iterator[Gap]:
    ends = [*numbers, last + 1] if numbers and last > numbers[-1] else numbers
    holes = [(a + 1, b - 1) for a, b in pairwise(ends) if b > a + 1]
    if sum(high - low + 1 for low, high in holes) > shown:
        yield from (Gap(source=source, topic=None, first=low, last=high) for low, high in holes)
