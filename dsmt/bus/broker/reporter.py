"""The reporter: what a broker says itself, of its sessions, of its store and of its own life.

Rule 1: session facts follow `presence`; a heartbeat goes out each second, the stats with the signed head each 30 s (J3).
Rule 2: the head is that of the tree over all rows of the store (`event.rowtree`), at the moment when it is signed.
Rule 3: who exports is given a head of now; of many who ask, all within `FRESH_S` get one and the same.
Rule 4: words on a node that nobody hears are addressed to those who are to probe it (`observers`), and are said again when
    others are.
Rule 5: what was trimmed is said, exactly, in the turn in which it went (B6).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dsmt.bus.broker.session import Session
from dsmt.bus.broker.words import Words
from dsmt.bus.rules.observers import ROLES, Observers
from dsmt.bus.rules.presence import How, Presence
from dsmt.errors import UnusableEventError
from dsmt.event.kinds.broker import BrokerStats, TrimRecord
from dsmt.event.kinds.broker import Session as SessionFact
from dsmt.event.kinds.source import Heartbeat, Started
from dsmt.event.records import from_data
from dsmt.event.rowset import RowSet
from dsmt.ports.store import Kept, Row

STATS_S: Final = 30.0
HEARTBEAT_S: Final = 1.0
FRESH_S: Final = 1.0
PASSED_TTL_MS: Final = 600_000
"""How long the session of a command line is remembered after its end; each is a source of its own."""


_Word = tuple[str, SessionFact]


@dataclass(frozen=True, slots=True)
class Self:
    """What a broker says of its process."""

    name: str
    pid: int | None
    version: str


class BrokerReporter:
    """A broker's own statements. `now` is boot-time seconds, `now_ms` realm ms."""

    def __init__(self, about: Self, store: Kept, words: Words, now: float) -> None:
        self._about, self._store, self._words = about, store, words
        self.presence = Presence(now)
        self._observers = Observers()
        self._restored: list[_Word] = []
        self._to_say_again: list[_Word] = []
        self._stats_at = self._beat_at = now
        self._stats_topic, self._trimmed_topic = f"{about.name}/stats", f"{about.name}/trimmed"
        self._asked_at = now - FRESH_S
        self.signed_head = b""
        """The newest stats, as they were signed."""

    # --- the beginning -------------------------------------------------------------------------------------------

    def restore(self, row: Row, now: float, now_ms: int) -> None:
        """Take in a retained fact of this broker's past, if it is one of a session."""
        prefix = f"{self._about.name}/session/"
        if not row.topic.startswith(prefix):
            return
        source = row.topic.removeprefix(prefix)
        try:
            record = from_data(SessionFact, row.read().event.data)
        except UnusableEventError:
            return  # damaged, or of another version: the next attachment says it anew
        again = self.presence.restore(source, record, now, now_ms)
        self._observers.restore(source, row.to)
        self._restored.append((source, again or record))
        if again is not None:
            self._to_say_again.append((source, again))

    def started(self) -> None:
        """Say that this incarnation has begun, and what of its past is to be said anew."""
        ended = self._note(self._restored)
        for source, record in self._to_say_again:
            self._publish(source, record, ())
        for node in ended:
            self._say_again(node)
        self._restored, self._to_say_again = [], []
        self._name()
        mark = self._store.high_mark(self._about.name)
        self._words.say(
            f"source/{self._about.name}",
            Started(
                previous_incarnation=None if mark is None else mark[0],
                previous_sequence=None if mark is None else mark[1],
                version=self._about.version,
            ),
        )

    # --- sessions ------------------------------------------------------------------------------------------------

    def opened(self, session: Session, now: float, now_ms: int) -> None:
        """A session has attached."""
        opened = self.presence.opened(
            session.name,
            attachment=session.attachment,
            issued=0 if session.certificate is None else session.certificate.issued,
            incarnation=session.incarnation,
            claimed=session.claimed,
            pid=session.pid,
            version=session.version,
            address=session.address,
            now=now,
            now_ms=now_ms,
            payer=session.payer,
        )
        self._say([(session.name, opened)])

    def heard(self, session: Session, now: float, now_ms: int) -> bool:
        """A session has said something; whether it had been silent."""
        record = self.presence.heard(session.name, now, now_ms)
        if record is not None:
            self._say([(session.name, record)])
        return record is not None

    def closed(self, session: Session, how: How, now: float, now_ms: int) -> None:
        """A session's connection has ended."""
        record = self.presence.closed(session.name, session.attachment, how, now, now_ms)
        if record is not None:
            self._say([(session.name, record)])

    def _say(self, words: Sequence[_Word]) -> None:
        ended = self._note(words)
        for source, record in words:
            role, _, node = source.partition("/")
            ends = record.state == "open" and role in ROLES
            self._publish(source, record, ended.get(node, ()) if ends else self._observers.addressed(source))
        said = {source for source, _ in words}
        for node in ended:
            self._say_again(node, besides=said)

    def _note(self, words: Sequence[_Word]) -> Mapping[str, tuple[str, ...]]:
        return self._observers.noted((source, record.state) for source, record in words)

    def _name(self) -> None:
        """Say the words on nodes again that others are to probe now (rule 4)."""
        for node in self._observers.due():
            self._say_again(node)

    def _say_again(self, node: str, besides: Collection[str] = ()) -> None:
        for source in (f"{role}/{node}" for role in ROLES):
            known = None if source in besides else self.presence.record_of(source)
            if known is not None and known.state != "open":
                self._publish(source, known, self._observers.addressed(source))

    def _publish(self, source: str, record: SessionFact, to: tuple[str, ...]) -> None:
        passed = record.state == "closed" and source.startswith("operator/")
        ttl_ms = PASSED_TTL_MS if passed else None
        topic, payer = f"{self._about.name}/session/{source}", self.presence.payer_of(source)
        self._words.say(topic, record, subject=source, ttl_ms=ttl_ms, payer=payer, to=to)

    # --- time passes ---------------------------------------------------------------------------------------------

    def stored(self, rows: Sequence[Row]) -> None:
        """Note what was stored."""
        for row in rows:
            if row.topic == self._stats_topic:
                self.signed_head = row.raw
            elif row.topic == self._trimmed_topic:
                self._store.told(from_data(TrimRecord, row.read().event.data).number, row.row)

    def trimmed(self) -> None:
        """Say what was trimmed and not said yet."""
        for trim in self._store.untold():
            record = TrimRecord(
                store=self._store.identity,
                number=trim.number,
                budget=trim.budget,
                first=trim.first,
                last=trim.last,
                count=len(RowSet.read(trim.rows)),
                rows=trim.rows,
            )
            self._words.say(self._trimmed_topic, record)

    def is_stale(self, now: float) -> bool:
        """Whether the signed head is too old for who exports now; if so it counts as renewed by asking."""
        stale = now - self._asked_at >= FRESH_S
        if stale:
            self._asked_at = now
        return stale

    def tick(
        self,
        now: float,
        now_ms: int,
        *,
        expected: float,
        lag: float,
        sessions: int,
        dropped: int,
        address: str,
        clock_ahead_s: float,
        early_s: float,
    ) -> None:
        """Say what is due, `expected` seconds after the last time."""
        self._say(self.presence.tick(now, now_ms, expected))
        self._observers.keep(self.presence.attachment_of)
        self._name()
        if now >= self._stats_at:
            self._stats_at = now + STATS_S
            self.stats(
                lag=lag,
                sessions=sessions,
                dropped=dropped,
                address=address,
                clock_ahead_s=clock_ahead_s,
                early_s=early_s,
            )
        if now >= self._beat_at:
            self._beat_at = now + HEARTBEAT_S
            chain = self._words.chain
            self._words.say(
                f"{self._about.name}/heartbeat",
                Heartbeat(
                    incarnation=chain.incarnation, sequence=chain.sequence, lag_s=round(lag, 4), emit_rate_s=HEARTBEAT_S
                ),
            )

    def say_stats_soon(self) -> None:
        """Something has changed that an operator must see."""
        self._stats_at = 0.0

    def stats(
        self,
        *,
        lag: float,
        sessions: int,
        dropped: int,
        address: str,
        clock_ahead_s: float = 0.0,
        early_s: float = 0.0,
    ) -> None:
        """Say how the broker is, with the head of its store."""
        counts = self._store.counts()
        self._words.say(
            self._stats_topic,
            BrokerStats(
                store=self._store.identity,
                head=self._store.head,
                head_hash=self._store.head_hash,
                sessions=sessions,
                events=counts["events"],
                facts=counts["facts"],
                disk_bytes=counts["bytes"],
                history_from_ms=counts["first_ms"],
                dropped=dropped,
                lag_s=round(lag, 4),
                pid=self._about.pid,
                version=self._about.version,
                address=address,
                clock_ahead_s=round(clock_ahead_s, 3),
                early_s=round(early_s, 3),
            ),
        )
