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
from functools import lru_cache
from typing import Final, NamedTuple

from dsmt.event.kinds.node import NodeAttributes
from dsmt.event.slots import SlotKey
from dsmt.spec.records import ComponentSpec

RING: Final = 2**64
"""The hashes of names run from 0 to here."""


class Need(NamedTuple):
    """What one instance takes: bytes, thousandths of a core, bytes, fixed ports as (protocol, number)."""

    memory: int = 0
    cpu: int = 0
    disk: int = 0
    ports: tuple[tuple[str, int], ...] = ()


NOTHING: Final = Need()
MOST_ON_A_NODE: Final = 2_000
"""Instances that one node takes: each has an agent with a certificate, two while it is replaced, and a broker takes 4096."""
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


class NodeAllocation:
    """One node's capacity and what is taken of it."""

    __slots__ = ("attributes", "cpu", "disk", "memory", "node", "ports", "slots")

    def __init__(self, node: str) -> None:
        self.node = node
        self.attributes: NodeAttributes | None = None
        self.slots: dict[SlotKey, Need] = {}
        self.memory = self.cpu = self.disk = 0
        self.ports: dict[tuple[str, int], int] = {}

    def copy(self) -> NodeAllocation:
        """The same, to be changed apart."""
        other = NodeAllocation(self.node)
        other.attributes, other.slots, other.ports = self.attributes, self.slots.copy(), self.ports.copy()
        other.memory, other.cpu, other.disk = self.memory, self.cpu, self.disk
        return other

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
    """What is taken on every node. On top of another ledger it is a trial, which leaves that one as it is."""

    def __init__(self, base: AllocationLedger | None = None) -> None:
        self._base = base
        self._nodes: dict[str, NodeAllocation] = {}
        self._where: dict[SlotKey, str | None] = {}
        self._own: dict[tuple[str, str], dict[str, int]] = {}
        self.unequipped: set[str] = set()
        """The nodes that slots are on, and that have not said what they have."""
        self.taken = 0
        """How often something was put somewhere, or taken away."""
        self.freed = 0
        """How often something was taken away."""
        self._order: list[Order] = [] if base is None else base._order  # noqa: SLF001 - of its own class
        self._is_shared = base is not None

    def trial(self) -> AllocationLedger:
        """A ledger where slots may be put to see what fits; this one must not change while it is in use."""
        return AllocationLedger(self)

    def node(self, name: str) -> NodeAllocation:
        """What is taken on a node; nothing of one that is not known."""
        found = self._nodes.get(name)
        if found is not None:
            return found
        return NodeAllocation(name) if self._base is None else self._base.node(name)

    def where(self, key: SlotKey) -> str | None:
        """The node that a slot is on; None for one that is on none."""
        if self._base is None or key in self._where:
            return self._where.get(key)
        return self._base.where(key)

    def own(self, service: str, component: str) -> dict[str, int]:
        """How many slots of a component each node has; nodes with none are left out."""
        own = self._own.get((service, component))
        if own is not None:
            return own
        return {} if self._base is None else self._base.own(service, component)

    def equip(self, name: str, attributes: NodeAttributes | None) -> None:
        """A node says what it has; None when it is not known any more."""
        node = self._writable(name)
        self._unlist(node)
        node.attributes = attributes
        (self.unequipped.add if attributes is None else self.unequipped.discard)(name)
        self._list(node)
        self._forget(node)

    def put(self, key: SlotKey, name: str | None, need: Need) -> str | None:
        """A slot is on a node now, or on none. Returns the node where it was, if it took something else there."""
        before = self.where(key)
        took = self._leave(key, before) if before is not None else NOTHING
        if name is not None:
            node = self._writable(name)
            self._unlist(node)
            node.take(key, need)
            self.taken += 1
            self._list(node)
            self._where[key] = name
            own = self._writable_own(key)
            own[name] = own.get(name, 0) + 1
        return None if (before, took) == (name, need) else before

    def release(self, key: SlotKey) -> None:
        """A slot is on no node any more."""
        self.put(key, None, NOTHING)

    def _leave(self, key: SlotKey, name: str) -> Need:
        node = self._writable(name)
        self._unlist(node)
        need = node.leave(key)
        self.taken += 1
        self.freed += 1
        self._list(node)
        own = self._writable_own(key)
        own[name] -= 1
        if not own[name]:
            del own[name]
        if self._base is not None:
            self._where[key] = None
            return need
        del self._where[key]
        if not own:
            del self._own[key[:2]]
        self._forget(node)
        return need

    def _forget(self, node: NodeAllocation) -> None:
        """Keep nothing of a node of which nothing is known and where nothing is."""
        if self._base is None and node.attributes is None and not node.slots:
            del self._nodes[node.node]
            self.unequipped.discard(node.node)

    # --- on top of another ---------------------------------------------------------------------------------------

    def _writable(self, name: str) -> NodeAllocation:
        node = self._nodes.get(name)
        if node is not None:
            return node
        if self._base is None:
            self.unequipped.add(name)
        node = self._nodes[name] = NodeAllocation(name) if self._base is None else self._base.node(name).copy()
        return node

    def _writable_own(self, key: SlotKey) -> dict[str, int]:
        own = self._own.get(key[:2])
        if own is None:
            own = self._own[key[:2]] = {} if self._base is None else self._base.own(*key[:2]).copy()
        return own

    # --- the order -----------------------------------------------------------------------------------------------

    def _list(self, node: NodeAllocation) -> None:
        if node.attributes is not None:
            insort(self._order, node.order())

    def _unlist(self, node: NodeAllocation) -> None:
        if self._is_shared:
            self._order, self._is_shared = self._order.copy(), False
        if node.attributes is not None:
            order = node.order()
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
