"""The run loop, in virtual time, with real brokers, managers, monitors and agents around it: repairs, stops, clocks."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from dsmt.bus.client import measuring
from dsmt.bus.client.client import BusClient
from dsmt.controllers.decide import RULESET
from dsmt.controllers.loop.runner import ControllerRunner
from dsmt.controllers.replay import fold_and_decide
from dsmt.event.kinds.controller import Decision
from dsmt.event.kinds.node import DriverAttributes, NodeAttributes
from dsmt.event.kinds.service import SpecFact
from dsmt.event.records import from_data, to_data
from dsmt.ports.bus import Draft
from dsmt.simulator.members import SimController
from dsmt.view import Fleet as Judged
from dsmt.view import View
from tests.bus.realm import TestClock, TestRealm, memory_network, realm
from tests.loops import in_real_time

from .build import key, spec, web
from .fleet import Fleet, Rows, simulate
from .hand import never


class OtherRuleset(SimController):
    """A controller of another version."""

    ruleset = RULESET + 1


def test_what_was_applied_runs_and_every_decision_replays() -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.up(4)
        fleet.nodes[0].host.power_off()
        await fleet.until(lambda: "n1" not in fleet.nodes_of() and fleet.running() == 4, 30)
        rows = Rows(fleet.broker)
        decisions = rows.on("/decision")
        report = fold_and_decide(rows.all, decisions, store=fleet.broker.store.identity)
        assert report.count("same") == len(decisions) >= 3
        said = {name for d in decisions for name in from_data(Decision, d.event.data).produced}
        assert {str(event.id) for event in rows.slots()} <= said

    simulate(scenario)


def test_of_two_controllers_that_decide_at_once_the_seconds_decisions_replay_the_same_with_what_was_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dsmt.controllers.loop.runner.RANK_S", 0.0)

    async def scenario(fleet: Fleet) -> None:
        await fleet.up(4)
        fleet.nodes[0].host.power_off()
        await fleet.until(lambda: "n1" not in fleet.nodes_of() and fleet.running() == 4, 30)
        rows = Rows(fleet.broker)
        decisions = rows.on("/decision")
        there = {str(event.id) for _, event in rows.all}
        named = [name for d in decisions for name in from_data(Decision, d.event.data).produced]
        report = fold_and_decide(rows.all, decisions, store=fleet.broker.store.identity)
        assert report.count("same") == len(decisions)
        assert report.stale == len([name for name in named if name not in there]) >= 4
        assert {finding.stale for finding in report.findings} == {0, 1, 4}

    simulate(scenario)


async def joined(realm: TestRealm, name: str) -> tuple[BusClient, BusClient]:
    """A node's manager and monitor, as far as a controller sees them."""
    parent = realm.identity(f"node/{name}")
    manager = await realm.client(f"node/{name}", identity=parent)
    monitor = await realm.client(f"monitor/{name}", identity=realm.identity(f"monitor/{name}", parent=parent))
    drivers = {"process": DriverAttributes(fence="none")}
    attributes = NodeAttributes(
        cpus=4, memory_bytes=2**33, memory_free_bytes=2**32, disk_bytes=2**33, disk_free_bytes=2**32, load=0.0,
        address="127.0.0.1", version="test", boot_id="b", drivers=drivers,
    )  # fmt: skip
    await monitor.publish(Draft(f"node/{name}/attributes", to_data(attributes), subject=name))
    return manager, monitor


@in_real_time
async def test_a_node_whose_sessions_close_is_replaced_by_the_short_road(tmp_path: Path) -> None:
    """In real time, on an in-memory network: what ends here closes its connections, as a killed process does."""
    async with realm(memory_network(), tmp_path) as made, asyncio.timeout(40):
        await made.broker()
        nodes = {name: await joined(made, name) for name in ("n1", "n2")}
        operator = await made.client("operator/alice")
        record = SpecFact(spec=spec(web(1)), by="alice", reason="")
        await operator.publish(Draft("service/web/spec", to_data(record), subject="web"))
        client = await made.client("controller/c1")
        runner = ControllerRunner(client, TestClock(), client._trust, version="test", pid=None, complain=never)
        task = asyncio.create_task(runner.run())
        try:
            node = await _until(lambda: _placed(runner.view))
            for client in nodes[node]:
                await made.stop(client)
            other = await _until(lambda: _placed(runner.view) if _placed(runner.view) != node else None)
            assert other == ({"n1", "n2"} - {node}).pop()
            assert runner.view.nodes[node].verdict.record.road == "closed"
            assert runner.decisions == 3
        finally:
            task.cancel()
            await asyncio.wait({task})


def _placed(view: View) -> str | None:
    slot = view.slot(key(0))
    return None if slot is None or slot.fact is None else slot.fact.record.node


async def _until(found: Callable[[], str | None]) -> str:
    while (value := found()) is None:  # noqa: ASYNC110 - what is waited for is no one event
        await asyncio.sleep(0.01)
    return value


def test_one_controller_is_enough_and_both_together_say_everything_once() -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.up(3)
        slots = Rows(fleet.broker).slots()
        assert len(slots) == len({(e.event.topic, e.event.version) for e in slots}) == 3
        first, second = fleet.controllers
        first.kept.stop()
        fleet.operator.apply(spec(web(5)), reason="more")
        await fleet.until(lambda: fleet.running() == 5, 60)
        first.kept.start()
        second.kept.stop()
        fleet.operator.apply(spec(web(6)), reason="more")
        await fleet.until(lambda: fleet.running() == 6, 60)

    simulate(scenario)


def test_a_controller_that_was_stopped_for_a_minute_moves_nothing_back() -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.up(3)
        sleeper = fleet.controllers[1]
        sleeper.kept.process.sim.pause()
        node = next(n for n in fleet.nodes if n.name == fleet.nodes_of()[0])
        node.host.power_off()
        await fleet.until(lambda: node.name not in fleet.nodes_of() and fleet.running() == 3, 30)
        node.boot()
        await asyncio.sleep(60)
        before = len(Rows(fleet.broker).slots())
        sleeper.kept.process.sim.resume()
        await asyncio.sleep(30)
        rows = Rows(fleet.broker)
        assert len(rows.slots()) == before
        assert len(rows.on("n1/verdict") + rows.on("n2/verdict") + rows.on("n3/verdict")) == 1

    simulate(scenario)


@pytest.mark.parametrize("seconds", [4, 8, 15, 40])
def test_a_node_that_was_stopped_and_goes_on_is_whole_within_five_seconds_of_its_return(seconds: int) -> None:
    """All of its processes are stopped, and none of its links ends; its slots are moved meanwhile, but for one."""

    async def scenario(fleet: Fleet) -> None:
        await fleet.up(3)
        fleet.operator.apply(spec(web("each_node", service="each")), reason="one on each node")
        await fleet.until(lambda: fleet.running("each") == 3, 20)
        node = next(n for n in fleet.nodes if n.name == fleet.nodes_of()[0])
        stopped = [p.sim for p in node.host.processes.values()]
        for process in stopped:
            process.pause()
        await asyncio.sleep(seconds)
        for process in stopped:
            process.resume()

        def whole() -> bool:
            lives = Judged(fleet.view, fleet.world.now_ms, "b1").state(node.name) == "alive"
            return lives and fleet.running("each") == 3 and fleet.running() == 3 and fleet.copies("web") == 3

        await fleet.until(whole, 5)
        await asyncio.sleep(20)
        assert whole()
        assert len(Rows(fleet.broker).on("/verdict")) == (0 if seconds < 5 else 1)

    simulate(scenario)


def test_a_brokers_wall_clock_that_is_26_hours_ahead_for_ten_seconds_makes_nobody_suspect() -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.up(3)
        fleet.broker.host.clock.offset_s = 26 * 3600.0
        await asyncio.sleep(10)
        fleet.broker.host.clock.offset_s = 0.0
        for _ in range(70):
            await asyncio.sleep(1)
            nodes = Judged(fleet.view, fleet.world.now_ms, "b1")
            assert {nodes.state(node.name) for node in fleet.nodes} == {"alive"}
        fleet.operator.apply(spec(web(5)), reason="more")
        await fleet.until(lambda: fleet.running() == 5, 20)
        assert [event.event.data["kind"] for event in Rows(fleet.broker).on("broker/b1/notice")] == ["clock", "clock"]

    simulate(scenario)


def test_links_that_are_back_at_once_kill_no_node_while_the_brokers_clock_is_seven_seconds_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measuring, "MEASURE_S", 1e9)  # what a client hears of its broker's time may be late

    async def scenario(fleet: Fleet) -> None:
        await fleet.up(3)
        fleet.broker.host.clock.offset_s = -9.5
        await asyncio.sleep(700)
        controller = fleet.controllers[0].bus
        assert controller is not None
        assert controller.now_ms() > fleet.world.now_ms - 1000, "it has heard of nothing, and is ahead by now"
        for node in fleet.nodes:
            fleet.world.reset(node.host)
            await asyncio.sleep(8)
        assert Rows(fleet.broker).on("/verdict") == []

    simulate(scenario)


def test_a_controller_of_a_lower_ruleset_only_watches_while_a_higher_one_lives() -> None:
    async def scenario(fleet: Fleet) -> None:
        newer = fleet.controller(OtherRuleset, "c9")
        newer.kept.start()
        await fleet.until(lambda: all(c.runner is not None and c.runner.watching for c in fleet.controllers), 10)
        await fleet.up(2)
        assert {e.event.source for e in Rows(fleet.broker).slots()} == {"controller/c9"}
        newer.kept.stop()
        fleet.operator.apply(spec(web(4)), reason="more")
        await fleet.until(lambda: fleet.running() == 4, 60)
        await fleet.until(lambda: not any(c.runner.watching for c in fleet.controllers), 2)

    simulate(scenario)


def test_nothing_is_said_while_the_broker_is_not_whole() -> None:
    async def scenario(fleet: Fleet) -> None:
        fleet.operator.apply(spec(web(1)), reason="early")
        await asyncio.sleep(3)
        assert fleet.view.services["web"].spec is not None
        assert Rows(fleet.broker).slots() == []
        await fleet.until(lambda: fleet.running() == 1, 30)

    simulate(scenario, born=False)


def test_a_broker_that_is_killed_and_comes_back_changes_nothing() -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.up(3, component="restart: always")
        await asyncio.sleep(15)
        before = Rows(fleet.broker).slots()
        fleet.broker.kept.kill()
        await asyncio.sleep(40)
        rows = Rows(fleet.broker)
        assert rows.slots() == before
        assert [e for _, e in rows.all if e.event.topic.endswith("/verdict")] == []
        assert fleet.running() == 3
        fleet.operator.apply(spec(web(4)), reason="more")
        await fleet.until(lambda: fleet.running() == 4, 60)

    simulate(scenario)


def test_a_controller_says_who_it_is_and_that_it_lives() -> None:
    async def scenario(fleet: Fleet) -> None:
        await asyncio.sleep(65)
        rows = Rows(fleet.broker)
        states = rows.on("controller/c1/state")
        assert states[0].event.data["ruleset"] == RULESET
        assert len(rows.on("controller/c1/heartbeat")) == 2

    simulate(scenario, nodes=1)
