"""Observers: whom a broker names to probe a node that nobody hears (rule F2, F4, F6).

Rule 1: a node is unheard while neither its manager nor its monitor has an open session anywhere, though one of them had one.
Rule 2: it is probed by the `OBSERVERS` nodes next in rendezvous order, among those whose monitor's session is open: an order
    that is alike everywhere and changes little.
Rule 3: words on the sessions of an unheard node are addressed to those who are to probe it, the next first, and behind them
    to those who were named before in this episode; the word that ends it is addressed to all of them. So nobody else needs
    to hear of it, and who is named needs to hear of nobody else.
Rule 4: of those who were named before the last `FORMER` are told; who was before them stops when it attaches anew.
Rule 5: names are given now and then, for all that has changed meanwhile: of many that vanish or come one after the other
    nobody is named who has gone with the others, and what is said grows with the nodes and not with their square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import sha256
from heapq import nsmallest
from typing import Final, Literal

from dsmt.view.liveness import OBSERVERS, ROLES

FORMER: Final = 16

Said = tuple[str, Literal["open", "silent", "closed"]]
"""A source, and what its session is now."""


def observers(target: str, nodes: Iterable[str]) -> tuple[str, ...]:
    """The nodes that probe `target`: the first of the others in rendezvous order."""
    others = {node for node in nodes if node != target}
    return tuple(nsmallest(OBSERVERS, others, key=lambda node: _place(target, node)))


@lru_cache(maxsize=1 << 16)
def _place(target: str, node: str) -> bytes:
    return sha256(f"{target}\0{node}".encode()).digest()


class Observers:
    """Which nodes are unheard, and who is named to probe them."""

    def __init__(self) -> None:
        self._open: dict[str, set[str]] = {}
        """By node, which of its roles are open; a node of which nothing was ever said is not there."""
        self._probing: dict[str, None] = {}
        """The nodes whose monitors are open."""
        self._known: set[str] = set()
        """Those of which that was so when names were given last."""
        self._touched: dict[str, None] = {}
        """The nodes of which something was said since."""
        self._named: dict[str, tuple[str, ...]] = {}
        """By unheard node, who probes it; and who did before."""
        self._former: dict[str, tuple[str, ...]] = {}

    def restore(self, source: str, to: Sequence[str]) -> None:
        """A word of an earlier life was addressed to these (rule 3): they are told of the end."""
        role, _, node = source.partition("/")
        if role in ROLES and to:
            names = [name.partition("/")[2] for name in to]
            self._former[node] = tuple(dict.fromkeys([*self._former.get(node, ()), *names]))[-FORMER:]

    def noted(self, words: Iterable[Said]) -> dict[str, tuple[str, ...]]:
        """Take in what sessions are now; by node that is heard again, to whom that is said (rule 3)."""
        ended = {}
        for source, state in words:
            role, _, node = source.partition("/")
            if role not in ROLES:
                continue
            self._touched[node] = None
            known = self._open.setdefault(node, set())
            (known.add if state == "open" else known.discard)(role)
            if role == "monitor" and state == "open":
                self._probing[node] = None
            elif role == "monitor":
                self._probing.pop(node, None)
            if known and (node in self._named or node in self._former):
                ended[node] = self._sources(node)
                self._named.pop(node, None)
                self._former.pop(node, None)
        return ended

    def due(self) -> list[str]:
        """Name who probes now, after all that was noted since the last time (rule 5); the nodes for which that changed."""
        touched, self._touched = self._touched, {}
        came = [node for node in touched if node in self._probing and node not in self._known]
        went = {node for node in touched if node in self._known and node not in self._probing}
        self._known.update(came)
        self._known -= went
        changed = []
        for node, named in self._named.items() if came or went else ():
            if went.intersection(named):
                self._name(node)
            elif came:
                self._name(node, (*named, *came))
            if self._named[node] != named:
                changed.append(node)
        for node in touched:
            if not self._open.get(node, ROLES) and node not in self._named:
                self._name(node)
                changed.append(node)
        return changed

    def _name(self, node: str, among: Iterable[str] | None = None) -> None:
        """Name who probes a node now."""
        before = self._named.get(node, ())
        now = observers(node, self._probing if among is None else among)
        former = [one for one in (*self._former.get(node, ()), *before) if one not in now]
        self._named[node], self._former[node] = now, tuple(dict.fromkeys(former))[-FORMER:]

    def _sources(self, node: str) -> tuple[str, ...]:
        return tuple(f"monitor/{one}" for one in (*self._named.get(node, ()), *self._former.get(node, ())))

    @property
    def unheard(self) -> list[str]:
        """The nodes that nobody hears."""
        return list(self._named)

    def addressed(self, source: str) -> tuple[str, ...]:
        """To whom a word on this source is addressed while its node is unheard (rule 3)."""
        role, _, node = source.partition("/")
        return self._sources(node) if role in ROLES and node in self._named else ()

    def keep(self, knows: Callable[[str], bool]) -> None:
        """Forget the unheard nodes of whose sources none is known any more."""
        for node in [one for one in self._named if not any(knows(f"{role}/{one}") for role in ROLES)]:
            for known in (self._open, self._named, self._former):
                known.pop(node, None)
