"""Named: specs that are no winners any more, and that slots name as what they implement or would go back to (rule A12, B6).

Rule 1: what the fact of a slot names stays, whatever its age and however full the store is, and so do the blobs that it
    names; the fact of a slot that is gone names what it comes back with when it is wanted again.
Rule 2: it is asked of a spec when that is about to go, and costs a look at the slots of its service.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from dsmt.errors import InputError, UnusableEventError
from dsmt.event.envelope import EventId
from dsmt.event.kinds.slot import Slot
from dsmt.event.records import from_data
from dsmt.ports.store import Row

_SPEC: Final = re.compile(r"service/([^/]+)/spec")
Find = Callable[[str, Sequence[Any]], list[Row]]
"""Gives the rows of a store for which a condition on its columns holds."""


class Named:
    """What slots name."""

    def __init__(self, find: Find) -> None:
        self._find = find

    def holds(self, topic: str, row: int) -> bool:
        """Whether the event of a row, on this topic, is a spec that a slot names."""
        spec = _SPEC.fullmatch(topic)
        if spec is None:
            return False
        try:
            wanted = str(self._find("row = ?", (row,))[0].read().id)
        except UnusableEventError:
            return False  # of another version: nobody here can go back to it
        slots = f"service/{spec[1]}/slot"
        condition = "winner = 1 AND topic > ? AND topic < ? AND instr(body, ?)"
        return any(wanted in _names(one) for one in self._find(condition, (f"{slots}/", f"{slots}0", wanted.encode())))

    def specs(self, service: str) -> list[Row]:
        """The specs of a service that are no winners any more and that its slots name."""
        slots = f"service/{service}/slot"
        found = self._find("winner = 1 AND topic > ? AND topic < ?", (f"{slots}/", f"{slots}0"))
        ids = sorted({name for one in found for name in _names(one)})
        condition = "source = ? AND incarnation = ? AND sequence = ? AND winner = 0"
        specs = [row for identity in _ids(ids) for row in self._find(condition, identity)]
        return [row for row in specs if self.holds(row.topic, row.row)]


def _ids(names: Iterable[str]) -> Iterator[EventId]:
    """The ids among names that a store can hold."""
    for name in names:
        with suppress(InputError):
            identity = EventId.parse(name)
            if max(identity[1:]) < 1 << 63:
                yield identity


def _names(row: Row) -> tuple[str, ...]:
    try:
        return from_data(Slot, row.read().event.data).names
    except UnusableEventError:
        return ()
