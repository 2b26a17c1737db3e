"""A leaf: the broker of a site, which has one upstream at a time (rule E5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from dsmt.bus.broker import places
from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.others import copying, holders, readings
from dsmt.bus.client import homing
from dsmt.errors import TransportError
from dsmt.event.kinds.realm import BrokerWord
from dsmt.event.records import to_data
from dsmt.operations.local.home.addresses import free_port
from dsmt.ports.bus import Cursor, Draft, Level
from dsmt.ports.realm import BrokerAddress
from tests.bus.meshes import at, held, linked, mesh
from tests.bus.realm import Facts, TestRealm, scenario
from tests.waiting import until

Taken = dict[tuple[str, str], Counter[Any]]


async def site(r: TestRealm, *names: str) -> tuple[Broker, ...]:
    """The mesh of these brokers, and a leaf that an operator has announced before it is started."""
    made = await mesh(r, *names)
    identity = r.identity("broker/site")
    leaf = BrokerAddress(f"127.0.0.1:{free_port()}", identity.key.public)
    operator = await r.client("operator/words", brokers=at(made[0]))
    for one in made:
        await operator.publish(Draft(f"config/{one._identity.name}", word(at(one)[0]), version=1))
    await operator.publish(Draft("config/broker/site", word(leaf, leaf=True), version=1))
    await until(lambda: all(len(one._others.readings.known) == len(names) for one in made))
    brokers = [address for one in made for address in at(one)]
    found = await r.broker("site", identity=identity, address=leaf.address, born=False, others=brokers)
    await until(lambda: found.whole and upstream(found))
    links, every = len(names) * (len(names) - 1) + 2, (found, *made)
    await until(lambda: sum(linked(one) for one in every) == links)
    await until(lambda: all(settled(one) for one in every) and sum(len(one._fan_out.copying) for one in every) == links)
    return (found, *made)


def settled(broker: Broker) -> bool:
    """Whether all that are linked were read to their end, and are asked for what the others do not bring.

    What one gives before it has come to its end is its history, in which nothing is left out.
    """
    copying, each = broker._others.copying, [one for one in broker._others.readings.others.values() if one.name]
    asked = all(one.asked is not None and one.asked[:2] == (one.losses, copying._left_out(one)) for one in each)
    return asked and all(one.complete and one.again_ms is None for one in each)


def word(at_: BrokerAddress, *, leaf: bool | msgspec.UnsetType = msgspec.UNSET) -> dict[str, Any]:
    return to_data(BrokerWord(address=at_.address, public=at_.public, by="alice", leaf=leaf))


def upstream(leaf: Broker) -> str:
    one = leaf._others.copying._upstream
    return "" if one is None else one.name


def split(leaf: Broker, others: Sequence[Broker]) -> tuple[Broker, list[Broker]]:
    """The leaf's upstream, and the other brokers of the mesh."""
    above = next(one for one in others if one._identity.name == upstream(leaf))
    return above, [one for one in others if one is not above]


def counted(brokers: Sequence[Broker]) -> Taken:
    """How often each broker is brought each event, by who brings it and to whom."""
    found: Taken = {}
    for one in brokers:
        brought, name = one._ingest.brought, one._identity.name

        def count(broker: str, signed: Any, brought: Any = brought, name: str = name) -> int:
            found.setdefault((broker, name), Counter())[signed.id] += 1
            return int(brought(broker, signed))

        one._ingest.brought = count  # type: ignore[method-assign]
    return found


@asynccontextmanager
async def cut(r: TestRealm, leaf: Broker, others: Sequence[Broker]) -> AsyncIterator[None]:
    """The uplink of a leaf is down: no connection is made, and those that are there are ended."""
    real, ports = r.network.connect, {one.address for one in others}
    inside = {leaf._identity.key.link_secret(): ports, **{one._identity.key.link_secret(): {leaf.address} for one in others}}

    async def connect(address: str, secret: bytes, **more: Any) -> Any:
        if address in inside.get(secret, ()):
            raise TransportError("link.refused", "the uplink is down")
        return await real(address, secret, **more)

    r.network.connect = connect  # type: ignore[method-assign]
    names = {leaf._identity.name, *(one._identity.name for one in others)}
    for one in (leaf, *others):
        for session in list(one._sessions.all()):
            if session.name in names and leaf._identity.name in (session.name, one._identity.name):
                one._disconnect(session.peer)
    try:
        yield
    finally:
        r.network.connect = real  # type: ignore[method-assign]


@scenario
async def test_what_is_said_on_either_side_is_with_all_and_crosses_the_uplink_once(r: TestRealm) -> None:
    leaf, b1, b2, b3 = await site(r, "b1", "b2", "b3")
    every = (leaf, b1, b2, b3)
    assert linked(leaf) == 1
    taken = counted(every)
    clients = [await r.client(f"operator/{number}", brokers=at(one)) for number, one in enumerate(every)]

    async def once(turn: int) -> bool:
        """Have all say something; whether all of it crosses the uplink, to and from one other broker, and once."""
        above, name = split(leaf, every[1:])[0]._identity.name, leaf._identity.name
        taken.clear()
        said: list[Any] = []
        for number, client in enumerate(clients):
            said += [client.emit(Draft(f"user/{number}", {"n": n})) for n in range(20)]
            ack = await client.publish(Draft(f"config/{number}-{turn}", {"n": 1}, version=1))
            assert ack.level is Level.SAFE
        ids = {one.id for one in said}
        await until(lambda: held(leaf) == held(b1) == held(b2) == held(b3) >= ids)
        up, down = taken.get((name, above), Counter()), taken.get((above, name), Counter())
        ways, each = {way for way in taken if name in way}, {*up.values(), *down.values()} == {1}
        crossed = ids <= up.keys() | down.keys() and not ids & up.keys() & down.keys()
        return crossed and each and ways == {(name, above), (above, name)}

    # who has to catch up is given history, in which nothing is left out, and who is not heard is not read any more, and then
    # some of it again: on a busy machine once, and not each time
    assert await once(1) or await once(2) or await once(3)


@scenario
async def test_a_leaf_whose_upstream_dies_goes_to_another_one_and_nothing_that_was_safe_is_lost(r: TestRealm) -> None:
    leaf, *made = await site(r, "b1", "b2", "b3")
    above, (one, other) = split(leaf, made)
    at_leaf = Facts(await r.client("operator/l", brokers=at(leaf)))
    at_above = Facts(await r.client("operator/u", brokers=at(above)))
    for n in range(30):
        at_leaf.emit("config/l", {"n": n})
        at_above.emit("config/u", {"n": n})
    said = [await at_leaf.publish("config/l", {"n": 30}), await at_above.publish("config/u", {"n": 30})]
    assert [(await each.acknowledged()).level for each in said] == [Level.SAFE] * 2
    safe = held(leaf)
    await r.stop(above)
    await until(lambda: upstream(leaf) in {one._identity.name, other._identity.name})
    late = [at_leaf.emit("config/l", {"n": n}) for n in range(31, 40)]
    for each in late:
        await each.acknowledged()
    await until(lambda: held(leaf) == held(one) == held(other))
    assert held(leaf) >= safe | {each.id for each in late}


@scenario
async def test_what_only_the_leaf_has_of_a_dead_upstream_is_with_all_when_it_is_linked_again(r: TestRealm) -> None:
    """What the upstream takes in goes to the leaf alone, which has called it safe: then it dies."""
    leaf, *made = await site(r, "b1", "b2")
    above, (other,) = split(leaf, made)
    facts = Facts(await r.client("operator/u", brokers=at(above)))
    await facts.publish("config/u", {"n": 0})
    await until(lambda: held(leaf) == held(other))
    real, name = other._ingest.brought, above._identity.name
    other._ingest.brought = lambda broker, signed: 100_000 if broker == name else real(broker, signed)  # type: ignore[method-assign]
    alone = await facts.publish("config/u", {"n": 1})
    assert (await alone.acknowledged()).level is Level.SAFE
    assert alone.id in held(leaf) - held(other)
    await r.stop(above)
    await until(lambda: alone.id in held(other))


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lasts for a minute lasts for a fifth of a second."""
    for module in (copying, places):
        monkeypatch.setattr(module, "OVERLAP_MS", 200)
    for module, name in ((readings, "MOST_MS"), (holders, "LASTING_MS"), (readings, "LAG_MS")):
        monkeypatch.setattr(module, name, 200)


def keep_out(broker: Broker, other: Broker) -> None:
    """What another one has does not get into a broker any more, as on a disk that is full."""
    real, name = broker._ingest.brought, other._identity.name
    broker._ingest.brought = lambda by, signed: 100_000 if by == name else real(by, signed)  # type: ignore[method-assign]


def place_ms(broker: Broker, other: Broker) -> int:
    return int(broker._others.readings.read_ms(key(other)))


@pytest.mark.usefixtures("soon")
@scenario
async def test_a_leaf_gets_what_its_upstream_did_not_get_of_the_next_one_for_long(r: TestRealm) -> None:
    leaf, *made = await site(r, "b1", "b2")
    above, (other,) = split(leaf, made)
    outside = Facts(await r.client("operator/o", brokers=at(other)))
    await outside.publish("config/o", {"n": 0})
    await until(lambda: held(leaf) == held(above) == held(other))
    keep_out(above, other)
    for n in range(1, 10):
        await outside.publish("config/o", {"n": n})
    late_ms = above.now_ms() + 1_000
    await until(lambda: place_ms(leaf, above) > late_ms)
    assert held(other) - held(leaf)
    await r.stop(above)
    await until(lambda: held(leaf) == held(other))


@pytest.mark.usefixtures("soon")
@scenario
async def test_what_was_safe_with_the_leaf_reaches_a_next_one_that_was_behind_its_upstream_for_long(r: TestRealm) -> None:
    leaf, *made = await site(r, "b1", "b2")
    above, (other,) = split(leaf, made)
    facts = Facts(await r.client("operator/u", brokers=at(above)))
    await facts.publish("config/u", {"n": 0})
    await until(lambda: held(leaf) == held(other))
    real = other._ingest.brought
    keep_out(other, above)
    alone = await facts.publish("config/u", {"n": 1})
    assert (await alone.acknowledged()).level is Level.SAFE
    late_ms = above.now_ms() + 1_000
    await until(lambda: place_ms(leaf, above) > late_ms)
    assert alone.id in held(leaf) - held(other)
    await r.stop(above)
    other._ingest.brought = real  # type: ignore[method-assign]
    await until(lambda: alone.id in held(other))


@scenario
async def test_a_site_works_on_while_its_uplink_is_down_and_both_sides_have_all_within_five_seconds(r: TestRealm) -> None:
    leaf, *made = await site(r, "b1", "b2")
    inside, outside = [Facts(await r.client(f"operator/{n}", brokers=at(one))) for n, one in enumerate((leaf, made[0]))]
    async with cut(r, leaf, made):
        await until(lambda: linked(leaf) == 0 and not any(one._others.attached.is_attached(key(leaf)) for one in made))
        for n in range(20):
            await inside.publish("config/i", {"n": n})
            await outside.publish("config/o", {"n": n})
        assert held(leaf) - held(made[0])
        assert held(made[0]) - held(leaf)
    await until(lambda: held(leaf) == held(made[0]) == held(made[1]), 5)


@scenario
async def test_a_leaf_that_fell_silent_is_read_again_only_when_it_was_said_to_be_there(r: TestRealm) -> None:
    leaf, above = await site(r, "b1")
    presence, other = above._recorder.sessions.presence, next(iter(above._others.readings.others.values()))
    inside = Facts(await r.client("operator/l", brokers=at(leaf)))
    heard, presence.heard = presence.heard, lambda *_: None  # type: ignore[method-assign,assignment]
    presence._known["broker/site"].becomes("silent", 0)  # its uplink is cut, and its connection here is not ended yet
    await until(lambda: other.task is None)
    said = await inside.publish("config/i", {"n": 1})
    presence.heard = heard  # type: ignore[method-assign]
    await until(lambda: said.id in held(above))
    order = [row.read() for row in above._store.rows(0, 10**6)]
    there = max(n for n, one in enumerate(order) if one.event.topic == "broker/b1/session/broker/site")
    assert order[there].event.data["state"] == "open"
    assert there < next(n for n, one in enumerate(order) if one.id == said.id)


@scenario
async def test_what_was_said_while_it_was_cut_off_reaches_another_upstream_than_before(r: TestRealm) -> None:
    """Its old upstream dies meanwhile; the next one has never read it, or long ago."""
    leaf, *made = await site(r, "b1", "b2", "b3")
    above, (one, other) = split(leaf, made)
    inside = Facts(await r.client("operator/l", brokers=at(leaf)))
    outside = Facts(await r.client("operator/o", brokers=at(one)))
    async with cut(r, leaf, made):
        for n in range(20):
            await inside.publish("config/i", {"n": n})
            await outside.publish("config/o", {"n": n})
        await r.stop(above)
    await until(lambda: held(leaf) == held(one) == held(other))


def key(broker: Broker) -> bytes:
    return broker._identity.key.public


@scenario
async def test_who_reads_a_leaf_for_the_first_time_goes_on_where_another_has_ended(r: TestRealm) -> None:
    """And not at the beginning, which crosses the uplink no second time, nor at its own old place."""
    leaf, *made = await site(r, "b1", "b2")
    above, (other,) = split(leaf, made)

    def handed_ms() -> int:
        return other._others.holders.handed_ms(at(leaf)[0]) or 0

    before_ms = other.now_ms()
    await until(lambda: handed_ms() >= before_ms)  # it is read now, by one that is linked
    async with cut(r, leaf, made):
        await until(lambda: not above._others.attached.is_attached(key(leaf)))
        closed_ms = above.now_ms()
        read_ms = other._others.readings.read_ms
        await until(lambda: read_ms(key(above)) > closed_ms)
        assert before_ms - 1_000 < handed_ms() <= closed_ms


@scenario
async def test_who_is_attached_to_a_leaf_is_seen_by_all_and_a_lost_leaf_is_noticed_by_all(r: TestRealm) -> None:
    leaf, *made = await site(r, "b1", "b2", "b3")
    above, (one, other) = split(leaf, made)
    await r.client("node/n1", brokers=at(leaf))
    names = {each: each._identity.name.removeprefix("broker/") for each in (leaf, *made)}

    def lost(where: Broker) -> set[str]:
        return set(where._session_words._known.lost(names[where]))

    def seen(where: Broker) -> bool:
        return where._store.winner(f"{leaf._identity.name}/session/node/n1") is not None

    await until(lambda: all(seen(each) and not lost(each) for each in (leaf, *made)))
    # at its start it tries them all: that those which it left have closed, the one that it chose hears a moment later
    await until(lambda: above._session_words._known.upstream("site", ()) == names[above])
    await r.stop(above)
    await until(lambda: upstream(leaf) in {one._identity.name, other._identity.name})
    await until(lambda: all(lost(each) == {names[above]} for each in (leaf, one, other)))
    async with cut(r, leaf, made):
        await until(lambda: lost(one) == lost(other) == {names[above], "site"})
        await until(lambda: lost(leaf) == {"b1", "b2", "b3"})
    await until(lambda: all(lost(each) == {names[above]} for each in (leaf, one, other)))


@scenario
async def test_a_client_of_a_site_is_attached_to_its_leaf_and_no_other_ever_is(r: TestRealm) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(homing, "HOME_S", 0.5)
        patch.setattr(homing, "JITTER_S", 0.5)
        leaf, *made = await site(r, "b1", "b2")
        mine = await r.client("node/n1", brokers=at(made[0]) + at(leaf))
        alien = await r.client("node/n2", brokers=at(made[0]))
        await until(lambda: len(alien.brokers.all) == 2 and len(mine.brokers.all) == 3)
        assert {one.address for one in alien.brokers.all} == {one.address for one in made}
        await until(lambda: mine.attached and mine.broker == leaf._identity.name)
        identity, address = r.identities[leaf], leaf.address
        await r.stop(leaf)
        await until(lambda: mine.attached and mine.broker != leaf._identity.name)
        leaf._store.close()
        again = await r.broker("site", identity=identity, address=address, others=at(made[0]) + at(made[1]))
        await until(lambda: mine.attached and mine.broker == again._identity.name)


def test_who_goes_on_where_another_has_ended_reads_nothing_of_before_again() -> None:
    own, leaf = BrokerAddress("127.0.0.1:1", bytes(32)), BrokerAddress("127.0.0.1:2", bytes(range(32)), leaf=True)
    nothing: Any = None
    read = copying.Copying(
        own,
        nothing,
        holders=cast(Any, SimpleNamespace(handed_ms=lambda _: 9_000_000, readings=readings.Readings(nothing, nothing))),
        is_attached=nothing,
        seeds=(),
        meta=SimpleNamespace(get=lambda _: None),
        clock=SimpleNamespace(boottime=lambda: 1.0),
        now_ms=lambda: 10_000_000,
        take=nothing,
        whole=nothing,
        withholding=nothing,
        trimmed=nothing,
        log=nothing,
    )
    read.know([leaf])
    (other,) = read._others.values()
    other.place, other.again_ms = Cursor("s", 5, 1_000_000), 0
    read._go_on(other)
    assert (other.place, other.since, other.again_ms) == (None, 9_000_000 - places.OVERLAP_MS, None)
    other.since, other.complete, other.place, read._first = None, True, Cursor("s", 5, 1), other
    other.moved_at, other.bus = 0.0, SimpleNamespace(attached=True, broker="broker/site")
    assert read._may_begin(other)
    assert other.since == 9_000_000 - places.OVERLAP_MS
