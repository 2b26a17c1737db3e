"""Batches: what a broker has taken in and not stored yet, in order."""

from __future__ import annotations

from collections.abc import Iterable

from dsmt.event.envelope import EventId
from dsmt.ports.store import Append


class Batch:
    """What goes into the store with the next commit; of one id at most one."""

    def __init__(self) -> None:
        self._held: list[Append] = []
        self._leaves: dict[EventId, bytes] = {}
        """Of those that are noted: ids are asked for seldom, for what a source says over its own session is mostly new."""
        self._noted = 0

    def add(self, appends: Iterable[Append]) -> None:
        """Take in events that are not held."""
        self._held.extend(appends)

    def leaf(self, identity: EventId) -> bytes | None:
        """The leaf hash of an event that is held, or None."""
        for one in self._held[self._noted :]:
            self._leaves[one.signed.id] = one.signed.leaf
        self._noted = len(self._held)
        return self._leaves.get(identity)

    def take(self) -> list[Append]:
        """Hand over everything that is held; the batch is empty after that."""
        held, self._held, self._noted = self._held, [], 0
        self._leaves.clear()
        return held
