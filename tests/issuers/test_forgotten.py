"""A name is given once, also where all have let go of the certificate of who has it; and no word ends an issuer (J2, D2)."""

from __future__ import annotations

import os

import pytest

from dsmt.bus.broker import passed
from dsmt.bus.client import measuring
from dsmt.event.kinds import joining as kinds
from dsmt.event.records import to_data
from dsmt.operations.write import node_control
from dsmt.ports.bus import Draft
from dsmt.trust.identity import Identity, certify
from dsmt.trust.joining import TOKENS
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
