"""A machine in memory: its disk, programs, driver, logs, checks and artifacts."""

import asyncio
import random
import signal
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from dsmt.errors import DsmtError, FailedError
from dsmt.event.reason import failed
from dsmt.ports.check import Result
from dsmt.ports.driver import Handle, Launch
from dsmt.ports.logs import Begun
from dsmt.ports.processes import Exit, ProcessIdentity
from dsmt.simulator.engine.process import current_process


class Entropy:
    def __init__(self, seed: int = 1) -> None:
        self.random = random.Random(seed)

    def bytes(self, count: int) -> bytes:
        return self.random.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)


class Moments:
    """Where the process that runs may be killed besides at its awaits: at each start of a program and each write."""

    def __init__(self) -> None:
        self.left = 0
        self.passed = 0

    def __call__(self) -> None:
        self.passed += 1
        if self.left:
            self.left -= 1
            process = current_process()
            if not self.left and process is not None:
                process.kill()


class MemoryFiles:
    """The `Files` port over a dict that outlives its users; what is `stuck` (its whole path) cannot be removed."""

    def __init__(
        self, content: dict[str, bytes] | None = None, root: str = "/node", moment: Callable[[], None] = lambda: None
    ) -> None:
        self.content = {} if content is None else content
        self.moment = moment
        self.stuck: set[str] = set()
        self.on_sync: list[Callable[[], None]] = []
        self._root = root

    @property
    def root(self) -> str:
        return self._root

    def _place(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")

    def read(self, path: str) -> bytes | None:
        return self.content.get(self._place(path))

    def write(self, path: str, content: bytes, *, mode: int = 0o600) -> None:
        self.moment()
        self.content[self._place(path)] = content
        self.moment()

    def give(self, path: str, user: str) -> None:
        pass

    def write_given(self, path: str, name: str, content: bytes, *, user: str, mode: int) -> None:
        self.write(f"{path}/{name}", content, mode=mode)

    async def synced(self, path: str) -> None:
        for call in self.on_sync:
            call()

    def names(self, path: str) -> list[str]:
        prefix = self._place(path) + "/"
        return sorted({key[len(prefix) :].split("/")[0] for key in self.content if key.startswith(prefix)})

    def remove(self, path: str) -> None:
        place = self._place(path)
        going = [key for key in self.content if key == place or key.startswith(place + "/")]
        for key in (key for key in going if key not in self.stuck):
            del self.content[key]
        if stuck := sorted(self.stuck.intersection(going)):
            raise failed("node.files", path=stuck[0], done="removed", error="something is mounted there")

    async def removed(self, path: str) -> None:
        await asyncio.sleep(0.1)
        self.remove(path)

    def below(self, path: str, *, made: bool = True) -> "MemoryFiles":
        below = MemoryFiles(self.content, self._place(path), self.moment)
        below.stuck = self.stuck
        below.on_sync = self.on_sync
        return below


class Program:
    """A running program of the machine; fulfils `Instance`."""

    def __init__(self, machine: "Machine", owner: str, launch: Launch, identity: ProcessIdentity) -> None:
        self.machine = machine
        self.owner = owner
        self.launch = launch
        self.identity = identity
        self.ended: Exit | None = None
        self.waiters: list[asyncio.Future[Exit]] = []
        self.signals: list[int] = []
        self.looks = 0

    @property
    def handle(self) -> Handle:
        return Handle(msgspec.structs.asdict(self.identity))

    @property
    def pid(self) -> int:
        return self.identity.pid

    async def wait(self) -> Exit:
        if self.ended is None:
            waiter = asyncio.get_running_loop().create_future()
            self.waiters.append(waiter)
            return await waiter
        return self.ended

    def look(self) -> None:
        self.looks += 1

    def signal(self, number: int) -> None:
        self.signals.append(number)
        if self.ended is None and "stubborn" not in self.launch.argv:
            self.end(Exit(None, number))

    async def kill(self, *, deadline: float) -> tuple[int, ...]:
        assert deadline > 0
        self.end(Exit(None, signal.SIGKILL))
        return ()

    def end(self, how: Exit) -> None:
        if self.ended is None:
            self.ended = how
            self.machine.exits[self.identity] = how
            for waiter in self.waiters:
                if not waiter.done():
                    waiter.get_loop().call_soon(_set, waiter, how)


def _set(waiter: asyncio.Future[Exit], how: Exit) -> None:
    if not waiter.done():
        waiter.set_result(how)


class Machine:
    """Programs, ports, logs and agents of one machine; fulfils `Sockets`."""

    def __init__(self, boot: str = "boot-1") -> None:
        self.boot = boot
        self.moment = Moments()
        self.programs: list[Program] = []
        self.copies: list[Program] = []
        """Programs that were started while another of the same slot ran."""
        self.exits: dict[ProcessIdentity, Exit] = {}
        self.held: dict[int, str] = {}
        self.wrong: FailedError | None = None
        self.steps: dict[str, Exit] = {}
        self.lacking = ""
        self.prepared: list[Launch] = []
        self.preparing_s = 0.0
        self.starting_s = 0.0
        self.starts = 0
        """How often a driver was told to start a program, those under way included."""
        self.logs: dict[str, bytes] = {}

    @property
    def alive(self) -> list[Program]:
        return [program for program in self.programs if program.ended is None]

    def start(self, owner: str, launch: Launch) -> Program:
        if self.wrong is not None:
            raise self.wrong
        program = Program(self, owner, launch, ProcessIdentity(100 + len(self.programs), 7, self.boot))
        if any(other.owner == owner for other in self.alive):
            self.copies.append(program)
        self.programs.append(program)
        exits = self.steps.get(launch.argv[0])
        if exits is not None:
            program.end(exits)
        self.moment()
        return program

    def drivers(self, owner: str) -> dict[str, "Driver"]:
        return {"process": Driver(self, owner)}

    def reboot(self) -> None:
        for program in self.alive:
            program.end(Exit(None, 9))
        self.boot += "+"
        self.exits.clear()

    async def ended(self, identity: ProcessIdentity) -> Exit:
        return self.exits.get(identity, Exit(None, None))

    def holder(self, port: int, address: str, protocol: str) -> str | None:
        return self.held.get(port)


class Driver:
    """Runs programs of one container on a machine; fulfils the port."""

    fence = "none"
    enforces = ("files",)
    users = ("any",)

    def __init__(self, machine: Machine, owner: str) -> None:
        self.machine = machine
        self.owner = owner

    def available(self) -> str:
        return self.machine.lacking

    async def prepare(self, launch: Launch) -> None:
        self.machine.prepared.append(launch)
        await asyncio.sleep(self.machine.preparing_s)

    async def start(self, launch: Launch) -> Program:
        self.machine.starts += 1
        if self.machine.starting_s:
            await asyncio.sleep(self.machine.starting_s)
        return self.machine.start(self.owner, launch)

    async def adopt(self, handle: Handle) -> Program | None:
        return next((p for p in self.machine.alive if p.handle == handle), None)

    async def ended(self, handle: Handle) -> Exit:
        return await self.machine.ended(ProcessIdentity(**handle))

    async def clear(self, *, deadline: float, spared: Sequence[Handle] = ()) -> tuple[int, ...]:
        for program in self.machine.alive:
            if program.owner == self.owner and program.handle not in spared:
                await program.kill(deadline=deadline)
        return ()


class MemoryLogs:
    def __init__(self, machine: Machine, root: str) -> None:
        self.content = machine.logs
        self.root = root
        self.trims: list[tuple[float, int]] = []
        """When the standard output was trimmed (s of the loop), and how far it had come."""
        self.done: list[tuple[str, str]] = []
        """What was done with which file."""

    def path(self, name: str) -> str:
        return f"{self.root}/logs/{name}.log"

    def begin(self, name: str, *, size_bytes: int, keep: int) -> Begun:
        self.done.append(("begin", name))
        return Begun(self.end(name), rotated=False)

    def end(self, name: str) -> int:
        return len(self.content.get(self.path(name), b""))

    def trim(self, name: str, *, size_bytes: int, keep: int) -> None:
        self.done.append(("trim", name))
        if name == "stdout":
            self.trims.append((asyncio.get_running_loop().time(), self.end(name)))

    def read(self, name: str, start: int, end: int | None, *, back: int = 0, most: int = 65536) -> bytes:
        return self.content.get(self.path(name), b"")[start:end][-most:]

    def write(self, name: str, text: str) -> None:
        self.content[self.path(name)] = self.content.get(self.path(name), b"") + text.encode()


class Checks:
    """Health checks whose answers a test sets."""

    def __init__(self) -> None:
        self.passed = True
        self.failing: list[str] = []
        """The paths that are answered with a failure."""
        self.broken = False
        self.count = 0

    async def run(self, check: Any, **where: Any) -> Result:
        self.count += 1
        self.where = where
        await asyncio.sleep(0.01)
        passed = self.passed and getattr(check.how, "path", None) not in self.failing
        return Result(passed, "200" if passed else "503", 0.01, self.broken)


class Artifacts:
    def __init__(self) -> None:
        self.installed: list[str] = []
        self.wrong: DsmtError | None = None
        self.takes_s = 0.0

    async def install(self, artifact: Any, directory: str, progress: Any) -> None:
        progress("fetch", 0, 10)
        await asyncio.sleep(self.takes_s)
        if self.wrong is not None:
            raise self.wrong
        progress("fetch", 10, 10)
        self.installed.append(f"{directory} {artifact.url}")
