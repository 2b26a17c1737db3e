"""Races: who changes what another has changed a moment before is told, whatever the command."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dsmt.bus.client.client import BusClient
from dsmt.errors import FailedError
from dsmt.event.envelope import EventId
from dsmt.event.kinds.node import NodeAttributes, NodeControl
from dsmt.event.kinds.realm import BrakeWord, NodesetFact
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Hold, Slot, SlotControl
from dsmt.event.records import to_data
from dsmt.operations.read.realm.sight import look
from dsmt.operations.words.targets import Target
from dsmt.operations.write import braking, controlling, node_control, nodesets, revising
from dsmt.operations.write.writing import Acknowledged, anew, bury, follow, say
from dsmt.ports.bus import Draft, Interest
from tests.bus.realm import memory_network, realm
from tests.controllers.build import Realm, spec, web
from tests.loops import in_real_time
from tests.waiting import until

ATTRIBUTES = NodeAttributes(
    cpus=4, memory_bytes=2**33, memory_free_bytes=2**33, disk_bytes=2**33, disk_free_bytes=2**33, load=0.0, address="::1",
    version="0.1", boot_id="b",
)  # fmt: skip
SLOT = Slot(node="n1", spec="x", revision=1, desired="running")
HOLD = Hold(by="bob", at_ms=1, reason="bob's")


class Raced:
    """An operator's bus between whose first look and first word another operator speaks."""

    def __init__(self, bus: BusClient, rival: Callable[[], Awaitable[object]]) -> None:
        self._bus, self._rival = bus, rival
        self._raced = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    @asynccontextmanager
    async def subscribe(self, interest: Interest) -> AsyncIterator[Any]:
        async with self._bus.subscribe(interest) as batches:
            yield batches
        if not self._raced:
            self._raced = True
            await self._rival()
            said_ms = self._bus.now_ms()
            await until(lambda: self._bus.now_ms() > said_ms + 50)  # the two clocks agree to some milliseconds only


CASES: dict[str, tuple[str, Any, Callable[[Any], Awaitable[object]]]] = {
    "stop": (
        "service/web/control/app/0",
        SlotControl(restart=7, by="bob"),
        lambda bus: controlling.stop(bus, Target("web"), by="alice", reason=""),
    ),
    "restart": (
        "service/web/control/app/0",
        SlotControl(hold=HOLD, by="bob"),
        lambda bus: controlling.restart(bus, Target("web"), by="alice", reason=""),
    ),
    "start": (
        "service/web/control/app/1",
        SlotControl(hold=HOLD, restart=1, by="bob"),
        lambda bus: controlling.start(bus, Target("web"), by="alice", reason=""),
    ),
    "scale": (
        "service/web/spec",
        SpecFact(spec=spec(web(7)), by="bob", reason=""),
        lambda bus: revising.scale(bus, Target("web", "app"), 5, by="alice", reason=""),
    ),
    "drain": (
        "node/n1/control",
        NodeControl(mode="excluded", by="bob", reason=""),
        lambda bus: node_control.set_mode(bus, "n1", "draining", by="alice", reason=""),
    ),
    "nodeset set": (
        "nodeset/good",
        NodesetFact(expression="n2", by="bob"),
        lambda bus: nodesets.define(bus, "good", "n1", by="alice"),
    ),
    "brake release": (
        "config/brake",
        BrakeWord(held=True, released_ms=0, by="bob", reason=""),
        lambda bus: braking.release(bus, by="alice", reason=""),
    ),
}


@asynccontextmanager
async def operators(directory: Path) -> AsyncIterator[tuple[BusClient, BusClient]]:
    """Alice and bob at a broker that knows a node, and a service of two slots of which one is held."""
    async with realm(memory_network(), directory) as made:
        await made.broker()
        node, controller = await made.client("monitor/n1"), await made.client("controller/c1")
        alice, bob = await made.client("operator/alice"), await made.client("operator/bob")
        await node.publish(Draft("node/n1/attributes", to_data(ATTRIBUTES)))
        await alice.publish(Draft("service/web/spec", to_data(SpecFact(spec=spec(web(2)), by="alice", reason=""))))
        for index in range(2):
            await controller.publish(Draft(f"service/web/slot/app/{index}", to_data(SLOT)))
        await alice.publish(Draft("service/web/control/app/1", to_data(SlotControl(hold=HOLD))))
        yield alice, bob


def run(directory: Path, test: Callable[[BusClient, BusClient], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), operators(directory) as (alice, bob):
            await test(alice, bob)

    asyncio.run(main())


@pytest.mark.parametrize("command", CASES)
def test_a_command_that_lost_its_race_fails_and_names_who_was_first(tmp_path: Path, command: str) -> None:
    topic, record, act = CASES[command]

    async def test(alice: BusClient, bob: BusClient) -> None:
        view = (await look(bob)).view
        with pytest.raises(FailedError) as told:
            await act(Raced(alice, lambda: bob.publish(follow(view, topic, record, subject=topic))))
        assert (told.value.code, told.value.exit) == ("conflict", 1)
        assert f"operator/bob changed {topic}" in told.value.message
        winner = (await look(bob)).view.winner(topic)
        assert winner is not None
        assert winner.event.source == "operator/bob"

    run(tmp_path, test)


@pytest.mark.parametrize("command", CASES)
def test_a_command_that_nobody_races_is_done(tmp_path: Path, command: str) -> None:
    topic, _, act = CASES[command]

    async def test(alice: BusClient, bob: BusClient) -> None:
        await act(alice)
        winner = (await look(bob)).view.winner(topic)
        assert winner is not None
        assert winner.event.source == "operator/alice"

    run(tmp_path, test)


def test_what_is_made_anew_is_said_in_the_epoch_after_the_one_that_its_tombstone_ends() -> None:
    made = Realm("n1")
    made.apply(web(1))
    record = SpecFact(spec=spec(web(1)), by="alice", reason="", removed=False)
    grave = bury(made.view, "service/web", by="alice", reason="over")
    fresh = anew(made.view, "service/web/spec", record, subject="web")
    assert (grave.epoch, fresh.epoch, fresh.replaces) == (1, 2, None)


@pytest.mark.parametrize("stored", [False, True])
def test_of_what_was_not_acknowledged_the_history_says_whether_it_is_stored(stored: bool) -> None:
    told, lost = EventId("operator/alice", 1, 2), FailedError("unanswered", "the link was lost")

    async def acknowledged() -> None:
        raise lost

    async def fetch(ids: list[EventId]) -> list[EventId]:
        assert ids == [told]
        return ids if stored else []

    bus: Any = SimpleNamespace(fetch=fetch, emit=lambda _: SimpleNamespace(id=told, acknowledged=acknowledged))
    if stored:
        assert asyncio.run(say(bus, [Draft("user/x", {})])) == Acknowledged([told], 0)
        return
    with pytest.raises(FailedError, match="user/x was not stored: the connection was lost") as refused:
        asyncio.run(say(bus, [Draft("user/x", {})]))
    assert refused.value.code == "conflict"


@in_real_time
async def test_sets_that_two_define_at_once_and_that_lead_back_to_themselves_are_told_and_mended(tmp_path: Path) -> None:
    async with asyncio.timeout(60), realm(memory_network(), tmp_path) as made:
        await made.broker()
        alice = await made.client("operator/alice")
        await nodesets.define(alice, "a", "all_nodes", by="alice")
        await nodesets.define(alice, "b", "failed", by="alice")
        rival = Raced(alice, lambda: nodesets.define(alice, "b", "minus(all_nodes, a)", by="bob"))
        said = await nodesets.define(cast("Any", rival), "a", "minus(all_nodes, b)", by="alice")
        assert said.cycle == "the named sets form a cycle: a -> b -> a"
        shown = nodesets.every(await look(alice))
        assert [(one.name, one.nodes, one.cycle is None) for one in shown] == [("a", [], False), ("b", [], False)]
        assert (await nodesets.show(alice, "b")).cycle == "the named sets form a cycle: b -> a -> b"
        await nodesets.forget(alice, "b", by="alice", used=True)
        assert [one.cycle for one in nodesets.every(await look(alice))] == [None]
