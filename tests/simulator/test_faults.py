"""What breaks a simulated fleet: whom it may strike, for how long, and that all of it is mended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dsmt.ports.driver import Launch
from dsmt.simulator.engine.host import HostProcess
from dsmt.simulator.engine.run import run
from dsmt.simulator.faults import FaultInjector, Kind
from dsmt.simulator.fleet import Scale, SimFleet
from dsmt.simulator.kinds import STORM
from dsmt.simulator.members import AGAIN_S, SimBroker, SimController, SimNode
from dsmt.simulator.programs import SimInstance
from dsmt.simulator.world import World

NODES = 20
Scene = Callable[[FaultInjector], Awaitable[None]]


async def _idle(_member: object, _process: HostProcess) -> None:
    await asyncio.sleep(1e6)


async def _agent(_process: HostProcess) -> None:
    await asyncio.sleep(1e6)


def play(scene: Scene, *, nodes: int = NODES, seed: int = 5) -> None:
    """Play a scene in a fleet whose members all run, and do nothing."""

    async def main() -> None:
        with pytest.MonkeyPatch.context() as patched:
            for member, name in (
                (SimBroker, "_main"), (SimController, "_main"), (SimNode, "_manager"), (SimNode, "_monitor"),
            ):  # fmt: skip
                patched.setattr(member, name, _idle)
            world = World(seed)
            fleet = SimFleet(world, Scale(nodes=nodes, services=0, controllers=2))
            await fleet.start()
            await scene(FaultInjector(fleet))
            world.power_off()
            await asyncio.sleep(100)

    run(main())


def lost(faults: FaultInjector) -> list[str]:
    """The nodes that are not up."""
    return [name for name, node in faults.fleet.nodes.items() if node not in faults.up()]


def test_kinds_are_drawn_by_their_weight_about_so_often_and_until_the_end() -> None:
    async def scene(faults: FaultInjector) -> None:
        struck: list[str] = []

        def often(_: FaultInjector) -> str | None:
            return struck.append("often")

        def seldom(_: FaultInjector) -> str | None:
            return struck.append("seldom")

        loop = asyncio.get_running_loop()
        began = loop.time()
        await faults.run({often: 3, seldom: 1}, 0.5, 1000.0)
        assert loop.time() - began == pytest.approx(1000.0, abs=0.002)
        assert len(struck) == pytest.approx(2000, rel=0.1)
        assert struck.count("seldom") == pytest.approx(500, rel=0.15)
        await faults.run({often: 1}, 50.0, 0.001)
        assert loop.time() - began == pytest.approx(1000.0, abs=0.01), "it ends though nothing comes"

    play(scene)


def test_what_was_done_is_told_with_its_time_and_what_nobody_suffered_is_not() -> None:
    async def scene(faults: FaultInjector) -> None:
        def cut_a_cable(of: FaultInjector) -> str | None:
            return "n3" if of is faults else None

        def nobody(_: FaultInjector) -> str | None:
            return None

        await asyncio.sleep(1.5)
        faults.inflict(nobody)
        faults.inflict(cut_a_cable)
        assert faults.log == ["[3.500 s] cut a cable: n3"]

    play(scene)


def test_what_is_broken_is_mended_once_after_its_time_or_with_all_else() -> None:
    async def scene(faults: FaultInjector) -> None:
        mended: list[str] = []
        faults.later(5.0, lambda: mended.append("first"))
        faults.later(60.0, lambda: mended.append("second"))
        faults.later(70.0, lambda: mended.append("third"))
        await asyncio.sleep(4.9)
        assert mended == []
        await asyncio.sleep(0.2)
        assert mended == ["first"]
        faults.mend()
        assert mended == ["first", "second", "third"]
        assert faults.log[-1].endswith("all is mended")
        faults.mend()
        await asyncio.sleep(100)
        assert mended == ["first", "second", "third"], "each of them once"

    play(scene)


def test_who_is_down_or_cut_off_or_filtered_or_not_to_run_is_struck_by_nothing_more() -> None:
    async def scene(faults: FaultInjector) -> None:
        nodes = faults.fleet.nodes
        assert lost(faults) == []
        nodes["n1"].host.power_off()
        nodes["n2"].host.cut = True
        nodes["n3"].host.filtered = True
        nodes["n4"].manager.wanted = False
        assert lost(faults) == ["n1", "n2", "n3", "n4"]
        assert {faults.node().name for _ in range(500)} == set(nodes) - {"n1", "n2", "n3", "n4"}
        assert {faults.controller().name for _ in range(50)} == {"c1", "c2"}

    play(scene)


@pytest.mark.parametrize(("nodes", "most"), [(20, 2), (19, 1), (5, 1)])
def test_no_more_than_a_tenth_of_the_nodes_is_down_at_one_time_but_one_may_always_be(nodes: int, most: int) -> None:
    async def scene(faults: FaultInjector) -> None:
        for number in range(most):
            assert faults.may_lose_one()
            faults.cut(list(faults.fleet.nodes.values())[number].host, 9.0)
        assert not faults.may_lose_one()
        faults.mend()
        assert faults.may_lose_one()

    play(scene, nodes=nodes)


def test_an_agent_is_struck_while_it_lives_on_a_node_that_is_up() -> None:
    async def scene(faults: FaultInjector) -> None:
        assert faults.agent() is None, "managers and monitors are no agents"
        first, second, third = list(faults.fleet.nodes.values())[:3]
        agents = [node.host.start(f"agent:web/app/{number}", _agent) for number, node in enumerate((first, second, third))]
        assert {agent.name for agent in (faults.agent() for _ in range(100)) if agent} == {one.name for one in agents}
        third.host.cut = True
        agents[1].sim.kill()
        assert {faults.agent() for _ in range(50)} == {agents[0]}

    play(scene)


def test_what_is_killed_is_named_and_started_again_by_its_keeper() -> None:
    async def scene(faults: FaultInjector) -> None:
        kept = faults.fleet.nodes["n2"].manager
        before = kept.process
        assert faults.kill(kept) == "n2:container_manager"
        assert not kept.alive
        assert faults.kill(kept) is None, "it is dead already"
        await asyncio.sleep(2 * AGAIN_S[1])
        assert kept.alive
        assert kept.process is not before

    play(scene)


def test_a_pause_takes_what_runs_and_ends_in_its_time() -> None:
    async def scene(faults: FaultInjector) -> None:
        process = faults.fleet.nodes["n2"].monitor.process
        assert process is not None
        lengths: list[float] = []
        assert faults.pause(None, 3.0) is None
        told = faults.pause(process, 3.0)
        assert told is not None
        name, _, seconds = told.removesuffix(" s").partition(" for ")
        assert name == "n2:monitor"
        assert 0.2 <= float(seconds) <= 3.0
        assert process.sim.state == "paused"
        assert faults.pause(process, 3.0) is None, "it stands still already"
        await asyncio.sleep(float(seconds) - 0.1)
        assert process.sim.state == "paused"
        await asyncio.sleep(0.2)
        assert process.sim.state == "running"
        for _ in range(50):
            told = faults.pause(process, 3.0) or ""
            lengths.append(float(told.removesuffix(" s").rpartition(" ")[2]))
            faults.mend()
        assert 0.2 <= min(lengths) < 0.5
        assert 2.5 < max(lengths) <= 3.0

    play(scene)


def test_several_stand_still_together_and_those_that_did_already_go_on_when_they_would_have() -> None:
    async def scene(faults: FaultInjector) -> None:
        first, second = (faults.fleet.nodes[name].manager.process for name in ("n1", "n2"))
        assert first is not None
        assert second is not None
        assert faults.stall([first], 60.0) == [first]
        assert faults.stall([None, first, second], 5.0) == [second]
        assert (first.sim.state, second.sim.state) == ("paused", "paused")
        await asyncio.sleep(4.9)
        assert second.sim.state == "paused"
        await asyncio.sleep(0.2)
        assert (first.sim.state, second.sim.state) == ("paused", "running")
        faults.mend()
        assert first.sim.state == "running"

    play(scene)


def test_a_node_that_stands_still_does_so_with_its_spawner() -> None:
    async def scene(faults: FaultInjector) -> None:
        node, other = faults.fleet.nodes["n1"], faults.fleet.nodes["n2"]
        node.host.start("agent:web/app/0", _agent)

        def states() -> tuple[set[str], bool]:
            return {process.sim.state for process in node.running}, node.processes.gone

        assert len(node.running) == 3
        faults.stall_node(node, 5.0)
        assert states() == ({"paused"}, True)
        assert ({process.sim.state for process in other.running}, other.processes.gone) == ({"running"}, False)
        await asyncio.sleep(4.9)
        assert states() == ({"paused"}, True)
        await asyncio.sleep(0.2)
        assert states() == ({"running"}, False)

    play(scene)


def test_a_cut_is_of_one_host_and_over_after_its_time() -> None:
    async def scene(faults: FaultInjector) -> None:
        hosts = {name: node.host for name, node in faults.fleet.nodes.items()}
        faults.cut(hosts["n1"], 5.0)
        await asyncio.sleep(4.9)
        assert [name for name, host in hosts.items() if host.cut] == ["n1"]
        await asyncio.sleep(0.2)
        assert not hosts["n1"].cut

    play(scene)


def test_a_middlebox_ends_the_links_of_its_nodes_and_lets_none_be_made_for_a_while() -> None:
    async def scene(faults: FaultInjector) -> None:
        world, nodes = faults.world, faults.fleet.nodes
        ended: list[str] = []
        world.reset = lambda host: ended.append(host.name)  # type: ignore[method-assign]
        faults.middlebox([nodes["n1"], nodes["n2"]], 5.0)
        assert ended == ["n1", "n2"]
        await asyncio.sleep(4.9)
        assert [name for name, node in nodes.items() if node.host.filtered] == ["n1", "n2"]
        await asyncio.sleep(0.2)
        assert lost(faults) == []

    play(scene)


def test_a_killed_node_stays_dead_until_it_is_started_and_its_kernel_lives() -> None:
    async def scene(faults: FaultInjector) -> None:
        node = faults.fleet.nodes["n1"]
        faults.kill_node(node)
        await asyncio.sleep(60)
        assert (node.running, node.host.on, lost(faults)) == ([], True, ["n1"])
        node.start()
        await asyncio.sleep(1)
        assert len(node.running) == 2
        assert lost(faults) == []

    play(scene)


def test_one_seed_strikes_the_same_in_the_same_order() -> None:
    def struck(seed: int) -> list[str]:
        names: list[str] = []

        async def scene(faults: FaultInjector) -> None:
            names.extend(faults.node().name for _ in range(20))

        play(scene, seed=seed)
        return names

    assert struck(5) == struck(5) != struck(6)


def state(faults: FaultInjector) -> list[object]:
    """All that a kind of fault may change: each machine, what runs there, and what was said to the operator."""
    hosts = [(host, host.on, host.cut, host.filtered, host.clock.offset_s) for host in faults.world.hosts.values()]
    processes = [(host.name, one.name, one.sim.state) for host, *_ in hosts for one in host.processes.values()]
    programs = [(host.name, pid) for host, *_ in hosts for pid in host.programs]
    spawners = [node.processes.gone for node in faults.fleet.nodes.values()]
    return [*hosts, processes, programs, spawners, list(faults.fleet.will.asked)]


@pytest.mark.parametrize("kind", STORM, ids=lambda kind: kind.__name__)
def test_each_kind_of_fault_does_something_and_says_so(kind: Kind) -> None:
    async def scene(faults: FaultInjector) -> None:
        fleet, ended = faults.fleet, list[str]()
        faults.world.reset = lambda host: ended.append(host.name)  # type: ignore[method-assign]
        for node in fleet.nodes.values():
            node.host.start("agent:web/app/0", _agent)
            launch = Launch(("sleep", "600"), "/", {"DSMT_INSTANCE": "web/app/0"}, stdout="/out", stderr="/err")
            SimInstance(node.host, "/node/containers/web/app/0", launch, node.habits)
        fleet.apply("web", instances=2)
        fleet.will.holds("web/app/1", held=True)
        fleet.will.used("n3", "draining", 0.0)
        before = state(faults)
        faults.inflict(kind)
        assert (state(faults), ended) != (before, [])
        assert len(faults.log) == 1
        faults.mend()

    play(scene)
