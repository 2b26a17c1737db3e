"""Intents: what a decision wants to be said, before anybody says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from dsmt.controllers.brake import LOOSE, Brake
from dsmt.controllers.look import EVERYTHING, Look
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft


class Intent(msgspec.Struct, frozen=True):
    """A shared fact to be published.

    `replaces` is the winner it follows, `version` its version if not one more than that, `cause` the events it follows
    from, the foremost first, `to` the sources that are to have it, `because` one sentence for an operator. What is said
    again as it was has no `record`, and `data` of its own.
    """

    topic: str
    record: msgspec.Struct | None
    replaces: SignedEvent | None
    cause: tuple[EventId, ...]
    because: str
    to: tuple[str, ...] = ()
    version: int | None = None
    epoch: int | None = None
    """That in which its thing is now, unless it is given."""
    subject: str = ""
    ttl_ms: int | None = None
    """None: the topic's own."""

    @property
    def data(self) -> dict[str, Any]:
        """The record as the event's data: what two intents are compared by (rule A13)."""
        return {} if self.record is None else to_data(self.record)

    @property
    def next_version(self) -> int:
        """The version that the fact will have."""
        if self.version is not None:
            return self.version
        return 1 + (0 if self.replaces is None else self.replaces.event.version or 0)


class Decided(msgspec.Struct, frozen=True):
    """What one decision says: what to publish, and what to look at again and when (realm ms).

    `wakes` holds, by service (and `""` for the nodes), when something could change with no new fact. `look_at_all`
    are services of which any event needs a whole look, `no_place` those that wait for nodes to change. `brake` is how
    it stood: when it keeps back other nodes all must be looked at. `look` is what was looked at; but for `left`, the first
    service that was not, and all after it.
    """

    intents: tuple[Intent, ...]
    wakes: Mapping[str, int] = msgspec.field(default_factory=dict)
    look_at_all: frozenset[str] = frozenset()
    no_place: frozenset[str] = frozenset()
    brake: Brake = LOOSE
    look: Look = EVERYTHING
    left: str | None = None

    def is_whole(self, service: str) -> bool:
        """Whether all of a service was looked at."""
        return self.look.places(service) is None and (self.left is None or service < self.left)

    @property
    def wake_ms(self) -> int | None:
        """The next realm time at which something could change without a new fact."""
        return min(self.wakes.values(), default=None)


def draft_of(intent: Intent, *, version: int | None = None, epoch: int | None = None) -> Draft:
    """What says an intent; without a version it follows what it replaces."""
    return Draft(
        intent.topic,
        intent.data,
        subject=intent.subject,
        cause=intent.cause,
        to=intent.to,
        replaces=intent.replaces,
        version=version,
        epoch=epoch,
        ttl_ms=intent.ttl_ms,
    )
