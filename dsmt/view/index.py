"""The index: winners of the view by what they speak about, each with its record.

Rule 1: `put` gets every change of a winner: the new one with its record, with no record when it cannot be read, or
    neither when the topic has no fact any more.
Rule 2: an entry that says nothing any more is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from dsmt.errors import UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.kinds.controller import ControllerState
from dsmt.event.kinds.node import NodeAttributes, NodeControl, NodeVerdict
from dsmt.event.kinds.realm import BrakeWord
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Slot
from dsmt.event.slots import SlotKey, index_of
from dsmt.spec import nodeset
from dsmt.spec.governing import governing
from dsmt.spec.plain import from_plain
from dsmt.view.allocation import NOTHING, AllocationLedger, Need, need_of
from dsmt.view.dirty import Dirty
from dsmt.view.entries import NO_SLOT, InstanceEntry, NodeEntry, ServiceEntry, SlotEntry
from dsmt.view.held import Held
from dsmt.view.sessions import SourceSessions

Put = Callable[[list[str], "Held[Any] | None", Dirty], None]


class Index:
    """Typed access to the winners. Entries are read by all and changed by the view alone."""

    def __init__(self) -> None:
        self.services: dict[str, ServiceEntry] = {}
        self.nodes: dict[str, NodeEntry] = {}
        self.sessions: SourceSessions[Held[SessionFact]] = SourceSessions()
        self.allocations = AllocationLedger()
        self.nodesets: dict[str, nodeset.Expression] = {}
        self.node_words: dict[str, int] = {}
        """By topic, when those words of operators were said (realm ms) that stand on nodes and node sets, or ended one."""
        self.brake: Held[BrakeWord] | None = None
        self.controllers: dict[str, Held[ControllerState]] = {}
        self.roaming: set[str] = set()
        """Services whose slots follow the set of nodes: `each_node`, or a node set other than `all_nodes`."""
        self.orphans: dict[str, set[SlotKey]] = {}
        """By node, the slots of which it reports something with no slot fact (rule A5)."""
        self.ended_orphans: dict[str, set[SlotKey]] = {}
        """By node, the slots with a short-lived fact that ended an orphan there."""
        self.standing: dict[str, Held[NodeVerdict]] = {}
        """By node, the verdict on it that no greater attachment has undone."""
        self.silenced: set[str] = set()
        """Nodes that are dead by silence, as such a verdict says."""
        self.gone: set[str] = set()
        """Nodes that have left, as such a verdict says."""
        self.excluded: set[str] = set()
        """Nodes that the operator has excluded."""
        self.equipped: set[str] = set()
        """Nodes that have said what they have."""
        self.not_open: set[str] = set()
        """Nodes whose manager's newest attachment is not open."""
        self.kept_out: set[str] = set()
        """Those of them that their broker keeps out, for two processes took turns under the name (A11)."""
        self.managers_by_broker: dict[str, set[str]] = {}
        """By broker, the nodes whose managers' newest attachment is there."""
        self.handlers: Final = self._handlers()
        """By type of event, what a change of a winner changes here."""

    def _handlers(self) -> Mapping[str, Put]:
        return {
            "dsmt.node.attributes": self._attributes,
            "dsmt.node.probe": self._probe,
            "dsmt.node.verdict": self._verdict,
            "dsmt.node.control": self._node_control,
            "dsmt.session": self._session,
            "dsmt.controller.state": self._controller,
            "dsmt.service.spec": self._spec,
            "dsmt.slot.control": self._control,
            "dsmt.slot": self._slot,
            "dsmt.status": self._status,
            "dsmt.health": self._health,
            "dsmt.endpoint": self._endpoint,
            "dsmt.nodeset": self._nodeset,
            "dsmt.config.brake": self._brake,
            "dsmt.tombstone": self._tombstone,
            "dsmt.trust.revoked": _silent,
        }

    def put(
        self, event_type: str, levels: list[str], signed: SignedEvent | None, record: msgspec.Struct | None, dirty: Dirty
    ) -> None:
        """Rule 1. Raises `UnusableEventError` when the content or the topic cannot be used; it is then put as None."""
        self.handlers[event_type](levels, None if signed is None or record is None else Held(signed, record), dirty)
        if event_type == "dsmt.slot":
            self._entry(levels).quarantined = signed is not None and record is None
            self._tidy(levels)

    # --- reading -------------------------------------------------------------------------------------------------

    def slot(self, key: SlotKey) -> SlotEntry:
        """What is known of one slot, which may be nothing."""
        service = self.services.get(key.service)
        return NO_SLOT if service is None else service.slots.get((key.component, key.index), NO_SLOT)

    # --- nodes ---------------------------------------------------------------------------------------------------

    def _node(self, name: str) -> NodeEntry:
        entry = self.nodes.get(name)
        if entry is None:
            entry = self.nodes[name] = NodeEntry(name)
        return entry

    def _left(self, entry: NodeEntry) -> None:
        if entry.empty:
            self.nodes.pop(entry.name, None)

    def _attributes(self, levels: list[str], held: Held[NodeAttributes] | None, dirty: Dirty) -> None:
        entry = self._node(levels[1])
        before, entry.attributes = entry.attributes, held
        (self.equipped.discard if held is None else self.equipped.add)(entry.name)
        if _capacity(before) != _capacity(held):
            self.allocations.equip(entry.name, None if held is None else held.record)
            dirty.nodes.add(entry.name)
        self._left(entry)

    def _probe(self, levels: list[str], held: Held[Any] | None, dirty: Dirty) -> None:
        entry = self._node(levels[1])
        if held is None:
            entry.probes.pop(levels[3], None)
        else:
            entry.probes[levels[3]] = held
            if held.record.result == "failed" or entry.name in self.not_open:
                dirty.nodes.add(entry.name)
        self._left(entry)

    def _verdict(self, levels: list[str], held: Held[NodeVerdict] | None, dirty: Dirty) -> None:
        entry = self._node(levels[1])
        entry.verdict = held
        self._judge(entry)
        dirty.nodes.add(entry.name)
        self._left(entry)

    def _node_control(self, levels: list[str], held: Held[NodeControl] | None, dirty: Dirty) -> None:
        entry = self._node(levels[1])
        entry.control = held
        self._note_word("/".join(levels), held, dirty)
        (self.excluded.add if entry.mode == "excluded" else self.excluded.discard)(entry.name)
        dirty.nodes.add(entry.name)
        self._left(entry)

    def _note_word(self, topic: str, held: Held[Any] | None, dirty: Dirty) -> None:
        dirty.realm = True  # slots of any node may wait for it
        if held is None:
            self.node_words.pop(topic, None)
        else:
            self.node_words[topic] = held.time_ms

    def _session(self, levels: list[str], held: Held[Any] | None, dirty: Dirty) -> None:
        source = "/".join(levels[3:])
        attachments = self.sessions.put(levels[1], source, held)
        role = levels[3]
        if role == "broker":
            dirty.realm = True
        if role not in ("node", "monitor", "agent") or len(levels) < 5:
            return
        entry = self._node(levels[4])
        if attachments.newest is None:
            entry.sources.pop(source, None)
        else:
            entry.sources[source] = attachments
        if entry.verdict is not None:
            self._judge(entry)
        if role == "node":
            self._seat(entry.name, attachments.newest)
        dirty.nodes.add(entry.name)
        self._left(entry)

    def _judge(self, entry: NodeEntry) -> None:
        verdict = entry.standing_verdict
        self.silenced.discard(entry.name)
        self.gone.discard(entry.name)
        if verdict is None:
            self.standing.pop(entry.name, None)
            return
        self.standing[entry.name] = verdict
        if verdict.record.state == "left":
            self.gone.add(entry.name)
        elif verdict.record.road == "silent":
            self.silenced.add(entry.name)

    def _seat(self, node: str, newest: tuple[str, Held[Any]] | None) -> None:
        for seated in self.managers_by_broker.values():
            seated.discard(node)
        self.not_open.discard(node)
        self.kept_out.discard(node)
        if newest is not None:
            self.managers_by_broker.setdefault(newest[0], set()).add(node)
            if newest[1].record.state != "open":
                self.not_open.add(node)
            if newest[1].record.kept_out:
                self.kept_out.add(node)

    # --- the realm -----------------------------------------------------------------------------------------------

    def _controller(self, levels: list[str], held: Held[Any] | None, _dirty: Dirty) -> None:
        if held is None:
            self.controllers.pop(levels[1], None)
        else:
            self.controllers[levels[1]] = held

    def _nodeset(self, levels: list[str], held: Held[Any] | None, dirty: Dirty) -> None:
        self.nodesets.pop(levels[1], None)
        self._note_word("/".join(levels), held, dirty)
        if held is not None:
            try:
                self.nodesets[levels[1]] = nodeset.parse(held.record.expression)
            except nodeset.NodeSetError as error:
                raise UnusableEventError("view.nodeset", f"node set {levels[1]}: {error.message}") from error

    def _tombstone(self, levels: list[str], held: Held[Any] | None, dirty: Dirty) -> None:
        """It ends others (the fold). What was said of a node or a set, and has ended, was known all the same."""
        if levels[1] in ("node", "nodeset"):
            self._note_word("/".join(levels), held, dirty)

    def _brake(self, _levels: list[str], held: Held[Any] | None, dirty: Dirty) -> None:
        self.brake, dirty.realm = held, True

    # --- services ------------------------------------------------------------------------------------------------

    def _service(self, name: str) -> ServiceEntry:
        entry = self.services.get(name)
        if entry is None:
            entry = self.services[name] = ServiceEntry(name)
        return entry

    def _spec(self, levels: list[str], held: Held[SpecFact] | None, dirty: Dirty) -> None:
        entry = self._service(levels[1])
        dirty.services.add(entry.name)
        parsed = None if held is None else from_plain(held.record.spec)
        told = {} if held is None or parsed is None else held.record.earlier
        earlier = {} if parsed is None else {one: governing(parsed, said) for one, said in told.items()}
        entry.spec, entry.parsed, entry.earlier, entry.refusing = held, parsed, earlier, {}
        for place, slot in entry.slots.items():
            entry.count_refusal(place, None, slot.fact)
        self.roaming.discard(entry.name)
        known = [*earlier.values(), *([] if parsed is None else [parsed.components])]
        if any(c.each_node or c.nodes != nodeset.ALL_NODES for components in known for c in components.values()):
            self.roaming.add(entry.name)
        for (component, index), slot in entry.slots.items():
            self._occupy(SlotKey(entry.name, component, index), slot, dirty)
        if held is None and not entry.slots:
            del self.services[entry.name]

    def _occupy(self, key: SlotKey, slot: SlotEntry, dirty: Dirty) -> None:
        """Count what a slot takes where it is; whoever waits is concerned by a node on which it takes something else now."""
        node = slot.wanted_on
        changed = self.allocations.put(key, node, NOTHING if node is None else self._need(key))
        if changed is not None:
            dirty.nodes.add(changed)

    def _need(self, key: SlotKey) -> Need:
        component = self.services[key.service].component(key.component)
        return NOTHING if component is None else need_of(component)

    def _entry(self, levels: list[str]) -> SlotEntry:
        slots = self._service(levels[1]).slots
        place = (levels[3], _index(levels[4]))
        entry = slots.get(place)
        if entry is None:
            entry = slots[place] = SlotEntry()
        return entry

    def _tidy(self, levels: list[str]) -> None:
        service = self.services[levels[1]]
        place = (levels[3], _index(levels[4]))
        if service.slots[place].empty:
            del service.slots[place]
            if not service.slots and service.spec is None:
                del self.services[service.name]

    def _control(self, levels: list[str], held: Held[Any] | None, dirty: Dirty) -> None:
        entry, key = self._entry(levels), _key(levels)
        entry.control = held
        self.services[key.service].count((key.component, key.index), entry)
        dirty.slots.add(key)
        self._tidy(levels)

    def _slot(self, levels: list[str], held: Held[Any] | None, dirty: Dirty) -> None:
        entry, key = self._entry(levels), _key(levels)
        service = self.services[key.service]
        before, basis = entry.fact, service.gone_back_to(key.component)
        service.count_refusal((key.component, key.index), before, held)
        entry.fact = held
        service.count((key.component, key.index), entry)
        if service.gone_back_to(key.component) != basis:
            self._govern(service, key.component, dirty)
        self._occupy(key, entry, dirty)
        dirty.slots.add(key)
        if any(one is not None and one.record.parked for one in (before, held)) and key.service in self.roaming:
            dirty.services.add(key.service)  # the node that it leaves counts as failed until it is elsewhere
        for node in _ended_on(before):
            _discard(self.ended_orphans, node, key)
            dirty.nodes.add(node)
        for node in _ended_on(held):
            self.ended_orphans.setdefault(node, set()).add(key)

    def _govern(self, service: ServiceEntry, component: str, dirty: Dirty) -> None:
        """Another revision governs the slots of a component: all of them are concerned."""
        dirty.services.add(service.name)
        for (name, index), slot in service.slots.items():
            if name == component:
                self._occupy(SlotKey(service.name, name, index), slot, dirty)

    def _status(self, levels: list[str], held: Held[Any] | None, dirty: Dirty) -> None:
        key, node = _key(levels), levels[5]
        before = self.slot(key).is_parked_on(node)
        self._instance(levels, levels[6], held)
        dirty.slots.add(key)
        entry = self.slot(key)
        if entry.is_parked_on(node) != before and key.service in self.roaming:
            dirty.services.add(key.service)  # the node set may name those that failed
        instance = entry.instances.get(node)
        if instance is not None and instance.orphan is not None:
            self.orphans.setdefault(node, set()).add(key)
        else:
            _discard(self.orphans, node, key)

    def _health(self, levels: list[str], held: Held[Any] | None, dirty: Dirty) -> None:
        self._instance(levels, "health", held)
        dirty.slots.add(_key(levels))

    def _endpoint(self, levels: list[str], held: Held[Any] | None, dirty: Dirty) -> None:
        key, node = _key(levels), levels[5]
        served = _served(self.slot(key), node)
        self._instance(levels, "endpoint", held)
        if _served(self.slot(key), node) != served:
            dirty.slots.add(key)

    def _instance(self, levels: list[str], word: str, held: Held[Any] | None) -> None:
        entry, node = self._entry(levels), levels[5]
        instance = entry.instances.setdefault(node, InstanceEntry())
        setattr(instance, word, held)
        if instance.empty:
            del entry.instances[node]
        self._tidy(levels)


def _silent(_levels: list[str], _held: Held[Any] | None, _dirty: Dirty) -> None:
    """Says nothing to decisions: a revocation is held to be brought back (R5)."""


def _index(level: str) -> int:
    index = index_of(level)
    if index is None:
        raise UnusableEventError("view.topic", f"{level!r} is not the index of a slot")
    return index


def _key(levels: list[str]) -> SlotKey:
    return SlotKey(levels[1], levels[3], _index(levels[4]))


def _served(slot: SlotEntry, node: str) -> tuple[bool, int]:
    """What decisions read of where a copy on a node is reached; that it is said again changes nothing."""
    instance = slot.instances.get(node)
    said = None if instance is None or instance.endpoint is None else instance.endpoint.record
    return (False, 0) if said is None else (said.ready, said.generation)


def _ended_on(fact: Held[Slot] | None) -> tuple[str, ...]:
    """The node on which a slot fact ends an orphan, if it does."""
    soft = fact is not None and fact.signed.event.ttl is not None
    return () if fact is None or not soft or fact.record.node is None else (fact.record.node,)


def _discard(places: dict[str, set[SlotKey]], node: str, key: SlotKey) -> None:
    if node in places:
        places[node].discard(key)
        if not places[node]:
            del places[node]


def _capacity(held: Held[NodeAttributes] | None) -> tuple[Any, ...]:
    """What placement reads of a node's attributes; the rest changes all the time and decides nothing."""
    if held is None:
        return ()
    told = held.record
    return told.cpus, told.memory_bytes, told.disk_bytes, told.labels, told.drivers, told.accepts, told.key
