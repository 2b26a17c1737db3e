"""Verify: a recorded stream of signed events (a CBOR sequence, RFC 8742), checked offline.

Rule 1: every item must be an event whose signature, certificate and grant are good at its own time.
Rule 2: each topic's chain of each source is followed from the first event of it that the file holds; what is missing in it
    is a gap, unless its source declared or a broker's notice says that it was dropped or trimmed. A notice counts only
    for what it is in: numbers of the topic, sequences of the source; rows of a store explain neither.
Rule 3: a file that holds brokers' heartbeats and a source's own was recorded whole (`dsmt tail --raw`): there the source's
    sequence is followed too, from its first heartbeat on; that of a source with no heartbeats, from its `started`.
Rule 4: an event that comes twice is nothing; two different ones with one number are an equivocation, as is an event
    that links to another than the one before it.
Rule 5: an event of a revoked key is not believed, whatever time it bears (SEMANTICS J3), wherever in the file the
    revocation stands: a stolen key signs with any time, and a file of events witnesses no order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Final

import msgspec

from dsmt.errors import UnusableEventError
from dsmt.event.codec import decode, open_envelope
from dsmt.event.envelope import Event, EventId, SignedEvent
from dsmt.event.records import BrokerNotice, from_data
from dsmt.operations.times import rfc3339
from dsmt.trust.store import TrustStore, revoked_by

_EXPLAINED: Final = frozenset({"declared", "trimmed", "dropped", "conflated"})
_STRANGER: Final = "trust.stranger"
_REVOKED: Final = "trust.revoked"
_UNWITNESSED: Final = "trust.unwitnessed"
_HEARTBEAT: Final = "dsmt.heartbeat"
MAX_FAULTS: Final = 100


class Gap(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Numbers that are missing, both ends included; `topic` null where only the source's sequence shows it."""

    source: str
    topic: str | None
    first: int = msgspec.field(name="from")
    last: int = msgspec.field(name="to")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong: its error code, the event (as far as it can be told) and a sentence."""

    code: str
    event: str | None
    message: str


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What a file is worth. `first` and `last` are the times of its first and last event.

    `events` are those that are believed; `unwitnessed` are those of revoked keys.
    """

    ok: bool
    events: int
    signers: int
    bad_signatures: int
    gaps: list[Gap]
    equivocations: int
    unknown_signers: int
    unwitnessed: int
    first: str | None
    last: str | None
    duplicates: int
    faults: list[Fault]


def items(raw: bytes) -> Iterator[bytes]:
    """The items of a CBOR sequence, as they stand. Raises `UnusableEventError` where it is none."""
    at = 0
    while at < len(raw):
        end = _end(raw, at, 0)
        yield raw[at:end]
        at = end


def _end(raw: bytes, at: int, depth: int) -> int:
    """Where the item that begins at `at` ends; definite lengths only."""
    if at >= len(raw) or depth > 16:
        raise UnusableEventError("event.form", f"the file ends, or is no CBOR, at byte {at}")
    major, extra = raw[at] >> 5, raw[at] & 31
    size = {24: 1, 25: 2, 26: 4, 27: 8}.get(extra, 0)
    if extra > 27 or at + 1 + size > len(raw):
        raise UnusableEventError("event.form", f"the file ends, or is no CBOR, at byte {at}")
    value = int.from_bytes(raw[at + 1 : at + 1 + size], "big") if size else extra
    at += 1 + size
    if major in (0, 1, 7):
        return at
    if major in (2, 3):
        if at + value > len(raw):
            raise UnusableEventError("event.form", f"the file ends within an item, at byte {len(raw)}")
        return at + value
    for _ in range({4: value, 5: 2 * value, 6: 1}[major]):
        at = _end(raw, at, depth + 1)
    return at


def verify(raw: bytes, trust: TrustStore) -> Verified:
    """Check a recorded stream."""
    return _Verification(trust).run(raw)


class _Verification:
    def __init__(self, trust: TrustStore) -> None:
        self._trust = trust
        self._known: dict[EventId, SignedEvent] = {}
        self._events: list[SignedEvent] = []
        self._notices: dict[str, list[BrokerNotice]] = defaultdict(list)
        self._strangers: set[bytes] = set()
        self._faults: list[Fault] = []
        self._bad = self._equivocations = self._duplicates = self._unwitnessed = 0

    def run(self, raw: bytes) -> Verified:
        try:
            for item in items(raw):
                self._item(item)
        except UnusableEventError as error:
            self._bad += 1
            self._fault(error.code, None, error.message)
        self._obey_revocations()
        for signed in self._events:
            if signed.event.type == "dsmt.notice":
                self._note(signed.event)
        chains = self._chains()
        gaps = sorted({*chains, *self._sequences(chains)}, key=lambda gap: (gap.source, gap.topic or "", gap.first))
        times = [signed.event.time_ms for signed in self._events]
        return Verified(
            ok=not (self._bad or self._strangers or gaps or self._equivocations or self._unwitnessed),
            events=len(self._events),
            signers=len({signed.event.source for signed in self._events}),
            bad_signatures=self._bad,
            gaps=gaps,
            equivocations=self._equivocations,
            unknown_signers=len(self._strangers),
            unwitnessed=self._unwitnessed,
            first=rfc3339(min(times, default=None)),
            last=rfc3339(max(times, default=None)),
            duplicates=self._duplicates,
            faults=self._faults,
        )

    def _fault(self, code: str, event: str | None, message: str) -> None:
        if len(self._faults) < MAX_FAULTS:
            self._faults.append(Fault(code=code, event=event, message=message))

    def _item(self, item: bytes) -> None:
        try:
            signed, _ = self._trust.open(item)
        except UnusableEventError as error:
            if error.code == _REVOKED:
                self._unwitness(_claimed(item))
                return
            if error.code == _STRANGER:
                self._strangers.add(_key_of(item))
            else:
                self._bad += 1
            self._fault(error.code, _claimed(item), error.message)
            return
        held = self._known.setdefault(signed.id, signed)
        if held is not signed and held.leaf == signed.leaf:
            self._duplicates += 1
            return
        if held is not signed:
            self._equivocation(str(signed.id), "two different events have this id")
        self._events.append(signed)

    def _equivocation(self, event: str, message: str) -> None:
        self._equivocations += 1
        self._fault("event.equivocation", event, message)

    # --- revocations ---------------------------------------------------------------------------------------------

    def _obey_revocations(self) -> None:
        """Rule 5, for the revocations that the file itself holds."""
        for signed in self._events:
            key_id = revoked_by(signed.event.topic)
            if key_id is not None:
                self._trust.revoke(key_id)
        ended = {key_id for key_id in {signed.key_id for signed in self._events} if self._trust.is_revoked(key_id)}
        for signed in self._events:
            if signed.key_id in ended:
                self._unwitness(str(signed.id))
        self._events = [signed for signed in self._events if signed.key_id not in ended]

    def _unwitness(self, event: str | None) -> None:
        self._unwitnessed += 1
        self._fault(_UNWITNESSED, event, "its key was revoked, and nobody witnesses that it was signed before")

    # --- chains --------------------------------------------------------------------------------------------------

    def _chains(self) -> list[Gap]:
        chains: dict[tuple[str, str, int], dict[int, SignedEvent]] = defaultdict(dict)
        for signed in self._events:
            event = signed.event
            chain = chains[event.source, event.topic, event.incarnation]
            other = chain.setdefault(event.chain.number, signed)
            if other.leaf != signed.leaf and other.id != signed.id:
                self._equivocation(str(signed.id), f"{event.topic} #{event.chain.number} was signed twice")
        gaps: list[Gap] = []
        for (source, topic, _), chain in chains.items():
            gaps += self._chain(source, topic, chain)
        return gaps

    def _chain(self, source: str, topic: str, chain: dict[int, SignedEvent]) -> Iterator[Gap]:
        numbers = sorted(chain)
        for before, after in pairwise(numbers):
            event = chain[after].event
            if after == before + 1:
                if event.chain.previous != chain[before].leaf:
                    self._equivocation(str(event.id), f"it does not link to #{before} of {topic}")
            elif not _within(before + 1, after - 1, [event.declares] if event.declares else []):
                told = self._told(source, topic, "number")
                if not _within(before + 1, after - 1, told):
                    yield Gap(source=source, topic=topic, first=before + 1, last=after - 1)

    def _told(self, source: str, topic: str | None, unit: str) -> list[tuple[int, int]]:
        """The ranges that brokers' notices explain: of chain numbers of a topic, or of sequences of the source."""
        return [(one.first, one.last) for one in self._notices[source] if (one.topic, one.unit) == (topic, unit)]

    def _note(self, event: Event) -> None:
        """Take in a broker's notice; one that cannot be read explains nothing."""
        with suppress(UnusableEventError):
            notice = from_data(BrokerNotice, event.data)
            if notice.kind in _EXPLAINED:
                self._notices[notice.source].append(notice)

    # --- sequences -----------------------------------------------------------------------------------------------

    def _sequences(self, chains: Iterable[Gap]) -> Iterator[Gap]:
        missing: dict[str, int] = defaultdict(int)
        for gap in chains:
            missing[gap.source] += gap.last - gap.first + 1
        runs: dict[tuple[str, int], list[Event]] = defaultdict(list)
        for signed in self._events:
            runs[signed.event.source, signed.event.incarnation].append(signed.event)
        if not any(e.type == _HEARTBEAT and e.source.startswith("broker/") for run in runs.values() for e in run):
            return
        for (source, _), events in sorted(runs.items()):
            begin = _whole_from(events)
            if begin is None:
                continue
            numbers = sorted({event.sequence for event in events if event.sequence >= begin})
            declared = sum(e.declares[1] - e.declares[0] + 1 for e in events if e.declares is not None)
            yield from self._sequence(source, numbers, missing[source] + declared)

    def _sequence(self, source: str, numbers: list[int], shown: int) -> Iterator[Gap]:
        """Holes of a sequence, but for as many numbers as the chains have shown to be missing or declared."""
        holes = [(a + 1, b - 1) for a, b in pairwise(numbers) if b > a + 1]
        told = self._told(source, None, "sequence")
        holes = [hole for hole in holes if not _within(*hole, told)]
        if sum(last - first + 1 for first, last in holes) > shown:
            yield from (Gap(source=source, topic=None, first=first, last=last) for first, last in holes)


def _whole_from(events: Iterable[Event]) -> int | None:
    """The sequence from which on a file must hold everything of one incarnation (rule 3); None when it need not."""
    own = [event for event in events if event.type == _HEARTBEAT]
    if not own:
        own = [event for event in events if event.type == "dsmt.source.started"]
    return min((event.sequence for event in own), default=None)


def _within(first: int, last: int, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(low <= first and last <= high for low, high in ranges)


def _key_of(item: bytes) -> bytes:
    return open_envelope(item).key_id


def _claimed(item: bytes) -> str | None:
    try:
        return str(decode(item)[0].id)
    except UnusableEventError:
        return None
