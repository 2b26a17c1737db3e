"""Scenarios: what happens to a fleet in one run, by name; each ends whole, and every invariant is asked of it.

| name | what happens | what must hold besides 12.2, 12.3 and 12.10 |
|---|---|---|
| `storm` | everything goes wrong, at random | |
| `empty` | the broker loses its disk | 12.4: nothing stops, and nothing moves |
| `stopped` | a controller of the first ranks is stopped in the midst of a repair, and resumed | 12.6: no slot moves back |
| `silent` | 30 % of the nodes lose their power at once | 12.8: the brake holds |
| `killed` | 25 % of the nodes die at once, and their kernels say so | 12.8: no brake |
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from dsmt.controllers.brake import brake
from dsmt.controllers.ranking import rank
from dsmt.simulator.faults import SMALL, STORM, Faults
from dsmt.simulator.fleet import Fleet, Scale
from dsmt.simulator.handles import SimHandle, SimTimer, owner_of
from dsmt.simulator.host import HostProcess
from dsmt.simulator.invariants import Watch, moved, replayed, replicas, stopped
from dsmt.simulator.members import SimController, SimNode
from dsmt.simulator.run import run
from dsmt.simulator.trace import Trace
from dsmt.simulator.world import World
from dsmt.view import Fleet as Liveness

FIRST_S: Final = 20.0
"""How long the first placement may take."""
STORM_S: Final = 70.0
"""Seconds between two faults of the storm, times nodes."""
SILENT: Final = 0.3
KILLED: Final = 0.25
STOPPED_S: Final = 60.0
DECIDING_S: Final = (0.25, 0.75)
"""When controllers decide on a node's death, in seconds after it."""


@dataclass(slots=True)
class Report:
    """What one run showed; `wrong` is empty when all invariants hold. `digest` is the history's."""

    seed: int
    scenario: str
    seconds: float = 0.0
    cpu_s: float = 0.0
    rows: int = 0
    slots: int = 0
    faults: int = 0
    decisions: int = 0
    digest: str = ""
    wrong: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


class Play:
    """One run: a fleet, its faults, and until when (virtual s)."""

    def __init__(self, seed: int, scale: Scale, seconds: float) -> None:
        self.world = World(seed)
        self.fleet = Fleet(self.world, scale)
        self.faults = Faults(self.fleet)
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
        """All must be as it should be in so many seconds."""
        self.wrong += [f"12.2, {when}, after {seconds:.0f} s: {one}" for one in await self.fleet.until_settled(seconds)]

    def some(self, share: float) -> list[SimNode]:
        """A share of the nodes, at random, but those that own slots first: only they count for the brake (F5)."""
        owners = frozenset(self.fleet.named().values())
        nodes = self.stream.shuffled(list(self.fleet.nodes.values()))
        return sorted(nodes, key=lambda node: node.name not in owners)[: round(share * len(nodes))]

    def named_on(self, nodes: list[SimNode]) -> list[str]:
        """The slots whose winners name these nodes."""
        names = [node.name for node in nodes]
        return [slot for slot, node in self.fleet.named().items() if node in names]


async def storm(play: Play) -> None:
    """Everything goes wrong for most of the time, then nothing more."""
    await play.faults.run(STORM, STORM_S / len(play.fleet.nodes), play.seconds * 0.6 - play.now)
    play.faults.mend()
    await play.settled(play.seconds - play.now, "after the storm")
    await play.faults.run(SMALL, 2.0, play.seconds * 0.9 - play.now)
    await play.settled(play.seconds - play.now, "at the end")


async def empty(play: Play) -> None:
    """The broker loses its disk (12.4)."""
    fleet, broker = play.fleet, play.fleet.broker
    await play.settled(FIRST_S, "at first")
    await play.until(play.now + play.stream.uniform(0, 3))
    small = play.world.background(play.faults.run(SMALL, 2.0, play.seconds * 0.8 - play.now), "small faults")
    before, orders = fleet.named(), [len(node.host.orders) for node in fleet.nodes.values()]
    play.faults.note("the broker's disk is lost")
    broker.kept.stop()
    broker.new_store()
    await asyncio.sleep(play.stream.uniform(0.1, 8.0))
    broker.kept.start()
    await play.until(play.seconds * 0.8 + 2)
    await small
    await play.settled(play.seconds - play.now, "after the broker's disk was lost")
    given = [order for node, known in zip(fleet.nodes.values(), orders, strict=True) for order in node.host.orders[known:]]
    play.wrong += stopped(given)
    play.wrong += moved(before, fleet.named(), before, "12.4, after the broker's disk was lost")


async def stopped_controller(play: Play) -> None:
    """The controller that acts first, or next, is stopped in the midst of a repair (12.6)."""
    fleet = play.fleet
    await play.settled(FIRST_S, "at first")
    slot = play.stream.choice(sorted(fleet.named()))
    node = fleet.nodes[fleet.named()[slot] or ""]
    ranked = sorted(fleet.controllers, key=lambda name: rank(f"service/{slot.split('/')[0]}", name, list(fleet.controllers)))
    controller = fleet.controllers[ranked[play.stream.below(2)]]
    _stop_at_an_await(play, controller)
    play.faults.note(f"kill node {node.name}; controller {controller.name} is to be stopped")
    play.faults.kill_node(node)
    await play.until(play.now + STOPPED_S)
    play.world.loop.trace = None
    await play.settled(1.0, "while the controller is stopped")
    before = fleet.named()
    if controller.kept.process is not None:
        play.faults.note(f"resume controller {controller.name}, which is {controller.kept.process.sim.state}")
        controller.kept.process.sim.resume()
    await play.until(play.seconds - 5)
    play.wrong += moved(before, fleet.named(), before, "12.6, after the stopped controller was resumed")
    await play.settled(play.seconds - play.now, "after the stopped controller was resumed")


def _stop_at_an_await(play: Play, controller: SimController) -> None:
    """Arrange for a SIGSTOP: while it decides or waits, right after it has said something, or some callbacks after that."""
    process, stream = controller.kept.process, play.stream
    bus = controller.bus
    if process is None or bus is None:
        raise RuntimeError("the controller does not run")
    way, after = stream.below(3), 1 + stream.below(12)

    def said(topic: str) -> None:
        if "/slot/" in topic or topic.endswith("/verdict"):
            bus.tap = None
            if way:
                play.world.loop.trace = StopAfter(process, after)
            else:
                process.sim.pause()

    if way == 2:
        play.world.later(stream.uniform(*DECIDING_S), process.sim.pause)
    else:
        bus.tap = said


class StopAfter(Trace):
    """Stops a process after so many of its callbacks."""

    def __init__(self, process: HostProcess, count: int) -> None:
        super().__init__()
        self._process, self._left = process, count

    def ran(self, tick: int, handle: SimHandle | SimTimer) -> None:  # noqa: ARG002 - the count is all that matters
        """A callback is about to run."""
        if owner_of(handle) is self._process.sim:
            self._left -= 1
            if self._left == 0:
                self._process.sim.pause()


async def silent(play: Play) -> None:
    """Many nodes lose their power at once (12.8)."""
    fleet = play.fleet
    await play.settled(FIRST_S, "at first")
    lost = play.some(SILENT)
    slots, before = play.named_on(lost), fleet.named()
    play.faults.note(f"{len(lost)} nodes lose their power: {', '.join(node.name for node in lost)}")
    for node in lost:
        node.host.power_off()
    await play.until(play.seconds * 0.7)
    play.wrong += moved(before, fleet.named(), slots, f"12.8, while {len(lost)} nodes are silent")
    if not brake(Liveness(fleet.view(), play.world.now_ms, "b1")).on:
        play.wrong.append(f"12.8: {len(lost)} nodes are silent, and the brake is off")
    for node in lost:
        play.world.later(play.stream.uniform(0, 3), node.boot)
    await play.settled(play.seconds - play.now, "after the nodes came back")


async def killed(play: Play) -> None:
    """Many nodes die at once, and it can be seen (12.8)."""
    await play.settled(FIRST_S, "at first")
    lost = play.some(KILLED)
    play.faults.note(f"{len(lost)} nodes are killed: {', '.join(node.name for node in lost)}")
    for node in lost:
        play.faults.kill_node(node)
    await play.settled(30.0, f"12.8, after {len(lost)} nodes were killed")
    if brake(Liveness(play.fleet.view(), play.world.now_ms, "b1")).on:
        play.wrong.append(f"12.8: {len(lost)} nodes were killed, and the brake is on")
    await play.until(play.seconds * 0.7)
    for node in lost:
        node.start()
    await play.faults.run(SMALL, 2.0, play.seconds * 0.15)
    await play.settled(play.seconds - play.now, "after the nodes came back")


SCENARIOS: Final[Mapping[str, Callable[[Play], Awaitable[None]]]] = {
    "storm": storm,
    "empty": empty,
    "stopped": stopped_controller,
    "silent": silent,
    "killed": killed,
}


def scenario_of(seed: int) -> str:
    """Which scenario a seed plays, when none is asked for: the storm for each second, the others in turn."""
    others = [name for name in SCENARIOS if name != "storm"]
    return "storm" if seed % 2 else others[seed // 2 % len(others)]


def play(seed: int, *, scenario: str = "", scale: Scale | None = None, seconds: float = 120.0) -> Report:
    """Run one seed and ask every invariant."""
    name = scenario or scenario_of(seed)
    report = Report(seed, name)
    began = time.process_time()
    run(_play(report, scale or Scale(), seconds))
    report.cpu_s = time.process_time() - began
    return report


async def _play(report: Report, scale: Scale, seconds: float) -> None:
    played = Play(report.seed, scale, seconds)
    fleet = played.fleet
    await fleet.start()
    watch = Watch(fleet)
    watching = played.world.background(watch.run(), "watch")
    await SCENARIOS[report.scenario](played)
    await played.until(seconds)
    watching.cancel()
    report.seconds = played.now
    report.wrong = played.wrong + watch.wrong + played.world.crashes + fleet.complaints
    report.wrong += replicas(fleet, played.stream.stream("replicas")) + replayed(fleet)
    report.rows = sum(store.head for store in fleet.broker.stores)
    report.slots, report.faults = len(list(fleet.wanted())), len(played.faults.log)
    report.decisions = sum(controller.runner.decisions for controller in fleet.controllers.values() if controller.runner)
    report.digest, report.log = fleet.digest(), played.faults.log
    played.world.power_off()
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
