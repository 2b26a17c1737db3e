"""Hosts: simulated machines, and their processes as their kernel sees them.

Rule 1: a process's end closes what it held open, and its peers hear of it; a machine without power says nothing.
Rule 2: pids are not used again within a boot; how a process ended is remembered for the boot.
Rule 3: what a process raises is a bug of the code under simulation: it is kept in `World.crashes`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from math import inf
from typing import Any, Final, Protocol

from dsmt.ports.processes import UNSEEN, Exit, ProcessIdentity
from dsmt.simulator.engine.clocks import SimClock, SimEntropy
from dsmt.simulator.engine.disk import Disk
from dsmt.simulator.engine.findings import failure_text
from dsmt.simulator.engine.loop import SimLoop
from dsmt.simulator.engine.process import SimProcess
from dsmt.simulator.engine.rng import Stream

FIRST_PID: Final = 1000
TICKS: Final = 100
"""Clock ticks in a second, as in /proc/PID/stat."""


@dataclass(slots=True)
class ProgramLife:
    """A program of an instance as its kernel knew it: from when to when (virtual s). `revision` is its environment's."""

    pid: int
    slot: str
    revision: str
    began: float
    ended: float = inf


class Opened(Protocol):
    """Something a kernel holds for a process: a socket."""

    @property
    def closed(self) -> bool:
        """Whether the process has closed it."""
        ...

    def vanish(self) -> None:
        """The process is gone."""
        ...

    def forget(self) -> None:
        """The machine is without power: nobody hears of it."""
        ...


class HostProcess:
    """A process of a host; fulfils `ports.processes.Process`. `opened` is what its kernel closes at its end."""

    def __init__(self, host: Host, name: str) -> None:
        self.host, self.name = host, name
        self.identity = host.next_identity()
        self.sim = SimProcess(f"{host.name}:{name}", loop=host.loop)
        self.opened: list[Opened] = []
        self.exit: Exit | None = None
        self._ended: list[Callable[[HostProcess], None]] = []

    def __repr__(self) -> str:
        return f"<HostProcess {self.host.name}:{self.name} {self.sim.state}>"

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.sim.alive

    def start(self, main: Coroutine[Any, Any, int | None]) -> None:
        """Run it."""
        self.sim.start(main)
        self.host.loop.create_task(self._reap(), name=f"{self.sim.name}:reaped", context=self.host.loop.world)

    def on_end(self, call: Callable[[HostProcess], None]) -> None:
        """Call this, outside of all processes, when it has ended."""
        self._ended.append(call)

    def hold(self, one: Opened) -> None:
        """It has opened something; what it has closed since is no more its own."""
        self.opened = [*(held for held in self.opened if not held.closed), one]

    async def wait(self) -> Exit:
        """Wait for its end."""
        status = await self.sim.wait()
        return Exit(status.code, status.signal)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.sim.send_signal(number)

    def handles(self, number: int) -> bool:
        """Whether it has a handler for a signal, or is gone."""
        return self.sim.handles(number)

    async def _reap(self) -> None:
        status = await self.sim.wait()
        self.exit = Exit(status.code, status.signal)
        if status.failure is not None:
            self.host.crashes.append(f"[{self.host.loop.time():.3f} s in {self.sim.name}] {failure_text(status.failure)}")
        self.host.ended(self)
        for call in self._ended:
            call(self)


class Host:
    """One machine. `cut`: it is partitioned from all others; `filtered`: no link can be made. `on`: it has power."""

    def __init__(self, loop: SimLoop, name: str, address: str, stream: Stream, crashes: list[str]) -> None:
        self.loop, self.name, self.address, self.crashes = loop, name, address, crashes
        self.stream = stream
        self.clock = SimClock(loop)
        self.disk = Disk()
        self.on, self.cut, self.filtered = True, False, False
        self.severed: set[str] = set()
        """The hosts that it alone cannot reach, nor they it."""
        self.side = 0
        """On which side of a partition it is: those of one side reach each other."""
        self.boots = 0
        self.processes: dict[int, HostProcess] = {}
        self.exits: dict[ProcessIdentity, Exit] = {}
        self.udp: dict[int, Any] = {}
        self.wires: dict[Any, None] = {}
        self.programs: dict[int, Any] = {}
        """The running instances' programs by pid (`dsmt.simulator.programs.SimInstance`)."""
        self.mended = False
        """Whether what makes commands fail here has been mended."""
        self.lives: list[ProgramLife] = []
        """Every program of an instance that was ever started here."""
        self.orders: list[str] = []
        """The signals that agents and managers sent to instances that ran."""
        self._next_pid = FIRST_PID
        self._entropies = 0

    def __repr__(self) -> str:
        return f"<Host {self.name} {'on' if self.on else 'off'}{' cut' if self.cut else ''}>"

    @property
    def boot(self) -> str:
        """The boot id."""
        return f"boot-{self.name}-{self.boots}"

    def entropy(self, name: str) -> SimEntropy:
        """Randomness for a program: another stream each time."""
        self._entropies += 1
        return SimEntropy(self.stream.stream(name, self._entropies))

    def next_identity(self) -> ProcessIdentity:
        """The identity of the next process here."""
        self._next_pid += 1
        return ProcessIdentity(self._next_pid, int(self.clock.boottime() * TICKS), self.boot)

    def start(self, name: str, main: Callable[[HostProcess], Coroutine[Any, Any, int | None]]) -> HostProcess:
        """Start a process."""
        process = HostProcess(self, name)
        self.processes[process.identity.pid] = process
        process.start(main(process))
        return process

    def ended(self, process: HostProcess) -> None:
        """A process has ended: rule 1."""
        self.processes.pop(process.identity.pid, None)
        self.exits[process.identity] = process.exit or UNSEEN
        opened, process.opened = process.opened, []
        for one in opened:
            if self.on:
                one.vanish()
            else:
                one.forget()

    async def exit_of(self, identity: ProcessIdentity) -> Exit:
        """How a process ended that is no child of the asker, as the spawner remembers it."""
        return self.exits.get(identity, UNSEEN)

    def kill_all(self) -> None:
        """SIGKILL to everything at once; the kernel lives, so peers hear of it."""
        for process in list(self.processes.values()):
            process.sim.kill()
        for program in list(self.programs.values()):
            program.signal_now(9)

    def power_off(self) -> None:
        """The power is cut: nobody hears a word."""
        self.on = False
        for wire in self.wires:
            wire.broken = True
        self.kill_all()
        self.udp.clear()

    def power_on(self) -> None:
        """It boots: another boot id, the same disk; its kernel resets what peers still hold open to it."""
        self.on = True
        self.boots += 1
        self.exits.clear()
        self.clock.reboot()
        wires, self.wires = list(self.wires), {}
        for wire in wires:
            wire.reset()
