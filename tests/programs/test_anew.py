"""A spawner that begins anew in its own process: whom it forked stay its children, and how they end is still known."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dsmt.errors import FailedError
from dsmt.ports.processes import Exit
from dsmt.programs.anew import NOTHING, Forked, SpawnerState, past_of
from dsmt.programs.children import Children
from dsmt.system.processes import Request, SpawnedProcesses, start_spawner
from dsmt.system.procfs import identity_of, stat_of
from tests.loops import in_real_time
from tests.programs.spawned import kill
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("leaves_nothing")]
NEXT = """#!{python}
import sys
from pathlib import Path
from dsmt.programs.anew import past_of
from dsmt.programs.spawner import main
sys.path.insert(0, {programs!r})
*_, lock, past = sys.argv
Path({began!r}).touch()
sys.exit(main({directory!r}, {table!r}, {kept!r}, lock=int(lock), past=past_of(int(past))))
"""


def began(node) -> Path:
    """There when the next one has begun."""
    return Path(node.directory) / "began"


def installed(node, python: str = sys.executable) -> str:
    """What stands for the Python of another dsmt: it runs the programs of the test."""
    path = Path(node.directory).parent / "next"
    code = NEXT.format(
        python=python,
        began=str(began(node)),
        programs=str(node.programs),
        directory=node.directory,
        table=node.table,
        kept=node.kept,
    )
    path.write_text(code)
    path.chmod(0o700)
    return str(path)


async def one_that_exited(node):
    """A spawner that has forked one program, which has ended: how others ask it, and who that was."""
    node.start()
    await node.up()
    processes = SpawnedProcesses(node.directory)
    brief = await processes.start_agent(node.container("brief", "exit"))
    assert await brief.wait() == Exit(7, None)
    return processes, brief


@in_real_time
async def test_whom_it_forked_and_how_others_ended_is_known_to_who_goes_on_in_its_process(node):
    processes, brief = await one_that_exited(node)
    spawner, manager, monitor = await node.up()
    container = node.container("c", "service")
    agent = await processes.start_agent(container)
    await until(lambda: "service" in node.log("containers/c/deployment_agent"))
    service = identity_of(int(node.log("containers/c/deployment_agent").split()[1]))
    node.seen.add(service)
    await processes.request(Request("anew", python=installed(node)))
    await until(began(node).exists)
    assert await processes.ended(brief.identity) == Exit(7, None)
    assert (await processes.start_agent(container)).identity == agent.identity
    assert await node.up() == (spawner, manager, monitor), "of a node never all ends at once"
    kill(manager)
    await until(lambda: node.program("container_manager") not in {None, manager})
    rows = (await processes.request(Request("list")))["processes"]
    assert agent.identity.pid in [row["pid"] for row in rows if row["program"] == "deployment_agent"]
    kill(agent.identity)
    await until(lambda: stat_of(service.pid).parent == spawner.pid)
    watched = processes.find(service)
    kill(service)
    assert await watched.wait() == Exit(None, signal.SIGKILL)


@in_real_time
async def test_who_asks_while_it_begins_anew_is_told_in_the_end(node):
    processes, brief = await one_that_exited(node)
    await processes.request(Request("anew", python=installed(node)))
    while not began(node).exists():
        assert await processes.ended(brief.identity) == Exit(7, None)
    assert await processes.ended(brief.identity) == Exit(7, None)


@in_real_time
async def test_what_cannot_go_on_is_refused_and_all_runs_on(node):
    node.start()
    spawner, manager, monitor = await node.up()
    with pytest.raises(FailedError, match="no program that can go on here"):
        await SpawnedProcesses(node.directory).request(Request("anew", python=node.directory + "/none"))
    assert await node.up() == (spawner, manager, monitor)


@in_real_time
async def test_one_that_the_kernel_does_not_execute_ends_and_says_why(node):
    node.start()
    spawner, *_ = await node.up()
    broken = installed(node, "/no/such/program")
    await SpawnedProcesses(node.directory).request(Request("anew", python=broken))
    await until(lambda: node.program("spawner") != spawner)
    await until(lambda: "cannot go on in the place of the spawner" in node.log("spawner"))


@pytest.mark.parametrize("first", ["anew", "end"])
@in_real_time
async def test_one_that_is_told_to_end_ends_whether_it_was_to_begin_anew_or_not(node, first):
    """Though its manager does not end by itself, and so both come while it is waited for."""
    node.table["container_manager"] = "spawned:stubborn"
    node.start()
    spawner, *_ = await node.up()
    await until(lambda: "deaf" in node.log("container_manager"))
    processes = SpawnedProcesses(node.directory)
    anew = Request("anew", python=installed(node))
    if first == "anew":
        await processes.request(anew)
    os.kill(spawner.pid, signal.SIGTERM)
    if first == "end":
        await until(lambda: node.program("node_monitor") is None)
        with pytest.raises(FailedError, match="no program that can go on here, or nothing is to"):
            await processes.request(anew)
    await until(lambda: not any(map(node.program, ("spawner", "container_manager", "node_monitor"))))


@in_real_time
async def test_one_that_is_told_to_end_as_it_is_followed_is_followed_by_one_that_ends(node):
    told = (
        "import os, signal\n"
        "import dsmt.programs.spawner as one\n"
        "def told(*about, begin=one.begin_anew):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    begin(*about)\n"
        "one.begin_anew = told\n"
    )
    node.seen.add(start_spawner(node.directory, [*node.argv[:-1], told + node.argv[-1]]))
    await node.up()
    await SpawnedProcesses(node.directory).request(Request("anew", python=installed(node)))
    await until(began(node).exists)
    await until(lambda: not any(map(node.program, ("spawner", "container_manager", "node_monitor"))))


def test_a_past_of_another_version_is_done_without():
    for content in (b"", b"{", b'{"children": 7}'):
        memory = os.memfd_create("past")
        os.write(memory, content)
        assert past_of(memory) == NOTHING


def test_a_past_goes_along_whole():
    own = identity_of(os.getpid())
    past = SpawnerState(((own, Forked("deployment_agent", "/c", "/c/run")),), ((own, Exit(None, 9)), (own, Exit(3, None))))
    memory = os.memfd_create("past")
    os.write(memory, msgspec.json.encode(past))
    assert past_of(memory) == past
    nothing: Any = None
    assert Children({}, nothing, nothing, past, nothing).past().exits == ((own, Exit(3, None)),)
