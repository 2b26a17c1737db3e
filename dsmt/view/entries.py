"""Entries: what the view knows of one instance, slot, service and node, as typed facts."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import merge
from typing import Final

import msgspec

from dsmt.event.kinds.broker import SessionFact
from dsmt.event.kinds.instance import Endpoint, Health, HeldHere, Status
from dsmt.event.kinds.node import NodeAttributes, NodeControl, NodeVerdict, Probe
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Hold, Slot, SlotControl
from dsmt.event.order import MAX_STEP
from dsmt.event.reason import Reason
from dsmt.event.status import State
from dsmt.spec.records import ComponentSpec, ServiceSpec
from dsmt.view.held import Held
from dsmt.view.sessions import Attachments


@dataclass(slots=True)
class InstanceEntry:
    """One slot on one node: the word of each layer, and what its agent says of its health and where it is reached."""

    container: Held[Status] | None = None
    agent: Held[Status] | None = None
    application: Held[Status] | None = None
    health: Held[Health] | None = None
    endpoint: Held[Endpoint] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing at all is known of it."""
        return self.statuses == () and self.health is None and self.endpoint is None

    @property
    def statuses(self) -> tuple[Held[Status], ...]:
        """The layers' words that there are, from below."""
        return tuple(held for held in (self.container, self.agent, self.application) if held is not None)

    @property
    def left(self) -> bool:
        """Whether anything of it is left there: the container manager's word decides, if it has spoken."""
        if self.container is not None:
            return self.container.record.state is not State.GONE
        return any(held.record.state is not State.GONE for held in self.statuses)

    @property
    def by_its_node(self) -> bool:
        """Whether the node's own key tells of it, and not an agent's alone."""
        return self.container is not None or self.agent is not None

    @property
    def generation(self) -> int:
        """The greatest generation that a layer reports; 0 when none does."""
        return max((held.record.generation for held in self.statuses), default=0)

    @property
    def orphan(self) -> Held[Status] | None:
        """The status that says that this runs with no slot fact (rule A5), if one does."""
        return next((held for held in self.statuses if held.record.orphan and self.left), None)


def answers(fact: Held[Slot], said: Status) -> bool:
    """Whether a status answers to a slot fact: its generation is the fact's, or is later and runs the same revision.

    What follows a later fact that is not known yet proves nothing of another revision (rule A4).
    """
    return said.generation == fact.version or (said.generation > fact.version and said.revision == fact.record.revision)


@dataclass(slots=True)
class SlotEntry:
    """One slot: its fact, the operator's will for it, and its instances by node."""

    fact: Held[Slot] | None = None
    control: Held[SlotControl] | None = None
    instances: dict[str, InstanceEntry] = field(default_factory=dict)
    quarantined: bool = False
    """Its slot fact cannot be read: nobody may act as if there was none."""

    @property
    def empty(self) -> bool:
        """Whether nothing at all is known of it."""
        return self.fact is None and self.control is None and not self.instances and not self.quarantined

    @property
    def record(self) -> Slot | None:
        """What its fact says."""
        return None if self.fact is None else self.fact.record

    @property
    def wanted_on(self) -> str | None:
        """The node on which its fact wants it, if it wants it anywhere."""
        return None if self.fact is None else self.fact.record.wanted_on

    @property
    def instance(self) -> InstanceEntry | None:
        """Its instance on the node that its fact names."""
        return None if self.fact is None else self.instances.get(self.fact.record.node or "")

    @property
    def status(self) -> Held[Status] | None:
        """What was said last of the application there."""
        there = self.instance
        return None if there is None else there.application

    @property
    def current_status(self) -> Held[Status] | None:
        """The same, if it answers to what its fact orders now."""
        fact, said = self.fact, self.status
        return said if fact is not None and said is not None and answers(fact, said.record) else None

    @property
    def health(self) -> Held[Health] | None:
        """How well that is which its fact orders now, as its agent says it."""
        there = self.instance
        health = None if there is None else there.health
        answers_now = self.fact is not None and health is not None and health.record.generation >= self.fact.version
        return health if answers_now else None

    @property
    def effective_control(self) -> SlotControl:
        """The operator's will for it, with the hold that there is on it."""
        if self.control is None:
            return SlotControl(hold=self.hold)
        will = self.control.record
        return will if will.hold == self.hold else msgspec.structs.replace(will, hold=self.hold)

    @property
    def hold(self) -> Hold | None:
        """The hold on it: its control's or, where its fact follows a later one that is not known, what that fact says.

        Absence is never an order (A5, R5): a control that was lost, or has not come yet, starts nothing, and stops nothing.
        """
        if self.control is not None and not self.follows_later_control:
            return self.control.record.hold
        fact = self.fact
        if fact is None or not fact.record.held or fact.record.reason is None:
            return None
        return Hold(by="an operator", at_ms=fact.time_ms, reason=fact.record.reason.message)

    @property
    def held_here(self) -> HeldHere | None:
        """Who has stopped it by hand on the node that its fact names, as its agent says."""
        said = self.status
        return None if said is None or said.record.state is State.GONE else said.record.held_here

    @property
    def move_asked(self) -> str | None:
        """Where an operator wants it moved that is not done yet; empty for any other node, None for no such move.

        The number of one that was done may be the greater: on the other side of a partition, by a word that lost (E2).
        """
        done = 0 if self.record is None else self.record.move_number
        will = None if self.control is None or self.follows_later_control else self.control.record
        return will.move if will is not None and will.move_number != done else None

    @property
    def follows_later_control(self) -> bool:
        """Whether its fact follows a control that is not known here, and that the one which is known does not overrule."""
        told, known = self.record, self.control
        if told is None or known is None:
            return told is not None and told.control_version > 0
        if told.control_version != known.version:
            return told.control_version > known.version
        return 0 < told.control_ms < known.time_ms

    @property
    def leaves(self) -> str | None:
        """The node that such a move to any other one is to leave; None where there is none. Elsewhere it is done."""
        if self.move_asked != "" or self.control is None:
            return None
        return self.control.record.leave or (None if self.record is None else self.record.node)

    @property
    def followed_control(self) -> tuple[int, int]:
        """The version of the control that its next fact follows, and when that was said (realm ms); 0 for none.

        One that was lost is followed still: what it ended is not begun again by the one before.
        """
        if self.fact is not None and self.follows_later_control:
            return self.fact.record.control_version, self.fact.record.control_ms
        return (0, 0) if self.control is None else (self.control.version, self.control.time_ms)

    def application(self, node: str | None) -> Held[Status] | None:
        """What was said last of the application on a node."""
        instance = None if node is None else self.instances.get(node)
        return None if instance is None else instance.application

    def is_parked_on(self, node: str) -> bool:
        """Whether the application on a node is parked."""
        said = self.application(node)
        return said is not None and said.record.parked and said.record.state is not State.GONE

    @property
    def holders(self) -> list[str]:
        """The nodes that have anything left of it, sorted.

        Where its fact does not name the node, the node's own key tells so, for its manager ends it (A5): of what an agent's
        key alone tells there nobody could ever say that it is gone.
        """
        named = () if self.record is None else self.record.nodes
        return sorted(node for node, one in self.instances.items() if one.left and (one.by_its_node or node in named))

    @property
    def generation(self) -> int:
        """The greatest generation that is known of it, in its fact or in a status.

        A status that claims more than any fact could have had by now is a lie: whoever followed it could say nothing (A3).
        """
        version = 0 if self.fact is None else self.fact.version
        reported = (instance.generation for instance in self.instances.values())
        return max([version, *(one for one in reported if one < version + MAX_STEP)])


NO_SLOT: Final = SlotEntry()
"""A slot of which nothing is known; nobody changes it."""


@dataclass(slots=True)
class ServiceEntry:
    """One service: its spec, as signed and as parsed, and its slots by (component, index)."""

    name: str
    spec: Held[SpecFact] | None = None
    parsed: ServiceSpec | None = None
    slots: dict[tuple[str, int], SlotEntry] = field(default_factory=dict)
    earlier: dict[str, dict[str, ComponentSpec]] = field(default_factory=dict)
    """By id of an earlier spec, what it had otherwise of the components that stand."""
    refusing: dict[str, list[tuple[bool, int]]] = field(default_factory=dict)
    """By component, the slots whose facts say that what stands was rolled back, those that are gone last."""
    held: set[tuple[str, int]] = field(default_factory=set)
    """The slots that are held, or that a hold has stopped."""
    at_home: set[tuple[str, int]] = field(default_factory=set)
    """Those whose facts name where their data is."""

    @property
    def records(self) -> Iterator[Slot]:
        """What the facts of its slots say."""
        return (slot.fact.record for slot in self.slots.values() if slot.fact is not None)

    def says_again(self, spec: str) -> bool:
        """Whether what stands now says what the spec of an event's id said, but for how many instances there are.

        Their numbers tell nothing of that: the other side of a partition gave the same number to another one (E2).
        """
        return self.spec is not None and (spec == str(self.spec.id) or spec in self.spec.record.same)

    def refusal(self, component: str | None = None) -> Held[Slot] | None:
        """A slot fact that says that what stands now was rolled back; of one component, if named."""
        first = [(each[0][0], name, each[0][1]) for name, each in self.refusing.items() if component in (None, name)]
        if not first:
            return None
        _, name, index = min(first)
        return self.slots[name, index].fact

    def refused_because(self, component: str | None = None) -> Reason | None:
        """Why what stands now was rolled back, if a slot fact says so still; not why its slot was held or moved since."""
        chosen = [(name, own) for name, own in self.refusing.items() if component in (None, name)]
        each = ([(gone, name, index) for gone, index in own] for name, own in chosen)
        facts = (self.slots[name, index].fact for _, name, index in merge(*each))
        reasons = (fact.record.reason for fact in facts if fact is not None)
        return next((one for one in reasons if one is not None and one.code == "rollout.rolled_back"), None)

    def component(self, name: str) -> ComponentSpec | None:
        """What governs the slots of a component: what stands or, where that was refused, what was gone back to."""
        return self.component_of(name, self.gone_back_to(name))

    def gone_back_to(self, name: str) -> str | None:
        """The id of the spec that a component goes back to, as what stands was refused."""
        refusal = self.refusal(name)
        return None if refusal is None else refusal.record.spec

    def component_of(self, name: str, spec: str | None) -> ComponentSpec | None:
        """A component as the spec of an event's id has it."""
        stands = None if self.parsed is None else self.parsed.components.get(name)
        was = self.earlier.get(spec, {}).get(name) if spec is not None else None
        if stands is None or was is None or None in (was.instances, stands.instances):
            return was or stands
        return msgspec.structs.replace(was, instances=stands.instances)

    def count(self, place: tuple[str, int], slot: SlotEntry) -> None:
        """Count a slot among those that are held and those that have data, or not."""
        told = slot.record
        is_held = slot.hold is not None or (told is not None and told.held)
        has_data = told is not None and told.home is not None
        (self.held.add if is_held else self.held.discard)(place)
        (self.at_home.add if has_data else self.at_home.discard)(place)

    def count_refusal(self, place: tuple[str, int], before: Held[Slot] | None, after: Held[Slot] | None) -> None:
        """Count a slot among those that refuse what stands, or not any more."""
        name, index = place
        refusing = self.refusing.setdefault(name, [])
        if before is not None and self.refuses(before):
            refusing.remove((before.record.desired == "gone", index))
        if after is not None and self.refuses(after):
            insort(refusing, (after.record.desired == "gone", index))
        if not refusing:
            del self.refusing[name]

    def refuses(self, fact: Held[Slot] | None) -> bool:
        """Whether a slot fact says that what stands now was rolled back."""
        return fact is not None and fact.record.refuses is not None and self.says_again(fact.record.refuses.spec)


@dataclass(slots=True)
class NodeEntry:
    """One node: what it says of itself, what operators want, what was judged, and its sources' attachments."""

    name: str
    attributes: Held[NodeAttributes] | None = None
    control: Held[NodeControl] | None = None
    verdict: Held[NodeVerdict] | None = None
    probes: dict[str, Held[Probe]] = field(default_factory=dict)
    """By observer."""
    sources: dict[str, Attachments[Held[SessionFact]]] = field(default_factory=dict)
    """Its manager (`node/<node>`), monitor and agents."""

    @property
    def empty(self) -> bool:
        """Whether nothing at all is known of it."""
        return not (self.attributes or self.control or self.verdict or self.probes or self.sources)

    @property
    def standing_verdict(self) -> Held[NodeVerdict] | None:
        """The verdict on it, unless a source has a greater attachment than it judged (F4).

        Attachments only grow, and so does their sum. Only of agents are there too many to be named.
        """
        if self.verdict is None:
            return None
        known, others = self.verdict.record.attachments, 0
        for source, attachments in self.sources.items():
            if source not in known and not source.startswith("agent/"):
                return None
            if source not in known:
                others += attachments.attachment
            elif attachments.attachment > known[source]:
                return None
        return None if others > self.verdict.record.others else self.verdict

    @property
    def mode(self) -> str:
        """`active`, `draining` or `excluded`: the operator's will."""
        return "active" if self.control is None else self.control.record.mode
