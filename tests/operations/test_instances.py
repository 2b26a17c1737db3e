"""Rows of `ps`, targets, services, nodes, why-not, and where `why` begins: from a view, with no process."""

import pytest

from dsmt.cli import screens
from dsmt.cli.service_screen import next_act
from dsmt.errors import InputError, NotFoundError
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.instance import LastExit, Step
from dsmt.event.kinds.realm import BrakeWord
from dsmt.event.reason import reason
from dsmt.event.status import Layer, Shown, State
from dsmt.operations.read.rows.instance_row import Working
from dsmt.operations.read.rows.instances import instances, is_problem
from dsmt.operations.read.rows.node_rows import node_rows, node_shown
from dsmt.operations.read.screens.alert import Found
from dsmt.operations.read.screens.alerting import alerts
from dsmt.operations.read.screens.summaries import brake, service, services
from dsmt.operations.read.why.answers import of_target
from dsmt.operations.read.why.explaining import roots
from dsmt.operations.read.why.fitting import why_not
from dsmt.operations.words.targets import Target, slots_of
from dsmt.view import SlotKey
from tests.controllers.build import Realm, key, web

from .sights import sight


def running(instances_: int = 3) -> Realm:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(instances_, head="labels: {tier: front}\n"))
    realm.settle()
    return realm


def node_of(realm: Realm, at: SlotKey) -> str:
    entry = realm.view.slot(at)
    assert entry is not None
    assert entry.fact is not None
    return entry.fact.record.node or ""


def test_there_is_a_row_for_each_slot() -> None:
    rows = instances(sight(running()))
    assert [(row.instance, row.state, row.health) for row in rows] == [
        (f"web/app/{i}", Shown.RUNNING, "none") for i in range(3)
    ]


def test_an_applied_service_that_nobody_has_placed_yet_waits() -> None:
    realm = Realm("n1")
    realm.apply(web(2))
    rows = instances(sight(realm))
    assert [(row.instance, row.state, row.node) for row in rows] == [
        ("web/app/0", Shown.WAITING, None),
        ("web/app/1", Shown.WAITING, None),
    ]


def test_what_is_wanted_no_more_has_a_row_where_that_is_asked_for_until_it_has_ended() -> None:
    realm = running(2)
    node = node_of(realm, key(1))
    realm.apply(web(1))
    realm.settle(obey=False)

    def shown() -> list[tuple[str, str | None, Shown]]:
        return [(row.instance, row.node, row.state) for row in instances(sight(realm), ending=True)]

    first = ("web/app/0", node_of(realm, key(0)), Shown.RUNNING)
    for said, word in ((State.RUNNING, Shown.RUNNING), (State.TERMINATED, Shown.STOPPING)):
        realm.status(key(1), node, said)
        assert shown() == [first, ("web/app/1", node, word)]
        assert [row.instance for row in instances(sight(realm))] == ["web/app/0"]
    realm.status(key(1), node, State.GONE)
    assert shown() == [first]


def test_a_dead_nodes_instance_is_lost_with_the_reason() -> None:
    realm = running()
    node = node_of(realm, key(0))
    realm.close(node)
    realm.verdict(node)
    (row,) = instances(sight(realm), Target("web", "app", 0))
    assert (row.state, row.reason.code if row.reason else None) == (Shown.LOST, "node.lost")


def test_of_one_of_each_node_on_a_dead_node_nobody_says_that_dsmt_acts_but_what_to_do() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web("each_node"))
    realm.settle(seconds=1)
    realm.close("n2")
    realm.verdict("n2")
    (row,) = instances(sight(realm), problems=True)
    assert row.reason is not None
    assert (row.state, row.node, row.reason.code, row.reason.who) == (Shown.LOST, "n2", "node.lost", "you")
    assert row.reason.next == "bring n2 back, or dsmt node remove n2 --forget"


def test_the_instance_of_an_agent_that_has_ended_is_stale_after_ten_seconds_and_lost_after_three_rates() -> None:
    realm = running()
    node = node_of(realm, key(0))
    source = f"agent/{node}/web/app/0"
    realm.attach(node, sources=[source])
    realm.session(source, "closed", how="peer")
    for seconds, stale in ((9, False), (1, True), (79, True)):
        realm.after(seconds)
        (row,) = instances(sight(realm), Target("web", "app", 0))
        assert (row.state, row.stale) == (Shown.RUNNING, stale)
    realm.after(2)
    (row,) = instances(sight(realm), Target("web", "app", 0))
    assert (row.state, row.stale) == (Shown.LOST, True)
    assert row.reason is not None
    assert row.reason.code == "node.stale"


def test_the_readiness_of_what_an_agent_that_hangs_has_said_is_unknown() -> None:
    realm = running()
    node = node_of(realm, key(0))
    source = f"agent/{node}/web/app/0"
    realm.attach(node, sources=[f"node/{node}", source])
    realm.health(key(0), node, "ready")
    realm.session(source, "silent")
    realm.after(9)
    (row,) = instances(sight(realm), Target("web", "app", 0))
    assert (row.state, row.health, row.stale) == (Shown.RUNNING, "ready", False)
    realm.after(2)
    (row,) = instances(shown := sight(realm), Target("web", "app", 0))
    assert (row.state, row.health, row.stale) == (Shown.RUNNING, "unknown", True)
    assert is_problem(shown, row)
    assert row.reason is not None
    assert (row.reason.code, row.reason.who, row.reason.next) == ("run.unheard", "dsmt", f"dsmt node show {node}")
    assert row.reason.message.startswith("its agent has been silent for 11 s while its node was heard")
    found = service(shown, "web")
    assert found is not None
    assert (found.state, found.reason) == ("degraded", row.reason)
    assert of_target(shown, "web/app/0", [], {}, {}).endswith(f"; {row.reason.message}")
    assert next_act(row, shown.now_ms).startswith("starts its agent again")


def test_labels_and_problems_filter() -> None:
    realm = running()
    realm.apply(web(1, service="db"))
    realm.settle()
    why = reason("run.exited", exit_code=1, time="2 s", target="db/app/0")
    at = SlotKey("db", "app", 0)
    realm.status(at, node_of(realm, at), State.FAILED, reason=why, next_try_ms=realm.now_ms + 9_000)
    assert {row.service for row in instances(sight(realm), labels={"tier": "front"})} == {"web"}
    (row,) = instances(sight(realm), problems=True)
    assert (row.instance, row.state) == ("db/app/0", Shown.BACKOFF)


def test_a_hold_is_shown_with_who_and_why() -> None:
    realm = running()
    realm.hold(key(1))
    realm.settle()
    (row,) = instances(sight(realm), Target("web", "app", 1))
    assert row.state is Shown.STOPPED
    assert row.held is not None
    assert (row.held.by, row.held.reason) == ("alice", "a test")
    found = service(sight(realm), "web")
    assert found is not None
    assert (found.ready, found.wanted, found.held, found.state) == (2, 2, 1, "ok")


def test_what_has_ended_is_shown_only_when_all_is_asked_for() -> None:
    realm = running()
    realm.apply(web(2))
    realm.settle()
    assert [row.instance for row in instances(sight(realm))] == ["web/app/0", "web/app/1"]
    everything = instances(sight(realm), everything=True)
    assert [(row.instance, row.state) for row in everything][-1] == ("web/app/2", Shown.GONE)


@pytest.mark.parametrize("text", ["", "web/", "web/app/x", "web/app/0/1", "Web", "web//0"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        Target.parse(text)


@pytest.mark.parametrize("text", ["we", "webb", "web/ap", "web/app/7"])
def test_no_target_is_guessed_from_a_part_of_its_name(text: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        slots_of(running().view, Target.parse(text))
    assert caught.value.code == ("target.unknown" if text.startswith("web/") else "service.unknown")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("n1", "n1 is a node: dsmt node show n1, dsmt why node/n1"),
        ("node/n1", "dsmt node show n1, or dsmt why node/n1"),
        ("c1", "c1 is a controller: dsmt controllers, dsmt why controller/c1"),
        ("controller/c1", "dsmt controllers, or dsmt why controller/c1"),
        ("1700000000000-42", "an event's id has its source before it: dsmt why SOURCE#1700000000000-42"),
        ("webb", "did you mean web? dsmt services lists them"),
    ],
)
def test_who_names_something_else_than_a_service_is_told_how_that_is_looked_at(text: str, meant: str) -> None:
    realm = running()
    realm.session("controller/c1", "open")
    with pytest.raises(NotFoundError) as caught:
        slots_of(realm.view, Target.parse(text))
    assert caught.value.next == meant


def test_a_drained_node_says_who_wanted_it() -> None:
    realm = running()
    realm.control_node("n1", "draining")
    realm.settle(seconds=5)
    shown = node_shown(sight(realm), "n1")
    assert (shown.mode, shown.mode_by, shown.mode_reason, shown.instances) == ("drained", "alice", "kernel 6.8", 0)


def test_a_dead_node_has_its_evidence_and_no_processes() -> None:
    realm = running()
    realm.close("n2")
    realm.verdict("n2")
    found = {node.node: node for node in node_rows(sight(realm))}
    assert (found["n2"].liveness, found["n2"].evidence, found["n2"].stale) == ("dead", "as a test says", True)
    assert found["n1"].liveness == "alive"
    assert node_shown(sight(realm), "n2").processes == []


def test_the_processes_of_a_node_begin_with_its_spawner() -> None:
    realm = running(1)
    node = node_of(realm, key(0))
    realm.attributes(node, spawner_pid=11, manager_pid=12, monitor_pid=13)
    realm.status(key(0), node, State.RUNNING, pid=15)
    roles = [(one.role, one.instance) for one in node_shown(sight(realm), node).processes]
    assert roles[:3] == [("spawner", None), ("manager", None), ("monitor", None)]
    assert roles[-1] == ("application", "web/app/0")


def test_why_begins_at_what_decides_what_is_shown() -> None:
    realm = running()
    node = node_of(realm, key(0))
    (status,) = [s for s in roots(sight(realm), "web/app/0") if s.event.type == "dsmt.status"]
    assert status.event.data["state"] == "running"
    realm.health(key(0), node, "ready")
    assert roots(sight(realm), "web/app/0")[0].event.type == "dsmt.health"
    realm.close(node)
    verdict = realm.verdict(node)
    assert verdict in roots(sight(realm), "web/app/0")
    assert roots(sight(realm), f"node/{node}") == [verdict]


def test_why_not_names_each_clause_with_its_nodes_and_what_would_help() -> None:
    realm = Realm("n1", "n2")
    realm.control_node("n2", "excluded")
    realm.apply(web(1, component="reserve: {memory: 900GiB}"))
    realm.settle()
    found = why_not(sight(realm), Target("web", "app", 0))
    assert found.fits == []
    assert {clause.clause: (clause.removes, clause.alone) for clause in found.clauses} == {"memory": (2, 1), "mode": (1, 0)}
    assert found.suggestions == ["reserve.memory <= 8 GiB: n1 fits"]
    assert found.reason is not None
    only = why_not(sight(realm), Target("web", "app", 0), "n2")
    assert (only.nodes, sorted(clause.clause for clause in only.clauses)) == (1, ["memory", "mode"])


def test_why_not_says_what_a_slot_on_a_dead_node_waits_for() -> None:
    realm = running(3)
    node = node_of(realm, key(1))
    on = node_of(realm, key(0))
    assert (why_not(sight(realm), Target("web")).reason, why_not(sight(realm), Target("web")).on) == (None, on)
    realm.close(node)
    realm.verdict(node)
    found = why_not(sight(realm), Target("web"))
    assert (found.target, found.reason, found.on) == ("web/app/1", None, None)
    held = BrakeWord(held=True, released_ms=0, by="alice", reason="x")
    realm.say("operator/alice", "config/brake", held)
    assert why_not(sight(realm), Target("web")).reason.code == "wait.brake"
    realm.hold(key(1))
    assert why_not(sight(realm), Target("web")).reason is None


def test_an_instance_on_a_dead_node_says_that_it_waits_for_data_that_it_may_go_back_to() -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(1, component="data: true\n"))
    realm.settle(seconds=1)
    node = node_of(realm.after(100), key(0))
    realm.close(node)
    realm.settle(seconds=1)
    realm.apply(web(1))
    realm.settle(seconds=1)
    (row,) = instances(sight(realm), Target("web"))
    assert row.reason is not None
    assert (row.state, row.reason.message) == (Shown.LOST, f"its data is on {node}, which is dead")
    found = why_not(sight(realm), Target("web"))
    assert (found.fits, found.reason) == ([], row.reason)


def test_the_brake_tells_who_holds_it() -> None:
    assert brake(sight(running())).on is False


def test_limits_that_are_not_kept_as_written_are_told_of_the_service() -> None:
    realm = Realm("n1")
    realm.apply(web(1, component="limits: {memory: 1GiB, pids: 5, enforce: best_effort}"))
    realm.settle()
    found = service(sight(realm), "web")
    assert found is not None
    assert found.limits == [
        "app: limits.pids (5) is not enforced on n1",
        "app: limits.memory (1 GiB) bounds the address space of each process (best_effort)",
    ]
    realm.apply(web(1))
    realm.settle()
    found = service(sight(realm), "web")
    assert found is not None
    assert found.limits == []


def test_an_alert_of_a_service_says_whom_to_call() -> None:
    realm = Realm("n1")
    realm.apply(web(1, head="owner: team-web\n"))
    realm.settle()
    why = reason("run.exited", exit_code=1, time="0.4 s", target="web/app/0", last_output="")
    realm.status(key(0), "n1", State.FAILED, reason=why, next_try_ms=realm.now_ms + 20_000)
    seen = sight(realm)
    found = Found(node_rows(seen), services=services(seen))
    assert [alert.owner for alert in alerts(seen, found) if alert.target == "web/app/0"] == ["team-web"]


@pytest.mark.parametrize("state", [State.STOPPED, State.REQUESTED, State.GONE])
def test_one_of_each_node_that_waits_for_its_data_says_so_and_what_to_do(state: State) -> None:
    realm = Realm()
    for node in ("n1", "n2"):
        realm.node(node, key=f"key of {node}")
    realm.apply(web("each_node", component="data: true"))
    realm.settle(seconds=1)
    slot = next(key(i) for i in (0, 1) if node_of(realm, key(i)) == "n2")
    realm.status(slot, "n2", state, generation=0 if state is State.GONE else None)
    realm.attributes("n2", key="a new one")
    (row,) = instances(sight(realm), Target("web", "app", slot.index))
    assert is_problem(sight(realm), row)
    assert row.reason is not None
    assert (row.reason.code, row.reason.who) == ("wait.pinned", "you")
    found = why_not(sight(realm), Target("web"))
    assert (found.target, found.fits) == (str(slot), [])
    assert found.reason == row.reason
    assert found.suggestions == [f"dsmt move {slot} --accept-data-loss: it begins on n2 with no data"]


def test_a_step_that_takes_long_is_in_the_row_and_in_the_answer_also_of_what_is_wanted_again() -> None:
    realm = running(1)
    at, node = key(0), node_of(realm, key(0))
    began_ms = realm.now_ms
    realm.status(at, node, State.STOPPED, step=Step(name="uninstall", since_ms=began_ms, limit_s=600.0))
    realm.now_ms += 7000
    (row,) = instances(sight(realm), Target("web"))
    assert row.working == Working(step="uninstall", since=rfc3339(began_ms), limit_s=600.0)
    assert "`uninstall` command has taken 7 s so far, and is ended after 10 m; dsmt logs web/app/0 --step uninstall" in (
        screens.ps([row], sight(realm))
    )
    begin = roots(sight(realm), "web/app/0")
    assert "its `uninstall` command has been running since" in of_target(sight(realm), "web/app/0", begin, {}, {})


def test_a_service_that_waits_for_its_next_try_says_when_that_is() -> None:
    realm = running(1)
    at, node = key(0), node_of(realm, key(0))
    why = reason("run.exited", code=0, time="0.3s", exit_code=0, target="web/app/0")
    realm.status(at, node, State.FAILED, reason=why, next_try_ms=realm.now_ms + 16_000)
    found = service(sight(realm), "web")
    assert found is not None
    assert (found.state, found.next_try_at) == ("down", rfc3339(realm.now_ms + 16_000))
    assert "exited with code 0 after 0.3s; next try in 16 s" in screens.services([found], sight(realm))


def test_what_is_held_where_a_revision_was_tried_says_that_it_waits_for_that() -> None:
    realm = running(2)
    realm.apply(web(2, component="env: {A: b}\n"))
    realm.settle(obey=False)
    tried = next(at for at in (key(0), key(1)) if realm.slot(at.index).revision == 2)
    realm.status(tried, node_of(realm, tried), State.FAILED)
    realm.hold(tried)
    realm.settle(obey=False)
    row = next(row for row in instances(sight(realm)) if row.instance == str(tried))
    assert row.held is not None
    assert row.held.stands == 2
    assert "; r2 goes no further until this is started" in screens.held(row.held, realm.now_ms)


def test_an_agent_that_ends_before_its_program_is_heard_of_is_a_problem_with_its_reason() -> None:
    realm = running(1)
    at, node = key(0), node_of(realm, key(0))
    realm.status(at, node, State.INITIATED)
    realm.after(1)
    why = reason("dsmt.bug", id="deployment_agent.log", module="the deployment agent")
    last = LastExit(code=1, signal=None, at_ms=realm.now_ms, ran_s=0.2, reason=why)
    for state in (State.FAILED, State.INITIATED, State.RUNNING):
        realm.status(at, node, state, layer=Layer.AGENT, last_exit=last)
        (row,) = instances(sight(realm))
        assert (row.state, row.reason) == (Shown.INSTALLING, why)
        assert is_problem(sight(realm), row)
    realm.after(1)
    realm.status(at, node, State.REQUESTED)
    (row,) = instances(sight(realm))
    assert row.reason is None
