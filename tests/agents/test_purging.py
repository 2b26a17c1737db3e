"""What a service that has ended left on a node goes when an operator says so, and nothing of the one that was made anew."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.agents.node.purging import AGAIN_S, KEPT, Purging
from dsmt.errors import FailedError
from dsmt.event.kinds.realm import PURGES, PurgeWord
from dsmt.event.records import to_data
from dsmt.event.slots import SlotKey
from dsmt.ports.bus import Draft
from dsmt.system.files import DiskFiles
from dsmt.together import end_all
from tests.loops import in_real_time, in_virtual_time
from tests.waiting import until

from .managed import SLOT, Managed
from .memory_machine import MemoryFiles

HERE = "/n1/data/web/app/0/rows"
OTHER = "/n1/data/web/old/3/rows"
ELSE = "/n1/data/shop/app/0/rows"


def say(at: Managed, epoch: int = 1, version: int = 1) -> None:
    word = PurgeWord(epoch=epoch, by="operator/op")
    at.site.spec_bus.emit(Draft(f"{PURGES}web", to_data(word), version=version))


def word() -> Any:
    return SimpleNamespace(event=SimpleNamespace(topic=f"{PURGES}web", data=to_data(PurgeWord(epoch=1, by="op"))))


def fill(at: Managed, *places: str) -> None:
    at.node.files.content.update(dict.fromkeys(places or (HERE, OTHER, ELSE), b"data"))


def left(at: Managed) -> set[str]:
    return {place for place in (HERE, OTHER, ELSE) if place in at.node.files.content}


@in_virtual_time
async def test_all_that_it_left_goes_also_where_it_ran_before_and_nothing_of_others() -> None:
    at = Managed()
    at.start()
    await at.ended()
    fill(at)
    at.buried()
    say(at)
    await at.realm.until(lambda: left(at) == {ELSE})
    await asyncio.sleep(1)
    assert at.node.files.names("data") == [KEPT, "shop"]
    at.end()


@in_virtual_time
async def test_what_a_container_uses_goes_after_it() -> None:
    at = await Managed.running()
    fill(at)
    say(at)
    await at.realm.until(lambda: OTHER not in left(at))
    await asyncio.sleep(3 * AGAIN_S)
    assert left(at) == {HERE, ELSE}
    ended = asyncio.get_running_loop().time()
    at.site.assign(at.site.spec_of(), version=2, desired="gone")
    await at.realm.until(lambda: left(at) == {ELSE})
    assert asyncio.get_running_loop().time() < ended + AGAIN_S / 2, "it does not wait for its next look"
    at.end()


@in_virtual_time
async def test_a_node_that_was_away_deletes_it_when_it_is_back_before_the_service_that_was_made_anew_begins() -> None:
    at = Managed()
    at.start()
    await at.ended()
    at.end()
    fill(at)
    at.buried()
    say(at)
    at.site.assign(at.site.spec(epoch=2), epoch=2)
    at.start()
    await at.site.until("running")
    assert left(at) == {ELSE}
    at.end()


@in_virtual_time
async def test_what_the_service_that_was_made_anew_has_and_leaves_stays_though_the_word_comes_again() -> None:
    at = Managed()
    at.start()
    at.site.assign(at.site.spec(epoch=2), epoch=2)
    await at.site.until("running")
    fill(at)
    say(at, epoch=1)
    await at.realm.until(lambda: OTHER not in left(at))
    at.site.assign(at.site.spec_of(), version=2, epoch=2, desired="gone")
    await at.realm.until(lambda: at.manager is not None and at.manager.slots == ())
    at.end()
    at.start()
    await asyncio.sleep(3 * AGAIN_S)
    assert left(at) == {HERE, ELSE}
    say(at, epoch=2, version=2)
    await at.realm.until(lambda: left(at) == {ELSE})
    at.end()


@in_virtual_time
async def test_what_the_service_that_was_made_anew_leaves_while_the_rest_is_being_deleted_stays() -> None:
    at = Managed()
    at.start()
    at.site.assign(at.site.spec(epoch=2), epoch=2)
    await at.site.until("running")
    former = {f"/n1/data/web/a/{number}/rows" for number in range(100)}
    fill(at, HERE, *former)
    say(at, epoch=1)
    await at.realm.until(lambda: not former <= at.node.files.content.keys())
    at.site.assign(at.site.spec_of(), version=2, epoch=2, desired="gone")
    await at.realm.until(lambda: at.manager is not None and at.manager.slots == ())
    assert former & at.node.files.content.keys()
    await at.realm.until(lambda: not former & at.node.files.content.keys())
    await asyncio.sleep(1)
    assert left(at) == {HERE}
    at.end()


@in_virtual_time
async def test_what_is_adopted_by_the_service_that_was_made_anew_stays() -> None:
    at = await Managed.running()
    fill(at)
    at.buried()
    say(at)
    await asyncio.sleep(1)
    at.site.assign(at.site.spec(epoch=2), epoch=2)
    await asyncio.sleep(2 * AGAIN_S)
    at.site.assign(at.site.spec_of(), version=2, epoch=2, desired="gone")
    await at.realm.until(lambda: at.manager is not None and at.manager.slots == ())
    await asyncio.sleep(2 * AGAIN_S)
    assert left(at) == {HERE, ELSE}
    at.end()


async def stuck() -> Managed:
    """A node on which what one slot of a purged service has left cannot be deleted."""
    at = Managed()
    at.start()
    await at.ended()
    fill(at)
    at.node.files.stuck.add(HERE)
    at.buried()
    say(at)
    await at.realm.until(lambda: OTHER not in left(at))
    return at


@in_virtual_time
async def test_what_cannot_be_deleted_is_tried_again_and_nothing_begins_beside_it() -> None:
    at = await stuck()
    at.site.assign(at.site.spec(epoch=2), epoch=2)
    await asyncio.sleep(2 * AGAIN_S)
    assert left(at) == {HERE, ELSE}
    assert at.manager is not None
    assert at.manager.slots == ()
    at.node.files.stuck.clear()
    await at.site.until("running")
    assert left(at) == {ELSE}
    assert at.manager.slots == (SLOT,)
    at.end()


@in_virtual_time
async def test_what_waits_for_data_that_cannot_be_deleted_says_so_until_it_begins_or_is_to_be_gone() -> None:
    """Each screen said that it waits, and that dsmt goes on by itself."""
    at = await stuck()
    spec = at.site.spec(epoch=2)
    at.site.assign(spec, epoch=2)
    await at.realm.until(lambda: at.states("container")[-1] == "failed", AGAIN_S / 2)
    told = at.told("container")[-1]
    assert (told["generation"], told["reason"]["code"], told["reason"]["who"]) == (1, "node.files", "you")
    at.site.assign(spec, version=2, epoch=2, desired="gone")
    await at.realm.until(lambda: at.states("container")[-1] == "gone", AGAIN_S / 2)
    await asyncio.sleep(2 * AGAIN_S)
    assert at.states("container")[-1] == "gone"
    at.site.assign(spec, version=3, epoch=2)
    await at.realm.until(lambda: at.states("container")[-1] == "failed", AGAIN_S / 2)
    at.node.files.stuck.clear()
    await at.site.until("running")
    assert (at.states("container")[-1], at.told("container")[-1].get("reason")) == ("installed", None)
    at.end()


@in_virtual_time
async def test_what_waits_for_data_says_since_when_it_does_and_not_anew_at_each_try() -> None:
    at = await stuck()
    spec = at.site.spec(epoch=2)
    since_ms: list[int] = []
    for version in (1, 3):
        at.site.assign(spec, version=version, epoch=2)
        await at.realm.until(lambda: at.states("container")[-1] == "failed", AGAIN_S / 2)
        said, first = len(at.states("container")), at.told("container")[-1]
        await at.realm.until(lambda first=first: at.told("container")[-1]["next_try_ms"] > first["next_try_ms"])
        assert at.states("container")[said:] == ["failed"]
        assert at.told("container")[-1]["since_ms"] == first["since_ms"]
        since_ms.append(first["since_ms"])
        at.site.assign(spec, version=version + 1, epoch=2, desired="gone")
        await at.realm.until(lambda: at.states("container")[-1] == "gone", AGAIN_S / 2)
    assert since_ms[0] < since_ms[1], "what was to be gone meanwhile waits since it is to run again"
    at.end()


@in_virtual_time
async def test_a_word_that_a_full_disk_does_not_take_is_obeyed_when_there_is_room_and_nothing_begins_before() -> None:
    at, full, write = Managed(), [True], MemoryFiles.write

    def refuses(self: MemoryFiles, path: str, content: bytes, **about: Any) -> None:
        if full and path == KEPT:
            raise FailedError("node.files", "the disk is full", next="make room")
        write(self, path, content, **about)

    at.start()
    await at.ended()
    fill(at)
    at.buried()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryFiles, "write", refuses)
        say(at)
        await asyncio.sleep(2 * AGAIN_S)
        at.site.assign(at.site.spec(epoch=2), epoch=2)
        await asyncio.sleep(2 * AGAIN_S)
        assert left(at) == {HERE, OTHER, ELSE}
        assert at.manager is not None
        assert at.manager.slots == ()
        full.clear()
        await at.site.until("running")
    assert left(at) == {ELSE}
    at.end()


@in_virtual_time
async def test_where_nobody_can_tell_what_was_purged_before_nothing_is() -> None:
    at = Managed()
    fill(at)
    at.node.files.write(f"data/{KEPT}", b"{")
    at.start()
    say(at)
    await asyncio.sleep(2 * AGAIN_S)
    assert left(at) == {HERE, OTHER, ELSE}
    at.node.files.remove(f"data/{KEPT}")
    await at.realm.until(lambda: left(at) == {ELSE})
    at.end()


@in_real_time
async def test_who_waits_for_what_cannot_be_written_down_is_told_why(tmp_path: Path) -> None:
    (tmp_path / KEPT).write_bytes(b"nonsense")
    kept = set[tuple[SlotKey, str]]()
    purging = Purging(
        DiskFiles(str(tmp_path)),
        stands=lambda _: None,
        free=lambda _: None,
        kept=lambda slot, error: kept.add((slot, error.message)),
    )
    purging.take(word())
    assert purging.defers(SLOT)
    task = asyncio.create_task(purging.run())
    try:
        await until(
            lambda: kept == {(SLOT, f"{tmp_path}/{KEPT} is damaged, which says what was purged here: nothing more is")}
        )
    finally:
        await end_all(task)


@in_real_time
async def test_of_a_service_of_which_all_went_no_directory_is_left_either(tmp_path: Path) -> None:
    for place in ("web/app/0/rows", "web/old/3", "shop/app/0"):
        (tmp_path / place).mkdir(parents=True)
    purging = Purging(DiskFiles(str(tmp_path)), stands=lambda _: None, free=lambda _: None, kept=lambda *_: None)
    purging.take(word())
    task = asyncio.create_task(purging.run())
    try:
        await until(lambda: sorted(one.name for one in tmp_path.iterdir()) == [KEPT, "shop"])
    finally:
        await end_all(task)
