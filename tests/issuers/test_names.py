"""Names and tokens that were given twice, or in vain: which certificate stands, and who ends the other."""

from __future__ import annotations

import time

from dsmt.event.kinds import joining as kinds
from dsmt.event.records import to_data
from dsmt.operations.write import node_control, tokens
from dsmt.ports.bus import Draft
from dsmt.trust.identity import Identity
from dsmt.trust.joining import TOKENS, node_certificate
from dsmt.trust.revocations import topic_of
from tests.bus.realm import Reading, reading
from tests.issuers.joining import Joining, new_key, scenario


@scenario
async def test_of_two_machines_that_ask_for_one_name_at_once_with_two_tokens_one_has_it(j: Joining) -> None:
    await j.begin()
    await one_of_two_has(j, "db-1")


@scenario
async def test_of_two_machines_that_ask_at_once_for_the_name_of_one_that_was_removed_one_has_it(j: Joining) -> None:
    await j.begin()
    await j.ask(await j.token(), "db-1", new_key())
    assert await node_control.free(j.bus, "db-1", by="alice", reason="")
    await one_of_two_has(j, "db-1")


async def one_of_two_has(j: Joining, name: str) -> None:
    given = [await j.token(name=name) for _ in range(2)]
    clients = [await j.realm.client(token.identity.name, identity=token.identity) for token in given]
    async with reading(j.bus, TOKENS, "joining/") as got:
        for client, token in zip(clients, given, strict=True):
            asked = to_data(kinds.JoinRequest(name=name, public=new_key().public))
            client.emit(Draft(f"joining/{token.id}/request", asked))

        def answers(r: Reading) -> list[str]:
            names = [said["member"] for token in given for said in r.of(f"{TOKENS}{token.id}")[1:]]
            return names + [said["code"] for token in given for said in r.of(f"joining/{token.id}/refused")]

        await got.until(lambda r: len(answers(r)) == 2)
        assert sorted(answers(got)) == [name, "token.taken"]


@scenario
async def test_a_name_that_was_given_on_both_sides_of_a_partition_stays_with_whom_it_was_given_first(j: Joining) -> None:
    await j.begin()
    client, identity = await j.other_side()
    kept, lost = new_key(), new_key()
    await j.ask(await j.token(), "db-1", kept)
    async with reading(j.bus, "trust/revoked/") as got:
        await j.give(client, identity, await j.token(), "db-1", lost)
        await j.issuer("i2", client, identity)  # the sides meet
        topic = f"trust/revoked/{lost.key_id.hex()}/issuer/i2"
        await got.until(lambda r: r.of(topic))
        assert got.of(topic)[0]["reason"] == "the name db-1 was given twice, and to another key first"
        assert len(got.arrived) == 1


@scenario
async def test_the_name_of_a_node_that_was_removed_stays_with_whom_it_was_given_next(j: Joining) -> None:
    await j.begin()
    client, identity = await j.other_side()
    for _ in range(2):
        await j.ask(await j.token(), "db-1", new_key())
        assert await node_control.free(j.bus, "db-1", by="alice", reason="")
    await j.ask(await j.token(), "db-1", new_key())
    lost = new_key()
    async with reading(j.bus, "trust/revoked/") as got:
        await j.issuer("i3")  # who comes later judges alike
        await j.give(client, identity, await j.token(), "db-1", lost)
        await j.issuer("i2", client, identity)
        await got.until(lambda r: r.arrived)
        await j.ask(await j.token(), "db-2", new_key())
        assert [one.signed.event.topic for one in got.arrived] == [f"trust/revoked/{lost.key_id.hex()}/issuer/i2"]


@scenario
async def test_what_was_given_for_a_token_that_had_been_revoked_on_the_other_side_of_a_partition_ends(j: Joining) -> None:
    await j.begin()
    token, lost = await j.token(), new_key()
    await tokens.revoke(j.connection(), token.id, reason="pasted into a chat")
    identity = j.issuers[0][1]
    made = node_certificate(identity, "web-2", lost.public, now_s=int(time.time()), serial=bytes.fromhex(token.id))
    async with reading(j.bus, "trust/revoked/") as got:
        await j.come(Identity(lost, (made, *identity.chain)))  # as a broker of that side would have let it in
        topic = f"trust/revoked/{lost.key_id.hex()}/issuer/i1"
        await got.until(lambda r: r.of(topic))
        assert got.of(topic)[0]["reason"] == "its token was revoked first"


@scenario
async def test_who_calls_a_token_used_that_somebody_has_used_ends_nothing(j: Joining) -> None:
    await j.begin()
    token, key, trust = await j.token(), new_key(), j.realm.trust()
    certificate = trust.add((await j.ask(token, "web-1", key, trust))["certificate"])
    node = Identity(key, tuple(trust.chain(certificate.key_id, "node/web-1")))
    await j.come(node)
    client, thief = await j.other_side()
    async with reading(j.bus, "trust/revoked/") as got:
        await j.give(client, thief, token, "web-2", new_key())
        await j.come(node)
        await j.ask(await j.token(), "web-3", new_key())  # heard after all that
        assert got.arrived == []


@scenario
async def test_a_token_that_a_stolen_key_has_revoked_is_good_again_when_that_key_has_ended(j: Joining) -> None:
    """An issuer that was there takes what stands again for what it holds: its word was void (rule J3)."""
    await j.begin()
    token, thief = await j.token(), j.realm.identity("operator/eve")
    eve = await j.realm.client(thief.name, identity=thief)
    async with reading(eve, f"{TOKENS}{token.id}") as got:
        (made,) = got.arrived
        said = made.signed.event.data | {"revoked": True, "by": "eve"}
        await eve.publish(Draft(f"{TOKENS}{token.id}", said, replaces=made.signed))
    assert (await j.ask(token, "web-9", new_key()))["code"] == "token.revoked"
    root = await j.realm.client("root", identity=j.realm.identity("root"))
    await root.publish(Draft(topic_of(thief.key.key_id, "root"), {"by": "alice", "name": thief.name, "reason": ""}))
    assert (await j.ask(token, "web-9", new_key()))["member"] == "web-9"
