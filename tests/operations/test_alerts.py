"""Alerts: what `status` tells of a realm that is not as it should be, and who acts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dsmt.cli import member_screens, screens
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.broker import BrokerStats
from dsmt.event.kinds.realm import BrakeWord, NodesetFact
from dsmt.event.reason import reason
from dsmt.event.status import State
from dsmt.operations.read.rows.broker_rows import BrokerRow, broker_rows
from dsmt.operations.read.rows.controller_rows import controller_rows
from dsmt.operations.read.rows.node_rows import node_rows, node_shown
from dsmt.operations.read.screens.alert import Alert, Found
from dsmt.operations.read.screens.alerting import alerts
from dsmt.operations.read.screens.node_alerts import START_AGAIN
from dsmt.operations.read.screens.summaries import service, status
from dsmt.ports.realm import BrokerAddress
from dsmt.trust.certificate import Certificate
from dsmt.trust.identity import root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import Realm as RealmName
from dsmt.trust.store import TrustStore
from tests.controllers.build import Realm, key, web
from tests.operations.sights import sight


def stats(**more: Any) -> BrokerStats:
    """What a broker says of itself."""
    counts = dict.fromkeys(("head", "sessions", "events", "facts", "disk_bytes", "history_from_ms", "dropped"), 1)
    told = {"store": "s", "head_hash": b"", "lag_s": 0.0, "pid": 7, "version": "0.1", "address": "127.0.0.1:4000", **more}
    return BrokerStats(**counts, **told)  # type: ignore[arg-type]


@pytest.mark.parametrize(("left_s", "code", "who"), [(3600, "node.lost", "you"), (-3600, "node.expired", "you")])
def test_of_a_dead_node_whose_certificate_has_ended_it_is_told_what_brings_it_back(left_s: int, code: str, who: str) -> None:
    realm, root = Realm("n1", "n2"), SecretKey(bytes(32))
    realm.close("n2")
    realm.verdict("n2")
    seen = sight(realm)
    trust = TrustStore(RealmName(name="prod", roots=(root.public,)))
    for name, ends_s in (("node/n1", -3600), ("node/n2", left_s)):
        begins = seen.now_ms // 1000 - 7200
        node = root_issued(name, root, key=root, now_s=begins, serial=bytes(16), lifetime_s=7200 + ends_s)
        trust.add(node.chain[0].raw)
    (alert,) = status(seen, trust, []).alerts
    assert (alert.target, alert.code, alert.who) == ("node/n2", code, who)
    if left_s < 0:
        assert alert.next == "dsmt cert rotate node/n2; on a host: dsmt node add it again, or dsmt join TOKEN, there"
        assert alert.message.startswith(f"its certificate ended at {rfc3339(seen.now_ms - 3_600_000)}, and it cannot")


@pytest.mark.parametrize(
    ("closed", "told"),
    [
        (("c2",), [("controller/c2", "controller.expired")]),
        (("c1", "c2"), [("controller/c2", "controller.expired"), ("controllers", "controllers.none")]),
        ((), []),
    ],
)
def test_of_a_controller_whose_certificate_has_ended_it_is_told_what_brings_it_back(
    closed: tuple[str, ...], told: list[object]
) -> None:
    realm, root = Realm("n1"), SecretKey(bytes(32))
    realm.apply(web(0))
    for name in ("c1", "c2"):
        realm.controller(name)
    for name in closed:
        realm.session(f"controller/{name}", "closed", how="peer")
    seen = sight(realm)
    trust = TrustStore(RealmName(name="prod", roots=(root.public,)))
    begins = seen.now_ms // 1000 - 7200
    c2 = root_issued("controller/c2", root, key=root, now_s=begins, serial=bytes(16), lifetime_s=3600)
    trust.add(c2.chain[0].raw)
    found = status(seen, trust, []).alerts
    assert [(one.target, one.code) for one in found] == told
    for one in found[:1]:
        assert one.message == f"its certificate ended at {rfc3339(seen.now_ms - 3_600_000)}, and it cannot attach with it"
        assert one.next.startswith("dsmt cert rotate controller/c2")


def of_nodes(realm: Realm) -> list[Alert]:
    """What is told of the nodes of a realm."""
    seen = sight(realm)
    return alerts(seen, Found(node_rows(seen)))


@pytest.mark.parametrize(("state", "back_s"), [("closed", 30), ("silent", 90)])
@pytest.mark.parametrize(("role", "who"), [("node", "manager"), ("monitor", "monitor")])
def test_a_node_that_is_alive_and_whose_manager_or_monitor_does_not_come_back_is_told(
    role: str, who: str, state: str, back_s: int
) -> None:
    """Its agents live, so that it counts as alive; what was placed there waited, and all was well."""
    realm = Realm("n1", "n2")
    realm.session("monitor/n1", "open")
    realm.session("agent/n1/web/app/0", "open")
    realm.session(f"{role}/n1", state)
    assert of_nodes(realm.after(back_s)) == []
    (told,) = of_nodes(realm.after(1))
    assert (told.target, told.code, told.who) == ("node/n1", f"node.{who}", "you")
    how = "is silent" if state == "silent" else "closed its session"
    assert told.message.startswith(f"its {who} {how} at b1, and is away for ")
    assert ("its disk answers" in told.next and told.next.endswith("dsmt node drain n1")) is (state == "silent")
    realm.session(f"{role}/n1", "open")
    assert of_nodes(realm) == []


@pytest.mark.parametrize(
    ("closed", "told"),
    [((), []), (("c2",), [("controller/c2", "controller.silent")]), (("c1", "c2"), [("controllers", "controllers.none")])],
)
def test_a_controller_that_is_not_alive_is_told_beside_the_others(closed: tuple[str, ...], told: list[object]) -> None:
    realm = Realm("n1")
    realm.apply(web(0))
    for name in ("c1", "c2"):
        realm.controller(name)
    for name in closed:
        realm.session(f"controller/{name}", "closed", how="peer")
    trust = TrustStore(RealmName(name="prod", roots=(bytes(32),)))
    assert [(one.target, one.code) for one in status(sight(realm), trust, []).alerts] == told


@pytest.mark.parametrize(
    ("component", "instances", "held", "who"),
    [
        ("", 2, False, "dsmt"),
        ("", 2, True, "you"),
        ("data: true", 2, False, "you"),
        ("", "each_node", False, "you"),
    ],
    ids=["placed elsewhere soon", "held", "with data", "of each node"],
)
def test_of_a_dead_node_it_is_said_that_dsmt_acts_only_while_something_is_to_go_elsewhere(
    component: str, instances: int | str, held: bool, who: str
) -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(instances, component=component))
    realm.settle(seconds=1)
    if held:
        (there,) = (n for n, node in enumerate(realm.nodes_of()) if node == "n2")
        realm.hold(key(there))
        realm.settle(seconds=1)
    realm.close("n2")
    realm.verdict("n2")
    trust = TrustStore(RealmName(name="prod", roots=(bytes(32),)))

    def told() -> tuple[str, str]:
        (alert,) = (one for one in status(sight(realm), trust, []).alerts if one.target == "node/n2")
        return alert.who, alert.next

    assert told()[0] == who
    realm.settle(seconds=1)
    assert told() == ("you", f"{START_AGAIN}; or dsmt node remove n2 --forget; look: dsmt why node/n2")


@pytest.mark.parametrize(
    ("silent_s", "dead", "state"), [(11, False, "degraded"), (95, False, "degraded"), (11, True, "down")]
)
def test_a_service_of_which_nobody_knows_whether_it_runs_is_not_said_to_be_down(
    silent_s: int, dead: bool, state: str
) -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.settle()
    (node,) = realm.nodes_of()
    source = f"agent/{node}/web/app/0"
    realm.attach(node, sources=[f"node/{node}", source])
    realm.session(source, "silent")
    realm.after(silent_s)
    if dead:
        realm.close(node)
        realm.verdict(node)
    found = service(sight(realm), "web")
    assert found is not None
    assert (found.ready, found.state) == (0, state)


def test_nodes_tells_of_a_node_that_is_not_alive_what_status_tells_with_the_command_that_helps() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1, component="nodes: n2"))
    realm.settle(seconds=1)
    realm.close("n2")
    trust = TrustStore(RealmName(name="prod", roots=(bytes(32),)))
    undecided = "; whether it is dead is not decided yet"
    for dead, says in ((False, undecided), (True, "as a test says")):
        if dead:
            realm.verdict("n2")
        seen = sight(realm)
        (alert,) = (one for one in status(seen, trust, []).alerts if one.target == "node/n2")
        assert alert.message.endswith(says)
        assert "dsmt node add, of an added host" in alert.next
        for shown in (member_screens.nodes(node_rows(seen), seen), member_screens.node_shown(node_shown(seen, "n2"), seen)):
            assert shown.count(alert.message) == 1
            assert f"next: {alert.next}" in shown


def test_what_is_wrong_with_nodes_and_controllers_is_told_beside_services_that_are_called_so() -> None:
    realm = Realm("n1", "n2")
    for name in ("node", "controllers"):
        realm.apply(web(1, service=name))
    realm.settle(seconds=1)
    realm.close("n2")
    seen = sight(realm)
    shown = screens.status(status(seen, TrustStore(RealmName(name="prod", roots=(bytes(32),))), []), seen)
    assert "\n  node/n2: " in shown
    assert "\n  controllers: no controller is alive" in shown


@pytest.mark.parametrize(("closed", "who"), [((), "dsmt"), (("c1",), "you")])
def test_nobody_is_said_to_act_on_a_dead_node_while_no_controller_is_alive(closed: tuple[str, ...], who: str) -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(2))
    realm.settle(seconds=1)
    realm.controller("c1")
    realm.close("n2")
    for name in closed:
        realm.session(f"controller/{name}", "closed", how="peer")
    trust = TrustStore(RealmName(name="prod", roots=(bytes(32),)))
    (alert,) = (one for one in status(sight(realm), trust, []).alerts if one.target == "node/n2")
    assert (alert.code, alert.who) == ("node.lost", who)
    assert alert.message.endswith("; no controller is alive to act on it") == (who == "you")
    realm.verdict("n2")
    realm.say("operator/a", "config/brake", BrakeWord(held=True, released_ms=0, by="operator/a", reason="audit"))
    (alert,) = (one for one in status(sight(realm), trust, []).alerts if one.target == "node/n2")
    assert (alert.next, alert.message.count("no controller")) == ("dsmt brake release", 0)


@pytest.mark.parametrize(
    ("ended", "answers", "told", "advice"),
    [
        (set(), "b1", "it is not alive; who was", "dsmt brokers asks it what is wrong"),
        (set(), "b2", "it answers, but says nothing of itself", "dsmt brokers asks it what is wrong"),
        ({"broker/b2"}, "b1", "its key is revoked; who was", "dsmt broker remove b2"),
        ({"broker/b2"}, "b2", "its key is revoked; who was", "dsmt broker remove b2"),
    ],
)
def test_of_a_silent_broker_it_is_told_whether_it_answers_and_whether_it_is_to_be_removed(
    ended: set[str], answers: str, told: str, advice: str
) -> None:
    fields: dict[str, Any] = dict.fromkeys(BrokerRow.__struct_fields__)
    found = [BrokerRow(**fields | {"broker": name, "address": f"{name}:1", "alive": name == "b1"}) for name in ("b1", "b2")]
    seen = replace(sight(Realm("n1")), broker=answers)
    (alert,) = alerts(seen, Found(brokers=found, revoked=ended))
    assert (alert.target, alert.next) == ("broker/b2", advice)
    assert alert.message.startswith(told)


def test_of_a_broker_that_says_itself_what_is_wrong_that_is_told() -> None:
    fields: dict[str, Any] = dict.fromkeys(BrokerRow.__struct_fields__)
    found = BrokerRow(**fields | {"broker": "b2", "address": "b2:1", "alive": False, "fault": "the disk of /b2 is full"})
    (alert,) = alerts(sight(Realm("n1")), Found(brokers=[found]))
    assert (alert.message, alert.next) == ("the disk of /b2 is full", "then it begins anew by itself")


def test_a_controller_on_a_dead_node_is_told_with_its_node() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(0))
    for name in ("c1", "n2"):
        realm.controller(name)
    realm.session("controller/n2", "closed", how="peer")
    trust = TrustStore(RealmName(name="prod", roots=(bytes(32),)))
    assert [one.target for one in status(sight(realm), trust, []).alerts] == ["controller/n2"]
    realm.close("n2")
    realm.verdict("n2")
    assert [one.target for one in status(sight(realm), trust, []).alerts] == ["node/n2"]


def test_of_what_an_operator_holds_nobody_is_told_that_it_failed() -> None:
    realm = Realm("n1")
    realm.controller("c1")
    realm.apply(web(1))
    realm.settle()
    why = reason("run.exited", exit_code=1, time="0.4 s", target="web/app/0", last_output="")
    realm.status(key(0), "n1", State.FAILED, reason=why, next_try_ms=realm.now_ms + 20_000)
    trust = TrustStore(RealmName(name="prod", roots=(bytes(32),)))
    assert [one.code for one in status(sight(realm), trust, []).alerts] == ["run.exited"]
    realm.hold(key(0))
    assert status(sight(realm), trust, []).alerts == []


@pytest.mark.parametrize(("ahead_s", "told"), [(400.0, "6 m ahead of"), (-400.0, "6 m behind"), (9.0, None), (-9.0, None)])
def test_a_broker_whose_clock_is_far_off_is_told_whichever_way_that_is(ahead_s: float, told: str | None) -> None:
    seen = sight(Realm("n1"))
    seen.passing.stats["b1"] = (seen.now_ms, stats(clock_ahead_s=ahead_s))
    off = [one for one in alerts(seen, Found()) if one.code == "broker.clock"]
    assert [one.message for one in off] == (
        [f"the clock of its machine is {told} realm time, so it is not followed"] if told else []
    )


@pytest.mark.parametrize(("early_s", "told"), [(0.0, 0), (0.5, 1)])
def test_a_broker_whose_time_is_behind_what_was_decided_is_told_however_little_that_is(early_s: float, told: int) -> None:
    seen = sight(Realm("n1"))
    seen.passing.stats["b1"] = (seen.now_ms, stats(early_s=early_s))
    assert [one.code for one in alerts(seen, Found())] == ["broker.behind"] * told


def test_a_set_with_the_name_of_a_node_is_told_and_no_other_one() -> None:
    realm = Realm("n1", "n2")
    for name in ("n2", "few"):
        realm.say("operator/alice", f"nodeset/{name}", NodesetFact(expression="n1", by="alice"))
    assert [(one.target, one.code) for one in alerts(sight(realm), Found())] == [("nodeset/n2", "nodeset.hides")]


def test_a_broker_that_has_just_said_how_it_is_lives_though_it_was_not_heard_yet() -> None:
    seen = sight(Realm("n1"))
    for ago_ms, alive in ((0, True), (4_999, True), (5_000, False)):
        seen.passing.stats["b1"] = (seen.now_ms - ago_ms, stats())
        assert [one.alive for one in broker_rows(seen, [])] == [alive]


@pytest.mark.parametrize(("seconds", "known"), [(1, False), (9.9, False), (11, True)])
def test_of_controllers_whose_broker_was_lost_a_moment_ago_it_is_not_known_yet_whether_they_live(
    seconds: float, known: bool
) -> None:
    realm = Realm("n1", brokers=("b1", "b2"))
    realm.apply(web(0))
    for name in ("c1", "c2"):
        realm.controller(name)
        realm.session(f"controller/{name}", "open", broker="b2", attachment=2)
    realm.session("broker/b2", "silent", broker="b1")
    realm.after(seconds)
    seen, trust = sight(realm), TrustStore(RealmName(name="prod", roots=(bytes(32),)))
    told = status(seen, trust, [])
    assert (told.controllers.total, told.controllers.alive, told.controllers.in_doubt) == (2, 0, 0 if known else 2)
    assert ("controllers.none" in [one.code for one in told.alerts], told.state == "down") == (known, known)
    assert not [one for one in told.alerts if one.code == "controller.silent"]
    assert ("2 not known yet: a broker was lost a moment ago" in screens.status(told, seen)) is not known
    shown = member_screens.controllers(controller_rows(seen), seen)
    assert shown.count("whether it is alive is not known yet") == (0 if known else 2)
    assert shown.count("next: dsmt up where it was") == (2 if known else 0)


def test_of_one_whose_broker_was_lost_nothing_is_told_beside_one_that_lives_before_it_had_the_time_to_come_back() -> None:
    realm = Realm("n1", brokers=("b1", "b2"))
    realm.apply(web(0))
    for name in ("c1", "c2"):
        realm.controller(name)
    realm.session("controller/c2", "open", broker="b2", attachment=2)
    realm.session("broker/b2", "silent", broker="b1")
    trust = TrustStore(RealmName(name="prod", roots=(bytes(32),)))

    def told() -> list[str]:
        return [one.code for one in status(sight(realm), trust, []).alerts if one.target.startswith("controller")]

    assert told() == []
    realm.after(11)
    assert told() == ["controller.silent"]


def certified(now_s: int, **ends_s: int) -> dict[str, Certificate]:
    """Certificates of brokers and controllers, `broker_b1`, that end so many seconds from now."""
    root, made = SecretKey(bytes(32)), {}
    for name, left_s in ((name.replace("_", "/"), left_s) for name, left_s in ends_s.items()):
        made[name] = root_issued(
            name, root, key=root, now_s=now_s - 7200, serial=bytes(16), lifetime_s=7200 + left_s
        ).certificate
    return made


@pytest.mark.parametrize(
    ("revoked", "left", "other"),
    [(set(), set(), True), ({"broker/b2"}, set(), False), (set(), {"broker/b2"}, False)],
    ids=["another one stands", "it is revoked", "it has left"],
)
def test_who_was_attached_to_a_broker_whose_certificate_has_ended_goes_to_one_that_is_believed_if_there_is_one(
    revoked: set[str], left: set[str], other: bool
) -> None:
    seen = sight(Realm("n1"))
    used = certified(seen.now_ms // 1000, broker_b1=-60, broker_b2=3600, controller_c1=3600)
    (alert,) = alerts(seen, Found(used=used, revoked=revoked, left=left))
    assert (alert.target, alert.code) == ("broker/b1", "broker.expired")
    assert ("who was attached to it goes to another one" in alert.message) == other
    assert alerts(seen, Found(used=used, left={"broker/b1"})) == []


def test_of_a_broker_whose_certificate_has_ended_it_is_not_told_too_that_it_says_nothing() -> None:
    fields: dict[str, Any] = dict.fromkeys(BrokerRow.__struct_fields__)
    about = [{"broker": name, "address": f"{name}:1", "fault": why} for name, why in (("b1", None), ("b2", "it is full"))]
    found = [BrokerRow(**fields | {"alive": False} | one) for one in about]
    seen = sight(Realm("n1"))
    used = certified(seen.now_ms // 1000, broker_b1=-60, broker_b2=-60)
    assert [one.code for one in alerts(seen, Found(brokers=found, used=used))] == ["broker.expired"] * 2 + ["broker.silent"]
    (only,) = broker_rows(seen, [BrokerAddress("b1:1", bytes(32))])
    assert (only.broker, only.alive) == ("b1", False), "one that says nothing of itself, and answers, has a name"


def test_of_a_controller_whose_certificate_has_ended_it_is_told_also_where_there_is_no_service_yet() -> None:
    realm = Realm("n1")
    realm.controller("c1")
    realm.session("controller/c1", "closed", how="peer")
    seen = sight(realm)
    used = certified(seen.now_ms // 1000, controller_c1=-60)
    told = alerts(seen, Found(controllers=controller_rows(seen), used=used))
    assert [(one.target, one.code) for one in told] == [("controller/c1", "controller.expired")]
