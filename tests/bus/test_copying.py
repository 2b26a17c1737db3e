"""Several brokers: each keeps what the others have, and any of them may die (rules E1, D1, F1, R8)."""

from __future__ import annotations

from typing import Any

from dsmt.bus.broker.broker import Broker
from dsmt.event.kinds.realm import BrokerWord
from dsmt.event.records import to_data
from dsmt.operations.local.home import free_port
from dsmt.ports.bus import Draft, Level
from dsmt.ports.realm import BrokerAddress
from tests.bus.realm import Facts, TestRealm, reading, scenario, until


async def mesh(r: TestRealm, *names: str) -> list[Broker]:
    """Brokers that know each other."""
    identities = {name: r.identity(f"broker/{name}") for name in names}
    addresses = [BrokerAddress(f"127.0.0.1:{free_port()}", one.key.public) for one in identities.values()]
    made = []
    for (name, identity), at in zip(identities.items(), addresses, strict=True):
        made.append(await r.broker(name, identity=identity, address=at.address, born=name == names[0], others=addresses))
    await until(lambda: all(linked(one) == len(names) - 1 for one in made))
    return made


def linked(broker: Broker) -> int:
    return len(broker._others.copying.times_ms)


def at(broker: Broker) -> list[BrokerAddress]:
    return [BrokerAddress(broker.address, broker._identity.key.public)]


def held(broker: Broker) -> set[Any]:
    """The ids of all events that are not a broker's own."""
    rows = broker._store.rows(0, 10**6)
    return {row.read().id for row in rows if not row.read().event.source.startswith("broker/")}


@scenario
async def test_what_one_acknowledges_the_others_have(r: TestRealm) -> None:
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    operator = await r.client("operator/a", brokers=at(b1))
    await until(lambda: len(b1._fan_out.copying) == 2)
    ack = await operator.publish(Draft("config/x", {"n": 1}, version=1))
    assert (ack.level, ack.copies >= 2) == (Level.SAFE, True)
    await until(lambda: held(b1) == held(b2) == held(b3) != set())
    reader = await r.client("operator/b", brokers=at(b3))
    async with reading(reader, "config/") as got:
        assert got.of("config/x") == [{"n": 1}]


@scenario
async def test_who_loses_its_broker_goes_on_at_another(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    operator = await r.client("operator/a", brokers=at(b1) + at(b2))
    facts = Facts(operator)
    reader = await r.client("operator/b", brokers=at(b1) + at(b2))
    async with reading(reader, "config/") as got:
        for n in range(20):
            await facts.publish("config/x", {"n": n})
        await r.stop(b1)
        for n in range(20, 40):
            await facts.publish("config/x", {"n": n})
        await got.until(lambda g: len(g.of("config/x")) >= 40)
        assert [one["n"] for one in got.of("config/x")] == list(range(40))
        assert got.types() == []
