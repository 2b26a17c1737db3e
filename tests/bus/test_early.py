"""What is brought back to a new broker whose clock is behind: it comes when the clock is there, and nothing is lost."""

from __future__ import annotations

import time

import pytest

from dsmt.bus.broker.wholeness import AFTER_S, EARLY_S
from dsmt.bus.client.measuring import MEASURE_S
from dsmt.bus.rules.early import Early
from dsmt.bus.wire import frames as f
from dsmt.event.hlc import BOUND_MS
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.kinds.realm import ClockWord
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft, Start
from dsmt.trust.identity import Identity
from tests.bus.realm import Pen, TestClock, TestRealm, memory_network, reading, scenario
from tests.waiting import until

WORD = "broker/b1/session/operator/eve"


class StepClock(TestClock):
    """A clock whose boot time is moved on by `on_s`."""

    on_s = 0.0

    def boottime(self) -> float:
        return super().boottime() + self.on_s


def at(signed) -> int:
    return max(signed.event.time_ms, signed.event.incarnation)


@pytest.fixture
def some(tmp_path) -> list:
    pen = Pen(TestRealm(memory_network(), tmp_path).identity("operator/alice"))
    return [pen.write(f"user/t{n}", {"n": n}, version=1, ahead_s=60.0 * (n + 1)) for n in range(3)]


def test_what_is_early_is_offered_when_the_brokers_time_is_there_and_in_that_order(some):
    early = Early()
    for signed in reversed(some):
        early.wait(signed)
    first, second, third = some
    assert early.due(at(first) - BOUND_MS - 1) == []
    assert early.ahead_s == (at(third) - at(first) + BOUND_MS + 1) / 1000
    assert early.earliest() is first
    assert early.due(at(second) - BOUND_MS) == [first, second]
    assert early.due(at(third)) == [third]
    assert (bool(early), early.ahead_s, early.earliest()) == (False, 0.0, None)


def test_what_was_taken_or_refused_for_good_is_waited_for_no_more(some):
    early = Early()
    for signed in (*some, *some):
        early.wait(signed)
    assert early
    early.answered(some[0].id)
    early.answered(some[0].id)
    assert early.earliest() is some[1]
    assert early.due(at(some[2])) == some[1:]
    early.wait(some[0])
    assert early.ahead_s == 0.001, "its time is there; that something waits is told all the same"
    early.answered(some[0].id)
    early.wait(some[2])
    assert early.due(at(some[2]) - BOUND_MS) == [some[2]]
    early.wait(some[0])
    assert early.ahead_s == 0.001, "what was taken is ahead no more"
    early.clear()
    assert not early
    early.wait(some[0])
    assert early.ahead_s == at(some[0]) / 1000, "nothing is known of the time at the next link"


def held(broker, words) -> int:
    return sum(broker._store.winner(signed.event.topic) is not None for signed in words)


async def brought(r: TestRealm, clock: TestClock):
    """A blank broker behind its realm's time, a client that has brought it what it knew, and that."""
    old_s = int(time.time()) - 3 * 86_400
    broker = await r.broker(identity=r.identity("broker/b1", now_s=old_s), born=False, clock=clock)
    alice, bob = r.identity("operator/alice", now_s=old_s), r.identity("operator/bob", now_s=old_s)
    pen = Pen(alice)
    said = [pen.write(f"user/t{n}", {"n": n}, version=1) for n in range(3)]
    client = await r.client(bob.name, identity=bob)
    client.introduce([one.raw for one in alice.chain])
    client._trust.add_all([one.raw for one in alice.chain])
    client.offer(said)
    await until(lambda: client.early_s)
    return broker, client, said


@scenario
async def test_what_a_broker_whose_clock_is_behind_refuses_comes_back_when_its_clock_is_there(r: TestRealm):
    clock = StepClock(-3600)
    broker, client, said = await brought(r, clock)
    assert held(broker, said) == 0
    assert 3590 < client.early_s < 3610
    clock.on_s = 3600.0 - BOUND_MS / 2000
    await until(lambda: held(broker, said) == len(said))
    await until(lambda: client.early_s == 0)


OPEN = to_data(
    SessionFact(attachment=1, state="open", how=None, since_ms=0, incarnation=1, pid=None, version="", address="")
)


def session_word(identity, ahead_s: float = 0.0):
    """What a broker says of a session, signed by somebody."""
    return Pen(identity, 1).write(WORD, OPEN, ahead_s=ahead_s, ttl=24 * 3_600_000)


@scenario
async def test_a_brokers_own_former_word_brings_all_of_it_back_and_is_not_stored_itself(r: TestRealm):
    clock = StepClock(-3600)
    broker, client, said = await brought(r, clock)
    word = session_word(r.identities[broker])
    client.offer([word])
    await until(lambda: held(broker, said) == len(said))
    assert abs(broker.now_ms() - word.event.time_ms) < 30_000
    assert broker._store.winner(WORD) is None
    await until(lambda: broker._recorder.time.ahead_s < -3500)
    assert not any(row.key_id == word.key_id and row.raw == word.raw for row in broker._store.rows(0, 1000))
    before_ms = broker.now_ms()
    client.offer([session_word(r.identities[broker], -600.0)])
    await client.publish(Draft("user/later", {}))
    assert broker.now_ms() >= before_ms
    await until(lambda: not client._publisher.offers)
    assert broker._store.winner(WORD) is None


@scenario
async def test_nobody_elses_word_takes_realm_time_with_it(r: TestRealm):
    broker = await r.broker(born=False)
    mallory, other = r.identity("node/n1"), r.identity("broker/b2")
    raw = await r.raw(mallory.name, identity=mallory)
    day_s = 26 * 3600.0
    as_other = Pen(other).write(WORD.replace("b1", "b2"), OPEN, ahead_s=day_s, ttl=24 * 3_600_000)
    raw.send(f.Certificates(), other.chain[0].raw)
    forged = Pen(Identity(mallory.key, r.identities[broker].chain))
    own = Pen(mallory).write("node/n1/control", {}, version=1, ahead_s=day_s)
    for one in (as_other, forged.write(WORD, OPEN, ahead_s=day_s), own):
        raw.send(f.Publish(offered=True), one.raw)
        nacked, _ = await raw.next(f.Nacked)
        assert abs(broker.now_ms() - time.time() * 1000) < 5_000, nacked


@scenario
async def test_who_is_attached_is_said_again_when_realm_time_was_set_ahead(r: TestRealm):
    """Else what was said of them before is dead at once, where the step is a day."""
    clock = StepClock(-26 * 3600)
    broker, client, _ = await brought(r, clock)
    topic = f"broker/b1/session/{client.source}"
    before_ms = broker._store.winner(topic).read().event.time_ms
    client.offer([session_word(r.identities[broker])])
    await until(lambda: broker._store.winner(topic).read().event.time_ms > before_ms + 25 * 3_600_000)


@scenario
async def test_who_is_attached_hears_of_a_step_at_once_and_what_it_says_lives_as_long_as_it_should(r: TestRealm):
    """Else it is up to a minute behind, and what it says meanwhile to live for 90 s looks dead."""
    broker, client, _ = await brought(r, StepClock(-26 * 3600))
    known_s = int(time.time()) - 27 * 3600
    names = {name: r.identity(name, now_s=known_s) for name in ("operator/other", "operator/reads")}
    others = [await r.client(name, identity=one, reads=name == "operator/reads") for name, one in names.items()]
    client.offer([session_word(r.identities[broker])])
    await until(lambda: broker.now_ms() > time.time() * 1000 - 60_000)
    await until(lambda: all(abs(one.now_ms() - broker.now_ms()) < 1000 for one in (client, *others)), MEASURE_S / 6)
    said = await others[0].emit(Draft("user/short", {}, version=1, ttl_ms=90_000)).acknowledged()
    expires_ms = broker._store.winner("user/short").read().event.expires_ms
    assert said is not None
    assert abs(expires_ms - broker.now_ms() - 90_000) < 10_000


@scenario
async def test_that_what_was_decided_is_ahead_of_the_clock_is_told(r: TestRealm):
    clock = StepClock(-3600)
    broker, _, said = await brought(r, clock)
    watcher = await r.client("operator/carol", identity=r.identity("operator/carol", now_s=int(time.time()) - 3 * 3600))
    async with reading(watcher, "broker/+/notice", "broker/+/stats", start=Start.HISTORY) as got:  # it may be told already
        await got.until(lambda g: any(3590 < data["early_s"] < 3620 for data in g.of("broker/b1/stats")))
        told = [data["message"] for data in got.of("broker/b1/notice") if data["kind"] == "clock"]
        assert any("dsmt clock accept b1" in one for one in told)
        exported = await watcher.head()
        assert exported.event.data["early_s"] > 3590
        clock.on_s = 3600.0
        await until(lambda: held(broker, said) == len(said))
        clock.on_s += EARLY_S + 1
        await got.until(lambda g: g.of("broker/b1/stats")[-1]["early_s"] == 0)


@scenario
async def test_an_operators_word_on_the_clock_brings_all_of_it_back(r: TestRealm):
    clock = TestClock(-3600)
    broker, client, said = await brought(r, clock)
    clock.offset_s = 0.0
    await until(lambda: abs(broker._recorder.time.ahead_s) > 10)
    word = ClockWord(ahead_s=broker._recorder.time.ahead_s, by="bob", reason="")
    await client.publish(Draft("config/clock/b1", to_data(word)))
    await until(lambda: held(broker, said) == len(said))


@scenario
async def test_a_broker_is_not_whole_while_what_was_decided_is_ahead_of_its_clock(r: TestRealm):
    clock = StepClock(-3600)
    broker, _, said = await brought(r, clock)
    clock.on_s = AFTER_S + 1
    assert not broker._recorder.is_whole()
    clock.on_s = 3600.0
    await until(lambda: held(broker, said) == len(said))
    clock.on_s += 20.0
    assert broker._recorder.is_whole()


@scenario
async def test_a_nodes_agents_words_from_the_future_keep_no_broker_from_being_whole(r: TestRealm):
    clock = StepClock()
    broker = await r.broker(born=False, clock=clock)
    agent = r.identity("agent/n1/web/app/0", parent=r.identity("node/n1"))
    raw = await r.raw(agent.name, identity=agent)
    raw.send(f.Publish(offered=True), Pen(agent).write("app/web/x", {"n": 1}, version=1, ahead_s=3600).raw)
    nacked, _ = await raw.next(f.Nacked)
    assert nacked.code == "clock_ahead"
    clock.on_s = AFTER_S + 1
    assert broker._recorder.is_whole()


@scenario
async def test_an_incarnation_that_is_far_ahead_is_not_taken_when_it_is_offered_again_either(r: TestRealm):
    broker = await r.broker(born=False)
    alice = r.identity("operator/alice")
    raw = await r.raw(alice.name, identity=alice)
    far = Pen(alice, int(time.time() * 1000) + 3_600_000).write("user/x", {"n": 1}, version=1)
    raw.send(f.Publish(offered=True), far.raw)
    nacked, _ = await raw.next(f.Nacked)
    assert nacked.code == "event.incarnation"
    assert abs(broker.now_ms() - time.time() * 1000) < 5_000
    assert broker._store.winner("user/x") is None
