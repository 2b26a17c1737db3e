"""The spawner, with real forks: who it starts, what it remembers, and what survives it."""

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dsmt.errors import FailedError, TransportError
from dsmt.ports.processes import Exit, Identity, Processes
from dsmt.programs.asking import Pings
from dsmt.system.processes import SpawnedProcesses, keep_asking, spawner_of, start_spawner, watch_spawner
from dsmt.system.procfs import descendants, identity_of, is_alive, open_pidfd, stat_of
from dsmt.system.records import living, read_record, record_path, write_record

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("leaves_nothing")]

HARNESS = """
import sys
from dsmt.programs.spawner import main
sys.path.insert(0, {programs!r})
sys.exit(main({directory!r}, {table!r}, {kept!r}, lock=int(sys.argv[1]) if sys.argv[1:] else None))
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


async def until(condition, seconds=20.0):
    """Wait for a condition with a deadline; what it gave."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "the condition did not come true"
        await asyncio.sleep(0.005)
    return value


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
        self.seen: set[Identity] = set()

    @property
    def argv(self) -> list[str]:
        code = HARNESS.format(programs=str(self.programs), directory=self.directory, table=self.table, kept=self.kept)
        return [sys.executable, "-c", code]

    def start(self) -> Identity:
        identity = start_spawner(self.directory, self.argv)
        assert identity is not None
        self.seen.add(identity)
        return identity

    def program(self, name: str) -> Identity | None:
        identity = living(record_path(self.directory, name))
        if identity is not None:
            self.seen.add(identity)
        return identity

    async def up(self) -> tuple[Identity, Identity, Identity]:
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
                await SpawnedProcesses(self.directory).request({"op": "list"})
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


@pytest.fixture
def node(tmp_path):
    # A test before may have made this process a subreaper; then it, and not init, would inherit and see ends.
    assert ctypes.CDLL(None).prctl(36, 0, 0, 0, 0) == 0
    (tmp_path / "node").mkdir()
    made = Node(tmp_path / "node")
    yield made
    made.end()


def test_it_starts_the_programs_of_the_node_and_writes_who_they_are(node):
    async def main():
        started = node.start()
        spawner, manager, monitor = await node.up()
        assert started == spawner
        assert len({spawner.pid, manager.pid, monitor.pid}) == 3
        assert stat_of(manager.pid).parent == spawner.pid
        assert stat_of(spawner.pid).session == spawner.pid
        for name, who in (("spawner", spawner), ("container_manager", manager), ("node_monitor", monitor)):
            record = json.loads((Path(node.directory) / "run" / f"{name}.json").read_text())
            assert record == {"pid": who.pid, "started": who.started, "boot": who.boot}
        await until(lambda: f"started {manager.pid}" in node.log("container_manager"))
        processes = SpawnedProcesses(node.directory)
        rows = (await processes.request({"op": "list"}))["processes"]
        assert [(row["program"], row["pid"]) for row in rows] == [
            ("spawner", spawner.pid),
            ("container_manager", manager.pid),
            ("node_monitor", monitor.pid),
        ]

    asyncio.run(main())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_program_of_the_node_that_dies_is_started_again(node, number):
    async def main():
        node.start()
        spawner, manager, monitor = await node.up()
        kill_with = open_pidfd(manager)
        signal.pidfd_send_signal(kill_with, number)
        os.close(kill_with)
        again = await until(lambda: (now := node.program("container_manager")) != manager and now)
        assert stat_of(again.pid).parent == spawner.pid
        assert node.program("node_monitor") == monitor

    asyncio.run(main())


def test_a_program_that_ends_at_once_is_not_started_without_pause(node):
    node.table["node_monitor"] = "spawned:brief"

    async def main():
        node.start()
        await until(lambda: node.log("spawner").count("node_monitor (pid") >= 4)
        delays = [line.rsplit(" ", 2)[1] for line in node.log("spawner").splitlines() if "node_monitor (pid" in line]
        assert delays[:4] == ["0.1", "0.2", "0.4", "0.8"]

    asyncio.run(main())


def test_a_program_that_cannot_be_imported_is_an_error(node):
    node.table["node_monitor"] = "spawned:nothing"
    done = subprocess.run(node.argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the program node_monitor (spawned:nothing) cannot be imported: AttributeError" in done.stderr
    assert not (Path(node.directory) / "run").exists()


def test_a_program_that_starts_a_thread_when_imported_is_an_error(node):
    (node.programs / "threaded.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\nmain = print\n"
    )
    node.table["node_monitor"] = "threaded:main"
    done = subprocess.run(node.argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "2 run, none can fork" in done.stderr


def test_a_second_spawner_of_a_directory_leaves_with_a_sentence(node):
    async def main():
        node.start()
        spawner, manager, _monitor = await node.up()
        done = subprocess.run(node.argv, capture_output=True, text=True, check=False)  # noqa: ASYNC221
        assert (done.returncode, done.stderr) == (
            0,
            f"spawner: {node.directory} has a spawner already; nothing to do\n",
        )
        assert (node.program("spawner"), node.program("container_manager")) == (spawner, manager)

    asyncio.run(main())


def test_a_spawner_is_known_from_its_birth_and_no_other_is_started_beside_it(node):
    async def main():
        slow = [sys.executable, "-c", "import time; time.sleep(600)"]
        first = start_spawner(node.directory, slow)
        assert first is not None
        node.seen.add(first)
        assert spawner_of(node.directory) == first
        os.unlink(record_path(node.directory, "spawner"))  # noqa: PTH108 - no path of a disk that blocks
        assert start_spawner(node.directory, node.argv) is None
        kill(first)
        await until(lambda: not is_alive(first))
        node.start()
        await node.up()

    asyncio.run(main())


def test_an_agent_starts_clean(node):
    async def main():
        node.start()
        await node.up()
        directory = node.container("c", "look")
        process = await SpawnedProcesses(node.directory).start_agent(directory)
        node.seen.add(process.identity)
        assert await process.wait() == Exit(0, None)
        assert await process.wait() == Exit(0, None)
        first, second = (Path(directory) / "deployment_agent.log").read_text().splitlines()
        log = f"{directory}/deployment_agent.log"
        assert first.startswith(f"[(0, '/dev/null'), (1, '{log}'), (2, '{log}')] True [True, True, True] set() True")
        assert second == "to the log too"
        assert read_record(record_path(directory, "deployment_agent")) == process.identity

    asyncio.run(main())


def test_how_an_agent_ended_is_known_afterwards(node):
    async def main():
        processes: Processes = SpawnedProcesses(node.directory)
        node.start()
        await node.up()
        ends = {}
        for does in ("exit", "raise", "idle"):
            process = await processes.start_agent(node.container(does, does))
            if does == "idle":
                assert processes.find(process.identity) is process
                assert processes.find(replace(process.identity, started=process.identity.started + 1)) is None
                process.signal(signal.SIGKILL)
            ends[does] = await asyncio.gather(process.wait(), process.wait())
            assert processes.find(process.identity) is None
            assert await processes.ended(process.identity) == ends[does][0]
        assert ends == {"exit": [Exit(7, None)] * 2, "raise": [Exit(70, None)] * 2, "idle": [Exit(None, 9)] * 2}
        log = (Path(node.directory) / "containers/raise/deployment_agent.log").read_text()
        assert log.startswith("Traceback")
        assert log.endswith("RuntimeError: a bug in the agent\n")

    asyncio.run(main())


def command_line(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


def test_each_process_has_its_program_and_directory_for_a_command_line(node):
    async def main():
        directory = node.container("c", "idle")
        node.start()
        await node.up()
        agent = await SpawnedProcesses(node.directory).start_agent(directory)
        await until(lambda: command_line(agent.identity.pid) == f"dsmt-deployment_agent {directory}")
        agent.signal(signal.SIGKILL)
        await agent.wait()

    asyncio.run(main())


def test_a_start_that_is_asked_twice_is_one_start(node):
    async def main():
        node.start()
        await node.up()
        directory = node.container("c", "idle")
        first = await SpawnedProcesses(node.directory).start_agent(directory)
        second = await SpawnedProcesses(node.directory).start_agent(directory)
        assert first.identity == second.identity
        first.signal(signal.SIGKILL)
        await first.wait()
        assert (await SpawnedProcesses(node.directory).start_agent(directory)).identity != first.identity

    asyncio.run(main())


def test_the_service_of_a_dead_agent_lives_on_and_its_end_is_known(node):
    async def main():
        node.start()
        spawner, *_rest = await node.up()
        processes = SpawnedProcesses(node.directory)
        directory = node.container("c", "service")
        agent = await processes.start_agent(directory)
        await until(lambda: "started" in node.log("containers/c/deployment_agent"))
        service = identity_of(int(node.log("containers/c/deployment_agent").split()[1]))
        node.seen.add(service)
        agent.signal(signal.SIGKILL)
        assert await agent.wait() == Exit(None, 9)
        assert stat_of(service.pid).parent == spawner.pid
        found = processes.find(service)
        found.signal(signal.SIGTERM)
        assert await found.wait() == Exit(None, signal.SIGTERM)
        assert await processes.ended(replace(service, started=service.started - 1)) == Exit(None, None)

    asyncio.run(main())


def test_a_spawner_that_was_killed_is_followed_by_one_that_adopts(node):
    async def main():
        node.start()
        spawner, manager, monitor = await node.up()
        processes = SpawnedProcesses(node.directory)
        agent = await processes.start_agent(node.container("c", "idle"))
        node.seen.add(agent.identity)
        kill(spawner)
        await until(lambda: not is_alive(spawner))
        with pytest.raises(TransportError) as caught:
            await processes.start_agent(node.container("d", "idle"))
        assert caught.value.code == "spawner.gone"
        later = node.start()
        assert spawner_of(node.directory) == later
        await node.answers()
        assert (node.program("container_manager"), node.program("node_monitor")) == (manager, monitor)
        assert is_alive(agent.identity)
        again = await processes.start_agent(str(Path(node.directory) / "containers" / "c"))
        assert again.identity == agent.identity
        kill(manager)
        await until(lambda: (now := node.program("container_manager")) and now != manager)
        assert node.program("node_monitor") == monitor
        agent.signal(signal.SIGKILL)
        assert await agent.wait() == Exit(None, None)

    asyncio.run(main())


def test_a_record_of_another_process_is_not_adopted(node):
    async def main():
        own = identity_of(os.getpid())
        write_record(record_path(node.directory, "container_manager"), replace(own, started=own.started - 1))
        write_record(record_path(node.directory, "node_monitor"), replace(own, boot="another boot"))
        node.start()
        spawner, manager, monitor = await node.up()
        assert {manager.pid, monitor.pid}.isdisjoint({os.getpid(), spawner.pid})

    asyncio.run(main())


def test_sigterm_ends_the_programs_of_the_node_but_no_agent(node):
    async def main():
        node.start()
        spawner, manager, monitor = await node.up()
        agent = await SpawnedProcesses(node.directory).start_agent(node.container("c", "service"))
        node.seen.add(agent.identity)
        os.kill(spawner.pid, signal.SIGTERM)
        await until(lambda: not is_alive(spawner))
        assert not is_alive(manager)
        assert not is_alive(monitor)
        assert is_alive(agent.identity)
        return spawner

    spawner = asyncio.run(main())
    assert os.waitpid(spawner.pid, 0) == (spawner.pid, 0)


def test_a_program_that_ignores_sigterm_is_killed_when_the_spawner_stops(node):
    node.table["node_monitor"] = "spawned:stubborn"

    async def main():
        node.start()
        spawner, _manager, monitor = await node.up()
        await until(lambda: "deaf" in node.log("node_monitor"))
        os.kill(spawner.pid, signal.SIGINT)
        await until(lambda: not is_alive(spawner))
        assert not is_alive(monitor)

    asyncio.run(main())


def test_whoever_watches_the_spawner_replaces_it(node):
    async def main():
        watching = asyncio.ensure_future(watch_spawner(node.directory, node.argv))
        first, manager, _monitor = await node.up()
        kill(first)
        second = await until(lambda: (now := spawner_of(node.directory)) != first and now)
        node.seen.add(second)
        assert node.program("container_manager") == manager
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        assert is_alive(second)

    asyncio.run(main())


def test_a_spawner_that_hangs_is_killed_and_followed_by_one_that_takes_over_and_one_that_answers_again_is_not(
    node, monkeypatch
):
    monkeypatch.setattr("dsmt.system.processes.PATIENCE_S", 0.3)
    asked = []

    async def is_silent(processes, really=SpawnedProcesses.is_silent):
        asked.append(await really(processes))
        return asked[-1]

    monkeypatch.setattr(SpawnedProcesses, "is_silent", is_silent)

    async def main():
        watching = asyncio.ensure_future(watch_spawner(node.directory, node.argv, ask_s=0.05))
        first, manager, _monitor = await node.up()
        await until(lambda: asked.count(False) > 1)
        asked.clear()
        os.kill(first.pid, signal.SIGSTOP)
        await until(lambda: asked.count(True) == 2)
        os.kill(first.pid, signal.SIGCONT)
        await until(lambda: False in asked)
        assert is_alive(first)
        os.kill(first.pid, signal.SIGSTOP)
        second = await until(lambda: (now := spawner_of(node.directory)) != first and now)
        node.seen.add(second)
        assert not is_alive(first)
        assert node.program("container_manager") == manager
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        assert is_alive(second)

    asyncio.run(main())


def test_who_is_kept_and_has_ceased_to_ask_hangs_is_killed_and_started_again_and_who_never_asked_is_not(node):
    async def ping(identity):
        message = {"op": "ping", "pid": identity.pid, "started": identity.started}
        assert await SpawnedProcesses(node.directory).request(message) == {}

    async def main():
        silent = "import dsmt.programs.asking as asking; asking.Pings.__init__.__defaults__ = (0.3, 0.1)\n"
        argv = [*node.argv[:-1], silent + node.argv[-1]]
        node.seen.add(start_spawner(node.directory, argv))
        _spawner, manager, monitor = await node.up()
        await node.answers()
        await ping(monitor)
        second = await until(lambda: (now := node.program("node_monitor")) != monitor and now)
        assert not is_alive(monitor)
        await ping(manager)
        await until(lambda: (now := node.program("container_manager")) != manager and now)
        assert is_alive(second)  # it is not expected to ask before it has asked once

    asyncio.run(main())


def test_who_ends_a_node_asks_on_and_restarts_no_spawner(node):
    async def main():
        first = node.start()
        await node.answers()
        asked = []

        async def is_silent(processes, really=SpawnedProcesses.is_silent):
            asked.append(await really(processes))

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(SpawnedProcesses, "is_silent", is_silent)
            asking = asyncio.ensure_future(keep_asking(node.directory, ask_s=0.01))
            await until(lambda: len(asked) > 2)
            kill(first)
            count = len(asked)
            await until(lambda: len(asked) > count + 2)
            asking.cancel()
        assert spawner_of(node.directory) is None

    asyncio.run(main())


def test_who_stood_still_with_its_spawner_may_ask_again_before_it_is_said_to_hang():
    pings, manager = Pings(60.0, 10.0), Identity(1, 1, "boot")
    assert pings.due is None
    pings.heard(manager, 0.0)
    pings.heard(manager, 10.0)
    assert (pings.hung(69.0), pings.due) == ([], 70.0)
    assert (pings.hung(500.0), pings.due) == ([], 510.0)
    pings.heard(manager, 501.0)
    assert (pings.hung(560.0), pings.due) == ([], 561.0)
    assert (pings.hung(561.0), pings.hung(570.9), pings.hung(571.0), pings.due) == ([], [], [manager], None)


def test_who_stands_still_with_its_spawner_again_and_again_is_not_said_to_hang():
    pings, monitor = Pings(60.0, 10.0), Identity(1, 1, "boot")
    pings.heard(monitor, 0.0)
    assert (pings.hung(500.0), pings.due) == ([], 510.0)
    assert (pings.hung(900.0), pings.due) == ([], 910.0)
    assert (pings.hung(910.5), pings.due) == ([monitor], None)


def test_a_log_that_has_grown_is_put_aside_at_start(node):
    async def main():
        directory = node.container("c", "exit")
        log = Path(directory) / "deployment_agent.log"
        log.write_bytes(b"x" * (1 << 20) + b"y")
        node.start()
        await node.up()
        processes = SpawnedProcesses(node.directory)
        await (await processes.start_agent(directory)).wait()
        assert (log.with_name(log.name + ".1").stat().st_size, log.stat().st_size) == ((1 << 20) + 1, 0)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("message", "word"),
    [
        ({"op": "dance"}, "'dance' is none of"),
        ({"op": "start", "program": "sh", "directory": "/tmp"}, "'sh'"),
        ({"op": "start", "program": "deployment_agent", "directory": "relative"}, "'relative'"),
        ({"op": "status", "pid": "x"}, "not understood"),
        ({"op": "start", "program": "deployment_agent", "directory": "/dev/null/x"}, "/dev/null"),
    ],
)
def test_a_request_that_makes_no_sense_is_answered(node, message, word):
    async def main():
        node.start()
        await node.up()
        processes = SpawnedProcesses(node.directory)
        with pytest.raises(FailedError, match=word):
            await processes.request(message)
        answer = await processes.request({"op": "status", "pid": 1, "started": 1})
        assert answer == {"unknown": True}
        own = identity_of(os.getpid())
        assert await processes.request({"op": "status", "pid": own.pid, "started": own.started}) == {"running": True}

    asyncio.run(main())


def test_a_long_directory_does_not_matter(node, tmp_path):
    long = tmp_path / ("n" * 200)
    long.mkdir()
    node.directory = str(long)

    async def main():
        node.start()
        await node.up()
        process = await SpawnedProcesses(node.directory).start_agent(node.container("c" * 100, "exit"))
        assert await process.wait() == Exit(7, None)

    asyncio.run(main())


def test_what_every_program_has_in_memory_is_what_one_of_them_needs_to_run() -> None:
    script = (
        "import sys; from dsmt.programs.keeper import PROGRAMS; from dsmt.programs.spawner import load; load(PROGRAMS); "
        "print([m for m in sys.modules if m in {'structlog', 'rich', 'pygments', 'attr', 'ruamel', 'psutil', 'click'}])"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert loaded.stdout.strip() == "[]"
