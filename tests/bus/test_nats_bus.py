"""The bus on NATS, beyond the contract: retries, streams that were lost or trimmed, keys that have ended."""

from __future__ import annotations

import asyncio
import hashlib
import os

import pytest

from dsmt.bus.nats import connecting, offers, streams
from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.connecting import NatsRealm
from dsmt.bus.nats.door import PublishTerms
from dsmt.bus.nats.link import NatsLink
from dsmt.bus.nats.opener import NatsOpener
from dsmt.errors import FailedError, RefusedError, TransportError
from dsmt.event.kinds.controller import ControllerState
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft, Start
from tests.bus.contract.engines import NatsEngine
from tests.bus.on_nats import on_nats
from tests.bus.realm import Facts, Pen, TestClock, TestEntropy, reading
from tests.bus.saying import numbers
from tests.bus.servers_clock import ServersClock
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("nats")]


class LosingAcks:
    """The next acknowledgements of a link do not come, though everything was stored."""

    def __init__(self, monkeypatch) -> None:
        self.left = 0
        real = NatsLink.publish

        async def publish(link, *entries):
            told = await real(link, *entries)
            if self.left and entries[0].subject.split(".")[2] not in "cmt":
                self.left -= 1
                raise TransportError("link.silent", "the acknowledgement was lost")
            return told

        monkeypatch.setattr(NatsLink, "publish", publish)


@pytest.mark.parametrize("count", [1, 2, 40])
def test_what_was_stored_and_not_acknowledged_is_stored_once(tmp_path, monkeypatch, count: int) -> None:
    lost = LosingAcks(monkeypatch)

    async def within(e: NatsEngine) -> None:
        alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        async with reading(bob, "user/", start=Start.LIVE, inbox=True) as got:
            facts = Facts(alice)
            for n in range(3):
                lost.left = 1
                said = [alice.emit(Draft("user/t", {"n": n * count + i}, to=("operator/bob",))) for i in range(count)]
                said.append(facts.emit("user/f", {"n": n}, version=n + 1))
                rows = [(await one.acknowledged()).cursor.row for one in said]
                assert rows == sorted(set(rows))
            await got.until(lambda g: len(numbers(g, "user/f")) == 3)
            assert numbers(got) == list(range(3 * count))
            assert got.types() == []
            rows = {one.signed.id: one.row for one in got.arrived}
            assert rows[said[-1].id] == (await said[-1].acknowledged()).cursor.row

    on_nats(within)(tmp_path)


def test_a_shared_fact_is_given_up_with_its_link_and_all_else_is_said_again(tmp_path, monkeypatch) -> None:
    lost = LosingAcks(monkeypatch)

    async def within(e: NatsEngine) -> None:
        alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        async with reading(bob, "user/", start=Start.LIVE) as got:
            lost.left = 10**6
            signal = alice.emit(Draft("user/t", {"n": 1}))
            fact = alice.emit(Draft("user/f", {"n": 2}, version=1))
            await got.until(lambda g: len(g.arrived) == 2)
            e.hold(alice)
            with pytest.raises(FailedError, match="may be stored or not") as told:
                await fact.acknowledged()
            assert told.value.code == "unanswered"
            lost.left = 0
            e.let(alice)
            await signal.acknowledged()
            with pytest.raises(RefusedError, match="changed user/f") as stale:
                await alice.publish(Draft("user/f", {"n": 3}, version=1))
            assert stale.value.code == "stale"
            await alice.publish(Draft("user/f", {"n": 4}, replaces=fact))
            await got.until(lambda g: numbers(g, "user/f")[-1:] == [4])
            assert numbers(got, "user/f") == [2, 4]
            assert numbers(got) == [1]

    on_nats(within)(tmp_path)


def test_who_cannot_read_what_another_one_has_said_meanwhile_does_not_replace_it(tmp_path, monkeypatch) -> None:
    real, silent = NatsOpener.learn, True

    async def learn(opener, link, source, key_id):
        nonlocal silent
        if silent and link._name == "operator/alice":
            silent = False
            raise TransportError("link.silent", "no answer came in time")
        return await real(opener, link, source, key_id)

    async def within(e: NatsEngine) -> None:
        alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        first = alice.emit(Draft("user/f", {"n": 1}, version=1))
        await first.acknowledged()
        await bob.publish(Draft("user/f", {"n": 2}, replaces=first.signed))
        monkeypatch.setattr(NatsOpener, "learn", learn)
        with pytest.raises(RefusedError, match="operator/bob changed user/f"):
            await alice.publish(Draft("user/f", {"n": 3}, replaces=first))
        assert not silent
        async with reading(bob, "user/") as got:
            assert numbers(got, "user/f") == [2]

    on_nats(within)(tmp_path)


class Silent:
    """The next answers do not come in time; the link stays."""

    def __init__(self, monkeypatch) -> None:
        self.left = 0
        request, next_of = NatsLink.request, NatsLink.next_of

        async def asked(link, *entries, **within):
            told = await request(link, *entries, **within)
            self._comes(link)
            return told

        async def came(link, queue):
            self._comes(link)
            return await next_of(link, queue)

        monkeypatch.setattr(NatsLink, "request", asked)
        monkeypatch.setattr(NatsLink, "next_of", came)

    def _comes(self, link: NatsLink) -> None:
        if self.left and link._name != "tests":
            self.left -= 1
            raise TransportError("link.silent", "no answer came in time")


def test_a_blob_is_put_and_given_though_answers_do_not_come_in_time(tmp_path, monkeypatch) -> None:
    silent, content = Silent(monkeypatch), os.urandom(300_000)
    digest = hashlib.sha256(content).digest()

    async def chunks():
        for start in range(0, len(content), 100_000):
            silent.left = 2
            yield content[start : start + 100_000]

    async def within(e: NatsEngine) -> None:
        alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        silent.left = 2
        await alice.put_blob(chunks(), digest)
        silent.left = 2
        assert b"".join([piece async for piece in bob.get_blob(digest)]) == content
        assert silent.left == 0

    on_nats(within)(tmp_path)


def test_a_blob_is_there_though_the_server_that_is_asked_lacks_it_still(tmp_path, monkeypatch) -> None:
    real, behind, digest = streams.last_of_each, 0, hashlib.sha256(b"abc").digest()

    async def late(link, stream, subjects):
        nonlocal behind
        behind -= 1
        return [] if behind >= 0 else await real(link, stream, subjects)

    async def chunks(*parts: bytes):
        for one in parts:
            yield one

    async def within(e: NatsEngine) -> None:
        nonlocal behind
        alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        await alice.put_blob(chunks(b"abc"), digest)
        behind = 2
        assert [piece async for piece in bob.get_blob(digest)] == [b"abc"]
        behind = 2
        await alice.put_blob(chunks(b"never asked for, for it is there"), digest)

    monkeypatch.setattr(streams, "last_of_each", late)
    on_nats(within)(tmp_path)


def test_what_is_re_offered_comes_though_no_answer_comes_in_time(tmp_path, monkeypatch) -> None:
    real, silent = offers.last_on, 2

    async def last_on(*asked):
        nonlocal silent
        silent -= 1
        if silent >= 0:
            raise TransportError("link.silent", "no answer came in time")
        return await real(*asked)

    async def within(e: NatsEngine) -> None:
        alice, bob = e._made.identity("operator/alice"), await e.bus("operator/bob")
        async with reading(bob, "user/") as got:
            bob.introduce([one.raw for one in alice.chain])
            bob.offer([Pen(alice).write("user/f", {"n": 1}, version=1)])
            await got.until(lambda g: numbers(g, "user/f") == [1])
            assert silent < 0

    monkeypatch.setattr(offers, "last_on", last_on)
    on_nats(within)(tmp_path)


@on_nats
async def test_an_acknowledgement_names_the_row_at_which_readers_find_the_event(e: NatsEngine) -> None:
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    async with reading(bob, "user/", start=Start.LIVE) as got:
        said = [alice.emit(Draft("user/t", {"n": n}, to=("operator/bob", "node/n1")[: n % 3])) for n in range(30)]
        told = {one.id: (await one.acknowledged()).cursor.row for one in said}
        await got.until(lambda g: len(g.arrived) == 30)
        assert {one.signed.id: one.row for one in got.arrived} == told


@on_nats
async def test_streams_that_are_made_anew_get_back_what_somebody_holds(e: NatsEngine) -> None:
    """And with it the certificates of who said it, who is gone."""
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    async with reading(bob, "user/") as got:
        await Facts(alice).publish("user/f", {"n": 1}, version=1)
        await got.until(lambda g: g.of("user/f"))
        held = got.arrived[-1].signed
        await e.leave(alice)
        await e.interrupt()
        await until(lambda: not bob.attached)
        await e.lose_everything()
        bob.on_attached(lambda: bob.offer([held]))
        await bob.wait_attached()
        await got.until(lambda g: len(g.completes) == 2)
    carol = await e.bus("operator/carol")
    async with reading(carol, "user/") as again:
        await again.until(lambda g: g.of("user/f"))
        assert again.types() == []
        assert again.arrived[0].signed.id == held.id


@on_nats
async def test_where_no_streams_are_nobody_attaches(e: NatsEngine) -> None:
    await e.end()
    alice = await e.bus("operator/alice", wait=False)
    await until(lambda: alice.refusal)
    assert alice.refusal is not None
    assert alice.refusal.code == "nats.stream"
    await e.begin()
    await asyncio.wait_for(alice.wait_attached(), 20)
    assert alice.refusal is None


@on_nats
async def test_a_server_that_is_too_old_is_refused_with_the_version_that_would_do(e: NatsEngine) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connecting, "OLDEST", (99, 0, 0))
        alice = await e.bus("operator/alice", wait=False)
        await until(lambda: alice.refusal)
        assert alice.refusal is not None
        assert "99.0.0 is the oldest" in alice.refusal.message


@on_nats
async def test_a_bus_that_promises_more_copies_than_there_are_does_not_attach(e: NatsEngine) -> None:
    made = e._made
    bus = NatsBus(
        identity=made.identity("operator/alice"),
        trust=made.trust(),
        realm=NatsRealm(e._servers.realm().servers, replicas=3),
        clock=TestClock(),
        entropy=TestEntropy(),
    )
    made.tasks[bus] = asyncio.create_task(bus.run())
    await until(lambda: bus.refusal)
    assert bus.refusal is not None
    assert "has 1 replicas, not 3" in bus.refusal.message


@on_nats
async def test_the_times_of_what_is_said_before_realm_time_is_known_are_put_right(e: NatsEngine) -> None:
    made, alice = e._made, await e.bus("operator/alice")
    slow = NatsBus(
        identity=made.identity("operator/bob"),
        trust=made.trust(),
        realm=e._realm,
        clock=TestClock(-6.0),
        entropy=TestEntropy(),
    )
    guessed = slow.now_ms()
    emission = slow.emit(Draft("user/t", {"since_ms": guessed, "taken_ms": guessed}, own_times=("since_ms",)))
    async with reading(alice, "user/") as got:
        made.tasks[slow] = asyncio.create_task(slow.run())
        await emission.acknowledged()
        await got.until(lambda g: g.of("user/t"))
        (right,) = got.of("user/t")
        assert abs(right["since_ms"] - guessed - 6000) < 1000
        assert right["taken_ms"] == guessed


def test_who_has_measured_realm_time_by_a_clock_that_is_put_back_is_believed_again_and_says_what_nobody_has(
    tmp_path, monkeypatch
) -> None:
    """Else it would be acknowledged, and believed by nobody, until the servers' clock is there again."""

    async def within(e: NatsEngine) -> None:
        clock = ServersClock(monkeypatch, 60_000, "operator/alice")
        alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        alice._said.signer.chain.incarnation -= 100_000  # it has been there for long
        async with reading(bob, "user/", start=Start.LIVE) as got:
            said = alice.emit(Draft("user/f", {"n": 1}, version=1))
            await said.acknowledged()
            clock.ahead_ms, before = 0, alice.attachment
            waiting = alice.emit(Draft("user/t", {"n": 2}))
            await until(lambda: alice.attachment > before or alice.now_ms() < bob.now_ms() + 10_000)
            await waiting.acknowledged()
            await alice.publish(Draft("user/t", {"n": 3}))
            await got.until(lambda g: {"n": 3} in g.of("user/t"))
            assert abs(alice.now_ms() - bob.now_ms()) < 5_000

    on_nats(within)(tmp_path)


def test_a_fact_that_was_stored_as_the_clock_was_put_back_and_nobody_believes_is_said_again(tmp_path, monkeypatch) -> None:
    """Who was attached is told by such facts: a controller that was, was not alive to the others, for good."""

    async def within(e: NatsEngine) -> None:
        clock = ServersClock(monkeypatch, 60_000, "controller/c1", measure_s=0.5)
        c1, bob = await e.bus("controller/c1"), await e.bus("operator/bob")
        c1._said.signer.chain.incarnation -= 100_000  # it has been there for long
        async with reading(bob, "controller/", start=Start.LIVE) as got:
            for decisions in (1, 2):
                state = ControllerState(version="1", ruleset=1, pid=None, decisions=decisions)
                await c1.publish(Draft("controller/c1/state", to_data(state)))
            await got.until(lambda g: len(g.notices) == 2)
            clock.ahead_ms = 0
            await got.until(lambda g: g.arrived)
            assert [one["decisions"] for one in got.of("controller/c1/state")] == [2]

    on_nats(within)(tmp_path)


@on_nats
async def test_who_was_revoked_is_believed_by_nobody_who_comes_later(e: NatsEngine) -> None:
    eve, bob, root = await e.bus("operator/eve"), await e.bus("operator/bob"), await e.bus("root")
    async with reading(bob, "user/") as got:
        await eve.publish(Draft("user/f", {"n": 1}, version=1))
        key_id = e._identities["operator/eve"].key.key_id
        await root.publish(Draft(f"trust/revoked/{key_id.hex()}/root", {"by": "root", "reason": "stolen"}))
        eve._sender._door.judge = lambda *_: _nothing()  # a thief asks nobody
        eve.emit(Draft("user/t", {"n": 2}))
        await got.until(lambda g: "badsignature" in g.types())
        assert got.of("user/t") == []
    carol = await e.bus("operator/carol")
    async with reading(carol, "user/") as later:
        assert later.arrived == []


async def _nothing():
    return PublishTerms()


@on_nats
async def test_an_event_with_more_copies_than_a_server_stores_at_once_is_refused_at_once(e: NatsEngine) -> None:
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    many = tuple(f"node/n{n}" for n in range(499))
    with pytest.raises(RefusedError, match="addressed to 500"):
        alice.emit(Draft("user/t", {"n": 1}, to=(*many, "operator/bob")))
    async with reading(bob, "config/", inbox=True) as got:
        await alice.publish(Draft("user/t", {"n": 2}, to=(*many[1:], "operator/bob")))
        await got.until(lambda g: g.of("user/t") == [{"n": 2}])
