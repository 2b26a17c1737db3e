"""Echoes: what a controller has said and not seen again as a fact; until then it does not say it once more.

Rule 1: an echo is awaited for `ECHO_S`; what did not come back by then may have been refused, or lost, and is decided anew.
Rule 2: it came back when its topic holds it, or what wins over it.
Rule 3: while the broker has not answered, nothing more is said on its topic, whatever else has come there: what follows
    could not declare it, if it is refused (B1). An answer, or the loss of the link, always comes.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

from dsmt.view import View

ECHO_S: Final = 5.0
"""How long after a fact was said it is not said once more, though it has not come back."""
_NOWHERE: Final = (0, 0)


class Echoes:
    """Those of one controller. `now` is boot time in seconds, a `place` the epoch and the version of a fact on its topic."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[tuple[int, int], float]] = {}
        """By topic, what was said there last, and until when its return is awaited; oldest first."""
        self._unanswered: set[str] = set()

    @property
    def topics(self) -> AbstractSet[str]:
        """The topics on which one is awaited."""
        return self._said.keys()

    def said(self, topic: str, place: tuple[int, int], now: float) -> None:
        """It is said now."""
        self._said.pop(topic, None)
        self._said[topic] = (place, now + ECHO_S)

    def sent(self, topic: str) -> None:
        """It is with the bus, whose answer is awaited (rule 3)."""
        self._unanswered.add(topic)

    def answered(self, topic: str) -> None:
        """The answer has come, whatever it is."""
        self._unanswered.discard(topic)

    def over(self, topic: str) -> bool:
        """It was not stored, and another one may be there; whether its return was awaited."""
        return self._said.pop(topic, None) is not None

    def awaits(self, topic: str, place: tuple[int, int], now: float) -> bool:
        """Whether this, or what follows it, was said and may still come back; or an answer is awaited."""
        said, until = self._said.get(topic, (_NOWHERE, 0.0))
        return topic in self._unanswered or (place <= said and now < until)

    def missed(self, view: View, now: float) -> list[str]:
        """The topics on which none came back in time; they are awaited no more."""
        found = []
        while self._said:
            topic, (said, until) = next(iter(self._said.items()))
            if now < until:
                break
            del self._said[topic]
            winner = view.winner(topic)
            if winner is None or (winner.event.epoch or 0, winner.event.version or 0) < said:
                found.append(topic)
        return found
