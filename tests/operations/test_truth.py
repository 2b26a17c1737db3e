"""How a service is: what has failed is a problem with its reason, what is only on its way is none; and whom to call."""

import msgspec
import pytest

from dsmt.cli.service_screen import next_act, screen, sick
from dsmt.event.kinds.controller import ControllerState
from dsmt.event.kinds.instance import Health, LastExit
from dsmt.event.kinds.realm import NodesetFact
from dsmt.event.reason import Reason, reason
from dsmt.event.status import Shown, State
from dsmt.operations.read.rows.controller_rows import controller_rows
from dsmt.operations.read.rows.instances import instances, is_problem
from dsmt.operations.read.rows.node_rows import node_rows
from dsmt.operations.read.screens.alert import Found
from dsmt.operations.read.screens.alerting import alerts
from dsmt.operations.read.screens.summaries import service, services, status
from dsmt.operations.words.targets import Target
from dsmt.trust.store import Realm as RealmName
from dsmt.trust.store import TrustStore
from tests.controllers.build import Realm, agent, key, web

from .sights import sight

CHECKED = "ports: {http: auto}\nhealth: {http: {port: http, path: /}}\n"
TRUST = TrustStore(RealmName(name="prod", roots=(bytes(32),)))
EXITED = reason("start.exited", code="code 3", exit_code=3, time="3ms", target="web/app/0", last_output="no such file")


def placed(component: str = "") -> tuple[Realm, str]:
    realm = Realm("n1", "n2")
    realm.apply(web(1, component=component, head="owner: team-web\n"))
    realm.settle(obey=False)
    return realm, realm.slot().node or ""


def last_exit(realm: Realm) -> LastExit:
    return LastExit(code=3, signal=None, at_ms=realm.now_ms, ran_s=0.1, reason=EXITED)


def test_what_has_no_health_check_and_is_young_is_on_its_way_and_no_problem() -> None:
    realm, node = placed()
    realm.status(key(), node, State.RUNNING)
    realm.health(key(), node, "unready")
    seen = sight(realm)
    told = service(seen, "web")
    assert told is not None
    assert (told.state, told.reason) == ("starting", None)
    assert not is_problem(seen, instances(seen)[0])
    realm.session("controller/c1", "open")
    realm.say("controller/c1", "controller/c1/state", ControllerState(version="0.1", ruleset=6, pid=5, decisions=1))
    assert status(sight(realm), TRUST, []).state == "starting"
    realm.health(key(), node, "ready")
    assert status(sight(realm), TRUST, []).state == "ok"


@pytest.mark.parametrize("state", [State.INSTANTIATED, State.RUNNING])
def test_what_is_tried_again_is_down_with_the_reason_of_its_last_failure(state: State) -> None:
    realm, node = placed(CHECKED)
    realm.status(key(), node, state, failures=2, restarts=2, last_exit=last_exit(realm), attempt=3)
    realm.health(key(), node, "unready")
    seen = sight(realm)
    told = service(seen, "web")
    assert told is not None
    assert told.state == "down"
    assert told.reason is not None
    assert told.reason.code == "start.exited"
    realm_told = status(seen, TRUST, [])
    assert realm_told.state != "ok"
    (alert,) = [one for one in realm_told.alerts if one.target == "web/app/0"]
    assert (alert.code, alert.owner) == ("start.exited", "team-web")


def test_a_first_start_is_no_problem_and_one_that_waits_too_long_for_its_node_is() -> None:
    realm, node = placed(CHECKED)
    seen = sight(realm)
    assert [row.state for row in instances(seen)] == [Shown.WAITING]
    assert [one.state for one in services(seen)] == ["starting"]
    realm.after(11)
    assert [one.state for one in services(sight(realm))] == ["down"]
    realm.status(key(), node, State.INSTANTIATED, last_exit=last_exit(realm))
    assert [one.state for one in services(sight(realm))] == ["starting"], "its last exit was of an earlier generation"


def test_dsmt_says_which_try_comes_next_and_when() -> None:
    realm, node = placed(CHECKED)
    about = {"reason": EXITED, "failures": 6, "restarts": 6, "restarts_recent": 6, "next_try_ms": realm.now_ms + 12_000}
    realm.status(key(), node, State.FAILED, **about)
    (row,) = instances(sight(realm))
    assert next_act(row, realm.now_ms) == "reinstalls it in 12 s (try 7 of 10)"
    shown = "\n".join(sick(row, realm.now_ms))
    assert "no such file" in shown
    assert shown.count("dsmt logs web/app/0 --previous") == 1


@pytest.mark.parametrize(
    "why",
    [
        reason("start.cannot_exec", program="x", dir="/y", error="not found"),
        reason("start.port_in_use", port=80, holder="pid 7"),
        reason("install.command", step="install", code="code 3", time="1s", target="web/app/0"),
    ],
    ids=lambda why: why.code,
)
def test_of_what_has_begun_no_program_nobody_is_sent_to_what_that_has_written(why: Reason) -> None:
    realm, node = placed(CHECKED)
    realm.status(key(), node, State.FAILED, reason=why, failures=6, restarts=6, next_try_ms=realm.now_ms + 12_000)
    (row,) = instances(sight(realm))
    shown = "\n".join(sick(row, realm.now_ms))
    assert why.next in shown
    assert "--previous" not in shown


def test_what_the_run_before_wrote_is_not_shown_as_the_words_of_what_runs_and_is_not_ready() -> None:
    realm, node = placed(CHECKED)
    realm.status(key(), node, State.RUNNING, last_exit=last_exit(realm))
    why = reason("health.not_ready", check="http", n=3, result="404", target="web/app/0")
    about = {"generation": 1, "check": "http", "evidence": "", "failures": 3, "since_ms": realm.now_ms}
    unready = Health(health="unready", reason=why, **about)
    realm.say(agent(key(), node), f"service/web/health/app/0/{node}", unready)
    (row,) = instances(sight(realm))
    assert row.last_exit is not None
    shown = "\n".join(sick(row, realm.now_ms))
    assert "http failed 3 times: 404" in shown
    assert "no such file" not in shown


def test_what_is_left_alone_is_not_said_to_be_tried() -> None:
    realm, node = placed("restart: never\n")
    realm.status(key(), node, State.FAILED, reason=EXITED)
    (row,) = instances(sight(realm))
    assert row.state is Shown.FAILED
    assert next_act(row, realm.now_ms) == "does nothing more: `restart` allows no further try"


def test_what_has_ended_well_and_is_not_run_again_is_no_problem_and_not_wanted_any_more() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(2, component="restart: on_failure\n"))
    realm.settle(seconds=1)
    last = LastExit(code=0, signal=None, at_ms=realm.now_ms, ran_s=1.0, reason=None)
    for number, counts in enumerate([("ok", 1, 1), ("ok", 0, 0)]):
        left_alone = msgspec.structs.replace(EXITED, who="you", next="dsmt retry web/app/0")
        realm.status(key(number), realm.slot(number).node or "", State.FAILED, last_exit=last, reason=left_alone)
        seen = sight(realm)
        told = service(seen, "web")
        assert told is not None
        assert (told.state, told.ready, told.wanted) == counts
        assert not instances(seen, problems=True)
    realm.hold(key(1))
    told = service(sight(realm), "web")
    assert told is not None
    assert (told.state, told.held) == ("held", 1)


def test_a_set_with_the_name_of_a_node_is_an_alert() -> None:
    realm = Realm("n1", "n2")
    realm.say("operator/alice", "nodeset/n1", NodesetFact(expression="n2", by="alice"))
    seen = sight(realm)
    (alert,) = alerts(seen, Found(node_rows(seen)))
    assert (alert.target, alert.next) == ("nodeset/n1", "dsmt nodeset remove n1")


def test_a_controller_whose_lag_is_not_known_says_why() -> None:
    realm = Realm("n1")
    state = {"version": "0.1.0", "ruleset": 6, "pid": 7, "decisions": 0}
    realm.say("controller/c9", "controller/c9/state", state)
    (told,) = [one for one in controller_rows(sight(realm)) if one.controller == "c9"]
    assert (told.lag_s, told.lag_why) == (None, "it is not alive")


def test_a_service_tells_of_which_instances_the_restart_is_to_come() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(3))
    realm.settle(seconds=30)
    for index in range(3):
        realm.control(key(index), restart=1)
    realm.step()
    first = next(index for index in range(3) if realm.slot(index).restart)
    found = service(sight(realm), "web")
    assert found is not None
    assert found.to_restart == [f"web/app/{index}" for index in range(3) if index != first]
    told = screen(found, instances(sight(realm), Target("web")), [], sight=sight(realm), realm="local").splitlines()
    (line,) = (line for line in told if line.startswith("  restart "))
    next_one = found.to_restart[0].removeprefix("web/")
    assert line == f"  restart   to come: {next_one} and 1 more, once what was restarted before is ready"
    realm.hold(key(first))
    realm.settle(seconds=60)
    found = service(sight(realm), "web")
    assert found is not None
    assert found.to_restart == []
