"""What a client that has a certificate and minds no rule can do to others on a NATS server."""

from __future__ import annotations

import base64
import json
import os
import time

import msgspec
import pytest

from dsmt.bus.nats.consumer import PullConsumer
from dsmt.bus.nats.headers import headers_of
from dsmt.bus.nats.link import NatsLink, Publication
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.nats.streams import MSG_ID, head, id_of, last_on
from dsmt.bus.rules.nats_config import ADMINISTRATION, PAGE
from dsmt.errors import TransportError
from dsmt.ports.bus import Draft, Start
from dsmt.trust.certificate import issue
from dsmt.trust.grants import read_patterns
from dsmt.trust.identity import Identity
from tests.bus.realm import Pen, reading
from tests.bus.saying import numbers
from tests.bus.test_nats_door import Kept, on_nats
from tests.waiting import told

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("nats")]


async def asked_by_an_agent(k: Kept) -> tuple[NatsLink, str]:
    """A link of who may do least, and what it asks to be given nothing: an answer without a body."""
    agent = k.made.identity("agent/n1/web/app/0", parent=k.identities["node/n1"])
    link, mark = await k.servers.link(agent), k.subjects.mark(agent.name, "x", begins=False)
    link.ask_through(k.subjects.asking(agent.name, read_patterns(agent.name)))
    consumer = PullConsumer(link, k.subjects.history, [mark])
    await consumer.begin()
    return link, f"$JS.API.CONSUMER.MSG.NEXT.{k.subjects.history}.{consumer._name}"


@on_nats
async def test_an_answer_that_is_named_onto_what_administers_the_streams_is_no_order(k: Kept) -> None:
    """JetStream takes what has no body for `delete this stream`, whoever has it say so."""
    alice, history = await k.bus(k.identities["operator/alice"]), k.subjects.history
    said = (await alice.publish(Draft("user/t", {"n": 1}))).cursor
    agent, question = await asked_by_an_agent(k)
    for order in ADMINISTRATION:
        name = order.replace("*", history, 1).replace("*", "x")
        await agent.send(Publication(question, json.dumps({"batch": 1, "no_wait": True}).encode(), {}), f"$JS.API.{name}")
        node = await k.link("node/n1")
        await node.send(node.question(f"DIRECT.GET.{history}", {"last_by_subj": "none"}), f"$JS.API.{name}")
        await node.heard()
    administrator = await k.servers.administrator()
    at = await head(administrator, history)
    assert (at.store, at.first) == (said.store, 1)
    assert (await administrator.api("STREAM.NAMES"))["streams"] == sorted((history, k.subjects.facts, k.subjects.blobs))
    await alice.publish(Draft("user/f", {"n": 2}, version=1))
    await told(lambda: last_on(administrator, k.subjects.facts, k.subjects.on("user/f")), "the fact in stream F", 20.0)


@on_nats
async def test_who_has_a_broker_s_certificate_and_not_the_gates_keys_does_not_administer_the_streams(k: Kept) -> None:
    link = await k.servers.link(k.gates.administrator)
    with pytest.raises(TransportError, match="no NATS server leads"):
        await link.api(f"STREAM.PURGE.{k.subjects.history}", {})


@on_nats
async def test_what_a_consumer_gives_where_it_takes_from_ends_after_a_page(k: Kept) -> None:
    """It would feed itself, at the speed of the server, when who asked once is long gone."""
    alice, history = await k.bus(k.identities["operator/alice"]), k.subjects.history
    agent, question = await asked_by_an_agent(k)
    mark = k.subjects.mark("agent/n1/web/app/0", "x", begins=False)
    before = (await agent.publish(Publication(mark, b"", {})))["seq"]
    for count in (10**9, PAGE):
        await agent.send(Publication(question, json.dumps({"batch": count, "expires": 60 * 10**9}).encode(), {}), mark)

    async def given() -> bool:
        return (await head(agent, history)).last >= before + PAGE

    await told(given, "a page of what feeds itself", 20.0)
    for n in range(20):
        last = await alice.publish(Draft("user/t", {"n": n}))
    assert last.cursor.row < before + PAGE + 100, "and what a gate says meanwhile"


@on_nats
async def test_nobody_has_what_another_one_says_taken_for_what_was_stored_before(k: Kept) -> None:
    """A server drops what bears an id that it knows, and acknowledges it."""
    alice, bob = [await k.bus(k.identities[name]) for name in ("operator/alice", "operator/bob")]
    last = alice.emit(Draft("user/t", {"n": 0}))
    await last.acknowledged()
    node, beat = await k.link("node/n1"), k.subjects.event("node/n1", "node/n1/heartbeat", fact=False)
    for n in range(1, 20):
        coming = str(last.id._replace(sequence=last.id.sequence + n))
        for one in (coming, f"{coming} operator/bob"):
            await node.publish(Publication(beat, b"x", {MSG_ID: one}))
    async with reading(bob, "user/", start=Start.LIVE, inbox=True) as got:
        await alice.publish(Draft("user/t", {"n": 1}))
        several = [alice.emit(Draft("user/t", {"n": n}, to=("operator/bob",))) for n in (2, 3)]
        for one in several:
            await one.acknowledged()
        await alice.publish(Draft("user/f", {"n": 4}, version=1))
        await got.until(lambda g: g.of("user/f"))
        assert numbers(got) == [1, 2, 3]


@on_nats
async def test_nobody_keeps_what_is_re_offered_out_by_what_it_is_called(k: Kept) -> None:
    """What is offered all know, and so what a server knows it by."""
    bob, node = await k.bus(k.identities["operator/bob"]), await k.link("node/n1")
    fact = Pen(k.identities["operator/alice"]).write("user/f", {"n": 1}, version=1)
    beat = k.subjects.event("node/n1", "node/n1/heartbeat", fact=False)
    for one in (str(fact.id), id_of(fact.raw)):
        await node.publish(Publication(beat, b"x", {MSG_ID: one}))
    async with reading(bob, "user/", start=Start.LIVE) as got:
        bob.introduce([one.raw for one in k.identities["operator/alice"].chain])
        bob.offer([fact])
        await got.until(lambda g: g.of("user/f") == [{"n": 1}])


@on_nats
async def test_what_a_source_says_tells_nobody_where_its_answers_come_nor_how_it_will_call_a_batch(k: Kept) -> None:
    """Who knows that has a server answer there: that something was stored which was not, or what ends who had asked."""
    alice, node = await k.bus(k.identities["operator/alice"]), await k.link("node/n1")
    called = list[str]()
    for n in (0, 3):
        said = [alice.emit(Draft("user/t", {"n": n + more})) for more in range(3)]
        for one in said:
            await one.acknowledged()
        asked = {"last_by_subj": k.subjects.event(alice.source, "user/t", fact=False)}
        stored = (await node.api(f"STREAM.MSG.GET.{k.subjects.history}", asked))["message"]
        called.append(headers_of(base64.b64decode(stored["hdrs"]))["Nats-Batch-Id"])
    inbox = (await alice.held()).inbox("").rpartition(".")[2]
    same = max(range(len(called[0]) + 1), key=lambda size: size if called[1].startswith(called[0][:size]) else 0)
    assert same < len(called[0]) / 2, "the next one is nothing like it"
    assert not any(inbox[:12] in one for one in called), "the beginning of all of its inboxes"


def renewed(k: Kept, name: str) -> tuple[Identity, Identity]:
    """A source with a certificate that ends in a second, and with the next one of its key, which began a minute ago."""
    now_s, own = int(time.time()), k.made.identity(name)
    terms = ((now_s - 1000, now_s + 1), (now_s - 60, now_s + 1000))
    both = [msgspec.structs.replace(own.certificate, not_before=a, not_after=b, serial=os.urandom(16)) for a, b in terms]
    first, second = [Identity(own.key, (issue(one, k.made.root),)) for one in both]
    return first, second


@on_nats
async def test_a_renewal_stands_beside_what_it_renews_and_readers_of_before_learn_of_it(k: Kept) -> None:
    first, second = renewed(k, "operator/eve")
    link, pen, opener = await k.servers.link(second), Pen(first), NatsOpener(k.made.trust(), k.subjects, lambda: 0.0)

    async def says(by: Identity, topic: str, ahead_s: float) -> None:
        await opener.introduce(link, by)
        said = pen.write(topic, {"n": 1}, version=1, ahead_s=ahead_s)
        await link.publish(Publication(k.subjects.event(by.name, topic, fact=True), said.raw, {}))

    async with reading(await k.bus(k.identities["operator/bob"]), "user/") as before:
        await says(first, "user/before", -120.0)
        await before.until(lambda g: g.arrived)
        await says(second, "user/after", 5.0)
        await before.until(lambda g: len(g.arrived) == 2)
    for start in (Start.FACTS, Start.HISTORY):
        async with reading(await k.bus(k.identities["operator/alice"]), "user/", start=start) as late:
            await late.until(lambda g: g.completes)
            assert {one.signed.event.topic for one in late.arrived} == {"user/before", "user/after"}


@on_nats
async def test_what_was_answered_in_the_place_of_certificates_takes_no_renewal_from_who_reads_later(k: Kept) -> None:
    """What stood there before the renewal is no forgery: whoever has any key may have had it answered there."""
    first, second = renewed(k, "operator/eve")
    link, opener = await k.servers.link(second), NatsOpener(k.made.trust(), k.subjects, lambda: 0.0)
    whose, both = (
        k.subjects.certificate(second.name, second.name, second.key.key_id),
        {first.chain[0].raw, second.chain[0].raw},
    )
    await opener.introduce(link, first)
    await opener.introduce(link, second)
    node, administrator = await k.link("node/n1"), await k.servers.administrator()
    renewal = await last_on(administrator, k.subjects.history, whose)
    assert renewal is not None
    await node.send(node.question(f"DIRECT.GET.{k.subjects.history}", {"seq": 1, "next_by_subj": whose}), whose)

    async def stands_again() -> bool:
        last = await last_on(administrator, k.subjects.history, whose)
        assert last is not None
        return last.row > renewal.row + 1 and opener.check_certificates(last) == both

    await told(stands_again, "the renewal again", 20.0)
