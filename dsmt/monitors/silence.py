"""Silence: which nodes have fallen silent, and whether this one is to probe them (SEMANTICS F1, F2, F4, F6).

Rule 1: of a source's attachments the greatest number counts, whichever broker wrote of it.
Rule 2: a node is silent when neither its manager's nor its monitor's newest session is open, and one of them is silent.
Rule 3: it is probed by the `OBSERVERS` nodes next in rendezvous order, among those that have attributes and are not silent.
Rule 4: an episode of silence ends when a session opens; each has a number of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from heapq import nsmallest
from typing import Final

from dsmt.event.envelope import EventId
from dsmt.event.records import NodeAttributes, Session

OBSERVERS: Final = 3
ROLES: Final = ("node", "monitor")
"""The sources whose sessions speak for a node: its manager and its monitor."""


def observers(target: str, nodes: Iterable[str], count: int = OBSERVERS) -> tuple[str, ...]:
    """The nodes that probe `target`: the first of the others in rendezvous order, alike on every node."""
    others = {node for node in nodes if node != target}
    return tuple(nsmallest(count, others, key=lambda node: _place(target, node)))


@lru_cache(maxsize=1 << 16)
def _place(target: str, node: str) -> bytes:
    return sha256(f"{target}\0{node}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Target:
    """A node to probe: where its monitor answers, by which key, and the event that told of the silence."""

    node: str
    address: str | None
    key_id: bytes
    cause: EventId | None
    episode: int


@dataclass(slots=True)
class _Heard:
    attachment: int
    state: str


@dataclass(slots=True)
class _Node:
    address: str | None = None
    key_id: bytes = b""
    known: bool = False
    episode: int = 0
    silent: bool = False
    cause: EventId | None = None


class Silence:
    """What one node's prober knows of all nodes."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._heard: dict[tuple[str, str], _Heard] = {}
        self._nodes: dict[str, _Node] = {}
        self._targets: list[Target] | None = None

    def session(self, source: str, session: Session, cause: EventId) -> None:
        """Take in a broker's word on a session; of sources other than a node's or monitor's nothing is kept."""
        role, _, name = source.partition("/")
        if role not in ROLES or not name:
            return
        held = self._heard.get((name, role))
        if held is not None and held.attachment > session.attachment:
            return
        self._heard[name, role] = _Heard(session.attachment, session.state)
        node = self._nodes.setdefault(name, _Node())
        silent = self._is_silent(name)
        if silent and not node.silent:
            node.episode += 1
            node.cause = cause
        if silent != node.silent:
            node.silent, self._targets = silent, None

    def attributes(self, name: str, attributes: NodeAttributes, key_id: bytes) -> None:
        """Take in what a node's monitor says of itself, and the key it was signed with."""
        node = self._nodes.setdefault(name, _Node())
        port = attributes.udp_port
        address = None if port is None else f"{attributes.address}:{port}"
        if (node.address, node.key_id, node.known) != (address, key_id, True):
            node.address, node.key_id, node.known = address, key_id, True
            self._targets = None

    def targets(self) -> list[Target]:
        """The silent nodes that this one is to probe now, in order of their names."""
        if self._targets is None:
            self._targets = self._chosen()
        return self._targets

    def _chosen(self) -> list[Target]:
        candidates = [name for name, node in self._nodes.items() if node.known and not node.silent]
        found = []
        for name, node in sorted(self._nodes.items()):
            if node.silent and name != self._own and self._own in observers(name, candidates):
                found.append(Target(name, node.address, node.key_id, node.cause, node.episode))
        return found

    def _is_silent(self, name: str) -> bool:
        states = [held.state for role in ROLES if (held := self._heard.get((name, role))) is not None]
        return "silent" in states and "open" not in states
