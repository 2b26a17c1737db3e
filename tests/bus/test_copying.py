"""Several brokers: each keeps what the others have, and any of them may die (rules E1, D1, F1, R8)."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dsmt.bus.broker import keyring
from dsmt.bus.broker.others.copying import TURN, Copying
from dsmt.bus.broker.others.other import STILL_S, Other
from dsmt.bus.broker.others.readings import Readings
from dsmt.bus.broker.others.rereading import Rereading
from dsmt.bus.broker.places import OVERLAP_MS
from dsmt.bus.broker.wholeness import AFTER_S
from dsmt.event.hlc import BOUND_MS
from dsmt.event.kinds.realm import BrokerWord
from dsmt.event.records import to_data
from dsmt.operations.local.home.addresses import free_port
from dsmt.ports.bus import Bookmark, Cursor, Draft, Level
from dsmt.ports.realm import BrokerAddress
from dsmt.trust.identity import YEAR_S
from tests.bus.meshes import at, held, linked, mesh, words
from tests.bus.realm import Facts, Pen, TestClock, TestRealm, reading, scenario
from tests.bus.spoiled import Full
from tests.waiting import until


@scenario
async def test_what_one_acknowledges_the_others_have(r: TestRealm) -> None:
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    operator = await r.client("operator/a", brokers=at(b1))
    await until(lambda: len(b1._fan_out.copying) == 2)
    await operator.publish(Draft("config/x", {"n": 1}, version=1))
    acks = [await operator.publish(Draft("user/x", {"n": 0}))]
    while acks[-1].level is not Level.SAFE:  # who is busy for a second has not taken it yet
        assert len(acks) < 20
        acks.append(await operator.publish(Draft("user/x", {"n": len(acks)})))
    assert acks[-1].copies >= 2
    await until(lambda: held(b1) == held(b2) == held(b3) != set())
    reader = await r.client("operator/b", brokers=at(b3))
    async with reading(reader, "config/") as got:
        assert got.of("config/x") == [{"n": 1}]


@scenario
async def test_who_loses_its_broker_goes_on_at_another(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    operator = await r.client("operator/a", brokers=at(b1) + at(b2))
    reader = await r.client("operator/b", brokers=at(b1) + at(b2))
    async with reading(reader, "user/") as got:
        for n in range(20):
            await operator.publish(Draft("user/x", {"n": n}))
        lost = next(one for one in (b1, b2) if one._identity.name == operator.broker)
        said = [operator.emit(Draft("user/x", {"n": n})) for n in range(20, 30)]
        await r.stop(lost)
        for one in said:
            await one.acknowledged()
        for n in range(30, 40):
            await operator.publish(Draft("user/x", {"n": n}))
        await got.until(lambda g: len(g.of("user/x")) >= 40)
        assert [one["n"] for one in got.of("user/x")] == list(range(40))
        assert got.types() == []
        assert operator.broker == reader.broker != lost._identity.name


@scenario
async def test_acknowledgements_wait_for_another_broker_and_not_for_ever(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    operator = await r.client("operator/a", brokers=at(b1))
    await until(lambda: len(b1._fan_out.copying) == 1)
    real = b2._ingest.brought
    b2._others._recorder.ingest.brought = lambda *_: 100_000  # it stores nothing of what it reads
    facts = Facts(operator)
    waited = await asyncio.wait_for(facts.emit("config/x", {"n": 1}).acknowledged(), 5)
    assert (waited.level, waited.copies) == (Level.STORED, 1)
    b2._others._recorder.ingest.brought = real
    await until(lambda: held(b2) == held(b1) and b1._copied._hopes())
    assert (await facts.emit("config/x", {"n": 2}).acknowledged()).level is Level.SAFE
    await r.stop(b2)
    assert (await facts.emit("config/x", {"n": 3}).acknowledged()).level is Level.STORED


@scenario
async def test_clients_learn_of_brokers_and_forget_those_that_are_removed(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    operator = await r.client("operator/a", brokers=at(b1))
    facts = Facts(operator)
    told = [to_data(BrokerWord(address=one.address, public=one._identity.key.public, by="alice")) for one in (b1, b2)]
    for name, word in zip(("b1", "b2"), told, strict=True):
        await facts.publish(f"config/broker/{name}", word)
    node = await r.client("node/n1", brokers=at(b1))
    await until(lambda: {one.address for one in node.brokers.all} == {b1.address, b2.address})
    await r.stop(b1)
    await asyncio.wait_for(node.wait_attached(), 5)
    await until(lambda: node.broker == "broker/b2")
    assert node.attached
    await until(lambda: operator.broker == "broker/b2" and operator.attached)
    removed = {**told[0], "removed": True}
    await facts.publish("config/broker/b1", removed)
    await until(lambda: {one.address for one in node.brokers.all} == {b2.address})
    await until(lambda: b2._others.readings.alone)


@scenario
async def test_brokers_that_have_all_lost_their_disks_are_told_of_each_other_by_who_is_attached(r: TestRealm) -> None:
    made = await mesh(r, "b1", "b2")
    operator = await r.client("operator/a", brokers=at(made[0]))
    for topic, word in words(made).items():
        await Facts(operator).publish(topic, word)
    node = await r.client("node/n1", brokers=at(made[0]))
    await until(lambda: len(node.brokers.all) == 2)
    await r.stop(operator)
    blank = [await r.restarted(one, store=f"{r.directory}/blank-{number}.db") for number, one in enumerate(made)]
    await until(lambda: any(linked(one) == 1 for one in blank))


@scenario
async def test_whoever_is_at_a_broker_whose_certificate_ends_goes_to_another_one_while_that_is_there(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2", certified_s={"b2": int(time.time()) - YEAR_S + 6})
    operator = await r.client("operator/a", brokers=at(b2))
    assert operator.broker == "broker/b2"
    await until(lambda: operator.refusal is not None and operator.refusal.code == "broker.expired")
    other = await r.client("operator/b", brokers=at(b2) + at(b1))
    assert other.broker == "broker/b1"
    assert not operator.attached
    await r.stop(b1)
    await until(lambda: operator.attached)
    await operator.publish(Draft("user/x", {"n": 1}))


@scenario
async def test_brokers_whose_certificates_have_all_ended_read_each_other_on_and_anew(r: TestRealm) -> None:
    ends = int(time.time()) + 6
    b1, b2 = await mesh(r, "b1", "b2", certified_s={"b1": ends - YEAR_S, "b2": ends + 1 - YEAR_S})
    operator, reader = await r.client("operator/a", brokers=at(b1)), await r.client("operator/b", brokers=at(b2))
    await until(lambda: b2.now_ms() > (ends + 3) * 1000)
    third = r.identity("broker/b3", now_s=ends - YEAR_S)
    b3 = await r.broker("b3", identity=third, others=at(b1) + at(b2), born=False)
    last = await r.client("operator/c", brokers=at(b3))
    async with reading(reader, "user/") as got, reading(last, "user/") as more:
        assert (await operator.publish(Draft("user/x", {"n": 1}))).copies >= 2
        await got.until(lambda g: g.of("user/x") == [{"n": 1}])
        await more.until(lambda g: g.of("user/x") == [{"n": 1}])
        assert operator.attached
        assert reader.attached
    stranger = await r.client("node/n1", brokers=at(b1), identity=r.identity("node/n1", now_s=ends - YEAR_S), wait=False)
    await until(lambda: stranger.refusal is not None and stranger.refusal.code == "trust.expired")


@scenario
async def test_attachments_are_numbered_above_those_at_another_broker(r: TestRealm) -> None:
    b1 = await r.broker("b1")
    b2 = await r.broker("b2", clock=TestClock(-5.0), others=at(b1), born=False)
    identity = r.identity("node/n1")
    first = await r.client("node/n1", identity=identity, brokers=at(b1))
    at_b1 = first.attachment
    await until(lambda: b2._store.winner("broker/b1/session/node/n1") is not None)
    await r.stop(first)
    assert b2.now_ms() < b1.now_ms() - 4_000
    second = await r.client("node/n1", identity=identity, brokers=at(b2))
    assert second.attachment > at_b1


@scenario
async def test_each_broker_says_of_the_others_whether_they_are_linked(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    reader = await r.client("operator/b", brokers=at(b2))
    async with reading(reader, "broker/") as got:
        await got.until(lambda g: [one["state"] for one in g.of("broker/b2/session/broker/b1")] == ["open"])
        await r.stop(b1)
        await got.until(lambda g: g.of("broker/b2/session/broker/b1")[-1]["state"] == "closed")


@scenario
async def test_a_full_disk_does_not_end_a_broker_that_reads_others(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    operator = await r.client("operator/a", brokers=at(b1))
    b2._others.copying._meta = SimpleNamespace(get=b2._store.meta.get, put=(full := Full()))
    await until(lambda: full.tried or r.tasks[b2].done())
    await operator.publish(Draft("config/x", {"n": 1}, version=1))
    await until(lambda: held(b2) == held(b1) or r.tasks[b2].done())
    assert not r.tasks[b2].done()


@scenario
async def test_a_full_disk_does_not_end_a_broker_to_which_others_bring_what_somebody_new_has_said(r: TestRealm) -> None:
    """Each command line is somebody new, whose certificate is kept before what it has said."""
    b1, b2 = await mesh(r, "b1", "b2")
    certificates = b2._store.certificates
    put = certificates.put
    certificates.put = full = Full()  # type: ignore[method-assign]
    operator = await r.client("operator/new", brokers=at(b1))
    await operator.publish(Draft("config/x", {"n": 1}, version=1))
    await until(lambda: full.tried > 1 or r.tasks[b2].done())
    assert not r.tasks[b2].done()
    await until(lambda: not b2.whole)
    assert b2._store.winner("config/x") is None
    certificates.put = put  # type: ignore[method-assign]
    await until(lambda: b2.whole and held(b2) == held(b1))


@scenario
async def test_what_is_live_does_not_wait_for_what_is_read_again(r: TestRealm) -> None:
    read_again, go_on = Rereading.read, asyncio.Event()

    async def later(*told: Any) -> None:
        await go_on.wait()
        await read_again(*told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rereading, "read", later)
        b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
        operator = await r.client("operator/a", brokers=at(b2))
        await until(lambda: len(b2._fan_out.copying) == 2)
        await until(lambda: all(len(one._others.copying._linked.names) == 2 for one in (b2, b3)))
        await r.stop(b1)
        await until(lambda: all(one._others.copying._rereading._turn.locked() for one in (b2, b3)))
        ack = await operator.publish(Draft("config/x", {"n": 1}, version=1))
        assert ack.level is Level.SAFE
        assert ack.copies == 2
        assert b3._store.winner("config/x") is not None
        assert all(one._others.readings.held_ms < one.now_ms() - OVERLAP_MS / 2 for one in (b2, b3))
        go_on.set()
        linked = [one for broker in (b2, b3) for one in broker._others.readings.others.values() if one.name]
        await until(lambda: [one.again_ms for one in linked] == [None, None])


@scenario
async def test_a_broker_whose_clock_is_ahead_keeps_no_other_from_being_whole(r: TestRealm) -> None:
    """Or no controller would decide until the time has come that it says."""
    identities = [r.identity(f"broker/{name}") for name in ("b1", "b2", "b3")]
    addresses = [BrokerAddress(f"127.0.0.1:{free_port()}", one.key.public) for one in identities]
    clocks = [TestClock(), TestClock(), TestClock(offset_s=3600)]
    made = []
    for identity, address, clock in zip(identities, addresses, clocks, strict=True):
        name = identity.name.removeprefix("broker/")
        about: dict[str, Any] = {"identity": identity, "address": address.address, "clock": clock, "others": addresses}
        made.append(await r.broker(name, born=False, **about))
    b1, b2, _ = made
    await until(lambda: b1.whole and b2.whole, 2 * AFTER_S)


@scenario
async def test_of_no_more_signers_than_a_bound_it_is_remembered_what_others_brought(r: TestRealm) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keyring, "REMEMBERED", 3)
        b1, b2 = await mesh(r, "b1", "b2")
        for n in range(8):
            operator = await r.client(f"operator/{n}", brokers=at(b1))
            await operator.publish(Draft("user/x", {"n": n}))
            await until(lambda: held(b2) == held(b1))
            assert len(b2._keyring._brought) <= 3


@scenario
async def test_an_older_word_on_a_broker_that_comes_later_changes_nothing(r: TestRealm) -> None:
    b1 = await r.broker("b1")
    operator = await r.client("operator/a", brokers=at(b1))
    facts, gone = Facts(operator), r.identity("broker/b9").key.public
    word = to_data(BrokerWord(address="127.0.0.1:9", public=gone, by="alice"))
    await facts.publish("config/broker/b9", word)
    await until(lambda: not b1._others.readings.alone)
    await facts.publish("config/broker/b9", {**word, "removed": True})
    await until(lambda: b1._others.readings.alone)
    older = next(row for row in b1._store.rows(0, 1000) if row.topic == "config/broker/b9")
    b1._others.stored([older], ended=False)
    assert b1._others.readings.alone


@scenario
async def test_of_what_another_brings_at_once_all_is_brought_again_while_one_is_ahead(r: TestRealm) -> None:
    b1 = await r.broker("b1")
    alice, bob = r.identity("operator/alice"), r.identity("operator/bob")
    early, due = Pen(alice).write("user/x", {"n": 1}, ahead_s=60.0), Pen(bob).write("user/x", {"n": 2})
    chains = {one.name: tuple(signed.raw for signed in one.chain) for one in (alice, bob)}
    waits_ms = b1._others.take("broker/b2", [early, due], lambda signed: chains[signed.event.source])
    assert 40_000 < waits_ms <= 60_000, "who is told that all is stored goes on behind it"
    assert due.id in held(b1)


@scenario
async def test_the_words_on_brokers_are_read_when_one_was_said_and_not_each_time_somebody_looks(r: TestRealm) -> None:
    b1, _ = await mesh(r, "b1", "b2")
    await until(lambda: "broker/b2" in b1._sessions.by_name)
    session, admission, words = b1._sessions.by_name["broker/b2"], b1._admission, b1._others.holders.words
    read: list[str] = []

    def row(said: str) -> Any:
        word = SimpleNamespace(event=SimpleNamespace(data={}))
        return SimpleNamespace(read=lambda: read.append(said) or word)  # type: ignore[func-returns-value]

    words.rows["config/broker/b2"] = row("first")
    assert [admission.is_displaced(session) for _ in range(3)] == [False] * 3
    assert read == ["first"]
    words.rows["config/broker/b2"] = row("second")
    assert not admission.is_displaced(session)
    assert read == ["first", "second"]


@scenario
async def test_that_everything_is_here_is_known_of_no_time_that_is_yet_to_come_whatever_another_says(r: TestRealm) -> None:
    """Or nothing that it says later would be waited for."""
    b1, b2 = await mesh(r, "b1", "b2")
    copying, public = b1._others.copying, b2._identity.key.public
    await until(lambda: copying.complete)
    other, deliveries = b1._others.readings.others[public], SimpleNamespace(stored=lambda _row: None)
    place, far_ms = other.place, b1.now_ms() + 3_600_000
    assert place is not None
    copying._reached(other, Bookmark(Cursor(place.store, place.row, far_ms), whole=False), cast(Any, deliveries))
    assert b1._others.readings.read_ms(public) <= b1.now_ms() + BOUND_MS


def test_another_is_not_taken_for_one_that_gives_nothing_while_what_it_gave_is_stored_slowly() -> None:
    """Or who is given all that a realm has, on a busy machine, says that it is whole long before it has that."""
    now, stalled = [100.0], []
    other = Other(BrokerAddress("127.0.0.1:1", bytes(32)), moved_at=now[0])

    def take(*_: object) -> int:
        stalled.append(other.is_stalled(now[0]))
        now[0] += STILL_S / 2
        return 0

    of = SimpleNamespace(_take=take, _clock=SimpleNamespace(boottime=lambda: now[0]), _log=None)
    given: Any = [None] * (8 * TURN)
    asyncio.run(Copying._store(cast(Any, of), other, cast(Any, SimpleNamespace(broker="broker/b1")), given))
    assert stalled == [False] * 8


def test_another_is_read_where_it_is_now_by_the_newest_word() -> None:
    nothing: Any = None
    parts = dict.fromkeys(("is_attached", "take", "whole", "withholding", "trimmed", "log", "now_ms"), nothing)
    read = Copying(
        BrokerAddress("127.0.0.1:1", bytes(32)),
        nothing,
        holders=SimpleNamespace(readings=Readings(nothing, nothing)),  # type: ignore[arg-type]
        seeds=(),
        meta=SimpleNamespace(get=lambda _: None),  # type: ignore[arg-type]
        clock=SimpleNamespace(boottime=lambda: 1.0),  # type: ignore[arg-type]
        **parts,
    )
    former, now = (BrokerAddress(f"127.0.0.1:{n}", b"k" * 32) for n in (2, 3))
    read.know([former])
    (other,) = read._others.values()
    read.know([former])
    assert [*read._others.values()] == [other], "what is said again begins nothing anew"
    read.know([now])
    assert [one.address for one in read._others.values()] == [now]
