"""Wholeness: when a broker may say that its view is whole, so that controllers act on it (rule A4).

Rule 1: at once in a store that was whole before, or in which the realm was born. Both are said of the store's id: a store
    that was made anew, or that has taken another id, is neither.
Rule 2: else `AFTER_S` after the start: who was attached lately comes back in that time, and offers what it holds (R5). While
    facts that were not here are still being offered it waits until `QUIET_S` after the last one, and `MOST_S` at most.
Rule 3: while the words of the root, of operators and of controllers are being brought that it refuses because its clock is
    behind them it waits on, `EARLY_S` after each, without end: they come when the clock is there, or was set right. A
    node's own words hold nothing up: no node that is hostile keeps controllers from deciding.
Rule 4: a broker that knows others may have missed what they have: it is whole when it has read one to the end that is whole,
    or all of them if its own store was whole before; as long as it reads one it waits. Where none answers, or what
    it says is ahead of the time here, it is rule 2. One that stood still is whole no more; nor is one that was cut off from
    all others for as long, from when the first is linked again.
Rule 5: that a store is whole is noted in it: one that was stopped while it was being refilled is not.
Rule 6: a broker that knows others is not whole while its disk is full, nor before it has read what it could not store.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

from dsmt.ports.store import Meta

AFTER_S: Final = 5.0
QUIET_S: Final = 0.5
MOST_S: Final = 15.0
STOOD_S: Final = 3.0
"""After standing still for so long a broker is one that was away."""
EARLY_S: Final = 10.0
"""Longer than it takes who holds such words to bring one of them again."""
_NOTED: Final = "whole"


class Wholeness:
    """Of the store of this identity. `born`: the realm was born in this very store. `now` is boot-time seconds.

    `is_linked` says whether another broker reads this one, or is read.
    """

    def __init__(self, meta: Meta, identity: str, *, born: bool, now: float, is_linked: Callable[[], bool]) -> None:
        self._meta, self._identity, self._is_linked = meta, identity.encode(), is_linked
        self._noted = meta.get(_NOTED) == self._identity
        self._before = self._whole = born or self._noted
        self._due, self._latest = now + AFTER_S, now + MOST_S
        self._lags = False
        """Whether what others have cannot be stored here (rule 6)."""
        self._looked, self._until = now, inf
        """When the broker looked last, and until when that counts (boot-time s): if it is later, it has stood still."""
        self._linked_at = now
        """When it looked last and one was linked, or there was none that could be (boot-time s)."""

    def awaits_others(self, now: float) -> None:
        """There are other brokers, which may have what is not here (rule 4)."""
        self._whole = False
        self._due = now + AFTER_S

    def look(self, now: float, *, alone: bool, full: bool) -> bool:
        """The broker goes on: `alone` where it knows no others, `full` while its disk is. Whether all is to be read anew."""
        stood, lagged = now > self._looked + STOOD_S or self._is_back(now), self._lags
        if alone or self._is_linked():
            self._linked_at = now
        self._looked, self._until, self._lags = now, inf if alone else now + STOOD_S, full and not alone
        missed = (stood or (lagged and not self._lags)) and not alone
        if missed:
            self.awaits_others(now)
        return missed

    def _is_back(self, now: float) -> bool:
        """Whether others are linked again, and none was for long."""
        return now > self._linked_at + STOOD_S and self._is_linked()

    def reading(self, now: float) -> None:
        """Another broker is being read, and not to its end yet."""
        self._due = max(self._due, now + QUIET_S)

    def filled(self) -> None:
        """Another broker, which is whole, was read to its end."""
        self._whole = True

    def all_read(self) -> None:
        """All other brokers were read to their ends."""
        self._whole = self._whole or self._before

    def refilled(self, now: float) -> None:
        """Facts that were not here have been offered."""
        self._due = max(self._due, min(now + QUIET_S, self._latest))

    def early(self, now: float) -> None:
        """Facts have been offered that are ahead of the clock here (rule 3)."""
        self._due = max(self._due, now + EARLY_S)

    def at(self, now: float) -> bool:
        """Whether the store is whole."""
        if self._lags or now > self._until or self._is_back(now):
            return False
        self._whole = self._whole or now >= self._due
        return self._whole

    def note(self, now: float) -> None:
        """Note it, once. Raises `FailedError` when that cannot be written."""
        if not self._noted and self.at(now):
            self._meta.put(_NOTED, self._identity)
            self._noted = True
