"""Simulated programs of instances: they live as long as the seed says, and obey signals; fulfils `ports.driver.Driver`.

Rule 1: a program belongs to its machine: it outlives the agent that started it, and ends with the machine's power.
Rule 2: most end by themselves some time, some of them by a signal; most obey SIGTERM, some only SIGKILL.
Rule 3: who started or adopted it learns how it ended.
Rule 4: one whose command says `fails` ends with 1: a step when it has run its time, a program after `SHORT_S`.
"""

from __future__ import annotations

import asyncio
import signal as signals
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from dsmt.ports.driver import Handle, Launch
from dsmt.ports.processes import Exit, ProcessIdentity
from dsmt.simulator.engine.host import Host, ProgramLife


@dataclass(frozen=True, slots=True)
class Habits:
    """How programs behave. `life_s` is the mean life (exponential); the others are shares of lives."""

    life_s: float = 600.0
    by_signal: float = 0.5
    stubborn: float = 0.02
    end_s: tuple[float, float] = (0.005, 0.2)
    """How long an obedient one takes to end."""


STEP_S: Final = (0.01, 0.3)
"""How long a step's command (`install`, `configure`) takes."""
SHORT_S: Final = 0.05
FAILS: Final = "fails"
_DEADLY: Final = (signals.SIGSEGV, signals.SIGKILL, signals.SIGABRT)


class SimInstance:
    """One running program; fulfils `ports.driver.Instance`. `slot` is `service/component/index`, empty for a step.

    `owner` is the directory of its container.
    """

    def __init__(self, host: Host, owner: str, launch: Launch, habits: Habits) -> None:
        self.host, self.owner, self.launch = host, owner, launch
        self.identity: ProcessIdentity = host.next_identity()
        self.slot = launch.env.get("DSMT_INSTANCE", "") if launch.stdout != launch.stderr else ""
        self.began = host.loop.time()
        self.exit: Exit | None = None
        self._waiters: list[asyncio.Future[Exit]] = []
        self._habits = habits
        self._stubborn = host.stream.chance(habits.stubborn)
        beside = [one for one in host.programs.values() if self.slot and one.slot == self.slot]
        if any(one.launch.env == launch.env for one in beside):  # an update may start the new one first
            host.crashes.append(f"[{host.loop.time():.3f} s] {host.name} runs two copies of {self.slot}")
        host.programs[self.identity.pid] = self
        self._life = ProgramLife(self.identity.pid, self.slot, launch.env.get("REVISION", ""), self.began)
        if self.slot:
            host.lives.append(self._life)
        ends, how = self._fate()
        host.loop.call_in_at(None, host.loop.time() + ends, self._end, how)

    def __repr__(self) -> str:
        return f"<SimInstance {self.slot} on {self.host.name} {self.exit or 'running'}>"

    @property
    def ports(self) -> list[int]:
        """The ports it listens on."""
        return [int(value) for name, value in self.launch.env.items() if name.startswith("PORT_")]

    def _fate(self) -> tuple[float, Exit]:
        stream, fails = self.host.stream, FAILS in self.launch.argv and not self.host.mended
        if not self.slot:
            return stream.uniform(*STEP_S), Exit(int(fails), None)
        if fails:
            return SHORT_S, Exit(1, None)
        signalled = stream.chance(self._habits.by_signal)
        how = Exit(None, stream.choice(_DEADLY)) if signalled else Exit(stream.below(3), None)
        return stream.exponential(self._habits.life_s), how

    @property
    def handle(self) -> Handle:
        """Which process it is."""
        return Handle(msgspec.structs.asdict(self.identity))

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self.identity.pid

    async def wait(self) -> Exit:
        """Wait for its end."""
        if self.exit is None:
            waiter: asyncio.Future[Exit] = self.host.loop.create_future()
            self._waiters.append(waiter)
            return await waiter
        return self.exit

    def look(self) -> None:
        """Nothing of it ever escapes."""

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.host.loop.require_alive()
        if self.exit is None and self.slot:
            self.host.orders.append(f"[{self.host.loop.time():.3f} s] signal {number} to {self.slot} on {self.host.name}")
        self.signal_now(number)

    def signal_now(self, number: int) -> None:
        """Send it a signal, from outside of all processes."""
        if self.exit is not None:
            return
        if number == signals.SIGKILL:
            self._end(Exit(None, number))
        elif number == signals.SIGTERM and not self._stubborn:
            when = self.host.loop.time() + self.host.stream.uniform(*self._habits.end_s)
            self.host.loop.call_in_at(None, when, self._end, Exit(0, None))

    def crash(self) -> None:
        """It crashes now."""
        self._end(Exit(None, signals.SIGSEGV))

    async def kill(self, *, deadline: float) -> tuple[int, ...]:  # noqa: ARG002 - it always dies at once
        """SIGKILL; nothing is ever left."""
        self.signal(signals.SIGKILL)
        return ()

    def _end(self, how: Exit) -> None:
        if self.exit is not None:
            return
        self.exit = how
        self._life.ended = self.host.loop.time()
        self.host.programs.pop(self.identity.pid, None)
        self.host.exits[self.identity] = how
        if how.code != 0:
            self.host.disk.append(self.launch.stderr, b"something went wrong\n")
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(how)


class SimDriver:
    """Runs programs of the container in a directory of one host, in place of each of the real drivers."""

    fence = "none"
    enforces: tuple[str, ...] = ("memory", "pids", "files")
    users: tuple[str, ...] = ("any",)

    def __init__(self, host: Host, owner: str, habits: Habits) -> None:
        self._host, self._owner, self._habits = host, owner, habits

    def available(self) -> str:
        """It can always run here."""
        return ""

    async def prepare(self, launch: Launch) -> None:
        """Nothing is to be made ready."""

    async def start(self, launch: Launch) -> SimInstance:
        """Start a program."""
        self._host.loop.require_alive()
        return SimInstance(self._host, self._owner, launch, self._habits)

    async def adopt(self, handle: Handle) -> SimInstance | None:
        """Take over an instance that an earlier agent started; None when it is gone."""
        found = self._host.programs.get(handle["pid"])
        return found if isinstance(found, SimInstance) and found.handle == handle else None

    async def ended(self, handle: Handle) -> Exit:
        """How an instance ended, as the spawner remembers it."""
        return await self._host.exit_of(ProcessIdentity(**handle))

    async def clear(self, *, deadline: float, spared: Sequence[Handle] = ()) -> tuple[int, ...]:  # noqa: ARG002
        """SIGKILL all programs of the container but the spared ones; they always die at once."""
        self._host.loop.require_alive()
        for program in list(self._host.programs.values()):
            if isinstance(program, SimInstance) and program.owner == self._owner and program.handle not in spared:
                program.signal(signals.SIGKILL)
        return ()
