"""A node below a spawner that is started in a process of its own."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from dsmt.errors import TransportError
from dsmt.ports.processes import ProcessIdentity
from dsmt.system.processes import Request, SpawnedProcesses, spawner_of, start_spawner
from dsmt.system.procfs import descendants, identity_of, is_alive, open_pidfd
from dsmt.system.records import process_of, read_record
from tests.waiting import until

HARNESS = """
import sys
from dsmt.programs.spawner import main
sys.path.insert(0, {programs!r})
sys.exit(main({directory!r}, {table!r}, {kept!r}, lock=int(sys.argv[1]) if sys.argv[1:] else None, replace={replace}))
"""

PROGRAMS = """
import os, signal, sys, time

def idle(directory):
    print("started", os.getpid(), flush=True)
    while True:
        time.sleep(600)

def stubborn(directory):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    return idle(directory)

def brief(directory):
    return 0

def agent(directory):
    # Does what a file in its directory says.
    with open(os.path.join(directory, "does")) as file:
        does = file.read()
    if does == "exit":
        return 7
    if does == "raise":
        raise RuntimeError("a bug in the agent")
    if does == "look":
        fds = []
        for fd in sorted(int(name) for name in os.listdir("/proc/self/fd")):
            try:
                fds.append((fd, os.readlink(f"/proc/self/fd/{fd}")))
            except FileNotFoundError:
                pass
        defaults = [signal.getsignal(n) is signal.SIG_DFL for n in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP)]
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        print(fds, os.getsid(0) == os.getpid(), defaults, blocked, sys.stdin.read() == "")
        print("to the log too", file=sys.stderr)
        return 0
    if does == "service":
        pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], {}, setsid=True)
        print("service", pid, flush=True)
    return idle(directory)
"""


def kill(identity):
    """SIGKILL this very process, if it is still there."""
    descriptor = open_pidfd(identity)
    if descriptor is not None:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


class Node:
    """A node's directory, with what the tests ask of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)
        self.programs = directory.parent / "programs"
        self.programs.mkdir()
        (self.programs / "spawned.py").write_text(PROGRAMS)
        self.table = {
            "container_manager": "spawned:idle",
            "node_monitor": "spawned:idle",
            "deployment_agent": "spawned:agent",
        }
        self.kept = (("container_manager", ""), ("node_monitor", ""))
        self.seen: set[ProcessIdentity] = set()

    @property
    def argv(self) -> list[str]:
        return self._argv()

    @property
    def replaces(self) -> list[str]:
        """That of one which takes the place of who is there."""
        return self._argv(replace=True)

    def _argv(self, *, replace: bool = False) -> list[str]:
        told = {"directory": self.directory, "table": self.table, "kept": self.kept, "replace": replace}
        return [sys.executable, "-c", HARNESS.format(programs=str(self.programs), **told)]

    def start(self) -> ProcessIdentity:
        identity = self.followed()
        assert identity is not None
        return identity

    def followed(self) -> ProcessIdentity | None:
        """Another spawner, unless the lock is somebody's."""
        identity = start_spawner(self.directory, self.argv)
        if identity is not None:
            self.seen.add(identity)
        return identity

    def program(self, name: str) -> ProcessIdentity | None:
        identity = process_of(self.directory, name)
        if identity is not None:
            self.seen.add(identity)
        return identity

    async def up(self) -> tuple[ProcessIdentity, ProcessIdentity, ProcessIdentity]:
        """Wait for the spawner and its two programs."""
        names = ("spawner", "container_manager", "node_monitor")
        await until(lambda: all(self.program(name) for name in names))
        spawner, manager, monitor = (self.program(name) for name in names)
        return spawner, manager, monitor

    async def answers(self) -> None:
        """Wait until the spawner takes requests."""
        end = time.monotonic() + 20.0
        while True:
            try:
                await SpawnedProcesses(self.directory).request(Request("list"))
            except TransportError:
                assert time.monotonic() < end, "the spawner does not answer"
                await asyncio.sleep(0.005)
            else:
                return

    def container(self, name: str, does: str) -> str:
        path = Path(self.directory) / "containers" / name
        path.mkdir(parents=True)
        (path / "does").write_text(does)
        return str(path)

    def log(self, name: str) -> str:
        path = Path(self.directory) / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def end(self) -> None:
        """Kill the spawner first, then all the rest."""
        spawner = spawner_of(self.directory)
        doomed = {identity_of(pid) for pid in descendants(spawner.pid)} if spawner is not None else set()
        for path in Path(self.directory).rglob("run/*.json"):
            record = read_record(str(path))
            if record is not None:
                doomed |= {record} | {identity_of(pid) for pid in descendants(record.pid) if is_alive(record)}
        if spawner is not None:
            kill(spawner)
        for identity in (doomed | self.seen) - {None}:
            kill(identity)
