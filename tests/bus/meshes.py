"""Brokers that are linked with each other, and what is done with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from dsmt.bus.broker.broker import Broker
from dsmt.bus.client.client import BusClient
from dsmt.event.kinds.realm import BrokerWord
from dsmt.event.records import to_data
from dsmt.operations.local.home.addresses import free_port
from dsmt.ports.realm import BrokerAddress
from tests.bus.realm import TestRealm
from tests.waiting import until


async def mesh(r: TestRealm, *names: str, certified_s: Mapping[str, int] = MappingProxyType({})) -> list[Broker]:
    """Brokers that know each other, certified now or at a time."""
    identities = {name: r.identity(f"broker/{name}", now_s=certified_s.get(name)) for name in names}
    addresses = [BrokerAddress(f"127.0.0.1:{free_port()}", one.key.public) for one in identities.values()]
    made = []
    for (name, identity), at in zip(identities.items(), addresses, strict=True):
        made.append(await r.broker(name, identity=identity, address=at.address, born=name == names[0], others=addresses))
    await until(lambda: all(linked(one) == len(names) - 1 for one in made))
    return made


def linked(broker: Broker) -> int:
    return len(broker._others.readings.times_ms)


def at(broker: Broker) -> list[BrokerAddress]:
    return [BrokerAddress(broker.address, broker._identity.key.public)]


async def move(source: BusClient, there: Broker, to: Broker) -> None:
    """Have a source lose its link to one of two brokers, and go to the other one."""
    await until(lambda: source.source in there._sessions.by_name)
    there._disconnect(there._sessions.by_name[source.source].peer)
    await until(lambda: source.attached and source.broker == to._identity.name)


def misses(broker: Broker) -> Callable[[], None]:
    """A broker does not take what others have, before what this returns is called."""
    copying = broker._others.copying
    take, copying._take = copying._take, lambda *what: 1

    def takes() -> None:
        copying._take = take

    return takes


def held(broker: Broker) -> set[Any]:
    """The ids of all events that are not a broker's own."""
    rows = broker._store.rows(0, 10**6)
    return {row.read().id for row in rows if not row.read().event.source.startswith("broker/")}


def words(brokers: list[Broker]) -> dict[str, Any]:
    """What operators say of brokers, by topic."""
    told = {one: BrokerWord(address=one.address, public=one._identity.key.public, by="alice") for one in brokers}
    return {f"config/{one._identity.name}": to_data(word) for one, word in told.items()}
