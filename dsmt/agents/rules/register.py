"""A register: the fact of one topic that a node obeys, the greatest of those that come in any order (rules A1, A6).

Rule 1: the greatest in fact order is held (`event.fold`).
    One whose time to live is over is none.
Rule 2: what is held by the word of a key that has ended holds against nobody: brokers give what stands in its place (J3).
Rule 3: a tombstone orders nothing: what it hides is still held, as `buried`, until a fact of a later epoch comes, or
    the key of the tombstone has ended (J3).
"""

from __future__ import annotations

from collections.abc import Callable

from dsmt.event.envelope import SignedEvent
from dsmt.event.fold import Fold
from dsmt.event.order import newer


class Register:
    """The greatest fact known of one topic; `held` is None while there is none. A `fold` may serve many topics."""

    __slots__ = ("_abandoned", "_fold", "_is_disowned", "held")

    def __init__(self, topic: str, is_disowned: Callable[[SignedEvent], bool], fold: Fold | None = None) -> None:
        self._fold = Fold() if fold is None else fold
        self._is_disowned = is_disowned
        self._abandoned: SignedEvent | None = None
        self.held = self._fold.get(topic)

    @property
    def buried(self) -> bool:
        """Whether a tombstone hides what is held, or nobody has said it again in time."""
        return self.held is not None and (self.held is self._abandoned or self._fold.is_over(self.held.event))

    @property
    def is_disowned(self) -> bool:
        """Whether nobody believes what is held any more."""
        return self.held is not None and self._is_disowned(self.held)

    def is_news(self, signed: SignedEvent, heard: SignedEvent) -> bool:
        """Whether a fact counts where somebody has heard another one, perhaps one that is void (rule 2)."""
        if self._is_disowned(heard) != self._is_disowned(signed):
            return self._is_disowned(heard)
        return newer(signed.event, heard.event)

    def abandon(self) -> None:
        """Have what is held order nothing any more, until another fact comes (J3)."""
        self._abandoned = self.held

    def take(self, signed: SignedEvent) -> bool:
        """Take in a fact; whether it is held now."""
        held = self._fold.get(signed.event.topic)
        if held is not None and self._is_disowned(held) != self._is_disowned(signed):
            if self._is_disowned(signed):
                return False
            self._fold.drop(signed.event.topic)
        wins = bool(self._fold.take(signed))
        if wins:
            self.held = signed
        return wins

    def expire(self, now_ms: int) -> None:
        """Let go of a fact that is dead."""
        if self.held is not None and self.held.event.is_dead(now_ms):
            if self._fold.get(self.held.event.topic) is self.held:
                self._fold.drop(self.held.event.topic)
            self.held = None

    def bury(self, tombstone: SignedEvent) -> None:
        """Take in a tombstone."""
        self._fold.take(tombstone)

    def exhume(self) -> None:
        """Take back tombstones of keys that have ended: what they hid, and is still held, is buried no more."""
        self._fold.exhume(self._is_disowned)
        self.stand()

    def stand(self) -> None:
        """Have what is held stand again, once the fold has taken back the tombstone that hid it."""
        if self.held is not None:
            self._fold.take(self.held)
