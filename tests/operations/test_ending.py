"""Ending what does not die, as who is in the kernel (state D): it is waited for no longer than is said, and named."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dsmt.errors import FailedError, TransportError
from dsmt.operations.local.home.home import Home, keeper_directory
from dsmt.operations.local.home.making import ensure_controller, ensure_node, init
from dsmt.operations.local.processes import ending, keeping
from dsmt.operations.local.processes.keeping import write_kept
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.kept import KeeperFile
from dsmt.system.processes import SOCKET, Request, SpawnedProcesses
from dsmt.system.procfs import identity_of, is_alive, send_signal
from dsmt.system.records import lock_holders, read_record, record_path, write_record
from tests.waiting import until


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A realm with two brokers, a controller and a node, in which nobody is waited for long."""
    made = Home(tmp_path / "home")
    init(made, name="test", brokers=2)
    ensure_controller(made, "c1")
    ensure_node(made, "n1")
    for wait in ("START_S", "DIES_S", "GRACE_S", "OWN_S", "SAYS_S"):
        monkeypatch.setattr(ending, wait, 0.1)
    return made


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessIdentity]:
    """A process to which signals do nothing."""
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = identity_of(process.pid)
        assert identity is not None
        monkeypatch.setattr(ending, "send_signal", lambda *_: None)
        try:
            yield identity
        finally:
            process.kill()


def runs(home: Home, kind: str, name: str, program: str, identity: ProcessIdentity) -> None:
    """Have this process be a program of a home."""
    write_record(record_path(str(home.part(kind, name)), program), identity)


def down(home: Home) -> ending.Down:
    return asyncio.run(asyncio.wait_for(ending.down(home), 30))


PROGRAMS = pytest.mark.parametrize(
    ("kind", "name", "program"), [("controllers", "c1", "controller"), ("nodes", "n1", "node_monitor")]
)


@PROGRAMS
def test_down_names_whatever_of_dsmt_does_not_die(
    kind: str, name: str, program: str, home: Home, stuck: ProcessIdentity
) -> None:
    runs(home, kind, name, program, stuck)
    assert down(home) == ending.Down(processes=0, killed=0, stuck=(stuck.pid,))
    assert is_alive(stuck)


@PROGRAMS
def test_a_realm_is_not_moved_while_one_of_its_programs_does_not_die(
    kind: str, name: str, program: str, home: Home, stuck: ProcessIdentity
) -> None:
    runs(home, kind, name, program, stuck)
    with pytest.raises(FailedError, match=f"do not die: {stuck.pid}"):
        asyncio.run(asyncio.wait_for(ending.end_own(home, servers=True), 30))


def test_what_does_not_die_is_not_removed(home: Home, stuck: ProcessIdentity) -> None:
    runs(home, "brokers", "b2", "broker", stuck)
    with pytest.raises(FailedError, match=f"do not die: {stuck.pid}"):
        asyncio.run(ending.release(home, "broker", "b2"))
    container = home.part("nodes", "n1") / "containers/web/app/0"
    write_record(record_path(str(container), "deployment_agent"), stuck)
    with pytest.raises(FailedError, match=f"do not die: {stuck.pid}"):
        asyncio.run(ending.end_node(home, "n1"))


MANAGER = """
import signal, sys, time
from dsmt.system.processes import start_spawner

def ends(*_):
    start_spawner(sys.argv[1], ["sleep", "60"])
    sys.exit()

signal.signal(signal.SIGTERM, ends)
print("begun", flush=True)
time.sleep(60)
"""
"""Begins another spawner at the last moment, for its own was killed."""


def test_a_node_ends_with_the_spawner_that_its_manager_was_just_starting(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node lived on, in a directory that was removed under it."""
    monkeypatch.setattr(ending, "GRACE_S", 30.0)
    monkeypatch.setattr(ending, "START_S", 30.0)
    node = home.part("nodes", "n1")
    with subprocess.Popen([sys.executable, "-c", MANAGER, str(node)], stdout=subprocess.PIPE) as manager:
        try:
            assert manager.stdout is not None
            manager.stdout.readline()
            identity = identity_of(manager.pid)
            assert identity is not None
            runs(home, "nodes", "n1", "container_manager", identity)
            asyncio.run(asyncio.wait_for(ending.end_node(home, "n1"), 60))
            assert not is_alive(identity)
            begun = read_record(record_path(str(node), "spawner"))
            left = lock_holders(str(node))
        finally:
            manager.kill()
            for one in lock_holders(str(node)):
                send_signal(one, signal.SIGKILL)
    assert left == set()
    assert begun is None or not is_alive(begun)


def test_what_is_ended_is_none_of_those_that_a_keeper_begins_which_follows_one_that_was_killed(home: Home) -> None:
    write_kept(home)
    asyncio.run(ending.release(home, "broker", "b2"))
    assert KeeperFile.read(keeper_directory(home)).kept == (
        ("broker", str(home.part("brokers", "b1"))),
        ("controller", str(home.part("controllers", "c1"))),
    )
    asyncio.run(ending.end_node(home, "n1"))
    assert KeeperFile.read(keeper_directory(home)).nodes == ()


def test_a_keeper_that_takes_no_connection_yet_is_waited_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It followed one that was just killed: `dsmt node remove` said that it does not answer."""
    directory, refused = keeper_directory(home), list[TransportError]()
    write_kept(home)

    class Counted(SpawnedProcesses):
        async def request(self, request: Request) -> dict[str, Any]:
            try:
                return await super().request(request)
            except TransportError as error:
                refused.append(error)
                raise

    async def scenario() -> bytes:
        ending_it = asyncio.create_task(ending.release(home, "broker", "b2"))
        await until(lambda: refused or ending_it.done())
        assert not ending_it.done()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.setblocking(False)
            listening.bind(str(directory / SOCKET))
            listening.listen(16)
            connection, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(listening), 30)
            with connection:
                asked = await asyncio.get_running_loop().sock_recv(connection, 4096)
                await asyncio.get_running_loop().sock_sendall(connection, b"{}")
                await asyncio.wait_for(ending_it, 30)
        return asked

    monkeypatch.setattr(keeping, "SpawnedProcesses", Counted)
    with subprocess.Popen(["sleep", "60"]) as keeper:
        try:
            identity = identity_of(keeper.pid)
            assert identity is not None
            write_record(record_path(str(directory), "spawner"), identity)
            asked = asyncio.run(scenario())
        finally:
            keeper.kill()
    assert b"release" in asked


def test_a_lock_that_is_none_keeps_nobody_from_being_ended(home: Home) -> None:
    """Nothing was ended at all, as where root had made the lock of somebody's node."""
    (home.part("nodes", "n1") / "spawner.lock").mkdir()
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            identity = identity_of(process.pid)
            assert identity is not None
            runs(home, "controllers", "c1", "controller", identity)
            assert down(home).processes == 1
            assert not is_alive(identity)
        finally:
            process.kill()
