"""The echo: a token that a reader sent comes back in the order of the stream (rule A4)."""

from __future__ import annotations

from dsmt.bus.wire import frames as f
from dsmt.ports.bus import Draft
from tests.bus.realm import TestRealm, reading, scenario


@scenario
async def test_a_token_comes_back_after_everything_that_was_stored_before_it_was_sent(r: TestRealm):
    await r.broker()
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    async with reading(bob, "user/", conflate=True, signals=False) as got:
        before = None
        for number in range(20):
            emission = alice.emit(Draft("user/t", {"n": number}, version=number + 1, replaces=before))
            await emission.acknowledged()
            before = emission.signed
            got.mark(number + 1)
            await got.until(lambda g, token=number + 1: [b for b in g.bookmarks if b.token == token])
            assert got.of("user/t")[-1] == {"n": number}


@scenario
async def test_each_token_comes_back_once_and_other_bookmarks_carry_none(r: TestRealm):
    await r.broker()
    bob = await r.client("operator/bob")
    async with reading(bob, "user/", bookmarks=True) as got:
        got.mark(5)
        await got.until(lambda g: len(g.bookmarks) >= 4)
        assert [b.token for b in got.bookmarks if b.token is not None] == [5]


@scenario
async def test_a_token_that_was_lost_with_its_broker_is_answered_by_the_next(r: TestRealm):
    broker = await r.broker()
    bob = await r.client("operator/bob")
    async with reading(bob, "user/", conflate=True) as got:
        await r.stop(broker)
        got.mark(3)
        broker._store.close()
        await r.broker(identity=r.identities[broker], address=broker.address)
        await got.until(lambda g: [b for b in g.bookmarks if b.token == 3])


@scenario
async def test_a_token_for_a_subscription_that_has_ended_harms_nobody(r: TestRealm):
    await r.broker()
    raw = await r.raw("operator/eve")
    raw.send(f.Mark(id=77, token=1))
    raw.send(f.Time(sent=1.0))
    told, _ = await raw.next(f.TimeIs)
    assert told.sent == 1.0
