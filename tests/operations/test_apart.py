"""Brokers that live and do not reach each other: a third passes on what they say, and an operator is told (F1)."""

from typing import Any

from dsmt.cli.service_screen import next_act
from dsmt.event.kinds.instance import Endpoint
from dsmt.operations.read.rows.broker_rows import BrokerRow, broker_rows
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.screens.alert import Found
from dsmt.operations.read.screens.alerting import alerts
from dsmt.operations.words.targets import Target
from dsmt.ports.realm import BrokerAddress
from dsmt.view.served import served
from tests.controllers.build import Realm, key, web

from .sights import sight
from .test_alerts import stats


def test_of_two_brokers_that_live_and_do_not_reach_each_other_both_are_told_as_long_as_it_is_so() -> None:
    realm = Realm("n1", brokers=("b1", "b2", "b3"))

    def link(to: str, state: str, by: str) -> None:
        realm.session(f"broker/{to}", state, how=None if state == "open" else "timeout", broker=by)

    def told() -> list[tuple[str, str]]:
        return [
            (one.target, one.message.split(";")[0]) for one in alerts(sight(realm), Found()) if one.code == "broker.apart"
        ]

    names = ("b1", "b2", "b3")
    for to, by in ((to, by) for to in names for by in names if to != by):
        link(to, "open", by)
    for to, by in (("b1", "b2"), ("b2", "b1")):
        link(to, "closed", by)
    assert told() == []
    realm.after(10)
    assert told() == [("broker/b1", "it does not reach b2"), ("broker/b2", "it does not reach b1")]
    assert set(sight(realm).fleet.lost_brokers) == set()
    for to in names:
        link("b2", "closed", to) if to != "b2" else None
    assert told() == [], "one that is lost is told so"
    for to, by in (("b1", "b2"), ("b2", "b1"), ("b2", "b3")):
        link(to, "open", by)
    assert told() == []


def test_of_an_agent_that_stays_at_a_broker_which_is_lost_here_nobody_knows_how_its_program_is() -> None:
    realm = Realm("n1", brokers=("b1", "b2"))
    realm.apply(web(1))
    realm.settle()
    node, agent = "n1", "agent/n1/web/app/0"
    realm.health(key(0), node, "ready")
    realm.say(agent, f"service/web/endpoint/app/0/{node}", Endpoint(address="a", ports={}, generation=1, ready=True))
    realm.attach(node, sources=[f"monitor/{node}"])
    realm.attach(node, sources=[agent, f"node/{node}"], broker="b2")
    realm.session("broker/b2", "silent", broker="b1")

    def told() -> list[str]:
        fields: dict[str, Any] = dict.fromkeys(BrokerRow.__struct_fields__)
        lost = BrokerRow(**fields | {"broker": "b2", "address": "b2:1", "alive": False})
        return [one.message for one in alerts(sight(realm), Found(brokers=[lost])) if one.code == "broker.silent"]

    realm.after(9)
    (row,) = instances(sight(realm), Target("web", "app", 0))
    assert (row.health, row.stale, row.reason) == ("ready", False, None), "it comes to another one"
    assert told() == ["it is not alive; who was attached to it has gone to another one, if there is one"]
    realm.after(2)
    seen = sight(realm)
    (row,) = instances(seen, Target("web", "app", 0))
    assert (row.health, row.stale) == ("unknown", True)
    assert (row.reason.code, row.reason.who, row.reason.next) == ("run.unheard", "world", "dsmt brokers")
    assert row.reason.message == "its agent is at broker b2, which is not heard for 11 s: how it is now is not known"
    assert next_act(row, seen.now_ms).startswith("waits until that broker is heard again")
    assert served(seen.fleet, realm.view.slot(key(0))) is None
    assert told() == [f"it is not alive; at no other one, and told of nothing that is said here: {agent}, node/{node}"]
    realm.attach(node, sources=[agent, f"node/{node}"])
    assert instances(sight(realm), Target("web", "app", 0))[0].health == "ready"
    assert told() == ["it is not alive; who was attached to it has gone to another one, if there is one"]


def test_a_broker_that_was_added_again_elsewhere_is_one_though_what_it_said_there_is_all_that_is_known() -> None:
    seen = sight(Realm("n1"))
    seen.passing.stats["b2"] = seen.now_ms, stats(address="h:2")
    seen.passing.announced |= {name: BrokerAddress(at, b"key") for name, at in (("b1", "h:1"), ("b2", "h:3"))}
    found = broker_rows(seen, [BrokerAddress("h:1", b"key"), BrokerAddress("h:3", b"key")])
    assert [(one.broker, one.address) for one in found] == [("b2", "h:3"), ("b1", "h:1")]
