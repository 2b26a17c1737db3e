"""The reporter: what a broker says of its store and of its own life.

Rule 1: a heartbeat goes out each second, the stats with the signed head each 30 s (J3), and when it has become whole (A4).
Rule 2: the head is that of the tree over all rows of the store (`event.rowtree`), at the moment when it is signed.
Rule 3: who exports is given a head of now; of many who ask, all within `FRESH_S` get one and the same.
Rule 4: what was trimmed is said, exactly, in the turn in which it went (B6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from dsmt.bus.broker.words import Words
from dsmt.bus.rules.session_words import HEARTBEAT_S, STATS_S
from dsmt.event.kinds.broker import BrokerStats, TrimRecord
from dsmt.event.kinds.source import Heartbeat, Started
from dsmt.event.records import from_data
from dsmt.event.rowset import RowSet
from dsmt.ports.store import Kept, Row, StoreFullError

FRESH_S: Final = 1.0


class Self(msgspec.Struct, frozen=True):
    """What a broker says of its process."""

    name: str
    pid: int | None
    version: str
    damaged: Callable[[], str] = str
    """Says where a store of it lies that was damaged; empty where none does."""


class Condition(msgspec.Struct, frozen=True):
    """How a broker is at one time, as `BrokerStats` says it."""

    lag_s: float
    sessions: int
    dropped: int
    address: str
    clock_ahead_s: float
    early_s: float


class BrokerReporter:
    """What a broker says of itself. `now` is boot-time seconds."""

    def __init__(self, about: Self, store: Kept, words: Words, now: float, *, whole: Callable[[], bool]) -> None:
        self._about, self._store, self._words, self._whole, self._told_whole = about, store, words, whole, True
        self._stats_at = self._beat_at = now
        self._stats_topic, self._trimmed_topic = f"{about.name}/stats", f"{about.name}/trimmed"
        self._asked_at = now - FRESH_S
        self.signed_head = b""
        """The newest stats, as they were signed."""

    def started(self) -> None:
        """Say that this incarnation has begun."""
        self.began(*(self._store.high_mark(self._about.name) or (None, None)))

    def began(self, incarnation: int | None, sequence: int | None) -> None:
        """Say that this incarnation has begun, and the last one that there was, with its last number."""
        about = Started(previous_incarnation=incarnation, previous_sequence=sequence, version=self._about.version)
        self._words.say(f"source/{self._about.name}", about)
        self.say_stats_soon()

    # --- time passes ---------------------------------------------------------------------------------------------

    def stored(self, rows: Sequence[Row]) -> None:
        """Note what was stored."""
        for row in (one for one in rows if not one.brought):  # what another store's broker said under this name is of that
            if row.topic == self._stats_topic:
                self.signed_head = row.raw
            elif row.topic == self._trimmed_topic:
                with suppress(StoreFullError):  # the record is stored: it is said once more with the next trimming
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

    def tick(self, now: float, how: Condition) -> None:
        """Say what is due."""
        if now >= self._stats_at or self._whole() != self._told_whole:
            self._stats_at = now + STATS_S
            self.stats(how)
        if now >= self._beat_at:
            self._beat_at = now + HEARTBEAT_S
            chain = self._words.chain
            self._words.say(
                f"{self._about.name}/heartbeat",
                Heartbeat(
                    incarnation=chain.incarnation,
                    sequence=chain.sequence,
                    lag_s=round(how.lag_s, 4),
                    emit_rate_s=HEARTBEAT_S,
                ),
            )

    def say_stats_soon(self) -> None:
        """Something has changed that an operator must see."""
        self._stats_at = 0.0

    def stats(self, how: Condition) -> None:
        """Say how the broker is, with the head of its store."""
        counts, self._told_whole = self._store.counts(), self._whole()
        self._words.say(
            self._stats_topic,
            BrokerStats(
                store=self._store.identity,
                head=self._store.head,
                head_hash=self._store.head_hash,
                sessions=how.sessions,
                events=counts["events"],
                facts=counts["facts"],
                disk_bytes=counts["bytes"],
                history_from_ms=counts["first_ms"],
                dropped=how.dropped,
                lag_s=round(how.lag_s, 4),
                pid=self._about.pid,
                version=self._about.version,
                address=how.address,
                clock_ahead_s=round(how.clock_ahead_s, 3),
                early_s=round(how.early_s, 3),
                whole=self._told_whole,
                damaged=self._about.damaged() or msgspec.UNSET,
            ),
        )
