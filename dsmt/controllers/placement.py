"""Placement: which node takes an instance, and why each other one does not.

Rule 1: a node fits when every clause of `CLAUSES` holds; they are tried in this order, and the first that fails is
    the answer to "why not there".
Rule 2: among nodes that fit: fewest own instances (with `spread`), then fewest instances, then most unreserved memory;
    ties by hash: the first round a ring of node names from the slot's place on it. Integers only (rule H4).
Rule 3: `limit` in a node set takes nodes that already have an instance of the component first, then rendezvous order,
    so that a set keeps its members while they stay in it (A10).
Rule 4: what this version cannot evaluate (`requires`, a node's `accepts`) never holds: it is not ignored.
Rule 5: named sets that lead back to themselves select the nodes that have an instance of the component: so nothing leaves
    its node for them, and nothing goes to another one (A14).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from typing import Final, NamedTuple

from dsmt.event.envelope import EventId
from dsmt.event.phrases import size_in_words
from dsmt.event.reason import Reason, reason
from dsmt.event.slots import SlotKey
from dsmt.spec import nodeset
from dsmt.spec.records import ComponentSpec
from dsmt.view import Fleet
from dsmt.view.allocation import MOST_ON_A_NODE, RING, AllocationLedger, NodeAllocation, need_of, place_on_ring

CLAUSES: Final = (
    "data", "nodes", "left", "dead", "suspect", "unheard", "kept out", "mode", "accepts", "requires", "driver", "user",
    "fence", "limits", "avoid", "apart", "number", "ports", "cpu", "disk", "memory", "spread",
)  # fmt: skip
"""In the order in which they are tried. `avoid`: the instance is to leave that node, or is parked there;
`data`: another node has its data (`pinning`)."""

_KEY_LIMITS: Final = ("memory", "cpu", "disk")


class Misfit(NamedTuple):
    """The first clause that a node fails, and one sentence about it."""

    clause: str
    says: str


class Chooser:
    """Chooses nodes for one component, at one time. What it chose is put into `allocations` before the next choice."""

    def __init__(
        self, fleet: Fleet, service: str, component: ComponentSpec, *, allocations: AllocationLedger | None = None
    ) -> None:
        self.fleet = fleet
        self.allocations = fleet.view.allocations if allocations is None else allocations
        self.service = service
        self.component = component
        self.need = need_of(component)
        self._level = 0
        self._full = False
        self._taken, self._freed = -1, 0
        self._chosen: dict[tuple[SlotKey, frozenset[str]], str | None] = {}
        self._unfit: dict[str, Misfit | None] | None = None
        """What was found out since anything was put somewhere, or taken away."""

    @property
    def own(self) -> dict[str, int]:
        """How many instances of the component each node has."""
        return self.allocations.own(self.service, self.component.name)

    # --- the node set --------------------------------------------------------------------------------------------

    @cached_property
    def members(self) -> frozenset[str] | None:
        """The nodes that the component's node set selects now; None when it selects all."""
        if self.component.nodes == nodeset.ALL_NODES:
            return None
        holders = frozenset(self.own)

        def rank(key: str, node: str) -> int:
            return nodeset.rendezvous_rank(key, node) + (0 if node in holders else RING)

        try:
            selected = nodeset.evaluate(
                _parsed(self.component.nodes),
                universe=self.fleet.members,
                failed=self.failed,
                named=self.fleet.view.nodesets,
                rank=rank,
            )
        except nodeset.NodeSetError:  # rule 5
            return holders
        return frozenset(selected)

    @property
    def sets(self) -> tuple[EventId, ...]:
        """The events that say which named sets there are in its expression, and in theirs."""
        said = map(self.fleet.view.winner, self._set_topics())
        return tuple(one.id for one in said if one is not None)

    @property
    def sets_ms(self) -> int:
        """When the last word that stands on one of them was said (realm ms); 0 for none."""
        return max((self.fleet.view.node_words.get(topic, 0) for topic in self._set_topics()), default=0)

    def _set_topics(self) -> list[str]:
        known, found = self.fleet.view.nodesets, set[str]()
        names = {*nodeset.mentioned(_parsed(self.component.nodes))}
        while names:
            found |= names
            names = {one for name in names if name in known for one in nodeset.mentioned(known[name])} - found
        return [f"nodeset/{name}" for name in sorted(found)]

    @cached_property
    def failed(self) -> frozenset[str]:
        """`failed` of the node set algebra: nodes that are dead, or where this component is parked."""
        dead = [node for node, verdict in self.fleet.view.standing.items() if verdict.record.state == "dead"]
        return frozenset([*dead, *self.parked])

    @cached_property
    def parked(self) -> frozenset[str]:
        """The nodes where an instance of this component is parked, or was when it was stopped to leave (A10)."""
        service = self.fleet.view.services.get(self.service)
        found = set()
        for (component, _), slot in service.slots.items() if service is not None else ():
            if component == self.component.name:
                found |= set() if slot.record is None or not slot.record.parked else {*slot.record.nodes}
                found |= {node for node in slot.instances if slot.is_parked_on(node)}
        return frozenset(found)

    # --- clauses -------------------------------------------------------------------------------------------------

    def misfit(self, node: str, avoid: Iterable[str] = ()) -> Misfit | None:
        """The first clause that a node fails; None when it fits."""
        return next(self.faults(node, avoid), None)

    def fitting(self) -> Iterator[str]:
        """The nodes that fit, of all that it may choose."""
        return (node for node in self.candidates() if self.misfit(node) is None)

    def faults(self, node: str, avoid: Iterable[str] = ()) -> Iterator[Misfit]:
        """All that keeps an instance off a node, in the order of `CLAUSES`; a clause may be failed in several ways."""
        taken = self.allocations.node(node)
        yield from self._admitting(node, taken)
        if node in avoid:
            yield Misfit("avoid", f"it is to leave {node}, or is parked there")
        yield from self._room(node, taken)

    def misfit_to_adopt(self, node: str) -> Misfit | None:
        """The first clause that a node fails for what it runs already, and so has room for."""
        return next(self._admitting(node, self.allocations.node(node), is_there=True), None)

    def _admits(self, node: str) -> bool:
        """Whether a node takes what is new, if there is room."""
        return not any(self._admitting(node, self.allocations.node(node)))

    def _admitting(self, node: str, taken: NodeAllocation, *, is_there: bool = False) -> Iterator[Misfit]:
        yield from self._in_set(node, taken)
        state = self.fleet.state(node)
        if state != "alive":
            yield Misfit(state, f"{node} is {state}")
        elif not self.fleet.hears(node):
            said = f"the manager of {node} is at a broker that is lost: nothing that is said here starts there"
            yield Misfit("unheard", said)
        elif not is_there and self.fleet.is_away(f"node/{node}"):
            yield Misfit("unheard", f"the manager of {node} does not come back: nothing starts there")
        if node in self.fleet.view.kept_out:
            yield Misfit("kept out", f"{node} is kept out: two processes took turns under its name")
        entry = self.fleet.view.nodes.get(node)
        if entry is not None and entry.mode != "active":
            yield Misfit("mode", f"{node} is {entry.mode}")
        yield from self._able(node, taken)

    def misfit_to_stay(self, node: str) -> Misfit | None:
        """What lastingly forbids a node to keep an instance that it has; None when it may."""
        return next(self._lasting(node, self.allocations.node(node)), None)

    def _lasting(self, node: str, taken: NodeAllocation) -> Iterator[Misfit]:
        yield from self._in_set(node, taken)
        yield from self._able(node, taken)

    def _in_set(self, node: str, taken: NodeAllocation) -> Iterator[Misfit]:
        if (self.members is not None and node not in self.members) or taken.attributes is None:
            yield Misfit("nodes", f"{node} is not in {self.component.nodes}")

    def _able(self, node: str, taken: NodeAllocation) -> Iterator[Misfit]:
        component, attributes = self.component, taken.attributes
        if attributes is None:
            return
        if attributes.accepts:
            yield Misfit("accepts", f"{node} accepts only {attributes.accepts}, which this version cannot evaluate")
        if component.requires:
            yield Misfit("requires", f"`requires: {component.requires[0]}` cannot be evaluated by this version")
        driver = attributes.drivers.get(component.driver)
        if driver is None:
            yield Misfit("driver", f"{node} has no driver {component.driver}")
            return
        if component.user is not None and not {"any", component.user} & {*driver.users}:
            able = " or ".join(driver.users) or "its own user"
            yield Misfit("user", f"{node} cannot run programs as {component.user}, only as {able}: it does not run as root")
        if component.on_partition == "at_most_one" and component.fence == "kernel" and driver.fence != "kernel":
            yield Misfit("fence", f"driver {component.driver} on {node} has no kernel fence")
        if component.limits.enforce == "required":
            for name in _KEY_LIMITS:
                wanted = getattr(component.limits, name if name == "cpu" else f"{name}_bytes")
                if wanted is not None and name not in driver.enforces:
                    yield Misfit("limits", f"driver {component.driver} on {node} cannot enforce limits.{name}")

    def _room(self, node: str, taken: NodeAllocation) -> Iterator[Misfit]:
        for other in self.component.apart:
            service, _, component = other.rpartition("/")
            if node in self.allocations.own(service or self.service, component):
                yield Misfit("apart", f"{other} is on {node}")
        if len(taken.slots) >= MOST_ON_A_NODE:
            yield Misfit("number", f"{node} has {len(taken.slots)} instances, and {MOST_ON_A_NODE} are the most")
        for port in self.need.ports:
            if port in taken.ports:
                yield Misfit("ports", f"port {port[1]} is taken on {node}")
        free = taken.free()
        if self.need.cpu > free.cpu:
            yield Misfit("cpu", f"needs {self.need.cpu / 1000:g} cores, {free.cpu / 1000:g} are free on {node}")
        if self.need.disk > free.disk:
            yield Misfit("disk", _short("disk", self.need.disk, free.disk, node))
        if self.need.memory > free.memory:
            yield Misfit("memory", _short("memory", self.need.memory, free.memory, node))
        if self.component.spread.strict and self._group_count(node) > self._least_group:
            yield Misfit("spread", f"{node} already has more than its share, and `spread` is strict")

    # --- spread --------------------------------------------------------------------------------------------------

    def _group(self, node: str) -> str:
        attributes = self.allocations.node(node).attributes
        return "" if attributes is None else attributes.labels.get(self.component.spread.by.removeprefix("label:"), "")

    def _group_count(self, node: str) -> int:
        """How many own instances there are where `spread` looks: on the node, or on all with its label's value."""
        by = self.component.spread.by
        if by == "none":
            return 0
        if by == "node":
            return self.own.get(node, 0)
        group = self._group(node)
        return sum(count for other, count in self.own.items() if self._group(other) == group)

    @property
    def _least_group(self) -> int:
        return min((self._group_count(node) for node in self.candidates() if self._admits(node)), default=0)

    # --- choosing ------------------------------------------------------------------------------------------------

    def candidates(self) -> tuple[str, ...]:
        """The nodes of the component's set, sorted."""
        return self.fleet.members if self.members is None else tuple(sorted(self.members))

    def choose(self, key: SlotKey, avoid: Iterable[str] = ()) -> str | None:
        """The node for a slot, or None when no node fits; looked for once while nothing is put anywhere."""
        asked = key, frozenset(avoid)
        self._begin_anew()
        if asked not in self._chosen:
            self._chosen[asked] = self._choose(*asked)
        return self._chosen[asked]

    def _begin_anew(self) -> None:
        """Forget what was found out before anything was put somewhere, or taken away."""
        if self._taken != self.allocations.taken:
            self._taken, self._chosen, self._unfit = self.allocations.taken, {}, None
        if self._freed != self.allocations.freed:
            self._freed, self._level, self._full = self.allocations.freed, 0, False

    def _choose(self, key: SlotKey, avoid: frozenset[str]) -> str | None:
        if self._full:
            return None
        by = self.component.spread.by
        if self.members is not None or by.startswith("label:") or self.component.spread.strict:
            node = self._best_of(self.candidates(), key, avoid)
        elif by == "none":
            fitting = (n for n in self._in_order(place_on_ring(str(key))) if self.misfit(n, avoid) is None)
            node = next(fitting, None)
        else:
            node = self._walk(key, avoid)
        self._full = node is None and not avoid
        return node

    def _in_order(self, start: int) -> Iterator[str]:
        """The ledger's order without nodes that are dead or left: those are the emptiest, and come first."""
        over = self.fleet.view.standing
        return (node for node in self.allocations.in_order(start) if node not in over)

    def _best_of(self, nodes: Iterable[str], key: SlotKey, avoid: frozenset[str]) -> str | None:
        fitting = [node for node in nodes if self.misfit(node, avoid) is None]
        return min(fitting, key=lambda node: self._score(node, place_on_ring(str(key))), default=None)

    def _score(self, node: str, start: int) -> tuple[int, ...]:
        count, memory, ring, _ = self.allocations.node(node).order()
        by_node = 0 if self.component.spread.by == "none" else self.own.get(node, 0)
        return self._group_count(node), by_node, count, memory, (ring - start) % RING

    def _walk(self, key: SlotKey, avoid: frozenset[str]) -> str | None:
        """The same as `_best_of` all nodes, looking at few: levels of own instances only rise, while none is taken away."""
        start = place_on_ring(str(key))
        least = 0 if avoid else self._level
        for level in sorted(level for level in {0, *self.own.values()} if level >= least):
            for node in self._in_order(start):
                if self.own.get(node, 0) == level and self.misfit(node, avoid) is None:
                    return node
            if not avoid:
                self._level = level + 1
        return None

    # --- saying why ----------------------------------------------------------------------------------------------

    def why_not(self, avoid: Iterable[str] = ()) -> dict[str, Misfit | None]:
        """For each node of the realm the first clause it fails, or None where an instance would fit now."""
        return {node: self.misfit(node, avoid) for node in self.fleet.members}

    def _why_not(self, avoid: frozenset[str]) -> dict[str, Misfit | None]:
        """The same, found once for all slots that have no place while nothing is put anywhere."""
        if avoid:
            return self.why_not(avoid)
        self._begin_anew()
        if self._unfit is None:
            self._unfit = self.why_not()
        return self._unfit

    def reason(self, key: SlotKey, avoid: Iterable[str] = ()) -> Reason:
        """Why there is no place for a slot, by the nodes that came nearest to fitting."""
        faults = {node: fault for node, fault in self._why_not(frozenset(avoid)).items() if fault is not None}
        if not self.candidates():
            return reason("place.empty_set", set=self.component.nodes)
        worst = max((fault.clause for fault in faults.values()), key=CLAUSES.index, default="nodes")
        at = sorted(node for node, fault in faults.items() if fault.clause == worst)
        match worst:
            case "memory" | "cpu" | "disk":
                return self._no_room(worst, at)
            case "ports":
                return self._port_taken(at)
            case "limits":
                return reason("place.unenforceable", limit="limits", nodes=", ".join(at[:5]), why=faults[at[0]].says)
            case _:
                counts = {clause: sum(f.clause == clause for f in faults.values()) for clause in CLAUSES}
                clause = max(CLAUSES, key=lambda c: (counts[c], -CLAUSES.index(c)))
                return reason(
                    "place.no_match", n=0, total=len(self.fleet.members), clause=clause, k=counts[clause], target=key
                )

    def _port_taken(self, nodes: list[str]) -> Reason:
        """By the fixed port that is taken on most of these nodes."""
        ports = [port for port in self.component.ports if port.port is not None]
        taken_on = [sum((port.protocol, port.port) in self.allocations.node(node).ports for node in nodes) for port in ports]
        most = max(taken_on)
        port = ports[taken_on.index(most)]
        return reason("place.port_taken", port=port.port, n=most, name=port.name)

    def _no_room(self, what: str, nodes: list[str]) -> Reason:
        free = {node: getattr(self.allocations.node(node).free(), what) for node in nodes}
        best = max(nodes, key=lambda node: (free[node], node))
        need = getattr(self.need, what)

        def shown(amount: int) -> str:
            return f"{amount / 1000:g} cores" if what == "cpu" else f"{size_in_words(amount)} {what}"

        return reason("place.no_room", need=shown(need), best=shown(free[best]), node=best)


def _short(what: str, need: int, free: int, node: str) -> str:
    return f"needs {size_in_words(need)} {what}, {size_in_words(free)} is free on {node}"


@lru_cache(maxsize=1024)
def _parsed(expression: str) -> nodeset.Expression:
    return nodeset.parse(expression)
