"""Hearing: which of a node's agents hang, by what the broker says of their sessions, and by what is seen of their processes.

Rule 1: an agent hangs that is silent for `HUNG_AFTER_MS` in which this manager, or another agent of the node, was heard: of
    what neither is heard, the network is the cause.
Rule 2: this manager has seen the silence itself for as long, look after look, by its own running time and while it was
    attached: what was read before it stood still, or was cut off, is no evidence, and no step of realm time is a silence.
Rule 3: one that has not begun its work for as long hangs too, whether the manager is attached or not: no broker knows of it.
Rule 4: who was said to hang is ended, and its successor has as long.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

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

    def hung(self, now: float, mute: Iterable[str] = ()) -> frozenset[str]:
        """Who hangs; to be asked each `HEAR_EACH_S`. `now` is boot-time seconds; `mute` have not begun their work."""
        late = now - self._looked > HEAR_EACH_S + LATE_S
        fleet = Fleet(self._following.view, self._bus.now_ms(), self._bus.broker)
        entry = fleet.view.nodes.get(self._node) if self._bus.attached else None
        sources = () if entry is None else entry.sources
        silent = {source for source in sources if source.startswith("agent/") and fleet.hangs(source, 0)}
        before, self._looked, mute = {} if late else self._since, now, frozenset(mute)
        since = {agent: before.get(agent, now) for agent in sorted(silent | mute)}
        long = {agent for agent, at in since.items() if now - at >= HUNG_AFTER_MS / 1000}
        found = frozenset(agent for agent in long if agent in mute or fleet.hangs(agent, HUNG_AFTER_MS))
        self._since = {agent: at for agent, at in since.items() if agent not in found}
        return found
