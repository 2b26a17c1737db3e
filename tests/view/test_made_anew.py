"""Whatever a realm has gone through, a view knows what its winners say, and nothing of what stood before them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from dsmt.event.kinds.realm import NodesetFact, Tombstone
from dsmt.event.kinds.slot import DataHome, Good, Slot
from dsmt.event.reason import reason
from dsmt.event.status import Layer, State
from dsmt.view import View
from tests.controllers.build import Realm, key, web

NODES, BROKERS = ("n1", "n2", "n3"), ("b1", "b2")
FILES = (
    web(1),
    web(3, component="reserve: {memory: 1MiB}\nports: {http: 8080}"),
    web("each_node"),
    web(2, component="nodes: n1"),
)
SETS = (
    "roaming",
    "silenced",
    "gone",
    "excluded",
    "equipped",
    "not_open",
    "kept_out",
    "standing",
    "orphans",
    "ended_orphans",
)


def known(view: View) -> dict[str, Any]:
    """All that is read of a view."""
    rooms = map(view.allocations.node, NODES)
    of = view.sessions.of.items()
    return {
        **{name: getattr(view, name) for name in SETS},
        "facts": (view.digest, len(view), view.quarantined, view.node_words, view.brake, view.controllers, view.nodesets),
        "services": view.services,
        "nodes": {name: (n.attributes, n.control, n.verdict, n.probes, set(n.sources)) for name, n in view.nodes.items()},
        "sessions": ({source: (one.words, one.newest) for source, one in of}, view.sessions.brokers),
        "lost": {broker: dict(view.sessions.lost(broker)) for broker in ("", *BROKERS)},
        "seats": {broker: nodes for broker, nodes in view.managers_by_broker.items() if nodes},
        "rooms": [(one.attributes, one.slots, one.memory, one.cpu, one.disk, one.ports, one.order()) for one in rooms],
        "allocated": (view.allocations.own("web", "app"), view.allocations.unequipped, list(view.allocations.in_order(0))),
    }


def made_anew(view: View, now_ms: int) -> View:
    fresh = View()
    for signed in view.winners():
        fresh.apply(signed)
    fresh.expire(now_ms)
    return fresh


Acts = list[Callable[[], object]]


def of_nodes(realm: Realm, chance: Random) -> Acts:
    """What may be said of a node, or of a broker."""
    node = chance.choice(NODES)
    source = chance.choice((f"node/{node}", f"monitor/{node}", f"agent/{node}/web/app/0", "broker/b1", "broker/b2"))
    return [
        lambda: realm.attach(node),
        lambda: realm.session(source, chance.choice(("open", "silent", "closed")), broker=chance.choice(BROKERS)),
        lambda: realm.session(f"node/{node}", "closed", attachment=chance.randrange(9), kept_out=chance.choice(("", "ab"))),
        lambda: realm.attributes(node, cpus=chance.randrange(1, 9)),
        lambda: realm.say(f"monitor/{node}", f"node/{node}/attributes", realm.attributes(node).event.data, ttl=60_000),
        lambda: node in realm.view.nodes and realm.verdict(node, road=chance.choice(("silent", "closed"))),
        lambda: node in realm.view.nodes and realm.verdict(node, state="left", road="operator"),
        lambda: realm.control_node(node, chance.choice(("active", "draining", "excluded"))),
        lambda: realm.probe(node, chance.choice(NODES), "failed"),
    ]


def of_services(realm: Realm, chance: Random) -> Acts:
    """What may be said of a service, or of one of its slots."""
    node, place, entry = chance.choice(NODES), key(chance.randrange(3)), realm.view.services.get("web")
    spec = None if entry is None else entry.spec
    held = reason("hold.operator", by="alice", time="now", their="x", target="web/app/0")
    fact = Slot(
        node=chance.choice((*NODES, None)),
        spec=chance.choice(["operator/alice#1-1"] if spec is None else [str(spec.id), *spec.record.earlier]),
        revision=1,
        desired=chance.choice(("running", "running", "stopped", "gone")),
        refuses=chance.choice((None, Good(spec="" if spec is None else str(spec.id), revision=2))),
        reason=chance.choice((None, held)),
        home=chance.choice((None, DataHome(node=node, key=""))),
    )
    state, layer = chance.choice(list(State)), chance.choice(list(Layer))
    return [
        lambda: realm.apply(chance.choice(FILES), removed=chance.random() < 0.1),
        lambda: realm.say("controller/c1", place.topic, fact, ttl=chance.choice((None, None, 600_000))),
        lambda: realm.say("controller/c1", place.topic, fact),
        lambda: realm.say("controller/c1", place.topic, {"no": "slot"}),
        lambda: realm.status(place, node, state, layer=layer, orphan=chance.random() < 0.5),
        lambda: realm.endpoint(place, node, generation=1),
        lambda: realm.hold(place),
        lambda: realm.control(place),
    ]


def of_all(realm: Realm, chance: Random) -> Acts:
    """What may be said of sets and of ends; and time that passes."""
    topic = chance.choice(("service/web/spec", "node/n1/control", "nodeset/good"))
    thing, epoch = "/".join(topic.split("/")[:2]), realm.view.epoch(topic)
    ended = Tombstone(by="alice", reason="x")
    return [
        lambda: realm.say("operator/alice", "nodeset/good", NodesetFact(expression=chance.choice(("n1", "(")), by="alice")),
        lambda: realm.say("operator/alice", f"tombstone/{thing}", ended, epoch=epoch),
        lambda: realm.after(chance.choice((1, 100, 3600, 90_000))),
    ]


@pytest.mark.parametrize("seed", range(12))
def test_a_view_that_has_seen_everything_knows_what_one_does_that_has_seen_the_winners_alone(seed: int) -> None:
    chance, realm = Random(seed), Realm(brokers=BROKERS)
    for _ in range(80):
        about = chance.choice((of_nodes, of_nodes, of_services, of_services, of_all))
        chance.choice(about(realm, chance))()
        realm.view.expire(realm.now_ms)
        assert known(realm.view) == known(made_anew(realm.view, realm.now_ms))
