"""Slots that ended: their containers go, what a fact does not name is an orphan, and who lacks the end is told."""

import asyncio

import pytest

from dsmt.ports.bus import Complete, Cursor, Draft, Notice
from dsmt.ports.realm import KEY_ENDED
from dsmt.simulator.engine.run import run
from tests.loops import in_virtual_time

from .managed import SLOT, TOMBSTONE, Managed, buried


@pytest.mark.parametrize("tombstone_first", [True, False])
@in_virtual_time
async def test_a_service_that_is_applied_again_after_its_removal_starts(tombstone_first: bool) -> None:
    at = Managed()
    at.start()
    spec = at.site.spec()
    at.site.assign(spec)
    await at.site.until("running")
    at.site.assign(spec, version=2, desired="gone")
    await at.realm.until(lambda: at.manager is not None and at.manager.slots == ())
    await asyncio.sleep(1)
    tombstone = at.site.spec_bus.seal(Draft("tombstone/service/web", buried(), version=1))
    await asyncio.sleep(1)
    if tombstone_first:
        at.realm.publish(tombstone)
    else:
        at.realm.facts.clear()  # another broker: it has not heard of the second fact, nor of the tombstone
    at.site.place(epoch=2)
    await asyncio.sleep(10)
    at.realm.publish(tombstone)
    await at.site.until("running", 10)
    await at.realm.until(lambda: at.told("container")[-1]["generation"] == 1)
    at.end()


@in_virtual_time
async def test_a_slot_that_left_takes_its_container_with_it() -> None:
    at = Managed()
    at.start()
    spec = at.site.spec()
    at.site.assign(spec)
    await at.site.until("running")
    at.site.assign(spec, version=2, desired="gone")
    await at.realm.until(lambda: at.states("container")[-1] == "gone")
    assert at.states("agent")[-3:] == ["terminated", "stopped", "gone"]
    assert at.told("container")[-1]["generation"] == 2
    assert at.manager is not None
    await at.realm.until(lambda: at.manager is not None and at.manager.slots == ())
    assert not [name for name in at.node.files.content if "containers" in name]
    at.site.assign(spec, version=3)
    await at.site.until("running")
    assert at.states("container")[-3:] == ["selected", "installing", "installed"]
    at.end()


def test_killed_at_any_moment_of_leaving_it_still_ends_gone() -> None:
    for step in range(1, 30):

        async def main(step: int = step) -> None:
            at = Managed()
            at.start()
            spec = at.site.spec()
            at.site.assign(spec)
            await at.site.until("running")
            at.site.assign(spec, version=2, desired="gone")
            await asyncio.sleep(step * 0.001)
            assert at.process is not None
            at.process.kill()
            for one in at.node.agents.started:
                one.process.kill()
            at.start()
            await at.realm.until(lambda: at.manager is not None and not at.manager.slots)
            await asyncio.sleep(10)
            assert not at.node.machine.alive
            assert not [name for name in at.node.files.content if "containers" in name]
            assert at.site.state() == "gone"
            at.end()

        run(main())


@in_virtual_time
async def test_a_container_with_no_fact_is_told_as_an_orphan_and_kept() -> None:
    at = await Managed.running()
    assert at.process is not None
    at.process.kill()
    at.node.agents.started[0].process.kill()
    at.realm.facts.clear()
    at.node.files.remove(f"{SLOT.directory}/slot.event")
    at.start()
    await at.realm.until(lambda: at.told("container")[-1]["orphan"])
    await asyncio.sleep(60)
    assert at.told("agent")[-1]["orphan"]
    assert at.told("container")[-1]["generation"] == 1
    assert len(at.node.machine.alive) == 1
    assert len(at.node.machine.programs) == 1
    at.end()


@in_virtual_time
async def test_an_orphan_for_which_a_fact_comes_is_none_any_more() -> None:
    at = Managed()
    at.start()
    spec = at.site.spec()
    at.site.assign(spec)
    await at.site.until("running")
    at.site.spec_bus.emit(Draft("tombstone/service/web", buried(), version=1))
    await at.realm.until(lambda: at.told("container")[-1]["orphan"] and at.told("agent")[-1]["orphan"])
    at.site.assign(spec, version=2, epoch=2)
    await at.realm.until(lambda: not at.told("container")[-1]["orphan"] and not at.told("agent")[-1]["orphan"])
    assert len(at.node.machine.programs) == 1
    at.end()


@in_virtual_time
async def test_what_a_tombstone_buried_is_an_orphan_until_a_fact_ends_it() -> None:
    at = Managed()
    at.start()
    spec = at.site.spec()
    at.site.assign(spec)
    await at.site.until("running")
    at.site.spec_bus.emit(Draft("tombstone/service/web", buried(), version=1))
    await at.realm.until(lambda: at.told("container")[-1]["orphan"])
    await asyncio.sleep(30)
    assert len(at.node.machine.alive) == 1
    at.site.assign(spec, version=2, desired="gone", node=None, epoch=2)
    await at.realm.until(lambda: at.states("container")[-1] == "gone")
    assert not at.node.machine.alive
    at.end()


@in_virtual_time
async def test_what_a_revoked_key_had_buried_is_obeyed_again_with_all_that_follows() -> None:
    at = Managed()
    at.start()
    spec = at.site.spec()
    at.site.assign(spec)
    await at.site.until("running")
    grave = at.site.spec_bus.emit(Draft("tombstone/service/web", buried(), version=1)).signed
    await at.realm.until(lambda: at.told("container")[-1]["orphan"] and at.told("agent")[-1]["orphan"])
    at.realm.void.append(grave)
    at.realm.tell(Notice(KEY_ENDED, ""))
    await at.realm.until(lambda: not at.told("container")[-1]["orphan"] and not at.told("agent")[-1]["orphan"])
    assert len(at.node.machine.alive) == len(at.node.machine.programs) == 1
    at.site.assign(spec, version=2, desired="stopped")
    await at.realm.until(lambda: not at.node.machine.alive)
    at.end()


@in_virtual_time
async def test_a_slot_that_a_fact_ended_which_is_over_begins_anew_whatever_its_version() -> None:
    at = Managed()
    at.start()
    spec = at.site.spec()
    at.site.assign(spec, version=7)
    await at.site.until("running")
    at.site.assign(spec, version=8, desired="gone", ttl_ms=60_000)
    await at.realm.until(lambda: at.states("container")[-1] == "gone")
    del at.realm.facts[SLOT.topic]  # the store was lost
    at.site.assign(spec, version=3)
    await asyncio.sleep(30)
    assert not at.node.machine.alive
    assert [signed.event.version for signed in at.node.bus.offered] == [8], "who says the next one counts on from it"
    await asyncio.sleep(60)
    del at.realm.facts[SLOT.topic]
    at.site.assign(spec, version=1)
    await at.site.until("running")
    at.end()


@in_virtual_time
async def test_what_ended_a_slot_here_is_brought_to_a_store_that_may_lack_it() -> None:
    at = Managed()
    at.start()
    await at.ended()
    at.realm.tell(Complete(Cursor("another", 0, 0), whole=True))
    await asyncio.sleep(1)
    assert at.brought() == [], "it was away while the store was refilled: what was made anew is not ended without need"
    at.realm.tell(Complete(Cursor("a third", 0, 0), whole=False))
    await at.realm.until(lambda: at.node.bus.offered)
    assert at.brought() == [SLOT.topic]
    at.buried()
    at.realm.tell(Complete(Cursor("a fourth", 0, 0), whole=False))
    await at.realm.until(lambda: at.node.bus.offered)
    assert at.brought() == [TOMBSTONE]
    at.end()


@in_virtual_time
async def test_what_ended_a_slot_here_is_brought_nowhere_once_it_is_dead() -> None:
    at = Managed()
    at.start()
    await at.ended(ttl_ms=60_000)
    for brought in ([SLOT.topic], []):
        at.brought()
        at.realm.tell(Complete(Cursor("another", 0, 0), whole=False))
        await asyncio.sleep(1)
        assert at.brought() == brought
        await asyncio.sleep(60)
    at.end()


@pytest.mark.parametrize("removed", [False, True])
@in_virtual_time
async def test_what_is_said_as_if_nothing_had_ended_is_told_what_had_until_something_counts(removed: bool) -> None:
    at = Managed()
    at.start()
    gone = await at.ended()
    if removed:
        at.buried()
    await asyncio.sleep(1)
    at.realm.facts.clear()  # the store was lost
    at.site.place()
    for _ in range(2):
        await at.realm.until(lambda: at.node.bus.offered)
        assert at.brought() == [TOMBSTONE if removed else gone.event.topic]
        at.attached()  # the link was lost, and what was on its way
    await asyncio.sleep(10)
    assert not at.node.machine.alive, "what was ended never begins again"
    at.site.place(version=3, epoch=2)
    await at.site.until("running")
    at.brought()
    at.attached()
    assert [signed.event.version for signed in at.node.bus.offered] == [3]
    at.end()


@in_virtual_time
async def test_what_is_said_to_an_orphan_in_an_epoch_that_has_ended_is_told_so() -> None:
    at = await Managed.running()
    at.buried()
    await at.realm.until(lambda: at.told("agent")[-1]["orphan"])
    at.realm.facts.clear()  # the store was lost
    at.site.place(version=2)
    await at.realm.until(lambda: at.node.bus.offered)
    assert at.brought() == [TOMBSTONE]
    at.end()
