"""Incarnations and attachment numbers are bounded by realm time, and distinct (rule A11)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from dsmt.bus.rules.ahead import MOST_MS, check_ahead
from dsmt.bus.rules.presence import Presence
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.handshake import statement
from dsmt.errors import RefusedError, UnusableEventError
from dsmt.event.envelope import Event, EventId
from dsmt.event.kinds.numbers import GREATEST_COUNT
from dsmt.ports.bus import Draft
from dsmt.system.files import DiskFiles
from dsmt.trust.identity import Identity
from tests.bus.raw_session import RawSession
from tests.bus.realm import Pen, TestRealm, reading, scenario
from tests.controllers.signing import START_MS, signed
from tests.waiting import until

FAR = 2**62
SESSIONS = "broker/+/session/"


async def hello(r: TestRealm, identity: Identity, **more: Any) -> RawSession:
    raw = await r.raw(identity.name, identity=identity, attach=False)
    values = {"incarnation": 0, "firm": False, "attachment": 1} | more
    frame = f.Hello(
        protocol=f.PROTOCOL, realm=r.name, name=identity.name, pid=1, version="", address="", **values
    )  # fmt: skip
    raw.send(frame, *(signed.raw for signed in identity.chain))
    return raw


def attach(raw: RawSession, identity: Identity, welcome: f.Welcome) -> None:
    told = {"incarnation": welcome.incarnation, "attachment": welcome.attachment, "name": identity.name}
    raw.send(f.Attach(statement=statement(identity.key, nonce=welcome.nonce, broker=welcome.broker, **told)))


@scenario
async def test_an_incarnation_far_ahead_is_refused_at_hello_and_harms_no_later_process_of_the_name(r: TestRealm):
    await r.broker()
    identity = r.identity("node/n1")
    raw = await hello(r, identity, incarnation=FAR, firm=True)
    refused, _ = await raw.next(f.Refused)
    assert refused.code == "bus.incarnation"
    assert "node/n1 claims an incarnation that is" in refused.message
    assert refused.next
    node = await r.client("node/n1", identity=identity)
    assert node._publisher.signer.incarnation < time.time() * 1000 + 10_000


@scenario
async def test_an_incarnation_far_ahead_is_refused_in_an_event_and_harms_no_later_event_of_the_source(r: TestRealm):
    await r.broker()
    identity = r.identity("operator/eve")
    raw = await r.raw("operator/eve", identity=identity)
    raw.send(f.Publish(), Pen(identity, FAR).write("user/t", {"n": 1}).raw)
    refused, _ = await raw.next(f.Nacked)
    assert (refused.code, refused.incarnation) == ("event.incarnation", FAR)
    raw.send(f.Publish(), Pen(identity).write("user/t", {"n": 2}).raw)
    await raw.next(f.Acked)
    eve = await r.client("operator/eve", identity=identity)
    assert eve._publisher.signer.incarnation < time.time() * 1000 + 10_000


@scenario
async def test_an_attachment_number_far_ahead_is_not_granted(r: TestRealm):
    await r.broker()
    identity = r.identity("node/n1")
    welcome, _ = await (await hello(r, identity, attachment=FAR)).next(f.Welcome)
    assert welcome.attachment < time.time() * 1000 + 11_000
    node = await r.client("node/n1", identity=identity)
    assert node.attachment > welcome.attachment


@scenario
async def test_a_process_whose_disk_remembers_an_incarnation_far_ahead_begins_one_of_realm_time(r: TestRealm):
    await r.broker()
    kept = DiskFiles(str(r.directory / "kept"))
    kept.write("incarnation", str(FAR).encode())
    node = await r.client("node/n1", kept=kept, wait=False)
    emission = node.emit(Draft("node/n1/heartbeat", node._publisher.signer.heartbeat(0.0, 1.0)))
    await emission.acknowledged()
    assert emission.id is not None
    assert emission.id.incarnation < time.time() * 1000 + 10_000


@scenario
async def test_two_hellos_at_once_get_two_attachment_numbers_and_one_that_ends_leaves_the_other(r: TestRealm):
    await r.broker()
    bob, identity = await r.client("operator/bob"), r.identity("node/n1")
    async with reading(bob, SESSIONS) as got:
        first, second = await hello(r, identity), await hello(r, identity)
        one, _ = await first.next(f.Welcome)
        other, _ = await second.next(f.Welcome)
        assert one.attachment != other.attachment
        attach(first, identity, one)
        attach(second, identity, other)
        refused, _ = await first.next(f.Refused)
        assert refused.code == "trust.superseded"
        await first.closed()
        second.send(f.Keepalive())
        await bob.publish(Draft("user/t", {}))
        await until(lambda: len(got.of("broker/b1/session/node/n1")) >= 2)
        last = got.of("broker/b1/session/node/n1")[-1]
        assert last["attachment"] == max(one.attachment, other.attachment)
        assert last["state"] in ("open", "silent")  # silent on a machine so busy that 3 s passed without a keepalive


@scenario
async def test_two_hellos_at_once_that_claim_one_incarnation_get_two(r: TestRealm):
    await r.broker()
    identity, claimed = r.identity("node/n1"), int(time.time() * 1000) + 5_000
    first, second = await hello(r, identity, incarnation=claimed), await hello(r, identity, incarnation=claimed)
    one, _ = await first.next(f.Welcome)
    other, _ = await second.next(f.Welcome)
    assert sorted((one.incarnation, other.incarnation)) == [claimed, claimed + 1]


@scenario
async def test_who_attaches_late_with_the_lesser_of_two_numbers_is_refused(r: TestRealm):
    await r.broker()
    identity = r.identity("node/n1")
    first = await hello(r, identity)
    one, _ = await first.next(f.Welcome)
    second = await hello(r, identity)
    other, _ = await second.next(f.Welcome)
    attach(second, identity, other)
    second.send(f.Time(sent=1.0))
    await second.next(f.TimeIs)
    attach(first, identity, one)
    refused, _ = await first.next(f.Refused)
    assert refused.code == "trust.superseded"
    second.send(f.Time(sent=2.0))
    await second.next(f.TimeIs)


def test_numbers_granted_in_one_millisecond_differ() -> None:
    presence = Presence(0.0)
    numbers = [presence.grant("node/n1", claimed, 1_000) for claimed in (1, 1, 5_000, 1)]
    assert numbers == [1_000, 1_001, 5_000, 5_001]
    assert presence.grant("node/n2", 1, 1_000) == 1_000


def _slot(**numbers: Any) -> dict[str, Any]:
    return {"node": "n1", "spec": "x", "revision": 1, "desired": "running"} | numbers


def _verdict(**numbers: Any) -> dict[str, Any]:
    told = {"state": "dead", "road": "closed", "attachments": {}, "evidence": [], "message": "", "since_ms": 1}
    return told | numbers


YEAR_9999 = 253_402_300_799_000
NOBODY_COUNTED: list[tuple[str, dict[str, Any]]] = [
    ("service/web/slot/app/0", _slot(moves=FAR)),
    ("service/web/slot/app/0", _slot(moved_at_ms=YEAR_9999)),
    ("service/web/slot/app/0", _slot(restart=FAR)),
    ("service/web/slot/app/0", _slot(move_number=FAR)),
    ("node/n1/verdict", _verdict(attachments={"node/n1": FAR})),
    ("node/n1/verdict", _verdict(since_ms=YEAR_9999)),
]


@scenario
async def test_what_nobody_can_have_counted_yet_is_refused_whoever_brings_it(r: TestRealm):
    await r.broker()
    eve, bob = await r.client("controller/eve"), await r.client("operator/bob")
    refused = [*((eve, *one) for one in NOBODY_COUNTED)]
    refused += [(bob, "service/web/control/app/0", {name: FAR}) for name in ("restart", "move_number")]
    for client, topic, data in refused:
        with pytest.raises(RefusedError, match="nobody can have counted so far") as error:
            await client.publish(Draft(topic, data, version=1))
        assert error.value.next
    await eve.publish(Draft("service/web/slot/app/0", _slot(restart=2**20, moved_at_ms=int(time.time() * 1000)), version=1))


@pytest.mark.parametrize("name", ["moves", "moved_at_ms", "restart", "move_number"])
def test_a_number_may_be_a_minute_ahead_of_the_time_at_which_it_was_said_and_no_more(name: str) -> None:
    def said(number: int) -> Event:
        return signed("controller/c1", "service/web/slot/app/0", _slot(**{name: number}), time_ms=START_MS).event

    check_ahead(said(START_MS + MOST_MS))
    with pytest.raises(UnusableEventError, match="of a time that has not come"):
        check_ahead(said(START_MS + MOST_MS + 1))


@scenario
async def test_what_another_broker_says_of_the_attachments_of_the_others_keeps_nobody_out(r: TestRealm):
    broker, thief = await r.broker(), r.identity("broker/b2")
    broker._trust.add_all([signed.raw for signed in thief.chain])
    told = {"attachment": FAR, "state": "closed", "how": "peer", "since_ms": 1, "incarnation": 1}
    lie = Pen(thief).write("broker/b2/session/node/n1", told | {"pid": None, "version": "", "address": ""}, ttl=60_000)
    broker._ingest.brought("broker/b2", lie)
    broker._commit()
    assert broker._store.winner("broker/b2/session/node/n1") is None


@scenario
async def test_who_is_judged_by_a_number_that_is_yet_to_come_is_given_a_greater_one(r: TestRealm):
    await r.broker()
    controller, identity = await r.client("controller/c1"), r.identity("node/n1")
    judged = int(time.time() * 1000) + 50_000
    await controller.publish(Draft("node/n1/verdict", _verdict(attachments={"node/n1": judged}), version=1))
    node = await r.client("node/n1", identity=identity)
    assert node.attachment > judged


@scenario
async def test_what_a_thief_has_raised_in_steps_is_brought_to_a_blank_store(r: TestRealm):
    broker, eve, topic = await r.broker(), await r.client("controller/eve"), "service/web/slot/app/0"
    said = eve.emit(Draft(topic, _slot(), version=2**20))
    for steps in (2, 3):
        said = eve.emit(Draft(topic, _slot(moves=steps), version=steps * 2**20, replaces=said))
    await said.acknowledged()
    held = broker._store.winner(topic)
    blank = await r.broker("b2", store=":memory:")
    assert held is not None
    blank._trust.add_all([one.raw for one in broker._trust.chain(held.read().key_id, "controller/eve")])
    outcome = blank._ingest.offered("operator/bob", [held.read().raw], again=True)
    assert (len(outcome.accepted), outcome.refused) == (1, [])


@scenario
async def test_no_number_of_an_event_has_its_readers_ask_in_frames_that_are_refused(r: TestRealm):
    """One event of any key had all who read its topic sent away, again and again: each asked for those before it."""
    broker = await r.broker()
    alice, eve = await r.client("operator/alice"), r.identity("operator/eve")
    raw, pen = await r.raw(eve.name, identity=eve), Pen(eve)
    async with reading(await r.client("operator/bob"), "user/") as got:
        raw.send(f.Publish(), pen.write("user/t", {"n": 1}).raw)
        for number in (GREATEST_COUNT, 2**63 - 2):
            pen.chain.sequence = number
            raw.send(f.Publish(), pen.write("user/t", {"n": 2}).raw)
        await until(lambda: broker._ingest.dropped == 2)
        far = EventId(eve.name, 2**63 - 1, 2**63 - 1)
        said = alice.emit(Draft("user/a", {}, cause=(far,)))
        await said.acknowledged()
        await got.until(lambda g: g.of("user/a"))
        assert [one.event.id for one in await asyncio.wait_for(alice.fetch([far, said.id]), 10)] == [said.id]
        assert got.reattached == []
