"""Entries: what the view knows of one instance, slot, service and node, as typed facts."""

from __future__ import annotations

from dataclasses import dataclass, field

from dsmt.event.records import (
    Endpoint,
    Health,
    NodeAttributes,
    NodeControl,
    NodeVerdict,
    Probe,
    Session,
    Slot,
    SlotControl,
    SpecFact,
    Status,
)
from dsmt.event.status import State
from dsmt.spec.records import ServiceSpec
from dsmt.view.held import Held
from dsmt.view.sessions import Attachments


@dataclass(slots=True)
class Instance:
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
    def generation(self) -> int:
        """The greatest generation that a layer reports; 0 when none does."""
        return max((held.record.generation for held in self.statuses), default=0)

    @property
    def orphan(self) -> Held[Status] | None:
        """The status that says that this runs with no slot fact (SEMANTICS A5), if one does."""
        return next((held for held in self.statuses if held.record.orphan and self.left), None)


@dataclass(slots=True)
class SlotEntry:
    """One slot: its fact, the operator's will for it, and its instances by node."""

    fact: Held[Slot] | None = None
    control: Held[SlotControl] | None = None
    instances: dict[str, Instance] = field(default_factory=dict)
    quarantined: bool = False
    """Its slot fact cannot be read: nobody may act as if there was none."""

    @property
    def empty(self) -> bool:
        """Whether nothing at all is known of it."""
        return self.fact is None and self.control is None and not self.instances and not self.quarantined

    @property
    def holders(self) -> list[str]:
        """The nodes that have anything left of it, sorted."""
        return sorted(node for node, instance in self.instances.items() if instance.left)

    @property
    def generation(self) -> int:
        """The greatest generation that is known of it, in its fact or in a status."""
        reported = max((instance.generation for instance in self.instances.values()), default=0)
        return max(reported, 0 if self.fact is None else self.fact.version)


@dataclass(slots=True)
class ServiceEntry:
    """One service: its spec, as signed and as parsed, and its slots by (component, index)."""

    name: str
    spec: Held[SpecFact] | None = None
    parsed: ServiceSpec | None = None
    slots: dict[tuple[str, int], SlotEntry] = field(default_factory=dict)


@dataclass(slots=True)
class NodeEntry:
    """One node: what it says of itself, what operators want, what was judged, and its sources' attachments."""

    name: str
    attributes: Held[NodeAttributes] | None = None
    control: Held[NodeControl] | None = None
    verdict: Held[NodeVerdict] | None = None
    probes: dict[str, Held[Probe]] = field(default_factory=dict)
    """By observer."""
    sources: dict[str, Attachments[Held[Session]]] = field(default_factory=dict)
    """Its manager (`node/<node>`), monitor and agents."""

    @property
    def empty(self) -> bool:
        """Whether nothing at all is known of it."""
        return not (self.attributes or self.control or self.verdict or self.probes or self.sources)

    @property
    def mode(self) -> str:
        """`active`, `draining` or `excluded`: the operator's will."""
        return "active" if self.control is None else self.control.record.mode
