"""What an operator's command reads: of one service it needs no more than that is large."""

import pytest

from dsmt.event.topic import matches
from dsmt.operations.read.instances import instances
from dsmt.operations.read.sight import Sight
from dsmt.operations.words.targets import Target
from dsmt.view import PATTERNS, View, patterns_of
from dsmt.view.view import MOST_SERVICES
from tests.controllers.build import Realm, agent, key, web


def busy(services: int) -> Realm:
    """Four nodes and some services; one instance is held, one node dead, one without a word."""
    realm = Realm("n1", "n2", "n3", "n4")
    for number in range(services):
        realm.apply(web(2, service=f"s{number}"))
    realm.apply(web(3))
    realm.settle()
    for index, node in enumerate(realm.nodes_of()):
        realm.session(agent(key(index), node or ""), "open")
    realm.hold(key(0))
    realm.silence("n3")
    realm.verdict("n4")
    realm.settle()
    return realm


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
