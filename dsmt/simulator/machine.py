"""What else a simulated node's programs touch: how full it is, its ports, checks, artifacts, and its spawner."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Literal

from dsmt.errors import TransportError
from dsmt.ports.artifacts import Progress
from dsmt.ports.check import Result
from dsmt.ports.machine import MachineReading
from dsmt.ports.processes import ProcessIdentity
from dsmt.simulator.engine.host import Host, HostProcess
from dsmt.simulator.programs import SimInstance
from dsmt.spec.health import Check as CheckSpec
from dsmt.spec.records import Artifact

GIB: Final = 1024**3
CHECK_S: Final = (0.001, 0.01)
FETCH_S: Final = (0.05, 1.0)
SPAWN_S: Final = (0.002, 0.02)

AgentMain = Callable[[HostProcess, str], Coroutine[Any, Any, int | None]]


class SimMachine:
    """Fulfils `ports.machine.Machine`; the size of a machine is drawn from its name."""

    def __init__(self, host: Host) -> None:
        self._host = host
        stream = host.stream.stream("machine")
        self._cpus = stream.choice((4, 8, 16))
        self._memory = stream.choice((8, 16, 32)) * GIB

    @property
    def boot_id(self) -> str:
        """The boot id."""
        return self._host.boot

    def read(self) -> MachineReading:
        """Look now."""
        running = len(self._host.programs)
        return MachineReading(
            cpus=self._cpus,
            memory_bytes=self._memory,
            memory_free_bytes=max(GIB // 8, self._memory - running * GIB // 4),
            disk_bytes=500 * GIB,
            disk_free_bytes=400 * GIB,
            load=round(0.1 * running, 2),
        )

    def pid_of(self, program: str) -> int | None:
        """The pid of a living program of this node."""
        return next((pid for pid, one in self._host.processes.items() if one.name == program), None)


class SimSockets:
    """Fulfils `ports.sockets.Sockets`: the ports of the programs that run."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def holder(self, port: int, address: str, protocol: Literal["tcp", "udp"]) -> str | None:  # noqa: ARG002 - one address
        """Who holds a port, or None."""
        for pid, program in self._host.programs.items():
            if port in program.ports:
                return f"pid {pid} {program.slot}"
        return None


class SimChecks:
    """Fulfils `ports.check.Checks`: passes while the instance runs, but for a share `failing` of the tries."""

    def __init__(self, host: Host, *, failing: float = 0.0) -> None:
        self._host, self._failing = host, failing

    async def run(
        self,
        check: CheckSpec,  # noqa: ARG002 - all kinds are alike here
        *,
        address: str,  # noqa: ARG002
        ports: Mapping[str, int],  # noqa: ARG002
        env: Mapping[str, str],
        directory: str,  # noqa: ARG002
        user: str = "",  # noqa: ARG002
    ) -> Result:
        """One try."""
        took = self._host.stream.uniform(*CHECK_S)
        await asyncio.sleep(took)
        slot = env.get("DSMT_INSTANCE", "")
        there = any(isinstance(one, SimInstance) and one.slot == slot for one in self._host.programs.values())
        passed = there and not self._host.stream.chance(self._failing)
        return Result(passed, "200" if passed else "no answer", took)


class SimArtifacts:
    """Fulfils `ports.artifacts.Artifacts`: everything is there, after a while."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def install(self, artifact: Artifact, directory: str, progress: Progress) -> None:
        """Fetch and unpack."""
        await asyncio.sleep(self._host.stream.uniform(*FETCH_S))
        self._host.disk.write(f"{directory}/{artifact.to}/artifact", (artifact.sha256 or "").encode())
        progress("unpack", 1, 1)


class SimProcesses:
    """The spawner of one host, as its clients see it; fulfils `ports.processes.Processes`. `gone`: it does not answer."""

    def __init__(self, host: Host, agent: AgentMain) -> None:
        self.gone = False
        self._host, self._agent = host, agent

    async def start_agent(self, directory: str) -> HostProcess:
        """Start a deployment agent, or find the one that runs there. Raises `TransportError` (`spawner.gone`)."""
        await asyncio.sleep(self._host.stream.uniform(*SPAWN_S))
        if self.gone or not self._host.on:
            raise TransportError("spawner.gone", f"the spawner of {self._host.name} does not answer")
        name = f"agent:{directory}"
        for process in self._host.processes.values():
            if process.name == name and process.alive:
                return process
        return self._host.start(name, lambda process: self._agent(process, directory))

    def kill(self, directory: str) -> None:
        """SIGKILL the agent in a directory, if one lives."""
        for process in list(self._host.processes.values()):
            if process.name == f"agent:{directory}":
                process.signal(signal.SIGKILL)

    def find(self, identity: ProcessIdentity) -> HostProcess | None:
        """The process if it still lives."""
        process = self._host.processes.get(identity.pid)
        return process if process is not None and process.identity == identity and process.alive else None
