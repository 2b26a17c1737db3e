"""A realm comes back from NATS: what its streams hold is in each broker's store, once, and the brokers go on with it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.founding import Founding
from dsmt.bus.broker.places import read_place
from dsmt.bus.broker.recorder import next_incarnation
from dsmt.bus.nats import past
from dsmt.bus.nats.link import Publication
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.nats.past import NatsPast, PastEvent, PastPage
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.errors import RefusedError
from dsmt.event.kinds.broker import BrokerStats, SessionFact
from dsmt.event.records import to_data
from dsmt.logs import Logger
from dsmt.operations.offline.proving import verify
from dsmt.ports.bus import Draft, Start
from dsmt.programs.returning import Returning
from dsmt.trust.identity import Identity
from dsmt.trust.revocations import topic_of
from tests.bus.contract.engines import NatsEngine
from tests.bus.on_nats import on_nats
from tests.bus.realm import Pen, TestClock, TestRealm, reading, scenario
from tests.bus.saying import numbers
from tests.operations.histories import exported
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("nats")]

BLOB = os.urandom(300_000)


class Killed(BaseException):
    """Whoever copies is killed here."""


def named(e: NatsEngine, *names: str) -> list[Identity]:
    """The brokers of these names, whose keys are their gates'."""
    for name in names:
        e._identities.setdefault(name, e._made.identity(name))
    return [e._identities[name] for name in names]


@asynccontextmanager
async def copying(e: NatsEngine, directory: Path, brokers: Sequence[Identity]) -> AsyncIterator[Returning]:
    """Who goes on with what is in the stores; it lets go of them at the end."""
    clock, trust, log = TestClock(), e._made.trust(), Logger(bridge="test")
    link = await e._servers.administrator()
    with ExitStack() as opened:
        foundings = []
        for one in brokers:
            path = str(directory / f"{one.name.split('/')[1]}.db")
            store = SqliteStore(path, identity=os.urandom(8).hex(), synced=True)
            opened.callback(store.close)
            foundings.append(Founding(one, e._made.trust(), store, "test", now_ms=clock.wall_ms, now=clock.boottime))
        past = NatsPast(link, NatsOpener(trust, e._subjects, clock.boottime), log)
        found = Returning(past, foundings, trust, log)
        try:
            await found.begin()
            yield found
        finally:
            await past.end()
            await link.close()


async def copied(e: NatsEngine, directory: Path, brokers: Sequence[Identity]) -> None:
    async with copying(e, directory, brokers) as found:
        await found.rest(lambda _: None)


async def verified(e: NatsEngine, broker: Broker) -> None:
    """The broker's history is whole, as whoever exports it sees it."""
    address = e._made.brokers[-1]
    run = await exported(e._made, await e._made.client("operator/reader", brokers=[address]))
    found = verify(b"".join(run.items), run.trust())
    assert found.ok, (found.faults, found.gaps)
    assert found.history.broker == e._made.identities[broker].name
    assert found.history.heads >= 2


def head_of(directory: Path, broker: Identity) -> tuple[str, int]:
    store = SqliteStore(str(directory / f"{broker.name.split('/')[1]}.db"), identity="")
    try:
        return store.identity, store.head
    finally:
        store.close()


async def alice_says(e: NatsEngine, first: int, count: int) -> None:
    """A process of hers that says some numbers, a fact with a blob beside them, and ends."""
    alice = await e.bus("operator/alice")
    for n in range(first, first + count):
        await alice.publish(Draft("user/t", {"n": n}))
    await e.leave(alice)


def stats(store: str, head: int, head_hash: bytes) -> Draft:
    record = BrokerStats(
        store=store, head=head, head_hash=head_hash, sessions=0, events=0, facts=0, disk_bytes=0, history_from_ms=0,
        dropped=0, lag_s=0.0, pid=None, version="test", address="",
    )  # fmt: skip
    return Draft("", to_data(record))


async def told(e: NatsEngine, *names: str) -> None:
    """What brokers have signed over stores of before, and what gates say of themselves, with no head, and of sessions."""
    for name in names:
        named(e, name)
        gate = await e.bus(name)
        for one in (stats("former", 1, os.urandom(32)), stats("H", 10**6, b""), stats("H", 1, b"")):
            await gate.publish(msgspec.structs.replace(one, topic=f"{name}/stats"))
        session = SessionFact(
            attachment=7, state="open", how=None, since_ms=1, incarnation=1, pid=None, version="test", address=""
        )
        await gate.publish(Draft(f"{name}/session/node/n1", to_data(session)))
        await e.leave(gate)


async def told_again(e: NatsEngine, *names: str) -> None:
    """What gates say that were started anew."""
    for name in names:
        gate = await e.bus(name)
        await gate.publish(msgspec.structs.replace(stats("H", 1, b""), topic=f"{name}/stats"))
        await e.leave(gate)


@on_nats
async def test_what_streams_hold_is_in_a_store_in_order_and_broker_and_sources_go_on_above_it(e: NatsEngine) -> None:
    directory, (b1,) = e._made.directory, named(e, "broker/b1")
    began_ms = int(time.time() * 1000)
    await told(e, "broker/b1")
    await alice_says(e, 0, 40)
    alice = await e.bus("operator/alice")
    fact = await alice.publish(Draft("user/f", {"n": 1}, version=1, to=("operator/carol",)))
    await alice.put_blob(pieces(), sha256(BLOB).digest())
    await e.leave(alice)
    said_ms = int(time.time() * 1000)
    await copied(e, directory, [b1])
    broker = await e._made.broker("b1", identity=b1)
    rows = broker._store.rows(2, 10_000)
    stored = [row.arrived_ms for row in rows if row.topic == "user/t"]
    assert stored == sorted(stored)
    assert began_ms - 1000 < stored[0] <= stored[-1] < said_ms + 1000
    await until(lambda: broker.whole)
    assert broker._session_words.presence.attachment_of("node/n1") == 7
    assert broker._store.blobs.get(sha256(BLOB).digest()).whole
    again = await e._made.client("operator/alice", identity=e._identities["operator/alice"])
    await again.publish(Draft("user/t", {"n": 40}))
    carol = await e._made.client("operator/carol")
    async with reading(carol, "user/", start=Start.HISTORY, follow=False) as got, reading(carol, "no/", inbox=True) as mail:
        assert numbers(got) == list(range(41))
        assert got.types() == []
        assert numbers(got, "user/f") == numbers(mail, "user/f") == [1]
    assert fact.cursor.row
    await verified(e, broker)


@on_nats
async def test_a_broker_goes_on_above_what_the_gate_of_its_name_said_while_its_store_was_written(e: NatsEngine) -> None:
    directory, (b1,) = e._made.directory, named(e, "broker/b1")
    await told(e, "broker/b1")
    async with copying(e, directory, [b1]) as found:
        await told_again(e, "broker/b1")
        await found.rest(lambda _: None)
    store = SqliteStore(str(directory / "b1.db"), identity="")
    try:
        mark = store.high_mark("broker/b1")
        assert mark is not None
        assert next_incarnation(store.meta, 0) > mark[0]
    finally:
        store.close()


async def pieces() -> AsyncIterator[bytes]:
    for start in range(0, len(BLOB), 100_000):
        yield BLOB[start : start + 100_000]


@pytest.mark.parametrize("step", ["begin", "take", "reached", "complete"])
@pytest.mark.parametrize("which", [0, 1])
def test_who_is_killed_anywhere_is_followed_by_one_that_goes_on(tmp_path, monkeypatch, step: str, which: int) -> None:
    async def within(e: NatsEngine) -> None:
        directory, brokers = e._made.directory, named(e, "broker/b1", "broker/b2")
        await told(e, "broker/b1", "broker/b2")
        await alice_says(e, 0, 20)
        for after in (False, True):
            await killed_at(e, directory, brokers, after=after)
            await alice_says(e, 20 * (2 if after else 1), 20)
            await told_again(e, "broker/b1", "broker/b2")
        await copied(e, directory, brokers)
        heads = [head_of(directory, one) for one in brokers]
        started = [await e._made.broker(one.name.split("/")[1], identity=one) for one in brokers]
        for broker in started:
            ids = [row.read().id for row in broker._store.rows(0, 10_000)]
            assert len(set(ids)) == len(ids)
            texts = [row.read().event.data["n"] for row in broker._store.rows(0, 10_000) if row.topic == "user/t"]
            assert texts == list(range(60))
        for broker, other, (identity, head) in zip(started, brokers[::-1], heads[::-1], strict=True):
            place, _ = read_place(broker._store.meta, other.key.public)
            assert place is not None
            assert (place.store, place.row) == (identity, head)
        await verified(e, started[-1])

    async def killed_at(e: NatsEngine, directory: Path, brokers: list[Identity], *, after: bool) -> None:
        real = getattr(Founding, step)

        def dies(self: Founding, *values):
            if self.identity.name != brokers[which].name:
                return real(self, *values)
            if after:
                real(self, *values)
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(Founding, step, dies)
            with pytest.raises(Killed):
                await copied(e, directory, brokers)

    on_nats(within)(tmp_path)


@on_nats
async def test_what_left_the_history_and_is_retained_comes_first(e: NatsEngine) -> None:
    directory, (b1,) = e._made.directory, named(e, "broker/b1")
    alice = await e.bus("operator/alice")
    await alice.publish(Draft("user/old", {"n": 1}, version=1))
    first = alice.emit(Draft("user/f", {"n": 1}, version=1))
    await first.acknowledged()
    link = await e._servers.administrator()
    await link.publish(Publication(e._subjects.offered("operator/bob", alice.source, "user/f"), first.signed.raw, {}))
    await link.close()
    second = alice.emit(Draft("user/f", {"n": 2}, replaces=first))
    await second.acknowledged()
    await alice.publish(Draft("user/t", {"n": -1}))
    async with reading(await e.bus("operator/bob"), "user/", follow=False) as got:
        assert sorted(numbers(got, "user/f") + numbers(got, "user/old")) == [1, 2]
    await e.trim()
    await alice.publish(Draft("user/t", {"n": 0}))
    await alice.publish(Draft("user/f", {"n": 3}, replaces=second))
    await copied(e, directory, [b1])
    broker = await e._made.broker("b1", identity=b1)
    topics = [row.topic for row in broker._store.rows(0, 1000) if row.topic.startswith("user/")]
    assert topics == ["user/old", "user/t", "user/f"]
    assert broker._store.winner("user/f").read().event.data == {"n": 3}
    await verified(e, broker)


@on_nats
async def test_what_no_reader_believes_comes_into_no_store(e: NatsEngine) -> None:
    directory, (b1,) = e._made.directory, named(e, "broker/b1")
    mallory = Pen(e._made.identity("operator/mallory"))
    await alice_says(e, 0, 3)
    link = await e._servers.administrator()
    forged = mallory.write("user/t", {"n": 66}, source="operator/alice")
    await link.publish(Publication(e._subjects.event("operator/alice", "user/t", fact=False), forged.raw, {}))
    root, alice = e._made.identity("root"), e._identities["operator/alice"]
    e._identities["root"] = root
    said = await e.bus("root")
    topic = topic_of(alice.key.key_id, "root")
    await said.publish(Draft(topic, {"by": "root", "reason": "lost"}))
    late = Pen(alice).write("user/t", {"n": 77})
    await link.publish(Publication(e._subjects.event("operator/alice", "user/t", fact=False), late.raw, {}))
    await link.close()
    await copied(e, directory, [b1])
    await copied(e, directory, [b1])
    broker = await e._made.broker("b1", identity=b1)
    found = [row.read().event.data for row in broker._store.rows(0, 1000) if row.topic == "user/t"]
    assert found == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert broker._store.winner(topic) is not None
    await verified(e, broker)


class Scripted:
    """Streams of which it is written down what they hold, and since when."""

    def __init__(self, said: list[PastEvent]) -> None:
        self._said = said

    async def head(self) -> SimpleNamespace:
        return SimpleNamespace(store="H-test.1")

    async def begin(self, place: int) -> None:
        self._place = place

    async def rest(self) -> AsyncIterator[PastPage]:
        for first in range(self._place, len(self._said), 50):
            page = self._said[first : first + 50]
            yield PastPage(page, first + len(page), len(self._said) - first - len(page))

    async def blobs(self) -> list[bytes]:
        return []


@scenario
async def test_a_history_of_days_keeps_its_times_and_each_store_has_what_the_others_begin_with(made: TestRealm) -> None:
    now_s, hour_ms, clock, log = int(time.time()), 3_600_000, TestClock(), Logger(bridge="test")
    alice = Pen(made.identity("operator/alice", now_s=now_s - 8 * 24 * 3600), (now_s - 5 * 24 * 3600) * 1000)
    trust, brokers = made.trust(), [made.identity("broker/b1"), made.identity("broker/b2")]
    trust.add_all([one.raw for one in alice.identity.chain])
    facts = [alice.write("user/f", {"n": n}, version=n, ahead_s=-3600.0 * (120 - n)) for n in range(1, 121)]
    said = [PastEvent(now_s * 1000 - hour_ms * (120 - n), one) for n, one in enumerate(facts, 1)]
    stores = [SqliteStore(str(made.directory / f"b{n}.db"), identity=os.urandom(8).hex(), synced=True) for n in (1, 2)]
    foundings = [
        Founding(one, made.trust(), store, "test", now_ms=clock.wall_ms, now=clock.boottime)
        for one, store in zip(brokers, stores, strict=True)
    ]
    found = Returning(Scripted(said), foundings, trust, log)
    await found.begin()
    await found.rest(lambda _: None)
    for store, other in zip(stores, stores[::-1], strict=True):
        rows = [row for row in store.rows(0, 1000) if row.topic == "user/f"]
        assert [row.arrived_ms for row in rows] == [one.stored_ms for one in said]
        assert store.row_at(said[60].stored_ms) == rows[60].row - 1
        assert {row.read().id for row in store.rows(0, 1000)} == {row.read().id for row in other.rows(0, 1000)}
    for store in stores:
        store.close()
    broker = await made.broker("b2", identity=brokers[1])
    async with reading(await made.client("operator/bob"), "user/", start=Start.HISTORY, follow=False) as got:
        assert got.types() == []
        assert numbers(got, "user/f") == list(range(1, 121))
    assert broker._store.winner("user/f").read().event.data == {"n": 120}
    run = await exported(made, await made.client("operator/reader"))
    found = verify(b"".join(run.items), run.trust())
    assert found.ok, (found.faults, found.gaps)


@scenario
async def test_what_was_stored_at_a_time_that_has_not_come_is_not_taken_and_it_is_told_when_that_is(made: TestRealm) -> None:
    """A server's clock had been days ahead: the realm was at that time when it had moved, and for ever."""
    alice, trust, clock = Pen(made.identity("operator/alice")), made.trust(), TestClock()
    trust.add_all([one.raw for one in alice.identity.chain])
    store = SqliteStore(str(made.directory / "b1.db"), identity="s", synced=True)
    founding = Founding(made.identity("broker/b1"), trust, store, "test", now_ms=clock.wall_ms, now=clock.boottime)
    stored = [PastEvent(253_402_300_799_000, alice.write("user/f", {"n": 1}, version=1))]
    with pytest.raises(RefusedError, match=r"9999-12-31T23:59:59\.000Z, which has not come"):
        founding.take(stored, lambda _: ())
    assert store.head == 0
    founding.take([PastEvent(clock.wall_ms() + 5000, stored[0].signed)], lambda _: ())
    assert store.head == 1
    store.close()


@on_nats
async def test_other_streams_than_those_of_which_a_part_was_copied_are_refused(e: NatsEngine) -> None:
    directory, (b1,) = e._made.directory, named(e, "broker/b1")
    await alice_says(e, 0, 3)
    await copied(e, directory, [b1])
    await e.end()
    e._subjects = await e._servers.make(e._made.name)
    with pytest.raises(RefusedError, match="other streams than those"):
        await copied(e, directory, [b1])


def test_what_comes_page_by_page_is_waited_for_though_nobody_may_believe_any_of_it(monkeypatch) -> None:
    """Who has flooded the servers kept the realm from moving back, for as long as that takes to be passed over."""

    class Garbage(NatsPast):
        async def page(self, within_s: float) -> PastPage:
            self._place += 1
            return PastPage([], self._place, 0)

    async def end_of(*_: object) -> int:
        return 3

    async def play() -> list[int]:
        opener: Any = SimpleNamespace(subjects=SimpleNamespace(history="H", taken_by=lambda *_, **__: []))
        unused: Any = None
        return [one.upto async for one in Garbage(unused, opener, unused).rest()]

    monkeypatch.setattr(past, "end_of", end_of)
    monkeypatch.setattr(past, "BEHIND_S", 0.0)
    assert asyncio.run(play()) == [1, 2, 3]
