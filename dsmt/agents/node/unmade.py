"""Unmade: why a node has no container of what is to run there, in its container manager's own words."""

from __future__ import annotations

from dsmt.agents.node.purging import AGAIN_S
from dsmt.agents.node.status_publisher import StatusPublisher
from dsmt.agents.rules import endings
from dsmt.agents.rules.container import NodeConfig
from dsmt.agents.shared.surroundings import NodeSurroundings
from dsmt.errors import FailedError
from dsmt.event.envelope import SignedEvent
from dsmt.event.slots import SlotKey
from dsmt.event.status import Layer, State


class Unmade:
    """Says of slots that they have no container yet, until there is one or none is to be."""

    def __init__(self, config: NodeConfig, deps: NodeSurroundings) -> None:
        self._config, self._deps = config, deps
        self._voices: dict[SlotKey, StatusPublisher] = {}

    def tell(self, slot: SlotKey, fact: SignedEvent, error: FailedError) -> None:
        """Say what keeps the container of a slot from being made, whose fact has it here."""
        bus, node, known = self._deps.bus, self._config.node, self._voices.get(slot)
        voice = known or StatusPublisher(bus, slot, self._config, Layer.CONTAINER)
        self._voices[slot] = voice
        why = endings.of_error(error, "the container manager", target=str(slot), node=node)
        next_ms = bus.now_ms() + int(AGAIN_S * 1000)
        voice.tell(State.FAILED, why=why, cause=(fact.id,), generation=fact.event.version or 0, next_try_ms=next_ms)

    def over(self, slot: SlotKey) -> None:
        """There is one, or none is to be."""
        self._voices.pop(slot, None)
