"""Golden screens: what people see of a realm that is not well: into a pipe as it is, and on a terminal of 80 columns.

`DSMT_REWRITE=1` writes them anew; the diff is the review.
"""

import msgspec
import pytest
from msgspec.structs import replace

from dsmt.cli import member_screens, screens
from dsmt.cli.listing import endpoint_lines
from dsmt.cli.past import screen as history_screen
from dsmt.cli.root import main
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.broker import BrokerStats
from dsmt.event.kinds.controller import ControllerState
from dsmt.event.kinds.instance import Endpoint
from dsmt.event.kinds.source import Heartbeat
from dsmt.event.reason import reason
from dsmt.event.records import to_data
from dsmt.event.status import State
from dsmt.operations.read.rows.broker_rows import broker_rows
from dsmt.operations.read.rows.controller_rows import controller_rows
from dsmt.operations.read.rows.endpoints import endpoints
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.rows.node_rows import node_rows, node_shown
from dsmt.operations.read.rows.past import Revision
from dsmt.operations.read.screens.alert import Found
from dsmt.operations.read.screens.alerting import alerts
from dsmt.operations.read.screens.summaries import services, status
from dsmt.operations.read.waits.settling import Applied
from dsmt.operations.words.targets import Target
from dsmt.ports.realm import BrokerAddress
from dsmt.trust.identity import root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import Realm as RealmName
from dsmt.trust.store import TrustStore
from tests.cli.screens import check, of_service, rolled_back, running_one, trouble
from tests.controllers.build import Realm, agent, key, web
from tests.operations.sights import sight

pytestmark = pytest.mark.usefixtures("utc")


def test_ps_puts_the_reason_under_a_sick_line() -> None:
    seen = sight(trouble())
    check("ps", screens.ps(instances(seen), seen))


def test_services_say_who_acts() -> None:
    seen = sight(trouble())
    check("services", screens.services(services(seen), seen))


def test_nodes_say_why_one_is_not_used() -> None:
    seen = sight(trouble())
    check("nodes", member_screens.nodes(node_rows(seen), seen))


def test_status_is_the_realm_in_one_screen() -> None:
    realm = trouble()
    seen = sight(realm)
    trust = TrustStore(RealmName(name="prod", roots=(bytes(32),)))
    check("status", screens.status(status(seen, trust, []), seen))


def test_a_sick_service_says_what_dsmt_does_next_and_what_you_can_do() -> None:
    check("service", of_service(rolled_back(), "db"))


def test_the_screen_of_a_part_of_a_service_is_of_this_part_from_its_first_line_to_its_last() -> None:
    said = of_service(trouble(), "web/app/1")
    assert said.startswith("web/app/1   DOWN   0 of 1 ready ")
    assert "dsmt tail service/web/spec service/web/+/app/1 service/web/+/app/1/\n" in said
    assert "app/0" not in said
    assert "web      is r1, applied by alice" in said


def test_nobody_is_sent_to_the_logs_of_what_has_no_node() -> None:
    realm = Realm()
    realm.apply(web(1))
    realm.settle(seconds=1)
    shown = of_service(realm, "web")
    assert "dsmt why web/app/0" in shown
    assert "dsmt logs" not in shown


@pytest.mark.parametrize(("state", "told"), [("open", False), ("closed", True)])
def test_of_what_waits_for_a_controller_it_is_said_that_none_is_alive(state: str, told: bool) -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.settle(seconds=1)
    realm.controller("c1")
    realm.session("controller/c1", state)
    node = realm.slot(0).node or ""
    realm.close(node)
    realm.verdict(node)
    realm.apply(web(1, service="new"))
    for name in ("web", "new"):
        shown = of_service(realm.after(15), name)
        assert ("no controller is alive: nothing is placed or repaired elsewhere; dsmt controllers" in shown) is told
        assert ("dsmt   | waits until a controller is alive" in shown) is told
        assert ("dsmt   | goes on by itself" in shown) is not told
    assert ("dsmt acts" in screens.services(services(sight(realm)), sight(realm))) is not told


def test_a_service_that_was_rolled_back_says_what_runs_and_what_was_refused() -> None:
    realm = rolled_back()
    check("service_rolled_back", of_service(realm, "web"))
    seen = sight(realm)
    check("ps_rolled_back", screens.ps(instances(seen), seen))
    trust = TrustStore(RealmName(name="prod", roots=(bytes(32),)))
    check("status_rolled_back", screens.status(status(seen, trust, []), seen))


def test_last_events_stand_in_order_are_fitted_and_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsmt.cli.service_screen.columns", lambda: 80)
    realm = rolled_back()
    before = of_service(realm, "db").splitlines()
    last = realm.rows[-1][1].event
    again = {**last.data, "last_command": "ab" * 8}
    for _ in range(3):
        realm.after(1).say(last.source, last.topic, again)
    after = of_service(realm, "db").splitlines()
    events = [line for line in after if line.startswith("  22:")]
    assert max(map(len, events)) <= 80
    times = [line.split()[0] for line in events]
    assert times == sorted(times)
    assert [line for line in before if line in events] == events


def test_a_service_is_shown_on_a_terminal_however_narrow_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsmt.cli.service_screen.columns", lambda: 20)
    assert "is to run on ..." in of_service(rolled_back(), "db")


@pytest.mark.parametrize(
    ("left_s", "said"),
    [
        (40 * 24 * 3600, "ok    next to renew: node/n1 in 40 d"),
        (7200, "SOON    next to renew: node/n1 in 2 h"),
        (0, "SOON    next to renew: node/n1 in 0.0 s"),
        (
            -3,
            "ENDED    node/n1, 3 s ago: dsmt cert rotate node/n1; on a host: dsmt node add it again, or dsmt join TOKEN",
        ),
    ],
)
def test_the_realms_screen_tells_when_a_certificate_ends_and_that_one_has_ended(left_s: int, said: str) -> None:
    realm, root = Realm("n1"), SecretKey(bytes(32))
    seen = sight(realm)
    begins = seen.now_ms // 1000 - 1000
    node = root_issued("node/n1", root, key=root, now_s=begins, serial=bytes(16), lifetime_s=1000 + left_s)
    trust = TrustStore(RealmName(name="prod", roots=(root.public,)))
    trust.add(node.chain[0].raw)
    assert f"certs     {said}" in screens.status(status(seen, trust, []), seen)


def test_an_empty_realm_says_the_first_step() -> None:
    seen = sight(Realm("n1"))
    check("first_step", screens.ps([], seen))
    trust = TrustStore(RealmName(name="prod", roots=(bytes(32),)))
    check("status_empty", screens.status(status(seen, trust, []), seen))


def test_history_says_what_became_of_each_revision() -> None:
    seen = sight(rolled_back())
    at = rfc3339(seen.now_ms - 3_600_000)
    about = {"at": at, "by": "alice", "removed": False}
    found = [
        Revision(
            revision=3, reason="4.1", state=["current", "refused"], refusal="r3 failed (not ready); back on r2", **about
        ),
        Revision(revision=2, reason="4.0", state=["running", "good"], **about),
    ]
    check("history", history_screen("web", found, seen))
    ending = [
        replace(found[0], removed=True, state=["removed", "current"]),
        replace(found[0], removed=True, state=["removed"]),
    ]
    for last, told in zip(ending, ("is being", "was"), strict=True):
        assert f"web {told} removed; dsmt apply begins it anew" in history_screen("web", [last, found[1]], seen)


def test_a_node_that_is_drained_names_what_holds_it() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1, component="nodes: n1\n"))
    realm.settle(seconds=1)
    realm.control_node("n1", "draining")
    seen = sight(realm)
    check("nodes_draining", member_screens.nodes(node_rows(seen), seen))
    check("node", member_screens.node_shown(node_shown(seen, "n1"), seen))


def test_brokers_say_what_they_hold_and_whose_clock_is_off() -> None:
    seen = sight(Realm("n1"))
    stats = BrokerStats(
        store="s", head=1, head_hash=b"", sessions=9, events=900, facts=40, disk_bytes=3 * 2**20,
        history_from_ms=seen.now_ms - 3_600_000, dropped=2, lag_s=0.001, pid=7, version="0.1", address="127.0.0.1:4000",
        clock_ahead_s=-400.0,
    )  # fmt: skip
    seen.passing.stats["b1"] = (seen.now_ms - 5_000, stats)
    assert [one.alive for one in broker_rows(seen, [])] == [False], "it answers, and its own word does not come"
    beat = Heartbeat(incarnation=1, sequence=1, lag_s=0.001, emit_rate_s=1.0)
    seen.passing.heard["broker/b1"] = (seen.now_ms, beat)
    check("brokers", member_screens.brokers(broker_rows(seen, []), seen))


def test_a_broker_that_fills_is_shown_as_such_and_one_that_was_removed_not_at_all() -> None:
    seen = sight(Realm("n1"))
    stats = BrokerStats(
        store="s", head=1, head_hash=b"", sessions=9, events=900, facts=40, disk_bytes=3 * 2**20,
        history_from_ms=seen.now_ms - 3_600_000, dropped=0, lag_s=0.001, pid=7, version="0.1", address="127.0.0.1:4000",
        whole=False,
    )  # fmt: skip
    for name in ("b1", "b2"):
        seen.passing.stats[name] = (seen.now_ms, stats)
        seen.passing.heard[f"broker/{name}"] = (
            seen.now_ms,
            Heartbeat(incarnation=1, sequence=1, lag_s=0.002, emit_rate_s=1.0),
        )
    seen.passing.removed.add("b2")
    found = broker_rows(seen, [])
    assert [one.broker for one in found] == ["b1"]
    assert "it is not whole yet" in member_screens.brokers(found, seen)


def test_a_broker_that_is_not_alive_is_shown_with_what_is_wrong_and_status_says_who_does() -> None:
    seen = sight(Realm("n1"))
    found = [replace(one, fault="its disk is full") for one in broker_rows(seen, [BrokerAddress("h:1", b"key")])]
    assert member_screens.brokers(found, seen).splitlines()[2] == "  its disk is full"
    (alert,) = status(
        seen, TrustStore(RealmName(name="test", roots=(SecretKey(bytes(32)).public,))), [BrokerAddress("h:1", b"key")]
    ).alerts
    assert (alert.target, alert.next) == ("broker/b1", "dsmt brokers asks it what is wrong")


def test_a_broker_that_has_said_nothing_lately_is_named_as_it_was_announced_unless_it_was_removed() -> None:
    seen, known = sight(Realm("n1")), [BrokerAddress("h:1", b"key")]
    seen.passing.announced |= dict.fromkeys(("b1", "b2"), BrokerAddress("h:1", b"another"))
    seen.passing.removed.add("b2")
    assert [one.broker for one in broker_rows(seen, known)] == ["b1"]
    seen.passing.removed.add("b1")
    assert [one.broker for one in broker_rows(seen, known)] == [None]


def test_a_broker_that_has_nothing_yet_has_no_history_of_twenty_thousand_days() -> None:
    seen = sight(Realm("n1"))
    seen.passing.stats["b1"] = (seen.now_ms, BrokerStats(
        store="s", head=0, head_hash=b"", sessions=0, events=0, facts=0, disk_bytes=1, history_from_ms=0, dropped=0,
        lag_s=0.0, pid=7, version="0.1", address="127.0.0.1:4000",
    ))  # fmt: skip
    assert [one.history_from for one in broker_rows(seen, [])] == [None]


def test_a_leaf_is_shown_with_the_broker_to_which_it_is_linked() -> None:
    realm = Realm("n1")
    realm.session("broker/leaf", "open", broker="b1", leaf="read")
    seen = sight(realm)
    about = {"sessions": 9, "events": 900, "facts": 40, "disk_bytes": 1, "history_from_ms": 1, "dropped": 0, "lag_s": 0.1}
    for name in ("b1", "leaf"):
        stats = BrokerStats(store=name, head=1, head_hash=b"", pid=7, version="0.1", address=f"{name}:1", **about)
        seen.passing.stats[name] = (seen.now_ms, stats)
    seen.passing.leaves.add("leaf")
    found = broker_rows(seen, [])
    assert [(one.leaf, one.upstream) for one in found] == [(False, None), (True, "b1")]
    assert "it is a leaf, linked to b1" in member_screens.brokers(found, seen)
    realm.session("broker/leaf", "closed", broker="b1", leaf="read")
    assert "its uplink is down" in member_screens.brokers(broker_rows(seen, []), seen)


def test_a_broker_whose_servers_disk_is_full_is_not_alive_and_says_why() -> None:
    seen = sight(Realm("n1"))
    about = {"sessions": 9, "events": 900, "facts": 40, "disk_bytes": 1, "history_from_ms": 1, "dropped": 0, "lag_s": 0.1}
    stats = BrokerStats(store="s", head=1, head_hash=b"", pid=7, version="0.1", address="b1:1", **about)
    for told, alive in ((stats, True), (msgspec.structs.replace(stats, full="/h/brokers/b1"), False)):
        seen.passing.stats["b1"] = (seen.now_ms, told)
        (found,) = broker_rows(seen, [])
        assert found.alive is alive
        assert ("the disk of /h/brokers/b1 is full" in member_screens.brokers([found], seen)) is not alive


def test_a_store_that_was_damaged_is_told_of_with_what_to_do_as_long_as_it_lies_there() -> None:
    seen = sight(Realm("n1"))
    about = {"sessions": 9, "events": 900, "facts": 40, "disk_bytes": 1, "history_from_ms": 1, "dropped": 0, "lag_s": 0.1}
    stats = BrokerStats(store="s", head=1, head_hash=b"", pid=7, version="0.1", address="", **about)
    assert "damaged" not in to_data(stats)
    seen.passing.stats["b1"] = (seen.now_ms, stats)
    assert [one for one in alerts(seen, Found()) if one.code == "broker.damaged"] == []
    seen.passing.stats["b1"] = (seen.now_ms, msgspec.structs.replace(stats, damaged="/h/store.damaged-1-row-40.db"))
    (told,) = [one for one in alerts(seen, Found()) if one.code == "broker.damaged"]
    assert (told.target, told.who) == ("broker/b1", "you")
    assert "is set aside as /h/store.damaged-1-row-40.db" in told.message
    assert "remove that file" in told.next


def test_controllers_say_why_no_lag_is_known() -> None:
    realm = Realm("n1")
    for name in ("c1", "c2"):
        realm.say(
            f"controller/{name}", f"controller/{name}/state", ControllerState(version="0.1", ruleset=6, pid=7, decisions=3)
        )
        realm.session(f"controller/{name}", "open")
    seen = sight(realm)
    beat = Heartbeat(incarnation=1, sequence=1, lag_s=0.002, emit_rate_s=30.0)
    seen.passing.heard["controller/c1"] = (seen.now_ms, beat)
    check("controllers", member_screens.controllers(controller_rows(seen), seen))


def test_what_became_of_an_applied_service_says_what_runs_and_why() -> None:
    why = reason("rollout.rolled_back", rev="r2", its="web/app/0 was not ready within 5 s", good="r1")
    told = Applied(
        service="web", revision=2, plan=None, outcome="rolled_back", ready=3, wanted=3, running=[1], refused=2, reason=why
    )
    check("applied", "\n".join(screens.applied(told)))


def test_the_next_try_of_an_agent_that_is_dead_is_not_announced() -> None:
    realm = running_one()
    realm.status(key(0), "n1", State.FAILED, parked=True, next_try_ms=realm.now_ms + 600_000)
    realm.close("n1")
    realm.after(0.3).step()
    seen = sight(realm)
    assert "lost" in screens.ps(instances(seen), seen)
    assert "next try" not in screens.ps(instances(seen), seen)


def test_a_service_without_endpoints_is_said_to_have_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dsmt.cli.listing.seen", lambda *_: sight(running_one()))
    assert main(["endpoints", "web"]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err.startswith("web has no endpoint")) == ("", True)
    assert main(["endpoints"]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "there is no endpoint: no instance is ready and has ports; dsmt ps shows them\n")


def test_endpoints_are_a_line_for_each_port() -> None:
    realm = Realm("n1")
    realm.apply(web(2))
    realm.settle()
    said = Endpoint(address="10.0.0.1", ports={"http": 8080, "admin": 9000}, generation=1, ready=True)
    realm.say(agent(key(0), "n1"), "service/web/endpoint/app/0/n1", said)
    realm.health(key(0), "n1", "ready")
    check("endpoints", endpoint_lines(endpoints(sight(realm), Target.parse("web"))), folds=False)
    assert endpoints(sight(realm)) == endpoints(sight(realm), Target.parse("web"))


@pytest.mark.parametrize(
    ("outcome", "revision", "told"),
    [
        ("rolled_back", 2, "two  r2 was refused for a, which runs r1; b runs r2; 2 of 2 ready"),
        ("ready", 3, "two  r3  ready, 2 of 2 ready, a on r1 (r2 was refused)"),
    ],
)
def test_what_became_of_a_revision_that_was_refused_in_part_names_the_components(
    outcome: str, revision: int, told: str
) -> None:
    done = Applied(
        service="two", revision=revision, plan=None, outcome=outcome, ready=2, wanted=2, running=[2, 1], refused=2,
        refused_by=["a"], parts={"a": [1], "b": [2]},
    )  # fmt: skip
    assert screens.applied(done) == [told]
