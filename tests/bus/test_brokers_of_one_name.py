"""Two brokers of one name: operators on two sides of a partition have each added one, and the sides meet (rule R8)."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from dsmt.bus.broker.broker import Broker
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.records import from_data
from dsmt.ports.bus import Draft
from tests.bus.meshes import at, held, linked, mesh, words
from tests.bus.realm import Facts, TestRealm, scenario
from tests.operations.histories import exported, judged
from tests.waiting import until


class Sides(NamedTuple):
    """On one side b1, and the b2 whose word is the earlier, and so stands; on the other b3, and the later b2."""

    b1: Broker
    b2: Broker
    b3: Broker
    lost: Broker


async def parted(r: TestRealm) -> Sides:
    b1, b2 = await mesh(r, "b1", "b2", certified_s={"b2": int(time.time()) - 5})
    b3 = await r.broker("b3", born=False)
    lost = await r.broker("b2", store=":memory:", others=at(b3), born=False)
    await until(lambda: linked(lost) == 1)
    for ones in ([b1, b2], [b3, lost]):
        facts = Facts(await r.client(f"operator/{ones[0]._identity.name[-2:]}", brokers=at(ones[0])))
        for topic, word in words(ones).items():
            await facts.publish(topic, word)
    await until(lambda: linked(b3) == 1)
    return Sides(b1, b2, b3, lost)


async def meet(r: TestRealm, sides: Sides) -> None:
    """The brokers that both sides had before hear of each other; that is all that heals."""
    for there, named in ((sides.b1, sides.b3), (sides.b3, sides.b1)):
        facts = Facts(await r.client(f"operator/for-{there._identity.name[-2:]}", brokers=at(there)))
        for topic, word in words([named]).items():
            await facts.publish(topic, word)
    await until(lambda: sides.lost._others.refusal is not None and linked(sides.b1) == linked(sides.b2) == 2, 40)


def session(broker: Broker, by: str, source: str) -> SessionFact | None:
    """What a broker holds as the last word of another one on a source."""
    row = broker._store.winner(f"{by}/session/{source}")
    return None if row is None else from_data(SessionFact, row.read().event.data)


@scenario
async def test_what_the_one_that_stands_says_of_who_was_at_the_other_one_is_believed(r: TestRealm) -> None:
    """A node that lives is not dead, nor one that is dead alive, by the later incarnation of the one that lost."""
    sides = await parted(r)
    left, came = r.identity("node/left"), r.identity("node/came")
    gone = await r.client("node/left", identity=left, brokers=at(sides.lost))
    moves = await r.client("node/came", identity=came, brokers=at(sides.lost))
    await until(lambda: all(session(sides.b3, "broker/b2", name) for name in ("node/left", "node/came")))
    others = (sides.b1, sides.b2, sides.b3)
    for client in (gone, moves):
        client.brokers._words.seeds = tuple(at(sides.lost))  # neither hears where else it might go
        client.brokers.told = lambda *_, **__: None  # type: ignore[method-assign]
    await meet(r, sides)
    await r.stop(gone)
    await r.stop(moves)
    here = await r.client("node/came", identity=came, brokers=at(sides.b2))

    def all_say(name: str, *states: str) -> bool:
        said = [session(one, "broker/b2", name) for one in others]
        return all(one is not None and one.state in states and one.attachment == said[0].attachment for one in said)  # type: ignore[union-attr]

    await until(lambda: all_say("node/came", "open"))
    await until(lambda: all_say("node/left", "silent", "closed"), 25)
    await r.stop(here)
    await until(lambda: all_say("node/came", "closed"))


@scenario
async def test_the_one_that_lost_reads_on_and_nobody_reads_another_one_for_whom_it_has_named(r: TestRealm) -> None:
    sides = await parted(r)
    await meet(r, sides)
    await until(lambda: linked(sides.lost) == 3)
    offences = sides.b1._sessions._offended, sides.b3._sessions._offended
    facts = Facts(await r.client("operator/x", brokers=at(sides.b1)))
    for number in range(3):
        await facts.publish("config/x", {"n": number})
        await until(lambda: held(sides.lost) == held(sides.b1))
    await until(lambda: linked(sides.lost) == 3)  # who hears only now whose name it has had it attach anew
    assert offences == ({}, {})
    for other in sides.lost._others.readings.others.values():
        assert other.bus is not None
        assert [one.public for one in other.bus.brokers.all] == [other.address.public]  # type: ignore[attr-defined]


@scenario
async def test_what_the_one_that_lost_and_another_had_acknowledged_is_with_all(r: TestRealm) -> None:
    sides = await parted(r)
    speaker = await r.client("operator/c", brokers=at(sides.lost))
    acks = [await speaker.publish(Draft(f"user/{n}", {"n": n})) for n in range(5)]
    assert 2 in {one.copies for one in acks}, "one that is held up for long is acknowledged by one broker alone"
    await r.stop(speaker)
    await meet(r, sides)
    await until(lambda: held(sides.b1) == held(sides.b2) == held(sides.b3) == held(sides.lost))


@scenario
async def test_the_history_of_the_one_that_stays_verifies_though_it_holds_heads_of_the_other_one(r: TestRealm) -> None:
    sides = await parted(r)
    await meet(r, sides)
    other = sides.lost._identity.key.key_id
    await until(
        lambda: any(row.topic == "broker/b2/stats" and row.key_id == other for row in sides.b2._store.rows(0, 10**6))
    )
    for broker in (sides.b2, sides.b1):
        client = await r.client(f"operator/at-{broker._identity.name[-2:]}", brokers=at(broker))
        async with asyncio.timeout(20):
            while not judged(run := await exported(r, client), run.items).ok:  # noqa: ASYNC110 - no event: it is exported anew
                await asyncio.sleep(0.1)  # what the other side has said is on its way
