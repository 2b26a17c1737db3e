"""A fact as a reader keeps it: the signed event beside its record, decoded once."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

import msgspec

from dsmt.event.envelope import EventId, SignedEvent

Record = TypeVar("Record", bound=msgspec.Struct)


class Held(NamedTuple, Generic[Record]):
    """A winner of its topic and what it says."""

    signed: SignedEvent
    record: Record

    @property
    def id(self) -> EventId:
        """The event's name for ever."""
        return self.signed.event.id

    @property
    def version(self) -> int:
        """The version of a shared fact, for a slot its generation; 0 for an owned fact."""
        return self.signed.event.version or 0

    @property
    def time_ms(self) -> int:
        """When it was said, in realm ms."""
        return self.signed.event.time_ms
