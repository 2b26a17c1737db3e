"""Hearing: which of a node's agents hang, by what the broker says of their sessions.

Rule 1: an agent hangs that is silent for `HUNG_AFTER_MS` in which this manager, or another agent of the node, was heard: of
    what neither is heard, the network is the cause.
Rule 2: it counts only at a second look, and while this manager is attached: what was read before it stood still itself, or
    was cut off, is no evidence.
"""

from __future__ import annotations

from typing import Final

from dsmt.ports.bus import Arrived, Bus, Delivery
from dsmt.view.following import ViewFollower
from dsmt.view.liveness import Fleet

HUNG_AFTER_MS: Final = 30_000


class Hearing:
    """What the broker hears of a node's own sources."""

    def __init__(self, node: str, bus: Bus) -> None:
        self._node = node
        self._bus = bus
        self._following = ViewFollower()
        self._before: frozenset[str] = frozenset()
        self.patterns = (f"broker/+/session/node/{node}", f"broker/+/session/agent/{node}/")
        """What is to be subscribed to for it."""

    def take(self, delivery: Delivery) -> None:
        """Take in a delivery; what is none of the broker's words is left out."""
        if not isinstance(delivery, Arrived) or delivery.signed.event.topic.startswith("broker/"):
            self._following.take(delivery)

    def hung(self) -> frozenset[str]:
        """The agents that hang, now and at the look before."""
        view, before, self._before = self._following.view, self._before, frozenset()
        entry = view.nodes.get(self._node)
        if entry is not None and self._bus.attached:
            fleet = Fleet(view, self._bus.now_ms(), self._bus.broker)
            agents = (source for source in entry.sources if source.startswith("agent/"))
            self._before = frozenset(agent for agent in agents if fleet.is_unheard(agent, HUNG_AFTER_MS))
        return before & self._before
