"""The allocation ledger: what each node has, what slots take of it, and the order in which placement tries nodes.

Kept up to date fact by fact, so that no decision counts the whole realm.

Rule 1: a slot takes the `reserve` and fixed ports of its component on the node that its fact names, until it is gone.
Rule 2: amounts are integers: bytes, and thousandths of a core.
Rule 3: nodes are ordered by fewest instances, then most unreserved memory, then a hash of the name.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Final, NamedTuple

from dsmt.event.kinds.node import NodeAttributes
from dsmt.spec.records import ComponentSpec

RING: Final = 2**64
"""The hashes of names run from 0 to here."""


class SlotKey(NamedTuple):
    """One slot: `service/component/index`."""

    service: str
    component: str
    index: int  # type: ignore[assignment]  # the word that operators read; nobody looks up values in a key

    def __str__(self) -> str:
        return f"{self.service}/{self.component}/{self.index}"


class Need(NamedTuple):
    """What one instance takes: bytes, thousandths of a core, bytes, fixed ports as (protocol, number)."""

    memory: int = 0
    cpu: int = 0
    disk: int = 0
    ports: tuple[tuple[str, int], ...] = ()


NOTHING: Final = Need()
Order = tuple[int, int, int, str]


def need_of(component: ComponentSpec) -> Need:
    """What one instance of a component takes."""
    reserve = component.reserve
    ports = tuple(sorted((port.protocol, port.port) for port in component.ports if port.port is not None))
    return Need(reserve.memory_bytes, round(reserve.cpu * 1000), reserve.disk_bytes, ports)


@lru_cache(maxsize=65536)
def place_on_ring(name: str) -> int:
    """A name's place on the ring: 64 bits of BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


class Room:
    """One node's capacity and what is taken of it."""

    __slots__ = ("attributes", "cpu", "disk", "memory", "node", "ports", "slots")

    def __init__(self, node: str) -> None:
        self.node = node
        self.attributes: NodeAttributes | None = None
        self.slots: dict[SlotKey, Need] = {}
        self.memory = self.cpu = self.disk = 0
        self.ports: dict[tuple[str, int], int] = {}

    def free(self) -> Need:
        """What is left; all zero while the node's attributes are not known."""
        known = self.attributes
        if known is None:
            return NOTHING
        return Need(known.memory_bytes - self.memory, known.cpus * 1000 - self.cpu, known.disk_bytes - self.disk)

    def take(self, key: SlotKey, need: Need) -> None:
        """A slot is here."""
        self.slots[key] = need
        self.memory, self.cpu, self.disk = self.memory + need.memory, self.cpu + need.cpu, self.disk + need.disk
        for port in need.ports:
            self.ports[port] = self.ports.get(port, 0) + 1

    def leave(self, key: SlotKey) -> Need:
        """A slot is here no more; what it took."""
        need = self.slots.pop(key)
        self.memory, self.cpu, self.disk = self.memory - need.memory, self.cpu - need.cpu, self.disk - need.disk
        for port in need.ports:
            self.ports[port] -= 1
            if not self.ports[port]:
                del self.ports[port]
        return need

    def order(self) -> Order:
        """The node's place in the order of rule 3."""
        known = self.attributes
        memory = 0 if known is None else known.memory_bytes - self.memory
        return len(self.slots), -memory, place_on_ring(self.node), self.node


class AllocationLedger:
    """All nodes' rooms."""

    def __init__(self) -> None:
        self._rooms: dict[str, Room] = {}
        self._where: dict[SlotKey, str] = {}
        self._own: dict[tuple[str, str], dict[str, int]] = {}
        self._order: list[Order] = []
        self._trial: list[tuple[SlotKey, str | None, Need]] | None = None

    def room(self, node: str) -> Room:
        """A node's room; an empty one for a node that nothing is known of."""
        return self._rooms.get(node) or Room(node)

    def own(self, service: str, component: str) -> dict[str, int]:
        """How many slots of a component each node has; nodes with none are left out."""
        return self._own.get((service, component), {})

    def equip(self, node: str, attributes: NodeAttributes | None) -> None:
        """A node says what it has; None when it is not known any more."""
        room = self._rooms.setdefault(node, Room(node))
        self._unlist(room)
        room.attributes = attributes
        self._list(room)
        if attributes is None and not room.slots:
            del self._rooms[node]

    def put(self, key: SlotKey, node: str | None, need: Need) -> str | None:
        """A slot is on a node now, or on none. Returns the node where it was, if it took something else there."""
        before = self._where.get(key)
        took = self._leave(key, before) if before is not None else NOTHING
        if node is not None:
            room = self._rooms.setdefault(node, Room(node))
            self._unlist(room)
            room.take(key, need)
            self._list(room)
            self._where[key] = node
            own = self._own.setdefault(key[:2], {})
            own[node] = own.get(node, 0) + 1
        if self._trial is not None:
            self._trial.append((key, before, took))
        return None if (before, took) == (node, need) else before

    def release(self, key: SlotKey) -> None:
        """A slot is on no node any more."""
        self.put(key, None, NOTHING)

    def _leave(self, key: SlotKey, node: str) -> Need:
        room = self._rooms[node]
        self._unlist(room)
        need = room.leave(key)
        self._list(room)
        del self._where[key]
        own = self._own[key[:2]]
        own[node] -= 1
        if not own[node]:
            del own[node]
            if not own:
                del self._own[key[:2]]
        if room.attributes is None and not room.slots:
            del self._rooms[node]
        return need

    def _list(self, room: Room) -> None:
        if room.attributes is not None:
            insort(self._order, room.order())

    def _unlist(self, room: Room) -> None:
        if room.attributes is not None:
            order = room.order()
            at = bisect_left(self._order, order)
            if at < len(self._order) and self._order[at] == order:
                del self._order[at]

    def in_order(self, start: int) -> Iterator[str]:
        """Nodes in the order of rule 3; among equals, round the ring from `start`."""
        order, at = self._order, 0
        while at < len(order):
            count, memory = order[at][:2]
            end = bisect_left(order, (count, memory, RING, ""), at)
            begin = bisect_left(order, (count, memory, start, ""), at, end)
            for i in range(begin, end):
                yield order[i][3]
            for i in range(at, begin):
                yield order[i][3]
            at = end

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Within the block slots may be put to see what fits; afterwards everything is as before."""
        self._trial = []
        try:
            yield
        finally:
            undo, self._trial = self._trial, None
            for key, node, need in reversed(undo):
                self.put(key, node, need)
