"""What operators and controllers decided outlives the store of the broker."""

import asyncio
from collections.abc import Iterable
from typing import Any

from dsmt.event.envelope import EventId
from dsmt.event.kinds.node import NodeControl
from dsmt.event.kinds.slot import Hold, SlotControl
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft

from .build import key, spec, web
from .fleet import Fleet, Rows, simulate, starts
from .rollouts import refused
from .signing import START_MS


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
            return fact.spec, refused(fact), fact.desired

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
        await fleet.until(lambda: second.runner not in (None, before) and second.runner.view.slot(key(0)).fact, 30)
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
