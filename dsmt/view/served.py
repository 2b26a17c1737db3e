"""Served: where instances can be reached now, for whoever asks (rule A9).

Rule 1: an endpoint counts while it says that it is ready, its node is not dead and has not left, and its agent is not
    unheard on a node that lives: who died with its node, or hangs, cannot withdraw its word.
Rule 2: of one slot only the endpoint of the greatest generation counts: an old copy may be served until its successor is.
    It counts on a node that the slot's fact names, now or as `previous`, and in no generation that was never given: any
    node can say that it serves any slot. Where no fact is known there is nothing to hold it against.
Rule 3: who folds the topic alone cannot know of a verdict: an endpoint dies of itself after its time to live, and is
    renewed three times as often.
"""

from __future__ import annotations

from typing import NamedTuple

from dsmt.event.kinds.instance import Endpoint
from dsmt.view.entries import SlotEntry
from dsmt.view.held import Held
from dsmt.view.liveness import Fleet


class ServedEndpoint(NamedTuple):
    """A node, and where an instance on it is reached."""

    node: str
    endpoint: Endpoint


def served(fleet: Fleet, slot: SlotEntry) -> ServedEndpoint | None:
    """Where a slot's instance is reached now; None when it is not."""
    found = [
        ServedEndpoint(node, instance.endpoint.record)
        for node, instance in sorted(slot.instances.items())
        if instance.endpoint is not None and instance.endpoint.record.ready and _counts(fleet, node, instance.endpoint)
    ]
    given = [one for one in found if _is_given(slot, one)]
    return max(given, key=lambda one: one.endpoint.generation, default=None)


def _counts(fleet: Fleet, node: str, said: Held[Endpoint]) -> bool:
    return not fleet.is_lost(node) and not fleet.is_unheard(said.signed.event.source)


def _is_given(slot: SlotEntry, one: ServedEndpoint) -> bool:
    fact = slot.fact
    return fact is None or (one.node in fact.record.nodes and one.endpoint.generation <= fact.version)
