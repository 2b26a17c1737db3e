"""A fleet: one simulated realm with its brokers, controllers, nodes, an operator and services, made from a seed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from dsmt.event.envelope import SignedEvent
from dsmt.event.status import State
from dsmt.simulator.members import SimBroker, SimController, SimNode, SimOperator
from dsmt.simulator.programs import Habits, SimInstance
from dsmt.simulator.rng import Stream
from dsmt.simulator.world import World
from dsmt.spec.parsing import parse
from dsmt.spec.plain import to_plain
from dsmt.view import SlotKey, View

PAGE: Final = 2000
RECENT: Final = 2000
SKEW_S: Final = 9.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a fleet is. `skewed`: the share of machines whose wall clocks are wrong by up to `SKEW_S`.

    `heartbeat_s` is the managers': in life 1 s; nothing follows from its rate, and one in 4 s makes a run 20 % shorter.
    """

    nodes: int = 100
    services: int = 10
    controllers: int = 3
    instances: tuple[int, int] = (3, 7)
    skewed: float = 0.3
    heartbeat_s: float = 4.0
    habits: Habits = field(default_factory=Habits)


class Fleet:
    """The realm. `specs` is what is wanted, by service; `view` folds what the broker has stored."""

    def __init__(self, world: World, scale: Scale) -> None:
        self.world, self.scale = world, scale
        self.stream: Stream = world.stream.stream("fleet")
        self.complaints: list[str] = []
        self.specs: dict[str, dict[str, Any]] = {}
        self.broker = SimBroker(world, "b1", "10.0.0.1")
        self.broker.born = True
        self.controllers = {
            f"c{number}": SimController(world, f"c{number}", f"10.0.1.{number}", self.complaints)
            for number in range(1, scale.controllers + 1)
        }
        self.operator = SimOperator(world, "alice", "10.0.2.1")
        self.nodes = {
            name: SimNode(world, name, f"10.1.{number // 250}.{number % 250}", scale.habits, heartbeat_s=scale.heartbeat_s)
            for number, name in ((number, f"n{number}") for number in range(1, scale.nodes + 1))
        }
        for host in world.hosts.values():
            if host is not self.broker.host and self.stream.chance(scale.skewed):
                host.clock.offset_s = self.stream.uniform(-SKEW_S, SKEW_S)
        self._views: list[tuple[View, int]] = []
        self.recent: deque[bytes] = deque(maxlen=RECENT)
        """The digests of the view after each of the last rows that were folded into it."""

    # --- running -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start all members, within a second, then apply the services."""
        self.broker.kept.start()
        self.operator.kept.start()
        for controller in self.controllers.values():
            self.world.later(self.stream.uniform(0, 1), controller.kept.start)
        for node in self.nodes.values():
            self.world.later(self.stream.uniform(0, 1), node.start)
        await asyncio.sleep(2)
        for number in range(1, self.scale.services + 1):
            low, high = self.scale.instances
            self.apply(f"s{number}", instances=low + self.stream.below(high - low + 1))

    def apply(self, service: str, *, instances: int, revision: int = 1) -> None:
        """The operator applies a service of one component, which differs from service to service, but not by chance."""
        checked = self.stream.stream("service", service).chance(0.7)
        lines = [
            f"service: {service}",
            "components:",
            "  app:",
            "    run: ./app",
            f"    instances: {instances}",
            f"    env: {{REVISION: '{revision}'}}",
            "    update: {healthy_after: 2s, deadline: 60s}",
            *(["    ports: {http: auto}", "    health: {http: {path: /}}"] if checked else []),
        ]
        plain = to_plain(parse("\n".join(lines), file=f"{service}.yaml")[0])
        self.specs[service] = plain
        self.operator.apply(plain, reason="a simulation")

    async def until_settled(self, seconds: float) -> list[str]:
        """Wait until all is as it should be, at most so long; what is not."""
        until = self.world.loop.time() + seconds
        while wrong := self.amiss():
            if self.world.loop.time() >= until:
                return wrong
            await asyncio.sleep(0.25)
        return []

    # --- what is so ----------------------------------------------------------------------------------------------

    def wanted(self) -> Iterator[str]:
        """Every slot that is to run."""
        for service, spec in self.specs.items():
            for component, one in spec["components"].items():
                for index in range(one["instances"]):
                    yield f"{service}/{component}/{index}"

    def running(self) -> dict[str, list[str]]:
        """By slot, the nodes on which a program of it runs, as their kernels know it."""
        found: dict[str, list[str]] = {}
        for name, node in self.nodes.items():
            for program in node.host.programs.values():
                if isinstance(program, SimInstance) and program.slot:
                    found.setdefault(program.slot, []).append(name)
        return found

    def named(self) -> dict[str, str | None]:
        """By slot, the node that the winner of its facts names; slots that are gone are left out."""
        found = {}
        for service, entry in self.view().services.items():
            for (component, index), slot in entry.slots.items():
                if slot.fact is not None and slot.fact.record.desired != "gone":
                    found[f"{service}/{component}/{index}"] = slot.fact.record.node
        return found

    def amiss(self) -> list[str]:
        """What is not as it should be: a slot not running once, on the node that its winner names (12.2), and said to."""
        running, named, wanted = self.running(), self.named(), list(self.wanted())
        wrong = []
        for slot in wanted:
            there, node = running.get(slot, []), named.get(slot)
            if there != [node]:
                wrong.append(f"{slot} runs on {there}, its fact names {node}")
            elif (said := self.said(slot, node or "")) != State.RUNNING:
                wrong.append(f"{slot} runs on {node}, its status there is {said}")
        known = frozenset(wanted)
        wrong += [f"{slot} runs on {there} and is not wanted" for slot, there in running.items() if slot not in known]
        return wrong

    def said(self, slot: str, node: str) -> State | None:
        """The state of a slot on a node, as its agent says it."""
        service, component, index = slot.split("/")
        entry = self.view().slot(SlotKey(service, component, int(index)))
        instance = None if entry is None else entry.instances.get(node)
        return None if instance is None or instance.application is None else instance.application.record.state

    # --- history -------------------------------------------------------------------------------------------------

    def rows(self, store: int = -1, after: int = 0) -> Iterator[tuple[int, SignedEvent]]:
        """What one of the broker's stores holds, in order: row and event."""
        source = self.broker.stores[store]
        while rows := source.rows(after, PAGE):
            after = rows[-1].row
            for row in rows:
                yield row.row, self.world.decode(row.raw)[0]

    def view(self) -> View:
        """The broker's present store folded, up to now."""
        while len(self._views) < len(self.broker.stores):
            self._views.append((View(), 0))
        view, row = self._views[-1]
        if self.broker.store.head > row:
            for at, signed in self.rows(after=row):
                if view.apply(signed) or not self.recent:
                    self.recent.append(view.digest)
                row = at
            self._views[-1] = (view, row)
        return view

    def digest(self) -> str:
        """A hash over all rows of all stores, in order: what two runs of a seed are compared by."""
        found = blake2b(digest_size=16)
        for store in self.broker.stores:
            after = 0
            while rows := store.rows(after, PAGE):
                after = rows[-1].row
                for row in rows:
                    found.update(b"%d %d %s %d\n" % (row.row, row.arrived_ms, row.topic.encode(), len(row.raw)))
                    found.update(row.raw)
        return found.hexdigest()
