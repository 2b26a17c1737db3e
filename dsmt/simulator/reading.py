"""Reading: what was signed is read once for all processes of a simulation, in whatever form they get it.

Rule 1: what is remembered is what the real code made of the same bytes. An event is known by all that it is read from, its
    payload and its leaf; what it comes in, alone or in one of many runs, by all of its own bytes.
Rule 2: only reading is done once: what is read says nothing about who signed it, and each process judges that for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Final

from dsmt.event.burst import Member, Sealed
from dsmt.event.codec import Part, decode_part, read
from dsmt.event.envelope import Event, SignedEvent
from dsmt.event.layout import events_of

MOST: Final = 1 << 16
"""Events that are remembered."""


class EventReader:
    """Reads for all. `decode` is for `TrustStore(decode=...)`, `read` for what a store holds."""

    def __init__(self) -> None:
        self._events: dict[tuple[bytes, bytes], Event] = {}
        self.decode: Callable[[bytes], Part] = lru_cache(MOST)(partial(decode_part, events_of=self._events_of))
        self._read_member = lru_cache(MOST)(partial(read, events_of=self._events_of))

    def read(self, sealed: Sealed) -> SignedEvent:
        """`codec.read`."""
        return self._read_member(sealed) if isinstance(sealed, Member) else self.decode(sealed).events[0]

    def _events_of(self, bodies: Sequence[bytes], leaves: Sequence[bytes]) -> Sequence[Event]:
        keys = list(zip(bodies, leaves, strict=True))
        known = [self._events[key] for key in keys if key in self._events]
        if len(known) == len(keys):
            return known
        if len(self._events) > MOST:
            self._events.clear()
        found = events_of(bodies, leaves)  # all of it: what is read of a burst is read by what stands before it there
        self._events.update(zip(keys, found, strict=True))
        return found
