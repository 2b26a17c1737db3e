"""Greatest: the fact of one topic that a node obeys, in whatever order facts and tombstones come (SEMANTICS A1, A6).

Rule 1: the greatest in fact order is held.
Rule 2: a tombstone orders nothing: what it hides is still held, as `buried`, until any fact that it does not hide comes.
Rule 3: so facts that lose now and would win if those above them were buried are kept, up to `MOST`.
"""

from __future__ import annotations

from typing import Final

from dsmt.event.envelope import SignedEvent
from dsmt.event.order import hides, newer

MOST: Final = 16


class Greatest:
    """The greatest fact known of one topic; `held` is None while there is none."""

    __slots__ = ("_grave", "_rivals", "buried", "held")

    def __init__(self, held: SignedEvent | None = None) -> None:
        self.held = held
        self.buried = False
        self._rivals: list[SignedEvent] = []
        self._grave: SignedEvent | None = None

    def take(self, signed: SignedEvent) -> bool:
        """Take in a fact; whether it is held now."""
        if self._grave is not None and hides(self._grave.event, signed.event):
            return False
        before = self.held
        wins = before is None or self.buried or newer(signed.event, before.event)
        if wins:
            self.held, self.buried = signed, False
        loser = before if wins else signed
        if loser is not None:
            self._keep(loser)
        return wins

    def _keep(self, loser: SignedEvent) -> None:
        field = [one for one in (self.held, *self._rivals, loser) if one is not None]
        kept = [one for one in (*self._rivals, loser) if not any(_outlives(other, one) for other in field)]
        self._rivals = kept[-MOST:]

    def bury(self, tombstone: SignedEvent) -> bool:
        """Take in a tombstone; whether it hid what was held: now another is held, or what is held is buried."""
        if self._grave is None or newer(tombstone.event, self._grave.event):
            self._grave = tombstone
        if self.held is None or self.buried or not hides(tombstone.event, self.held.event):
            return False
        self.buried = True
        rivals, self._rivals = self._rivals, []
        for rival in rivals:
            self.take(rival)
        return True


def _outlives(other: SignedEvent, one: SignedEvent) -> bool:
    """Whether a fact wins over another one, whatever tombstone comes."""
    return newer(other.event, one.event) and other.event.time >= one.event.time
