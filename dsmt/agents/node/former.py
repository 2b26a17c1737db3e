"""Former: what this node has said to be here, and this manager has not said itself (rule A5).

Rule 1: it is what stands on the bus by the node's own key: the word of an earlier manager, whose last one was lost or whose
    container is no more, or of another machine that had the node's name. Neither clocks nor facts take part: the fact may be
    hidden by a tombstone, or addressed to others.
Rule 2: it is followed, and not read once: a broker that was away may bring such a word long after the attachment.
Rule 3: what this manager has ended itself is left out: until its last word has come back, the one before stands.
"""

from __future__ import annotations

from typing import Final

from dsmt.event.envelope import EventId
from dsmt.event.slots import SlotKey
from dsmt.event.status import Layer
from dsmt.ports.bus import Arrived, Bus, Complete, Delivery
from dsmt.view.following import DeliveryEffect, ViewFollower

OWN: Final = (Layer.CONTAINER, Layer.AGENT)
"""The layers of which a node's manager tells; what nothing but an agent's key tells holds up nothing (A5)."""


class FormerStatuses:
    """What stands on the bus of the slots of one node, by its own word."""

    def __init__(self, node: str, bus: Bus) -> None:
        self._node = node
        self._bus = bus
        self._following = ViewFollower()
        self._ended: set[SlotKey] = set()
        """Of which this manager has said to this store that nothing is here any more."""
        self.patterns = tuple(f"service/+/status/+/+/{node}/{layer}" for layer in OWN)
        """What is to be subscribed to for it."""

    def ended(self, slot: SlotKey) -> None:
        """Note that this manager has said that nothing of a slot is here any more."""
        self._ended.add(slot)

    def take(self, delivery: Delivery) -> dict[SlotKey, EventId]:
        """Take in a delivery; by slot the words that tell of it now: all of them at `Complete`, what comes later at once."""
        slot = None
        if isinstance(delivery, Arrived):
            slot = SlotKey.of_status(delivery.signed.event.topic)
            if slot is None:
                return {}
        step = self._following.take(delivery)
        if step in (DeliveryEffect.ANEW, DeliveryEffect.BEHIND):
            self._ended.clear()
        self._following.view.expire(self._bus.now_ms())
        if isinstance(delivery, Complete):
            return self._said(self._all())
        return self._said([slot]) if slot is not None and step is DeliveryEffect.FOLDED and self._following.complete else {}

    def _all(self) -> list[SlotKey]:
        services = self._following.view.services.items()
        return sorted(SlotKey(name, *place) for name, entry in services for place in entry.slots)

    def _said(self, slots: list[SlotKey]) -> dict[SlotKey, EventId]:
        found = {}
        for slot in slots:
            instance = self._following.view.slot(slot).instances.get(self._node)
            if instance is not None and instance.left and slot not in self._ended:
                found[slot] = instance.statuses[0].id
        return found
