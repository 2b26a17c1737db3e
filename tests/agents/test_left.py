"""What is left of a container that was cleared away: a store that lacks it is given it, and it begins by what that has."""

import asyncio

import pytest

from dsmt.agents.rules.container import HELD, LEFT, RECORD, SLOT, TOLD
from dsmt.agents.rules.held_here import dump_held
from dsmt.agents.rules.record import dump_record, remembered
from dsmt.agents.shared.kept import keep
from dsmt.errors import FailedError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.instance import HeldHere
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft
from tests.loops import in_virtual_time

from .managed import SLOT as WEB
from .managed import TOMBSTONE, Managed, buried
from .world import WEB as WEB_SPEC

OF_TEN_MINUTES_MS = 600_000
OF_A_DEPOT = WEB_SPEC + f"    artifact: {{url: site.tar.gz, sha256: {'0' * 64}}}\n"


async def taken_down(text: str = WEB_SPEC) -> tuple[Managed, list[SignedEvent]]:
    """A node that ran a slot and was taken down, and its slot's fact and spec."""
    at = Managed()
    at.start()
    at.site.place(text)
    await at.site.until("running")
    facts = [at.realm.facts[topic] for topic in (WEB.topic, WEB.spec_topic)]
    assert at.site.last is not None
    assert at.site.process is not None
    assert at.process is not None
    at.process.kill()
    at.site.process.call_soon(at.site.last.shutdown)
    await at.site.process.wait()
    record = remembered(at.site.record())
    files = at.node.files.below(WEB.directory)
    for name in files.names(""):
        if name not in LEFT:
            files.remove(name)
    if record is not None:
        files.write(RECORD, dump_record(record))
    return at, facts


def lost(at: Managed) -> None:
    """The brokers lose their stores."""
    at.realm.facts.clear()
    at.realm.whole = False
    at.realm.fetched = 0


def left(at: Managed) -> list[str]:
    return at.node.files.names(WEB.directory)


def programs(at: Managed) -> int:
    return len(at.site.machine.programs)


@in_virtual_time
async def test_what_a_node_acted_on_before_it_was_taken_down_is_brought_to_a_store_that_lacks_it_and_begins_then() -> None:
    at, facts = await taken_down()
    lost(at)
    at.start()
    await asyncio.sleep(60)
    assert set(at.brought()) == {WEB.topic, WEB.spec_topic}
    assert at.node.bus is not None
    assert at.node.bus.introduced >= {b"certificate of controller/c1", b"certificate of operator/op"}
    assert programs(at) == 1, "nothing begins by it"
    at.attached()
    assert set(at.brought()) == {WEB.topic, WEB.spec_topic}, "the store may have been lost meanwhile"
    for signed in facts:
        at.realm.publish(signed)
    await at.realm.until(lambda: programs(at) == 2)
    await at.site.until("running")
    assert at.realm.fetched == 0, "its spec was here"
    at.end()


@in_virtual_time
async def test_it_begins_by_the_fact_that_a_whole_store_has() -> None:
    at, _ = await taken_down()
    at.start()
    await at.realm.until(lambda: programs(at) == 2)
    await at.site.until("running")
    at.end()


@in_virtual_time
async def test_what_was_stopped_on_its_node_before_it_was_taken_down_stays_stopped_when_it_is_up_again() -> None:
    at, _ = await taken_down()
    assert HELD in LEFT
    stop = HeldHere(id="aa", by="root", at_ms=1, reason="")
    at.node.files.below(WEB.directory).write(HELD, dump_held(stop))
    at.start()
    await at.realm.until(lambda: at.site.statuses()[-1]["held_here"] == to_data(stop))
    await asyncio.sleep(60)
    assert (programs(at), at.site.state()) == (1, "stopped")
    at.end()


@in_virtual_time
async def test_what_is_installed_is_not_installed_anew_for_the_depot_may_have_been_lost() -> None:
    at, _ = await taken_down(OF_A_DEPOT)
    assert len(at.site.artifacts.installed) == 1
    at.site.artifacts.wrong = FailedError("fetch.not_found", "it is not there")
    at.start()
    await at.realm.until(lambda: programs(at) == 2)
    at.end()


@pytest.mark.parametrize("how", ["gone", "on another node", "removed"])
@in_virtual_time
async def test_where_another_fact_or_a_tombstone_has_come_meanwhile_nothing_begins_and_what_was_left_goes(how: str) -> None:
    at, (_, spec) = await taken_down()
    if how == "removed":
        at.realm.publish(at.site.spec_bus.seal(Draft(TOMBSTONE, buried(), version=1)))
    elif how == "gone":
        at.site.assign(spec, version=2, desired="gone")
    else:
        at.site.assign(spec, version=3, node="n3", to=("node/n2", "node/n3"))
    at.start()
    await asyncio.sleep(60)
    assert programs(at) == 1
    assert left(at) == []
    at.attached()
    at.brought()
    at.attached()
    assert WEB.spec_topic not in at.brought()
    at.end()


@in_virtual_time
async def test_what_a_whole_store_says_nothing_of_is_offered_on() -> None:
    """It came late: the store has yet to take it."""
    at, facts = await taken_down()
    lost(at)
    at.realm.whole = True
    at.start()
    await asyncio.sleep(60)
    assert SLOT in left(at)
    at.brought()
    at.attached()
    assert at.brought() == [WEB.topic, WEB.spec_topic]
    for signed in facts:
        at.realm.publish(signed)
    await at.realm.until(lambda: programs(at) == 2)
    at.end()


@pytest.mark.parametrize("ttl_ms", [None, OF_TEN_MINUTES_MS])
@in_virtual_time
async def test_of_a_slot_that_was_to_be_gone_no_spec_is_brought_back(ttl_ms: int | None) -> None:
    """It would stand again, though its service was removed or scaled away."""
    at, (_, spec) = await taken_down()
    gone = at.site.assign(spec, version=2, desired="gone", ttl_ms=ttl_ms)
    assert at.node.bus is not None
    keep(at.node.files.below(WEB.directory), TOLD, gone, at.node.bus)
    lost(at)
    at.start()
    await asyncio.sleep(1)
    assert set(at.brought()) == {WEB.topic}
    await asyncio.sleep(OF_TEN_MINUTES_MS / 1000)
    at.attached()
    assert set(at.brought()) == (set() if ttl_ms else {WEB.topic}), "one that is over is none"
    assert programs(at) == 1
    at.end()
