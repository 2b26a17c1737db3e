"""Ordered: what one subscription delivers: in order, gaps told where they are, marks behind all that comes before them.

Rule 1: chains are followed (`follower`), unless its reader folds.
Rule 2: a completion or a bookmark waits until nothing before it is held back. Of bookmarks that wait the last stands for
    those before it; no token is lost by that.
Rule 3: what came only because it is addressed to this source is in no chain that can be followed; it is known by its id.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from dsmt.bus.rules.follower import MAIL, ChainFollower, Closing, MissingPart
from dsmt.event.envelope import EventId
from dsmt.newest import Newest
from dsmt.ports.bus import Arrived, Bookmark, Complete, Delivery


class Ordered:
    """Of one subscription; what is returned is to be delivered now. `now` is boot-time seconds."""

    def __init__(self, *, follows: bool) -> None:
        self._follower = ChainFollower() if follows else None
        self._marks: list[Complete | Bookmark] = []
        self._mail: Newest[EventId, None] = Newest(MAIL)

    @property
    def deadline(self) -> float | None:
        """When `timer` is next due; None while nothing is held back."""
        return None if self._follower is None else self._follower.deadline

    def again(self) -> None:
        """The link was lost: what is still missing is wanted anew."""
        if self._follower is not None:
            self._follower.again()

    def wanted(self) -> list[MissingPart]:
        """What is missing and was not asked for yet."""
        return [] if self._follower is None else self._follower.wanted()

    def event(self, one: Arrived, now: float) -> list[Delivery]:
        """An event that was read in its place."""
        return [one] if self._follower is None else self._released(self._follower.arrived(one, now))

    def mail(self, one: Arrived) -> list[Delivery]:
        """What is addressed to this source (rule 3)."""
        if one.signed.id in self._mail:
            return []
        self._mail[one.signed.id] = None
        return [one]

    def mark(self, mark: Complete | Bookmark) -> list[Delivery]:
        """Everything before this was read (rule 2)."""
        if self.deadline is None:
            return [mark]
        last = self._marks[-1] if self._marks else None
        if isinstance(mark, Bookmark) and isinstance(last, Bookmark) and (mark.token is None or last.token is None):
            self._marks[-1] = mark if last.token is None else replace(mark, token=last.token)
        else:
            self._marks.append(mark)
        return []

    def timer(self, now: float) -> list[Delivery]:
        """What was held back long enough."""
        return [] if self._follower is None else self._released(self._follower.timer(now))

    def repaired(self, answer: Closing, arrived: Sequence[Arrived], now: float) -> list[Delivery]:
        """The answer to what was wanted has come."""
        return [] if self._follower is None else self._released(self._follower.repaired(answer, arrived, now))

    def _released(self, found: list[Delivery]) -> list[Delivery]:
        """What the follower has let through, and the marks that waited for it."""
        if self._marks and self.deadline is None:
            found, self._marks = [*found, *self._marks], []
        return found
