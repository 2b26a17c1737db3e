"""Holes: what is missing in a source's sequence, by what comes over its own session (B2, B3).

Rule 1: it is asked of its source (`source_marks`). What that cannot give another broker may have: it is told (`dsmt.notice`
    of kind `gap`) when what others have was read.
Rule 2: what is stored by then did come: another broker has brought it.
Rule 3: `OWED_MOST` are waited for; beyond that the oldest is told at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from dsmt.bus.broker.words import Words
from dsmt.bus.rules.source_marks import ASK_MS, Marks
from dsmt.event.envelope import Event, EventRange
from dsmt.event.kinds.broker import BrokerNotice
from dsmt.ports.store import Events

OWED_MOST: Final = 4096


class Holes:
    """Of one broker, by its marks and its store. `payer_of` says who pays for what a source says.

    What was missed before `settled_ms` comes from no other broker any more; None where there is no other.
    """

    def __init__(
        self,
        marks: Marks,
        store: Events,
        words: Words,
        *,
        payer_of: Callable[[str], str],
        now_ms: Callable[[], int],
        settled_ms: Callable[[], int | None],
    ) -> None:
        self._marks, self._store, self._words = marks, store, words
        self._payer_of, self._now_ms, self._settled_ms = payer_of, now_ms, settled_ms
        self._owed: deque[tuple[int, EventRange]] = deque()
        """What is missing of a source that does not have it, since when (realm ms): another broker may."""

    def watch(self, event: Event, now_ms: int) -> None:
        """Look for what is missing before an event that came over its source's own session, or of the incarnation before."""
        source, incarnation = event.source, event.incarnation
        holes = []
        if event.type == "dsmt.source.started" and event.data.get("previous_incarnation") is not None:
            before = (event.data["previous_incarnation"], event.data.get("previous_sequence") or 0)
            holes += self._marks.ended(source, *before)
        holes += self._marks.came(source, incarnation, event.sequence, now_ms)
        if event.type == "dsmt.heartbeat" and event.data.get("incarnation") == incarnation:
            holes += self._marks.vouched(source, incarnation, event.data["sequence"], now_ms)
        self.tell(holes)

    def tell(self, holes: Iterable[EventRange]) -> None:
        """Tell what is missing; where another broker may have it, when that was read (`overdue`)."""
        if self._settled_ms() is None:
            self._say(holes)
        else:
            now_ms = self._now_ms()
            self._owed.extend((now_ms, hole) for hole in holes)

    def wanted(self, source: str) -> tuple[int, tuple[tuple[int, int], ...]] | None:
        """What is to be asked of a source now: its incarnation, and ranges of its sequence."""
        return self._marks.wanted(source)

    def gone(self, source: str, incarnation: int, ranges: Iterable[tuple[int, int]]) -> None:
        """A source has what it was asked for no more; another broker may, until it is overdue."""
        if self._settled_ms() is None:
            self.tell(self._marks.gone(source, incarnation, ranges))

    def overdue(self) -> None:
        """Tell what was asked for and has not come, from its source nor from another broker."""
        now_ms, settled_ms = self._now_ms(), self._settled_ms()
        while self._owed and (settled_ms is None or self._owed[0][0] < settled_ms or len(self._owed) > OWED_MOST):
            self._say([self._owed.popleft()[1]])
        self._say(self._marks.overdue(now_ms if settled_ms is None else min(now_ms, settled_ms + ASK_MS)))

    def _say(self, holes: Iterable[EventRange]) -> None:
        """Tell what is missing, but for what is stored (rule 2)."""
        for hole in holes:
            source = hole.source
            for low, high in self._store.lacking(hole):
                why = f"{source} #{low}..#{high} did not come"
                one = BrokerNotice(kind="gap", source=source, topic=None, first=low, last=high, message=why, unit="sequence")
                self._words.notice(one, payer=self._payer_of(source))
