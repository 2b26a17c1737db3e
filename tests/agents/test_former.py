"""What stands on the bus by a node's own word, and is not there: its manager says that it is gone, and ends nothing."""

import asyncio

import pytest

from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.instance import Status
from dsmt.event.kinds.slot import Previous
from dsmt.event.records import to_data
from dsmt.event.slots import SlotKey
from dsmt.event.status import Layer, State
from dsmt.ports.bus import Complete, Cursor, Draft, Reattached
from tests.loops import in_virtual_time

from .managed import SLOT, Managed
from .memory_bus import EPOCH_MS, Bus

OLD = SlotKey("old", "app", 0)
OLD_TOPIC = OLD.status_topic("n1", Layer.CONTAINER)


async def ran_once() -> Managed:
    """A node whose slot ran; its processes have died, and its directory is lost."""
    at = await Managed.running()
    at.end()
    at.node.files.content.clear()
    return at


def said(
    at: Managed, layer: Layer = Layer.CONTAINER, state: State = State.INSTALLED, source: str = "node/n1"
) -> SignedEvent:
    """The word of a former life, from before this manager was started."""
    bus = Bus(at.realm, source)
    bus.incarnation = 1
    record = Status(state=state, layer=layer, node="n1", generation=3, attempt=1, since_ms=EPOCH_MS, emit_rate_s=1.0)
    return bus.seal(Draft(OLD.status_topic("n1", layer), to_data(record)))


@pytest.mark.parametrize("how", ["buried", "elsewhere"])
@in_virtual_time
async def test_what_went_with_its_directory_is_said_to_be_gone_though_no_fact_is_addressed_to_the_node(how: str) -> None:
    at = await ran_once()
    spec = at.site.spec_of()
    if how == "buried":
        at.buried()
    else:
        at.site.assign(spec, version=2, node="n2", to=("node/n2",))
    stood = at.realm.facts[SLOT.status_topic("n1", Layer.CONTAINER)]
    at.start()
    await at.realm.until(lambda: at.states("container")[-1] == "gone")
    assert at.realm.log[-1].event.cause == (stood.id,)
    await asyncio.sleep(60)
    assert at.states("container").count("gone") == 1
    at.end()


@pytest.mark.parametrize("layer", [Layer.CONTAINER, Layer.AGENT])
@in_virtual_time
async def test_so_is_what_another_broker_brings_long_after_the_attachment(layer: Layer) -> None:
    at = Managed()
    at.start()
    await asyncio.sleep(3600)
    at.realm.publish(said(at, layer))
    await at.realm.until(lambda: at.realm.states(OLD_TOPIC)[-1:] == ["gone"])
    assert at.realm.facts[OLD_TOPIC].event.data["state"] == "gone", "it wins, whatever comes in which order"
    at.end()


@in_virtual_time
async def test_what_is_said_to_be_gone_or_is_an_agents_word_alone_is_left_as_it_is() -> None:
    at = Managed()
    at.realm.publish(said(at, Layer.AGENT))
    at.realm.publish(said(at, Layer.CONTAINER, State.GONE))
    at.realm.publish(said(at, Layer.APPLICATION, State.RUNNING, OLD.agent("n1")))
    before = len(at.realm.log)
    at.start()
    await asyncio.sleep(60)
    assert len(at.realm.log) == before
    at.end()


@in_virtual_time
async def test_what_is_there_is_told_as_an_orphan_and_not_said_to_be_gone() -> None:
    at = await Managed.running()
    assert at.process is not None
    at.process.kill()
    at.buried()
    at.start()
    await at.realm.until(lambda: at.told("agent")[-1]["orphan"])
    await asyncio.sleep(60)
    assert "gone" not in at.states("container")
    assert at.node.machine.alive
    at.end()


@in_virtual_time
async def test_what_is_to_be_there_again_begins_and_is_not_said_to_be_gone() -> None:
    at = await ran_once()
    before = len(at.states("container"))
    at.start()
    await at.realm.until(lambda: at.states("container")[-1] == "installed" and len(at.states("container")) > before)
    assert at.states("container")[before:] == ["selected", "installing", "installed"]
    at.end()


@in_virtual_time
async def test_what_has_ended_while_it_was_heard_is_said_to_be_gone_once() -> None:
    """Its own words come back to it in its time: those before the last one are none of a former life."""
    at = Managed()
    at.start()
    await at.ended()
    await asyncio.sleep(60)
    assert at.states("container").count("gone") == 1
    at.end()


@in_virtual_time
async def test_a_previous_copy_that_is_not_there_is_said_to_be_gone_once() -> None:
    at = await ran_once()
    previous = Previous(node="n1", generation=1, deadline_ms=EPOCH_MS + 10**9)
    at.site.assign(at.site.spec_of(), version=2, node="n2", previous=previous)
    at.start()
    await at.realm.until(lambda: at.states("container")[-1] == "gone")
    assert at.told("container")[-1]["generation"] == 2
    await asyncio.sleep(60)
    assert at.states("container").count("gone") == 1
    at.end()


@in_virtual_time
async def test_what_another_store_takes_to_be_there_is_said_to_be_gone_though_this_manager_has_ended_it() -> None:
    """An older copy of the store was put back, in which the slot ran."""
    at = Managed()
    at.start()
    await at.ended()
    await asyncio.sleep(1)
    topic = SLOT.status_topic("n1", Layer.CONTAINER)
    older = next(one for one in at.realm.log if one.event.topic == topic and one.event.data["state"] == "installed")
    at.realm.facts.clear()
    at.realm.tell(Reattached("b1", "older"))
    at.realm.publish(older)
    at.realm.tell(Complete(Cursor("older", 1, 0), whole=False))
    await at.realm.until(lambda: at.states("container")[-1] == "gone" and at.realm.facts[topic] is not older)
    at.end()


@in_virtual_time
async def test_it_is_kept_no_longer_than_it_counts() -> None:
    """What is dead for all who read is forgotten."""
    at = Managed()
    at.realm.publish(said(at, Layer.AGENT))
    at.realm.publish(said(at, Layer.CONTAINER, State.GONE))
    at.start()
    await asyncio.sleep(25 * 3600)
    before = len(at.realm.log)
    at.realm.tell(Complete(Cursor("s", 9, 0), whole=True))
    await asyncio.sleep(1)
    assert len(at.realm.log) == before
    assert at.manager is not None
    assert not at.manager._former._following.view.services
    at.end()
