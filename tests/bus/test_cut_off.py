"""A broker with a new disk: what it gets of one that was cut off, and of what has died meanwhile (rules E1, A1)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dsmt.bus.broker import places
from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.copied import Copied
from dsmt.bus.broker.others import copying, holders, readings
from dsmt.bus.broker.others import others as knowing
from dsmt.bus.broker.wholeness import AFTER_S, STOOD_S
from dsmt.bus.rules.attach_backoff import AttachBackoff
from dsmt.bus.wire import frames as f
from dsmt.errors import RefusedError
from dsmt.ports.bus import Draft
from dsmt.ports.realm import BrokerAddress
from tests.bus.meshes import at, held, linked, mesh, misses
from tests.bus.realm import Facts, TestRealm, scenario
from tests.bus.test_leaf import cut, place_ms
from tests.waiting import until


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    """What lasts for a minute lasts for a fifth of a second."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (copying, "OVERLAP_MS"),
            (places, "OVERLAP_MS"),
            (readings, "MOST_MS"),
            (holders, "LASTING_MS"),
        ):
            patch.setattr(module, name, 200)
        yield


@scenario
async def test_who_has_a_new_disk_gets_what_a_broker_took_in_while_it_was_cut_off(r: TestRealm) -> None:
    """It has read another one to the end: that one lacks what the third took in, though it was linked to it before."""
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    facts = Facts(await r.client("operator/a", brokers=at(b3)))
    await facts.publish("config/x", {"n": 0})
    await until(lambda: held(b1) == held(b2) == held(b3))
    others, identity, address = at(b1) + at(b2) + at(b3), r.identities[b1], b1.address
    async with cut(r, b3, [b2]):
        async with cut(r, b3, [b1]):
            for n in range(1, 10):
                await facts.publish("config/x", {"n": n})
            said = held(b3)
            await r.stop(b1)
            again = await r.broker("b1", identity=identity, address=address, store=":memory:", born=False, others=others)
            await until(again._recorder.is_whole)
            late_ms = b2.now_ms() + 500
            await until(lambda: place_ms(again, b2) > late_ms)
        await until(lambda: linked(again) == 2)
        await until(lambda: held(again) >= said)


async def gone_for_long(broker: Broker) -> None:
    """Wait until a broker has been cut off for longer than it may be and know all."""
    since_s = broker._recorder.wholeness._looked
    await until(lambda: broker._recorder.wholeness._looked > since_s + STOOD_S + 1)


@scenario
async def test_a_broker_that_was_cut_off_is_not_whole_before_it_has_read_what_it_missed(r: TestRealm) -> None:
    """Its controllers took the nodes of others for dead, and moved what runs there to the first that was back."""
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    facts = Facts(await r.client("operator/a", brokers=at(b2)))
    await facts.publish("config/x", {"n": 0})
    await until(lambda: held(b1) == held(b2) and b1.whole and b2.whole)
    wholeness = b1._recorder.wholeness
    async with cut(r, b1, [b2, b3]):
        await facts.publish("config/x", {"n": 1})
        await gone_for_long(b1)
        assert b1.whole, "it goes on alone"
        takes = misses(b1)
        assert b2.whole, "who is linked to one has missed nothing"
    await until(lambda: linked(b1) or b1._others.attached.copies)
    assert not b1.whole, "who asks before it has looked is not told so either"
    at_s = wholeness._looked
    await until(lambda: linked(b1) == 2 and wholeness._looked > at_s)
    assert (b1.whole, held(b1) == held(b2)) == (False, False)
    takes()
    await until(lambda: b1.whole)
    assert held(b1) == held(b2)


@scenario
async def test_two_brokers_that_were_cut_off_from_each_other_are_whole_when_each_has_read_the_other(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    clients = [Facts(await r.client(f"operator/{n}", brokers=at(one))) for n, one in enumerate((b1, b2))]
    await until(lambda: b1.whole and b2.whole)
    async with cut(r, b1, [b2]):
        await gone_for_long(b1)
        for n, facts in enumerate(clients):
            await facts.publish(f"config/{n}", {"n": n})
    await until(lambda: b1._others.attached.is_linked and b2._others.attached.is_linked)
    await until(lambda: b1.whole and b2.whole, AFTER_S)
    assert held(b1) == held(b2)


@scenario
async def test_who_has_a_new_disk_reads_only_one_of_two_that_were_linked_to_their_ends(r: TestRealm) -> None:
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    facts = Facts(await r.client("operator/a", brokers=at(b3)))
    for n in range(50):
        await facts.publish("config/x", {"n": n})
    await until(lambda: held(b1) == held(b2) == held(b3))
    late_ms = b2.now_ms() + 500
    await until(lambda: place_ms(b1, b2) > late_ms and place_ms(b2, b3) > late_ms)
    others, identity, address = at(b1) + at(b2) + at(b3), r.identities[b1], b1.address
    await r.stop(b1)
    again = await r.broker("b1", identity=identity, address=address, store=":memory:", born=False, others=others)
    asked: list[int | None] = []
    real = again._others.holders.handed_ms

    def handed_ms(other: BrokerAddress) -> int | None:
        asked.append(real(other))
        return asked[-1]

    again._others.holders.handed_ms = handed_ms  # type: ignore[method-assign]
    await until(lambda: linked(again) == 2 and held(again) == held(b3))
    await until(lambda: any(one is not None and one >= late_ms for one in asked))


@scenario
async def test_what_one_takes_in_that_waits_for_its_turn_to_be_read_comes_by_another(r: TestRealm) -> None:
    """And if it never has its turn, for it dies before: nobody was asked to leave out what it brings."""
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    await until(lambda: place_ms(b2, b3) and place_ms(b3, b2))
    others, identity, address = at(b1) + at(b2) + at(b3), r.identities[b1], b1.address
    await r.stop(b1)
    real = copying.Copying._may_begin
    with pytest.MonkeyPatch.context() as patch:
        waits = lambda self, other: other.address.address != b3.address and real(self, other)  # noqa: E731
        patch.setattr(copying.Copying, "_may_begin", waits)
        again = await r.broker("b1", identity=identity, address=address, store=":memory:", born=False, others=others)
        await until(lambda: again._recorder.is_whole() and linked(again) == 2)
        late_ms = b2.now_ms() + 500
        await until(lambda: place_ms(again, b2) > late_ms)
        said = await (await r.client("operator/a", brokers=at(b3))).publish(Draft("config/x", {"n": 1}, version=1))
        await until(lambda: held(b2) == held(b3) != set())
        assert said.copies > 1
        await r.stop(b3)
        await until(lambda: held(again) == held(b2))


@scenario
async def test_a_fact_that_was_replaced_by_one_that_died_meanwhile_does_not_come_back_on_a_new_disk(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    facts = Facts(await r.client("operator/a", brokers=at(b2)))
    await facts.publish("config/x", {"n": 0})
    last = await facts.publish("config/x", {"n": 1}, ttl_ms=300)
    await until(lambda: held(b1) == held(b2) and b2.now_ms() > last.signed.event.time_ms + 300)
    others, identity, address = at(b1) + at(b2), r.identities[b1], b1.address
    await r.stop(b1)
    again = await r.broker("b1", identity=identity, address=address, store=":memory:", born=False, others=others)
    await until(lambda: held(again) == held(b2))
    winner = again._store.winner("config/x")
    assert winner is None or winner.read().event.data == {"n": 1}
    again._ingest.expire()
    b2._ingest.expire()
    assert again._store.winner("config/x") == b2._store.winner("config/x")


@scenario
async def test_a_broker_sends_nobody_away_before_who_published_here_has_its_answer(r: TestRealm) -> None:
    """Else a command that was done would be told that nobody knows whether it was."""
    broker = await r.broker()
    left, waits, looks = RefusedError("broker.left", "it is a broker no more"), [True], list[int]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Copied, "waits", property(lambda _: waits[0]))
        patch.setattr(knowing.Others, "refusal", None)
        await r.raw("operator/a")
        await until(lambda: "operator/a" in broker._sessions.by_name)
        session, look = broker._sessions.by_name["operator/a"], broker._requests.tick
        patch.setattr(knowing.Others, "refusal", left)
        broker._requests.tick = lambda: (looks.append(1), look())[1]
        await until(lambda: len(looks) > 2)
        assert not session.refused
        waits[0] = False
        await until(lambda: session.refused)


@scenario
async def test_who_is_away_waits_longer_each_time_however_long_it_had_been_attached(r: TestRealm) -> None:
    begun, failed = list[int](), list[float]()
    attached, fails = AttachBackoff.attached, AttachBackoff.failed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AttachBackoff, "attached", lambda waits: (begun.append(1), attached(waits))[1])
        patch.setattr(
            AttachBackoff, "failed", lambda waits, error, **more: (failed.append(1), fails(waits, error, **more))[1]
        )
        broker = await r.broker()
        await r.client("operator/a")
        await r.stop(broker)
        await until(lambda: len(failed) > 3)
        assert len(begun) == 1


@scenario
async def test_who_is_sent_away_is_given_nothing_more(r: TestRealm) -> None:
    broker = await r.broker()
    raw, facts = await r.raw("operator/eve"), Facts(await r.client("operator/a"))
    raw.send(f.Subscribe(id=1, patterns=("config/",), start="facts"))
    await raw.next(f.CompleteFrame)
    broker._refuse(broker._sessions.by_name["operator/eve"], RefusedError("trust.revoked", "operator/eve was revoked"))
    await facts.publish("config/x", {"n": 1})
    await raw.closed()
    assert [frame for frame, _ in raw.frames if isinstance(frame, f.Deliver)] == []
