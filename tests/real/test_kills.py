"""The table of deaths: services go on or come back, once, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dsmt.agents.rules.container import POKE, PROCESS
from dsmt.event.envelope import EventId
from dsmt.operations.connection import connect
from dsmt.operations.local.up.machine import up
from dsmt.operations.local.up.wanted import Wanted
from dsmt.operations.read.realm.watching import watching
from dsmt.operations.words.targets import Target
from dsmt.operations.write import controlling, removing
from dsmt.operations.write.node_control import set_mode
from dsmt.ports.bus import Bus
from dsmt.system.procfs import handles, identity_of, is_alive
from dsmt.view import View
from tests.loops import in_real_time
from tests.real.fleet import ENGINE, Fleet, eventually, fleet, kill_at_once, processes_of, redis_spec
from tests.real.redis_realm import redis_processes, run, settled
from tests.real.seat import dsmt

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
of_a_broker = pytest.mark.skipif(ENGINE == "nats", reason="a broker's store is lost: NATS has none")


def test_a_killed_instance_is_running_again_in_its_place(tmp_path):
    async def scenario(made: Fleet) -> None:
        (key, pid), *_ = made.pids("store").items()
        os.kill(pid, signal.SIGKILL)
        await made.ready("store", 2, but=lambda i: i.application is None or i.application.record.pid == pid)
        assert key in made.pids("store")
        await settled(made)

    run(tmp_path, scenario)


def test_a_killed_agent_is_replaced_and_its_service_never_stops(tmp_path):
    async def scenario(made: Fleet) -> None:
        before = made.pids("store")
        (component, index, node), instance = next(iter(made.instances("store").items()))
        assert instance.agent is not None
        agent = instance.agent.record.pid
        assert agent is not None
        os.kill(agent, signal.SIGKILL)
        entry = made.watch.view.services["store"].slots[component, index]

        def another() -> bool:
            told = entry.instances[node].agent
            return told is not None and told.record.pid not in (None, agent)

        await made.watch.until("another agent", another, 30)
        assert made.pids("store") == before
        told = entry.instances[node].agent
        assert told is not None
        its = told.record.pid or 0
        await eventually("it has begun its work", lambda: identity_of(its) is not None and handles(its, POKE))
        pid = before[component, index, node]
        os.kill(pid, signal.SIGKILL)  # the new agent watches what it has adopted
        await made.ready("store", 2, but=lambda i: i.application is None or i.application.record.pid == pid)
        await settled(made)

    run(tmp_path, scenario)


CHECKED = """\
service: checked
components:
  app:
    instances: 1
    run: sleep 1000
    health:
      startup: {exec: "true"}
      readiness: {exec: [sh, -c, "echo $$ >> tries; exec sleep 600"], interval: 200ms, timeout: 600s}
"""


def test_a_check_that_hangs_ends_with_the_agent_that_follows_a_killed_one(tmp_path):
    async def scenario() -> None:
        async with fleet(tmp_path, nodes=1, controllers=1) as made:
            await made.apply(CHECKED)

            def tries() -> list[int]:
                found = made.home.part("nodes", "n1").glob("containers/checked/app/0/files/*/tries")
                return [int(line) for file in found for line in file.read_text().split("\n")[:-1]]

            (first,) = await eventually("a try", tries)
            left = identity_of(first)
            assert left is not None
            agent = json.loads((made.home.part("nodes", "n1") / "containers/checked/app/0" / PROCESS).read_text())["pid"]
            os.kill(agent, signal.SIGKILL)
            await eventually("its end", lambda: not is_alive(left))
            await eventually("another try", lambda: len(tries()) > 1)

    asyncio.run(scenario())


def test_a_killed_container_manager_is_replaced_and_services_never_stop(tmp_path):
    async def scenario(made: Fleet) -> None:
        before = made.pids("store")
        node = next(iter(before))[2]
        manager = made.record("nodes", node, "container_manager")
        os.kill(manager.pid, signal.SIGKILL)
        await made.replaced("nodes", node, "container_manager", manager)
        spawner = made.record("nodes", node, "spawner")
        os.kill(spawner.pid, signal.SIGKILL)
        await made.replaced("nodes", node, "spawner", spawner)
        assert made.pids("store") == before
        await settled(made)

    run(tmp_path, scenario)


def test_a_node_whose_spawner_and_manager_die_at_once_is_begun_again_and_services_never_stop(tmp_path):
    async def scenario(made: Fleet) -> None:
        before = made.pids("store")
        node = next(iter(before))[2]
        two = [made.record("nodes", node, program) for program in ("spawner", "container_manager")]
        kill_at_once([one.pid for one in two])
        for program, one in zip(("spawner", "container_manager"), two, strict=True):
            await made.replaced("nodes", node, program, one)
        await settled(made)
        assert made.pids("store") == before

    run(tmp_path, scenario)


def test_a_killed_nodes_instances_run_on_other_nodes_as_was_foreseen(tmp_path):
    async def scenario(made: Fleet) -> None:
        node = next(iter(made.pids("store")))[2]
        foreseen = (await dsmt(made.home.root, "whatif", "--kill", node, "--json")).json
        await made.kill_node(node)
        await made.watch.until(
            "all instances elsewhere",
            lambda: len([k for k in made.instances("store") if k[2] != node]) == 2,
            60,
        )
        places = {f"store/{component}/{index}": at for component, index, at in made.instances("store")}
        assert places.items() >= {step["instance"]: step["node"] for step in foreseen["steps"]}.items()
        assert [step["leaves"] for step in foreseen["steps"]] == [node]
        await settled(made)

    run(tmp_path, scenario)


@pytest.mark.parametrize("controller", ["c1", "c2"])
def test_a_controller_killed_during_a_repair_does_not_stop_it(tmp_path, controller):
    async def scenario(made: Fleet) -> None:
        node = next(iter(made.pids("store")))[2]
        victim = made.record("controllers", controller, "controller")
        await made.kill_node(node)
        os.kill(victim.pid, signal.SIGKILL)
        await made.watch.until(
            "all instances elsewhere",
            lambda: len([k for k in made.instances("store") if k[2] != node]) == 2,
            60,
        )
        await made.replaced("controllers", controller, "controller", victim)
        await settled(made)

    run(tmp_path, scenario)


def test_a_killed_broker_comes_back_with_every_acknowledged_event_and_no_service_stops(tmp_path):
    async def scenario(made: Fleet) -> None:
        before = made.pids("store")
        for _ in range(50):
            await made.say()
        broker = made.record("brokers", "b1", "broker")
        saying = [asyncio.ensure_future(made.say()) for _ in range(20)]
        os.kill(broker.pid, signal.SIGKILL)
        await made.replaced("brokers", "b1", "broker", broker)
        await asyncio.gather(*saying)
        assert made.pids("store") == before
        assert await made.missing() == []
        pid = next(iter(before.values()))
        os.kill(pid, signal.SIGKILL)  # and repair goes on
        await made.ready("store", 2, but=lambda i: i.application is None or i.application.record.pid == pid)
        await settled(made)

    run(tmp_path, scenario)


async def lose(made: Fleet, *names: str) -> None:
    """The broker's process ends, files of its are lost, and it comes up again.

    It stands still before that: a controller starts another keeper at once, and that a broker, which must find none of them.
    """
    keeper, broker = made.record("keeper", "", "spawner"), made.record("brokers", "b1", "broker")
    os.kill(broker.pid, signal.SIGSTOP)
    for path in [path for name in names for path in made.home.part("brokers", "b1").glob(name)]:
        path.unlink()
    os.kill(keeper.pid, signal.SIGKILL)
    os.kill(broker.pid, signal.SIGKILL)
    await eventually("the broker's end", lambda: not is_alive(broker))
    await up(made.home, Wanted(nodes=3, controllers=2))
    await made.replaced("brokers", "b1", "broker", broker)


@asynccontextmanager
async def command(made: Fleet) -> AsyncIterator[Bus]:
    """What a command line speaks through: an identity that ends with it."""
    async with connect(made.home.operator(), made.home.realm(), patience_s=60) as one:
        yield one.bus


@of_a_broker
@in_real_time
async def test_what_operators_decided_outlives_the_brokers_store(tmp_path):
    """The store alone is lost: the birth record is still there, and names another one."""
    async with fleet(tmp_path) as made:
        await made.apply(redis_spec(2))
        await made.apply(redis_spec(1, "old"))
        await made.ready("store", 2)
        await made.ready("old", 1)
        spare = ({"n1", "n2", "n3"} - {node for _, _, node in made.pids("store")}).pop()
        async with command(made) as bus:
            await controlling.stop(bus, Target("store", "kv", 0), by="test", reason="maintenance")
        async with command(made) as bus:
            await set_mode(bus, spare, "excluded", by="test", reason="broken")
        async with command(made) as bus:
            await removing.remove(bus, "old", by="test", reason="enough")
        await made.watch.until("the removal's end", lambda: made.watch.view.winner("tombstone/service/old"), 60)
        await eventually("one process", lambda: len(redis_processes(made)) == 1 and len(made.pids("store")) == 1)
        kept, before = decided(made.watch.view), made.pids("store")
        await lose(made, "store.db*")
        assert (made.home.part("brokers", "b1") / "birth").exists()
        async with command(made) as bus, watching(bus) as anew:
            await anew.until("all that was decided", lambda: decided(anew.view).items() >= kept.items(), 60)
            await made.apply(redis_spec(1, "next"))
            await made.ready("next", 1)  # decisions go on
            assert decided(anew.view).items() >= kept.items(), "and none was taken again"
            assert "service/old/spec" not in decided(anew.view)
        assert made.pids("store") == before
        assert sorted(redis_processes(made)) == sorted({**before, **made.pids("next")}.values())
        assert spare not in {node for _, _, node in made.pids("next")}


def decided(view: View) -> dict[str, EventId]:
    """The durable facts, by topic."""
    return {signed.event.topic: signed.id for signed in view.winners() if signed.event.expires_ms is None}


@of_a_broker
@in_real_time
async def test_a_broker_that_comes_up_empty_stops_nothing_and_learns_everything_from_the_nodes(tmp_path):
    async with fleet(tmp_path) as made:
        await made.apply(redis_spec(2))
        await made.ready("store", 2)
        before = made.pids("store")
        await lose(made, "store.db*", "birth")
        async with connect(made.home.operator(), made.home.realm(), patience_s=60) as other, watching(other.bus) as anew:
            offered = ["service/store/spec", "service/store/slot/kv/0", "service/store/slot/kv/1"]
            await anew.until("the nodes' offers", lambda: all(anew.view.winner(topic) for topic in offered), 60)
        pid = next(iter(before.values()))
        assert {p for p in before.values() if identity_of(p)} == set(before.values())
        os.kill(pid, signal.SIGKILL)
        await made.ready("store", 2, but=lambda i: i.application is None or i.application.record.pid == pid)
        assert set(made.pids("store")) == set(before)
        await settled(made)


FORKING = """
import os, sys, time
port = int(sys.argv[1])
for daemon in (False, True):
    if os.fork() == 0:
        if daemon:
            os.setsid()
            if os.fork():
                os._exit(0)
            os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", sys.argv[0]], {})
        time.sleep(600)
import socket
listening = socket.create_server(("127.0.0.1", port))
while True:
    listening.accept()[0].close()
"""
"""Its daemon has an empty environment, as who has written a title over its own seems to have (nginx, PostgreSQL)."""


def test_a_killed_nodes_programs_leave_no_children(tmp_path):
    script = tmp_path / "forking.py"
    script.write_text(FORKING)
    spec = f"""\
service: forks
components:
  app:
    run: [{sys.executable}, {script}, "{{port.tcp}}"]
    ports: {{tcp: auto}}
    health: {{tcp: {{port: tcp}}, interval: 200ms}}
"""

    async def main() -> None:
        async with fleet(tmp_path, nodes=1) as made:

            def living() -> list[int]:
                return [pid for pid, command in processes_of(made.home.root).items() if str(script) in command]

            await made.apply(spec)
            await made.ready("forks", 1)
            await eventually("a program, its child and its daemon", lambda: len(living()) == 3)
            await made.kill_node("n1")
            await eventually("nothing of it lives", lambda: not living(), 1.0)

    asyncio.run(main())
