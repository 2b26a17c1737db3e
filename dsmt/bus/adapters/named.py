"""Named: specs that are no winners any more, and that slots name as what they implement or would go back to (rule A12, B6).

Rule 1: what the fact of a slot names stays, whatever its age and however full the store is, and so do the blobs that it
    names; the fact of a slot that is gone names what it comes back with when it is wanted again.
Rule 2: it is asked of a spec when that is about to go, and costs a look at the slots of its service.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from dsmt.errors import UnusableEventError
from dsmt.event.codec import decode
from dsmt.event.envelope import EventId
from dsmt.event.kinds.slot import Slot
from dsmt.event.records import from_data

_SPEC: Final = re.compile(r"service/([^/]+)/spec")
_ID: Final = re.compile(rb"operator/[a-z0-9._/-]+#[0-9]+-[0-9]+")
"""Who may write a spec."""

Do = Callable[..., list[Any]]


class Named:
    """What slots name. `do` runs a statement of the store."""

    def __init__(self, do: Do) -> None:
        self._do = do

    def holds(self, topic: str, row: int) -> bool:
        """Whether the event of a row, on this topic, is a spec that a slot names."""
        spec = _SPEC.fullmatch(topic)
        if spec is None:
            return False
        ((source, incarnation, sequence),) = self._do(
            "SELECT source, incarnation, sequence FROM events WHERE row = ?", (row,)
        )
        wanted = str(EventId(source, incarnation, sequence))
        slots = f"service/{spec[1]}/slot"
        found = self._do(
            "SELECT raw FROM events WHERE winner = 1 AND topic > ? AND topic < ? AND instr(raw, ?)",
            (f"{slots}/", f"{slots}0", wanted.encode()),
        )
        return any(wanted in _names(bytes(raw)) for (raw,) in found)

    def specs(self) -> list[bytes]:
        """The specs that are no winners any more and that slots name."""
        slots = self._do("SELECT raw FROM events WHERE winner = 1 AND topic >= 'service/' AND topic < 'service0'")
        ids = {found for (raw,) in slots for found in _ID.findall(raw)}
        kept = []
        for source, incarnation, sequence in (EventId.parse(one.decode()) for one in sorted(ids)):
            for row, topic, raw in self._do(
                "SELECT row, topic, raw FROM events WHERE source = ? AND incarnation = ? AND sequence = ? AND winner = 0",
                (source, incarnation, sequence),
            ):
                kept += [bytes(raw)] if self.holds(topic, row) else []
        return kept


def _names(raw: bytes) -> tuple[str, ...]:
    try:
        return from_data(Slot, decode(raw)[0].event.data).names
    except UnusableEventError:
        return ()
