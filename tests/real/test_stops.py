"""Processes that stop and go on, or fall silent: nothing moves back, and nothing runs twice."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from dsmt.event.kinds.node import NodeControl
from dsmt.event.records import to_data
from dsmt.operations.read.rows.node_rows import processes
from dsmt.ports.bus import Draft
from tests.real.fleet import Fleet, eventually, redis_spec
from tests.real.redis_realm import redis_processes, run, running, settled

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


async def stopped_for(made: Fleet, pid: int, seconds: float, meanwhile) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        began = asyncio.get_running_loop().time()
        await meanwhile()
        left = began + seconds - asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, left))  # the length of the stop is what is tested
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("controller", ["c1", "c2"])
def test_a_controller_stopped_for_20_s_moves_nothing_back_when_it_goes_on(tmp_path, controller):
    async def scenario(made: Fleet) -> None:
        victim = made.record("controllers", controller, "controller")
        node = next(iter(made.pids("store")))[2]

        async def meanwhile() -> None:
            await made.kill_node(node)
            await made.watch.until(
                "all instances elsewhere",
                lambda: len([k for k in made.instances("store") if k[2] != node]) == 2,
                60,
            )

        await stopped_for(made, victim.pid, 20, meanwhile)
        generations = slots(made)
        said = len(made.watch.seen)

        def spoke() -> bool:
            topic = f"broker/b1/session/controller/{controller}"
            late = (s.signed.event for s in made.watch.seen[said - 200 :])
            return any(event.topic == topic and event.data["state"] == "open" for event in late)

        await made.watch.until("the controller's return", spoke, 30)
        for _ in range(5):
            await made.say()
        await settled(made)
        assert slots(made) == generations

    run(tmp_path, scenario)


def slots(made: Fleet) -> dict[tuple[str, int], tuple[str | None, int]]:
    service = made.watch.view.services["store"]
    return {key: (s.fact.record.node, s.fact.version) for key, s in service.slots.items() if s.fact is not None}


def test_a_container_manager_stopped_for_20_s_costs_its_node_nothing(tmp_path):
    async def scenario(made: Fleet) -> None:
        before, where = made.pids("store"), slots(made)
        node = next(iter(before))[2]
        manager = made.record("nodes", node, "container_manager")

        async def meanwhile() -> None:
            topic = f"broker/b1/session/node/{node}"
            await made.watch.until(
                "its silence being noticed",
                lambda: any(
                    s.signed.event.topic == topic and s.signed.event.data["state"] == "silent" for s in made.watch.seen
                ),
                30,
            )

        await stopped_for(made, manager.pid, 20, meanwhile)
        assert made.pids("store") == before
        assert slots(made) == where
        await settled(made)

    run(tmp_path, scenario)


def test_a_silent_nodes_instances_run_elsewhere_and_its_own_end_when_it_returns(tmp_path):
    async def scenario(made: Fleet) -> None:
        node = next(iter(made.pids("store")))[2]
        stopped = made.processes_of_node(node)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            await made.watch.until(
                "all instances elsewhere",
                lambda: len([k for k in made.instances("store") if k[2] != node]) == 2,
                60,
            )
        finally:
            for pid in stopped[::-1]:
                os.kill(pid, signal.SIGCONT)
        verdict = made.watch.view.nodes[node].verdict
        assert verdict is not None
        assert verdict.record.road == "silent"
        assert any("/probe/" in seen.signed.event.topic for seen in made.watch.seen)
        await settled(made)  # what ran on it has ended: one process for each slot

    run(tmp_path, scenario)


@pytest.mark.parametrize("seconds", [8, 15])
def test_a_node_whose_processes_were_all_stopped_is_whole_within_five_seconds_of_their_return(tmp_path, seconds):
    async def scenario(made: Fleet) -> None:
        await made.apply(redis_spec("each_node", "each"))
        await made.ready("each", 3)
        node = next(iter(made.pids("store")))[2]
        stopped = made.processes_of_node(node)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            await made.watch.until("its death", lambda: made.watch.view.nodes[node].verdict is not None, 60)
            await asyncio.sleep(seconds - 6)  # the length of the stop is what is tested
        finally:
            for pid in stopped[::-1]:
                os.kill(pid, signal.SIGCONT)

        def whole() -> bool:
            sight = made.watch.sight()
            alive = sight.fleet.state(node) == "alive"
            return alive and len(made.instances("each")) == 3 and len(made.instances("store")) == 2

        await made.watch.until("the node being whole", whole, 5)
        roles = {process.role for process in processes(made.watch.sight(), made.watch.view.nodes[node])}
        assert {"spawner", "manager", "monitor", "agent", "application"} <= roles
        await eventually("one process for each slot", lambda: sorted(redis_processes(made)) == running(made))

    run(tmp_path, scenario)


def test_a_node_that_fell_silent_before_it_was_killed_is_replaced(tmp_path):
    async def scenario(made: Fleet) -> None:
        node = next(iter(made.pids("store")))[2]
        topic = f"broker/b1/session/node/{node}"
        victims = made.processes_of_node(node)
        for pid in victims:
            os.kill(pid, signal.SIGSTOP)
        try:
            await made.watch.until(
                "its silence being noticed",
                lambda: any(
                    s.signed.event.topic == topic and s.signed.event.data["state"] == "silent" for s in made.watch.seen
                ),
                30,
            )
        finally:
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
        await made.watch.until(
            "all instances elsewhere",
            lambda: len([k for k in made.instances("store") if k[2] != node]) == 2,
            40,
        )
        verdict = made.watch.view.nodes[node].verdict
        assert verdict is not None
        assert verdict.record.road == "silent"
        await settled(made)

    run(tmp_path, scenario)


def test_what_runs_on_a_node_of_which_the_monitor_alone_does_not_stand_still_goes_elsewhere_by_a_drain(tmp_path):
    """So is a node whose disk does not answer: it is alive, nothing there begins or ends, and `status` names this way."""

    async def scenario(made: Fleet) -> None:
        node = next(iter(made.pids("store")))[2]
        monitor = made.record("nodes", node, "node_monitor").pid
        stopped = [pid for pid in made.processes_of_node(node) if pid != monitor]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            control = NodeControl(mode="draining", by="test", reason="its disk does not answer")
            await made.connection.bus.publish(Draft(f"node/{node}/control", to_data(control)))
            await made.watch.until(
                "all instances elsewhere",
                lambda: len([k for k in made.instances("store") if k[2] != node]) == 2,
                60,
            )
            assert made.watch.view.nodes[node].verdict is None
        finally:
            for pid in stopped[::-1]:
                os.kill(pid, signal.SIGCONT)
        await settled(made)  # what ran on it has ended

    run(tmp_path, scenario)
