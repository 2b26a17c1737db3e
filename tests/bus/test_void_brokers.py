"""Brokers of which only a key has told that has ended: they are none (rules J3, R8)."""

from __future__ import annotations

from dsmt.event.kinds.realm import BrokerWord
from dsmt.event.records import to_data
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
