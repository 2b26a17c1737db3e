"""The past: what readers ask of a broker's history beside their subscriptions: parts of chains, and pages for an export.

Rule 1: who misses a part of a chain that is not here, and may still come from another broker, is answered when it cannot
    any more: until then it is not lost. What comes meanwhile is sent as all that is new.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from dsmt.bus.broker.fan_out import MESSAGE_BYTES, PAGE_ROWS, TREES, FanOut
from dsmt.bus.broker.session import Session
from dsmt.bus.wire.fields import Closing
from dsmt.bus.wire.frames import Frame, HistoryAsked, HistoryIs, Repair, Repaired
from dsmt.errors import RefusedError
from dsmt.event.burst import burst_of, raws_of
from dsmt.event.registry import lookup
from dsmt.event.rowtree import Node
from dsmt.event.topic import covers, matches
from dsmt.ports.store import Kept, Lost, Row

REPAIR_ROWS: Final = 512
WAITING: Final = 4096
"""How many answers wait; the oldest is given when there are more."""


class _Waiting(NamedTuple):
    session: Session
    asked: Repair
    since_ms: int


class Past:
    """Of one broker. What was missed before `settled_ms` comes from no other one any more; None: there is no other.

    `answer` sends what was asked for, on the account of who asked.
    """

    def __init__(
        self,
        store: Kept,
        fan_out: FanOut,
        answer: Callable[[Session, Frame, tuple[bytes, ...]], object],
        *,
        now_ms: Callable[[], int],
        settled_ms: Callable[[], int | None],
    ) -> None:
        self._store, self._fan_out, self._answer = store, fan_out, answer
        self._now_ms, self._settled_ms = now_ms, settled_ms
        self._waiting: deque[_Waiting] = deque()

    def tick(self) -> None:
        """Answer who has waited for what does not come any more (rule 1)."""
        settled_ms = self._settled_ms()
        while self._waiting and (settled_ms is None or self._waiting[0].since_ms < settled_ms):
            self._repair(self._waiting[0].session, self._waiting.popleft().asked, waits=False)

    def repair(self, session: Session, asked: Repair) -> None:
        """Send what is stored of a part of a chain, to a subscription that takes the topic."""
        self._repair(session, asked, waits=self._settled_ms() is not None)

    def _repair(self, session: Session, asked: Repair, *, waits: bool) -> None:
        subscription = self._fan_out.of(session, asked.id)
        if subscription is None or not any(matches(p, asked.topic) for p in subscription.patterns):
            return
        found: list[Row] = []
        size, trees, last = 0, 0, None
        for row in self._store.chain(
            asked.source, asked.incarnation, asked.topic, after=asked.after, before=asked.before, limit=REPAIR_ROWS
        ):
            size += row.size
            burst = burst_of(row.sealed)
            trees, last = trees + (burst is not last), burst
            if found and (size > MESSAGE_BYTES or trees > TREES):
                break
            found.append(row)
        more = size > MESSAGE_BYTES or trees > TREES or len(found) == REPAIR_ROWS
        closing: Closing = "more" if more else self._closing(asked)
        if closing == "lost" and waits:
            if not found:
                self._wait(session, asked)
                return
            closing = "more"  # it asks for the rest, if that is not all
        self._fan_out.introductions.introduce(session, found)
        frame = Repaired(
            id=asked.id,
            source=asked.source,
            incarnation=asked.incarnation,
            topic=asked.topic,
            before=asked.before,
            rows=tuple(row.row for row in found),
            closing=closing,
        )
        self._answer(session, frame, tuple(raws_of(row.sealed for row in found)))

    def _wait(self, session: Session, asked: Repair) -> None:
        self._waiting.append(_Waiting(session, asked, self._now_ms()))
        if len(self._waiting) > WAITING:
            oldest = self._waiting.popleft()
            self._repair(oldest.session, oldest.asked, waits=False)

    def history(self, session: Session, asked: HistoryAsked) -> None:
        """Send a page of the store as it stands. Raises `RefusedError` for who may not read everything."""
        if not any(covers(wide, "/") for wide in session.granted):
            raise RefusedError("trust.denied", f"{session.name} may not read everything, so it cannot export")
        rows: list[Row] = []
        nodes: list[tuple[int, int, bytes]] = []
        lost: list[tuple[int, int]] = []
        size = 0
        for one in self._store.history(asked.after, PAGE_ROWS):
            if size >= MESSAGE_BYTES:
                break
            match one:
                case Row():
                    rows.append(one)
                    size += one.size
                case Node():
                    nodes.append((one.first, one.level, one.hash))
                case Lost():
                    lost.append((one.first, one.last))
        self._fan_out.introductions.introduce(session, rows)
        numbers = tuple((row.row, row.arrived_ms) for row in rows)
        frame = HistoryIs(id=asked.id, rows=numbers, nodes=tuple(nodes), lost=tuple(lost))
        self._answer(session, frame, tuple(raws_of(row.sealed for row in rows)))

    def _closing(self, asked: Repair) -> Closing:
        """Why it is not in the store: rows of its class that stood between its neighbours were trimmed, or it is lost.

        Where the event before it came later than the one behind it, it may have stood before both.
        """
        before = self._store.event(asked.source, asked.incarnation, asked.after)
        behind = self._store.event(asked.source, asked.incarnation, asked.before)
        match = lookup(asked.topic)
        first, last = 0 if before is None else before.row, self._store.head if behind is None else behind.row
        first, last = (first, last) if first <= last else (0, first)
        went = 0 if match is None else self._store.trimmed_between(match.row.budget, first, last)
        return "trimmed" if went else "lost"
