"""What issuers know by tokens though nobody holds a certificate any more, and what they keep from doing (J1, J2, D2)."""

from __future__ import annotations

import os
import time
from unittest.mock import MagicMock, patch

import pytest

from dsmt.bus.broker import passed
from dsmt.bus.client import measuring
from dsmt.event.kinds import joining as kinds
from dsmt.event.records import to_data
from dsmt.issuers import issuer as issuing
from dsmt.operations.write import node_control
from dsmt.ports.bus import Draft
from dsmt.trust.identity import Identity, certify, root_issued
from dsmt.trust.joining import TOKENS
from dsmt.trust.keys import SecretKey
from tests.bus.realm import reading
from tests.issuers.joining import OPERATOR, Joining, new_key, scenario
from tests.waiting import until


@pytest.fixture
def _quick_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passed, "ROUND_S", 0.3)
    monkeypatch.setattr(measuring, "MEASURE_S", 0.5)


@pytest.mark.usefixtures("_quick_rounds")
@scenario
async def test_a_name_is_taken_while_who_has_it_has_yet_to_come_and_brokers_know_it_no_more(j: Joining) -> None:
    """Nothing is stored that its key has signed: within two minutes nobody holds its certificate but the token's fact."""
    await j.begin()
    key, trust = new_key(), j.issuers[0][0]._trust
    assert (await j.ask(await j.token(), "db-1", key))["member"] == "db-1"
    await until(lambda: not trust.names(key.key_id))
    assert (await j.ask(await j.token(), "db-1", new_key()))["code"] == "token.taken"
    assert (await j.ask(await j.token(), "db-1", key))["member"] == "db-1", "who has it joins again"
    await until(lambda: not trust.names(key.key_id))
    assert await node_control.free(j.bus, "db-1", by="alice", reason="")
    assert (await j.ask(await j.token(), "db-1", new_key()))["member"] == "db-1"


@pytest.mark.usefixtures("_quick_rounds")
@scenario
async def test_a_name_that_was_given_on_both_sides_stays_with_the_first_that_brokers_know_no_more(j: Joining) -> None:
    await j.begin()
    client, identity = await j.other_side()
    kept, lost = new_key(), new_key()
    await j.ask(await j.token(), "db-1", kept)
    await until(lambda: not j.issuers[0][0]._trust.names(kept.key_id))
    async with reading(j.bus, "trust/revoked/") as got:
        await j.give(client, identity, await j.token(), "db-1", lost)
        await j.issuer("i2", client, identity)  # the sides meet
        await got.until(lambda r: r.arrived)
        assert {one.signed.event.topic.split("/")[2] for one in got.arrived} == {lost.key_id.hex()}


@scenario
async def test_no_word_of_who_may_speak_of_tokens_ends_an_issuer(j: Joining) -> None:
    """It is a part of a controller: with the key of one issuer nobody ends all controllers."""
    await j.begin()
    client, _ = await j.other_side()
    token = await j.token()
    async with reading(client, f"{TOKENS}{token.id}") as got:
        (made,) = got.arrived
        use = {"key": "no key", "member": "db-1", "certificate": b"none", "freed_ms": 0}
        await client.publish(Draft(f"{TOKENS}{token.id}", made.signed.event.data | use, replaces=made.signed))
    assert (await j.ask(await j.token(), "db-1", new_key()))["member"] == "db-1"
    assert (await j.ask(await j.token(), "db-2", new_key()))["member"] == "db-2"
    assert not j.realm.tasks["i1"].done()


@scenario
async def test_a_token_whose_name_is_no_id_lets_nobody_in_and_ends_no_issuer(j: Joining) -> None:
    await j.begin()
    alice, key = j.operator.certificate, new_key()
    signed = certify(
        "joining/no-id", key.public, issuer=OPERATOR, signer=j.operator.key, now_s=alice.issued, lifetime_s=600,
        serial=os.urandom(16), above=alice,
    )  # fmt: skip
    about = kinds.TokenFact(role="node", name="*", labels={}, expires_ms=2**42, by="alice")
    await j.bus.publish(Draft(f"{TOKENS}no-id", to_data(about)))
    holder = await j.realm.client("joining/no-id", identity=Identity(key, (signed, *j.operator.chain)))
    async with reading(holder, "joining/no-id/refused") as got:
        holder.emit(Draft("joining/no-id/request", to_data(kinds.JoinRequest(name="db-1", public=new_key().public))))
        await got.until(lambda r: r.arrived)
        assert [one["code"] for one in got.of("joining/no-id/refused")] == ["token.unknown"]
    assert (await j.ask(await j.token(), "db-2", new_key()))["member"] == "db-2"
    assert not j.realm.tasks["i1"].done()


@scenario
async def test_an_issuer_that_ends_before_a_node_gives_it_no_next_certificate_and_another_one_does(j: Joining) -> None:
    """It would be asked for one each minute for the rest of its time, and each would be stored for a week."""
    await j.begin(issuers=0)
    now = int(time.time())
    old = root_issued("node/n1", j.realm.root, key=new_key(), now_s=now - 100, serial=os.urandom(16), lifetime_s=190)
    short = root_issued("issuer/i1", j.realm.root, key=new_key(), now_s=now, serial=os.urandom(16), lifetime_s=60)
    await j.issuer("i1", identity=short, client=await j.realm.client("issuer/i1", identity=short))
    node = await j.realm.client("node/n1", identity=old)
    async with reading(node, "node/n1/certificate") as got:
        node.emit(Draft("node/n1/renewal", to_data(kinds.RenewalRequest(expires_ms=1))))
        await j.ask(await j.token(), "web-1", new_key())  # asked for later, and answered
        assert got.of("node/n1/certificate") == []
        await j.issuer("i2")
        node.emit(Draft("node/n1/renewal", to_data(kinds.RenewalRequest(expires_ms=1))))
        await got.until(lambda r: r.of("node/n1/certificate"))
        assert {one.signed.event.source for one in got.arrived} == {"issuer/i2"}


@scenario
async def test_at_a_start_what_is_to_end_is_looked_for_once_however_many_tokens_there_are(j: Joining) -> None:
    """A realm that lets a hundred machines in each day has ten thousand tokens after some months."""
    await j.begin(issuers=0)
    for _ in range(12):
        await j.token()
    client, identity = await j.other_side()
    with patch.object(issuing, "lost", side_effect=issuing.lost) as looked:
        await j.issuer("i2", client, identity)
        assert (await j.ask(await j.token(), "db-1", new_key()))["member"] == "db-1"
    assert looked.call_count <= 6


def test_who_is_no_young_node_costs_no_look_at_all_tokens() -> None:
    tokens = MagicMock()
    tokens.get.return_value = None
    alice = root_issued("node/n1", SecretKey(bytes(32)), key=SecretKey(b"1" * 32), now_s=1_800_000_000, serial=bytes(16))
    assert list(issuing.lost([alice.certificate], tokens, lambda *_: True, now_ms=0)) == []
    assert not tokens.values.called
