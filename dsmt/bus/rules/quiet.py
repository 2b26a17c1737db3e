"""Quiet links: who is asked whether it is still there, and when it counts as silent (rule F3).

Rule 1: a link over which something comes needs no question. A session that was quiet for `QUIET_S` is asked, and again each
    `QUIET_S` until something comes.
Rule 2: a delegate may be quiet for `DELEGATE_QUIET_S` as long as its ancestor speaks at the same broker; when that has not
    spoken for `DOUBT_S`, all below it are asked: what stands still as a whole falls silent as a whole.
Rule 3: silent is who was not heard for `SILENT_S`, and had `ANSWER_S` to answer.
Rule 4: a client asks its broker when nothing came for a second longer than it may be quiet itself, and gives the link up
    when it gets no answer.
"""

from __future__ import annotations

from typing import Final

from dsmt.event.kinds.broker import SILENT_S

QUIET_S: Final = 1.0
DELEGATE_QUIET_S: Final = 5.0
DOUBT_S: Final = 1.5
ANSWER_S: Final = 2.0
LINK_ANSWER_S: Final = 3.0
LOOK_S: Final = 1.0
"""How often a link that is in doubt is looked after."""
STALL_S: Final = 0.5


def quiet_s(*, delegate: bool) -> float:
    """How long a source may say nothing before it is asked."""
    return DELEGATE_QUIET_S if delegate else QUIET_S


def is_to_ask(now: float, heard: float, asked: float, ancestor: float | None) -> bool:
    """Whether who was heard and asked at these times is asked now (rules 1, 2); `ancestor`: when that one was heard."""
    speaks = ancestor is not None and now - ancestor < DOUBT_S
    return now - asked >= QUIET_S if asked > heard else now - heard >= quiet_s(delegate=speaks)


def patience_s(*, delegate: bool) -> float:
    """How long after its last word a source that nobody has asked sooner is silent (rule 3)."""
    return quiet_s(delegate=delegate) + ANSWER_S


def asked_patience_s(waited: float) -> float:
    """The same of a source that is asked when it was not heard for so long."""
    return max(SILENT_S, waited + ANSWER_S)


class LinkWatch:
    """A client's watch over its link (rule 4). `now` is boot-time seconds."""

    def __init__(self, now: float, *, delegate: bool) -> None:
        self._heard = self._looked = self._due = now
        self._ask_s = quiet_s(delegate=delegate) + 1.0
        self.lost_s = self._ask_s + LINK_ANSWER_S
        """After how long without a word the link is lost."""
        self.lag = 0.0
        """How late the last look came, in seconds."""

    def came(self, now: float) -> None:
        """Something came over the link."""
        self._heard = now

    def pause_s(self, *, busy: bool) -> float:
        """How long until the next look; `busy`: something else is looked after with it."""
        pause = LOOK_S if busy else max(LOOK_S, self._heard + self._ask_s - self._looked)
        self._due = self._looked + pause
        return pause

    def look(self, now: float) -> None:
        """Look. What this process itself was late does not count against the broker."""
        self.lag = max(0.0, now - self._due)
        self._looked = now
        if self.lag > STALL_S:
            self._heard = min(now, self._heard + self.lag)

    @property
    def asks(self) -> bool:
        """Whether the broker is to be asked now."""
        return self._looked - self._heard >= self._ask_s

    @property
    def lost(self) -> bool:
        """Whether the link is to be given up."""
        return self._looked - self._heard > self.lost_s
