"""Ingest: a broker's inward side: the door, the store's next batch, and the broker's own events.

Rule 1: everything that came in one turn of the loop is stored in one commit, then routed and acknowledged.
Rule 2: an event that is stored already is acknowledged again; one with a stored id and another hash is equivocation.
Rule 3: a hole in a source's sequence is noticed (`dsmt.notice` of kind `gap`), for what comes over its own session.
Rule 4: what the broker says itself is signed with the commit, as one burst; of a fact, a heartbeat and its stats only
    the newest waits.
Rule 5: when the disk is full nothing of the batch is stored or acknowledged; what the broker has signed is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from dsmt.bus.door import Admitted, Door
from dsmt.errors import FailedError, UnusableEventError
from dsmt.event.chain import SourceChain
from dsmt.event.codec import decode, prepare, protected_header, sign_burst
from dsmt.event.envelope import TOMBSTONE, Event, EventId, SignedEvent
from dsmt.event.hlc import HybridClock
from dsmt.event.records import BrokerNotice, to_data
from dsmt.event.registry import Match, lookup
from dsmt.ports.store import Append, Row, Store
from dsmt.trust.identity import Identity
from dsmt.trust.store import TrustStore

_WINNERS_REMEMBERED: Final = 8192
_NOTICES_WAITING: Final = 1000


@dataclass(frozen=True, slots=True)
class Refusal:
    """One event that is not stored, and why. `restart` asks the source for a new incarnation."""

    id: EventId | None
    error: UnusableEventError
    restart: bool = False


@dataclass(slots=True)
class Outcome:
    """What became of what one session published."""

    accepted: list[EventId] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


class Ingest:
    """Takes events in and stores them in batches."""

    def __init__(
        self, identity: Identity, trust: TrustStore, store: Store, *, now_ms: Callable[[], int], incarnation: int
    ) -> None:
        self._identity, self._trust, self._store, self._now_ms = identity, trust, store, now_ms
        self._door = Door(trust)
        self._chain = SourceChain(incarnation)
        self._clock = HybridClock()
        self._protected = protected_header(identity.key.algorithm, identity.key.key_id)
        self._pending: OrderedDict[EventId, Append] = OrderedDict()
        self._unsaid: OrderedDict[tuple[str, int], tuple[Match, dict[str, Any], str, int | None]] = OrderedDict()
        self._unsaid_notices = 0
        self._own: dict[EventId, Append] = {}
        self._winners: OrderedDict[str, SignedEvent | None] = OrderedDict()
        self._marks: dict[str, tuple[int, int]] = {}
        self._reoffered: set[str] = set()
        """Sources of whom somebody else has brought events, so that their marks do not tell what is stored."""
        self._live_facts: dict[str, int] = {}
        self.dropped = 0
        self.full: FailedError | None = None
        """Why nothing can be stored, since the last attempt."""

    @property
    def chain(self) -> SourceChain:
        """The broker's own chain, for its heartbeat."""
        return self._chain

    # --- what the broker says ------------------------------------------------------------------------------------

    def own(self, topic: str, record: msgspec.Struct, *, subject: str = "", ttl_ms: int | None = None) -> None:
        """Say something of the broker's own; it is signed and stored with the next commit (rule 4).

        `ttl_ms` None takes the topic's own.
        """
        match = lookup(topic)
        if match is None:
            raise AssertionError(topic)
        key = (topic, 0)
        if match.row.event_type == "dsmt.notice":
            if len(self._unsaid) > _NOTICES_WAITING:
                self.dropped += 1
                return
            self._unsaid_notices += 1
            key = (topic, self._unsaid_notices)
        self._unsaid.pop(key, None)
        self._unsaid[key] = (match, to_data(record), subject or topic, ttl_ms)

    def _say(self) -> None:
        """Number, chain and sign what waits; what was signed before and is not stored yet goes first."""
        if self._own or not self._unsaid:
            return
        burst = []
        for (topic, _), (match, told, subject, ttl_ms) in self._unsaid.items():
            sequence, link = self._chain.next(topic)
            event = Event(
                source=self._identity.name,
                incarnation=self._chain.incarnation,
                sequence=sequence,
                chain=link,
                type=match.row.event_type,
                topic=topic,
                subject=subject,
                time=self._clock.tick(self._now_ms()),
                data=told,
                ttl=match.row.ttl_ms if ttl_ms is None else ttl_ms,
            )
            prepared = prepare(event, self._protected)
            self._chain.signed(event, prepared.leaf)
            burst.append((match, prepared))
        self._unsaid.clear()
        signed = sign_burst([prepared for _, prepared in burst], self._identity.key)
        for (match, _), one in zip(burst, signed, strict=True):
            fact = match.row.kind == "fact"
            self._own[one.id] = self._append(Admitted(one, fact, fact, match.row.budget), self._now_ms())

    # --- what sessions say ---------------------------------------------------------------------------------------

    def offered(self, session: str, raws: Sequence[bytes]) -> Outcome:
        """Take in what a session published."""
        outcome, now_ms = Outcome(), self._now_ms()
        for raw in raws:
            identity: EventId | None = None
            try:
                signed, match, fact = self._door.open(raw, session=session, now_ms=now_ms)
                identity = signed.id
                held_leaf = self._leaf(identity, session)
                if held_leaf is None:
                    self._admit(signed, match, fact=fact, session=session, now_ms=now_ms)
                    outcome.accepted.append(identity)
                elif held_leaf == signed.leaf:
                    outcome.accepted.append(identity)
                else:
                    outcome.refused.append(self._equivocation(signed))
            except UnusableEventError as error:
                self.dropped += 1
                identity = identity or _claimed(raw)
                if identity is not None and identity.source == session:
                    self._refused(identity)
                outcome.refused.append(Refusal(identity, error))
        return outcome

    def _leaf(self, identity: EventId, session: str) -> bytes | None:
        if identity.source == session and session not in self._reoffered:
            mark = self._marks.get(session)
            if mark is not None and identity[1:] > mark:
                return None
        pending = self._pending.get(identity)
        return self._store.leaf(*identity) if pending is None else pending.signed.leaf

    def _admit(self, signed: SignedEvent, match: Match, *, fact: bool, session: str, now_ms: int) -> None:
        event = signed.event
        held = self._held(event.topic) if fact else None
        admitted = self._door.admit(
            signed,
            match,
            fact=fact,
            held=held,
            buried_until=self._buried_until(event) if fact else 0,
            within_quota=not fact or held is not None or self._within_quota(signed),
            now_ms=now_ms,
        )
        if event.source == session:
            self._watch_sequence(event)
        else:
            self._reoffered.add(event.source)
        self._pending[signed.id] = self._append(admitted, now_ms)

    def _append(self, admitted: Admitted, now_ms: int) -> Append:
        signed, event = admitted.signed, admitted.signed.event
        if admitted.winner:
            self._remember(event.topic, signed)
        return Append(signed, now_ms, admitted.budget, admitted.fact, admitted.winner, event.expires_ms)

    def _within_quota(self, signed: SignedEvent) -> bool:
        """Whether its source may have one more live fact (A14); it counts as had."""
        source = signed.event.source
        holder = self._trust.certificate(signed.key_id)
        quota = 0 if holder is None else holder.certificate.quota
        count = self._live_facts.get(source, quota)
        if count >= quota:  # what is remembered only grows; the store knows how many are left
            count = self._store.live_facts(source) + sum(
                one.winner and one.signed.event.source == source for one in self._pending.values()
            )
        self._live_facts[source] = count + 1
        return count < quota

    def _held(self, topic: str) -> SignedEvent | None:
        if topic in self._winners:
            self._winners.move_to_end(topic)
            return self._winners[topic]
        row = self._store.winner(topic)
        held = None if row is None else decode(row.raw)[0]
        self._remember(topic, held)
        return held

    def _remember(self, topic: str, held: SignedEvent | None) -> None:
        self._winners[topic] = held
        self._winners.move_to_end(topic)
        if len(self._winners) > _WINNERS_REMEMBERED:
            self._winners.popitem(last=False)

    def _buried_until(self, event: Event) -> int:
        if event.version is None or event.buries:
            return 0
        tombstone = self._held(TOMBSTONE + "/".join(event.topic.split("/")[:2]))
        return 0 if tombstone is None else tombstone.event.time

    # --- holes ---------------------------------------------------------------------------------------------------

    def _mark(self, source: str) -> tuple[int, int]:
        mark = self._marks.get(source)
        if mark is None:
            mark = self._marks[source] = self._store.high_mark(source) or (0, 0)
        return mark

    def _watch_sequence(self, event: Event) -> None:
        mark = self._mark(event.source)
        if event.incarnation < mark[0]:
            return
        if event.incarnation == mark[0]:
            self._missing(event, mark[1] + 1, event.sequence - 1)
        else:
            self._watch_start(event, mark)
        self._marks[event.source] = max(mark, (event.incarnation, event.sequence))

    def _watch_start(self, event: Event, mark: tuple[int, int]) -> None:
        """A new incarnation: what is missing of it, and what it says of the end of the one before (B3)."""
        self._missing(event, 1, event.sequence - 1)
        told = event.data if event.type == "dsmt.source.started" else {}
        if told.get("previous_incarnation") == mark[0]:
            self._missing(event, mark[1] + 1, told.get("previous_sequence") or 0)

    def _missing(self, event: Event, first: int, last: int) -> None:
        if first > last:
            return
        declared = event.declares is not None
        self._notice(
            BrokerNotice(
                kind="declared" if declared else "gap",
                source=event.source,
                topic=event.topic if declared else None,
                first=first,
                last=last,
                message=f"{event.source} #{first}..#{last} did not come",
            )
        )

    def _refused(self, identity: EventId) -> None:
        """What was refused is no hole: its source has been told."""
        mark = self._mark(identity.source)
        if identity.incarnation == mark[0] and identity.sequence == mark[1] + 1:
            self._marks[identity.source] = (identity.incarnation, identity.sequence)

    def _equivocation(self, signed: SignedEvent) -> Refusal:
        event = signed.event
        said = f"{event.source} signed two different events as #{event.incarnation}-{event.sequence}"
        self._notice(
            BrokerNotice(
                kind="equivocation",
                source=event.source,
                topic=event.topic,
                first=event.sequence,
                last=event.sequence,
                message=said,
            )
        )
        return Refusal(signed.id, UnusableEventError("event.equivocation", said), restart=True)

    def _notice(self, notice: BrokerNotice) -> None:
        self.own(f"{self._identity.name}/notice", notice, subject=notice.source)

    def notice(self, kind: str, source: str, message: str) -> None:
        """Say a fault of the stream that was seen elsewhere in the broker."""
        self._notice(BrokerNotice(kind=kind, source=source, topic=None, first=0, last=0, message=message))

    def trimmed(self, first: int, last: int) -> None:
        """Say which rows are not whole any more (B6)."""
        said = f"the history up to row {last} is not whole any more"
        self._notice(
            BrokerNotice(
                kind="trimmed", source=self._identity.name, topic=None, first=first, last=last, message=said, unit="row"
            )
        )

    def forget_source(self, source: str) -> None:
        """A source has left: what is remembered of it is read from the store when it returns."""
        self._marks.pop(source, None)
        self._reoffered.discard(source)
        self._live_facts.pop(source, None)

    # --- storing -------------------------------------------------------------------------------------------------

    def commit(self) -> list[Row]:
        """Store what is pending; the rows. Raises `FailedError` when that cannot be: nothing was stored (rule 5)."""
        self._say()
        batch = [*self._own.values(), *self._pending.values()]
        self._pending.clear()
        if not batch:
            return []
        try:
            numbers = self._store.append(batch)
        except FailedError as error:
            self._winners.clear()
            self._marks.clear()
            self._live_facts.clear()
            self.full = error
            raise
        self._own.clear()
        self.full = None
        rows = []
        for number, one in zip(numbers, batch, strict=True):
            event = one.signed.event
            rows.append(Row(number, one.arrived_ms, event.topic, event.to, one.fact, one.signed.key_id, one.signed.raw))
            if event.buries and one.winner:
                self._winners.clear()
        return rows

    def expire(self) -> None:
        """Let dead facts die."""
        if self._store.expire(self._now_ms()):
            self._winners.clear()


def _claimed(raw: bytes) -> EventId | None:
    """The id that an unusable event claims, so that its refusal can be addressed."""
    try:
        return decode(raw)[0].id
    except UnusableEventError:
        return None
