"""Issuers at a real broker: one answer for one token, renewals, and what becomes of a second use."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dsmt.agents.node.renewing import renewed, returned
from dsmt.errors import InputError, RefusedError
from dsmt.event.envelope import EventId
from dsmt.event.kinds import joining as kinds
from dsmt.event.records import to_data
from dsmt.issuers import issuer as issuing
from dsmt.issuers.issuer import Issuer
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.members import certificates
from dsmt.operations.local.members.joining import _realm
from dsmt.operations.write import node_control, revoking, tokens
from dsmt.ports.bus import Draft
from dsmt.ports.realm import NatsTerms
from dsmt.trust.identity import Identity, root_issued
from dsmt.trust.joining import TOKENS, node_certificate, read_token
from dsmt.trust.keys import SecretKey
from dsmt.trust.revocations import topic_of
from dsmt.trust.store import Realm, TrustStore
from tests.bus.realm import reading
from tests.issuers.joining import ATTRIBUTES, Joining, new_key, scenario
from tests.waiting import until


@scenario
async def test_who_holds_a_token_is_certified_once_and_then_attaches_as_that_node(j: Joining) -> None:
    await j.begin()
    token, key, trust = await j.token(name="web-*", labels={"zone": "a"}), new_key(), j.realm.trust()
    used = await j.ask(token, "web-1", key, trust)
    assert (used["member"], used["key"], used["labels"]) == ("web-1", key.key_id.hex(), {"zone": "a"})
    certificate = trust.add(used["certificate"])
    chain = tuple(trust.chain(certificate.key_id, "node/web-1"))
    assert [one.certificate.subject for one in chain] == ["node/web-1", "issuer/i1"]
    node = await j.realm.client("node/web-1", identity=Identity(key, chain))
    assert node.attached
    again = await j.ask(token, "web-1", key)
    assert again["certificate"] == used["certificate"], "who asks again with its key has its answer"
    other = await j.ask(token, "web-2", new_key())
    assert other["code"] == "token.used"


@scenario
async def test_of_many_issuers_one_is_heard_and_of_many_who_ask_at_once_one_joins(j: Joining) -> None:
    await j.begin(issuers=3)
    token = await j.token()
    client = await j.realm.client(token.identity.name, identity=token.identity)
    topic = f"{TOKENS}{token.id}"
    async with reading(client, topic, f"joining/{token.id}/") as got:
        keys = [new_key() for _ in range(5)]
        for _ in range(2):  # who has no answer asks again
            for n, key in enumerate(keys):
                asked = to_data(kinds.JoinRequest(name=f"n{n}", public=key.public))
                client.emit(Draft(f"joining/{token.id}/request", asked))
            await got.until(lambda r: any(one["key"] for one in r.of(topic)))
        refused = f"joining/{token.id}/refused"
        losers = {key.key_id.hex() for key in keys}
        await got.until(lambda r: len({one["key"] for one in r.of(refused)}) >= 4)
        uses = [one for one in got.of(topic) if one["key"]]
        assert len(uses) == 1
        assert {one["key"] for one in got.of(refused)} == losers - {uses[0]["key"]}
        assert {one["code"] for one in got.of(refused)} == {"token.used"}


@scenario
async def test_a_name_that_somebody_has_is_not_given_again_until_its_key_has_ended(j: Joining) -> None:
    await j.begin()
    first, key = await j.token(), new_key()
    used = await j.ask(first, "web-1", key)
    thief = await j.ask(await j.token(), "web-1", new_key())
    assert thief["code"] == "token.taken"
    assert thief["next"].endswith("dsmt node remove web-1")
    root = await j.realm.client("root", identity=j.realm.identity("root"))
    revoked = {"by": "alice", "name": "node/web-1", "reason": ""}
    await root.publish(Draft(f"trust/revoked/{used['key']}/root", revoked))
    assert (await j.ask(await j.token(), "web-1", new_key()))["member"] == "web-1"


@scenario
async def test_the_name_of_a_node_that_was_removed_is_free_until_that_node_is_heard_again(j: Joining) -> None:
    await j.begin()
    token, key, trust = await j.token(), new_key(), j.realm.trust()
    certificate = trust.add((await j.ask(token, "web-1", key, trust))["certificate"])
    node = Identity(key, tuple(trust.chain(certificate.key_id, "node/web-1")))
    left = {"state": "left", "road": "operator", "attachments": {}, "evidence": [], "message": "x", "since_ms": 1}
    removed = j.bus.emit(Draft("node/web-1/verdict", left))
    await removed.acknowledged()
    monitor = await j.realm.client("monitor/web-1", identity=j.realm.identity("monitor/web-1", parent=node))
    await monitor.publish(Draft("node/web-1/attributes", ATTRIBUTES))
    assert (await j.ask(await j.token(), "web-1", new_key()))["code"] == "token.taken"
    await j.bus.publish(Draft("node/web-1/verdict", left, replaces=removed))
    assert (await j.ask(await j.token(), "web-1", new_key()))["member"] == "web-1"
    assert (await j.ask(await j.token(), "web-1", new_key()))["code"] == "token.taken", "who has just joined has it"


@scenario
async def test_a_node_that_was_certified_and_never_came_is_removed_and_its_name_is_free(j: Joining) -> None:
    await j.begin()

    async def free() -> bool:
        return await node_control.free(j.bus, "web-1", by="alice", reason="")

    assert not await free(), "nobody has the name"
    for _ in range(2):  # the second one, when it has left before
        assert (await j.ask(await j.token(), "web-1", new_key()))["member"] == "web-1"
        assert (await j.ask(await j.token(), "web-1", new_key()))["code"] == "token.taken"
        assert await free()
        assert not await free(), "it is said once"
    trust, key = j.realm.trust(), new_key()
    certificate = trust.add((await j.ask(await j.token(), "web-1", key, trust))["certificate"])
    node = Identity(key, tuple(trust.chain(certificate.key_id, "node/web-1")))
    await j.realm.client("node/web-1", identity=node)
    assert not await free(), "who has come has the name until it has left"
    assert (await j.ask(await j.token(), "web-1", new_key()))["code"] == "token.taken"


@scenario
async def test_the_name_of_a_removed_node_is_free_though_who_gave_it_is_ahead_of_who_says_so(j: Joining) -> None:
    """What is said then has the time of what gave the name, to the millisecond."""
    await j.begin()
    issuer = j.issuers[0][0]
    issuer._time.begin(issuer.now_ms() + 3000)
    for _ in range(2):
        assert (await j.ask(await j.token(), "web-1", new_key()))["member"] == "web-1"
        assert await node_control.free(j.bus, "web-1", by="alice", reason="")
        assert not await node_control.free(j.bus, "web-1", by="alice", reason=""), "it is said once"


@scenario
async def test_a_token_is_listed_and_revoked_and_then_good_for_nobody(j: Joining) -> None:
    await j.begin()
    token, other = await j.token(name="web-9", reason="rack 4"), await j.token()
    await j.ask(other, "web-1", new_key())
    listed = {one.token: one for one in await tokens.listing(j.bus)}
    assert (listed[token.id].state, listed[token.id].reason, listed[token.id].by) == ("open", "rack 4", "alice")
    assert (listed[other.id].state, listed[other.id].member) == ("used", "web-1")
    done = await tokens.revoke(j.connection(), token.id[:8], reason="lost")
    assert done.state == "revoked"
    assert (await tokens._facts(j.bus))[token.id].event.ttl > tokens.KEPT_S * 1000, "it is listed for as long as all others"
    assert (await j.ask(token, "web-9", new_key()))["code"] == "token.revoked"
    with pytest.raises(RefusedError) as caught:
        await tokens.revoke(j.connection(), other.id, reason="")
    assert caught.value.next == "dsmt cert revoke node/web-1 ends what was given for it"


@scenario
async def test_a_token_that_got_about_is_revoked_by_its_line_which_no_message_repeats(j: Joining) -> None:
    await j.begin()
    token = await j.token()
    assert (await tokens.revoke(j.connection(), token.line(), reason="pasted into a chat")).token == token.id
    assert (await j.ask(token, "web-9", new_key()))["code"] == "token.revoked"
    with pytest.raises(InputError) as caught:
        await tokens.revoke(j.connection(), token.line()[:200], reason="")
    assert token.line()[:40] not in caught.value.message


@scenario
async def test_what_an_issuer_gave_for_a_token_of_which_another_use_stands_it_revokes_with_a_notice(j: Joining) -> None:
    await j.begin()
    token, kept, lost = await j.token(), new_key(), new_key()
    await j.ask(token, "web-1", kept)
    identity = j.issuers[0][1]
    made = node_certificate(identity, "web-2", lost.public, now_s=int(time.time()), serial=bytes.fromhex(token.id))
    second = Identity(lost, (made, *identity.chain))
    async with reading(j.bus, "trust/revoked/") as got:
        node = await j.realm.client("node/web-2", identity=second)  # as another broker would have let it in
        monitor = j.realm.identity("monitor/web-2", parent=second)
        await j.realm.client("monitor/web-2", identity=monitor)
        said = await j.realm.client("monitor/web-2", identity=monitor)
        said.emit(Draft("node/web-2/attributes", ATTRIBUTES))
        topic = f"trust/revoked/{lost.key_id.hex()}/issuer/i1"
        await got.until(lambda r: r.of(topic))
        assert got.of(topic)[0]["name"] == "node/web-2"
        assert got.of(topic)[0]["reason"] == "its token was used twice, and web-1 was first"
    assert node is not None
    late = await j.realm.client("operator/late", reads=True)
    (ended,) = (await revoking.revoked_keys(late)).values()
    listed = certificates.listing(late._trust, Home(Path("nowhere")), int(time.time()), {ended.key: ended})
    told = [(one.name, one.state, one.revoked) for one in listed if one.key == lost.key_id.hex()]
    assert told == [("node/web-2", "revoked", ended)], "nobody shows its certificate to who comes later"
    assert (ended.by, ended.reason) == (ended.signer, "its token was used twice, and web-1 was first")
    assert ended.signer == "issuer/i1"


@scenario
async def test_a_node_is_given_the_next_certificate_for_its_key_from_half_of_its_life_on(j: Joining) -> None:
    await j.begin(issuers=2)
    now = int(time.time())
    old = root_issued("node/n1", j.realm.root, key=new_key(), now_s=now - 100, serial=os.urandom(16), lifetime_s=190)
    node = await j.realm.client("node/n1", identity=old)
    following = await renewed(node, old, j.realm.trust().realm, look_s=0.2)
    assert following.key is old.key
    assert following.certificate.not_after > old.certificate.not_after
    assert following.certificate.serial == old.certificate.serial
    assert following.name == "node/n1"
    assert following.chain[1].certificate.role == "issuer"
    await j.realm.stop(node)
    assert (await j.realm.client("node/n1", identity=following)).attached


@scenario
async def test_a_machine_that_was_put_back_from_an_older_copy_is_given_the_next_certificate_too(j: Joining) -> None:
    """Issuers know a later one of its key, which it does not have: they gave it none until its own had ended."""
    await j.begin(issuers=2)
    now = int(time.time())
    old = root_issued("node/n1", j.realm.root, key=new_key(), now_s=now - 100, serial=os.urandom(16), lifetime_s=190)
    copied = await j.realm.client("node/n1", identity=old)
    later = await renewed(copied, old, j.realm.trust().realm, look_s=0.2)
    await j.realm.stop(copied)
    node = await j.realm.client("node/n1", identity=later)
    node.emit(Draft("node/n1/renewal", to_data(kinds.RenewalRequest(expires_ms=later.certificate.not_after * 1000))))
    trusts = [issuer._trust for issuer, *_ in j.issuers]
    await until(lambda: all(one.certificate(old.key.key_id, "node/n1") == later.chain[0] for one in trusts))
    await j.realm.stop(node)
    restored = await j.realm.client("node/n1", identity=old)
    following = await asyncio.wait_for(renewed(restored, old, j.realm.trust().realm, look_s=0.2), 20)
    assert following.certificate.not_after > old.certificate.not_after


@scenario
async def test_who_makes_a_token_is_told_who_is_let_in_with_it_and_where_no_other_machine_can_be(j: Joining) -> None:
    await j.begin()
    own = j.connection()
    for address, more in (("10.0.0.1:4", []), ("127.0.0.1:4", ["the realm's only broker listens at 127.0.0.1:4: no other"])):
        brokers = ((address, own.realm.brokers[0][1]),)
        made = await tokens.create(replace(own, realm=msgspec.structs.replace(own.realm, brokers=brokers)), j.operator)
        first, *others = made.warnings
        assert first.startswith("whoever uses this line first is let in as a node")
        assert [one.partition(" machine reaches")[0] for one in others] == more


@scenario
async def test_a_token_tells_by_what_the_servers_of_a_realm_on_nats_are_known_and_who_joins_keeps_that(j: Joining) -> None:
    await j.begin()
    terms, own = NatsTerms(authority="PEM", replicas=3), j.connection()
    on_nats = replace(own, realm=msgspec.structs.replace(own.realm, nats=terms))
    for connection, known in ((own, None), (on_nats, terms)):
        line = (await tokens.create(connection, j.operator)).line
        assert _realm(read_token(line)) == connection.realm
        assert connection.realm.nats == known


@scenario
async def test_a_node_whose_time_has_not_come_is_given_nothing_whatever_it_asks(j: Joining) -> None:
    await j.begin()
    node = await j.realm.client("node/n1")
    async with reading(node, "node/n1/certificate") as got:
        node.emit(Draft("node/n1/renewal", to_data(kinds.RenewalRequest(expires_ms=1))))
        token, key = await j.token(), new_key()
        await j.ask(token, "web-1", key)  # asked for later, and answered
        assert got.of("node/n1/certificate") == []


def test_who_is_revoked_after_it_has_asked_is_given_no_other_certificate() -> None:
    """What was asked before is answered later: an issuer does one thing after the other."""
    now, root, published = int(time.time()), SecretKey(bytes(32)), list[Draft]()
    issuer, node = (
        root_issued(name, root, key=new_key(), now_s=now - 100, serial=os.urandom(16), lifetime_s=lifetime_s)
        for name, lifetime_s in (("issuer/i1", 100_000), ("node/n1", 150))
    )
    trust = TrustStore(Realm(name="test", roots=(root.public,)))
    trust.add_all([one.raw for one in (*issuer.chain, *node.chain)])

    async def publish(draft: Draft) -> None:
        published.append(draft)

    bus: Any = SimpleNamespace(now_ms=lambda: now * 1000, publish=publish)
    event = SimpleNamespace(source=node.name, data=to_data(kinds.RenewalRequest(expires_ms=1)))
    asked: Any = SimpleNamespace(event=event, key_id=node.key.key_id, id=EventId(node.name, 1, 1))
    asyncio.run(Issuer(bus, issuer, trust.without(node.key.key_id))._renew(asked))
    assert published == []
    asyncio.run(Issuer(bus, issuer, trust)._renew(asked))
    assert [draft.topic for draft in published] == ["node/n1/certificate"]


@scenario
async def test_nobody_takes_a_node_below_an_issuer_whose_time_has_not_come(j: Joining) -> None:
    await j.begin()
    now, identity, thief = int(time.time()), j.realm.identity("node/n1"), j.realm.identity("issuer/late")
    node = await j.realm.client("node/n1", identity=identity)
    eve = await j.realm.client("issuer/late", identity=thief)
    made = node_certificate(
        thief, "n1", identity.key.public, now_s=now + 60, serial=os.urandom(16), lifetime_s=identity.certificate.not_after
    )
    taking = asyncio.ensure_future(renewed(node, identity, j.realm.trust().realm, look_s=0.1))
    async with reading(node, "node/n1/certificate") as got:
        for _ in range(3):
            await eve.publish(Draft("node/n1/certificate", to_data(kinds.Renewed(certificate=made.raw)), subject="node/n1"))
        await got.until(lambda r: len(r.of("node/n1/certificate")) >= 3)
        assert not taking.done()
    taking.cancel()


@scenario
async def test_a_node_whose_issuer_is_revoked_goes_on_below_who_had_signed_it_before(j: Joining) -> None:
    await j.begin()
    now, issuer = int(time.time()), j.realm.identity("issuer/late")
    before = root_issued("node/n1", j.realm.root, key=new_key(), now_s=now - 100, serial=os.urandom(16), lifetime_s=900)
    made = node_certificate(issuer, "n1", before.key.public, now_s=now, serial=os.urandom(16))
    present = Identity(before.key, (made, *issuer.chain))
    node = await j.realm.client("node/n1", identity=present)
    node._trust.add_all([one.raw for one in before.chain])
    going = asyncio.ensure_future(returned(node, present, node._trust, look_s=0.01))
    root = await j.realm.client("root")
    await root.publish(Draft(topic_of(issuer.key.key_id, "root"), {"by": "root"}))
    following = await asyncio.wait_for(going, 10)
    assert (following.key, following.chain) == (before.key, before.chain)
    monitor = j.realm.identity("monitor/n1", parent=following)
    assert (await j.realm.client("monitor/n1", identity=monitor)).attached


@scenario
async def test_an_issuer_that_comes_later_or_again_knows_all_that_the_first_one_did(j: Joining) -> None:
    await j.begin()
    used, unused = await j.token(), await j.token()
    await j.ask(used, "web-1", new_key())
    await j.realm.stop("i1")
    await j.realm.stop(j.issuers[0][0])
    await j.issuer("i2")
    assert (await j.ask(used, "web-2", new_key()))["code"] == "token.used"
    assert (await j.ask(unused, "web-1", new_key()))["code"] == "token.taken"


def test_a_name_is_nobodys_any_more_whose_certificate_has_ended() -> None:
    until_s, now_ms = 1000, [0]
    held = SimpleNamespace(certificate=SimpleNamespace(not_after=until_s))
    trust = SimpleNamespace(certificate=lambda *_: held, is_revoked=lambda *_: False)
    issuer = Issuer(SimpleNamespace(now_ms=lambda: now_ms[0]), SimpleNamespace(name="issuer/i1"), trust)
    for now_s, stands in ((until_s - 1, True), (until_s, False)):
        now_ms[0] = now_s * 1000
        assert issuer._stands("00" * 16, "node/web-1") == stands


@scenario
async def test_a_request_that_is_not_answered_in_time_keeps_nobody_from_an_answer(j: Joining) -> None:
    await j.begin(issuers=0)
    client = await j.realm.client("issuer/i1", identity=(identity := j.realm.identity("issuer/i1")))
    emit, hung = client.emit, list[Draft]()

    def hangs(draft: Draft, **more: Any) -> object:
        if hung:
            patch.setattr(issuing, "ANSWER_S", 20.0)
            return emit(draft, **more)
        hung.append(draft)
        return SimpleNamespace(acknowledged=asyncio.Event().wait, signed=None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(issuing, "ANSWER_S", 0.1)
        patch.setattr(client, "emit", hangs)
        await j.issuer("i1", client, identity)
        key, token = new_key(), await j.token()
        asks = await j.realm.client(token.identity.name, identity=token.identity)
        asks.emit(Draft(f"joining/{token.id}/request", to_data(kinds.JoinRequest(name="web-1", public=key.public))))
        await until(lambda: hung)
        await j.realm.stop(asks)
        assert (await j.ask(await j.token(), "web-2", new_key()))["member"] == "web-2"
