"""Faults: what goes wrong in a fleet, drawn from its seed.

Rule 1: a kind is drawn by its weight, a victim among those that can suffer it, in the order in which they were made.
Rule 2: what is broken is mended after a while, and all of it by `mend`; what nobody mends is restarted by its keeper.
Rule 3: each kind is a function of `kinds`; what several of them do, and scenarios too, stands here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from dsmt.simulator.engine.host import Host, HostProcess
from dsmt.simulator.fleet import SimFleet
from dsmt.simulator.members import KeptMember, SimController, SimNode

DOWN_MOST: Final = 0.1
"""The share of nodes that are down or cut off at one time at most: the brake has a scenario of its own."""
Kind = Callable[["FaultInjector"], "str | None"]


class FaultInjector:
    """Breaks a fleet. `log` says what was done, and when."""

    def __init__(self, fleet: SimFleet) -> None:
        self.fleet, self.world = fleet, fleet.world
        self.stream = fleet.world.stream.stream("faults")
        self.log: list[str] = []
        self._mending: list[Callable[[], None]] = []
        self.revisions: dict[str, int] = {}

    async def run(self, kinds: Mapping[Kind, int], each_s: float, seconds: float) -> None:
        """Break something about each `each_s`, for so many seconds."""
        until = self.world.loop.time() + seconds
        drawn = [kind for kind, weight in kinds.items() for _ in range(weight)]
        while (at := self.world.loop.time() + self.stream.exponential(each_s)) < until:
            await asyncio.sleep(at - self.world.loop.time())
            self.inflict(self.stream.choice(drawn))
        await asyncio.sleep(max(0.0, until - self.world.loop.time()))

    def inflict(self, kind: Kind) -> None:
        """Break one thing."""
        done = kind(self)
        if done is not None:
            self.note(f"{kind.__name__.replace('_', ' ')}: {done}")

    def note(self, text: str) -> None:
        """Say what was done."""
        self.log.append(f"[{self.world.loop.time():.3f} s] {text}")

    def mend(self) -> None:
        """Mend everything that is broken."""
        mending, self._mending = self._mending, []
        for one in mending:
            one()
        self.note("all is mended")

    def later(self, seconds: float, mend: Callable[[], None]) -> None:
        """Mend something in so many seconds."""
        self._mending.append(mend)
        self.world.later(seconds, self._mend, mend)

    def _mend(self, mend: Callable[[], None]) -> None:
        if mend in self._mending:
            self._mending.remove(mend)
            mend()

    # --- victims -------------------------------------------------------------------------------------------------

    def node(self) -> SimNode:
        """A node that is up."""
        return self.stream.choice(self.up())

    def up(self) -> list[SimNode]:
        """The nodes that have power, a network and a manager."""
        nodes = self.fleet.nodes.values()
        return [node for node in nodes if node.host.on and not (node.host.cut or node.host.filtered) and node.manager.wanted]

    def may_lose_one(self) -> bool:
        """Whether one more node may be down."""
        nodes = self.fleet.nodes
        return len(nodes) - len(self.up()) < max(1, int(len(nodes) * DOWN_MOST))

    def controller(self) -> SimController:
        """A controller."""
        return self.stream.choice(list(self.fleet.controllers.values()))

    def agent(self) -> HostProcess | None:
        """An agent that lives."""
        agents = [
            process
            for node in self.up()
            for process in node.host.processes.values()
            if process.name.startswith("agent:") and process.alive
        ]
        return self.stream.choice(agents) if agents else None

    # --- what several kinds do -----------------------------------------------------------------------------------

    def kill(self, kept: KeptMember) -> str | None:
        """SIGKILL to what its keeper starts again."""
        if not kept.alive:
            return None
        kept.kill()
        return f"{kept.host.name}:{kept.name}"

    def pause(self, process: HostProcess | None, most_s: float) -> str | None:
        """SIGSTOP for a while."""
        if process is None or process.sim.state != "running":
            return None
        seconds = self.stream.uniform(0.2, most_s)
        self.stall([process], seconds)
        return f"{process.sim.name} for {seconds:.1f} s"

    def stall(self, processes: Sequence[HostProcess | None], seconds: float) -> list[HostProcess]:
        """SIGSTOP to several at once, for so long; those that were stopped."""
        stopped = [process for process in processes if process is not None and process.sim.state == "running"]
        for process in stopped:
            process.sim.pause()

        def resume() -> None:
            for process in stopped:
                process.sim.resume()

        self.later(seconds, resume)
        return stopped

    def stall_node(self, node: SimNode, seconds: float) -> None:
        """All of dsmt's processes of a node stand still, its spawner with them; what they started runs on."""
        self.stall(node.running, seconds)
        self.lose_spawner(node, seconds)

    def lose_spawner(self, node: SimNode, seconds: float) -> None:
        """A node's spawner does not answer."""

        def back() -> None:
            node.processes.gone = False

        node.processes.gone = True
        self.later(seconds, back)

    def cut(self, host: Host, seconds: float) -> None:
        """A host is cut off from all others."""
        self.world.cut(host)
        self.later(seconds, lambda: self.world.heal(host))

    def middlebox(self, nodes: Sequence[SimNode], seconds: float) -> None:
        """A middlebox ends all links of these nodes at once, and lets none be made for so long; datagrams pass."""
        for node in nodes:
            node.host.filtered = True
            self.world.reset(node.host)

        def passes() -> None:
            for node in nodes:
                node.host.filtered = False

        self.later(seconds, passes)

    @staticmethod
    def kill_node(node: SimNode) -> None:
        """All of a node's processes die at once, and nobody starts them again; its kernel lives."""
        node.manager.wanted = node.monitor.wanted = False
        node.host.kill_all()
