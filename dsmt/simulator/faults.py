"""Faults: what goes wrong in a fleet, drawn from its seed.

Rule 1: a kind is drawn by its weight, a victim among those that can suffer it, in the order in which they were made.
Rule 2: what is broken is mended after a while, and all of it by `mend`; what nobody mends is restarted by its keeper.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from dsmt.simulator.fleet import Fleet
from dsmt.simulator.host import Host, HostProcess
from dsmt.simulator.members import Kept, SimController, SimNode
from dsmt.simulator.programs import SimInstance

SMALL: Final[Mapping[str, int]] = {"crash": 6, "kill agent": 3, "kill manager": 2, "kill monitor": 1}
"""What changes nothing but processes of one node."""
STORM: Final[Mapping[str, int]] = {
    **SMALL,
    "pause manager": 2,
    "pause agent": 1,
    "spawner": 1,
    "kill node": 2,
    "power off": 2,
    "cut": 3,
    "kill controller": 2,
    "pause controller": 2,
    "kill broker": 1,
    "pause broker": 1,
    "clock": 2,
    "scale": 2,
    "update": 1,
}
DOWN_MOST: Final = 0.1
"""The share of nodes that are down or cut off at one time at most: the brake has a scenario of its own."""


class Faults:
    """Breaks a fleet. `log` says what was done, and when."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.world = fleet, fleet.world
        self.stream = fleet.world.stream.stream("faults")
        self.log: list[str] = []
        self._mending: list[Callable[[], None]] = []
        self._revisions: dict[str, int] = {}
        self._kinds: dict[str, Callable[[], str | None]] = {
            "crash": self._crash,
            "kill agent": self._kill_agent,
            "kill manager": lambda: self._kill(self._node().manager),
            "kill monitor": lambda: self._kill(self._node().monitor),
            "pause manager": lambda: self._pause(self._node().manager.process, 8.0),
            "pause agent": lambda: self._pause(self._agent(), 8.0),
            "spawner": self._spawner,
            "kill node": self._kill_node,
            "power off": self._power_off,
            "cut": self._cut,
            "kill controller": lambda: self._kill(self._controller().kept),
            "pause controller": lambda: self._pause(self._controller().kept.process, 20.0),
            "kill broker": lambda: self._kill(self.fleet.broker.kept),
            "pause broker": lambda: self._pause(self.fleet.broker.kept.process, 4.0),
            "clock": self._clock,
            "scale": self._scale,
            "update": self._update,
        }

    async def run(self, kinds: Mapping[str, int], each_s: float, seconds: float) -> None:
        """Break something about each `each_s`, for so many seconds."""
        until = self.world.loop.time() + seconds
        names = [name for name, weight in kinds.items() for _ in range(weight)]
        while True:
            await asyncio.sleep(self.stream.exponential(each_s))
            if self.world.loop.time() >= until:
                return
            self.inflict(self.stream.choice(names))

    def inflict(self, kind: str) -> None:
        """Break one thing."""
        done = self._kinds[kind]()
        if done is not None:
            self.note(f"{kind}: {done}")

    def note(self, text: str) -> None:
        """Say what was done."""
        self.log.append(f"[{self.world.loop.time():.3f} s] {text}")

    def mend(self) -> None:
        """Mend everything that is broken."""
        mending, self._mending = self._mending, []
        for one in mending:
            one()
        self.note("all is mended")

    def _later(self, seconds: float, mend: Callable[[], None]) -> None:
        self._mending.append(mend)
        self.world.later(seconds, self._mend, mend)

    def _mend(self, mend: Callable[[], None]) -> None:
        if mend in self._mending:
            self._mending.remove(mend)
            mend()

    # --- victims -------------------------------------------------------------------------------------------------

    def _node(self) -> SimNode:
        return self.stream.choice(self.up())

    def up(self) -> list[SimNode]:
        """The nodes that have power, a network and a manager."""
        return [node for node in self.fleet.nodes.values() if node.host.on and not node.host.cut and node.manager.wanted]

    def _may_lose_one(self) -> bool:
        nodes = self.fleet.nodes
        return len(nodes) - len(self.up()) < max(1, int(len(nodes) * DOWN_MOST))

    def _controller(self) -> SimController:
        return self.stream.choice(list(self.fleet.controllers.values()))

    def _agent(self) -> HostProcess | None:
        agents = [
            process
            for node in self.up()
            for process in node.host.processes.values()
            if process.name.startswith("agent:") and process.alive
        ]
        return self.stream.choice(agents) if agents else None

    # --- kinds ---------------------------------------------------------------------------------------------------

    def _crash(self) -> str | None:
        programs = [one for node in self.up() for one in node.host.programs.values() if isinstance(one, SimInstance)]
        if not programs:
            return None
        victim = self.stream.choice(programs)
        victim.crash()
        return f"{victim.slot} on {victim.host.name}"

    def _kill_agent(self) -> str | None:
        agent = self._agent()
        if agent is None:
            return None
        agent.sim.kill()
        return agent.sim.name

    def _kill(self, kept: Kept) -> str | None:
        if not kept.alive:
            return None
        kept.kill()
        return f"{kept.host.name}:{kept.name}"

    def _pause(self, process: HostProcess | None, most_s: float) -> str | None:
        if process is None or process.sim.state != "running":
            return None
        seconds = self.stream.uniform(0.2, most_s)
        process.sim.pause()
        self._later(seconds, process.sim.resume)
        return f"{process.sim.name} for {seconds:.1f} s"

    def _spawner(self) -> str:
        node = self._node()
        node.processes.gone = True
        self._later(self.stream.uniform(0.2, 3.0), lambda: self._spawner_back(node))
        return node.name

    @staticmethod
    def _spawner_back(node: SimNode) -> None:
        node.processes.gone = False

    def _kill_node(self) -> str | None:
        if not self._may_lose_one():
            return None
        node, seconds = self._node(), self.stream.uniform(3.0, 40.0)
        self.kill_node(node)
        self._later(seconds, node.start)
        return f"{node.name} for {seconds:.1f} s"

    @staticmethod
    def kill_node(node: SimNode) -> None:
        """All of a node's processes die at once, and nobody starts them again; its kernel lives."""
        node.manager.wanted = node.monitor.wanted = False
        node.host.kill_all()

    def _power_off(self) -> str | None:
        if not self._may_lose_one():
            return None
        node, seconds = self._node(), self.stream.uniform(3.0, 40.0)
        node.host.power_off()
        self._later(seconds, node.boot)
        return f"{node.name} for {seconds:.1f} s"

    def _cut(self) -> str | None:
        if not self._may_lose_one():
            return None
        node, seconds = self._node(), self.stream.uniform(0.5, 25.0)
        self.world.cut(node.host)
        self._later(seconds, lambda: self.world.heal(node.host))
        return f"{node.name} for {seconds:.1f} s"

    def _clock(self) -> str:
        host: Host = self._node().host
        host.clock.offset_s = self.stream.uniform(-9.0, 9.0)
        return f"{host.name} by {host.clock.offset_s:.1f} s"

    def _scale(self) -> str:
        service = self.stream.choice(list(self.fleet.specs))
        low, high = self.fleet.scale.instances
        instances = low + self.stream.below(high - low + 1)
        self.fleet.apply(service, instances=instances, revision=self._revisions.get(service, 1))
        return f"{service} to {instances}"

    def _update(self) -> str:
        service = self.stream.choice(list(self.fleet.specs))
        self._revisions[service] = revision = self._revisions.get(service, 1) + 1
        instances = self.fleet.specs[service]["components"]["app"]["instances"]
        self.fleet.apply(service, instances=instances, revision=revision)
        return f"{service} to revision {revision}"
