"""A realm of real brokers, controllers, managers, monitors and agents in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from dsmt.event.envelope import SignedEvent
from dsmt.simulator.engine.run import run
from dsmt.simulator.members import SimBroker, SimController, SimNode
from dsmt.simulator.operator import SimOperator
from dsmt.simulator.programs import Habits
from dsmt.simulator.world import World
from dsmt.view import View

from .build import spec, web


class Rows:
    """The rows of a broker's store."""

    def __init__(self, broker: SimBroker) -> None:
        found, after = [], 0
        while batch := broker.store.rows(after, 1000):
            found += [(row.row, row.read()) for row in batch]
            after = batch[-1].row
        self.all: list[tuple[int, SignedEvent]] = found

    def on(self, end: str) -> list[SignedEvent]:
        return [event for _, event in self.all if event.event.topic.endswith(end)]

    def slots(self) -> list[SignedEvent]:
        return [event for _, event in self.all if "/slot/" in event.event.topic]


class Fleet:
    """A broker, some controllers and nodes, and an operator."""

    def __init__(self, *, controllers: int = 2, nodes: int = 3, seed: int = 1, born: bool = True) -> None:
        self.world = World(seed)
        self.complaints: list[str] = []
        self.broker = SimBroker(self.world, "b1", "10.0.0.1")
        self.broker.birth = self.broker.birth if born else ""
        self.controllers = [self.controller(SimController, f"c{i + 1}") for i in range(controllers)]
        self.nodes = [SimNode(self.world, f"n{i}", f"10.0.2.{i}", Habits(life_s=1e9)) for i in range(1, nodes + 1)]
        self.operator = SimOperator(self.world, "alice", "10.0.3.1")
        for member in (self.broker, *self.controllers, self.operator):
            member.kept.start()
        for node in self.nodes:
            node.start()

    def controller(self, kind: type[SimController], name: str) -> SimController:
        return kind(self.world, name, f"10.0.1.{name[1:]}", self.complaints)

    @property
    def view(self) -> View:
        views = (c.runner.view for c in self.controllers if c.kept.alive and c.runner is not None)
        return next(views, View())

    def nodes_of(self, service: str = "web") -> list[str | None]:
        entry = self.view.services.get(service)
        slots = sorted(entry.slots.items()) if entry is not None else []
        return [s.fact.record.node for _, s in slots if s.fact is not None and s.fact.record.desired == "running"]

    def copies(self, service: str) -> int:
        """How many instances run, wherever they are."""
        slots = [] if (entry := self.view.services.get(service)) is None else entry.slots.values()
        said = [i.application.record for slot in slots for i in slot.instances.values() if i.application is not None]
        return sum(one.state == "running" for one in said)

    def running(self, service: str = "web") -> int:
        entry = self.view.services.get(service)
        count = 0
        for slot in entry.slots.values() if entry is not None else ():
            node = slot.fact.record.node if slot.fact is not None else None
            instance = slot.instances.get(node or "")
            said = instance.application.record if instance is not None and instance.application is not None else None
            count += said is not None and said.state == "running" and said.generation == slot.fact.version
        return count

    async def until(self, holds: Callable[[], object], within_s: float) -> float:
        """Wait until something holds; how long it took (virtual s)."""
        begun = self.world.loop.time()
        while not holds():
            assert self.world.loop.time() < begun + within_s, f"not within {within_s} s; on {self.nodes_of()}"
            await asyncio.sleep(0.02)
        return self.world.loop.time() - begun

    async def up(self, instances: int = 3, component: str = "") -> None:
        await asyncio.sleep(2)
        self.operator.apply(spec(web(instances, component=component)), reason="a test")
        await self.until(lambda: self.running() == instances, 20)


def simulate(scenario: Callable[..., Coroutine[Any, Any, None]], **about: Any) -> None:
    """Run a scenario in virtual time; nothing may crash or complain in it."""

    async def main() -> None:
        fleet = Fleet(**about)
        try:
            await scenario(fleet)
            assert fleet.world.crashes == []
            assert fleet.complaints == []
        finally:
            fleet.world.power_off()
            await asyncio.sleep(1)

    run(main())


def starts(fleet: Fleet) -> int:
    return sum(int(program.slot == "web/app/0") for node in fleet.nodes for program in node.host.programs.values())
