"""The run loop, in virtual time, with real brokers, controllers, managers, monitors and agents around it."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import pytest

from dsmt.bus.client import client
from dsmt.bus.client.client import BusClient
from dsmt.controllers.decide import RULESET, decide
from dsmt.controllers.ranking import rank
from dsmt.controllers.replay import replay
from dsmt.controllers.runner import RANK_S, ControllerRunner
from dsmt.errors import DsmtError, FailedError, InputError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.kinds.controller import ControllerState, Decision
from dsmt.event.kinds.node import DriverAttributes, NodeAttributes, NodeControl
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Hold, SlotControl
from dsmt.event.records import from_data, to_data
from dsmt.event.status import Layer, State
from dsmt.ports.bus import Arrived, Bookmark, Cursor, Draft, Reattached
from dsmt.simulator.members import SimBroker, SimController, SimNode
from dsmt.simulator.operator import SimOperator
from dsmt.simulator.programs import Habits
from dsmt.simulator.run import run
from dsmt.simulator.world import World
from dsmt.view import Fleet as Judged
from dsmt.view import View
from tests.bus.realm import TestClock, TestRealm, memory_network, realm

from .build import START_MS, Realm, key, signed, spec, web


class Rows:
    """The rows of a broker's store."""

    def __init__(self, broker: SimBroker) -> None:
        found, after = [], 0
        while batch := broker.store.rows(after, 1000):
            found += [(row.row, row.read()) for row in batch]
            after = batch[-1].row
        self.all: list[tuple[int, SignedEvent]] = found

    def on(self, end: str) -> list[SignedEvent]:
        return [event for _, event in self.all if event.event.topic.endswith(end)]

    def slots(self) -> list[SignedEvent]:
        return [event for _, event in self.all if "/slot/" in event.event.topic]


class OtherRuleset(SimController):
    """A controller of another version."""

    ruleset = RULESET + 1


class Fleet:
    """A broker, some controllers and nodes, and an operator."""

    def __init__(self, *, controllers: int = 2, nodes: int = 3, seed: int = 1, born: bool = True) -> None:
        self.world = World(seed)
        self.complaints: list[str] = []
        self.broker = SimBroker(self.world, "b1", "10.0.0.1")
        self.broker.birth = self.broker.birth if born else ""
        self.controllers = [self.controller(SimController, f"c{i + 1}") for i in range(controllers)]
        self.nodes = [SimNode(self.world, f"n{i}", f"10.0.2.{i}", Habits(life_s=1e9)) for i in range(1, nodes + 1)]
        self.operator = SimOperator(self.world, "alice", "10.0.3.1")
        for member in (self.broker, *self.controllers, self.operator):
            member.kept.start()
        for node in self.nodes:
            node.start()

    def controller(self, kind: type[SimController], name: str) -> SimController:
        return kind(self.world, name, f"10.0.1.{name[1:]}", self.complaints)

    @property
    def view(self) -> View:
        views = (c.runner.view for c in self.controllers if c.kept.alive and c.runner is not None)
        return next(views, View())

    def nodes_of(self, service: str = "web") -> list[str | None]:
        entry = self.view.services.get(service)
        slots = sorted(entry.slots.items()) if entry is not None else []
        return [s.fact.record.node for _, s in slots if s.fact is not None and s.fact.record.desired == "running"]

    def copies(self, service: str) -> int:
        """How many instances run, wherever they are."""
        slots = [] if (entry := self.view.services.get(service)) is None else entry.slots.values()
        said = [i.application.record for slot in slots for i in slot.instances.values() if i.application is not None]
        return sum(one.state == "running" for one in said)

    def running(self, service: str = "web") -> int:
        entry = self.view.services.get(service)
        count = 0
        for slot in entry.slots.values() if entry is not None else ():
            node = slot.fact.record.node if slot.fact is not None else None
            instance = slot.instances.get(node or "")
            said = instance.application.record if instance is not None and instance.application is not None else None
            count += said is not None and said.state == "running" and said.generation == slot.fact.version
        return count

    async def until(self, holds: Callable[[], object], within_s: float) -> float:
        """Wait until something holds; how long it took (virtual s)."""
        begun = self.world.loop.time()
        while not holds():
            assert self.world.loop.time() < begun + within_s, f"not within {within_s} s; on {self.nodes_of()}"
            await asyncio.sleep(0.02)
        return self.world.loop.time() - begun

    async def up(self, instances: int = 3, component: str = "") -> None:
        await asyncio.sleep(2)
        self.operator.apply(spec(web(instances, component=component)), reason="a test")
        await self.until(lambda: self.running() == instances, 20)


def simulate(scenario: Callable[..., Coroutine[Any, Any, None]], **about: Any) -> None:
    """Run a scenario in virtual time; nothing may crash or complain in it."""

    async def main() -> None:
        fleet = Fleet(**about)
        try:
            await scenario(fleet)
            assert fleet.world.crashes == []
            assert fleet.complaints == []
        finally:
            fleet.world.power_off()
            await asyncio.sleep(1)

    run(main())


def test_what_was_applied_runs_and_every_decision_replays() -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.up(4)
        fleet.nodes[0].host.power_off()
        await fleet.until(lambda: "n1" not in fleet.nodes_of() and fleet.running() == 4, 30)
        rows = Rows(fleet.broker)
        decisions = rows.on("/decision")
        report = replay(rows.all, decisions, store=fleet.broker.store.identity)
        assert report.count("same") == len(decisions) >= 3
        said = {name for d in decisions for name in from_data(Decision, d.event.data).produced}
        assert {str(event.id) for event in rows.slots()} <= said

    simulate(scenario)


def test_of_two_controllers_that_decide_at_once_the_seconds_decisions_replay_the_same_with_what_was_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dsmt.controllers.runner.RANK_S", 0.0)

    async def scenario(fleet: Fleet) -> None:
        await fleet.up(4)
        fleet.nodes[0].host.power_off()
        await fleet.until(lambda: "n1" not in fleet.nodes_of() and fleet.running() == 4, 30)
        rows = Rows(fleet.broker)
        decisions = rows.on("/decision")
        there = {str(event.id) for _, event in rows.all}
        named = [name for d in decisions for name in from_data(Decision, d.event.data).produced]
        report = replay(rows.all, decisions, store=fleet.broker.store.identity)
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


def test_a_node_whose_sessions_close_is_replaced_by_the_short_road(tmp_path: Path) -> None:
    """In real time, on an in-memory network: what ends here closes its connections, as a killed process does."""

    async def main() -> None:
        async with realm(memory_network(), tmp_path) as made, asyncio.timeout(40):
            await made.broker()
            nodes = {name: await joined(made, name) for name in ("n1", "n2")}
            operator = await made.client("operator/alice")
            record = SpecFact(spec=spec(web(1)), by="alice", reason="")
            await operator.publish(Draft("service/web/spec", to_data(record), subject="web"))
            runner = ControllerRunner(await made.client("controller/c1"), TestClock(), version="test")
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

    asyncio.run(main())


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
    monkeypatch.setattr(client, "MEASURE_S", 1e9)  # what a client hears of its broker's time may be late

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


def say(fleet: Fleet, topic: str, record: Any) -> None:
    """The operator says a shared fact that follows what the controllers see."""
    bus = fleet.operator.bus
    draft = Draft(topic, to_data(record), replaces=fleet.view.winner(topic))
    fleet.world.loop.call_in(fleet.operator.kept.process.sim, bus.emit, draft)


async def held_excluded_and_removed(fleet: Fleet) -> tuple[str, str]:
    """A fleet with a held instance, an excluded node and a removed service; the held slot's node, and the excluded one."""
    await fleet.up(2, component="restart: always")
    fleet.operator.apply(spec(web(1, service="old")), reason="a test")
    await fleet.until(lambda: fleet.view.winner("service/old/slot/app/0"), 20)
    fleet.operator.remove("old")
    hold = Hold(by="alice", at_ms=START_MS, reason="maintenance")
    say(fleet, "service/web/control/app/0", SlotControl(hold=hold, by="alice", reason="maintenance"))
    node = next(n.name for n in fleet.nodes if n.name not in fleet.nodes_of())
    say(fleet, f"node/{node}/control", NodeControl(mode="excluded", by="alice", reason="broken"))
    await fleet.until(lambda: fleet.view.winner("tombstone/service/old"), 60)
    await fleet.until(lambda: _desired(fleet) == ("stopped", "hold.operator") and fleet.running() == 1, 20)
    return fleet.view.slot(key(0)).fact.record.node, node


def _desired(fleet: Fleet) -> tuple[str, str] | None:
    slot = fleet.view.slot(key(0))
    if slot is None or slot.fact is None:
        return None
    told = slot.fact.record
    return told.desired, "" if told.reason is None else told.reason.code


def kept(fleet: Fleet, topics: Iterable[str]) -> dict[str, EventId]:
    """Which facts win on topics in the broker's store."""
    rows = {topic: fleet.broker.store.winner(topic) for topic in topics}
    return {topic: row.read().id for topic, row in rows.items() if row is not None}


def starts(fleet: Fleet) -> int:
    return sum(int(program.slot == "web/app/0") for node in fleet.nodes for program in node.host.programs.values())


def test_what_operators_decided_outlives_the_brokers_store() -> None:
    """Its `store.db` alone is lost: the birth record is still there, and names another store."""

    async def scenario(fleet: Fleet) -> None:
        at, excluded = await held_excluded_and_removed(fleet)
        before = {s.event.topic: s.id for s in fleet.view.winners() if s.event.expires_ms is None}
        fleet.broker.kept.stop()
        fleet.broker.new_store()
        fleet.broker.kept.start()
        told: list[int] = []
        for _ in range(1500):
            await asyncio.sleep(0.02)
            told.append(starts(fleet))
        assert set(told) == {0}, "it was never started"
        assert fleet.view.slot(key(0)).fact.record.node == at
        after = {s.event.topic: s.id for s in fleet.view.winners() if s.event.expires_ms is None}
        assert {topic: identity for topic, identity in after.items() if topic in before} == before
        assert fleet.view.nodes[excluded].mode == "excluded"
        assert "old" not in {name for name, entry in fleet.view.services.items() if entry.spec is not None}
        assert Rows(fleet.broker).slots(), "the new store has the slots again"
        assert {e.id for e in Rows(fleet.broker).slots()} <= set(before.values()), "and nothing was decided anew"

    simulate(scenario)


PARKS = "restart: {first: 100ms, factor: 1, park: {after: 3}, escalate: [restart: 2]}\n"


def test_a_slot_comes_back_with_what_it_was_rolled_back_to_though_the_store_and_who_applied_it_are_gone() -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.up(1, component=PARKS)
        first = fleet.view.services["web"].spec.id
        await asyncio.sleep(15)

        def bad(instances: int) -> dict[str, Any]:
            return spec(web(instances, component=PARKS).replace("./app", "./app fails"))

        def told() -> tuple[str, int, str]:
            fact = fleet.view.slot(key(0)).fact.record
            return fact.spec, fact.refused, fact.desired

        fleet.operator.apply(bad(1), reason="a test")
        await fleet.until(lambda: told() == (str(first), 2, "running") and fleet.running() == 1, 60)
        fleet.operator.apply(bad(0), reason="a test")
        await fleet.until(lambda: told()[2] == "gone" and not fleet.copies("web"), 60)
        await asyncio.sleep(30)
        fleet.operator.kept.stop()
        fleet.broker.kept.stop()
        fleet.broker.new_store()
        fleet.broker.kept.start()
        fleet.operator.kept.start()
        await asyncio.sleep(30)
        fleet.operator.apply(bad(1), reason="a test")
        await fleet.until(lambda: fleet.running() == 1, 60)
        assert told()[0] == str(first)

    simulate(scenario)


def test_a_held_instance_stays_held_when_only_the_nodes_know_of_it() -> None:
    async def scenario(fleet: Fleet) -> None:
        await held_excluded_and_removed(fleet)
        for member in (fleet.broker, *fleet.controllers):
            member.kept.stop()
        fleet.broker.new_store()
        before = [controller.runner for controller in fleet.controllers]
        for member in (fleet.broker, *fleet.controllers):
            member.kept.start()
        await fleet.until(lambda: all(c.runner not in before for c in fleet.controllers) and _desired(fleet), 20)
        for _ in range(1500):
            await asyncio.sleep(0.02)
            assert starts(fleet) == 0
            assert _desired(fleet) == ("stopped", "hold.operator")
        assert fleet.view.services.keys() == {"web"}

    simulate(scenario)


def test_a_power_cut_that_takes_the_last_rows_loses_no_decision() -> None:
    async def scenario(fleet: Fleet) -> None:
        await held_excluded_and_removed(fleet)
        before = {s.event.topic: s.id for s in fleet.view.winners() if s.event.expires_ms is None}
        store, control = fleet.broker.store.identity, fleet.broker.store.winner("service/web/control/app/0")
        fleet.broker.lose_tail(fleet.broker.store.head - control.row + 1)
        fleet.broker.boot()
        assert fleet.broker.store.identity != store
        assert fleet.broker.store.winner("service/web/control/app/0") is None
        await fleet.until(lambda: kept(fleet, before) == before, 30)
        assert starts(fleet) == 0

    simulate(scenario)


def test_a_controller_that_was_cut_off_meanwhile_brings_what_the_others_lost() -> None:
    async def scenario(fleet: Fleet) -> None:
        _, excluded = await held_excluded_and_removed(fleet)
        first, second = fleet.controllers
        fleet.world.cut(first.host)
        fleet.broker.kept.stop()
        second.kept.stop()
        fleet.broker.new_store()
        before = second.runner
        fleet.broker.kept.start()
        second.kept.start()
        await fleet.until(lambda: second.runner not in (None, before) and second.runner.view.slot(key(0)), 30)
        await asyncio.sleep(30)
        assert "node/" + excluded + "/control" not in {s.event.topic for s in second.runner.view.winners()}
        said = len(Rows(fleet.broker).slots())
        fleet.world.heal(first.host)
        for topic in (f"node/{excluded}/control", "service/web/control/app/0", "tombstone/service/old"):
            await fleet.until(lambda topic=topic: second.runner.view.winner(topic), 30)
        await asyncio.sleep(10)
        assert len(Rows(fleet.broker).slots()) == said, "nothing is decided anew"
        assert starts(fleet) == 0

    simulate(scenario)


def test_a_controller_says_who_it_is_and_that_it_lives() -> None:
    async def scenario(fleet: Fleet) -> None:
        await asyncio.sleep(65)
        rows = Rows(fleet.broker)
        states = rows.on("controller/c1/state")
        assert states[0].event.data["ruleset"] == RULESET
        assert len(rows.on("controller/c1/heartbeat")) == 2

    simulate(scenario, nodes=1)


# --- the loop's own rules, with a bus in the test's hand ---------------------------------------------------------


class HandClock:
    def __init__(self) -> None:
        self.now = 100.0

    def boottime(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return 0


class HandEmission:
    def __init__(self, number: int, error: DsmtError | None = None) -> None:
        self.id, self.signed, self.error = EventId("controller/c1", 1, number), None, error

    async def acknowledged(self) -> None:
        if self.error is not None:
            raise self.error


class HandBus:
    """Keeps what is emitted. On the topics of `too_big` nothing is, on those of `dropped` nothing is acknowledged."""

    source, broker, attached = "controller/c1", "b1", True
    early_s = 0.0

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        self.said: list[Draft] = []
        self.offered: list[SignedEvent] = []
        self.too_big: set[str] = set()
        self.dropped: set[str] = set()

    def now_ms(self) -> int:
        return START_MS + int(self._clock.now * 1000)

    def flush(self) -> None:
        pass

    def offer(self, signed: list[SignedEvent]) -> None:
        self.offered += signed

    async def fetch(self, _ids: list[EventId]) -> list[SignedEvent]:
        return []

    def emit(self, draft: Draft) -> HandEmission:
        if draft.topic in self.too_big:
            raise InputError("event.too_big", f"event on {draft.topic} is too big")
        self.said.append(draft)
        dropped = FailedError("outbox.full", "it was dropped") if draft.topic in self.dropped else None
        return HandEmission(len(self.said), dropped)


class HandSubscription:
    """Keeps the newest token."""

    def __init__(self) -> None:
        self.token: int | None = None

    def mark(self, token: int) -> None:
        self.token = token


class Hand:
    """A runner whose deliveries and time a test gives."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.bus = HandBus(self.clock)
        self.heard: list[str] = []
        self.runner = ControllerRunner(self.bus, self.clock, version="0.1", complain=self.heard.append)  # type: ignore[arg-type]
        self.subscription = self.runner._subscription = HandSubscription()  # type: ignore[assignment]
        self._row = 0

    def give(self, *events: SignedEvent) -> None:
        for event in events:
            self._row += 1
            self.runner._fold([Arrived(event, self._row, live=True)])

    def slots(self, seconds: float = 0.0) -> list[str]:
        """Time passes with bookmarks, and a turn at its end; the slots that were said then."""
        before = len(self.bus.said)
        for _ in range(max(1, round(seconds / 0.25))):
            self.clock.now += 0.25 if seconds else 0.0
            self.runner._gate.beat(self.clock.now)
        self.turn()
        self.bookmark()
        self.turn()
        return [draft.topic for draft in self.bus.said[before:] if "/slot/" in draft.topic]

    def bookmark(self) -> None:
        """The broker answers: everything up to here."""
        cursor = Cursor("s1", self._row, self.bus.now_ms())
        self.runner._fold([Bookmark(cursor, whole=True, token=self.subscription.token)])

    def turn(self) -> list[str]:
        """One turn of the loop; the topics on which something was said."""
        before = len(self.bus.said)

        async def turn() -> None:
            async with asyncio.TaskGroup() as group:
                self.runner._turn(group)

        asyncio.run(turn())
        return [draft.topic for draft in self.bus.said[before:]]


def applied(instances: int = 2) -> Hand:
    hand, realm = Hand(), Realm("n1", "n2")
    realm.apply(web(instances))
    hand.give(*(event for _, event in realm.rows))
    return hand


SLOTS = ["service/web/slot/app/0", "service/web/slot/app/1"]


def test_what_was_published_is_not_said_again_until_it_should_have_come_back() -> None:
    hand = applied()
    assert hand.slots() == SLOTS
    assert hand.slots(0.25) == []
    assert hand.slots(4.5) == []
    assert hand.slots(0.5) == SLOTS


def test_an_intent_that_no_event_can_hold_is_complained_of_and_harms_no_other() -> None:
    hand = applied()
    hand.bus.too_big = {SLOTS[0]}
    assert hand.slots() == SLOTS[1:]
    assert [SLOTS[0] in sentence for sentence in hand.heard] == [True]
    assert len(from_data(Decision, dict(hand.bus.said[-1].data)).produced) == 1
    assert hand.slots(4.75) == []
    assert len(hand.heard) == 1
    hand.bus.too_big = set()
    assert SLOTS[0] in hand.slots(0.5)


def test_a_batch_of_which_nothing_can_be_said_is_no_decision() -> None:
    hand = applied()
    hand.bus.too_big = set(SLOTS)
    assert hand.slots() == []
    assert not [draft for draft in hand.bus.said if draft.topic.endswith("/decision")]


def test_an_intent_that_the_outbox_drops_is_complained_of_and_said_again() -> None:
    hand = applied()
    hand.bus.dropped = {SLOTS[0]}
    assert hand.slots() == SLOTS
    assert ["dropped" in sentence for sentence in hand.heard] == [True]
    assert hand.slots(5.25) == SLOTS


def test_another_event_of_its_service_does_not_make_it_said_twice() -> None:
    hand, realm = applied(), Realm("n1", "n2")
    assert hand.slots() == SLOTS
    hand.give(realm.status(key(0), "n1", State.INSTALLED, layer=Layer.CONTAINER, generation=0))
    assert hand.slots(0.25) == []


def test_a_batch_names_its_inputs_and_products() -> None:
    hand = applied()
    hand.slots()
    decision = from_data(Decision, dict(hand.bus.said[-1].data))
    ids = [str(EventId("controller/c1", 1, n + 1)) for n, d in enumerate(hand.bus.said) if "/slot/" in d.topic]
    assert list(decision.produced) == ids
    assert (decision.store, decision.row, decision.broker) == ("s1", hand._row, "b1")
    assert decision.view_digest == hand.runner.view.digest


def test_nothing_is_decided_between_an_event_and_its_bookmark() -> None:
    hand = applied()
    hand.turn()
    hand.bookmark()
    hand.give(signed("operator/alice", "nodeset/a", {"expression": "all_nodes", "by": "alice"}, version=1))
    assert hand.turn() == []
    assert hand.slots() == SLOTS


def test_a_controller_waits_its_rank() -> None:
    hand = applied()
    peers = [f"c{i}" for i in range(2, 6)]
    realm = Realm()
    for name in peers:
        state = ControllerState(version="0.1", ruleset=RULESET, pid=None, decisions=0)
        realm.say(f"controller/{name}", f"controller/{name}/state", state)
        realm.attach("", sources=[f"controller/{name}"])
    hand.give(*(event for _, event in realm.rows))
    place = rank("service/web", "c1", peers)
    assert place > 0
    assert hand.slots() == []
    waited = 0.0
    while not (said := hand.slots(0.25)):
        waited += 0.25
        assert waited < 2
    assert said == SLOTS
    assert waited + 0.25 >= RANK_S * place


def reconnected(broker: str, store: str = "s1") -> Reattached:
    return Reattached(broker, store)


def test_after_it_attached_to_another_broker_it_folds_anew() -> None:
    hand = applied()
    hand.slots()
    hand.runner._fold([reconnected("b1")])
    assert len(hand.runner.view) > 0
    hand.runner._fold([reconnected("b2", "s2")])
    assert len(hand.runner.view) == 0
    assert hand.slots() == []


def test_after_its_broker_got_another_store_it_folds_anew() -> None:
    hand = applied()
    hand.slots()
    hand.runner._fold([reconnected("b1")])
    assert len(hand.runner.view) > 0
    hand.runner._fold([reconnected("b1", "s2")])
    assert len(hand.runner.view) == 0


def test_a_fact_that_cannot_be_read_is_complained_of_and_stops_nobody() -> None:
    hand = Hand()
    bad = signed("controller/c2", "service/web/slot/app/0", {"node": 7}, version=1)
    good = signed("operator/alice", "nodeset/a", {"expression": "all_nodes", "by": "alice"}, version=1)
    hand.give(bad, good)
    assert "service/web/slot/app/0" in hand.heard[0]
    assert set(hand.runner.view.nodesets) == {"a"}


def test_what_waited_in_the_buffer_of_a_stopped_controller_is_not_taken_for_fresh() -> None:
    """`remove`, SIGSTOP, another buries, `apply` again, SIGCONT: all that it reads first is of before."""
    hand = applied()
    before = hand.subscription.token
    hand.turn()
    hand.clock.now += 25.0
    for _ in range(4):  # bookmarks that the broker sent while it was stopped, each in a turn of its own
        hand.runner._fold([Bookmark(Cursor("s1", hand._row, 0), whole=True, token=before)])
        assert hand.turn() == []
        hand.runner._fold([Bookmark(Cursor("s1", hand._row, 0), whole=True)])
        assert hand.turn() == []
        hand.clock.now += 0.01
    assert hand.slots() == SLOTS


def test_what_was_decided_before_a_stop_and_not_sent_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = applied()

    def stopped(*told: Any, **about: Any) -> Any:
        hand.clock.now += 25.0
        return decide(*told, **about)

    monkeypatch.setattr("dsmt.controllers.runner.decide", stopped)
    hand.turn()
    hand.bookmark()
    assert [topic for topic in hand.turn() if topic in SLOTS] == []
    monkeypatch.undo()
    assert hand.slots() == SLOTS
