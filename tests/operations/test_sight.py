"""What an operator's command reads: of one service it needs no more than that is large."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from dsmt.errors import DsmtError
from dsmt.event.envelope import Event
from dsmt.event.kinds.broker import BrokerNotice, Withheld
from dsmt.event.kinds.realm import NodesetFact, Tombstone
from dsmt.event.topic import matches
from dsmt.operations.read.realm.passing import KEEPERS_BYTES, Passing
from dsmt.operations.read.realm.sight import Sight, look, look_at, sight_of
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.words.targets import Target
from dsmt.operations.write import controlling, removing, revising
from dsmt.operations.write.controlling import following
from dsmt.operations.write.rolling_back import rollback
from dsmt.ports.bus import Complete, Cursor, Draft, Interest
from dsmt.view import PATTERNS, View, patterns_of
from dsmt.view.following import ViewFollower
from dsmt.view.view import MOST_SERVICES
from tests.bus.idle import run_alone
from tests.bus.realm import memory_network, realm
from tests.controllers.build import Realm, agent, key, web
from tests.controllers.signing import signed
from tests.loops import in_virtual_time

from .sights import sight


def busy(services: int) -> Realm:
    """Five nodes and some services; one instance is held, one node dead, one without a word, one without its manager."""
    realm = Realm("n1", "n2", "n3", "n4")
    realm.node("n5", broker="b2")
    realm.session("broker/b2", "closed")
    for number in range(services):
        realm.apply(web(2, service=f"s{number}"))
    for removed in (False, True):
        realm.apply(web(3), removed=removed)
    grave = Tombstone(by="alice", reason="a test")
    realm.say("operator/alice", "tombstone/service/web", grave)
    realm.apply(web(3))
    realm.say("operator/alice", "nodeset/good", NodesetFact(expression="n1", by="alice", reason="a test"))
    realm.settle()
    for number in range(services):
        for index, node in enumerate(realm.nodes_of(f"s{number}")):
            realm.session(f"agent/{node}/s{number}/app/{index}", "open")
    for index, node in enumerate(realm.nodes_of()):
        realm.session(agent(key(index), node or ""), "open")
    realm.hold(key(0))
    apart = [*realm.view.nodes["n2"].sources, *realm.view.nodes["n5"].sources]
    for source in sorted({*apart} - {"monitor/n2", "node/n5", "monitor/n5"}):
        realm.session(source, "closed", how="peer")
    realm.silence("n3")
    realm.verdict("n4")
    realm.settle()
    return realm.after(15)


def seen(realm: Realm, patterns: tuple[str, ...]) -> tuple[Sight, int]:
    """What is seen through these patterns, and of how many facts."""
    view = View()
    facts = {signed.event.topic: signed for _, signed in realm.rows}
    taken = [one for topic, one in facts.items() if any(matches(pattern, topic) for pattern in patterns)]
    for one in taken:
        view.apply(one)
    return Sight(view, realm.now_ms, realm.now_ms - 400, realm.broker, whole=True), len(taken)


@pytest.mark.parametrize("services", [0, 5])
def test_of_one_service_the_same_is_seen_as_in_the_whole_realm(services: int) -> None:
    realm = busy(services)
    whole, own = seen(realm, PATTERNS)[0], seen(realm, patterns_of(["web"]))[0]
    assert instances(own, Target("web")) == instances(whole, Target("web"))
    assert own.view.services["web"].spec == whole.view.services["web"].spec
    assert own.fleet.members == whole.fleet.members
    assert {n: own.fleet.state(n) for n in own.fleet.members} == {n: whole.fleet.state(n) for n in own.fleet.members}


def test_what_is_read_of_one_service_does_not_grow_with_the_others() -> None:
    counts = {services: seen(busy(services), patterns_of(["web"]))[1] for services in (0, 5, 10)}
    assert max(counts.values()) <= counts[0] + 3, counts  # where its instances are differs, and what is said of that
    assert seen(busy(10), PATTERNS)[1] > 2 * counts[10]


def test_of_many_services_the_whole_realm_is_read() -> None:
    names = [f"s{number}" for number in range(MOST_SERVICES + 1)]
    assert patterns_of(names) == PATTERNS
    assert len(patterns_of(names[:-1])) <= 256


def test_what_is_said_of_a_service_follows_the_same_facts_as_in_the_whole_realm() -> None:
    realm = busy(3)
    whole, own = seen(realm, PATTERNS)[0].view, seen(realm, patterns_of(["web"]))[0].view
    topics = ["service/web/spec", "tombstone/service/web", *(f"service/web/control/app/{index}" for index in range(3))]
    assert whole.epoch("service/web/spec") > 1
    for topic in topics:
        assert (own.epoch(topic), own.winner(topic)) == (whole.epoch(topic), whole.winner(topic)), topic
    assert own.nodesets == whole.nodesets != {}
    for index in range(3):
        assert following(own.slot(key(index))) == following(whole.slot(key(index)))


class Asked:
    """A bus that delivers nothing; what was asked of it. Its broker is whole from a question on."""

    broker = "broker/b1"

    def __init__(self, whole_from: int = 0) -> None:
        self.patterns: list[tuple[str, ...]] = []
        self._whole_from = whole_from

    def now_ms(self) -> int:
        return 0

    @asynccontextmanager
    async def subscribe(self, interest: Interest) -> AsyncIterator[Any]:
        async def batches(whole: bool) -> AsyncIterator[list[Complete]]:
            yield [Complete(Cursor("s", 0, 0), whole=whole)]

        self.patterns.append(interest.patterns)
        yield batches(len(self.patterns) > self._whole_from)


def test_what_has_died_of_age_since_it_came_is_not_seen() -> None:
    realm, follower = Realm("n1"), ViewFollower()
    realm.endpoint(key(), "n1", generation=1)
    for _, event in realm.rows:
        follower.view.apply(event)
    at: Any = SimpleNamespace(now_ms=lambda: realm.now_ms, broker="broker/b1")
    assert sight_of(follower, at).view.slot(key()).instances["n1"].endpoint is not None
    realm.after(90)
    assert not sight_of(follower, at).view.slot(key()).instances


def test_a_command_that_names_no_service_reads_the_whole_realm() -> None:
    bus = Asked()
    asyncio.run(look(bus))  # type: ignore[arg-type]
    asyncio.run(look(bus, of=("web",)))  # type: ignore[arg-type]
    assert bus.patterns == [PATTERNS, patterns_of(["web"])]


@pytest.mark.parametrize("whole_from", [0, 1, 5, 6])
def test_a_view_is_whole_when_its_broker_was_for_all_that_was_read_of_it(whole_from: int) -> None:
    bus = Asked(whole_from)
    assert asyncio.run(look(bus, passing=True)).whole is (whole_from == 0)  # type: ignore[arg-type]
    assert len(bus.patterns) == 6


@pytest.mark.parametrize(
    "act",
    [
        lambda bus: controlling.stop(bus, Target("web"), by="a", reason=""),
        lambda bus: controlling.start(bus, Target("web"), by="a", reason=""),
        lambda bus: controlling.restart(bus, Target("web"), by="a", reason=""),
        lambda bus: controlling.retry(bus, Target("web"), by="a", reason=""),
        lambda bus: revising.scale(bus, Target("web", "app"), 2, by="a", reason=""),
        lambda bus: revising.use_nodes(bus, Target("web", "app"), "n1", by="a", reason=""),
        lambda bus: removing.remove(bus, "web", by="a", reason=""),
        lambda bus: rollback(bus, "web", None, by="a", reason=""),
    ],
)
def test_what_is_done_to_a_service_reads_that_service_and_the_realm_where_there_is_none(act: Callable[[Any], Any]) -> None:
    bus = Asked()
    with pytest.raises((KeyError, DsmtError)):
        asyncio.run(act(bus))
    assert bus.patterns == [patterns_of(["web"]), PATTERNS]


@pytest.mark.parametrize(
    ("service", "reads"),
    [("web", [("web",)]), ("wbe", [("wbe",), ()]), ("a b", [()])],
    ids=["it is there", "it is none", "no name"],
)
def test_who_asks_for_a_service_reads_it_alone_where_it_is_there(
    monkeypatch: pytest.MonkeyPatch, service: str, reads: list[tuple[str, ...]]
) -> None:
    realm, asked = Realm("n1"), list[tuple[str, ...]]()
    realm.apply(web(1))

    async def seen(_bus: object, *, passing: bool, of: tuple[str, ...] = ()) -> Sight:
        assert passing
        asked.append(of)
        return sight(realm)

    monkeypatch.setattr("dsmt.operations.read.realm.sight.look", seen)
    bus: Any = None
    assert "web" in asyncio.run(look_at(bus, service, passing=True)).view.services
    assert asked == reads


def test_what_one_broker_says_is_withheld_no_more_another_may_still_miss() -> None:
    passing, lacks = Passing(), Withheld(count=2, source="operator/a", incarnation=1, sequence=7)
    for by, said in (("b1", lacks), ("b2", lacks), ("b1", replace(lacks, count=0)), ("b3", replace(lacks, count=0))):
        passing.take(signed(f"broker/{by}", f"broker/{by}/withheld/b9", said).event)
    assert passing.withheld == {"b9": {"b2": lacks}}


def test_what_did_not_come_and_what_came_twice_are_both_told_of_the_stream() -> None:
    passing = Passing()
    for number, kind in enumerate(("gap", "equivocation", "clock"), 1):
        told = BrokerNotice(kind=kind, source="operator/a", topic=None, first=1, last=1, message="it is so")
        passing.take(signed("broker/b1", "broker/b1/notice", told, version=number).event)
    assert passing.gaps == 2


@in_virtual_time
async def test_all_that_is_read_for_a_look_is_asked_for_at_once() -> None:
    """One was asked for when the one before had come: over a slow link, or of a busy broker, they took six times as long."""
    asked: list[Interest] = []
    loop = asyncio.get_running_loop()

    @asynccontextmanager
    async def subscribe(interest: Interest) -> AsyncIterator[Any]:
        asked.append(interest)
        answered = loop.time() + 1.0

        async def deliveries() -> AsyncIterator[list[Complete]]:
            await asyncio.sleep(answered - loop.time())
            yield [Complete(Cursor("a", 1, 1), whole=True)]

        async with aclosing(deliveries()) as batches:
            yield batches

    bus = SimpleNamespace(subscribe=subscribe, now_ms=lambda: 10**12, broker="broker/b1")
    found = await look(bus, passing=True)  # type: ignore[arg-type]
    assert found.whole
    assert len(asked) == 6
    assert loop.time() == 1.0


def test_what_a_node_says_of_its_keepers_without_end_keeps_no_screen_waiting(tmp_path: Path, monkeypatch: Any) -> None:
    read: list[int] = []
    take = Passing.take

    def counted(self: Passing, event: Event) -> None:
        read.extend([len(event.data["directory"])] if event.type == "dsmt.keeper" else [])
        take(self, event)

    async def scenario() -> None:
        async with asyncio.timeout(30), realm(memory_network(), tmp_path) as made:
            await made.broker()
            node, alice = await made.client("node/n1"), await made.client("operator/alice")
            for number in range(400):
                last = node.emit(Draft("node/n1/keeper", {"directory": "d" * 30_000, "died": number, "pid": 1}))
            await last.acknowledged()
            sight = await look(alice, passing=True)
            assert (sight.passing.keepers["node/n1"].said.pid, sight.whole) == (1, True)

    monkeypatch.setattr(Passing, "take", counted)
    run_alone(scenario())
    assert KEEPERS_BYTES / 2 < sum(read) < 8 * KEEPERS_BYTES < 400 * 30_000, "all that it has said is read, or nothing"
