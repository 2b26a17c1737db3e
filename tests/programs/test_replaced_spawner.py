"""A spawner that is killed, stopped, hangs or is started twice: what it started lives on and is taken over."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from dsmt.errors import TransportError
from dsmt.ports.processes import Exit, ProcessIdentity
from dsmt.programs.pings import Pings
from dsmt.system.processes import Request, SpawnedProcesses, keep_asking, spawner_of, start_spawner, watch_spawner
from dsmt.system.procfs import identity_of, is_alive, stat_of
from dsmt.system.records import record_path, write_record
from tests.loops import in_real_time
from tests.programs.spawned import kill
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("leaves_nothing")]


def watched_by(pid: int) -> int:
    """How many processes that are none of its children a spawner has open."""
    return sum("pidfd" in str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir())


@in_real_time
async def test_a_second_spawner_of_a_directory_leaves_with_a_sentence(node):
    node.start()
    spawner, manager, _monitor = await node.up()
    done = subprocess.run(node.argv, capture_output=True, text=True, check=False)  # noqa: ASYNC221
    assert (done.returncode, done.stderr) == (
        0,
        f"spawner: {node.directory} has a spawner already; nothing to do\n",
    )
    assert (node.program("spawner"), node.program("container_manager")) == (spawner, manager)


@in_real_time
async def test_one_that_is_to_replace_another_has_it_end_and_takes_over_what_it_had_forked(node):
    node.start()
    spawner, manager, monitor = await node.up()
    processes, container = SpawnedProcesses(node.directory), node.container("c", "idle")
    agent = await processes.start_agent(container)
    node.seen.add(agent.identity)
    with subprocess.Popen(node.replaces) as other:  # noqa: ASYNC220
        await until(lambda: (now := node.program("spawner")) is not None and now.pid == other.pid)
        assert not any(map(is_alive, (spawner, manager, monitor)))
        await node.up()
        await node.answers()
        assert (await processes.start_agent(container)).identity == agent.identity
        other.terminate()
    assert other.returncode == 0


@in_real_time
async def test_a_spawner_is_known_from_its_birth_and_no_other_is_started_beside_it(node):
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


@in_real_time
async def test_the_service_of_a_dead_agent_lives_on_and_its_end_is_known(node):
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


@in_real_time
async def test_a_spawner_that_was_killed_is_followed_by_one_that_adopts(node):
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
    later = await until(node.followed)  # what the dead one has forked a moment ago may hold its lock yet
    assert spawner_of(node.directory) == later
    await node.answers()
    assert (node.program("container_manager"), node.program("node_monitor")) == (manager, monitor)
    assert is_alive(agent.identity)
    again = await processes.start_agent(str(Path(node.directory) / "containers" / "c"))
    assert again.identity == agent.identity
    kill(manager)
    await until(lambda: (now := node.program("container_manager")) and now != manager)
    await until(lambda: node.log("container_manager").count("started") == 2)
    assert node.program("node_monitor") == monitor
    assert watched_by(later.pid) == 1, "of who was adopted and has ended nothing stays open"
    agent.signal(signal.SIGKILL)
    assert await agent.wait() == Exit(None, None)


@in_real_time
async def test_a_record_of_another_process_is_not_adopted(node):
    own = identity_of(os.getpid())
    write_record(record_path(node.directory, "container_manager"), replace(own, started=own.started - 1))
    write_record(record_path(node.directory, "node_monitor"), replace(own, boot="another boot"))
    node.start()
    spawner, manager, monitor = await node.up()
    assert {manager.pid, monitor.pid}.isdisjoint({os.getpid(), spawner.pid})


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


@in_real_time
async def test_whoever_watches_the_spawner_replaces_it(node):
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
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    node.seen.add(other := identity_of(stranger.pid))

    async def ping(identity):
        message = Request("ping", pid=identity.pid, started=identity.started)
        assert await SpawnedProcesses(node.directory).request(message) == {}

    async def main():
        silent = "import dsmt.programs.pings as pings; pings.Pings.__init__.__defaults__ = (0.3, 0.1)\n"
        argv = [*node.argv[:-1], silent + node.argv[-1]]
        node.seen.add(start_spawner(node.directory, argv))
        _spawner, manager, monitor = await node.up()
        await node.answers()
        await ping(other)
        await ping(monitor)
        second = await until(lambda: (now := node.program("node_monitor")) != monitor and now)
        assert not is_alive(monitor)
        await ping(manager)
        await until(lambda: (now := node.program("container_manager")) != manager and now)
        assert is_alive(second)  # it is not expected to ask before it has asked once
        assert stranger.poll() is None, "who is not kept here would not be started again"

    asyncio.run(main())
    stranger.communicate(b"\n")


@in_real_time
async def test_who_ends_a_node_asks_on_and_restarts_no_spawner(node):
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


def test_who_stood_still_with_its_spawner_may_ask_again_before_it_is_said_to_hang():
    pings, manager = Pings(60.0, 10.0), ProcessIdentity(1, 1, "boot")
    assert pings.due is None
    pings.heard(manager, 0.0)
    pings.heard(manager, 10.0)
    assert (pings.hung(69.0), pings.due) == ([], 70.0)
    assert (pings.hung(500.0), pings.due) == ([], 510.0)
    pings.heard(manager, 501.0)
    assert (pings.hung(560.0), pings.due) == ([], 561.0)
    assert (pings.hung(561.0), pings.hung(570.9), pings.hung(571.0), pings.due) == ([], [], [manager], None)


def test_who_stands_still_with_its_spawner_again_and_again_is_not_said_to_hang():
    pings, monitor = Pings(60.0, 10.0), ProcessIdentity(1, 1, "boot")
    pings.heard(monitor, 0.0)
    assert (pings.hung(500.0), pings.due) == ([], 510.0)
    assert (pings.hung(900.0), pings.due) == ([], 910.0)
    assert (pings.hung(910.5), pings.due) == ([monitor], None)
