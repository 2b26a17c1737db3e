"""Where instances are reached: never on a node that is dead, and of two copies the newer one."""

from dsmt.event.kinds.instance import Endpoint
from dsmt.event.registry import lookup
from dsmt.operations.read.rows.endpoints import endpoints
from dsmt.operations.words.targets import Target
from tests.controllers.build import Realm, agent, key, web

from .sights import sight


def served(realm: Realm, node: str, generation: int, *, port: int = 80, ready: bool = True) -> None:
    told = Endpoint(address="192.0.2.1", ports={"http": port}, generation=generation, ready=ready)
    realm.say(agent(key(0), node), f"service/web/endpoint/app/0/{node}", told)


def reached(realm: Realm) -> list[tuple[str, int]]:
    return [(one.node, one.ports["http"]) for one in endpoints(sight(realm), Target("web"))]


def one_instance() -> Realm:
    realm = Realm("n1", "n2")
    realm.apply(web(1, component="nodes: n1"))
    realm.settle(seconds=1)
    return realm


def test_an_endpoint_of_a_dead_node_is_not_served_though_nobody_withdrew_it() -> None:
    realm = one_instance()
    served(realm, "n1", 1)
    assert reached(realm) == [("n1", 80)]
    realm.verdict("n1")
    assert reached(realm) == []


def test_of_two_copies_that_are_ready_the_newer_one_is_served() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.settle(seconds=1)
    old = realm.slot(0).node or ""
    realm.after(100)
    served(realm, old, 1, port=81)
    realm.control_node(old, "draining")
    realm.step()
    new = realm.slot(0).node or ""
    assert reached(realm) == [(old, 81)]
    served(realm, new, 2, port=82)
    assert reached(realm) == [(new, 82)]
    served(realm, new, 2, ready=False)
    assert reached(realm) == [(old, 81)]


def test_a_node_that_says_it_serves_a_slot_which_nobody_gave_it_is_not_served() -> None:
    realm = one_instance()
    for generation in (1, 2, 2**62):
        served(realm, "n2", generation, port=666)
        assert reached(realm) == []
    served(realm, "n1", 1)
    assert reached(realm) == [("n1", 80)]


def test_nobody_is_served_in_a_generation_that_was_never_given() -> None:
    realm = one_instance()
    served(realm, "n1", 2)
    assert reached(realm) == []


def test_an_endpoint_that_nobody_renews_dies_within_90_s() -> None:
    match = lookup("service/web/endpoint/app/0/n1")
    assert match is not None
    assert match.row.ttl_ms == 90_000
    realm = one_instance()
    served(realm, "n1", 1)
    assert reached(realm.after(89.9)) == [("n1", 80)]
    assert reached(realm.after(0.2)) == []
