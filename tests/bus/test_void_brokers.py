"""Brokers of which only a key has told that has ended: they are none (rules J3, R8)."""

from __future__ import annotations

from dsmt.event.kinds.realm import BrokerWord
from dsmt.event.records import to_data
from tests.bus.meshes import at, mesh
from tests.bus.realm import Facts, TestRealm, scenario
from tests.bus.test_void import revoke
from tests.waiting import until


@scenario
async def test_a_broker_that_a_stolen_key_alone_has_added_is_none_when_that_key_has_ended(r: TestRealm) -> None:
    b1 = await r.broker()
    eve = Facts(await r.client("operator/eve"))
    word = BrokerWord(address="127.0.0.1:1", public=r.identity("broker/b9").key.public, by="eve")
    await eve.publish("config/broker/b9", to_data(word))
    await until(lambda: [one.address for one in b1._others.readings.known] == ["127.0.0.1:1"])
    await revoke(r, eve, b1)
    await until(lambda: b1._others.readings.alone)
    assert b1._others.holders.words.rows == {}, "nor is anybody told of it who attaches"


@scenario
async def test_a_broker_whose_name_a_stolen_key_gave_to_another_is_one_again_when_that_key_has_ended(r: TestRealm) -> None:
    """The word stays in the store, where nothing else was said of that name: whose it was stayed kept out by it for ever."""
    b1, _ = await mesh(r, "b1", "b2")
    eve = Facts(await r.client("operator/eve", brokers=at(b1)))

    def is_broker() -> list[bool]:
        return [one.is_broker for one in b1._sessions.all() if one.name == "broker/b2" and one.attached]

    await until(lambda: is_broker() == [True])
    word = BrokerWord(address="127.0.0.1:1", public=r.identity("broker/b9").key.public, by="eve")
    await eve.publish("config/broker/b2", to_data(word))
    await until(lambda: is_broker() == [False])
    await revoke(r, eve, b1)
    await until(lambda: is_broker() == [True])
