"""The contract of a bus, what is said: acknowledged as asked, refused with a reason, compared where it is said."""

from __future__ import annotations

import time

import pytest

from dsmt.errors import InputError, RefusedError
from dsmt.event.envelope import EventId
from dsmt.ports.bus import Ability, Draft, Level, Start
from tests.bus.realm import Facts, reading
from tests.bus.saying import numbers, user
from tests.waiting import until

from .engines import Engine, contract


@contract
async def test_events_arrive_once_and_in_order(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    async with reading(bob, "user/", start=Start.LIVE) as got:
        for n in range(500):
            alice.emit(user(n))
        await got.until(lambda g: len(g.arrived) >= 500)
        assert numbers(got) == list(range(500))
        assert not got.notices
        assert all(one.live for one in got.arrived)


@contract
async def test_an_acknowledgement_is_what_was_asked_for_and_says_where_it_stands(e: Engine):
    alice = await e.bus("operator/alice")
    ack = await alice.publish(user(1), level=alice.can.level)
    assert ack.level == alice.can.level
    assert ack.copies >= (2 if ack.level is Level.SAFE else 1)
    later = await alice.publish(user(2))
    assert later.cursor.row > ack.cursor.row > 0
    assert later.cursor.store == ack.cursor.store
    assert abs(later.cursor.time_ms - time.time() * 1000) < 60_000


@contract
async def test_a_level_is_given_or_refused_when_it_is_asked_and_then_nothing_is_said(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    levels = list(Level)
    async with reading(bob, "user/", start=Start.LIVE) as got:
        given = []
        for n, level in enumerate(levels):
            if levels.index(level) > levels.index(alice.can.level):
                with pytest.raises(RefusedError, match=f"{level.value} was asked for") as refused:
                    alice.emit(user(n), level=level)
                assert refused.value.code == "bus.level"
            else:
                ack = await alice.publish(user(n), level=level)
                assert levels.index(ack.level) >= levels.index(level)
                given.append(n)
        await alice.publish(user(99))
        await got.until(lambda g: numbers(g)[-1:] == [99])
        assert numbers(got) == [*given, 99]
        assert got.types() == []


@contract
async def test_what_was_said_before_the_first_attachment_is_signed_and_sent_after_it(e: Engine):
    await e.interrupt()
    alice = await e.bus("operator/alice", wait=False)
    assert not alice.attached
    assert alice.attachment == 0
    emission = alice.emit(user(1))
    assert (emission.id, emission.signed) == (None, None)
    await e.resume()
    await alice.wait_attached()
    await emission.acknowledged()
    assert emission.id is not None
    assert emission.signed is not None
    assert emission.signed.event.data == {"n": 1}


@contract
async def test_a_cause_may_be_an_earlier_emission_of_the_same_source(e: Engine):
    alice = await e.bus("operator/alice")
    first = alice.emit(user(1))
    second = alice.emit(user(2, cause=(first, EventId("node/n1", 5, 6))))
    await second.acknowledged()
    assert second.signed is not None
    assert second.signed.event.cause == (first.id, EventId("node/n1", 5, 6))


@contract
async def test_what_is_not_valid_for_its_topic_is_refused_at_once(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    async with reading(bob, "user/", start=Start.LIVE) as got:
        for bad in (Draft("nowhere/t", {}), Draft("service/web/spec", {"frob": 1}), Draft("user/t", {"pad": "x" * 70_000})):
            with pytest.raises(InputError):
                alice.emit(bad)
        await alice.publish(user(1))
        await got.until(lambda g: g.arrived)
        assert got.types() == []


@contract
async def test_a_refused_event_says_why_and_the_next_one_declares_it(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    async with reading(bob, "user/", start=Start.LIVE) as got:
        first = alice.emit(Draft("user/s", {"n": 1}, version=1))
        with pytest.raises(RefusedError) as refused:
            await alice.publish(Draft("user/s", {"n": 2}, replaces=first, version=2**40))
        assert refused.value.code == "event.version"
        await alice.publish(Draft("user/s", {"n": 3}, replaces=first))
        await got.until(lambda g: len(g.arrived) >= 2)
        assert numbers(got, "user/s") == [1, 3]
        assert got.types() == ["declared"]
        where = {"source": "operator/alice", "incarnation": first.id.incarnation, "topic": "user/s"}
        assert got.notices[0].fields == {**where, "from": 2, "to": 2}
    if Ability.HISTORY in bob.can.abilities:
        async with reading(bob, "broker/+/notice", start=Start.HISTORY) as notices:
            assert notices.arrived == []


@contract
async def test_who_has_no_grant_is_refused_and_nobody_sees_it(e: Engine):
    node, bob = await e.bus("node/n1"), await e.bus("operator/bob")
    async with reading(bob, "config/", start=Start.LIVE) as got:
        with pytest.raises(RefusedError) as refused:
            await node.publish(Draft("config/colour", {"value": "red"}, version=1))
        assert refused.value.code == "trust.denied"
        await bob.publish(Draft("config/colour", {"value": "blue"}, version=1))
        await got.until(lambda g: g.arrived)
        assert got.of("config/colour") == [{"value": "blue"}]


@contract
async def test_of_two_who_replace_one_fact_the_first_is_stored_and_the_other_told_that_it_is_stale(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    first = alice.emit(Draft("user/f", {"n": 1}, version=1))
    await first.acknowledged()
    await bob.publish(Draft("user/f", {"n": 2}, replaces=first.signed))
    for late in (Draft("user/f", {"n": 3}, replaces=first), Draft("user/f", {"n": 4}, version=9)):
        with pytest.raises(RefusedError, match="operator/bob changed user/f at the same moment, and was first") as told:
            await alice.publish(late)
        assert told.value.code == "stale"
    with pytest.raises(RefusedError, match="user/g is not held here: there is no operator/alice#"):
        await alice.publish(Draft("user/g", {"n": 5}, replaces=first))
    async with reading(bob, "user/f") as got:
        assert numbers(got, "user/f") == [2]


@contract
async def test_who_said_a_fact_replaces_what_another_has_said_after_it(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    first = alice.emit(Draft("user/f", {"n": 1}, version=1))
    await first.acknowledged()
    second = bob.emit(Draft("user/f", {"n": 2}, replaces=first.signed))
    await second.acknowledged()
    await alice.publish(Draft("user/f", {"n": 3}, replaces=second.signed))
    async with reading(bob, "user/f") as got:
        assert numbers(got, "user/f") == [3]


@contract
async def test_what_a_revoked_key_said_is_replaced_by_who_has_believed_it(e: Engine):
    alice, bob, root = await e.bus("operator/alice"), await e.bus("operator/bob"), await e.bus("root")
    first = bob.emit(Draft("user/f", {"n": 1}, version=1))
    await first.acknowledged()
    said = alice.emit(Draft("user/f", {"n": 2}, replaces=first.signed))
    await said.acknowledged()
    alone = alice.emit(Draft("user/g", {"n": 1}, version=1))
    await alone.acknowledged()
    async with reading(bob, "trust/revoked/") as got:
        key = said.signed.key_id.hex()
        await root.publish(Draft(f"trust/revoked/{key}/root", {"by": "root", "reason": "stolen"}))
        await got.until(lambda g: g.arrived)
    if Ability.FETCH in bob.can.abilities:
        assert [one.id for one in await bob.fetch([said.id, first.id])] == [first.id]
    await bob.publish(Draft("user/f", {"n": 3}, replaces=said.signed))
    await bob.publish(Draft("user/g", {"n": 2}, replaces=alone.signed))
    carol = await e.bus("operator/carol")
    with pytest.raises(RefusedError, match="operator/bob changed user/f at the same moment, and was first"):
        await carol.publish(Draft("user/f", {"n": 4}, replaces=said.signed))
    async with reading(carol, "user/f", "user/g") as got:
        assert (numbers(got, "user/f"), numbers(got, "user/g")) == ([3], [2])


@contract
async def test_a_tombstone_hides_the_facts_below_it_for_good(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    old = []
    for name in ("web", "webx"):
        emission = alice.emit(Draft(f"service/{name}/spec", {"spec": {}, "by": "alice", "reason": ""}, version=1))
        await emission.acknowledged()
        old.append(emission.signed)
    await alice.publish(Draft("tombstone/service/web", {"by": "alice", "reason": "gone"}, version=1))

    async def shown():
        async with reading(bob, "service/") as got:
            return sorted(d.signed.event.topic for d in got.arrived)

    assert await shown() == ["service/webx/spec"]
    await e.interrupt()
    await e.resume()
    assert await shown() == ["service/webx/spec"]
    bob.offer([old[0]])
    await bob.publish(user(1))
    assert await shown() == ["service/webx/spec"]
    with pytest.raises(RefusedError) as refused:
        await alice.publish(Draft("service/web/spec", {"spec": {}, "by": "alice", "reason": "again"}, version=1))
    assert refused.value.code == "stale"
    await alice.publish(Draft("service/web/spec", {"spec": {}, "by": "alice", "reason": "again"}, epoch=2))
    assert await shown() == ["service/web/spec", "service/webx/spec"]


@contract
async def test_what_is_ended_and_begun_anew_in_one_go_is_there(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    about = {"spec": {}, "by": "alice", "reason": ""}
    await alice.publish(Draft("service/web/spec", about, version=1))
    grave = alice.emit(Draft("tombstone/service/web", {"by": "alice", "reason": "gone"}, version=1))
    begun = alice.emit(Draft("service/web/spec", about | {"reason": "again"}, epoch=2))
    await grave.acknowledged()
    await begun.acknowledged()
    async with reading(bob, "service/") as got:
        assert [data["reason"] for data in got.of("service/web/spec")] == ["again"]


@contract
async def test_what_is_offered_again_is_there_once_and_wins_only_if_it_is_the_greatest(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    async with reading(bob, "user/") as got:
        facts = Facts(alice)
        said = [await facts.publish("user/f", {"n": n}, version=n) for n in (1, 2, 3)]
        await got.until(lambda g: len(g.arrived) == 3)
        for _ in range(2):
            bob.offer([one.signed for one in said])
        await bob.publish(Draft("user/end", {}, version=1))
        await got.until(lambda g: g.of("user/end"))
        assert numbers(got, "user/f") == [1, 2, 3]
        assert got.types() == []
        assert bob.early_s == 0.0
    async with reading(bob, "user/f") as held:
        assert numbers(held, "user/f") == [3]


@contract
async def test_a_fact_is_kept_with_what_proves_it(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    async with reading(bob, "user/") as got:
        await alice.publish(Draft("user/f", {"n": 1}, version=1))
        await got.until(lambda g: g.arrived)
        proof = bob.proof(got.arrived[0].signed)
    assert len(proof) == 1
    bob.introduce(proof)
    bob.introduce([b"no certificate"])


@contract
async def test_a_heartbeat_vouches_for_everything_said_before_it(e: Engine):
    node, bob = await e.bus("node/n1"), await e.bus("operator/bob")
    async with reading(bob, "/", start=Start.LIVE) as got:
        last = [node.emit(Draft(f"user/{n}", {"n": n})) for n in range(3)][-1]
        node.heartbeat("node/n1/heartbeat", 1.0)
        await got.until(lambda g: g.of("node/n1/heartbeat"))
        beat = got.of("node/n1/heartbeat")[0]
        assert (beat["incarnation"], beat["sequence"]) == last.id[1:]
        assert {one.signed.event.subject for one in got.arrived if one.signed.event.topic == "node/n1/heartbeat"} == {
            "node/n1"
        }


@contract
async def test_no_heartbeat_is_kept_for_a_time_when_somebody_hears_it(e: Engine):
    node, bob = await e.bus("node/n1"), await e.bus("operator/bob")
    async with reading(bob, "node/", start=Start.LIVE) as got:
        await e.interrupt()
        await until(lambda: not node.attached)
        node.heartbeat("node/n1/heartbeat", 1.0)
        await e.resume()
        await node.wait_attached()
        node.heartbeat("node/n1/heartbeat", 2.0)
        await got.until(lambda g: g.of("node/n1/heartbeat"))
        assert [beat["emit_rate_s"] for beat in got.of("node/n1/heartbeat")] == [2.0]
