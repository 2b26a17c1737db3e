"""The contract of a bus, its connection: lost and back, and nothing is lost with it."""

from __future__ import annotations

from dsmt.ports.bus import Ability, Start
from tests.bus.realm import Facts, reading
from tests.bus.saying import numbers, user
from tests.waiting import until

from .engines import Engine, contract


@contract
async def test_each_attachment_has_a_greater_number_and_calls_who_asked_for_it(e: Engine):
    alice = await e.bus("operator/alice")
    assert (alice.source, alice.attached, alice.refusal) == ("operator/alice", True, None)
    assert alice.broker.startswith("broker/")
    called: list[int] = []
    alice.on_attached(lambda: called.append(alice.attachment))
    first = alice.attachment
    for _ in range(2):
        await e.interrupt()
        await until(lambda: not alice.attached)
        await e.resume()
        await alice.wait_attached()
    assert 0 < first < called[0] < called[1] == alice.attachment
    await e.leave(alice)
    again = await e.bus("operator/alice")
    assert again.attachment > called[-1]


@contract
async def test_a_subscription_survives_a_lost_connection_without_a_gap(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    async with reading(bob, "user/", start=Start.LIVE) as got, reading(bob, "user/", conflate=True) as folded:
        for n in range(100):
            last = alice.emit(user(n))
        await got.until(lambda g: len(g.arrived) >= 50)
        await e.interrupt()
        for n in range(100, 200):
            last = alice.emit(user(n))
        await e.resume()
        store = (await last.acknowledged()).cursor.store
        await got.until(lambda g: len(g.arrived) >= 200)
        assert numbers(got) == list(range(200))
        assert got.types() == []
        assert [(one.broker, one.store) for one in got.reattached] == [(bob.broker, store)]
        await folded.until(lambda g: numbers(g)[-1:] == [199])


@contract
async def test_everything_acknowledged_is_there_after_a_lost_connection(e: Engine):
    alice = await e.bus("operator/alice")
    facts = Facts(alice)
    for n in range(20):
        await facts.publish(f"user/t{n % 3}", {"n": n}, version=n + 1)
    await e.interrupt()
    await e.resume()
    bob = await e.bus("operator/bob")
    if Ability.HISTORY in bob.can.abilities:
        async with reading(bob, "user/", start=Start.HISTORY) as got:
            assert [d.signed.event.data["n"] for d in got.arrived] == list(range(20))
    async with reading(bob, "user/") as got:
        assert sorted(d.signed.event.data["n"] for d in got.arrived) == [17, 18, 19]


@contract
async def test_a_reader_goes_on_from_its_cursor_after_a_restart_of_its_process(e: Engine):
    alice, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
    if not {Ability.HISTORY, Ability.MARKS} <= bob.can.abilities:
        return
    async with reading(bob, "user/", start=Start.HISTORY, bookmarks=True) as got:
        await alice.publish(user(1))
        ack = await alice.publish(user(2))
        await got.until(lambda g: any(b.cursor.row >= ack.cursor.row for b in g.bookmarks))
        cursor = got.bookmarks[-1].cursor
    await e.leave(bob)
    await alice.publish(user(3))
    bob = await e.bus("operator/bob")
    async with reading(bob, "user/", start=Start.HISTORY, since=cursor) as got:
        await alice.publish(user(4))
        await got.until(lambda g: len(g.arrived) == 2)
        assert numbers(got) == [3, 4]


@contract
async def test_a_bus_that_tells_who_is_attached_says_so_as_a_fact(e: Engine):
    bob = await e.bus("operator/bob")
    if Ability.PRESENCE not in bob.can.abilities:
        return
    node = await e.bus("node/n1")
    async with reading(bob, f"{bob.broker}/session/node/n1", conflate=True) as got:
        await got.until(lambda g: [one for one in g.arrived if one.signed.event.data["state"] == "open"])
        assert got.arrived[-1].signed.event.data["attachment"] == node.attachment
        await e.leave(node)
        await got.until(lambda g: g.arrived[-1].signed.event.data["state"] == "closed")
