"""What others may have of a link that was lost is read again, whatever else becomes of brokers meanwhile (rule E1)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.others import rereading
from dsmt.bus.broker.others.copying import Copying
from dsmt.bus.broker.others.other import CopyRequest, Other
from dsmt.bus.broker.others.rereading import Rereading
from dsmt.bus.broker.others.trimmed import Trimmed
from dsmt.bus.broker.places import OVERLAP_MS, read_place
from dsmt.bus.client.client import BusClient
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.ports.bus import Arrived, Cursor, Draft, Interest, Reattached
from dsmt.ports.realm import BrokerAddress
from tests.bus.meshes import at, held, linked, mesh, words
from tests.bus.realm import Facts, TestClock, TestRealm, scenario
from tests.bus.test_withheld import hide
from tests.waiting import until


def other(broker: Broker, of: Broker) -> Other:
    return broker._others.readings.others[of._identity.key.public]


async def three(r: TestRealm) -> list[Broker]:
    """Brokers that have all read each other, and know it."""
    made = await mesh(r, "b1", "b2", "b3")
    await until(lambda: all(len(by._others.copying._linked.names) == 2 for by in made))
    await until(
        lambda: all(one.place and one.again_ms is None for by in made for one in by._others.readings.others.values())
    )
    return made


def part(reader: Broker, broker: Broker) -> None:
    """Have one that reads a broker lose its link to it, once."""
    broker._disconnect(broker._sessions.by_name[reader._identity.name].peer)


async def said_to_one(source: BusClient, b1: Broker, b2: Broker, b3: Broker) -> None:
    """Something is safe with b1 and b2; the way from b1 to b3 hangs, which has read b2 beyond it."""
    hide(b1, lambda owner, row: owner.name == b3._identity.name and row.read().event.source == source.source)
    while not held(b2) - held(b3):  # b2 gives it as long as it was not asked to leave it out
        assert (await source.publish(Draft("user/x", {"n": 1}))).copies > 1
        await until(lambda: held(b2) >= held(b1))
        head = b2._store.head
        await until(lambda head=head: (place := other(b3, b2).place) is not None and place.row >= head)


@scenario
async def test_who_gives_nothing_when_it_is_read_again_keeps_no_other_from_it(r: TestRealm) -> None:
    """b1 is read again, for b2 was lost; it gives nothing, and dies. What it has given to b2 alone comes from there."""
    b1, b2, b3 = await three(r)
    source = await r.client("operator/a", brokers=at(b1))
    await source.publish(Draft("user/x", {"n": 0}))
    await until(lambda: held(b1) == held(b2) == held(b3))
    real, stands = Rereading.read, asyncio.Event()

    async def read(self: Rereading, one: Other, *about: Any) -> None:
        if one is other(b3, b1):
            stands.set()
            await asyncio.Event().wait()
        await real(self, one, *about)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rereading, "read", read)
        patch.setattr(rereading, "STILL_S", 1.0)
        part(b3, b2)
        await asyncio.wait_for(stands.wait(), 10)
        await until(lambda: source.attached and linked(b3) == 2 and len(b2._fan_out.copying) == 2)
        await said_to_one(source, b1, b2, b3)
        await r.stop(b1)
        await until(lambda: held(b3) >= held(b2), 10)


@scenario
async def test_a_broker_that_was_lost_is_read_on_when_it_is_back_and_not_again(r: TestRealm) -> None:
    b1, b2, b3 = await three(r)
    links = other(b3, b1).links
    part(b3, b1)
    await until(lambda: other(b3, b1).links > links and other(b3, b1).name)
    await until(lambda: other(b3, b2).losses and other(b3, b2).again_ms is None)
    assert other(b3, b1).losses == 0
    assert other(b3, b1).again_ms is None
    assert [one.losses for by in (b1, b2) for one in by._others.readings.others.values()] == [0, 0, 0, 0]


@scenario
async def test_what_is_new_is_read_before_anything_is_read_again(r: TestRealm) -> None:
    """What b1 has that is new does not come yet: b2 is not read again until it has come, or is stalled, or for ever."""
    b1, b2, b3 = await three(r)
    copying, now = b3._others.copying, b3._clock.boottime
    again, (one, two) = copying._rereading, (other(b3, b1), other(b3, b2))
    await until(lambda: one.caught_up and two.caught_up)
    again.changed([], [one, two])
    assert [one.caught_up, two.caught_up] == [False, False]
    copying._change()
    await until(lambda: one.caught_up and two.caught_up)
    two.again_ms = 1

    def is_due(*, caught_up: bool, moved_s: float = 0.0, changed_s: float = 0.0) -> bool:
        one.caught_up, one.moved_at, again._changed_at = caught_up, now() - moved_s, now() - changed_s
        return again._is_due(two)

    assert is_due(caught_up=True)
    assert not is_due(caught_up=False)
    assert is_due(caught_up=False, moved_s=rereading.STILL_S + 1)
    assert is_due(caught_up=False, changed_s=rereading.NEW_S + 1)
    assert not is_due(caught_up=False)
    assert two.asked is not None
    losses, left_out, row = two.asked
    for asked in (CopyRequest(losses - 1, left_out, row), CopyRequest(losses, (*left_out, "broker/b4"), row), None):
        two.asked = asked
        assert not is_due(caught_up=True), "it still leaves out what the lost one brings to it, or is not read"


@scenario
async def test_what_a_removed_broker_gave_to_one_the_others_get_from_it(r: TestRealm) -> None:
    b1, b2, b3 = await three(r)
    facts, told = Facts(await r.client("operator/b", brokers=at(b2))), words([b1, b2, b3])
    for topic, word in told.items():
        await facts.publish(topic, word)
    source = await r.client("operator/a", brokers=at(b1))
    await said_to_one(source, b1, b2, b3)
    await facts.publish("config/broker/b1", {**told["config/broker/b1"], "removed": True})
    await until(lambda: len(b3._others.readings.known) == 1)
    await until(lambda: held(b3) >= held(b2), 10)


@scenario
async def test_a_link_that_is_there_again_before_anybody_looks_was_lost(r: TestRealm) -> None:
    """b1 comes back with a new disk, and reads b2 when b3 has read b1 to its end: it brings b3 nothing of b2."""
    b1, b2, b3 = await three(r)
    others, identity, address = at(b1) + at(b2) + at(b3), r.identities[b1], b1.address
    source = await r.client("operator/a", brokers=at(b1))
    await said_to_one(source, b1, b2, b3)
    await r.stop(source)
    look, begin, reads = Copying._look, Copying._may_begin, [b2._others.copying, b3._others.copying]

    def seldom(self: Copying) -> None:
        if self is not b3._others.copying or other(b3, b1).name:
            look(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Copying, "_look", seldom)
        patch.setattr(Copying, "_may_begin", lambda self, one: self in reads and begin(self, one))
        await r.stop(b1)
        again = await r.broker("b1", identity=identity, address=address, store=":memory:", born=False, others=others)
        await until(lambda: (place := other(b3, b1).place) is not None and place.store == again._store.identity)
        reads.append(again._others.copying)
        await until(lambda: held(again) >= held(b2))
    await until(lambda: held(b3) >= held(b2), 10)


@scenario
async def test_what_was_lost_while_one_was_read_again_is_read_again_from_there_too(r: TestRealm) -> None:
    b1 = await r.broker("b1")
    copying, one = b1._others.copying, Other(at(b1)[0], again_ms=1_000, losses=1)

    class Bus:
        def __init__(self, losses: int) -> None:
            self.losses = losses

        @asynccontextmanager
        async def subscribe(self, _: Interest) -> AsyncIterator[Any]:
            yield self._batches()

        async def _batches(self) -> AsyncIterator[list[Any]]:
            yield []
            one.losses += self.losses
            yield []

    for losses, again_ms in ((1, 1_000), (0, None)):  # another broker is lost meanwhile, or none
        bus: Any = Bus(losses)
        await copying._rereading.read(one, bus, one.losses, 1)
        assert one.again_ms == again_ms


@scenario
async def test_who_is_read_anew_for_this_broker_stood_still_is_waited_for_from_then_on(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    await until(lambda: b1._others.copying.complete)
    other(b1, b2).moved_at -= 1000.0
    b1._others.copying.again()
    assert b1._others.readings.reads, "it would be whole without what was said meanwhile"


@scenario
async def test_who_is_attached_anew_while_it_is_read_again_is_read_to_its_end(r: TestRealm) -> None:
    """It may have another store by then, whose rows have other numbers."""
    b1 = await r.broker("b1")
    one = Other(at(b1)[0], again_ms=1_000)
    stored: list[int] = []

    class Bus:
        def __init__(self, *batches: Any) -> None:
            self.batches = batches

        @asynccontextmanager
        async def subscribe(self, _: Interest) -> AsyncIterator[Any]:
            yield self.read()

        async def read(self) -> AsyncIterator[list[Any]]:
            for batch in self.batches:
                yield [batch]

    async def store(_: Other, __: Any, arrived: Sequence[Arrived]) -> None:
        stored.extend(each.row for each in arrived)

    trimmed, signed = Trimmed(b1._store, lambda: None), b1._store.rows(0, 1)[0].read()
    again = Rereading(b1._clock, linked=list, left_out=lambda _: (), store=store, trimmed=trimmed)
    rows = [Arrived(signed, row=row, live=False) for row in (3, 7, 9)]
    for batches, expected in (((*rows,), [3, 7]), ((Reattached("b1", "s"), *rows), [3, 7, 9])):
        stored.clear()
        bus: Any = Bus(*batches)
        await again.read(one, bus, 0, 7)
        assert stored == expected


@scenario
async def test_who_has_nothing_to_read_again_is_not_looked_at(r: TestRealm) -> None:
    b1, b2, b3 = await three(r)
    again, one, two = b3._others.copying._rereading, other(b3, b1), other(b3, b2)
    looked: list[str] = []
    is_due = again._is_due

    def look(other: Other) -> bool:
        looked.append(other.name)
        return is_due(other)

    again._is_due = look  # type: ignore[method-assign]
    again.changed([], [one, two])
    await asyncio.sleep(5 * rereading._LOOK_S)
    assert looked == []
    again.changed([one], [two])
    await until(lambda: "broker/b2" in looked)


@scenario
async def test_a_broker_that_knows_no_other_one_looks_for_none(r: TestRealm) -> None:
    (b1,), looks = await mesh(r, "b1"), 0
    copying = b1._others.copying

    def look() -> None:
        nonlocal looks
        looks += 1

    copying._look = look  # type: ignore[method-assign]
    await asyncio.sleep(5 * rereading._LOOK_S)
    assert looks <= 1
    copying.know([BrokerAddress("127.0.0.1:1", bytes(32))])
    await until(lambda: looks > 2)
    copying.know([])
    await asyncio.sleep(5 * rereading._LOOK_S)
    before = looks
    await asyncio.sleep(5 * rereading._LOOK_S)
    assert looks == before


@scenario
async def test_what_a_lost_broker_gave_to_one_is_read_from_it_by_who_was_down_when_that_was_lost(r: TestRealm) -> None:
    """b3 has read b2 beyond what that had of b1; it is started again when b1 is lost for good."""
    b1, b2, b3 = await three(r)
    others = at(b1) + at(b2) + at(b3)
    source = await r.client("operator/a", brokers=at(b1))
    await said_to_one(source, b1, b2, b3)
    head, public = b2._store.head, b2._identity.key.public
    await until(lambda: (place := read_place(b3._store.meta, public)[0]) is not None and place.row >= head)
    identity, address = r.identities[b3], b3.address
    await r.stop(b3)
    await r.stop(source)
    await r.stop(b1)
    assert held(b2) - held(b3)
    b3._store.close()
    again = await r.broker("b3", identity=identity, address=address, born=False, others=others)
    await until(lambda: held(again) >= held(b2), 10)


def test_how_far_a_broker_was_read_is_kept_with_the_moment_up_to_which_all_that_are_linked_were() -> None:
    """Who starts may find that the others were lost meanwhile: what these had given it alone is read again from there."""
    store = SqliteStore(":memory:", identity="a" * 16)
    one, behind, away = (
        SimpleNamespace(
            name=name, place=Cursor("s", 7, at_ms), again_ms=None, kept_at=0.0, address=SimpleNamespace(public=name.encode())
        )
        for name, at_ms in (("b1", 900_000), ("b2", 700_000), ("", 100_000))
    )
    others = {each.address.public: each for each in (one, behind, away)}
    copying: Any = SimpleNamespace(_clock=TestClock(), _others=others, _meta=store.meta)
    Copying._keep_place(copying, one)  # type: ignore[arg-type]
    assert read_place(store.meta, b"b1") == (one.place, 700_000 - OVERLAP_MS)
    store.close()
