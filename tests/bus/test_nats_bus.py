"""The bus on NATS, beyond the contract: retries, streams that were lost or trimmed, keys that have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dsmt.bus.adapters import nats_consumer, nats_door, nats_link, nats_sender
from dsmt.bus.adapters.nats_bus import NatsBus
from dsmt.bus.adapters.nats_consumer import PullConsumer
from dsmt.bus.adapters.nats_door import Verdict
from dsmt.bus.adapters.nats_link import NatsLink, NatsRealm
from dsmt.bus.adapters.nats_streams import last_on
from dsmt.errors import FailedError, RefusedError, TransportError
from dsmt.ports.bus import Cursor, Draft, Interest, Start
from tests.bus.contract.engines import NatsEngine, engine
from tests.bus.realm import Facts, TestClock, TestEntropy, reading, until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("nats")]


def on_nats(test: Callable[[NatsEngine], Awaitable[None]]):
    def run(tmp_path) -> None:
        async def within() -> None:
            async with asyncio.timeout(45), engine("nats", tmp_path) as e:
                await test(e)

        asyncio.run(within())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def numbers(got, topic="user/t"):
    return [data["n"] for data in got.of(topic)]


async def true_at_last(asked: Callable[[], Awaitable[bool]]) -> None:
    while not await asked():  # noqa: ASYNC110  a server is asked
        await asyncio.sleep(0.02)


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


class Meanwhile:
    """Once a reader has the first message of the page of retained facts, something else happens; pages are short."""

    def __init__(self, monkeypatch) -> None:
        self.then: Callable[[], Awaitable[None]] | None = None
        real = PullConsumer.next

        async def following(consumer, within_s):
            found = await real(consumer, within_s)
            if found and self.then is not None and consumer._stream.startswith("F-"):
                then, self.then = self.then, None
                await then()
            return found

        monkeypatch.setattr(PullConsumer, "next", following)
        monkeypatch.setattr(nats_consumer, "PAGE", 1)


@pytest.mark.parametrize("follow", [False, True])
def test_a_fact_that_is_replaced_while_the_page_is_read_is_delivered_once_and_its_newest(
    tmp_path, monkeypatch, follow: bool
) -> None:
    meanwhile = Meanwhile(monkeypatch)

    async def within(e: NatsEngine) -> None:
        alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        facts = Facts(alice)
        for topic in ("user/a", "user/b"):
            await facts.publish(topic, {"n": 1}, version=1)

        async def replace() -> None:
            for n in (2, 3):
                await facts.publish("user/b", {"n": n}, version=n)

        meanwhile.then = replace
        async with reading(bob, "user/", conflate=True, follow=follow) as got:
            assert numbers(got, "user/a") == [1]
            assert numbers(got, "user/b") == [3]
            if follow:
                await facts.publish("user/b", {"n": 4}, version=4)
                await got.until(lambda g: numbers(g, "user/b")[-1:] == [4])
                assert numbers(got, "user/b") == [3, 4]

    on_nats(within)(tmp_path)


def test_who_judges_itself_waits_until_what_is_retained_is_as_new_as_the_history(tmp_path, monkeypatch) -> None:
    real, behind = nats_door.last_of_each, 3

    async def late(link, stream, subjects):
        nonlocal behind
        behind -= 1
        return [] if behind >= 0 else await real(link, stream, subjects)

    async def within(e: NatsEngine) -> None:
        alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        await alice.publish(Draft("user/f", {"n": 1}, version=1))
        monkeypatch.setattr(nats_door, "last_of_each", late)
        with pytest.raises(RefusedError, match="operator/alice changed user/f"):
            await bob.publish(Draft("user/f", {"n": 2}, version=1))
        assert behind < 0

    on_nats(within)(tmp_path)


@on_nats
async def test_an_acknowledgement_names_the_row_at_which_readers_find_the_event(e: NatsEngine) -> None:
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    async with reading(bob, "user/", start=Start.LIVE) as got:
        said = [alice.emit(Draft("user/t", {"n": n}, to=("operator/bob", "node/n1")[: n % 3])) for n in range(30)]
        told = {one.id: (await one.acknowledged()).cursor.row for one in said}
        await got.until(lambda g: len(g.arrived) == 30)
        assert {one.signed.id: one.row for one in got.arrived} == told


@pytest.mark.parametrize("conflate", [False, True])
def test_a_reader_that_was_overtaken_by_the_trimming_ends_with_what_is_retained(tmp_path, conflate: bool) -> None:
    async def within(e: NatsEngine) -> None:
        alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        facts = Facts(alice)
        await facts.publish("user/f", {"n": 1}, version=1)
        async with reading(bob, "user/", conflate=conflate) as got:
            e.hold(bob)
            await until(lambda: not bob.attached)
            for n in range(2, 10):
                await facts.publish("user/f", {"n": n}, version=n)
            await e.trim()
            await alice.publish(Draft("user/t", {"n": 0}))
            e.let(bob)
            await got.until(lambda g: numbers(g, "user/f")[-1:] == [9])
            assert numbers(got, "user/f") == [1, 9]
            await facts.publish("user/f", {"n": 10}, version=10)
            await got.until(lambda g: numbers(g, "user/f")[-1:] == [10])
            if not conflate:
                await got.until(lambda g: g.types() == ["gap", "trimmed"])
            assert len(got.completes) == 1

    on_nats(within)(tmp_path)


def test_signals_go_before_the_rest_and_a_reader_is_told_that_they_were_trimmed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(nats_sender, "SIGNALS_S", 1)

    async def within(e: NatsEngine) -> None:
        node, bob = await e.bus("node/n1"), await e.bus("operator/bob")
        link, beats = await e._servers.administrator(), "node/n1/heartbeat"
        subject = e._subjects.event("node/n1", beats, fact=False)
        fact = e._subjects.event("operator/bob", "user/f", fact=True)
        await Facts(bob).publish("user/f", {"n": 1}, version=1)

        async def gone() -> bool:
            return await last_on(link, e._subjects.history, subject) is None

        async with reading(bob, "node/") as got:
            node.heartbeat(beats, 1.0)
            await got.until(lambda g: g.of(beats))
            e.hold(bob)
            await until(lambda: not bob.attached)
            for _ in range(3):
                node.heartbeat(beats, 2.0)
            await asyncio.wait_for(true_at_last(gone), 20)
            e.let(bob)

            async def told() -> bool:  # a beat said before bob is back may be trimmed as well
                node.heartbeat(beats, 3.0)
                return "trimmed" in got.types()

            await asyncio.wait_for(true_at_last(told), 20)
            heard = [beat["emit_rate_s"] for beat in got.of(beats)]
            assert heard[0] == 1.0, heard
            assert set(heard[1:]) == {3.0}, heard
            assert got.types() == ["gap", "trimmed"]
        for stream in (e._subjects.history, e._subjects.facts):
            assert await last_on(link, stream, fact) is not None, "a fact has no end in any stream"
        await link.close()

    on_nats(within)(tmp_path)


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
async def test_a_cursor_of_other_streams_is_read_from_a_minute_before_it(e: NatsEngine) -> None:
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    for n in range(3):
        ack = await alice.publish(Draft("user/t", {"n": n}))
    early, late = ack.cursor.time_ms, ack.cursor.time_ms + 3600_000
    begun = Cursor(ack.cursor.store, 0, early + 3600_000)
    for since, found in ((begun, [0, 1, 2]), (Cursor("H-x.1", 99, early), [0, 1, 2]), (Cursor("H-x.1", 99, late), [])):
        async with reading(bob, "user/", start=Start.HISTORY, since=since) as got:
            assert numbers(got) == found


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
        patch.setattr(nats_link, "OLDEST", (99, 0, 0))
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
    return Verdict()


@on_nats
async def test_a_retained_fact_is_fetched_after_its_history_was_trimmed(e: NatsEngine) -> None:
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    fact = await Facts(alice).publish("user/f", {"n": 1}, version=1)
    signal = alice.emit(Draft("user/t", {"n": 2}))
    await signal.acknowledged()
    await e.trim()
    assert [one.id for one in await bob.fetch([signal.id, fact.id])] == [fact.id]


@on_nats
async def test_an_event_with_more_copies_than_a_server_stores_at_once_is_refused_at_once(e: NatsEngine) -> None:
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    many = tuple(f"node/n{n}" for n in range(499))
    with pytest.raises(RefusedError, match="addressed to 500"):
        alice.emit(Draft("user/t", {"n": 1}, to=(*many, "operator/bob")))
    async with reading(bob, "config/", inbox=True) as got:
        await alice.publish(Draft("user/t", {"n": 2}, to=(*many[1:], "operator/bob")))
        await got.until(lambda g: g.of("user/t") == [{"n": 2}])


@on_nats
async def test_who_only_reads_says_nothing(e: NatsEngine) -> None:
    made = e._made
    alice = await e.bus("operator/alice")
    reader = NatsBus(
        identity=made.identity("operator/bob"),
        trust=made.trust(),
        realm=e._realm,
        clock=TestClock(),
        entropy=TestEntropy(),
        reads=True,
    )
    made.tasks[reader] = asyncio.create_task(reader.run())
    await reader.wait_attached()
    with pytest.raises(RefusedError, match="only reads"):
        reader.emit(Draft("user/t", {"n": 1}))
    async with reading(reader, "user/") as got:
        await alice.publish(Draft("user/t", {"n": 2}))
        await got.until(lambda g: g.of("user/t") == [{"n": 2}])


@on_nats
async def test_a_subscription_that_is_left_leaves_nothing_at_the_server(e: NatsEngine) -> None:
    bob = await e.bus("operator/bob")
    link = await e._servers.administrator()

    async def consumers(wanted: Callable[[int], bool]) -> int:
        """How many there are, once there are as many as wanted."""
        while True:
            told = [await link.api(f"STREAM.INFO.{one}") for one in (e._subjects.history, e._subjects.facts)]
            found = sum(one["state"]["consumer_count"] for one in told)
            if wanted(found):
                return found
            await asyncio.sleep(0.01)

    before = await consumers(lambda _: True)
    async with reading(bob, "user/"), bob.subscribe(Interest(("config/",))):
        await consumers(lambda n: n >= before + 2)
    await consumers(lambda n: n == before)
    await link.close()
