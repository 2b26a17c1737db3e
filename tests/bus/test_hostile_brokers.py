"""Hostile brokers: one that is certified and lies harms itself only, and is found out (rules D1, D2, D3, E1, E4)."""

from __future__ import annotations

from typing import Any

import pytest

from dsmt.bus.broker.copied import SAFE_S
from dsmt.bus.broker.others import other
from dsmt.bus.wire import frames as f
from dsmt.event.kinds.numbers import GREATEST_COUNT
from dsmt.event.kinds.realm import BrokerWord
from dsmt.event.records import to_data
from dsmt.ports.bus import Level
from tests.bus.meshes import at, held, linked, mesh
from tests.bus.realm import Facts, TestRealm, scenario
from tests.waiting import timed, until


@pytest.mark.parametrize("lie_ms", [float("inf"), float("nan")])
def test_a_broker_that_tells_a_time_that_is_none_ends_no_other_process(
    lie_ms: float, network_kind: str, tmp_path: Any
) -> None:
    @scenario
    async def run(r: TestRealm) -> None:
        b1, b2 = await mesh(r, "b1", "b2")
        client = await r.client("operator/a", brokers=at(b2))
        asked = []
        handle = b2._handle

        def lie(session: Any, frame: Any, parts: tuple[bytes, ...]) -> None:
            if isinstance(frame, f.Time):
                asked.append(session.key)
                b2._send(session, f.TimeIs(sent=frame.sent, realm_ms=lie_ms))
            else:
                handle(session, frame, parts)

        for session in b2._sessions.all():
            for _ in range(3):
                b2._send(session, f.TimeIs(sent=1e14, realm_ms=lie_ms))
        await until(lambda: not client.attached and not linked(b1))
        b2._handle = lie
        await until(lambda: len(set(asked)) == 2)
        await until(lambda: len(asked) >= 4)
        assert not r.tasks[b1].done()
        assert not r.tasks[client].done()

    run(network_kind, tmp_path)


@scenario
async def test_a_broker_that_gives_nothing_keeps_a_new_one_from_no_other(r: TestRealm) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(other, "STILL_S", 0.5)
        b1, b2 = await mesh(r, "b1", "b2")
        await Facts(await r.client("operator/a", brokers=at(b1))).publish("config/x", {"n": 1})
        await until(lambda: held(b1) == held(b2))
        b2._fan_out.pump = lambda: False
        b3 = await r.broker("b3", born=False, others=at(b2) + at(b1))
        await until(b3._recorder.is_whole, 10)
        assert held(b3) == held(b1)


@scenario
async def test_what_only_one_that_is_no_member_or_that_was_sent_nothing_says_to_hold_is_not_safe(r: TestRealm) -> None:
    b1 = await r.broker("b1")
    facts = Facts(await r.client("operator/a", brokers=at(b1)))
    stranger, member = r.identity("broker/b8"), r.identity("broker/b9")
    word = BrokerWord(address="127.0.0.1:9", public=member.key.public, by="alice")
    await facts.publish("config/broker/b9", to_data(word))
    raws = [await r.raw(one.name, identity=one, reads=True) for one in (stranger, member)]
    for n, raw in enumerate(raws, 1):
        raw.send(f.Subscribe(id=1, patterns=("/",), start="live", bookmarks=True, copies=()))
        await until(lambda n=n: len(b1._fan_out.copying) == n)
        raw.send(f.Stored(id=1, row=2**60))
        raw.send(f.Stored(id=7, row=2**60))
        raw.send(f.Time(sent=1.0))
        await raw.next(f.TimeIs)
        assert (await facts.emit("config/x", {"n": n}).acknowledged()).level is Level.STORED


@scenario
async def test_a_place_in_the_future_is_of_now(r: TestRealm) -> None:
    """A broker lies about how far it was read, and comes back, honest: what it takes in is with the others."""
    b1, b2 = await mesh(r, "b1", "b2")
    await until(lambda: linked(b1) == 1)

    def lie(subscription: Any, _row: int, token: int | None = None) -> bool:
        store = b2._store.identity
        told = f.BookmarkFrame(id=subscription.id, store=store, row=2**60, time_ms=2**47, whole=True, token=token)
        return bool(b2._send(subscription.owner, told))

    b2._fan_out._mark_at = lie
    others = b1._others.readings.others
    await until(lambda: all(one.place is not None and one.place.row == 2**60 for one in others.values()))
    again = await r.renewed(await r.restarted(b2, others=at(b1) + at(b2), born=False))
    await Facts(await r.client("operator/b", brokers=at(again))).publish("config/y", {"n": 1})
    await until(lambda: held(b1) == held(again))


@scenario
async def test_who_lets_others_wait_is_waited_for_once_until_it_has_caught_up(r: TestRealm) -> None:
    """Its disk is full, say: each word of the realm would take a second."""
    b1, b2 = await mesh(r, "b1", "b2")
    facts = Facts(await r.client("operator/a", brokers=at(b1)))
    await until(lambda: len(b1._fan_out.copying) == 1)
    real = b2._ingest.brought
    b2._others._recorder.ingest.brought = lambda *_: 100_000
    assert (await facts.emit("config/x", {"n": 0}).acknowledged()).level is Level.STORED
    async with timed() as took_s:
        for n in range(1, 8):
            assert (await facts.emit("config/x", {"n": n}).acknowledged()).level is Level.STORED
        assert took_s() < 2 * SAFE_S
    b2._others._recorder.ingest.brought = real
    await until(lambda: b1._sessions.all() and b1._copied._hopes())
    await until(lambda: held(b1) == held(b2))
    assert (await facts.emit("config/x", {"n": 9}).acknowledged()).level is Level.SAFE


@scenario
async def test_the_greatest_number_of_an_attachment_keeps_who_was_given_it_from_no_other_broker(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    client = await r.client("operator/a", brokers=at(b1) + at(b2))
    await until(lambda: client.attached)
    client.attachment = GREATEST_COUNT  # as the other one has said
    here = b1 if client.broker == "broker/b1" else b2
    there = b2 if here is b1 else b1
    await r.stop(here)
    await until(lambda: client.attached and client.broker == there._identity.name, 20)
    assert 0 < client.attachment < GREATEST_COUNT
