"""The broker and its clients, beyond the contract: what it says itself, and what only its own frames can show."""

from __future__ import annotations

import time

import pytest

from dsmt.bus.rules.outbox import WINDOW_BYTES, WINDOW_EVENTS
from dsmt.bus.wire import frames as f
from dsmt.ports.bus import Arrived, Draft, Interest, Start
from tests.bus.realm import Facts, Pen, TestClock, TestRealm, reading, scenario
from tests.bus.saying import numbers, user

# --- snapshot and tail ---------------------------------------------------------------------------------------------------


@scenario
async def test_a_fact_superseded_while_the_snapshot_is_read_is_there_before_complete(r: TestRealm):
    broker = await r.broker()
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    last = None
    for n in range(1200):
        emission = alice.emit(Draft(f"user/t{n}", {"n": 0}, version=1))
        last = emission if n == 999 else last
    await emission.acknowledged()
    # the topic that is read last is superseded while the first page is read, so its retained row moves behind `began`
    page = broker._store.facts
    moved = []

    def facts(low, high, limit):
        found = page(low, high, limit)
        if not moved and low == "user/" and len(found) == limit:
            moved.append(alice.emit(Draft("user/t999", {"n": 1}, replaces=last)))
        return found

    broker._store.facts = facts
    for conflate in (False, True):
        moved.clear()
        async with reading(bob, "user/", conflate=conflate) as got:
            before = got.all[: next(i for i, d in enumerate(got.all) if not isinstance(d, Arrived))]
            assert {d.signed.event.topic for d in before} >= {f"user/t{n}" for n in range(1200)}
        assert moved
        last = moved[0]
        await last.acknowledged()


# --- history and resuming ------------------------------------------------------------------------------------------------


@scenario
async def test_a_reader_goes_on_by_time_when_the_broker_has_another_store(r: TestRealm):
    broker = await r.broker()
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    async with reading(bob, "user/", start=Start.HISTORY) as got, reading(bob, "user/", conflate=True) as folded:
        for n in range(3):
            await alice.publish(user(n))
        await alice.publish(Draft("user/f", {"n": 1}, version=1))
        await got.until(lambda g: len(g.arrived) == 4)
        await r.restarted(broker, store=str(r.directory / "another.db"))
        for n in range(3, 6):
            await alice.publish(user(n))
        await got.until(lambda g: len(g.arrived) == 7)
        assert numbers(got) == list(range(6))
        assert got.types() == []
        assert len(got.reattached) == 1
        await alice.publish(Draft("user/f", {"n": 2}, version=2))
        await folded.until(lambda g: numbers(g, "user/f")[-1:] == [2])


@scenario
async def test_the_last_one_standing_refills_an_empty_bus(r: TestRealm):
    broker = await r.broker()
    alice, carol = await r.client("operator/alice"), await r.client("operator/carol")
    async with reading(carol, "user/", conflate=True, signals=False) as got:
        for n in range(3):
            await _fact(alice, n)
        await got.until(lambda g: len(g.arrived) == 3)
        carol.on_attached(lambda: carol.offer([d.signed for d in got.arrived]))
        await r.stop(alice)
        await r.restarted(broker, store=str(r.directory / "another.db"), born=False)
        dave = await r.client("operator/dave")
        async with reading(dave, "user/") as refilled:
            await refilled.until(lambda g: len(g.arrived) == 3)
            assert {d.signed.event.source for d in refilled.arrived} == {"operator/alice"}
            assert not refilled.completes[0].whole, "who came up empty does not say that its view is whole"


async def _fact(client, n):
    emission = client.emit(Draft(f"user/f{n}", {"n": n}, version=1))
    await emission.acknowledged()
    return emission.signed


# --- slow readers --------------------------------------------------------------------------------------------------------


@scenario
async def test_the_credit_bounds_what_waits_for_a_reader_that_does_not_read(r: TestRealm):
    broker = await r.broker()
    alice, bob, eve = [await r.client(f"operator/{n}") for n in ("alice", "bob", "eve")]
    async with bob.subscribe(Interest(("user/",))) as stuck, reading(eve, "user/", conflate=True) as got:
        facts = Facts(alice)
        for n in range(1, 1201):
            last = facts.emit("user/big", {"n": n, "pad": "x" * 8000}, version=n)
            if n % 100 == 0:
                await last.acknowledged()
        await got.until(lambda g: numbers(g, "user/big")[-1:] == [1200])
        assert sum(size for _, size in stuck._queue) <= 4 * 1024 * 1024
        assert len([s for s in broker._fan_out._router.all() if not s.live]) == 1


@scenario
async def test_a_publisher_keeps_only_a_window_in_flight(r: TestRealm):
    await r.broker()
    alice = await r.client("operator/alice")
    for n in range(5000):  # in one turn of the loop: no broker answers in between
        last = alice.emit(user(n))
    alice._publisher.flush()
    outbox = alice._publisher.said.outbox
    events, size = outbox._flying, outbox._flying_bytes
    assert 0 < events <= min(WINDOW_EVENTS, 4999)
    assert size <= WINDOW_BYTES + last.signed.size
    await last.acknowledged()
    assert len(alice._publisher.said.outbox) == 0


# --- re-offering, facts, tombstones --------------------------------------------------------------------------------------


@scenario
async def test_anybody_may_bring_back_a_fact_but_not_a_signal(r: TestRealm):
    await r.broker("b1")
    first = list(r.brokers)
    alice = await r.client("operator/alice", brokers=first)
    fact = await _fact(alice, 1)
    signal = alice.emit(user(1))
    await signal.acknowledged()
    await r.broker("b2")
    second = [b for b in r.brokers if b not in first]
    identity = r.identity("operator/bob")
    bob = await r.client("operator/bob", brokers=second, identity=identity)
    async with reading(bob, "user/") as got:
        bob._post(f.Publish(), alice._identity.chain[0].raw)  # a certificate is no event: refused, nothing breaks
        bob.offer([fact, signal.signed])
        await bob.publish(Draft("config/end", {}, version=1))
        assert {d.signed.event.source for d in got.arrived} <= {"operator/bob"}, "alice's certificate was not brought"
    bob._trust.add_all([signed.raw for signed in alice._identity.chain])
    bob._publisher._introduced.clear()
    async with reading(bob, "user/") as got:
        bob.offer([fact, signal.signed])
        await bob.publish(Draft("user/end", {}, version=1))
        await got.until(lambda g: g.of("user/end"))
        assert [d.signed.event.topic for d in got.arrived] == ["user/f1", "user/end"]
        assert got.arrived[0].signed.id == fact.id


@scenario
async def test_the_greater_version_wins_whatever_comes_last(r: TestRealm):
    await r.broker()
    identity = r.identity("operator/alice")
    raw = await r.raw("operator/eve")
    raw.send(f.Certificates(), *(signed.raw for signed in identity.chain))
    pen = Pen(identity)
    for version in (1, 5, 3, 4):
        raw.send(f.Publish(), pen.write("user/f", {"n": version}, version=version).raw)
    acknowledged = 0
    while acknowledged < 4:
        acked, _ = await raw.next(f.Acked)
        acknowledged += sum(last - first + 1 for _, _, first, last in acked.ranges)
    bob = await r.client("operator/bob")
    async with reading(bob, "user/f") as got:
        assert numbers(got, "user/f") == [5]


@scenario
async def test_a_fact_dies_at_the_end_of_its_ttl(r: TestRealm):
    broker = await r.broker()
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    await alice.publish(Draft("user/soft", {"n": 1}, version=1, ttl_ms=60_000))
    await alice.publish(Draft("user/hard", {"n": 1}, version=1))
    assert [broker._store.expire(bob.now_ms() + ms) for ms in (0, 61_000)] == [0, 1]
    async with reading(bob, "user/") as got:
        assert [d.signed.event.topic for d in got.arrived] == ["user/hard"]


# --- time ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-5, 7])
def test_a_client_whose_wall_clock_is_hours_wrong_speaks_in_realm_time(network_kind, tmp_path, hours):
    async def wrong(r: TestRealm):
        await r.broker()
        alice = await r.client("operator/alice", clock=TestClock(hours * 3600.0))
        bob = await r.client("operator/bob")
        emission = alice.emit(user(1))
        await emission.acknowledged()
        assert abs(emission.signed.event.time_ms - time.time() * 1000) < 5_000
        assert abs(alice.now_ms() - time.time() * 1000) < 5_000
        async with reading(bob, "user/", start=Start.HISTORY) as got:
            assert len(got.arrived) == 1

    scenario(wrong)(network_kind, tmp_path)


@scenario
async def test_an_event_an_hour_ahead_is_refused_with_the_realms_time(r: TestRealm):
    await r.broker()
    identity = r.identity("operator/alice")
    raw = await r.raw("operator/alice", identity=identity)
    raw.send(f.Publish(), Pen(identity).write("user/t", {"n": 1}, ahead_s=3600).raw)
    nacked, _ = await raw.next(f.Nacked)
    assert nacked.code == "clock_ahead"
    assert abs(nacked.realm_ms - time.time() * 1000) < 60_000
    assert nacked.next


@scenario
async def test_a_client_that_runs_ahead_recovers_and_loses_nothing(r: TestRealm):
    await r.broker()
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    async with reading(bob, "user/", start=Start.LIVE) as got:
        await alice.publish(user(0))
        alice._time._time._offset += 3_600_000
        alice._time._time._target = alice._time._time._offset
        emissions = [alice.emit(user(n)) for n in range(1, 200)]
        for one in emissions:
            await one.acknowledged()
        await got.until(lambda g: len(g.arrived) == 200)
        assert numbers(got) == list(range(200))
        assert abs(emissions[-1].signed.event.time_ms - time.time() * 1000) < 5_000
        assert len({e.id.incarnation for e in emissions}) == 1
        assert got.types() == []


@scenario
async def test_the_past_is_never_refused(r: TestRealm):
    await r.broker()
    identity = r.identity("operator/alice", now_s=int(time.time()) - 40 * 3600)
    raw = await r.raw("operator/alice", identity=identity)
    raw.send(f.Publish(), Pen(identity).write("user/t", {"n": 1}, ahead_s=-36 * 3600).raw)
    acked, _ = await raw.next(f.Acked)
    assert acked.ranges


# --- grants --------------------------------------------------------------------------------------------------------------


@scenario
async def test_a_reader_is_refused_what_its_certificate_does_not_let_it_read(r: TestRealm):
    await r.broker()
    node = r.identity("node/n1")
    agent = r.identity("agent/n1/web/app/0", parent=node)
    raw = await r.raw(agent.name, identity=agent)
    subscribe = f.Subscribe
    raw.send(subscribe(id=1, patterns=("service/web/",), start="facts"))
    complete, _ = await raw.next(f.CompleteFrame)
    assert complete.id == 1
    raw.send(subscribe(id=2, patterns=("service/other/",), start="facts"))
    refused, _ = await raw.next(f.Refused)
    assert refused.code == "trust.denied"
    assert "service/other/" in refused.message
    await raw.closed()


@scenario
async def test_who_is_no_operator_puts_no_blob_and_a_certificate_that_is_none_ends_nothing(r: TestRealm):
    broker = await r.broker()
    raw = await r.raw("node/n1")
    raw.send(f.Certificates(), b"no certificate")
    raw.send(f.ChunkPut(id=1, digest=bytes(32), number=0), b"x")
    (answer, _) = await raw.next(f.BlobIs)
    assert (answer.id, answer.ok, answer.message) == (1, False, "node/n1 may not put blobs into the depot")
    assert not r.tasks[broker].done()
