"""Slots: how each is called, and its topics (docs/reference/topics.md)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from dsmt.event.status import Layer

_MAX_INDEX_DIGITS: Final = 6


@lru_cache(maxsize=4096)
def index_of(level: str) -> int | None:
    """The index of a slot, as a topic or a directory has it; None for what is none."""
    if not level.isascii() or not level.isdigit() or len(level) > _MAX_INDEX_DIGITS or str(int(level)) != level:
        return None
    return int(level)


class SlotKey(NamedTuple):
    """One slot: `service/component/index`."""

    service: str
    component: str
    index: int  # type: ignore[assignment]  # the word that operators read; nobody looks up values in a key

    def __str__(self) -> str:
        return f"{self.service}/{self.component}/{self.index}"

    @property
    def topic(self) -> str:
        """The slot fact's topic."""
        return f"service/{self.service}/slot/{self.component}/{self.index}"

    @property
    def spec_topic(self) -> str:
        """The spec's topic."""
        return f"service/{self.service}/spec"

    @property
    def control_topic(self) -> str:
        """Where an operator's will for it stands."""
        return f"service/{self.service}/control/{self.component}/{self.index}"

    @property
    def command_topic(self) -> str:
        """Where its commands come."""
        return f"service/{self.service}/command/{self.component}/{self.index}"

    @property
    def tombstone_topic(self) -> str:
        """Where it is said that its service was removed."""
        return f"tombstone/service/{self.service}"

    @property
    def directory(self) -> str:
        """Its container's directory, below the node's."""
        return f"containers/{self}"

    def on(self, kind: str, node: str) -> str:
        """The topic of a `kind` (health, endpoint, progress) on a node."""
        return f"service/{self.service}/{kind}/{self.component}/{self.index}/{node}"

    def status_topic(self, node: str, layer: Layer) -> str:
        """The topic of a layer's status on a node."""
        return f"{self.on('status', node)}/{layer}"

    def heartbeat_topic(self, node: str) -> str:
        """The topic of its agent's heartbeat."""
        return f"node/{node}/agent/{self}/heartbeat"

    def agent(self, node: str) -> str:
        """The name its agent publishes under."""
        return f"agent/{node}/{self}"

    @classmethod
    def named(cls, name: str) -> SlotKey:
        """The slot that is called so by `str`."""
        service, component, index = name.split("/")
        return cls(service, component, int(index))

    @classmethod
    def of_topic(cls, topic: str) -> SlotKey | None:
        """The slot of a slot fact's topic; None for any other topic."""
        return cls._of(topic, "slot", 5)

    @classmethod
    def of_status(cls, topic: str) -> SlotKey | None:
        """The slot of a status's topic; None for any other topic."""
        return cls._of(topic, "status", 7)

    @classmethod
    def _of(cls, topic: str, kind: str, levels: int) -> SlotKey | None:
        parts = topic.split("/")
        if len(parts) != levels or parts[0] != "service" or parts[2] != kind:
            return None
        index = index_of(parts[4])
        return None if index is None else cls(parts[1], parts[3], index)
