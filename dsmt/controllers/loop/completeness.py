"""Completeness: when a controller may publish (rule A4, R7).

Rule 1: (i) its broker has said that its view is whole; (ii) everything up to a bookmark has been folded, and nothing
    after it, and the newest token that came back was sent at most `CURRENT_S` ago by the controller's own boot-time clock.
    The broker returns a token in the order of the stream: what it knew when the token came has been folded before. The
    age of what arrives says nothing: what waited in a buffer while the controller was stopped arrives now.
Rule 2: a token is due each `MARK_S`, and at once when those before count for nothing any more.
Rule 3: after a new attachment, or a stall of more than `STALL_S`, no token that was sent before counts, nor where the view
    ended.
Rule 4: (iii) what follows from silence also needs that it has watched for `dead_after` since start, since it attached
    anew, or since its own loop stood still.

Times are seconds of the boot-time clock.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from dsmt.ports.bus import Cursor

CURRENT_S: Final = 1.0
MARK_S: Final = 0.5
STALL_S: Final = 0.5


class Completeness:
    """The gate of one controller."""

    def __init__(self, now: float) -> None:
        self._watching_since = now
        self._beat = now
        self._cursor: Cursor | None = None
        """Where the view ends, while a bookmark covers it."""
        self._tokens = 0
        self._sent: deque[tuple[int, float]] = deque()
        """Tokens that count and have not come back, with when they were sent."""
        self._due = now
        self._echo: float | None = None
        """When the newest token that came back was sent."""

    def attached(self, now: float) -> None:
        """It attached anew."""
        self._begin_anew(now)

    def beat(self, now: float, promised_s: float = 0.0) -> float:
        """The loop came round, `promised_s` at the latest after the last time; by how much it is late (s)."""
        lag = max(0.0, now - self._beat - promised_s)
        self._beat = now
        if lag > STALL_S:
            self._begin_anew(now)
        return lag

    def _begin_anew(self, now: float) -> None:
        self._watching_since = self._due = now
        self._cursor = self._echo = None
        self._sent.clear()

    def token(self, now: float) -> int | None:
        """A token to be sent now, if one is due (rule 2)."""
        if now < self._due:
            return None
        self._due = now + MARK_S
        self._tokens += 1
        while self._sent and now - self._sent[0][1] > CURRENT_S:
            self._sent.popleft()
        self._sent.append((self._tokens, now))
        return self._tokens

    def folded(self) -> None:
        """The view changed, and no bookmark covers that yet."""
        self._cursor = None

    def bookmark(self, cursor: Cursor, token: int | None, *, whole: bool) -> None:
        """Everything up to `cursor` has been folded; `whole` is the broker's word on its own view."""
        self._cursor = cursor if whole else None
        while token is not None and self._sent and self._sent[0][0] <= token:
            number, sent = self._sent.popleft()
            if number == token:
                self._echo = sent

    def cursor(self, now: float) -> Cursor | None:
        """Where the view ends, if it may be published from now (i, ii); else None."""
        if self._echo is None or now - self._echo > CURRENT_S:
            return None
        return self._cursor

    def may_accuse(self, now: float, dead_after_s: float) -> bool:
        """Whether it has watched long enough to judge by silence (iii)."""
        return now >= self._watching_since + dead_after_s
