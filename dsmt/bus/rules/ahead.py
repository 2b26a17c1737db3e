"""Ahead: numbers of an event that nobody can have counted yet, at the time at which it was said (rule A11).

Rule 1: attachments are numbered by realm time in ms; restarts, moves and times that have passed are below it, too. What is
    further than a minute is refused, whoever brings it: who goes on from it could say nothing more, for ever.
Rule 2: no source has said more than frames can count. Who read such an event would ask for those before it, in a frame that
    its broker refuses, and so be sent away, each time.
Rule 3: it is held against the fact's own time, which was judged: each broker finds the same, and whenever it is brought.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from dsmt.errors import UnusableEventError
from dsmt.event.envelope import Event
from dsmt.event.kinds.numbers import GREATEST_COUNT

MOST_MS: Final = 60_000
"""Clients claim numbers that are 10 s ahead, and the clocks of brokers differ."""
_COUNTED: Final[Mapping[str, tuple[str, ...]]] = {
    "dsmt.session": ("attachment", "since_ms"),
    "dsmt.node.verdict": ("attachments", "since_ms"),
    "dsmt.slot": ("moves", "moved_at_ms", "restart", "move_number"),
    "dsmt.slot.control": ("restart", "move_number"),
}
"""By type, what is counted in it, or has passed."""


def is_beyond(event: Event) -> bool:
    """Whether an event bears a number that no frame can (rule 2)."""
    return max(event.sequence, event.chain.number) > GREATEST_COUNT


def check_ahead(event: Event) -> None:
    """Check the numbers of an event that has its record. Raises `UnusableEventError`."""
    if is_beyond(event):
        said = f"{event.source} says that this is its event {event.sequence}, and {event.chain.number} on {event.topic}"
        raise UnusableEventError("event.ahead", said, next=f"look at who has the key of {event.source}")
    if event.type not in _COUNTED:
        return
    for name, number in _numbers(event):
        if number > event.time_ms + MOST_MS:
            said = f"{name} {number} of {event.topic} is of a time that has not come: nobody can have counted so far"
            raise UnusableEventError("event.ahead", said, next=f"look at who has the key of {event.source}")


def _numbers(event: Event) -> Iterator[tuple[str, int]]:
    for name in _COUNTED[event.type]:
        told: Any = event.data.get(name)
        for number in told.values() if isinstance(told, Mapping) else (told,):
            if number is not None:
                yield name, number
