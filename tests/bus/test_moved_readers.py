"""A reader that goes on at another broker: what that one has had alone comes to it, however long ago that was (rule D3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dsmt.bus.broker import fan_out, lags
from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.lags import ALL, Lags
from dsmt.bus.broker.others import holders, other, rereading
from dsmt.errors import DsmtError
from dsmt.operations.write import brokers
from dsmt.ports.bus import Cursor, Draft, Start
from dsmt.ports.store import StoreFullError
from tests.bus.meshes import at, held, linked, mesh, move
from tests.bus.realm import TestRealm, reading, scenario
from tests.bus.test_leaf import cut, site
from tests.bus.test_left_brokers import announced, remove
from tests.waiting import until


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    """What lasts for a minute lasts for a fifth of a second."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((fan_out, "OVERLAP_MS"), (holders, "LASTING_MS"), (lags, "OVERLAP_MS")):
            patch.setattr(module, name, 200)
        patch.setattr(lags, "EACH_MS", 50)
        yield


async def passed(broker: Broker, ms: int) -> None:
    late_ms = broker.now_ms() + ms
    await until(lambda: broker.now_ms() > late_ms)


async def say(r: TestRealm, broker: Broker, topic: str) -> Cursor:
    """Have somebody say something at a broker."""
    client = await r.client(f"operator/{topic.replace('/', '-')}", brokers=at(broker))
    said = await client.publish(Draft(topic, {"at": broker._identity.name}))
    await r.stop(client)
    return said.cursor


async def say_apart(r: TestRealm, alone: Broker, here: Broker, *, after_ms: int = 500) -> Cursor:
    """Of two that are cut off from each other, have something said at one alone, later at the other; where that stands."""
    await until(lambda: linked(alone) == linked(here) == 0)
    await say(r, alone, "user/alone")
    await passed(here, after_ms)
    return await say(r, here, "user/here")


async def given(r: TestRealm, broker: Broker, since: Cursor) -> int:
    """How often who goes on at a broker is given what that one has had alone."""
    reader = await r.client("operator/c", brokers=at(broker))
    async with reading(reader, "user/", start=Start.HISTORY, since=since) as got:
        return len(got.of("user/alone"))


@scenario
async def test_what_a_broker_took_in_while_it_was_cut_off_comes_to_who_goes_there(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    reader = await r.client("operator/c", brokers=at(b1) + at(b2))
    first, second = (b1, b2) if reader.broker == b1._identity.name else (b2, b1)
    async with reading(reader, "user/", start=Start.HISTORY) as got, cut(r, second, [first]):
        await until(lambda: linked(first) == linked(second) == 0)
        await say(r, second, "user/alone")
        await passed(first, 500)
        await say(r, first, "user/here")
        await got.until(lambda g: g.of("user/here"))
        await move(reader, first, second)
        await say(r, second, "user/there")
        await got.until(lambda g: g.of("user/there"))
        assert len(got.of("user/alone")) == 1
        assert got.types() == []


@scenario
async def test_it_comes_to_who_was_away_until_all_was_with_both_and_that_broker_began_anew(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    await until(lambda: b2._holders.lags._all)
    async with cut(r, b2, [b1]):
        last = await say_apart(r, b2, b1)
        b2 = await r.restarted(b2, others=b2._config.brokers)
        await passed(b1, 500)
    await until(lambda: held(b1) == held(b2))
    await passed(b1, 500)
    assert await given(r, b2, last) == 1


@scenario
async def test_it_comes_to_who_was_away_since_then_though_that_broker_began_anew_when_both_had_all(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    await until(lambda: b2._holders.lags._all)
    async with cut(r, b2, [b1]):
        last = await say_apart(r, b2, b1)
    await until(lambda: held(b1) == held(b2))
    await until(lambda: b2._holders.lags._gaps[b1._identity.key.public])
    await passed(b1, 500)
    b2 = await r.restarted(b2, others=b2._config.brokers)
    await until(lambda: b2._others.readings.whose(b1._store.identity) and linked(b1) == linked(b2) == 1)
    assert await given(r, b2, last) == 1


@scenario
async def test_what_a_broker_has_not_stored_yet_of_another_comes_to_who_goes_there(r: TestRealm) -> None:
    """All are linked; it is behind, for it was down for long, or its disk is full."""
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    await until(lambda: b2._holders.lags._all)
    await passed(b1, 1000)
    b1._others.copying._take = lambda *_: 100
    await say(r, b2, "user/alone")
    await until(lambda: held(b2) == held(b3))
    await passed(b1, 1000)
    assert await given(r, b2, await say(r, b1, "user/here")) == 1


@scenario
async def test_what_one_broker_is_slow_to_give_comes_by_another_so_that_who_goes_there_lacks_nothing(r: TestRealm) -> None:
    """All are linked; of b3 alone b1 is far behind: b2, which takes b1 to have all that it has, gives that too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(other, "BEHIND_MS", 900)
        patch.setattr(rereading, "NEW_S", 1.0)
        b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
        await until(lambda: b1._others.copying._linked.names == ["broker/b2", "broker/b3"])  # each was read once
        take, slow = b1._others.copying._take, [True]
        b1._others.copying._take = lambda by, *rest: 100 if by == "broker/b3" and slow[0] else take(by, *rest)
        await say(r, b3, "user/alone")
        await until(lambda: held(b2) == held(b3))
        await until(lambda: held(b1) == held(b3))
        await say(r, b3, "user/then")
        await until(lambda: held(b1) == held(b2) == held(b3))
        slow[0] = False
        await until(lambda: b1._others.copying._linked.names == ["broker/b2", "broker/b3"])


@scenario
async def test_who_goes_on_where_another_broker_had_all_by_a_third_is_given_nothing_of_long_ago(r: TestRealm) -> None:
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    await until(lambda: b2._holders.lags._all)
    reader = await r.client("operator/c", brokers=at(b1))
    async with cut(r, b2, [b1]):
        await until(lambda: linked(b1) == linked(b2) == 1)
        await say(r, b2, "user/long-ago")
        await until(lambda: held(b1) == held(b2) == held(b3))
        await passed(b1, 1000)
        last = await say(r, b1, "user/here")
        reader = await r.client("operator/d", brokers=at(b2))
        async with reading(reader, "user/", start=Start.HISTORY, since=last) as got:
            await say(r, b2, "user/there")
            await got.until(lambda g: g.of("user/there"))
            assert got.of("user/long-ago") == []


@scenario
async def test_what_a_broker_took_in_alone_comes_to_who_goes_there_though_a_third_one_reads_both(r: TestRealm) -> None:
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    await until(lambda: len(b2._holders.lags._all) == 2 and b2._others.readings.whose(b1._store.identity))
    async with cut(r, b2, [b1]):
        async with cut(r, b2, [b1, b3]):
            await until(lambda: linked(b2) == 0)
            await say(r, b2, "user/alone")
            await passed(b1, 1000)
        b3._others.copying._take = lambda *_: 100
        await until(lambda: b3._identity.name in b2._sessions.by_name)
        assert await given(r, b2, await say(r, b1, "user/here")) == 1


@scenario
async def test_it_comes_to_who_was_away_until_its_broker_had_another_store(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    await until(lambda: b2._holders.lags._all and b2._others.readings.whose(b1._store.identity))
    async with cut(r, b2, [b1]):
        last = await say_apart(r, b2, b1)
        b1._store.leave_identity()  # as after a power cut
        b1 = await r.restarted(b1, others=b1._config.brokers)
    assert b1._store.identity != last.store
    await until(lambda: b2._others.readings.whose(b1._store.identity))
    assert await given(r, b2, last) == 1


@scenario
async def test_what_came_while_a_leaf_was_cut_off_comes_to_who_goes_from_it_to_one_that_has_read_it(r: TestRealm) -> None:
    leaf, *made = await site(r, "b1", "b2")
    await passed(leaf, 500)
    async with cut(r, leaf, made):
        await until(lambda: linked(leaf) == 0)
        await say(r, made[0], "user/alone")
        await passed(leaf, 1000)
        last = await say(r, leaf, "user/here")
        await r.stop(leaf)
        there = [one for one in made if one._others.readings.whose(last.store) is not None]
        assert there
        assert {await given(r, one, last) for one in there} == {1}


async def read_each_other(*every: Broker) -> None:
    """Wait until each knows the store of each, and how much of its own that has."""
    stores = {one: one._store.identity for one in every}
    known = [(one, store) for one in every for other, store in stores.items() if other is not one]
    await until(lambda: all(one._others.readings.whose(store) is not None for one, store in known))
    await until(lambda: all(len(one._holders.lags._all) == len(every) - 1 for one in every))
    await passed(every[0], 500)


@scenario
async def test_what_others_took_in_comes_to_who_was_at_a_broker_that_was_cut_off_and_removed(r: TestRealm) -> None:
    """It is gone for good, as its operator is told to say of one that died; who was attached to it goes on elsewhere."""
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    facts = await announced(r, b1, b2, b3)
    await read_each_other(b1, b2, b3)
    reader = await r.client("operator/c", brokers=at(b3))
    async with reading(reader, "user/", start=Start.HISTORY) as got, cut(r, b3, [b1, b2]):
        await until(lambda: linked(b3) == 0 and linked(b1) == linked(b2) == 1)
        await say(r, b1, "user/alone")
        await passed(b1, 1000)
        await say(r, b3, "user/here")
        await got.until(lambda g: g.of("user/here"))
        await remove(facts, b3)
        await until(lambda: all(len(one._others.readings.known) == 1 for one in (b1, b2)))
        await r.stop(b3)
        await until(lambda: reader.attached and reader.broker != b3._identity.name)
        await say(r, b1, "user/there")
        await got.until(lambda g: g.of("user/there"))
        assert len(got.of("user/alone")) == 1


@scenario
async def test_it_comes_to_who_was_away_meanwhile_though_the_other_one_was_begun_anew(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    facts = await announced(r, b1, b2)
    await read_each_other(b1, b2)
    async with cut(r, b2, [b1]):
        last = await say_apart(r, b1, b2, after_ms=1000)
        await remove(facts, b2)
        await r.stop(b2)
        b1 = await r.restarted(b1, others=b1._config.brokers)
        assert await given(r, b1, last) == 1


@scenario
async def test_it_comes_to_who_was_at_a_leaf_that_was_cut_off_and_removed(r: TestRealm) -> None:
    leaf, *made = await site(r, "b1", "b2")
    operator = await r.client("operator/o", brokers=at(made[0]))
    await passed(leaf, 500)
    async with cut(r, leaf, made):
        await until(lambda: linked(leaf) == 0)
        await say(r, made[0], "user/alone")
        await passed(leaf, 1000)
        last = await say(r, leaf, "user/here")
        await brokers.remove(operator, leaf._identity.name.removeprefix("broker/"), {}, by="o", reason="")
        await until(lambda: all(not one._holders.leaves for one in made))
        await r.stop(leaf)
        there = [one for one in made if one._others.readings.whose(last.store) is not None]
        assert there
        assert {await given(r, one, last) for one in there} == {1}


class Kept:
    """A store's meta."""

    def __init__(self) -> None:
        self.all: dict[str, bytes] = {}
        self.full: DsmtError | None = None

    def get(self, key: str) -> bytes | None:
        return self.all.get(key)

    def put(self, key: str, value: bytes) -> None:
        if self.full is not None:
            raise self.full
        self.all[key] = value


def test_what_another_broker_had_at_a_time_is_known_for_as_many_times_as_are_remembered(monkeypatch: Any) -> None:
    monkeypatch.setattr(lags, "POINTS", 3)
    now_ms, meta = [1000], Kept()
    one = Lags(meta, now_ms=lambda: now_ms[0])
    for at_ms, row in ((1000, 10), (1040, 11), (1100, 12), (5000, 40), (5100, 50)):
        now_ms[0] = at_ms
        one.stored(b"a", row)
    assert [one.had(b"a", at_ms) for at_ms in (1000, 1099, 1100, 4999, 5000, 9999)] == [ALL, ALL, 12, 12, 40, 50]
    assert one.had(b"b", 5000) == ALL
    again = Lags(meta, now_ms=lambda: 9000)
    assert [again.had(b"a", at_ms) for at_ms in (5000, 6000)] == [ALL, 50]


def test_on_a_full_disk_it_is_remembered_all_the_same() -> None:
    meta = Kept()
    meta.full = StoreFullError("store.full", "no room")
    one = Lags(meta, now_ms=lambda: 1000)
    one.stored(b"a", 10)
    assert one.had(b"a", 1000) == 10
