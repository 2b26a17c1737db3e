"""Older: a broker learns from its readers that its store is an older copy, which was put back under its id (rules R5, D3).

Rule 1: a reader that goes on in this store from a place that this store cannot have given it proves that: from a row beyond
    its end, or from one that was numbered since this broker's start, while the reader had it before that. The second only
    where a subscription is asked for the first time: later its reader may have had that row from here.
Rule 2: then the broker ends, and begins anew with a store of another id (`programs.broker`): to all it is one that lacks
    what they hold.
Rule 3: a copy can be put back only while its broker does not run. So each process of it does this once at most, and no
    reader that lies has it done again.
Rule 4: nobody is told that the store is whole before the nodes that it knows as attached have come back, or `BACK_S` after
    the start: no controller, which may be put back as well, decides before the first of them could prove it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from dsmt.bus.wire.frames import Subscribe
from dsmt.errors import FailedError
from dsmt.newest import Newest
from dsmt.ports.store import Kept

OLDER: Final = "store.older"
BACK_S: Final = 2.5
"""Longer than a client that is refused, or finds nobody, waits before it tries again (`bus.rules.backoff`)."""
ASKED: Final = 16_384
"""Of how many subscriptions it is remembered that they were asked for."""


class OlderCopy:
    """Looks for it in what readers ask. `now_ms` is realm time; `known`: this process has done this before (rule 3)."""

    def __init__(self, store: Kept, *, now_ms: Callable[[], int], known: bool) -> None:
        self._store, self._known, self._said = store, known, ""
        self._first, self._since_ms = store.head, now_ms()
        self._asked: Newest[tuple[str, int], None] = Newest(ASKED)
        """The subscriptions that were asked for since the start, by reader and number."""
        self._awaited: set[str] = set()
        self._until = 0.0

    def awaits(self, nodes: Iterable[str], now: float) -> None:
        """These were attached when this store was left (rule 4). `now` is boot-time seconds."""
        self._awaited, self._until = set(nodes), now + BACK_S

    def may_be(self, now: float) -> bool:
        """Whether somebody may still come who proves that it is one (rule 4)."""
        if now >= self._until:
            self._awaited.clear()
        return bool(self._awaited) or bool(self._said)

    def reader_asks(self, reader: str, asked: Subscribe) -> None:
        """A reader asks for something, now or again."""
        self._awaited.discard(reader)
        of_this = asked.row is not None and asked.store == self._store.identity
        first, self._asked[reader, asked.id] = (reader, asked.id) not in self._asked, None
        if self._known or not of_this or not self._is_lost(asked.row or 0, asked.time_ms, first=first):
            return
        self._known = True
        self._said = (
            f"its store is an older copy: {reader} had read its row {asked.row}, which this one does not have. It takes "
            "another id, and who is attached brings what it holds"
        )

    def _is_lost(self, row: int, time_ms: int | None, *, first: bool) -> bool:
        """Whether a reader had a row that this store does not have (rule 1)."""
        if row > self._store.head:
            return True
        before = first and time_ms is not None and time_ms < self._since_ms
        return before and row > max(self._first, self._store.row_at((time_ms or 0) + 1))

    def check(self) -> None:
        """Raises `FailedError` once it is found (rule 2)."""
        if self._said:
            raise FailedError(OLDER, self._said)
