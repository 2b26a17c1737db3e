"""Brokers that are lost, away or new: the others have what they had, and say what nobody has."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.others.copying import TURN
from dsmt.bus.broker.recorder import Recorder
from dsmt.bus.client.brokers import ATTACH_S
from dsmt.bus.rules.source_marks import ASK_MS
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.bus.wire import frames as f
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.records import from_data
from dsmt.ports.bus import Draft, Level, Start
from tests.bus.meshes import at, held, linked, mesh, move, words
from tests.bus.realm import Facts, Pen, TestRealm, reading, scenario
from tests.bus.test_leaf import settled
from tests.waiting import timed, until


@scenario
async def test_a_broker_that_was_away_has_what_it_missed_and_says_until_then_that_it_has_not(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    operator = await r.client("operator/a", brokers=at(b1))
    facts = Facts(operator)
    await facts.publish("config/x", {"n": 0})
    await until(lambda: held(b2) == held(b1))
    others = at(b1) + at(b2)
    identity, address = r.identities[b2], b2.address
    await r.stop(b2)
    b2._store.close()
    for n in range(1, 600):
        facts.emit("config/x", {"n": n})
    await facts.publish("config/x", {"n": 600})
    again = await r.broker("b2", identity=identity, address=address, others=others)
    assert not again._recorder.is_whole()
    await until(again._recorder.is_whole, 4)
    assert held(again) == held(b1)
    assert len(held(again)) > 600


@scenario
async def test_what_another_broker_has_is_stored_a_little_at_a_time_and_others_have_their_turns(r: TestRealm) -> None:
    _, b2 = await mesh(r, "b1", "b2")
    copying, parts, turns = b2._others.copying, list[int](), list[int]()
    (other,) = b2._others.readings.others.values()

    def take(_: str, arrived: Any, __: Any) -> int:
        if arrived and arrived[0] is None:
            parts.append(len(arrived))
            asyncio.get_running_loop().call_soon(lambda: turns.append(len(parts)))
        return 0

    copying._take = take
    await copying._store(other, other.bus, [None] * (3 * TURN + 1))  # type: ignore[list-item, arg-type]
    assert parts == [TURN, TURN, TURN, 1]
    assert turns == [1, 2, 3, 4]


@scenario
async def test_a_broker_with_a_new_disk_is_filled_by_the_others(r: TestRealm) -> None:
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    operator = await r.client("operator/a", brokers=at(b1))
    facts = Facts(operator)
    for n in range(300):
        facts.emit("config/x", {"n": n})
    await facts.publish("config/y", {"n": 1})
    await until(lambda: held(b3) == held(b2) == held(b1))
    others = at(b1) + at(b2) + at(b3)
    identity, address = r.identities[b3], b3.address
    await r.stop(b3)
    again = await r.broker("b3", identity=identity, address=address, store=":memory:", born=False, others=others)
    assert not again._recorder.is_whole()
    await until(again._recorder.is_whole, 4)
    await until(lambda: held(again) == held(b1))
    assert again._ingest._held("config/y").event.data == {"n": 1}


def session(broker: Broker, source: str) -> SessionFact | None:
    """What a broker holds as the last word of b3 on a source."""
    row = broker._store.winner(f"broker/b3/session/{source}")
    return None if row is None else from_data(SessionFact, row.read().event.data)


@scenario
async def test_who_was_at_a_broker_that_has_lost_its_disk_is_told_of_by_it_as_by_one_that_has_kept_it(r: TestRealm) -> None:
    """One died with it, one was closed before, one went elsewhere: none of them counts as open there for a day."""
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    names = ("node/died", "node/moved", "controller/closed")
    moved = r.identity("node/moved")
    clients = [await r.client(name, identity=moved if name == "node/moved" else None, brokers=at(b3)) for name in names]
    for one in clients:
        one.brokers.told = lambda _: None  # type: ignore[method-assign]
    await r.stop(clients[2])
    await until(lambda: [getattr(session(b1, name), "state", "") for name in names] == ["open", "open", "closed"])
    closed, others = session(b1, "controller/closed"), at(b1) + at(b2) + at(b3)
    identity, address = r.identities[b3], b3.address
    for one in (b3, clients[0], clients[1]):
        await r.stop(one)
    here = await r.client("node/moved", identity=moved, brokers=at(b1))
    again = await r.broker("b3", identity=identity, address=address, store=":memory:", born=False, others=others)

    def alike(name: str) -> set[str]:
        """How it is by the word of b3, in its present life, that all hold."""
        said = [session(one, name) for one in (b1, b2, again)]
        return (
            {one.state for one in said if one is not None} if None not in said and said[0] == said[1] == said[2] else set()
        )

    await until(lambda: alike("node/died") == alike("node/moved") == {"silent"}, 25)
    assert here.attached
    assert alike("controller/closed") == {"closed"}
    assert session(again, "controller/closed") == closed


@scenario
async def test_a_broker_that_ends_again_before_it_has_said_its_past_anew_says_it_in_its_next_life(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    node = await r.client("node/died", brokers=at(b2))
    others, identity, address = at(b1) + at(b2), r.identities[b2], b2.address
    await until(lambda: b1._store.winner("broker/b2/session/node/died") is not None)
    for one in (b2, node):
        await r.stop(one)
    blank = SqliteStore(str(r.directory / "blank.db"), identity="b2-anew")
    with pytest.MonkeyPatch.context() as at_first:
        at_first.setattr(Recorder, "say_anew", lambda _: None)
        first = await r.broker("b2", identity=identity, address=address, kept=blank, born=False, others=others)
        await until(first._recorder.is_whole)
        await r.stop(first)
    await r.broker("b2", identity=identity, address=address, kept=blank, born=False, others=others)

    def said() -> Any:
        row = b1._store.winner("broker/b2/session/node/died")
        return None if row is None else from_data(SessionFact, row.read().event.data).state

    await until(lambda: said() == "silent", 25)


@scenario
async def test_brokers_that_were_all_away_are_whole_when_they_have_read_each_other(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    await until(lambda: b1._recorder.is_whole() and b2._recorder.is_whole())
    await until(lambda: b1._recorder.wholeness._noted and b2._recorder.wholeness._noted)
    others, kept = at(b1) + at(b2), [(r.identities[one], one.address) for one in (b1, b2)]
    for one in (b1, b2):
        await r.stop(one)
        one._store.close()
    again = [
        await r.broker(identity.name.split("/")[1], identity=identity, address=address, born=False, others=others)
        for identity, address in kept
    ]
    await until(lambda: all(one._recorder.is_whole() for one in again), 3)


@scenario
async def test_what_a_lost_broker_gave_to_one_the_others_get_from_it(r: TestRealm) -> None:
    """b3 is not linked to b1, and gets what b1 has from b2, while b1 lives and after its death."""
    b1, b2 = await mesh(r, "b1", "b2")
    b3 = await r.broker("b3", born=False, others=at(b2))
    await until(lambda: linked(b3) == 1 and b3._recorder.is_whole())
    operator = await r.client("operator/a", brokers=at(b1))
    facts = Facts(operator)
    for n in range(50):
        await facts.publish("config/x", {"n": n})
    await until(lambda: held(b3) == held(b1))
    await r.stop(b1)
    await until(lambda: held(b3) == held(b2))
    assert len(held(b3)) >= 50


@scenario
async def test_a_broker_that_fills_says_when_it_is_whole(r: TestRealm) -> None:
    b1 = await r.broker("b1")
    operator = await r.client("operator/a", brokers=at(b1))
    facts = Facts(operator)
    for n in range(300):
        facts.emit("config/x", {"n": n})
    await facts.publish("config/y", {"n": 1})
    b2 = await r.broker("b2", born=False, others=at(b1))
    reader = await r.client("operator/b", brokers=at(b2))
    async with reading(reader, "broker/b2/stats", start=Start.HISTORY) as got:
        await got.until(lambda g: g.of("broker/b2/stats") and g.of("broker/b2/stats")[-1]["whole"])
        assert got.of("broker/b2/stats")[0]["whole"] is False
    assert held(b2) >= held(b1)


@scenario
async def test_who_reads_a_broker_that_is_lost_reads_no_other_one_for_it(r: TestRealm) -> None:
    """Nor itself: what only one holds would be called safe, for its own reading."""
    b1, b2 = await mesh(r, "b1", "b2")
    operator = await r.client("operator/a", brokers=at(b2))
    facts = Facts(operator)
    for topic, word in words([b1, b2]).items():
        await facts.publish(topic, word)
    await until(lambda: held(b1) == held(b2))
    await r.stop(b1)
    await until(lambda: not b2._fan_out.copying)
    loop = asyncio.get_running_loop()
    tried, later = b2._network.connect, loop.time() + 10
    addresses: list[str] = []

    async def connect(address: str, *about: Any, **more: Any) -> Any:
        addresses.append(address)
        return await tried(address, *about, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(b2._network, "connect", connect)
        await until(lambda: len(addresses) >= 3 or loop.time() > later)
    assert set(addresses) == {b1.address}
    assert (await facts.emit("config/x", {"n": 1}).acknowledged()).level is Level.STORED


@scenario
async def test_who_was_down_when_a_broker_was_lost_gets_what_it_gave_to_another(r: TestRealm) -> None:
    """b1 gives something to b3 and not to b2; both die, and b2 comes back with its disk."""
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    others = at(b1) + at(b2) + at(b3)
    facts = Facts(await r.client("operator/a", brokers=at(b1)))
    await facts.publish("config/x", {"n": 0})
    await until(lambda: held(b1) == held(b2) == held(b3))
    b2._ingest.brought = lambda broker, _: 100_000 if broker == b1._identity.name else 0  # the way from b1 hangs
    await facts.publish("config/x", {"n": 1})
    await until(lambda: held(b1) == held(b3))
    place, key = b2._others.copying._meta.get, f"copied {b3._identity.key.public.hex()}"
    before = place(key)
    await until(lambda: place(key) not in (None, before))
    identity, address = r.identities[b2], b2.address
    await r.stop(b1)
    await r.stop(b2)
    b2._store.close()
    again = await r.broker("b2", identity=identity, address=address, others=others)
    await until(lambda: held(again) == held(b3))


@scenario
async def test_what_another_broker_has_is_not_called_lost_before_it_comes(r: TestRealm) -> None:
    """A source says something at b1 and goes on at b2, which hears of the first late."""
    b1, b2 = await mesh(r, "b1", "b2")
    source = await r.client("operator/a", brokers=at(b1) + at(b2))
    if source.broker != b1._identity.name:
        await move(source, b2, b1)
    reader = await r.client("operator/b", brokers=at(b2))
    brought = b2._ingest.brought
    async with reading(reader, "user/") as got, reading(reader, "broker/b2/notice") as told:
        await source.publish(Draft("user/x", {"n": 0}))
        await got.until(lambda g: len(g.of("user/x")) == 1)
        b2._ingest.brought = lambda *_: 100_000  # the way from b1 hangs
        await source.publish(Draft("user/x", {"n": 1}))
        await move(source, b1, b2)
        await source.publish(Draft("user/x", {"n": 2}))
        await got.until(lambda g: "gap" in g.types())
        since_ms = b2.now_ms()
        await until(lambda: b2.now_ms() > since_ms + 3 * ASK_MS // 2)
        b2._ingest.brought = brought
        await got.until(lambda g: len(g.of("user/x")) == 3)
        await until(lambda: not b2._requests._past._waiting)
        await reader.fetch([])  # what b2 has said before has come
        assert got.types() == ["gap", "filled"]
        assert told.arrived == []


@scenario
async def test_what_no_broker_has_is_called_lost_when_all_were_read(r: TestRealm) -> None:
    _, b2 = await mesh(r, "b1", "b2")
    identity = r.identity("operator/a")
    pen = Pen(identity)
    said = [pen.write("user/x", {"n": n}) for n in range(3)]
    async with reading(await r.client("operator/c", brokers=at(b2)), "user/") as got:
        raw = await r.raw(identity.name, identity=identity)
        raw.send(f.Publish(), said[0].raw)
        raw.send(f.Publish(), said[2].raw)
        await got.until(lambda g: "lost" in g.types())
        assert got.types() == ["gap", "lost"]
        assert b2.now_ms() > said[2].event.time_ms + ASK_MS - 100


@scenario
async def test_a_broker_that_hangs_keeps_nobody_from_the_others(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    b1._turn = lambda: None  # it is there, and looks at nothing
    async with timed() as took_s:
        clients = await asyncio.gather(*[r.client(f"node/n{n}", brokers=at(b1) + at(b2)) for n in range(6)])
        assert {client.broker for client in clients} == {b2._identity.name}
        assert took_s() < ATTACH_S - 1


@scenario
async def test_a_broker_that_stood_still_reads_the_others_to_their_ends_anew(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    copying = b2._others.copying
    await until(lambda: b2.whole and copying.complete and len(b1._fan_out.copying) == 1)
    copying.again()
    assert not copying.complete
    await until(lambda: copying.complete)


@scenario
async def test_what_only_one_has_of_a_lost_broker_is_not_safe_when_its_source_says_it_again_there(r: TestRealm) -> None:
    """A third one reads both, so the second did not send it that; it has not read the second again yet."""
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    source = await r.client("operator/a", brokers=at(b1) + at(b2))
    lost, left = (b1, b2) if source.broker == b1._identity.name else (b2, b1)
    copying = b3._others.copying
    take, copying._rereading._is_due = copying._take, lambda _: False
    await until(lambda: len(copying._linked.names) == 2 and settled(b3))
    copying._take = lambda by, *rest: 100 if by == lost._identity.name else take(by, *rest)
    source._publisher.acked = lambda _: None
    said = source.emit(Draft("user/alone", {}))
    await until(lambda: said.id in held(left))
    await until(lambda: any(one.name == "broker/b3" and one.stored == left._store.head for one in left._sessions.all()))
    del source._publisher.acked
    await r.stop(lost)
    ack = await said.acknowledged()
    assert said.id not in held(b3)
    assert (ack.level, ack.copies) == (Level.STORED, 1)
