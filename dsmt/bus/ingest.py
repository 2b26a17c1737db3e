"""Ingest: a broker's inward side: the door, the store's next batch, acknowledgements, and the broker's own events.

Rule 1: everything that came in one turn of the loop is stored in one commit, then acknowledged, then routed.
Rule 2: an event that is stored already is acknowledged again; one with a stored id and another hash is equivocation.
Rule 3: a hole in a source's sequence is noticed (`dsmt.notice` of kind `gap`), for what comes over its own session.
Rule 4: when the disk is full nothing of the batch is stored or acknowledged; the broker's own events wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from dsmt.bus.door import Admitted, Door
from dsmt.errors import UnusableEventError
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
        self._winners: OrderedDict[str, SignedEvent | None] = OrderedDict()
        self._marks: dict[str, tuple[int, int]] = {}
        self.dropped = 0

    @property
    def chain(self) -> SourceChain:
        """The broker's own chain, for its heartbeat."""
        return self._chain

    def own(self, topic: str, record: msgspec.Struct, *, subject: str = "") -> None:
        """Say something of the broker's own; it is stored with the next commit."""
        match = lookup(topic)
        if match is None:
            raise AssertionError(topic)
        sequence, link = self._chain.next(topic)
        event = Event(
            source=self._identity.name,
            incarnation=self._chain.incarnation,
            sequence=sequence,
            chain=link,
            type=match.row.event_type,
            topic=topic,
            subject=subject or topic,
            time=self._clock.tick(self._now_ms()),
            data=to_data(record),
            ttl=match.row.ttl_ms,
        )
        prepared = prepare(event, self._protected)
        self._chain.signed(event, prepared.leaf)
        signed = sign_burst([prepared], self._identity.key)[0]
        self._keep(Admitted(signed, match.row.kind == "fact", match.row.kind == "fact", False, match.row.budget))

    def offered(self, session: str, raws: Sequence[bytes]) -> Outcome:
        """Take in what a session published."""
        outcome = Outcome()
        for raw in raws:
            identity: EventId | None = None
            try:
                signed, match, fact = self._door.open(raw, session=session, now_ms=self._now_ms())
                identity = signed.id
                held_leaf = self._leaf(identity)
                if held_leaf is None:
                    self._admit(signed, match, fact=fact, session=session)
                    outcome.accepted.append(identity)
                elif held_leaf == signed.leaf:
                    outcome.accepted.append(identity)
                else:
                    outcome.refused.append(self._equivocation(signed))
            except UnusableEventError as error:
                self.dropped += 1
                outcome.refused.append(Refusal(identity or _claimed(raw), error))
        return outcome

    def _leaf(self, identity: EventId) -> bytes | None:
        pending = self._pending.get(identity)
        return self._store.leaf(*identity) if pending is None else pending.signed.leaf

    def _admit(self, signed: SignedEvent, match: Match, *, fact: bool, session: str) -> None:
        event = signed.event
        held = self._held(event.topic) if fact else None
        holder = self._trust.certificate(signed.key_id)
        admitted = self._door.admit(
            signed,
            match,
            fact=fact,
            held=held,
            buried_until=self._buried_until(event),
            live_facts=self._store.live_facts(event.source) if fact and held is None else 0,
            quota=0 if holder is None else holder.certificate.quota,
        )
        if event.source == session:
            self._watch_sequence(event)
        self._keep(admitted)

    def _keep(self, admitted: Admitted) -> None:
        signed, event = admitted.signed, admitted.signed.event
        self._pending[signed.id] = Append(
            signed, self._now_ms(), admitted.budget, admitted.fact, admitted.winner, event.expires_ms
        )
        if admitted.winner:
            self._remember(event.topic, signed)

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

    def _watch_sequence(self, event: Event) -> None:
        mark = self._marks.get(event.source) or self._store.high_mark(event.source)
        if mark is not None and mark[0] == event.incarnation and event.sequence > mark[1] + 1:
            declared = event.declares is not None
            self._notice(
                BrokerNotice(
                    kind="declared" if declared else "gap",
                    source=event.source,
                    topic=event.topic if declared else None,
                    first=mark[1] + 1,
                    last=event.sequence - 1,
                    message=f"{event.source} #{mark[1] + 1}..#{event.sequence - 1} did not come",
                )
            )
        if mark is None or (event.incarnation, event.sequence) > mark:
            self._marks[event.source] = (event.incarnation, event.sequence)

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

    def forget_source(self, source: str) -> None:
        """A source has left: its high mark is read from the store when it returns."""
        self._marks.pop(source, None)

    def commit(self) -> list[Row]:
        """Store what is pending; the rows. Raises `FailedError` when the disk is full: nothing was stored."""
        if not self._pending:
            return []
        batch = list(self._pending.values())
        self._pending.clear()
        try:
            numbers = self._store.append(batch)
        except BaseException:
            self._winners.clear()
            self._marks.clear()
            own = self._identity.name
            self._pending.update({one.signed.id: one for one in batch if one.signed.event.source == own})
            raise
        rows = []
        for number, one in zip(numbers, batch, strict=True):
            event = one.signed.event
            rows.append(Row(number, one.arrived_ms, event.topic, event.to, one.fact, one.signed.key_id, one.signed.raw))
            if event.buries and one.winner:
                self._store.hide(event.buries, event.time)
                self._winners.clear()
        return rows

    def expire(self) -> None:
        """Let dead facts die, and trim the history."""
        if self._store.expire(self._now_ms()):
            self._winners.clear()


def _claimed(raw: bytes) -> EventId | None:
    """The id that an unusable event claims, so that its refusal can be addressed."""
    try:
        return decode(raw)[0].id
    except UnusableEventError:
        return None
