"""Who asks an issuer without end keeps it, and the controller beside it, from nothing (D2)."""

from __future__ import annotations

from unittest.mock import patch

from dsmt.event.kinds import joining as kinds
from dsmt.event.records import to_data
from dsmt.issuers.issuer import ASKS, Issuer
from dsmt.ports.bus import Draft
from tests.bus.realm import reading
from tests.issuers.joining import Joining, new_key, scenario

MANY = 300


@scenario
async def test_who_holds_a_token_and_asks_without_end_is_answered_now_and_then_and_others_at_once(j: Joining) -> None:
    await j.begin()
    got_about, began_ms = await j.token(), j.bus.now_ms()
    thief = await j.realm.client(got_about.identity.name, identity=got_about.identity)
    asked = to_data(kinds.JoinRequest(name="no name", public=new_key().public))
    async with reading(j.bus, "joining/") as got:
        for said in [thief.emit(Draft(f"joining/{got_about.id}/request", asked)) for _ in range(MANY)]:
            await said.acknowledged()
        assert (await j.ask(await j.token(), "db-1", new_key()))["member"] == "db-1"
        await got.until(lambda r: r.of(f"joining/{got_about.id}/refused"))
        seconds = (j.bus.now_ms() - began_ms) / 1000
        assert len(got.of(f"joining/{got_about.id}/refused")) <= ASKS + seconds + 1


@scenario
async def test_a_node_that_asks_without_end_for_its_next_certificate_is_heard_now_and_then(j: Joining) -> None:
    await j.begin()
    began_ms, node = j.bus.now_ms(), await j.realm.client("node/n1")
    with patch.object(Issuer, "_renew") as renewed:
        for said in [node.emit(Draft("node/n1/renewal", {"expires_ms": 1})) for _ in range(MANY)]:
            await said.acknowledged()
        assert (await j.ask(await j.token(), "db-1", new_key()))["member"] == "db-1"
        assert 0 < renewed.call_count <= ASKS + (j.bus.now_ms() - began_ms) / 1000 + 1


@scenario
async def test_who_has_a_name_is_found_without_a_look_at_the_keys_of_all_others(j: Joining) -> None:
    await j.begin()
    trust = j.issuers[0][0]._trust
    for n in range(50):
        trust.add_all([one.raw for one in j.realm.identity(f"node/n{n}").chain])
    with patch.object(Issuer, "_stands", autospec=True, side_effect=Issuer._stands) as looked:
        assert (await j.ask(await j.token(), "db-1", new_key()))["member"] == "db-1"
    assert looked.call_count < 10
