"""Hearing: which of a node's agents hang, by what the broker says of their sessions.

Rule 1: an agent hangs that is silent for `HUNG_AFTER_MS` in which this manager, or another agent of the node, was heard: of
    what neither is heard, the network is the cause.
Rule 2: this manager has seen the silence itself for as long, look after look, by its own running time and while it was
    attached: what was read before it stood still, or was cut off, is no evidence, and no step of realm time is a silence.
"""

from __future__ import annotations

from typing import Final

from dsmt.event.slots import SlotKey
from dsmt.ports.bus import Arrived, Bus, Delivery
from dsmt.view.following import ViewFollower
from dsmt.view.liveness import Fleet

HUNG_AFTER_MS: Final = 30_000
HEAR_EACH_S: Final = 5.0
LATE_S: Final = 1.0
"""A look that comes later than that was held up, and begins anew."""


class Hearing:
    """What the broker hears of a node's own sources."""

    def __init__(self, node: str, bus: Bus) -> None:
        self._node = node
        self._bus = bus
        self._following = ViewFollower()
        self._since: dict[str, float] = {}
        """Since when each agent was seen silent at every look, in seconds of boot time."""
        self._looked = 0.0
        self.patterns = (f"broker/+/session/node/{node}", f"broker/+/session/agent/{node}/")
        """What is to be subscribed to for it."""

    def take(self, delivery: Delivery) -> None:
        """Take in a delivery; what is none of the broker's words is left out."""
        if not isinstance(delivery, Arrived) or delivery.signed.event.topic.startswith("broker/"):
            self._following.take(delivery)

    @property
    def slots(self) -> tuple[SlotKey, ...]:
        """The slots of the agents that the broker takes to be attached, or did last."""
        sources = {} if (entry := self._following.view.nodes.get(self._node)) is None else entry.sources
        held = [(source, one.newest) for source, one in sources.items()]
        known = [source for source, newest in held if newest is not None and newest[1].record.state != "closed"]
        return tuple(sorted(slot for source in known if (slot := SlotKey.of_agent(source)) is not None))

    def hung(self, now: float) -> frozenset[str]:
        """The agents that hang; to be asked each `HEAR_EACH_S`. `now` is boot-time seconds."""
        late = now - self._looked > HEAR_EACH_S + LATE_S
        view, before, self._looked, self._since = self._following.view, {} if late else self._since, now, {}
        entry = view.nodes.get(self._node)
        if entry is None or not self._bus.attached:
            return frozenset()
        fleet = Fleet(view, self._bus.now_ms(), self._bus.broker)
        silent = [source for source in entry.sources if source.startswith("agent/") and fleet.hangs(source, 0)]
        self._since = {agent: before.get(agent, now) for agent in silent}
        long = (agent for agent, since in self._since.items() if now - since >= HUNG_AFTER_MS / 1000)
        return frozenset(agent for agent in long if fleet.hangs(agent, HUNG_AFTER_MS))
