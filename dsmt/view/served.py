"""Served: where instances can be reached now, for whoever asks (rule A9).

Rule 1: an endpoint counts while it says that it is ready and its node is not dead and has not left: an agent that died
    with its node cannot withdraw its word.
Rule 2: of one slot only the endpoint of the greatest generation counts: an old copy may be served until its successor is.
Rule 3: who folds the topic alone cannot know of a verdict: an endpoint dies of itself after its time to live, and is
    renewed three times as often.
"""

from __future__ import annotations

from typing import NamedTuple

from dsmt.event.records import Endpoint
from dsmt.view.entries import SlotEntry
from dsmt.view.liveness import Fleet


class Served(NamedTuple):
    """A node, and where an instance on it is reached."""

    node: str
    endpoint: Endpoint


def served(fleet: Fleet, slot: SlotEntry) -> Served | None:
    """Where a slot's instance is reached now; None when it is not."""
    found = [
        Served(node, instance.endpoint.record)
        for node, instance in sorted(slot.instances.items())
        if instance.endpoint is not None and instance.endpoint.record.ready and fleet.state(node) not in ("dead", "left")
    ]
    return max(found, key=lambda one: one.endpoint.generation, default=None)
