"""The recorder: what a broker puts on record, at realm time: what comes, and what it says itself of sessions and its state.

Rule 1: what is pending is stored in one commit; where the disk is full nothing is, and nothing is lost (`ingest`).
Rule 2: when realm time has stepped ahead who is attached is said anew with the next tick, and only then told to measure it:
    whoever goes along first takes all that was said of sessions for dead.
Rule 3: what others bring of what was said under this one's name is its past: before its disk was lost, or by a broker with
    another key on the other side of a partition. Once this one is whole, and has its last words, it says them anew, in an
    incarnation that is greater: else nobody would take them (R8). Of what it has said later itself nothing is said anew.
Rule 4: it remembers the last word on each topic of its incarnation, and each command of an operator is a topic. After
    `TOPICS` of them it goes on in the next incarnation, which remembers nothing of before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from dsmt.bus.broker.config import BrokerConfig
from dsmt.bus.broker.ingest import Ingest
from dsmt.bus.broker.older import OlderCopy
from dsmt.bus.broker.reporter import BrokerReporter, Self
from dsmt.bus.broker.timekeeping import Timekeeper
from dsmt.bus.broker.wholeness import Wholeness
from dsmt.bus.broker.words import Words
from dsmt.bus.rules.session_words import SessionWords
from dsmt.logs import Logger
from dsmt.ports.clock import Clock
from dsmt.ports.store import Meta, Row, Store, StoreFullError
from dsmt.trust.identity import Identity
from dsmt.trust.revocations import revoked_by
from dsmt.trust.store import TrustStore

TRIM_ROWS: Final = 1500
CHECK_ROWS: Final = 2000
"""How many rows are looked at with each trimming: all of a large store in some hours (B11)."""
TOPICS: Final = 1 << 16
"""On how many topics a broker says something in one incarnation: 16 MB of memory."""


class Elsewhere(NamedTuple):
    """What is asked of the other brokers: see `Holes`, `SessionWords` and `Wholeness`."""

    settled_ms: Callable[[], int | None]
    leaves: Callable[[], Mapping[str, bool]]
    is_linked: Callable[[], bool]


class Recorder:
    """Keeps the record of the broker of this identity in a store."""

    def __init__(
        self,
        config: BrokerConfig,
        identity: Identity,
        trust: TrustStore,
        store: Store,
        clock: Clock,
        *,
        elsewhere: Elsewhere,
    ) -> None:
        self._store, self._clock, self._name, now = store, clock, identity.name, clock.boottime()
        self._trust = trust
        self._log = Logger(broker=identity.name)
        self._has_stepped = False
        self._key_id = identity.key.key_id
        self._to_say_anew: dict[str, Row] = {}
        """What is to be said anew by rule 3, by topic."""
        self.time = Timekeeper(
            identity.name,
            config.boot,
            store,
            store.meta,
            clock,
            tell=self._tell_clock,
            told_ms=config.told_ms,
            certified_ms=(identity.certificate.not_before * 1000, identity.certificate.not_after * 1000),
        )
        self.full: StoreFullError | None = None
        """Why nothing can be stored, since the last attempt."""
        self.wholeness = Wholeness(store.meta, store.identity, born=config.born, now=now, is_linked=elsewhere.is_linked)
        self.words = Words(identity, next_incarnation(store.meta, self.time.now_ms()), self.time.now_ms)
        now_ms, settled_ms = self.time.now_ms, elsewhere.settled_ms
        self.ingest = Ingest(identity, trust, store, self.words, now_ms=now_ms, was=self._was, settled_ms=settled_ms)
        self.older = OlderCopy(store, now_ms=self.time.now_ms, known=bool(config.older))
        if config.older:
            self.words.fault("older", identity.name, config.older)
        about = Self(identity.name, config.pid, config.version, config.damaged)
        self.reporter = BrokerReporter(about, store, self.words, now, whole=self.is_whole)
        self.sessions = SessionWords(identity.name, self.words, now, elsewhere.leaves)

    def is_whole(self) -> bool:
        """Whether everything that the realm holds is here (rule A4)."""
        now = self._clock.boottime()
        return self.wholeness.at(now) and not self.older.may_be(now)

    def commit(self) -> list[Row] | None:
        """Store what is pending; the rows, or None when the disk is full."""
        try:
            rows = self.ingest.commit()
        except StoreFullError as error:
            self.has_no_room(error)
            self._log.error("cannot store", reason=str(error))
            return None
        if rows:
            self.full = None
            self.reporter.stored(rows)
            self.sessions.stored(rows)
            for row in filter(self._is_past, rows):
                before = self._to_say_anew.get(row.topic)
                if before is None or before.read().id < row.read().id:
                    self._to_say_anew[row.topic] = row
        return rows

    def has_no_room(self, error: StoreFullError) -> None:
        """Nothing can be stored, until what is pending can."""
        self.full = error

    def _is_past(self, row: Row) -> bool:
        return bool(row.brought) and row.fact and row.topic.startswith(f"{self._name}/")

    def _is_later(self, row: Row) -> bool:
        """Whether this broker, with this key, has said something later on the topic of what was brought to it."""
        held = self._store.winner(row.topic) if row.key_id == self._key_id else None
        return held is not None and held.read().id > row.read().id

    def say_anew(self) -> None:
        """Say anew what was said under this broker's name, as others have brought it (rule 3).

        Raises `StoreFullError`: then it is still to be said.
        """
        if not self._to_say_anew or not self.is_whole():
            return
        now_ms, past = self.time.now_ms(), self._to_say_anew.values()
        said = [row for row in past if not row.read().event.is_dead(now_ms) and not self._is_later(row)]
        greatest = max((row.read().event.incarnation for row in said), default=0)
        if greatest > self.words.chain.incarnation:
            self._begin(max(now_ms, greatest + 1))
        self._to_say_anew = {}
        for row in said:
            self.sessions.taken_over(row, self._clock.boottime(), now_ms, own=row.key_id == self._key_id)

    def go_on(self) -> None:
        """Go on in the next incarnation where this one is long enough (rule 4). Raises `StoreFullError`."""
        if self.words.chain.topics > TOPICS:
            self._begin(self.time.now_ms())

    def _begin(self, least: int) -> None:
        before = self.words.begin(next_incarnation(self._store.meta, least))
        self.reporter.began(before.incarnation, before.sequence)

    @property
    def dropped(self) -> int:
        """How many events were refused, or found no room to be said."""
        return self.ingest.dropped + self.words.dropped

    def trim(self) -> bool:
        """Trim a part of what is due, and say what went (B6); whether there is more."""
        self._store.check(CHECK_ROWS)
        more = self._store.trim(self.time.now_ms(), TRIM_ROWS)
        self.reporter.trimmed()
        return more

    # --- realm time ----------------------------------------------------------------------------------------------

    def accept(self, rows: Sequence[Row]) -> None:
        """Obey an operator's word on realm time, if these rows hold one; and what ends a contest of two of one name."""
        if self.time.obey(rows):
            self._stepped()
        if any(revoked_by(row.topic) is not None for row in rows):
            self.sessions.settle(self._trust.is_revoked)

    def stepped(self) -> bool:
        """Whether realm time has stepped since this was last asked (rule 2)."""
        stepped, self._has_stepped = self._has_stepped, False
        return stepped

    def _was(self, ms: int) -> None:
        """Realm time was this once, by this broker's own word."""
        if self.time.was(ms):
            self._stepped()

    def _stepped(self) -> None:
        self.sessions.presence.renew()
        self._has_stepped = True

    def _tell_clock(self, said: str) -> None:
        self.words.fault("clock", self._name, said)
        self.reporter.say_stats_soon()


def next_incarnation(meta: Meta, now_ms: int) -> int:
    """The broker's next incarnation: above all that its store keeps, and at least a time."""
    kept = meta.get("incarnation")
    incarnation = max(0 if kept is None else int(kept) + 1, now_ms)
    meta.put("incarnation", str(incarnation).encode())
    return incarnation
