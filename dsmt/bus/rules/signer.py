"""The event signer: a source's numbering, chaining and signing of what it says; no I/O, no waiting.

Rule 1: nothing is signed before the incarnation is confirmed, or known to be greater from the source's own disk (A11).
Rule 2: what is said in one turn of the loop is signed as one burst (B8); its ids are known at once.
Rule 3: a new incarnation begins with `dsmt.source.started` (B3).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dsmt.errors import InputError, UnusableEventError
from dsmt.event.chain import SourceChain
from dsmt.event.codec import Prepared, Signing, prepare, protected_header, sign_bursts
from dsmt.event.envelope import FIRST_EPOCH, Event, EventId, SignedEvent
from dsmt.event.hlc import HybridClock
from dsmt.event.kinds.source import Heartbeat, Started
from dsmt.event.layout import Encoder
from dsmt.event.records import from_data, later, to_data
from dsmt.event.registry import Match, lookup
from dsmt.ports.bus import TOLERATED_MS


@dataclass(slots=True, eq=False)
class PendingEvent:
    """One thing to say, from draft to signature. `cause` holds ids, or earlier events whose ids are not known yet."""

    topic: str
    data: dict[str, Any]
    subject: str
    cause: tuple[EventId | PendingEvent, ...]
    ttl: int | None
    to: tuple[str, ...]
    epoch: int | None
    version: int | None
    replaces: EventId | PendingEvent | None
    fact: bool
    event_type: str
    evidence: bool
    """Whether its class is evidence (B6): a fact of it is dropped only when it is superseded, a signal never."""
    own_times: tuple[str, ...] = ()
    id: EventId | None = None
    signed: SignedEvent | None = None


@dataclass(slots=True)
class EventSigner:
    """Turns pending events into signed ones. `now_ms` is realm time in ms."""

    name: str
    key: Signing
    version: str
    clock: HybridClock = field(default_factory=HybridClock)
    chain: SourceChain | None = None
    _encoder: Encoder = field(default_factory=Encoder)
    _waiting: deque[PendingEvent] = field(default_factory=deque)
    _burst: list[tuple[PendingEvent, Prepared]] = field(default_factory=list)

    @property
    def incarnation(self) -> int:
        """The incarnation in use; 0 before the first."""
        return 0 if self.chain is None else self.chain.incarnation

    def time_went_back(self) -> None:
        """What is said from now on may have earlier times than what was (J4)."""
        self.clock.go_back()

    def begin(
        self, incarnation: int, now_ms: int, *, previous: tuple[int, int | None] | None
    ) -> dict[PendingEvent, InputError]:
        """Start an incarnation; `previous` is the one before and its last sequence, if known.

        Returns what waited for it and can be no event, and why not.
        """
        self.chain = SourceChain(incarnation)
        started = Started(
            previous_incarnation=None if previous is None else previous[0],
            previous_sequence=None if previous is None else previous[1],
            version=self.version,
        )
        waiting, self._waiting = self._waiting, deque()
        self.say(self.pending(f"source/{self.name}", to_data(started)), now_ms)
        unsaid = {}
        for one in waiting:
            try:
                self.say(one, now_ms)
            except InputError as error:
                unsaid[one] = error
        return unsaid

    def pending(
        self,
        topic: str,
        data: dict[str, Any],
        *,
        subject: str = "",
        cause: tuple[EventId | PendingEvent, ...] = (),
        ttl: int | None = None,
        to: tuple[str, ...] = (),
        epoch: int | None = None,
        version: int | None = None,
        replaces: EventId | PendingEvent | None = None,
        own_times: tuple[str, ...] = (),
    ) -> PendingEvent:
        """Check a draft against its topic's row. Raises `InputError`."""
        match = lookup(topic)
        if match is None:
            raise InputError("event.topic", f"there is no topic {topic}", next="docs/reference/topics.md lists them")
        fact = match.row.takes_as_fact(version)
        if fact and match.row.shared and version is None:
            version = 1
        if version is not None and epoch is None:
            epoch = FIRST_EPOCH
        self._check(match, data)
        return PendingEvent(
            topic,
            data,
            subject or topic,
            cause,
            ttl if ttl is not None else match.row.ttl_ms,
            to,
            epoch,
            version,
            replaces,
            fact,
            match.row.event_type,
            match.row.budget == "evidence",
            own_times,
        )

    @staticmethod
    def _check(match: Match, data: dict[str, Any]) -> None:
        if match.row.record is None:
            return
        try:
            from_data(match.row.record, data)
        except UnusableEventError as error:
            raise InputError(error.code, error.message) from error

    def say(self, pending: PendingEvent, now_ms: int, *, declares: tuple[int, int] | None = None) -> bool:
        """Number and chain it; False when it must wait for the incarnation. Raises `InputError` over 64 KiB.

        `declares` is the range of the topic's chain that had to be dropped (D2).
        """
        if self.chain is None:
            self._waiting.append(pending)
            return False
        sequence, link = self.chain.next(pending.topic)
        event = Event(
            source=self.name,
            incarnation=self.chain.incarnation,
            sequence=sequence,
            chain=link,
            type=pending.event_type,
            topic=pending.topic,
            subject=pending.subject,
            time=self.clock.tick(now_ms),
            data=pending.data,
            cause=tuple([i for i in map(_id, pending.cause) if i is not None]) if pending.cause else (),
            ttl=pending.ttl,
            to=pending.to,
            epoch=pending.epoch,
            version=pending.version,
            replaces=None if pending.replaces is None else _id(pending.replaces),
            declares=declares,
        )
        prepared = prepare(event, protected_header(self.key.algorithm, self.key.key_id), self._encoder.encode)
        self.chain.signed(event, prepared.leaf)
        pending.id = event.id
        self._burst.append((pending, prepared))
        return True

    def heartbeat(self, lag_s: float, emit_rate_s: float) -> dict[str, Any]:
        """The data of a heartbeat that vouches for everything said so far."""
        sequence = 0 if self.chain is None else self.chain.sequence
        beat = Heartbeat(incarnation=self.incarnation, sequence=sequence, lag_s=round(lag_s, 4), emit_rate_s=emit_rate_s)
        return to_data(beat)

    def sign(self) -> list[PendingEvent]:
        """Sign what was said since the last time, with one signature."""
        burst, self._burst = self._burst, []
        if not burst:
            return []
        signed = sign_bursts([prepared for _, prepared in burst], self.key)
        for (pending, _), event in zip(burst, signed, strict=True):
            pending.signed = event
        return [pending for pending, _ in burst]


def put_right(pendings: Iterable[PendingEvent], by_ms: int) -> bool:
    """Realm time is later by `by_ms` than was guessed when these were said; whether they are to be said anew (J4)."""
    matters = abs(by_ms) > TOLERATED_MS
    for pending in pendings if matters else ():
        pending.data = later(pending.data, pending.own_times, by_ms)
    return matters


def _id(cause: EventId | PendingEvent) -> EventId | None:
    return cause.id if isinstance(cause, PendingEvent) else cause


def restate(pending: PendingEvent, fresh: Mapping[PendingEvent, PendingEvent]) -> PendingEvent:
    """The same thing to be said anew under another incarnation; `fresh` are those before it that are said anew, too."""
    fields = {name: getattr(pending, name) for name in PendingEvent.__slots__ if name not in ("id", "signed")}
    fields["cause"] = tuple(fresh.get(one, one) if isinstance(one, PendingEvent) else one for one in pending.cause)
    if isinstance(pending.replaces, PendingEvent):
        fields["replaces"] = fresh.get(pending.replaces, pending.replaces)
    return PendingEvent(**fields)
