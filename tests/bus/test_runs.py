"""Runs at a broker: what was signed together is stored and handed on together, and each event is judged for itself."""

from __future__ import annotations

import cbor2
import pytest

from dsmt.bus.wire import frames as f
from dsmt.event.burst import parts_of
from dsmt.event.codec import events_in, prepare, protected_header, sign_burst
from dsmt.event.envelope import SignedEvent
from dsmt.ports.bus import Draft, Start
from dsmt.trust.identity import Identity
from tests.bus.realm import Pen, TestRealm, reading, scenario
from tests.waiting import until


def together(identity: Identity, topics: list[str]) -> list[SignedEvent]:
    """Events of one source that were signed with one signature."""
    pen = Pen(identity)
    events = [pen.write(topic, {"n": n}).event for n, topic in enumerate(topics)]
    key = identity.key
    return sign_burst([prepare(one, protected_header(key.algorithm, key.key_id)) for one in events], key)


def run_of(signed: list[SignedEvent]) -> bytes:
    (run,) = parts_of(one.sealed for one in signed)
    return run


def test_a_run_is_handed_on_as_it_came_and_read_again_as_one(network_kind, tmp_path):
    @scenario
    async def handed(r: TestRealm):
        await r.broker()
        identity = r.identity("operator/eve")
        eve, ear = await r.raw("operator/eve", identity=identity), await r.raw("operator/ear")
        ear.send(f.Subscribe(id=1, patterns=("user/",), start="live"))
        await ear.next(f.CompleteFrame)
        run = run_of(together(identity, [f"user/t{n}" for n in range(20)]))
        eve.send(f.Publish(), run)
        acked, _ = await eve.next(f.Acked)
        assert acked.ranges == ((identity.name, acked.ranges[0][1], 1, 20),)
        delivered, parts = await ear.next(f.Deliver)
        assert (len(delivered.rows), parts) == (20, (run,))
        ear.send(f.Subscribe(id=2, patterns=("user/",), start="history"))
        delivered, parts = await ear.next(f.Deliver)
        assert (len(delivered.rows), parts) == (20, (run,))
        ear.send(f.Subscribe(id=3, patterns=("user/t3", "user/t4"), start="history"))
        delivered, parts = await ear.next(f.Deliver)
        assert (len(delivered.rows), sum(map(events_in, parts))) == (2, 2)

    handed(network_kind, tmp_path)


@pytest.mark.parametrize(
    ("change", "code", "answers"),
    [
        (lambda p, s, m: [p, s, [m[0].replace(b"user/t0", b"user/x0"), *m[1:]]], "trust.signature", 4),
        (lambda p, s, m: [p, s, m[:-1]], "trust.signature", 3),
        (lambda p, s, m: [p, s, [b"\xa0", *m[1:]]], "event.form", 1),
        (lambda p, s, m: [p, s, m * 100], "event.form", 1),
    ],
    ids=["another content", "cut", "no event in it", "too long"],
)
def test_a_run_that_is_none_is_refused_whole_and_named(network_kind, tmp_path, change, code, answers):
    @scenario
    async def refused(r: TestRealm):
        await r.broker()
        identity = r.identity("operator/eve")
        eve, alice = await r.raw("operator/eve", identity=identity), await r.client("operator/alice")
        async with reading(alice, "/", start=Start.LIVE) as got:
            run = run_of(together(identity, [f"user/t{n}" for n in range(4)]))
            eve.send(f.Publish(), cbor2.dumps(change(*cbor2.loads(run))))
            for _ in range(answers):
                nacked, _ = await eve.next(f.Nacked)
                assert nacked.code == code
            await alice.publish(Draft("user/alice", {}))
            await until(lambda: got.of("user/alice"))
            assert not [one for n in range(4) for one in got.of(f"user/t{n}")]

    refused(network_kind, tmp_path)


def test_what_may_not_be_said_is_refused_alone_and_the_rest_of_its_run_is_stored(network_kind, tmp_path):
    @scenario
    async def refused(r: TestRealm):
        await r.broker()
        identity = r.identity("operator/eve")
        eve, alice = await r.raw("operator/eve", identity=identity), await r.client("operator/alice")
        async with reading(alice, "/", start=Start.LIVE) as got:
            eve.send(f.Publish(), run_of(together(identity, ["user/t0", "controller/c1/state", "user/t2"])))
            nacked, _ = await eve.next(f.Nacked)
            assert (nacked.code, nacked.sequence) == ("trust.denied", 2)
            await until(lambda: got.of("user/t0") and got.of("user/t2"))
            assert not got.of("controller/c1/state")

    refused(network_kind, tmp_path)


def test_a_run_of_which_a_part_is_stored_already_is_acknowledged_whole_and_stored_once(network_kind, tmp_path):
    @scenario
    async def again(r: TestRealm):
        broker = await r.broker()
        identity = r.identity("operator/eve")
        eve = await r.raw("operator/eve", identity=identity)
        signed = together(identity, [f"user/t{n}" for n in range(6)])
        eve.send(f.Publish(), *parts_of(one.sealed for one in signed[:3]))
        await eve.next(f.Acked)
        eve.send(f.Publish(), run_of(signed), run_of(signed))
        seen = 0
        while seen < 6:
            acked, _ = await eve.next(f.Acked)
            seen = max(seen, *(last for _, _, _, last in acked.ranges))
        rows = [row for row in broker._store.rows(0, 1000) if row.topic.startswith("user/")]
        assert [row.read().event.sequence for row in rows] == list(range(1, 7))

    again(network_kind, tmp_path)
