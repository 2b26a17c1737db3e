"""What a revoked key said on the other side of a partition: it stands nowhere when the sides meet (rule J3)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dsmt.bus.broker.broker import Broker
from dsmt.bus.client.client import BusClient
from dsmt.bus.store.elections import Elections
from dsmt.bus.wire import frames as f
from dsmt.errors import RefusedError
from dsmt.event.kinds.realm import Revoked
from dsmt.event.records import to_data
from dsmt.operations.read.realm.sight import watch
from dsmt.ports.bus import Draft
from dsmt.ports.store import StoreFullError
from dsmt.trust.identity import delegate
from dsmt.trust.keys import key_id_of
from dsmt.trust.revocations import topic_of
from tests.bus.meshes import at, held, linked, mesh, words
from tests.bus.realm import Facts, Pen, TestRealm, memory_network, reading, realm, scenario
from tests.bus.test_leaf import cut
from tests.waiting import until

CONTROL = {"mode": "active", "by": "bob", "reason": ""}
GRAVE = {"by": "eve", "reason": "stolen"}
FOLDS = {"conflate": True, "signals": False}
SET = {"expression": "n1", "by": "bob"}


class Sides(NamedTuple):
    """Two brokers; `eve`, whose key is to end, is at the second one, `bob` at the first."""

    b1: Broker
    b2: Broker
    eve: Facts
    bob: Facts

    async def alike(self) -> None:
        await until(lambda: held(self.b1) == held(self.b2))


@asynccontextmanager
async def sides(r: TestRealm) -> AsyncIterator[Sides]:
    b1, b2 = await mesh(r, "b1", "b2")
    clients = [await r.client(f"operator/{name}", brokers=at(one)) for name, one in (("eve", b2), ("bob", b1))]
    yield Sides(b1, b2, *map(Facts, clients))


async def revoke(r: TestRealm, eve: Facts, there: Broker) -> None:
    root = await r.client("root", identity=r.identity("root"), brokers=at(there))
    said = Revoked(by="root", name=eve._client.source)
    await root.publish(Draft(topic_of(eve._client._identity.key.key_id, "root"), to_data(said)))


def stands(broker: Broker, topic: str) -> Any:
    """Who said what stands on a topic in a broker's store, and its data."""
    row = broker._store.winner(topic)
    return None if row is None else (row.read().event.source, row.read().event.data)


async def read(late: BusClient, *patterns: str) -> list[dict[str, Any]]:
    """What who comes late is given."""
    async with reading(late, *patterns) as got:
        return [one.signed.event.data for one in got.arrived]


def full(self: Elections, rows: Any) -> None:
    raise StoreFullError("store.full", "no room", what="is full")


@scenario
async def test_what_was_signed_anew_stands_though_the_key_went_on_where_nobody_heard_of_its_end(r: TestRealm) -> None:
    async with sides(r) as s:
        first = await s.eve.publish("config/x", {"n": 1})
        await s.alike()
        async with cut(r, s.b2, [s.b1]):
            for n in (2, 3):
                await s.eve.publish("config/x", {"n": n})
            s.bob._last["config/x"] = first
            await s.bob.publish("config/x", {"n": 1})
            await revoke(r, s.eve, s.b1)
        await until(lambda: stands(s.b1, "config/x") == stands(s.b2, "config/x") == ("operator/bob", {"n": 1}))
        assert await read(await r.client("operator/late", brokers=at(s.b2)), "config/x") == [{"n": 1}]
        await s.bob.publish("config/x", {"n": 4})
        await until(lambda: stands(s.b2, "config/x") == ("operator/bob", {"n": 4}))


@scenario
async def test_what_it_said_first_stands_for_nobody_who_comes_later_and_in_nobody_s_way(r: TestRealm) -> None:
    async with sides(r) as s:
        async with cut(r, s.b2, [s.b1]):
            await s.eve.publish("config/x", {"n": 1})
            await s.eve.publish("config/x", {"n": 2})
            await revoke(r, s.eve, s.b1)
        await until(lambda: s.b2._trust.is_revoked(s.eve._client._identity.key.key_id))
        late = await r.client("operator/late", brokers=at(s.b2))
        assert await read(late, "config/x") == []
        await Facts(late).publish("config/x", {"n": 3})
        await until(lambda: stands(s.b1, "config/x") == stands(s.b2, "config/x") == ("operator/late", {"n": 3}))


@scenario
async def test_what_its_tombstone_hid_is_not_hidden_and_what_another_one_had_ended_stays_ended(r: TestRealm) -> None:
    async with sides(r) as s:
        await s.bob.publish("node/n1/control", CONTROL)
        await s.bob.publish("nodeset/few", SET)
        await s.bob.publish("tombstone/nodeset/few", GRAVE)
        await s.alike()
        async with cut(r, s.b2, [s.b1]):
            await s.eve.publish("tombstone/node/n1", GRAVE)
            await s.eve.publish("nodeset/few", SET | {"by": "eve"}, epoch=2)
            assert stands(s.b2, "node/n1/control") is None
            await revoke(r, s.eve, s.b1)
        await until(lambda: stands(s.b2, "node/n1/control") == ("operator/bob", CONTROL))
        late = await r.client("operator/late", brokers=at(s.b2))
        assert await read(late, "node/n1/control", "nodeset/") == [CONTROL]
        await s.bob.publish("node/n1/control", CONTROL | {"mode": "excluded"})
        await until(lambda: stands(s.b1, "node/n1/control") == stands(s.b2, "node/n1/control"))


@scenario
async def test_a_full_disk_delays_it_and_a_broker_that_ends_before_does_it_when_it_begins(r: TestRealm) -> None:
    b1 = await r.broker()
    eve, bob = Facts(await r.client("operator/eve")), Facts(await r.client("operator/bob"))
    with pytest.MonkeyPatch.context() as patch:
        for topic in ("config/x", "config/y"):
            bob._last[topic] = await bob.publish(topic, {"n": 1})
            eve._last[topic] = bob._last[topic]
            await eve.publish(topic, {"n": 2})
        patch.setattr(Elections, "elect", full)
        await revoke(r, eve, b1)
        await until(lambda: b1._ingest._void.waits)
        assert stands(b1, "config/x") == ("operator/eve", {"n": 2})
    b1._ingest.expire()
    assert not b1._ingest._void.waits
    assert stands(b1, "config/x") == stands(b1, "config/y") == ("operator/bob", {"n": 1})
    db = b1._store._db  # type: ignore[attr-defined]
    kept = "SELECT topic FROM events WHERE fact = 1 AND (winner = 1) = (ended IS NOT NULL)"
    assert db.connection.execute(kept).fetchall() == [], "what stands no more is trimmed one day, and what stands is not"
    for said in (0, 1):
        db.do(
            "UPDATE events SET winner = ? WHERE topic = 'config/y' AND source = ?",
            (said, ("operator/bob", "operator/eve")[said]),
        )
    assert stands(b1, "config/y") == ("operator/eve", {"n": 2})
    again = await r.restarted(b1)
    assert stands(again, "config/y") == ("operator/bob", {"n": 1})


@asynccontextmanager
async def removed(r: TestRealm, s: Sides) -> AsyncIterator[tuple[str, dict[str, Any], BusClient]]:
    """Eve has removed b1 at b2, which is cut off from it: the topic of the word on b1, what Bob had said there, a reader."""
    said = words([s.b1, s.b2])
    for topic, data in said.items():
        await s.bob.publish(topic, data)
    await s.alike()
    topic, reader = "config/broker/b1", await r.client("operator/reader", brokers=at(s.b2))
    s.eve._last[topic] = s.bob._last[topic]
    async with cut(r, s.b2, [s.b1]):
        await s.eve.publish(topic, said[topic] | {"removed": True, "by": "eve"})
        await until(lambda: "b1" in reader.brokers._words.removed and not s.b2._others.readings.known)
        yield topic, said[topic], reader


@scenario
async def test_who_is_a_broker_is_told_by_what_stands_then_and_the_brokers_read_each_other_again(r: TestRealm) -> None:
    async with sides(r) as s:
        async with removed(r, s) as (topic, said, reader):
            await revoke(r, s.eve, s.b2)
            await until(lambda: stands(s.b2, topic) == ("operator/bob", said))
        await until(lambda: linked(s.b1) == linked(s.b2) == 1)
        await until(lambda: "b1" in reader.brokers._words.present)


@scenario
async def test_what_a_key_said_under_the_name_that_has_ended_is_void_though_another_has_named_that_key(
    r: TestRealm,
) -> None:
    b1 = await r.broker()
    thief, other = r.identity("operator/eve"), r.identity("operator/mole")
    eve = r.identity("operator/eve.x7", parent=thief)
    said, bob = Facts(await r.client(eve.name, identity=eve)), Facts(await r.client("operator/bob"))
    mole = delegate("operator/mole.x7", other, key=eve.key, now_s=int(time.time()), serial=os.urandom(16))
    b1._trust.add_all([one.raw for one in mole.chain])
    said._last["config/x"] = await bob.publish("config/x", {"n": 1})
    await said.publish("config/x", {"n": 2})
    root = await r.client("root", identity=r.identity("root"))
    await root.publish(Draft(topic_of(thief.key.key_id, "root"), to_data(Revoked(by="root", name=thief.name))))
    assert stands(b1, "config/x") == ("operator/bob", {"n": 1})


@scenario
async def test_the_history_is_looked_through_once_and_not_where_nothing_new_is_void(r: TestRealm) -> None:
    await r.broker()
    eve = Facts(await r.client("operator/eve"))
    for n in range(3):
        await eve.publish(f"config/x{n}", {"n": 1})
    with pytest.MonkeyPatch.context() as patch:
        looked, real = [], Elections.beaten
        patch.setattr(Elections, "beaten", lambda self, topics: looked.append(topics) or real(self, topics))
        root, counts = await r.client("root"), []
        for one in (r.identity("node/n1"), eve._client._identity, r.identity("node/n2")):
            said = Revoked(by="root", name=one.name)
            await root.publish(Draft(topic_of(one.key.key_id, "root"), to_data(said)))
            counts.append(len(looked))
        assert counts == [0, 1, 1]
        assert looked == [{"config/x0", "config/x1", "config/x2"}]


@scenario
async def test_no_fact_of_who_is_trusted_is_read_when_the_key_of_somebody_else_ends(r: TestRealm) -> None:
    """A node's key ended agents of its own, one after the other, and for each all that operators had said was read."""
    standing, found = Elections.standing, []

    def looked(self: Elections, *about: Any) -> list[Any]:
        found.append(standing(self, *about))
        return found[-1]

    broker = await r.broker()
    node, eve = r.identity("node/n1"), Facts(await r.client("operator/eve"))
    agent = r.identity("agent/n1/web/app/0", parent=node)
    await r.client(agent.name, identity=agent)
    client = await r.client(node.name, identity=node)
    for number in range(3):
        await eve.publish(f"user/f{number}", {"n": number}, version=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Elections, "standing", looked)
        await client.publish(Draft(topic_of(agent.key.key_id, node.name), to_data(Revoked(by=node.name))))
        assert not any(found)
        await revoke(r, eve, broker)
    assert sum(map(len, found)) == 3


@scenario
async def test_what_had_died_meanwhile_lets_nothing_stand_again_that_it_had_displaced(r: TestRealm) -> None:
    b1 = await r.broker()
    eve, bob = await r.client("operator/eve"), await r.client("operator/bob")
    before = None
    for who, ttl_ms in ((bob, None), (bob, 1000), (eve, None)):
        said = who.emit(Draft("config/x", {"ttl_ms": ttl_ms}, replaces=before, ttl_ms=ttl_ms))
        await said.acknowledged()
        before = said
    dead_ms = b1.now_ms() + 1000
    await until(lambda: b1.now_ms() > dead_ms)
    await revoke(r, Facts(eve), b1)
    assert stands(b1, "config/x") == ("operator/eve", {"ttl_ms": None})


@scenario
async def test_the_next_one_counts_on_from_numbers_that_were_raised_step_by_step_and_are_void(r: TestRealm) -> None:
    b1 = await r.broker()
    eve, bob = await r.client("operator/eve"), await r.client("operator/bob")
    held = await Facts(bob).publish("config/x", {"by": "bob"})
    before = held
    for version in (2**20, 2**21):
        said = eve.emit(Draft("config/x", {"by": "eve"}, replaces=before, version=version))
        await said.acknowledged()
        before = said
    await revoke(r, Facts(eve), b1)
    for topic, version, follows in (("config/x", 2**21 + 2**20 + 1, held), ("config/y", 2**21, None)):
        with pytest.raises(RefusedError, match="far above"):
            await bob.publish(Draft(topic, {"by": "bob"}, replaces=follows, version=version))
    await bob.publish(Draft("config/x", {"by": "bob"}, replaces=held, version=2**21 + 1))


@scenario
async def test_what_another_one_had_ended_stays_so_where_a_void_word_had_ended_it_again(r: TestRealm) -> None:
    async with sides(r) as s:
        await s.bob.publish("nodeset/few", SET)
        s.eve._last["tombstone/nodeset/few"] = await s.bob.publish("tombstone/nodeset/few", GRAVE | {"by": "bob"})
        await s.alike()
        await s.eve.publish("tombstone/nodeset/few", GRAVE, epoch=2)
        await until(lambda: stands(s.b1, "tombstone/nodeset/few") == ("operator/eve", GRAVE))
        await revoke(r, s.eve, s.b1)
        for one in (s.b1, s.b2):
            await until(lambda one=one: stands(one, "tombstone/nodeset/few") == ("operator/bob", GRAVE | {"by": "bob"}))  # type: ignore[misc]
        assert await read(await r.client("operator/late", brokers=at(s.b2)), "nodeset/") == []


@scenario
async def test_what_a_revoked_controller_said_stands_until_another_one_says_it_again(r: TestRealm) -> None:
    b1 = await r.broker()
    eve = Facts(await r.client("controller/eve"))
    await eve.publish("service/web/barrier/begin/released", {"at_ms": 7})
    await revoke(r, eve, b1)
    await until(lambda: b1._trust.is_revoked(eve._client._identity.key.key_id))
    held_now = b1._ingest._held("service/web/barrier/begin/released")
    assert held_now is not None
    assert held_now.event.source == "controller/eve"


@scenario
async def test_who_knew_of_the_end_before_its_broker_is_told_what_stands_again(r: TestRealm) -> None:
    b1 = await r.broker()
    eve, bob = Facts(await r.client("operator/eve")), Facts(await r.client("operator/bob"))
    eve._last["config/x"] = await bob.publish("config/x", {"n": 1})
    await eve.publish("config/x", {"n": 2})
    late = await r.client("operator/late")
    late._trust._end(eve._client._identity.key.key_id, key_id_of(r.root.public))
    async with reading(late, "config/x", **FOLDS) as got:
        assert got.arrived == []
        await revoke(r, eve, b1)
        await until(lambda: [one.signed.event.data for one in got.arrived] == [{"n": 1}])


@scenario
async def test_what_stands_again_later_for_the_disk_was_full_is_told_then_also_who_is_a_broker(r: TestRealm) -> None:
    async with sides(r) as s:
        async with removed(r, s) as (topic, said, reader):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Elections, "elect", full)
                await revoke(r, s.eve, s.b2)
                await until(lambda: s.b2._ingest._void.waits)
            async with reading(await r.client("operator/late", brokers=at(s.b2)), topic, **FOLDS) as got:
                assert got.arrived == []
                s.b2._ingest.expire()
                await until(lambda: [one.signed.event.data for one in got.arrived] == [said])
        await until(lambda: linked(s.b1) == linked(s.b2) == 1)
        await until(lambda: "b1" in reader.brokers._words.present)


@scenario
async def test_who_was_away_when_it_came_to_stand_again_reads_on_from_there(r: TestRealm) -> None:
    b1 = await r.broker()
    eve, bob = Facts(await r.client("operator/eve")), Facts(await r.client("operator/bob"))
    eve._last["config/x"] = await bob.publish("config/x", {"n": 1})
    await eve.publish("config/x", {"n": 2})
    late = await r.client("operator/late")
    late._trust._end(eve._client._identity.key.key_id, key_id_of(r.root.public))
    async with reading(late, "config/x", **FOLDS) as got:
        await r.stop(late)
        await revoke(r, eve, b1)
        await until(lambda: stands(b1, "config/x") == ("operator/bob", {"n": 1}))
        r.tasks[late] = asyncio.get_running_loop().create_task(late.run())
        await until(lambda: [one.signed.event.data for one in got.arrived] == [{"n": 1}])


@scenario
async def test_a_command_that_looks_on_sees_what_stands_when_a_key_has_ended(r: TestRealm) -> None:
    b1 = await r.broker()
    eve, bob = Facts(await r.client("operator/eve")), Facts(await r.client("operator/bob"))
    eve._last["nodeset/few"] = await bob.publish("nodeset/few", SET)
    await eve.publish("nodeset/few", SET | {"expression": "n2"})
    await eve.publish("nodeset/evil", SET)
    said = []
    async with asyncio.timeout(20), aclosing(watch(await r.client("operator/carol", reads=True))) as sights:
        async for sight in sights:
            stand = {topic: sight.view.winner(topic) for topic in ("nodeset/few", "nodeset/evil")}
            said.append({topic: one.event.data["expression"] for topic, one in stand.items() if one is not None})
            if len(said) == 1:
                await revoke(r, eve, b1)
            if said[-1] == {"nodeset/few": "n1"}:
                break
    assert said[0] == {"nodeset/few": "n2", "nodeset/evil": "n1"}


@pytest.mark.parametrize("brought", [False, True])
def test_a_revocation_whose_time_is_to_come_ends_its_key_and_holds_nothing_against_anybody(
    brought: bool, tmp_path: Path
) -> None:
    async def test(r: TestRealm) -> None:
        b1 = await r.broker()
        eve, bob = Facts(await r.client("operator/eve")), Facts(await r.client("operator/bob"))
        eve._last["config/x"] = await bob.publish("config/x", {"n": 1})
        await eve.publish("config/x", {"n": 2})
        root, key_id = r.identity("root"), eve._client._identity.key.key_id
        said = Pen(root).write(topic_of(key_id, "root"), to_data(Revoked(by="root", name="operator/eve")), ahead_s=60)
        if brought:
            assert b1._ingest.brought("broker/b2", said) > 0
        else:
            raw = await r.raw(root.name, identity=root)
            raw.send(f.Publish(), said.raw)
            assert (await raw.next(f.Nacked))[0].code == "clock_ahead"
        assert b1._trust.is_revoked(key_id)
        assert stands(b1, "config/x") == ("operator/eve", {"n": 2}), "nobody was told: nothing else stands yet"
        await Facts(await r.client("operator/late")).publish("config/x", {"n": 3})
        assert stands(b1, "config/x") == ("operator/late", {"n": 3})

    async def main() -> None:
        async with asyncio.timeout(40), realm(memory_network(), tmp_path) as r:
            await test(r)

    asyncio.run(main())
