"""Readers of the bus on NATS: what they get while pages are read, trimmed, replaced or made anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from dsmt.bus.nats import consumer, door, sender, streams, subscription
from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.consumer import PullConsumer
from dsmt.bus.nats.link import NatsLink, Publication
from dsmt.bus.nats.streams import StreamMessage, last_of_each, last_on
from dsmt.errors import RefusedError, TransportError
from dsmt.event.codec import decode
from dsmt.ports.bus import Cursor, Draft, Interest, Start
from tests.bus.contract.engines import NatsEngine
from tests.bus.on_nats import on_nats
from tests.bus.realm import Facts, TestClock, TestEntropy, reading
from tests.bus.saying import numbers
from tests.waiting import told, until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("nats")]


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
        monkeypatch.setattr(consumer, "PAGE", 1)


@pytest.mark.parametrize("follow", [False, True])
def test_a_fact_that_is_replaced_while_the_page_is_read_is_delivered_once_and_its_newest(
    tmp_path, monkeypatch, follow: bool
) -> None:
    meanwhile = Meanwhile(monkeypatch)

    async def within(e: NatsEngine) -> None:
        alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        facts, link = Facts(alice), await e._servers.administrator()
        for topic in ("user/a", "user/b"):
            await facts.publish(topic, {"n": 1}, version=1)

        async def replace() -> None:
            for n in (2, 3):
                last = await facts.publish("user/b", {"n": n}, version=n)

            async def is_retained() -> bool:  # stream F takes it over when it likes
                stored = await last_on(link, e._subjects.facts, e._subjects.event("operator/alice", "user/b", fact=True))
                return stored is not None and decode(stored.raw).id == last.id

            await told(is_retained, "that it is retained", 20.0)

        meanwhile.then = replace
        async with reading(bob, "user/", conflate=True, follow=follow) as got:
            assert numbers(got, "user/a") == [1]
            assert numbers(got, "user/b") == [3]
            if follow:
                await facts.publish("user/b", {"n": 4}, version=4)
                await got.until(lambda g: numbers(g, "user/b")[-1:] == [4])
                assert numbers(got, "user/b") == [3, 4]
        await link.close()

    on_nats(within)(tmp_path)


class Late:
    """A server that lacks what is asked for, three times."""

    behind = 3

    async def __call__(self, link: NatsLink, stream: str, subjects: Sequence[str]) -> list[StreamMessage]:
        self.behind -= 1
        return [] if self.behind >= 0 else await last_of_each(link, stream, subjects)


def test_who_judges_itself_waits_until_what_is_retained_is_as_new_as_the_history(tmp_path, monkeypatch) -> None:
    late = Late()

    async def within(e: NatsEngine) -> None:
        alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        await alice.publish(Draft("user/f", {"n": 1}, version=1))
        monkeypatch.setattr(door, "last_of_each", late)
        with pytest.raises(RefusedError, match="operator/alice changed user/f"):
            await bob.publish(Draft("user/f", {"n": 2}, version=1))
        assert late.behind < 0

    on_nats(within)(tmp_path)


@pytest.mark.parametrize("by_time", [False, True])
@pytest.mark.parametrize("stream", ["F-", "H-"])
def test_what_was_trimmed_is_told_once_also_when_the_link_fails_meanwhile(
    tmp_path, monkeypatch, stream: str, by_time: bool
) -> None:
    real, fails = PullConsumer.begin, True

    async def begin(consumer, **place):
        nonlocal fails
        if fails and consumer._stream.startswith(stream):
            fails = False
            raise TransportError("link.lost", "the link was lost")
        return await real(consumer, **place)

    async def within(e: NatsEngine) -> None:
        alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        facts = Facts(alice)
        await facts.publish("user/before", {"n": 1}, version=1)
        began_ms, cursor = bob.now_ms() - 10_000, (await alice.publish(Draft("user/t", {"n": 0}))).cursor
        await facts.publish("user/kept", {"n": 1}, version=1)
        await e.trim()
        await alice.publish(Draft("user/t", {"n": 2}))
        monkeypatch.setattr(PullConsumer, "begin", begin)
        async with reading(bob, "user/", start=Start.HISTORY, since=began_ms if by_time else cursor) as got:
            assert numbers(got, "user/t") == [2]
            assert numbers(got, "user/before") == []
            assert (numbers(got, "user/kept"), got.types()) == (([], []) if by_time else ([1], ["trimmed"]))
            assert fails == (by_time and stream == "F-")

    on_nats(within)(tmp_path)


def test_who_reads_on_and_was_overtaken_by_the_trimming_is_told_so_and_gets_what_is_retained(tmp_path) -> None:
    async def within(e: NatsEngine) -> None:
        alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        facts, since = Facts(alice), (await alice.publish(Draft("user/t", {"n": 0}))).cursor
        async with reading(bob, "user/", start=Start.HISTORY, since=since) as got:
            await alice.publish(Draft("user/t", {"n": 1}))
            await got.until(lambda g: numbers(g, "user/t") == [1])
            e.hold(bob)
            await until(lambda: not bob.attached)
            for n in range(2, 5):
                await facts.publish("user/f", {"n": n}, version=n)
            await e.trim()  # and where it began was marked for a minute
            await streams.purge(await alice.held(), e._subjects.facts, {"filter": e._subjects.marks()})
            e.let(bob)
            await got.until(lambda g: numbers(g, "user/f"))
            assert (numbers(got, "user/f"), got.types()) == ([4], ["trimmed"])

    on_nats(within)(tmp_path)


def test_what_is_missing_is_closed_though_the_link_is_lost_as_it_is_asked_what_became_of_it(tmp_path, monkeypatch) -> None:
    real, fails = subscription.is_there, True

    async def is_there(*asked):
        nonlocal fails
        if fails:
            fails = False
            raise TransportError("link.lost", "the link was lost")
        return await real(*asked)

    async def within(e: NatsEngine) -> None:
        alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        acks = [await alice.publish(Draft("user/t", {"n": n})) for n in range(3)]
        await e.lose([acks[1].cursor.row])
        monkeypatch.setattr(subscription, "is_there", is_there)
        async with reading(bob, "user/", start=Start.HISTORY) as got:
            await got.until(lambda g: "lost" in g.types())
            assert (numbers(got), got.types()) == ([0, 2], ["gap", "lost"])
            assert not fails

    on_nats(within)(tmp_path)


def test_what_nobody_may_believe_is_told_once_also_when_what_is_retained_is_read_twice(tmp_path, monkeypatch) -> None:
    real, begun = PullConsumer.begin, 0

    async def begin(consumer, **place):
        nonlocal begun
        begun += consumer._stream.startswith("F-")
        if begun == 2:  # on what was addressed to it
            begun += 1
            raise TransportError("link.lost", "the link was lost")
        return await real(consumer, **place)

    async def within(e: NatsEngine) -> None:
        alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        await alice.publish(Draft("user/noted", {"n": 1}, version=1, to=("operator/bob",)))
        link = await e._servers.administrator()
        await link.publish(Publication(e._subjects.event("operator/alice", "config/junk", fact=True), b"junk", {}))
        await link.close()
        monkeypatch.setattr(PullConsumer, "begin", begin)
        async with reading(bob, "config/", inbox=True) as got:
            assert (numbers(got, "user/noted"), got.types()) == ([1], ["badsignature"])
            assert begun > 2

    on_nats(within)(tmp_path)


def test_who_speaks_is_believed_though_the_server_that_is_asked_lacks_its_certificates_still(tmp_path, monkeypatch) -> None:
    late = Late()

    async def within(e: NatsEngine) -> None:
        alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        async with reading(bob, "user/") as got:
            monkeypatch.setattr(streams, "last_of_each", late)
            await alice.publish(Draft("user/t", {"n": 1}))
            await got.until(lambda g: g.arrived or g.notices)
            assert (numbers(got), got.types()) == ([1], [])
            assert late.behind < 0

    on_nats(within)(tmp_path)


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
    monkeypatch.setattr(sender, "SIGNALS_S", 1)

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
            await told(gone, "that the history has let go of it", 20.0)
            e.let(bob)

            async def trimmed() -> bool:  # a beat said before bob is back may be trimmed as well
                node.heartbeat(beats, 3.0)
                return "trimmed" in got.types()

            await told(trimmed, "that some were trimmed", 20.0)
            heard = [beat["emit_rate_s"] for beat in got.of(beats)]
            assert heard[0] == 1.0, heard
            assert set(heard[1:]) == {3.0}, heard
            assert got.types() == ["gap", "trimmed"]
        for stream in (e._subjects.history, e._subjects.facts):
            assert await last_on(link, stream, fact) is not None, "a fact has no end in any stream"
        await link.close()

    on_nats(within)(tmp_path)


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


def test_no_server_is_given_a_time_and_subjects_together_for_it_may_begin_too_late(tmp_path, monkeypatch) -> None:
    asked: list[dict[str, Any]] = []
    real = NatsLink.api

    async def api(link: NatsLink, subject: str, body: Any = None) -> dict[str, Any]:
        if subject.startswith("CONSUMER.CREATE."):
            asked.append(body["config"])
        return await real(link, subject, body)

    monkeypatch.setattr(NatsLink, "api", api)

    async def within(e: NatsEngine) -> None:
        alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        for n in range(3):
            ack = await alice.publish(Draft("user/t", {"n": n}))
        for since, found in ((0, [0, 1, 2]), (ack.cursor.time_ms + 60_000, [])):
            asked.clear()
            async with reading(bob, "user/", start=Start.HISTORY, since=since, follow=False) as got:
                assert numbers(got) == found
            given = {("opt_start_time" in one, "filter_subjects" in one) for one in asked}
            assert given == {(True, False), (False, True)}

    on_nats(within)(tmp_path)


@on_nats
async def test_a_retained_fact_is_fetched_after_its_history_was_trimmed(e: NatsEngine) -> None:
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    fact = await Facts(alice).publish("user/f", {"n": 1}, version=1)
    signal = alice.emit(Draft("user/t", {"n": 2}))
    await signal.acknowledged()
    await e.trim()
    assert [one.id for one in await bob.fetch([signal.id, fact.id])] == [fact.id]


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

    async def consumers() -> int:
        streams = [await link.api(f"STREAM.INFO.{one}") for one in (e._subjects.history, e._subjects.facts)]
        return sum(one["state"]["consumer_count"] for one in streams)

    async def are_there() -> bool:
        return await consumers() >= before + 2

    async def are_left() -> bool:
        return await consumers() == before

    before = await consumers()
    async with reading(bob, "user/"), bob.subscribe(Interest(("config/",))):
        await told(are_there, "that both have consumers", 20.0)
    await told(are_left, "that none of them is left", 20.0)
    await link.close()


def test_events_are_found_though_the_server_that_is_asked_has_just_come_back_and_lacks_them_still(
    tmp_path, monkeypatch
) -> None:
    begin, following = PullConsumer.begin, PullConsumer.next
    looked: list[float] = []

    async def behind(consumer: PullConsumer, **where: int) -> int:
        await begin(consumer, **where)
        return 0

    async def nothing_yet(consumer: PullConsumer, within_s: float) -> list[StreamMessage]:
        looked.append(within_s)
        return [] if len(looked) < 3 else await following(consumer, within_s)

    async def within(e: NatsEngine) -> None:
        alice = await e.bus("operator/alice")
        emissions = [alice.emit(Draft("user/a", {"n": n})) for n in range(3)]
        said = [one.id for one in emissions if await one.acknowledged()]
        monkeypatch.setattr(PullConsumer, "begin", behind)
        monkeypatch.setattr(PullConsumer, "next", nothing_yet)
        assert [one.id for one in await alice.fetch(said)] == said

    on_nats(within)(tmp_path)
