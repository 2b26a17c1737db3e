"""Facts: what a deployment agent has been told of its slot, kept in its directory as signed (A1, A8, A12, R5).

Rule 1: what is greatest is obeyed, be there room on the disk for it or not; it is written as soon as there is.
Rule 2: of a spec that a broker has answered `ANSWERS` times that it does not have it, or that nobody believes, that is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from dsmt.agents.instance.memory import Memory
from dsmt.agents.rules.container import SLOT, SPEC, TOLD, AgentConfig
from dsmt.agents.rules.launching import RunPlan, plan_of
from dsmt.agents.rules.reconcile import Duty, Owed, is_successor_ready, owed
from dsmt.agents.rules.register import Register
from dsmt.agents.shared.kept import kept, proven
from dsmt.agents.shared.patient import PatientWriter
from dsmt.agents.shared.surroundings import InstanceSurroundings
from dsmt.backoff import Backoff
from dsmt.errors import DsmtError, FailedError, InputError, UnusableEventError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.kinds.instance import Health
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Ended, Slot
from dsmt.event.reason import Reason, reason
from dsmt.event.records import from_data, readable
from dsmt.spec.plain import from_plain

FETCH_FIRST_S: Final = 0.5
FETCH_CAP_S: Final = 30.0
ANSWERS: Final = 4
"""The last of them comes 3.5 s after the first."""


class SlotFacts:
    """The slot's greatest fact, the spec it names, and how the other nodes' copies are."""

    def __init__(
        self,
        config: AgentConfig,
        deps: InstanceSurroundings,
        memory: Memory,
        writer: PatientWriter,
        *,
        wake: Callable[[], None],
    ) -> None:
        self._config = config
        self._deps = deps
        self._memory = memory
        self._writer = writer
        self._wake = wake
        self._greatest = Register(config.slot.topic, deps.is_disowned)
        obeyed = kept(deps.files, SLOT, deps.bus)
        if obeyed is not None:
            self._greatest.take(obeyed)
        self._slot = None if self._signed is None else readable(Slot, self._signed.event.data)
        self._spec = kept(deps.files, SPEC, deps.bus)
        self._seen: SignedEvent | None = None
        self._unfound: EventId | None = None
        """The spec that was not to be had (rule 2)."""
        self._plan: RunPlan | None = None
        self._healths: dict[str, Health] = {}
        slot = config.slot
        self._health_topic = f"service/{slot.service}/health/{slot.component}/{slot.index}/"
        self.patterns = (slot.topic, slot.spec_topic, self._health_topic, slot.tombstone_topic, slot.control_topic)
        """What the agent subscribes to."""

    @property
    def _signed(self) -> SignedEvent | None:
        """The slot fact that is obeyed."""
        return self._greatest.held

    @property
    def generation(self) -> int:
        """The generation to obey; the one that the record knows when there is no fact."""
        if self._signed is None or self._slot is None:
            return self._memory.record.generation
        return self._signed.event.version or 0

    @property
    def epoch(self) -> int:
        """The epoch of the slot fact that is obeyed; the one that the record knows when there is no fact."""
        if self._signed is None or self._slot is None:
            return self._memory.record.epoch
        return self._signed.event.epoch or 0

    @property
    def revision(self) -> int:
        """The revision of the spec that the slot names."""
        return self._memory.record.revision if self._slot is None else self._slot.revision

    @property
    def ended(self) -> Ended | None:
        """How what is to run here has ended elsewhere, if it is not to be run again."""
        return None if self._slot is None or self.owed().duty is not Duty.RUN else self._slot.ended

    @property
    def goes_back(self) -> bool:
        """Whether what is to run here is gone back to, for a later revision was refused."""
        return self._slot is not None and self._slot.refuses is not None and self.owed().duty is Duty.RUN

    @property
    def cause(self) -> EventId | None:
        """The slot fact's id."""
        return None if self._signed is None or self._slot is None else self._signed.id

    @property
    def awaits(self) -> EventId | None:
        """The spec that the slot names and that is not here yet; None when none is missing."""
        if self._slot is None or self.owed().duty not in (Duty.RUN, Duty.STOP) or self._has_spec():
            return None
        try:
            return EventId.parse(self._slot.spec)
        except InputError:
            return None

    @property
    def unfound(self) -> Reason | None:
        """Why what the slot names cannot begin: its spec is not to be had (rule 2)."""
        if self._unfound is None or self._unfound != self.awaits:
            return None
        return reason("wait.spec", rev=f"r{self.revision}", service=self._config.slot.service)

    def owed(self) -> Owed:
        """What this node owes the slot now."""
        ready = self._slot is not None and is_successor_ready(self._slot, self.generation, self._healths)
        return owed(self._config.node, self._slot, now_ms=self._deps.bus.now_ms(), successor_ready=ready)

    def plan(self, duty: Duty) -> RunPlan | None:
        """What is to run under a duty; None when its spec is not here. Under `KEEP` it is what was obeyed last."""
        if duty is Duty.KEEP:
            return self.kept_plan()
        if not self._has_spec() or self._slot is None:
            return None
        return self._made(self.generation, self._slot.restart)

    def kept_plan(self) -> RunPlan | None:
        """What was obeyed last, by the spec that was kept."""
        record = self._memory.record
        return self._made(record.run_generation or record.generation, record.run_restart)

    def take(self, signed: SignedEvent) -> bool:
        """Take in a fact from the bus; whether it tells anything new."""
        topic = signed.event.topic
        if topic == self._config.slot.topic:
            return self._take_slot(signed)
        if signed.event.ends:
            self._greatest.bury(signed)
            return False
        if topic == self._config.slot.spec_topic:
            self._seen = signed
            return self.take_spec(signed)
        if topic.startswith(self._health_topic):
            return self._take_health(signed)
        return False

    def exhume(self) -> bool:
        """A key has ended: whether what its tombstone hid is to be obeyed again (J3)."""
        buried = self._greatest.buried
        self._greatest.exhume()
        return buried and not self._greatest.buried

    def take_told(self) -> bool:
        """Take in the fact that the node's manager has heard and this agent may not have; whether it tells anything new."""
        told = kept(self._deps.files, TOLD, self._deps.bus)
        return told is not None and told.event.topic == self._config.slot.topic and self._take_slot(told)

    def take_spec(self, signed: SignedEvent) -> bool:
        """Keep a spec if it is exactly the one that the slot names, and a spec of this service (A12)."""
        if self._slot is None or str(signed.id) != self._slot.spec or self._has_spec():
            return False
        if signed.event.topic != self._config.slot.spec_topic:
            return False
        if self.owed().duty not in (Duty.RUN, Duty.STOP):
            return False
        self._spec, self._plan = signed, None
        self._writer.write(SPEC, proven(signed, self._deps.bus))
        return True

    def forget_spec(self) -> None:
        """The slot has left: what was obeyed is over."""
        self._spec = self._plan = None
        self._writer.forget(SPEC)

    def offer(self) -> None:
        """Re-offer what this agent acts on (R5)."""
        held = [signed for signed in (self._signed, self._spec) if signed is not None]
        if held and not self._greatest.buried:
            self._deps.bus.offer(held)

    async def find_spec(self, wanted: EventId) -> None:
        """Ask for a spec by its id until it is here or not wanted any more."""
        backoff, answers = Backoff(FETCH_FIRST_S, FETCH_CAP_S), 0
        while self.awaits == wanted:
            with suppress(DsmtError):  # no broker: ask again, or it arrives by itself
                found = await self._deps.bus.fetch([wanted])
                if any(map(self.take_spec, found)):
                    self._wake()
                    return
                answers += 1
            if answers == ANSWERS:
                self._unfound = wanted
                self._wake()
            await asyncio.sleep(backoff.failed())

    def _has_spec(self) -> bool:
        return self._spec is not None and self._slot is not None and str(self._spec.id) == self._slot.spec

    def _take_slot(self, signed: SignedEvent) -> bool:
        slot = readable(Slot, signed.event.data)
        if slot is None or not self._greatest.take(signed):
            return False
        self._slot = slot
        self._writer.write(SLOT, proven(signed, self._deps.bus))
        if self._seen is not None:
            self.take_spec(self._seen)
        return True

    def _take_health(self, signed: SignedEvent) -> bool:
        node = signed.event.topic[len(self._health_topic) :]
        if node == self._config.node:
            return False
        health = readable(Health, signed.event.data)
        if health is None:
            return False
        self._healths[node] = health
        return self._slot is not None and node == self._slot.node

    def _made(self, generation: int, restart: int) -> RunPlan | None:
        """The plan by the spec that is here; the last one is remembered."""
        made = self._plan
        if made is None and self._spec is not None:
            try:
                fact = from_data(SpecFact, self._spec.event.data)
                made = plan_of(
                    from_plain(fact.spec),
                    self._config.component,
                    spec_id=str(self._spec.id),
                    revision=self._spec.event.version or 0,
                    generation=generation,
                    restart=restart,
                )
            except (UnusableEventError, FailedError):
                return None
        if made is not None and (made.wanted.generation, made.wanted.restart) != (generation, restart):
            made = made.at(generation, restart)
        self._plan = made
        return made
