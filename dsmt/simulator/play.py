"""One run of a scenario: a fleet, its faults, until when, and what every run is asked at its end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from math import inf

from dsmt.simulator.faults import FaultInjector
from dsmt.simulator.fleet import Scale, SimFleet
from dsmt.simulator.members import SimNode
from dsmt.simulator.world import World

FIRST_S = 20.0
"""How long the first placement may take."""


@dataclass(slots=True)
class Report:
    """What one run showed; `wrong` is empty when all invariants hold. `digest` is the history's, `trace` the loop's.

    `cpu_s`: what it took, with its share of what it had in common with others.
    """

    seed: int
    scenario: str = ""
    seconds: float = 0.0
    cpu_s: float = 0.0
    rows: int = 0
    slots: int = 0
    faults: int = 0
    decisions: int = 0
    digest: str = ""
    trace: str = ""
    wrong: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


class Play:
    """One run: a fleet, its faults, and until when (virtual s)."""

    def __init__(self, seed: int, scale: Scale, seconds: float = inf) -> None:
        self.world = World(seed)
        self.fleet = SimFleet(self.world, scale)
        self.faults = FaultInjector(self.fleet)
        self.stream = self.world.stream.stream("play")
        self.seconds = seconds
        self.wrong: list[str] = []

    @property
    def now(self) -> float:
        """Virtual seconds."""
        return self.world.loop.time()

    async def until(self, when: float) -> None:
        """Wait until then."""
        await asyncio.sleep(max(0.0, when - self.now))

    async def settled(self, seconds: float, when: str) -> None:
        """All must be as the operator was told in so many seconds."""
        self.wrong += [f"12.2, {when}, after {seconds:.0f} s: {one}" for one in await self.fleet.until_settled(seconds)]

    async def first(self) -> None:
        """The services that are applied at the start must run."""
        await self.settled(FIRST_S, "at first")

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return self.stream.uniform(low, high)

    def some(self, share: float) -> list[SimNode]:
        """A share of the nodes, at random, but those that own slots first: only they count for the brake (F5)."""
        owners = frozenset(self.fleet.named().values())
        nodes = self.stream.shuffled(list(self.fleet.nodes.values()))
        return sorted(nodes, key=lambda node: node.name not in owners)[: round(share * len(nodes))]

    def named_on(self, nodes: list[SimNode]) -> list[str]:
        """The slots whose winners name these nodes."""
        names = [node.name for node in nodes]
        return [slot for slot, node in self.fleet.named().items() if node in names]
