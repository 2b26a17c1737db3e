"""A realm in memory: what the buses of one process share: the log, the retained facts, the depot.

Rule 1: everything is judged as a broker judges it (`validator`, `event.fold`): who may say what, what is stale, what wins.
Rule 2: of the log the newest `limit` rows stay, and every retained fact; what else goes is trimmed, and readers are told.
Rule 3: nothing outlives the process, and there is one realm time: that of the clock, which never goes back here.
Rule 4: it asks for no quota, and says nothing itself: no sessions, no notices, no heads.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from typing import Final, NamedTuple

from dsmt.bus.rules.authority import check_runs
from dsmt.bus.rules.follower import MissingPart
from dsmt.bus.rules.routing import OVERLAP_MS
from dsmt.bus.rules.validator import NOWHERE, EventValidator, Standing, standing
from dsmt.errors import UnusableEventError
from dsmt.event.envelope import Event, EventId, SignedEvent, thing_of
from dsmt.event.fold import Fold
from dsmt.ports.bus import Cursor
from dsmt.ports.clock import Clock
from dsmt.trust.store import Realm, TrustStore

PAGE: Final = 256
STORE: Final = "memory"


class LogEntry(NamedTuple):
    """One event of the log, and where it stands."""

    row: int
    arrived_ms: int
    signed: SignedEvent
    fact: bool


class MemoryRealm:
    """What the buses of one process share. `cut` and `mend` end and begin the connection of them all."""

    def __init__(self, realm: Realm, clock: Clock, *, limit: int = 100_000) -> None:
        self.store, self.trust, self.clock = STORE, TrustStore(realm), clock
        self.head = self.trimmed = 0
        self.link = self._links = 1
        """The number of the present connection; 0 while there is none."""
        self.blobs: dict[bytes, bytes] = {}
        self.last: dict[str, tuple[int, int]] = {}
        """By source: the incarnation before, and its last sequence."""
        self._attachments: dict[str, int] = {}
        self.changed = asyncio.Event()
        """Set, and replaced by another one, at each change."""
        self._limit, self._now_ms = limit, 0
        self._validator = EventValidator(self.trust)
        self._fold = Fold()
        self._log: list[LogEntry] = []
        self._by_id: dict[EventId, LogEntry] = {}

    def now_ms(self) -> int:
        """Realm time in ms."""
        self._now_ms = max(self._now_ms, self.clock.wall_ms())
        return self._now_ms

    def cut(self) -> None:
        """Every bus loses its connection; what is said meanwhile waits with who says it."""
        self.link = 0
        self.wake()

    def mend(self) -> None:
        """Every bus attaches again."""
        self._links += 1
        self.link = self._links
        self.wake()

    def wake(self) -> None:
        """Let everybody look again."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def attachment(self, source: str) -> int:
        """The number of a new attachment of a source, greater than any before."""
        number = self._attachments[source] = max(self._attachments.get(source, 0) + 1, self.now_ms())
        return number

    # --- what is said --------------------------------------------------------------------------------------------

    def take(self, raw: bytes, session: str, *, granted: int = 0, again: bool = False) -> int:
        """Hold what a session says, or offers `again`; its row. Raises `UnusableEventError` that says why not."""
        now_ms = self.now_ms()
        signed = self.trust.open(raw)
        match, fact = self._validator.check(signed, session=session, granted=granted, now_ms=now_ms)
        held, event = self._by_id.get(signed.id), signed.event
        if held is not None and held.signed.leaf != signed.leaf:
            raise UnusableEventError("event.equivocation", f"{event.source} signed two different events as {signed.id}")
        if held is not None:
            return held.row
        check_runs(event, self._fold.get)
        at = self._standing(event) if fact else NOWHERE
        own = event.source == session and not again
        if self._validator.admit(signed, match, fact=fact, at=at, own=own, now_ms=now_ms).winner:
            self._fold.take(signed)
        self.head += 1
        self._by_id[signed.id] = new = LogEntry(self.head, now_ms, signed, fact)
        self._log.append(new)
        self.last[event.source] = max(self.last.get(event.source, (0, 0)), signed.id[1:])
        if len(self._log) > self._limit:
            self.trim(self._limit // 2)
        self.wake()
        return self.head

    def _standing(self, event: Event) -> Standing:
        return standing(event, self._fold.get(event.topic), lambda: self._fold.ended(thing_of(event.topic)))

    def trim(self, keep: int = 0) -> None:
        """Let go of all but the newest rows and the retained facts."""
        old = [held for held in self._log[: max(0, len(self._log) - keep)] if not self.wins(held)]
        for held in old:
            del self._by_id[held.signed.id]
        self._log = [held for held in self._log if held.signed.id in self._by_id]
        self.trimmed = max([self.trimmed, *(held.row for held in old)])

    # --- what is read --------------------------------------------------------------------------------------------

    def wins(self, held: LogEntry) -> bool:
        """Whether it is its topic's retained fact."""
        return self._fold.get(held.signed.event.topic) is held.signed

    def winners(self) -> list[LogEntry]:
        """The retained facts that are not dead, in the order of the log."""
        now_ms = self.now_ms()
        return sorted(self._by_id[signed.id] for signed in self._fold if not signed.event.is_dead(now_ms))

    def rows(self, after: int) -> list[LogEntry]:
        """The next page of the log."""
        first = bisect_right(self._log, after, key=lambda held: held.row)
        return self._log[first : first + PAGE]

    def place(self, since: Cursor | int | None) -> int:
        """The row behind which a history is read."""
        if isinstance(since, Cursor) and since.store == self.store and since.row <= self.head:
            return since.row
        if since is None:
            return 0
        time_ms = since.time_ms - OVERLAP_MS if isinstance(since, Cursor) else since
        first = bisect_left(self._log, time_ms, key=lambda held: held.arrived_ms)
        return self._log[first].row - 1 if first < len(self._log) else self.head

    def get(self, identity: EventId) -> SignedEvent | None:
        """One event by its id."""
        held = self._by_id.get(identity)
        return None if held is None else held.signed

    def part(self, wanted: MissingPart) -> list[LogEntry]:
        """What is held of a missing part of a chain."""
        numbers = range(wanted.after + 1, wanted.before)
        ids = (EventId(wanted.source, wanted.incarnation, number) for number in numbers)
        found = [self._by_id[one] for one in ids if one in self._by_id]
        return [held for held in found if held.signed.event.topic == wanted.topic]
