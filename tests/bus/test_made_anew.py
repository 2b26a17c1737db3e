"""Brokers that were all made anew under their names: who reads them learns of that after the words of before (rule R8)."""

from __future__ import annotations

import asyncio

from dsmt.bus.broker.broker import Broker
from dsmt.ports.bus import Draft
from tests.bus.meshes import at, held, linked, mesh, words
from tests.bus.realm import TestRealm, reading, scenario
from tests.bus.saying import user
from tests.waiting import until

MUCH = 300
"""More than a broker reads at once."""


async def say(r: TestRealm, to: Broker, about: Broker, **more: bool) -> None:
    """An operator's next word on a broker."""
    ((topic, word),) = words([about]).items()
    operator = await r.client(f"operator/a{len(held(to))}", brokers=at(to))
    async with reading(operator, topic) as got:
        before = got.arrived[-1].signed if got.arrived else None
        await operator.publish(Draft(topic, {**word, **more}, replaces=before, version=None if before else 1))
    await r.stop(operator)


async def told(r: TestRealm, *brokers: Broker) -> None:
    """There is a word on each, and then much else."""
    for one in brokers:
        await say(r, brokers[0], one)
    source = await r.client("operator/much", brokers=at(brokers[0]))
    await asyncio.gather(*(one.acknowledged() for one in [source.emit(user(n)) for n in range(MUCH)]))
    await r.stop(source)
    await until(lambda: all(held(one) == held(brokers[0]) for one in brokers))


async def ended(r: TestRealm, broker: Broker) -> None:
    await r.stop(broker)
    broker._store.close()


async def made_anew(r: TestRealm, broker: Broker, stays: Broker) -> Broker:
    """A broker is removed and made anew under its name, with another key and an empty store, while one other stays."""
    name = broker._identity.name.removeprefix("broker/")
    await say(r, stays, broker, removed=True)
    await ended(r, broker)
    made = await r.broker(name, store=str(r.directory / f"{name}.anew.db"), others=at(stays), born=False)
    await say(r, stays, made)
    await until(lambda: linked(made) == linked(stays) == 1 and held(made) == held(stays))
    return made


async def filled(broker: Broker, *others: Broker) -> None:
    """It has what the others have, and counted as a broker all the while."""
    ways = set[bool]()

    def is_filled() -> bool:
        ways.add(broker._others.left)
        return linked(broker) == len(others) and held(broker) == held(others[0])

    await until(is_filled)
    assert ways == {False}


@scenario
async def test_who_is_filled_by_brokers_that_were_all_made_anew_has_what_they_have(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    await told(r, b1, b2)
    b1 = await made_anew(r, b1, b2)
    b2 = await made_anew(r, b2, b1)
    b3 = await r.broker("b3", others=[*at(b1), *at(b2)], born=False)
    await filled(b3, b1, b2)


@scenario
async def test_who_was_away_while_all_others_were_made_anew_has_what_they_have(r: TestRealm) -> None:
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    await told(r, b1, b2, b3)
    await ended(r, b3)
    b1 = await made_anew(r, b1, b2)
    b2 = await made_anew(r, b2, b1)
    others = [*at(b1), *at(b2)]
    b3 = await r.broker("b3", identity=r.identities[b3], address=b3.address, others=others, born=False)
    await filled(b3, b1, b2)
