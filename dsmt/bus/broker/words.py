"""A broker's own words: numbered, chained and signed with the next commit, as one burst.

Rule 1: of a fact, a heartbeat and its stats only the newest waits; notices and trim records all do, and of notices no more
    than `NOTICES_WAITING`.
Rule 2: what was signed once is not signed again: who stores it keeps it until it is stored (`ingest`).
Rule 3: a broker whose certificate has ended says nothing: nobody would believe it, and no history with it would verify.
Rule 4: where another process of its name has spoken in a greater incarnation it begins one above that, or nobody would take
    its next word (R8).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from dsmt.event.chain import SourceChain
from dsmt.event.codec import prepare, protected_header, sign_bursts
from dsmt.event.envelope import Event, SignedEvent
from dsmt.event.hlc import HybridClock
from dsmt.event.kinds.broker import BrokerNotice
from dsmt.event.records import to_data
from dsmt.event.registry import Match, lookup
from dsmt.trust.identity import Identity

NOTICES_WAITING: Final = 1000
_NOTICE: Final = "dsmt.notice"
_EACH: Final = frozenset({_NOTICE, "dsmt.trimmed"})


class SignedWord(NamedTuple):
    """What was said, the row of its topic, and on whose account it is (D2); empty: the broker's."""

    signed: SignedEvent
    match: Match
    payer: str


class _Unsaid(NamedTuple):
    match: Match
    told: dict[str, Any]
    subject: str
    ttl_ms: int | None
    payer: str
    to: tuple[str, ...]


class Words:
    """What one broker says in one incarnation. `now_ms` gives realm time."""

    def __init__(self, identity: Identity, incarnation: int, now_ms: Callable[[], int]) -> None:
        self._identity, self._now_ms = identity, now_ms
        self.chain = SourceChain(incarnation)
        self._clock = HybridClock()
        self._protected = protected_header(identity.key.algorithm, identity.key.key_id)
        self._unsaid: OrderedDict[tuple[str, int], _Unsaid] = OrderedDict()
        self._each = self._notices = 0
        self.dropped = 0
        """Notices for which there was no room."""

    def say(
        self,
        topic: str,
        record: msgspec.Struct,
        *,
        subject: str = "",
        ttl_ms: int | None = None,
        payer: str = "",
        to: tuple[str, ...] = (),
    ) -> None:
        """Say something of the broker's own, with the next commit.

        `ttl_ms` None takes the topic's own. `payer` is on whose account it is (D2); empty: the broker's. `to`: for whom.
        """
        match = lookup(topic)
        if match is None:
            raise AssertionError(topic)
        if match.row.event_type == _NOTICE:
            if self._notices >= NOTICES_WAITING:
                self.dropped += 1
                return
            self._notices += 1
        key = (topic, 0)
        if match.row.event_type in _EACH:
            self._each += 1
            key = (topic, self._each)
        self._unsaid.pop(key, None)
        self._unsaid[key] = _Unsaid(match, to_data(record), subject or topic, ttl_ms, payer, to)

    def begin(self, incarnation: int) -> SourceChain:
        """Go on in a greater incarnation (rule 4); the chain of the one before."""
        before, self.chain = self.chain, SourceChain(incarnation)
        return before

    def notice(self, notice: BrokerNotice, *, payer: str = "") -> None:
        """Say a fault of the stream; `payer` as in `say`."""
        self.say(f"{self._identity.name}/notice", notice, subject=notice.source, payer=payer)

    def fault(self, kind: str, source: str, message: str) -> None:
        """Say a fault of the stream that concerns no range of it."""
        self.notice(BrokerNotice(kind=kind, source=source, topic=None, first=0, last=0, message=message))

    def damaged(self, message: str) -> None:
        """Say that something that is stored here is not what was stored."""
        self.fault("damaged", self._identity.name, message)

    def sign(self) -> list[SignedWord]:
        """Number, chain and sign what waits; nothing once the certificate has ended (rule 3)."""
        self._notices = 0
        if not self._unsaid:
            return []
        if self._now_ms() // 1000 > self._identity.certificate.not_after:
            self._unsaid.clear()
            return []
        burst = []
        for (topic, _), (match, told, subject, ttl_ms, payer, to) in self._unsaid.items():
            sequence, link = self.chain.next(topic)
            event = Event(
                source=self._identity.name,
                incarnation=self.chain.incarnation,
                sequence=sequence,
                chain=link,
                type=match.row.event_type,
                topic=topic,
                subject=subject,
                time=self._clock.tick(self._now_ms()),
                data=told,
                ttl=match.row.ttl_ms if ttl_ms is None else ttl_ms,
                to=to,
            )
            prepared = prepare(event, self._protected)
            self.chain.signed(event, prepared.leaf)
            burst.append((match, prepared, payer))
        self._unsaid.clear()
        signed = sign_bursts([prepared for _, prepared, _ in burst], self._identity.key)
        return [SignedWord(one, match, payer) for (match, _, payer), one in zip(burst, signed, strict=True)]
