"""Silence: which nodes nobody hears any more, and whether this one is to probe them (rule F1, F2, F4, F6).

Rule 1: which word on a source counts is told by the view's own function (`dsmt.view.sessions`), as controllers tell it.
Rule 2: a node is unheard when neither its manager's nor its monitor's newest session is open. It is probed from then on;
    when both closed themselves or their broker was lost, only `REATTACH_GRACE_MS` later: mostly nobody needs it then.
Rule 3: it is probed by the `OBSERVERS` nodes next in rendezvous order, among those that have attributes and are heard.
Rule 4: an episode of silence ends when a session opens; each has a number of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from heapq import nsmallest
from typing import Final, NamedTuple

from dsmt.event.envelope import EventId
from dsmt.event.kinds.broker import Session
from dsmt.event.kinds.node import NodeAttributes
from dsmt.view.liveness import REATTACH_GRACE_MS
from dsmt.view.sessions import Sessions, Word, is_open, word

OBSERVERS: Final = 3
ROLES: Final = ("node", "monitor")
"""The sources whose sessions speak for a node here: its manager and its monitor. Agents are too many for every node."""


def observers(target: str, nodes: Iterable[str], count: int = OBSERVERS) -> tuple[str, ...]:
    """The nodes that probe `target`: the first of the others in rendezvous order, alike on every node."""
    others = {node for node in nodes if node != target}
    return tuple(nsmallest(count, others, key=lambda node: _place(target, node)))


@lru_cache(maxsize=1 << 16)
def _place(target: str, node: str) -> bytes:
    return sha256(f"{target}\0{node}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Target:
    """A node to probe from `since_ms` (realm ms) on: where its monitor answers, by which key, and what told of it."""

    node: str
    address: str | None
    key_id: bytes
    cause: EventId | None
    episode: int
    since_ms: int


class _Told(NamedTuple):
    """A broker's word, and the event that it came in."""

    record: Session
    id: EventId


@dataclass(slots=True)
class _Node:
    address: str | None = None
    key_id: bytes = b""
    known: bool = False
    episode: int = 0
    since_ms: int | None = None
    """From when it is to be probed; None while it is heard."""
    cause: EventId | None = None


class Silence:
    """What one node's prober knows of all nodes."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._sessions: Sessions[_Told] = Sessions()
        self._lost: dict[str, int] = {}
        self._nodes: dict[str, _Node] = {}
        self._silent: set[str] = set()
        """The nodes that have a time from when they are to be probed: mostly none, of however many."""
        self._targets: list[Target] | None = None

    def session(self, broker: str, source: str, session: Session, cause: EventId) -> None:
        """Take in a broker's word on a session: of a node's or monitor's, or on its link to another broker."""
        role, _, name = source.partition("/")
        if not name or role not in (*ROLES, "broker"):
            return
        self._sessions.put(broker, source, _Told(session, cause))
        if role in ROLES:
            self._nodes.setdefault(name, _Node())
            self._judge(name, cause)

    def attributes(self, name: str, attributes: NodeAttributes, key_id: bytes) -> None:
        """Take in what a node's monitor says of itself, and the key it was signed with."""
        node = self._nodes.setdefault(name, _Node())
        port = attributes.udp_port
        address = None if port is None else f"{attributes.address}:{port}"
        if (node.address, node.key_id, node.known) != (address, key_id, True):
            node.address, node.key_id, node.known = address, key_id, True
            self._targets = None

    def targets(self, attached: str) -> list[Target]:
        """The nodes that this one is to probe, in order of their names; it is attached to the broker `attached`."""
        lost = self._sessions.lost(attached)
        if lost != self._lost:
            self._lost = lost
            for name in self._nodes:
                self._judge(name)
        if self._targets is None:
            self._targets = self._chosen()
        return self._targets

    def _chosen(self) -> list[Target]:
        if not self._silent:
            return []
        candidates = [name for name, node in self._nodes.items() if node.known and node.since_ms is None]
        found = []
        for name in sorted(self._silent):
            node = self._nodes[name]
            since = node.since_ms
            if since is not None and name != self._own and self._own in observers(name, candidates):
                found.append(Target(name, node.address, node.key_id, node.cause, node.episode, since))
        return found

    def _judge(self, name: str, cause: EventId | None = None) -> None:
        """See whether a node is heard (rule 2)."""
        node, words = self._nodes[name], self._words(name)
        since = _unheard(words)
        if since is not None and node.since_ms is None:
            node.episode += 1
            node.cause = cause or words[0].held.id
        if since != node.since_ms:
            node.since_ms, self._targets = since, None
            (self._silent.discard if since is None else self._silent.add)(name)

    def _words(self, name: str) -> list[Word[_Told]]:
        known = (self._sessions.of.get(f"{role}/{name}") for role in ROLES)
        found = (word(attachments, self._lost) for attachments in known if attachments is not None)
        return [one for one in found if one is not None]


def _unheard(words: Sequence[Word[_Told]]) -> int | None:
    """From when a node with these words is to be probed (realm ms; 0 is at once); None while it is heard."""
    if not words or is_open(words):
        return None
    if all(one.by_peer or one.state == "unknown" for one in words):
        return max(one.since_ms for one in words) + REATTACH_GRACE_MS
    return 0
