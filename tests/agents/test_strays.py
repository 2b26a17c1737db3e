"""What runs of a slot whose container its program has removed: ended before it is said to be gone, and nothing else is."""

import asyncio
import signal

import pytest

from dsmt.agents.node.strays import AGAIN_S, GATHER_S
from dsmt.event.kinds.instance import Status
from dsmt.event.records import to_data
from dsmt.event.slots import SlotKey
from dsmt.event.status import Layer, State
from dsmt.ports.bus import Draft
from tests.loops import in_virtual_time

from .managed import SLOT, Managed
from .memory_bus import EPOCH_MS, Bus

CONTAINER = f"/n1/{SLOT.directory}"


async def removed_itself(agent: int = signal.SIGKILL) -> Managed:
    """A node whose slot's program runs, and has removed all of its container; its manager was killed.

    Its agent got another signal, or none: 0.
    """
    at = await Managed.running()
    at.node.files.content.clear()
    assert at.process is not None
    at.process.kill()
    if agent:
        at.node.agents.started[0].process.send_signal(agent)
    return at


def moved(at: Managed, node: str = "n2", version: int = 2) -> None:
    at.site.assign(at.site.spec_of(), version=version, node=node, to=("node/n1", "node/n2"))


async def looks() -> Managed:
    """Such a node, whose slot is elsewhere by now: its next manager looks for what is left, for 3 s."""
    at = await removed_itself()
    at.node.looking_s = 3.0
    moved(at)
    at.start()
    await at.realm.until(lambda: at.node.cleared)
    return at


def living(at: Managed) -> int:
    """How many programs and agents live."""
    return len(at.node.machine.alive) + sum(one.process.alive for one in at.node.agents.started)


@pytest.mark.parametrize(
    ("how", "agent"),
    [("buried", 0), ("buried", signal.SIGKILL), ("elsewhere", signal.SIGSTOP), ("elsewhere", signal.SIGKILL)],
)
@in_virtual_time
async def test_what_runs_of_a_container_that_is_no_more_has_ended_before_it_is_said_to_be_gone(how: str, agent: int) -> None:
    at = await removed_itself(agent)
    if how == "buried":
        at.buried()
    else:
        moved(at)
    assert living(at) == (1 if agent == signal.SIGKILL else 2)
    at.start()
    assert await at.realm.until(lambda: at.states("container")[-1] == "gone" and [living(at)]) == [0]
    assert at.node.cleared == [(CONTAINER,)]
    at.end()


@in_virtual_time
async def test_one_look_serves_all_slots_that_are_said_to_be_gone_at_once() -> None:
    at = Managed()
    old = [SlotKey("old", "app", index) for index in range(200)]
    before = Bus(at.realm, "node/n1")
    before.incarnation = 1
    for slot in old:
        record = Status(
            state=State.INSTALLED,
            layer=Layer.CONTAINER,
            node="n1",
            generation=3,
            attempt=1,
            since_ms=EPOCH_MS,
            emit_rate_s=1.0,
        )
        at.realm.publish(before.seal(Draft(slot.status_topic("n1", Layer.CONTAINER), to_data(record))))
    at.start()
    await asyncio.sleep(60)
    assert {at.realm.states(slot.status_topic("n1", Layer.CONTAINER))[-1] for slot in old} == {"gone"}
    assert [sorted(look) for look in at.node.cleared] == [sorted(f"/n1/{slot.directory}" for slot in old)]
    at.end()


@in_virtual_time
async def test_what_comes_back_while_it_is_looked_for_begins_after_that_and_is_not_ended() -> None:
    at = await looks()
    moved(at, "n1", 3)
    await asyncio.sleep(1)
    assert at.manager is not None
    assert at.manager.slots == (), "what began now would be ended"
    await at.realm.until(lambda: at.told("container")[-1]["generation"] == 3 and at.site.state() == "running")
    await asyncio.sleep(60)
    assert "gone" not in at.states("container")
    assert living(at) == 2
    assert len(at.node.cleared) == 1
    at.end()


@in_virtual_time
async def test_what_comes_back_before_it_is_looked_for_begins_at_once_and_is_not_looked_for() -> None:
    at = Managed()
    at.start()
    await asyncio.sleep(1)
    at.site.spec()
    moved(at, version=1)
    await asyncio.sleep(GATHER_S / 2)
    moved(at, "n1")
    await at.site.until("running")
    await asyncio.sleep(60)
    assert at.node.cleared == []
    assert "gone" not in at.states("container")
    at.end()


@in_virtual_time
async def test_a_slot_is_said_to_be_gone_once_for_all_that_was_heard_of_it_while_it_was_looked_for() -> None:
    at = await looks()
    moved(at, "n3", 3)
    await asyncio.sleep(60)
    assert at.states("container").count("gone") == 1
    assert at.told("container")[-1]["generation"] == 3
    at.end()


@in_virtual_time
async def test_a_look_that_fails_ends_no_manager_and_nothing_is_said_before_one_has_not() -> None:
    at = await removed_itself()
    at.node.failing = 2
    moved(at)
    at.start()
    await at.realm.until(lambda: len(at.node.cleared) == 2)
    assert "gone" not in at.states("container")
    assert await at.realm.until(lambda: at.states("container")[-1] == "gone" and [living(at)], 2 * AGAIN_S) == [0]
    at.end()


@in_virtual_time
async def test_a_node_that_is_ended_while_it_looks_says_nothing_more() -> None:
    at = await looks()
    assert at.manager is not None
    assert at.process is not None
    await at.manager.shutdown()
    await at.process.wait()
    assert "gone" not in at.states("container")
    at.end()
