"""Brokers that are some no more: removed, revoked, or made anew under a new key (rule R8)."""

from __future__ import annotations

import asyncio
import math
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.others.others import TOGETHER_S, Others
from dsmt.bus.broker.others.room import LOOK_S
from dsmt.bus.wire import frames as f
from dsmt.errors import RefusedError
from dsmt.operations.local.home.addresses import free_port
from dsmt.ports.bus import Draft, Level
from dsmt.ports.store import Row
from tests.bus.meshes import at, held, linked, mesh, misses, words
from tests.bus.realm import Facts, TestClock, TestRealm, scenario
from tests.bus.spoiled import Full
from tests.waiting import until


async def announced(r: TestRealm, *brokers: Broker) -> Facts:
    """Each is announced by an operator, who is attached to the first."""
    facts = Facts(await r.client("operator/a", brokers=at(brokers[0])))
    for topic, word in words(list(brokers)).items():
        await facts.publish(topic, word)
    await until(lambda: all(held(one) == held(brokers[0]) for one in brokers))
    return facts


async def remove(facts: Facts, broker: Broker) -> None:
    ((topic, word),) = words([broker]).items()
    await facts.publish(topic, {**word, "removed": True})


async def revoke(r: TestRealm, broker: Broker, at_one: Broker) -> None:
    root = await r.client("root", identity=r.identity("root"), brokers=at(at_one))
    topic = f"trust/revoked/{broker._identity.key.key_id.hex()}/root"
    await root.publish(Draft(topic, {"by": "root", "name": broker._identity.name}))


@scenario
async def test_who_was_removed_while_it_was_down_sends_all_to_the_others_when_it_is_back(r: TestRealm) -> None:
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    facts = await announced(r, b1, b2, b3)
    others, identity, address = at(b1) + at(b2) + at(b3), r.identities[b3], b3.address
    await r.stop(b3)
    b3._store.close()
    await remove(facts, b3)
    again = await r.broker("b3", identity=identity, address=address, others=others, born=False)
    client = await r.client("operator/b", brokers=others)
    await until(lambda: again._others.refusal is not None)
    await until(lambda: client.attached and client.broker != "broker/b3" and not again._sessions.by_name)
    await client.publish(Draft("user/x", {"n": 1}))
    await until(lambda: held(b1) == held(b2))
    assert any(one.source == "operator/b" for one in held(b1))
    with pytest.raises(RefusedError, match="no more"):
        again._others.check_here("operator/c")
    await until(lambda: {one.public for one in b1._others.readings.known} == {address.public for address in at(b2)})
    assert b1._others.attached.copies == [one for one in b1._fan_out.copying if one.name == "broker/b2"]


@scenario
async def test_who_removes_the_broker_to_which_it_is_attached_is_answered_and_goes_to_another(r: TestRealm) -> None:
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    facts = await announced(r, b3, b1, b2)
    client = facts._client
    await remove(facts, b3)
    await until(lambda: not b3._sessions.by_name and linked(b3) != 0, 3)
    await until(lambda: client.attached and client.broker != "broker/b3")
    await facts.publish("config/x", {"n": 1})
    await until(lambda: held(b1) == held(b2))
    assert {b1._ingest._held("config/x").event.data["n"]} == {1}


@scenario
async def test_what_a_broker_that_lives_has_acknowledged_when_it_is_removed_is_with_the_others(r: TestRealm) -> None:
    brokers = await mesh(r, "b1", "b2", "b3")
    facts, said, ended = await announced(r, *brokers), 0, asyncio.Event()
    client = await r.client("operator/b", brokers=[address for one in reversed(brokers) for address in at(one)])
    await until(lambda: client.attached)
    (removed,) = (one for one in brokers if one._identity.name == client.broker)

    async def says() -> None:
        nonlocal said
        while not ended.is_set():
            client.emit(Draft("user/x", {"n": said}))
            said += 1
            await asyncio.sleep(0)
        await client.publish(Draft("user/x", {"n": said}))

    saying = asyncio.create_task(says())
    await until(lambda: said > 100)
    await remove(facts, removed)
    await until(lambda: client.attached and client.broker != removed._identity.name, 10)
    before = said
    await until(lambda: said > before + 100)
    ended.set()
    await saying
    one, other = (each for each in brokers if each is not removed)
    await until(lambda: held(one) == held(other), 10)
    has = {identity.sequence for identity in held(one) if identity.source == client.source}
    assert has == set(range(1, max(has) + 1))
    assert max(has) > said


@scenario
async def test_a_removed_broker_reads_on_and_its_word_on_who_is_attached_counts_no_more_until_it_is_one_again(
    r: TestRealm,
) -> None:
    """Nobody hears its next words: who died at it while it was cut off would be attached for a day."""
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    facts = await announced(r, b1, b2, b3)

    def said() -> set[str]:
        rows = (one._store.winner(f"{one._identity.name}/session/broker/b3") for one in (b1, b2))
        return {"" if row is None else row.read().event.data["state"] for row in rows}

    await until(lambda: said() == {"open"})
    await remove(facts, b3)
    await until(lambda: said() == {"closed"}, 5)
    await facts.publish("user/f", {"n": 1}, version=1)
    await until(lambda: held(b1) == held(b2) == held(b3))
    assert said() == {"closed"}
    await facts.publish("config/broker/b3", words([b3])["config/broker/b3"])
    await until(lambda: said() == {"open"} and linked(b1) == linked(b2) == linked(b3) == 2, 10)


@scenario
async def test_who_is_attached_to_a_broker_whose_key_is_revoked_goes_to_another_at_once(r: TestRealm) -> None:
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    others = at(b1) + at(b2) + at(b3)
    client = await r.client("operator/b", brokers=at(b3))
    client.brokers._words.seeds += tuple(others[:2])
    await revoke(r, b3, b1)
    await until(lambda: client.attached and client.broker != "broker/b3", 5)
    assert {one.public for one in client.brokers.all} == {one.public for one in others[:2]}
    await until(lambda: linked(b1) == linked(b2) == 1 and linked(b3) == 0)
    ack = await asyncio.wait_for(client.publish(Draft("user/x", {"n": 1})), 5)
    assert (ack.level, ack.copies) == (Level.SAFE, 2)


@scenario
async def test_a_name_that_has_a_new_key_is_not_looked_for_by_its_old_one(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    facts = await announced(r, b1, b2)
    client = await r.client("node/n1", brokers=at(b1) + at(b2))
    await r.stop(b2)
    await until(lambda: client.broker == "broker/b1")
    await remove(facts, b2)
    await until(lambda: b1._others.readings.alone)
    new = await r.broker("b2", identity=r.identity("broker/b2"), store=":memory:", others=at(b1), born=False)
    await facts.publish("config/broker/b2", words([new])["config/broker/b2"])
    await until(lambda: linked(b1) == 1 and b1._others.copying.complete)
    assert [one.address for one in b1._others.readings.known] == [new.address]
    await until(lambda: held(new) == held(b1))


@scenario
async def test_of_two_of_one_name_that_is_the_broker_of_which_the_newest_word_is_and_the_other_sends_all_away(
    r: TestRealm,
) -> None:
    """Two operators on two sides of a partition have each added one: of two words one stands."""
    b1, b2 = await mesh(r, "b1", "b2")
    facts = await announced(r, b1, b2)
    first = b1._sessions.by_name["broker/b2"]
    lost = await r.broker(
        "b2", identity=r.identity("broker/b2", now_s=int(time.time()) + 1), store=":memory:", others=at(b1), born=False
    )
    await until(lambda: lost._others.refusal is not None)
    with pytest.raises(RefusedError, match="no more"):
        lost._others.check_here("operator/c")
    await facts.publish("user/f", {"n": 1}, version=1)
    await until(lambda: held(b1) == held(b2) == held(lost))
    assert b1._sessions.by_name["broker/b2"] is first
    assert [one.public for one in b1._others.readings.known] == [b2._identity.key.public]
    copies = [b2._identity.key.public]
    await until(lambda: [one.certificate.public for one in b1._others.attached.copies] == copies)
    await facts.publish("config/broker/b2", words([lost])["config/broker/b2"])
    await until(lambda: b2._others.refusal is not None and b1._sessions.by_name.get("broker/b2") is not first)
    await until(lambda: [one.certificate.public for one in b1._others.attached.copies] == [lost._identity.key.public])


@scenario
async def test_where_one_was_configured_to_be_is_tried_too_whatever_an_older_word_says(r: TestRealm) -> None:
    b1 = await r.broker("b1")
    client = await r.client("operator/a", brokers=at(b1))
    ((topic, word),) = words([b1]).items()
    await Facts(client).publish(topic, {**word, "address": "127.0.0.1:1"})
    await until(lambda: {one.address for one in client.brokers.all} == {b1.address, "127.0.0.1:1"})
    identity, address = r.identities[b1], b1.address
    await r.stop(b1)
    b1._store.close()
    await until(lambda: not client.attached)
    await r.broker("b1", identity=identity, address=address, born=False)
    await until(lambda: client.attached, 20)


class JumpingClock(TestClock):
    """A clock that goes on while its process stands still."""

    stood_s = 0.0

    def boottime(self) -> float:
        return super().boottime() + self.stood_s


@scenario
async def test_a_broker_that_stood_still_is_not_whole_before_it_has_read_what_it_missed(r: TestRealm) -> None:
    clock = JumpingClock()
    b1 = await r.broker("b1")
    b2 = await r.broker("b2", born=False, others=at(b1), clock=clock)
    facts = Facts(await r.client("operator/a", brokers=at(b1)))
    await facts.publish("config/x", {"n": 0})
    await until(lambda: b2.whole and held(b2) == held(b1))
    take, tried = b2._others.copying._take, []
    b2._others.copying._take = lambda *what: tried.append(what) or 1  # it stands still
    await facts.publish("config/x", {"n": 1})
    looked = b2._recorder.wholeness._looked
    await until(lambda: tried and b2._recorder.wholeness._looked > looked)
    clock.stood_s += 60.0
    assert not b2.whole, "who asks before it has looked is not told so either"
    await until(lambda: not b2.whole, 2)
    assert held(b2) != held(b1)
    b2._others.copying._take = take
    await until(lambda: b2.whole)
    assert held(b2) == held(b1)


@scenario
async def test_a_broker_whose_disk_is_full_is_not_whole_before_it_has_read_what_it_could_not_store(r: TestRealm) -> None:
    b1 = await r.broker("b1")
    b2 = await r.broker("b2", born=False, others=at(b1))
    facts = Facts(await r.client("operator/a", brokers=at(b1)))
    await facts.publish("config/x", {"n": 0})
    await until(lambda: b2.whole and held(b2) == held(b1))
    store = b2._store
    append = store.append

    idle, reader = await r.raw("operator/idle"), await r.raw("operator/r", reads=True)
    client = await r.client("operator/c", brokers=[*at(b2), *at(b1)], reads=True)
    store.append = Full()
    await facts.publish("config/x", {"n": 1})
    await until(lambda: b2._recorder.full is not None)
    await until(lambda: not b2.whole, 2)
    for one in (idle, reader):  # what they are given is from before: they are sent on to who has what comes
        refused, _ = await one.next(f.Refused)
        assert (refused.code, f"{at(b1)[0].address}" in refused.next) == ("store.full", True)
    await until(lambda: client.broker == "broker/b1")
    takes = misses(b2)
    store.append = append
    await until(lambda: b2._recorder.full is None)
    assert not b2.whole
    assert held(b2) != held(b1)
    takes()
    await until(lambda: b2.whole)
    assert held(b2) == held(b1)


@scenario
async def test_of_brokers_that_are_all_full_each_is_read_until_one_has_room(r: TestRealm) -> None:
    """Each sent who reads to the others: nobody could look which disk was full."""
    b1, b2 = await mesh(r, "b1", "b2")
    one, other = await r.client("operator/a", brokers=at(b1)), await r.client("operator/b", brokers=at(b2))
    await one.publish(Draft("config/x", {"n": 0}))
    await until(lambda: held(b2) == held(b1))

    append = b1._store.append
    for broker, client in ((b1, one), (b2, other)):  # in turns: b2 never sees that b1 has room
        broker._store.append = Full()
        client.emit(Draft("user/x", {"n": 1}))
        await until(lambda broker=broker: broker._recorder.full is not None and not broker.whole)
    await until(lambda: (b1._others.refusal, b2._others.refusal) == (None, None))
    reader = await r.raw("operator/r", reads=True)  # at b2
    with pytest.raises(TimeoutError):
        await reader.next(f.Refused, 3 * LOOK_S)
    assert (b1._others.refusal, b2._others.refusal) == (None, None)
    b1._store.append = append
    refused, _ = await reader.next(f.Refused)
    assert (refused.code, f"{at(b1)[0].address}" in refused.next) == ("store.full", True)


@scenario
async def test_a_leaf_whose_disk_is_full_sends_nobody_away(r: TestRealm) -> None:
    """Who is at a site is attached to its leaf, and to no other one while that lives (rule E5)."""
    others = (await r.broker())._others
    for leaf in (False, True):
        others._room.elsewhere, others.copying.leaf = True, leaf
        assert (others.refusal is None) == leaf


@scenario
async def test_who_was_away_while_the_others_moved_finds_them_where_it_is_configured_with(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    await announced(r, b1, b2)
    identities, own = (r.identities[b1], r.identities[b2]), at(b2)
    await r.stop(b2)
    b2._store.close()
    await r.stop(b1)
    b1._store.close()
    moved = await r.broker("b1", identity=identities[0], address=f"127.0.0.1:{free_port()}")
    ((topic, word),) = words([moved]).items()
    client = await r.client("operator/c", brokers=at(moved))
    await client.publish(Draft(topic, word, replaces=moved._ingest._held(topic)))
    again = await r.broker("b2", identity=identities[1], address=own[0].address, others=at(moved), born=False)
    await until(lambda: linked(again) == 1 and held(again) == held(moved))
    assert again._others.readings.known[0].address == moved.address


@pytest.mark.parametrize(
    ("linked", "noted", "ended", "before", "obeyed_at"),
    [
        (True, True, False, math.inf, 5.0 + TOGETHER_S),
        (True, True, False, 5.25, 5.25),
        (False, True, False, math.inf, 5.0),
        (True, True, True, math.inf, 5.0),
        (True, False, True, math.inf, 5.0),
        (True, False, False, math.inf, math.inf),
    ],
    ids=["it is read", "one waits", "it is not", "a key has ended, too", "a key has ended", "nothing new"],
)
def test_the_words_by_which_one_that_is_read_is_no_broker_any_more_are_obeyed_a_little_later(
    linked: bool, noted: bool, ended: bool, before: float, obeyed_at: float
) -> None:
    """Those that come one after the other put nothing off."""
    found: list[float] = []
    recalled: list[bool] = []
    stands: list[bool] = []
    own: Any = SimpleNamespace(
        readings=SimpleNamespace(alone=True),
        _stands_again=lambda: stands.append(True),
        _words=SimpleNamespace(recall=lambda: recalled.append(True), note=lambda _: noted),
        _removes_linked=lambda: linked,
        _clock=SimpleNamespace(boottime=lambda: 5.0),
        _obeys_at=before,
        _obey=lambda: found.append(5.0),
    )
    Others.stored(own, [cast("Row", SimpleNamespace(brought="broker/b2"))], ended=ended)
    assert [*found, own._obeys_at] == ([5.0, math.inf] if obeyed_at == 5.0 else [obeyed_at])
    assert recalled == stands == [True] * ended, "what the key had said on brokers counts no more"
