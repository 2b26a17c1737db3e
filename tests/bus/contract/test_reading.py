"""The contract of a bus, what is read: retained facts, then live, without a hole; history; marks; slow readers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from dsmt.errors import InputError, RefusedError
from dsmt.ports.bus import Ability, Arrived, Complete, Draft, Interest, Start
from tests.bus.realm import Facts, reading
from tests.bus.saying import numbers, user

from .engines import Engine, contract, passed

# --- retained facts, then live -------------------------------------------------------------------------------------------


@contract
async def test_who_comes_later_is_given_the_facts_that_are_addressed_to_it_and_no_older_ones(e: Engine):
    alice = await e.bus("operator/alice")
    facts = Facts(alice)
    for topic in ("user/a", "user/b", "user/c"):
        await facts.emit(topic, {"n": 1}, version=1, to=("operator/bob", "node/n1")).acknowledged()
    await facts.emit("user/b", {"n": 2}, version=2, to=("operator/bob",)).acknowledged()
    await facts.emit("user/c", {"n": 2}, version=2).acknowledged()
    await alice.publish(Draft("user/signal", {"n": 3}, to=("operator/bob",)))
    bob = await e.bus("operator/bob")
    async with reading(bob, "config/", inbox=True, conflate=True) as got:
        await alice.publish(Draft("user/signal", {"n": 4}, to=("operator/bob",)))
        await got.until(lambda g: g.of("user/signal"))
        assert {one.signed.event.topic: one.signed.event.data["n"] for one in got.arrived} == {
            "user/a": 1, "user/b": 2, "user/signal": 4,
        }  # fmt: skip


@contract
async def test_retained_facts_come_first_then_what_is_live(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    facts = Facts(alice)
    for n in range(5):
        await facts.publish("user/a", {"n": n}, version=n + 1)
    await facts.publish("user/b", {"n": 10}, version=1)
    await alice.publish(Draft("user/signal", {"n": 11}))
    async with reading(bob, "user/") as got:
        assert [(d.signed.event.topic, d.signed.event.data["n"], d.live) for d in got.arrived] == [
            ("user/a", 4, False),
            ("user/b", 10, False),
        ]
        await facts.publish("user/a", {"n": 5}, version=6)
        await got.until(lambda g: len(g.arrived) == 3)
        assert got.arrived[-1].live
        assert got.completes[0].whole


@pytest.mark.parametrize("conflate", [False, True])
def test_snapshot_and_tail_meet_without_a_hole_while_many_publish(engine_kind: str, tmp_path: Path, conflate: bool):
    topics, rounds = 40, 12

    async def publish(bus) -> None:
        name, facts = bus.source.split("/")[1], Facts(bus)
        for version in range(1, rounds + 1):
            for topic in range(topics):
                facts.emit(f"user/{name}/t{topic}", {"n": version}, version=version)
            await asyncio.sleep(0)
        await facts.publish(f"user/{name}/end", {"n": 0}, version=1)

    def check(got) -> None:
        newest: dict[str, int] = {}
        for one in got.arrived:
            event = one.signed.event
            assert newest.get(event.topic, -1) <= event.data["n"], "a topic went back"
            if not conflate and event.topic in newest and not event.topic.endswith("/end"):
                assert event.data["n"] == newest[event.topic] + 1, "a version was skipped"
            newest[event.topic] = event.data["n"]
        assert len(newest) == 3 * topics + 3
        assert all(n == rounds for t, n in newest.items() if not t.endswith("/end"))
        assert got.types() == []

    async def meeting(e: Engine) -> None:
        publishers = [await e.bus(f"operator/p{i}") for i in range(3)]
        bob = await e.bus("operator/bob")
        async with AsyncExitStack() as stack:
            saying = asyncio.gather(*(publish(one) for one in publishers))
            contexts = [reading(bob, "user/", conflate=conflate) for _ in range(6)]
            readers = [await stack.enter_async_context(one) for one in contexts]
            await saying
            for got in readers:
                await got.until(lambda g: sum(d.signed.event.topic.endswith("/end") for d in g.arrived) >= 3)
                check(got)

    contract(meeting)(engine_kind, tmp_path)


@contract
async def test_a_pattern_takes_its_subtree_or_one_level(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    for topic in ("user/a", "user/a/b", "user/a/b/c", "user/x/b", "user/ab"):
        await alice.publish(Draft(topic, {}, version=1))

    async def takes(*patterns):
        async with reading(bob, *patterns) as got:
            return [d.signed.event.topic for d in got.arrived]

    assert await takes("user/a/") == ["user/a/b", "user/a/b/c"]
    assert await takes("user/a") == ["user/a"]
    assert await takes("user/+/b") == ["user/a/b", "user/x/b"]
    assert await takes("user/+/b", "user/+/b/") == ["user/a/b", "user/a/b/c", "user/x/b"]
    assert await takes("user/nothing") == []


@contract
async def test_a_subscription_that_does_not_follow_ends_at_complete(e: Engine):
    alice = await e.bus("operator/alice")
    await alice.publish(Draft("user/a", {"n": 1}, version=1))
    seen = []
    async with alice.subscribe(Interest(("user/",), follow=False)) as deliveries:
        async for batch in deliveries:
            seen.extend(type(one).__name__ for one in batch)
    assert seen == ["Arrived", "Complete"]


@contract
async def test_signals_can_be_left_out(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    async with reading(bob, "user/", signals=False) as got:
        await alice.publish(Draft("user/signal", {"n": 1}))
        await alice.publish(Draft("user/fact", {"n": 2}, version=1))
        await got.until(lambda g: g.arrived)
        assert [d.signed.event.topic for d in got.arrived] == ["user/fact"]


@contract
async def test_an_inbox_takes_what_is_addressed_to_its_reader(e: Engine):
    alice, bob, eve = [await e.bus(f"operator/{n}") for n in ("alice", "bob", "eve")]
    async with reading(bob, "config/", inbox=True) as mine, reading(eve, "config/", inbox=True) as hers:
        await alice.publish(Draft("user/a", {"n": 1}, to=("operator/bob",)))
        await alice.publish(Draft("user/a", {"n": 2}))
        await alice.publish(Draft("user/a", {"n": 3}, to=("operator/carol", "operator/bob")))
        await alice.publish(Draft("config/end", {}, version=1))
        await hers.until(lambda g: g.of("config/end"))
        await mine.until(lambda g: g.of("config/end"))
        assert numbers(mine, "user/a") == [1, 3]
        assert mine.types() == []
        assert numbers(hers, "user/a") == []


# --- history -------------------------------------------------------------------------------------------------------------


@contract
async def test_history_is_read_since_a_cursor_or_a_time_or_refused(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    if Ability.HISTORY not in bob.can.abilities:
        with pytest.raises(RefusedError, match="cannot read the history"):
            async with bob.subscribe(Interest(("user/",), start=Start.HISTORY)):
                pass
        return
    await alice.publish(user(1))
    ack = await alice.publish(user(2))
    since = ack.cursor.time_ms + 20
    await passed(bob, since + 20)
    for n in (3, 4):
        await alice.publish(user(n))
    async with reading(bob, "user/", start=Start.HISTORY, since=ack.cursor) as got:
        assert numbers(got) == [3, 4]
        assert not any(one.live for one in got.arrived)
    async with reading(bob, "user/", start=Start.HISTORY, since=since) as got:
        assert numbers(got) == [3, 4]
    async with reading(bob, "user/", start=Start.HISTORY) as got:
        assert numbers(got) == [1, 2, 3, 4]
        await alice.publish(user(5))
        await got.until(lambda g: len(g.arrived) == 5)
        assert got.arrived[-1].live


@contract
async def test_who_may_not_read_everything_reads_its_history_since_a_time(e: Engine):
    agent, alice = await e.bus("agent/n1/web/app/0"), await e.bus("operator/alice")
    facts, spec = Facts(alice), {"spec": {}, "by": "alice", "reason": ""}
    if Ability.HISTORY not in agent.can.abilities:
        return
    await facts.publish("service/web/spec", spec, version=1)
    since = (await alice.publish(Draft("service/db/spec", spec, version=1))).cursor.time_ms + 20
    await passed(agent, since + 20)
    await facts.publish("service/web/spec", spec | {"reason": "again"}, version=2)
    for time_ms, found in ((since, ["again"]), (since + 60_000, [])):
        async with reading(agent, "service/web/", start=Start.HISTORY, since=time_ms) as got:
            assert [one["reason"] for one in got.of("service/web/spec")] == found


# --- marks ---------------------------------------------------------------------------------------------------------------


@contract
async def test_bookmarks_tell_how_far_the_reader_is_or_are_refused(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    if Ability.MARKS not in bob.can.abilities:
        with pytest.raises(RefusedError, match="cannot echo marks"):
            async with bob.subscribe(Interest(("user/",), bookmarks=True)):
                pass
        return
    async with reading(bob, "user/", start=Start.LIVE, bookmarks=True) as got:
        ack = await alice.publish(user(1))
        await got.until(lambda g: any(b.cursor.row >= ack.cursor.row for b in g.bookmarks))
        at = next(i for i, d in enumerate(got.all) if isinstance(d, Arrived))
        assert all(not hasattr(d, "cursor") or d.cursor.row < got.all[at].row for d in got.all[:at])
        count = len(got.bookmarks)
        await got.until(lambda g: len(g.bookmarks) >= count + 2)
        assert got.bookmarks[-1].cursor.store == ack.cursor.store


@contract
async def test_a_token_comes_back_once_after_everything_that_was_said_before_it_was_sent(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    if Ability.MARKS not in bob.can.abilities:
        return
    facts = Facts(alice)
    async with reading(bob, "user/", conflate=True, signals=False, bookmarks=True) as got:
        for number in range(20):
            await facts.publish("user/t", {"n": number}, version=number + 1)
            got.mark(number + 1)
            await got.until(lambda g, token=number + 1: [b for b in g.bookmarks if b.token == token])
            assert got.of("user/t")[-1] == {"n": number}
        count = len(got.bookmarks)
        await got.until(lambda g: len(g.bookmarks) >= count + 2)
        assert [b.token for b in got.bookmarks if b.token is not None] == list(range(1, 21))


@contract
async def test_a_token_that_was_lost_with_the_connection_is_answered_after_it(e: Engine):
    bob = await e.bus("operator/bob")
    if Ability.MARKS not in bob.can.abilities:
        return
    async with reading(bob, "user/", conflate=True) as got:
        await e.interrupt()
        got.mark(3)
        await e.resume()
        await got.until(lambda g: [b for b in g.bookmarks if b.token == 3])


# --- slow readers, bad readers -------------------------------------------------------------------------------------------


MANY = 400
"""More than anybody keeps for a reader, in bytes."""


@pytest.mark.parametrize("conflate", [False, True])
def test_a_reader_that_does_not_read_blocks_nobody_and_ends_with_the_newest(
    engine_kind: str, tmp_path: Path, conflate: bool
):
    async def slow(e: Engine) -> None:
        alice, bob, eve = [await e.bus(f"operator/{n}") for n in ("alice", "bob", "eve")]
        async with (
            bob.subscribe(Interest(("user/",), conflate=conflate)) as stuck,
            reading(eve, "user/", conflate=True) as got,
        ):
            while not any(isinstance(one, Complete) for one in await anext(stuck)):
                pass  # before it has begun, what is overtaken is none of what it is given
            facts = Facts(alice)
            for n in range(1, MANY + 1):
                last = facts.emit("user/big", {"n": n, "pad": "x" * 24_000}, version=n)
                if n % 33 == 0:
                    await last.acknowledged()
            await got.until(lambda g: numbers(g, "user/big")[-1:] == [MANY])
            seen: list[int] = []
            async for batch in stuck:
                seen.extend(d.signed.event.data["n"] for d in batch if isinstance(d, Arrived))
                if seen and seen[-1] == MANY:
                    break
            assert seen == sorted(set(seen))
            assert seen == list(range(1, MANY + 1)) if not conflate else len(seen) < MANY

    contract(slow)(engine_kind, tmp_path)


@contract
async def test_a_pattern_that_is_none_ends_with_an_error_and_harms_no_other_reader(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    async with reading(bob, "user/", start=Start.LIVE) as got:
        with pytest.raises(InputError):
            async with bob.subscribe(Interest(("user//x",))):
                pass
        await alice.publish(user(1))
        await got.until(lambda g: g.arrived)
        assert got.reattached == []


@contract
async def test_what_a_certificate_does_not_let_its_holder_read_is_refused_and_all_else_goes_on(e: Engine):
    agent, bob = await e.bus("agent/n1/web/app/0"), await e.bus("operator/bob")
    async with reading(agent, "service/web/") as got:
        with pytest.raises(RefusedError, match="agent/n1/web/app/0 may not read service/other/") as refused:
            async with agent.subscribe(Interest(("service/other/",))):
                pass
        assert refused.value.code == "trust.denied"
        await bob.publish(Draft("service/web/spec", {"spec": {}, "by": "bob", "reason": ""}, version=1))
        await got.until(lambda g: g.arrived)
        assert got.reattached == []
