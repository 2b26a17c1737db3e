"""The spawner, with real forks: whom it starts, and how."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from dsmt.errors import FailedError
from dsmt.ports.processes import Exit, Processes
from dsmt.system.processes import SOCKET, Request, SpawnedProcesses
from dsmt.system.procfs import identity_of, open_pidfd, stat_of
from dsmt.system.records import process_of, read_record, record_path
from tests.loops import in_real_time
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("leaves_nothing")]


@in_real_time
async def test_it_starts_the_programs_of_the_node_and_writes_who_they_are(node):
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
    rows = (await processes.request(Request("list")))["processes"]
    assert [(row["program"], row["pid"]) for row in rows] == [
        ("spawner", spawner.pid),
        ("container_manager", manager.pid),
        ("node_monitor", monitor.pid),
    ]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
@in_real_time
async def test_a_program_of_the_node_that_dies_is_started_again(node, number):
    node.start()
    spawner, manager, monitor = await node.up()
    kill_with = open_pidfd(manager)
    signal.pidfd_send_signal(kill_with, number)
    os.close(kill_with)
    again = await until(lambda: (now := node.program("container_manager")) != manager and now)
    assert stat_of(again.pid).parent == spawner.pid
    assert node.program("node_monitor") == monitor


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


@in_real_time
async def test_an_agent_starts_clean(node):
    node.start()
    await node.up()
    directory = node.container("c", "look")
    process = await SpawnedProcesses(node.directory).start_agent(directory)
    node.seen.add(process.identity)
    assert await process.wait() == Exit(0, None)
    assert await process.wait() == Exit(0, None)
    first, second = (Path(directory) / "deployment_agent.log").read_text().splitlines()
    log = f"{directory}/deployment_agent.log"
    own = f"(3, '{directory}')"  # by which it is found where it has no record
    assert first.startswith(f"[(0, '/dev/null'), (1, '{log}'), (2, '{log}'), {own}] True [True, True, True] set() True")
    assert second == "to the log too"
    assert read_record(record_path(directory, "deployment_agent")) == process.identity


@in_real_time
async def test_how_an_agent_ended_is_known_afterwards(node):
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


def command_line(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


@in_real_time
async def test_each_process_has_its_program_and_directory_for_a_command_line(node):
    directory = node.container("c", "idle")
    node.start()
    await node.up()
    agent = await SpawnedProcesses(node.directory).start_agent(directory)
    await until(lambda: command_line(agent.identity.pid) == f"dsmt-deployment_agent {directory}")
    agent.signal(signal.SIGKILL)
    await agent.wait()


@in_real_time
async def test_a_start_that_is_asked_twice_is_one_start(node):
    node.start()
    await node.up()
    directory = node.container("c", "idle")
    first = await SpawnedProcesses(node.directory).start_agent(directory)
    second = await SpawnedProcesses(node.directory).start_agent(directory)
    assert first.identity == second.identity
    first.signal(signal.SIGKILL)
    await first.wait()
    assert (await SpawnedProcesses(node.directory).start_agent(directory)).identity != first.identity


def test_a_start_that_is_asked_twice_is_one_start_though_a_full_disk_took_no_record_of_it(node):
    def unrecorded(directory):
        Path(record_path(directory, "deployment_agent")).unlink()

    async def main():
        node.start()
        await node.up()
        directory = node.container("c", "idle")
        first = await SpawnedProcesses(node.directory).start_agent(directory)
        unrecorded(directory)
        second = await SpawnedProcesses(node.directory).start_agent(directory)
        assert first.identity == second.identity
        first.signal(signal.SIGKILL)
        await first.wait()

    asyncio.run(main())


@in_real_time
async def test_what_was_kept_and_released_is_kept_again_when_that_is_asked_for(node):
    """A broker that was removed, and is added again by its name."""
    node.table["broker"] = "spawned:idle"
    node.start()
    await node.answers()
    directory = str(Path(node.directory) / "b1")
    asked = [Request(op, "broker", directory) for op in ("keep", "release", "keep")]
    brokers = []
    for request in asked:
        await SpawnedProcesses(node.directory).request(request)
        wanted = request.op == "keep"
        await until(lambda wanted=wanted: (process_of(directory, "broker") is not None) == wanted)
        brokers.append(process_of(directory, "broker"))
    assert brokers[0] != brokers[2]


@in_real_time
async def test_a_log_that_has_grown_is_put_aside_at_start(node):
    directory = node.container("c", "exit")
    log = Path(directory) / "deployment_agent.log"
    log.write_bytes(b"x" * (1 << 20) + b"y")
    node.start()
    await node.up()
    processes = SpawnedProcesses(node.directory)
    await (await processes.start_agent(directory)).wait()
    assert (log.with_name(log.name + ".1").stat().st_size, log.stat().st_size) == ((1 << 20) + 1, 0)


@pytest.mark.parametrize(
    ("message", "word"),
    [
        (Request("dance"), "not understood: Invalid enum value 'dance'"),
        (Request("start", "sh", "/tmp"), "'sh'"),
        (Request("start", "deployment_agent", "relative"), "'relative'"),
        (Request("status", pid="x"), "not understood"),
        (Request("status", program=msgspec.Raw(b'"\xff"')), "not understood"),
        (Request("start", "deployment_agent", "/dev/null/x"), "/dev/null"),
    ],
)
@in_real_time
async def test_a_request_that_makes_no_sense_is_answered(node, message, word):
    node.start()
    await node.up()
    processes = SpawnedProcesses(node.directory)
    with pytest.raises(FailedError, match=word):
        await processes.request(message)
    answer = await processes.request(Request("status", pid=1, started=1))
    assert answer == {"unknown": True}
    own = identity_of(os.getpid())
    assert await processes.request(Request("status", pid=own.pid, started=own.started)) == {"running": True}


@pytest.mark.parametrize("what", ["nothing", "another socket"])
@in_real_time
async def test_agents_are_started_though_a_program_has_taken_the_spawners_socket_away(node, what):
    node.start()
    await node.up()
    await node.answers()
    place, beside = Path(node.directory) / SOCKET, Path(node.directory) / "beside.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as another:
        if what == "nothing":
            place.unlink()
        else:
            another.bind(str(beside))
            another.listen()
            beside.rename(place)
        await until(lambda: "it listens anew" in node.log("spawner"))
        process = await SpawnedProcesses(node.directory).start_agent(node.container("c", "exit"))
        assert await process.wait() == Exit(7, None)


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
        "few = {'structlog', 'rich', 'pygments', 'attr', 'ruamel', 'psutil', 'click', 'http', 'email'}; "
        "print(sorted(few & sys.modules.keys()))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90, check=True)
    assert loaded.stdout.strip() == "[]"


def test_who_logs_nothing_has_nothing_in_memory_for_it_and_who_logs_nothing_for_colours() -> None:
    script = (
        "import sys; from dsmt.logs import Logger, to_stderr; to_stderr(); before = 'structlog' in sys.modules; "
        "Logger(source='a').warning('said', n=1); import rich; "
        "print(before, 'structlog' in sys.modules, sys.modules['structlog.dev'].rich, rich.__name__)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90, check=True)
    assert told.stdout.split() == ["False", "True", "None", "rich"]
    line = json.loads(told.stderr)
    assert (line["event"], line["level"], line["source"], line["n"]) == ("said", "warning", "a", 1)
