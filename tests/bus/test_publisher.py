"""What a source says around a lost link: given up, declared, introduced anew (rules A3, B3, R5)."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from dsmt.bus.client import publisher as publishing
from dsmt.bus.client.emission import ClientEmission
from dsmt.bus.client.publisher import Publisher
from dsmt.bus.nats import sender as nats_sender
from dsmt.bus.nats.door import PublishTerms
from dsmt.bus.nats.link import ApiError, Publication
from dsmt.bus.nats.sender import Due, NatsSender
from dsmt.bus.nats.streams import NOT_LAST_CODES, id_of
from dsmt.bus.rules.early import PROBE_S
from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import pack, unpack
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import FailedError, InputError, RefusedError, TransportError
from dsmt.event.codec import decode_part
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.hlc import BOUND_MS
from dsmt.ports.network import Message
from tests.bus.realm import Pen, TestRealm, scenario

ACKED: dict[str, Any] = {"level": "stored", "copies": 1, "synced": False, "store": "s", "row": 9, "time_ms": 9}


class Uplink:
    """A link that takes everything and keeps it."""

    clear = True

    def __init__(self) -> None:
        self.posted: list[tuple[f.Frame, tuple[bytes, ...]]] = []

    def post(self, frame: f.Frame, *parts: bytes) -> None:
        message: Message = pack(frame, *parts)
        self.posted.append(unpack(message))

    def certificates(self) -> list[bytes]:
        return [part for frame, parts in self.posted if isinstance(frame, f.Certificates) for part in parts]

    def events(self) -> list[SignedEvent]:
        published = [part for frame, parts in self.posted if isinstance(frame, f.Publish) for part in parts]
        return [one for part in published for one in decode_part(part).events]


def attached(publisher: Publisher) -> Uplink:
    link = Uplink()
    publisher.attached(link)  # type: ignore[arg-type]
    publisher.flush()
    return link


def publisher(r: TestRealm, name: str, *others: str) -> Publisher:
    identity, trust = r.identity(name), r.trust()
    for one in (identity, *map(r.identity, others)):
        trust.add_all([signed.raw for signed in one.chain])
    now_ms = int(time.time() * 1000)
    made = Publisher(identity, trust, "test", now_ms=lambda: now_ms, began=lambda _: None, previous=None)
    made.begin(now_ms)
    return made


async def said(made: Publisher, topic: str, **more: int) -> ClientEmission:
    emission = ClientEmission(made.signer.pending(topic, {}, **more))
    made.say(emission)
    await asyncio.sleep(0)
    return emission


@scenario
async def test_what_is_too_large_to_be_said_declares_nothing_and_the_next_word_does(r: TestRealm):
    made = publisher(r, "operator/alice")
    attached(made)
    await said(made, "user/t")
    made.refused((await said(made, "user/t")).id, RefusedError("quota", "no"))
    with pytest.raises(InputError):
        made.say(ClientEmission(made.signer.pending("user/t", {"pad": "x" * 70_000})))
    made.refused(three := (await said(made, "user/t")).signed.id, RefusedError("quota", "no"))
    assert three.sequence == 4
    assert (await said(made, "user/t")).signed.event.declares == (2, 3)


@scenario
async def test_of_what_waits_for_an_incarnation_and_is_too_large_its_caller_is_told_and_all_else_is_said(r: TestRealm):
    made = Publisher(r.identity("operator/alice"), r.trust(), "test", now_ms=lambda: 1, began=lambda _: None, previous=None)
    first, large, last = (ClientEmission(made.signer.pending("user/t", {"pad": "x" * size})) for size in (1, 70_000, 1))
    for one in (first, large, last):
        made.say(one)
    made.begin(7)
    link = attached(made)
    assert [one.id for one in link.events()][1:] == [first.id, last.id]
    with pytest.raises(InputError):
        await large.acknowledged()


@scenario
async def test_an_incarnation_tells_of_the_one_before_how_far_that_was_answered_and_not_how_far_it_was_said(r: TestRealm):
    """What was not answered is said again: nobody is to miss it."""
    made = publisher(r, "operator/alice")
    link = attached(made)
    for one in [(await said(made, "user/t")).id for _ in range(3)][:2]:
        made.acked(f.Acked(ranges=((*one, one.sequence),), **ACKED))
    started = link.events()[0].id
    made.acked(f.Acked(ranges=((*started, started.sequence),), **ACKED))
    made.say(ClientEmission(made.signer.pending("user/t", {})))
    made.begin_next()
    made.flush()
    again = [one.event for one in link.events() if one.id.incarnation == made.signer.incarnation]
    assert again[0].data["previous_sequence"] == started.sequence + 2
    assert [one.topic for one in again[1:]] == ["user/t"] * 2


@scenario
async def test_what_was_refused_under_one_incarnation_is_not_declared_in_the_chains_of_the_next(r: TestRealm):
    made = publisher(r, "operator/alice")
    attached(made)
    refused = await said(made, "user/t")
    assert refused.id is not None
    made.refused(refused.id, RefusedError("trust.denied", "no", next="ask"))
    await said(made, "user/f", version=1)
    made.attached(None)
    assert made.signer.incarnation > refused.id.incarnation
    again = await said(made, "user/t")
    assert again.signed is not None
    assert again.signed.event.declares is None
    assert again.signed.event.chain.number == 1


@scenario
async def test_what_is_refused_late_of_an_earlier_incarnation_is_not_declared_in_the_chains_of_this_one(r: TestRealm):
    made = publisher(r, "operator/alice")
    attached(made)
    kept = [await said(made, "user/t") for _ in range(3)]
    await said(made, "user/f", version=1)
    made.attached(None)
    attached(made)
    assert kept[2].id is not None
    assert made.signer.incarnation > kept[2].id.incarnation
    made.refused(kept[2].id, RefusedError("trust.denied", "no", next="ask"))
    again = await said(made, "user/t")
    assert again.signed is not None
    assert (again.signed.event.chain.number, again.signed.event.declares) == (1, None)


@scenario
async def test_a_refused_event_is_declared_by_the_next_one_on_its_topic_while_the_incarnation_lasts(r: TestRealm):
    made = publisher(r, "operator/alice")
    attached(made)
    refused = await said(made, "user/t")
    assert refused.id is not None
    made.refused(refused.id, RefusedError("trust.denied", "no", next="ask"))
    behind = await said(made, "user/u")
    assert behind.id is not None
    ranges = ((behind.id.source, behind.id.incarnation, behind.id.sequence, behind.id.sequence),)
    made.acked(f.Acked(ranges=ranges, level="stored", copies=1, synced=True, store="s", row=1, time_ms=1))
    made.attached(None)
    attached(made)
    again = await said(made, "user/t")
    assert again.signed is not None
    assert again.signed.event.declares == (1, 1)


@scenario
async def test_each_broker_is_brought_the_certificates_of_those_whose_facts_are_re_offered_once(r: TestRealm):
    made = publisher(r, "operator/alice")
    bob = r.identity("operator/bob")
    made._trust.add_all([one.raw for one in bob.chain])
    pen = Pen(bob)
    facts = [pen.write("user/f", {"n": n}, version=n) for n in (1, 2)]
    for _ in range(2):
        link = attached(made)
        for fact in facts:
            made.offer([fact])
            await asyncio.sleep(0)
        assert link.certificates() == [bob.chain[0].raw]
        assert [one.id for one in link.events() if one.event.source == bob.name] == [one.id for one in facts]
        made.attached(None)


@scenario
async def test_no_more_is_re_offered_at_once_than_a_broker_has_answered_for(r: TestRealm):
    made = publisher(r, "operator/alice", "operator/bob")
    pen = Pen(r.identity("operator/bob"))
    facts = [pen.write("user/f", {"n": n}, version=n) for n in range(1, 6)]
    link = attached(made)
    with patch.object(publishing, "OFFERS", 2):
        made.offer(facts)
        await asyncio.sleep(0)
        assert [one.id for one in link.events() if one.event.source == "operator/bob"] == [one.id for one in facts[:2]]
        made.not_taken(facts[0].id, "stale", 0)
        made.flush()
        assert [one.id for one in link.events() if one.event.source == "operator/bob"] == [one.id for one in facts[:3]]


@scenario
async def test_an_answer_names_no_more_that_is_gone_than_it_may(r: TestRealm):
    made = publisher(r, "operator/alice")
    ranges = [(n, n) for n in range(1000, 1000 + 4 * publishing.MISSING, 2)]
    assert made.missing(made.signer.incarnation, ranges) == tuple(ranges[: publishing.MISSING])


@scenario
async def test_of_what_was_re_offered_over_a_lost_link_no_answer_is_awaited_and_what_is_offered_since_waits_for_the_next(
    r: TestRealm,
):
    made = publisher(r, "operator/alice")
    bob = r.identity("operator/bob")
    made._trust.add_all([one.raw for one in bob.chain])
    fact = Pen(bob).write("user/f", {}, version=1)
    attached(made)
    made.offer([fact])
    assert made.offers
    made.attached(None)
    assert not made.offers
    with patch.object(publishing, "OFFERS", 0):  # the broker has to answer first
        attached(made)
        made.offer([fact])
        assert made.offers
        made.attached(None)
        assert not made.offers
    made.offer([fact])
    assert [one.id for one in attached(made).events() if one.event.source == bob.name] == [fact.id]


@scenario
async def test_what_a_broker_refused_for_its_clock_is_not_waited_for_when_its_link_is_lost(r: TestRealm):
    made = publisher(r, "operator/alice")
    fact = Pen(r.identity("operator/bob")).write("user/f", {}, version=1, ahead_s=60.0)
    attached(made)
    made.offer([fact])
    await asyncio.sleep(0)
    made.not_taken(fact.id, "clock_ahead", int(time.time() * 1000))
    assert (made.offers, made.early_s > 0) == (True, True)
    made.attached(None)
    assert (made.offers, made.early_s) == (False, 0.0), "the next broker's clock is another one"
    link = attached(made)
    made.probe(1e9)
    assert [one for one in link.events() if one.event.source == "operator/bob"] == []


@scenario
async def test_what_was_refused_for_the_brokers_clock_comes_again_with_its_certificates(r: TestRealm):
    made = publisher(r, "operator/alice")
    bob = r.identity("operator/bob")
    made._trust.add_all([one.raw for one in bob.chain])
    fact = Pen(bob).write("user/f", {}, version=1, ahead_s=60.0)
    link = attached(made)
    made.offer([fact])
    await asyncio.sleep(0)
    made.not_taken(fact.id, "clock_ahead", int(time.time() * 1000))
    made.probe(1e9)
    await asyncio.sleep(0)
    assert [one.id for one in link.events() if one.event.source == bob.name] == [fact.id] * 2
    assert link.certificates() == [bob.chain[0].raw] * 2, "the broker may have let go of them meanwhile"


@scenario
async def test_what_is_refused_for_the_brokers_clock_time_and_again_is_offered_now_and_then(r: TestRealm):
    made = publisher(r, "operator/alice")
    fact = Pen(r.identity("operator/bob")).write("user/f", {}, version=1, ahead_s=60.0)
    link = attached(made)
    made.offer([fact])
    await asyncio.sleep(0)
    offered = []
    for after in (0.0, 0.1, PROBE_S - 0.1, PROBE_S, PROBE_S + 0.1, 2 * PROBE_S):
        made.not_taken(fact.id, "clock_ahead", int(time.time() * 1000))
        before = len(link.events())
        made.probe(1e9 + after)
        await asyncio.sleep(0)
        offered += [after] * (len(link.events()) - before)
    assert offered == [0.0, PROBE_S, 2 * PROBE_S]


def sending(r: TestRealm, publish: Any, settled: dict[EventId, object]) -> tuple[NatsSender, Any]:
    """A sender that judges nothing, and its link."""

    async def judge(*_: object) -> PublishTerms:
        await asyncio.sleep(0)
        return PublishTerms()

    link: Any = SimpleNamespace(publish=publish, lost=asyncio.get_running_loop().create_future())
    door: Any = SimpleNamespace(judge=judge, stored=lambda *_: None, forget=lambda _: None)
    outbox: Any = SimpleNamespace(refused=lambda _: None, settled=lambda _: None)
    return NatsSender(Subjects(r.name), door, outbox, lambda: 0, lambda one, _, error: settled.update({one: error})), link


@scenario
async def test_a_shared_fact_on_whose_topic_something_comes_to_stand_again_and_again_is_given_up_on_nats(r: TestRealm):
    """Whoever asks a server may have it answer there: what is said after it would wait for ever, too."""
    decision, settled = Pen(r.identity("operator/alice")).write("user/f", {}, version=1), dict[EventId, object]()

    async def publish(*_: Publication) -> dict[str, int]:
        raise ApiError(min(NOT_LAST_CODES), "wrong last sequence")

    sender, link = sending(r, publish, settled)
    with patch.object(nats_sender, "GIVE_UP_S", 0.0):
        await asyncio.wait_for(sender._publish(link, [Due(decision, decision.raw)]), 20)
    assert isinstance(settled[decision.id], FailedError)


@scenario
async def test_a_shared_fact_that_is_given_up_on_nats_is_not_published_once_more(r: TestRealm):
    """No majority answers for long: who made the decision decides anew (A3); what is no such fact is tried on."""
    pen = Pen(r.identity("operator/alice"))
    decision, word = pen.write("user/f", {}, version=1), pen.write("user/t", {})
    published: list[str] = []
    settled: dict[EventId, object] = {}

    async def publish(*entries: Publication) -> dict[str, int]:
        published.append(entries[0].headers["Nats-Msg-Id"])
        if len(published) < 4:
            raise TransportError("nats.stream", "no majority")
        return {"seq": len(entries)}

    sender, link = sending(r, publish, settled)
    with patch.object(nats_sender, "GIVE_UP_S", 0.0):
        await asyncio.wait_for(sender._publish(link, [Due(decision, decision.raw), Due(word, word.raw)]), 20)
    assert isinstance(settled[decision.id], FailedError)
    assert settled[word.id] is None
    assert published[-1] == id_of(word.raw)
    assert id_of(decision.raw) not in published[1:]


@scenario
async def test_shared_facts_that_are_stored_one_after_the_other_on_nats_are_not_given_up_because_all_of_them_took_long(
    r: TestRealm,
):
    pen, loop, stored = Pen(r.identity("operator/alice")), asyncio.get_running_loop(), list[str]()
    said = [pen.write(f"user/f{n}", {}, version=1) for n in range(3)]
    settled: dict[EventId, object] = {}
    real, passed_s, silent = loop.time, 0.0, True

    async def publish(*entries: Publication) -> dict[str, int]:
        nonlocal passed_s, silent
        if len(entries) > 1:
            raise ApiError(0, "one of them is to be looked at alone")
        if len(stored) == 2 and silent:
            silent = False
            raise TransportError("link.silent", "no answer")
        stored.append(entries[0].headers["Nats-Msg-Id"])
        passed_s += nats_sender.GIVE_UP_S * 0.6
        return {"seq": 1}

    sender, link = sending(r, publish, settled)
    with patch.object(loop, "time", lambda: real() + passed_s):
        await sender._publish(link, [Due(one, one.raw) for one in said])
    assert stored == [id_of(one.raw) for one in said]
    assert settled == dict.fromkeys((one.id for one in said), None)
    assert not silent


@scenario
async def test_an_incarnation_is_kept_before_anything_is_signed_in_it(r: TestRealm):
    """Or who is killed in between is followed by one that gives its numbers again."""
    made, seen = publisher(r, "operator/alice"), list[list[EventId]]()
    made._began = lambda begun: seen.append([one for one in made.said.outbox._kept if one.incarnation == begun])
    attached(made)
    emission = await said(made, "config/x", version=1)
    made.attached(None)
    assert isinstance(emission.error, FailedError)
    assert seen == [[]]


@scenario
async def test_who_outlives_a_namesake_begins_anew_once_and_never_further_ahead_than_a_broker_takes(r: TestRealm):
    made = publisher(r, "node/n1")
    attached(made)
    began = made.signer.incarnation
    assert not made.outlive(began - 1)
    assert made.outlive(began)
    assert made.signer.incarnation == began + 1
    assert not made.outlive(began)
    assert made.outlive(began + 500), "that one's clock is ahead of this one's"
    assert made.signer.incarnation == began + 501
    assert made.outlive(began + 2 * BOUND_MS)
    assert made.signer.incarnation == began + BOUND_MS
    made.begin(began + 1)
    made.signer.clock.last = ahead = 2**62
    made.begin_next()
    assert made.signer.clock.last >= ahead
    made.begin_next(backwards=True)
    assert made.signer.clock.last < ahead
    made.begin(began + BOUND_MS)
    with pytest.raises(TransportError, match="realm time went back"):
        made.begin_next()
