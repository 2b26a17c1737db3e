"""Withheld: whether other brokers give what they have said to hold (rule E4).

Rule 1: what was published here in the last seconds, and another broker has said to hold, it must give to who reads its
    history. What it does not give, though it is asked twice, it withholds: it is named, once, and again when it gives it.
Rule 2: what another broker has of the last seconds, and is not here after a while, was withheld from this one: it is taken
    from there. Where its source is attached to a third one, which has said to have given everything up to then, that one is
    named: a signal comes to the broker of its source alone.
Rule 3: only what was said lately counts: what is offered again may have been with the other one long before. Nor does what
    a key has said that is revoked: the other one may have heard of that before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from dsmt.bus.broker.words import Words
from dsmt.errors import UnusableEventError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.kinds.broker import Withheld
from dsmt.event.records import from_data
from dsmt.ports.bus import Arrived
from dsmt.ports.store import Log, Row

OLDEST_MS: Final = 7_000
NEWEST_MS: Final = 2_000
"""Of which age an event is that is asked for."""
GIVEN_MS: Final = 2_000
"""By how much the clocks of two brokers may differ: so long after an event was seen its own one must have given all."""
COMPARED: Final = 1024
"""How many events are remembered as published here, or looked at that another one has and are not here."""


class Withholding:
    """Of one broker. `stored` says up to which row another one holds all of this one, and None where it is not linked.

    `gave` says which broker held the session of a source at a time, and up to when (realm ms) that one has given everything.
    `disowns` says whether the key of an event is revoked.
    """

    def __init__(
        self,
        name: str,
        store: Log,
        words: Words,
        *,
        now_ms: Callable[[], int],
        stored: Callable[[str], int | None],
        gave: Callable[[str, int], tuple[str, int]],
        disowns: Callable[[SignedEvent], bool],
    ) -> None:
        self._name, self._store, self._words, self.now_ms = name, store, words, now_ms
        self._stored, self._gave, self._disowns = stored, gave, disowns
        self._said: deque[tuple[int, int]] = deque(maxlen=COMPARED)
        """Row and arrival of what was published here."""
        self._named: set[str] = set()

    def restore(self, rows: Iterable[Row]) -> None:
        """Of retained facts of the past, or of what others bring of it, note whom this broker has named."""
        for row in rows:
            if row.topic.startswith(f"{self._name}/withheld/"):
                with suppress(UnusableEventError):
                    if from_data(Withheld, row.read().event.data).count:
                        self._named.add(f"broker/{row.topic.rsplit('/', 1)[1]}")

    def published(self, rows: Iterable[Row]) -> None:
        """These were stored here now."""
        self._said.extend((row.row, row.arrived_ms) for row in rows if not row.brought)

    def owed(self, broker: str) -> list[EventId]:
        """What another broker must give now (rules 1, 3)."""
        now_ms, stored = self.now_ms(), self._stored(broker)
        if stored is None:
            return []
        rows = [row for row, at_ms in self._said if row <= stored and NEWEST_MS <= now_ms - at_ms <= OLDEST_MS]
        found = (one.read() for row in rows for one in self._store.rows(row - 1, 1) if one.row == row)
        return [one.id for one in found if now_ms - one.event.time_ms <= OLDEST_MS and not self._disowns(one)]

    def missed(self, given: Iterable[Arrived]) -> list[Arrived]:
        """What of all this is not here, and should be (rule 2)."""
        until_ms = self.now_ms() - NEWEST_MS
        return [one for one in given if one.signed.event.time_ms <= until_ms and not self._has(one)]

    def _has(self, one: Arrived) -> bool:
        return self._store.leaf(*one.signed.id) is not None

    def found(self, giver: str, missed: Sequence[Arrived], seen_ms: int) -> list[Arrived]:
        """What of these is to be taken from who gave it, which had it then (realm ms), for it has not come (rule 2)."""
        left = [one for one in missed if not self._has(one)]
        for one in left:
            event = one.signed.event
            broker, gave_ms = self._gave(event.source, event.time_ms)
            if broker not in ("", giver, self._name) and event.version is None and gave_ms > seen_ms + GIVEN_MS:
                self.judged(broker, [one.signed.id])
        return left

    def judged(self, broker: str, lacks: Sequence[EventId]) -> None:
        """Another broker was asked: name it, or say that it gives everything again, if that is new."""
        if bool(lacks) == (broker in self._named):
            return
        (self._named.add if lacks else self._named.discard)(broker)
        first = lacks[0] if lacks else EventId("", 0, 0)
        record = Withheld(count=len(lacks), source=first.source, incarnation=first.incarnation, sequence=first.sequence)
        self._words.say(f"{self._name}/withheld/{broker.removeprefix('broker/')}", record, subject=broker)
