"""What one row of `ps` says of an instance that was lost, tries again or is being stopped."""

import pytest

from dsmt.cli import screens
from dsmt.cli.service_screen import next_act
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.instance import STARTED, LastExit
from dsmt.event.kinds.realm import NodesetFact
from dsmt.event.kinds.source import Heartbeat
from dsmt.event.reason import reason
from dsmt.event.status import Layer, Shown, State
from dsmt.operations.read.rows.instance_row import InstanceRow
from dsmt.operations.read.rows.instances import instances, is_problem, is_ready
from dsmt.operations.read.rows.node_rows import find_node, processes
from dsmt.operations.read.screens.summaries import service
from dsmt.operations.read.why.answers import of_target
from dsmt.operations.read.why.explaining import roots
from dsmt.operations.words.targets import Target
from dsmt.operations.write.controlling import nothing_waits
from tests.controllers.build import Realm, key, web

from .sights import sight
from .test_alerts import stats

EXITED = reason("start.exited", code="code 3", exit_code=3, time="3ms", target="web/app/0")
KILL = "on n1: kill -9 77, if ps -p 77 names dsmt there; another agent is then started"


def running() -> Realm:
    """A realm whose one instance runs on its one node."""
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle()
    return realm


def row_of(realm: Realm) -> InstanceRow:
    (row,) = instances(sight(realm), Target("web"))
    return row


def test_of_a_lost_instance_no_next_try_is_told() -> None:
    realm = running()
    realm.status(key(0), "n1", State.FAILED, next_try_ms=realm.now_ms + 16_000)
    row = row_of(realm)
    assert (row.state, row.next_try_at) == (Shown.BACKOFF, rfc3339(realm.now_ms + 16_000))
    realm.close("n1")
    realm.verdict("n1")
    row = row_of(realm)
    assert (row.state, row.next_try_at) == (Shown.LOST, None)


def test_where_no_agent_can_be_begun_that_is_told_and_its_program_is_unknown() -> None:
    realm = running()
    realm.status(key(0), "n1", pid=9879)
    realm.health(key(0), "n1", "ready")
    realm.endpoint(key(0), "n1", generation=realm.generation())
    realm.now_ms += 10
    full = reason("fetch.no_space", need="1.3 KiB", free="0 B", node="n1", path="/n1/slot.event")
    realm.status(key(0), "n1", State.FAILED, layer=Layer.AGENT, reason=full, next_try_ms=realm.now_ms + 4000)
    row, now = row_of(realm), sight(realm)
    assert (row.state, row.health, row.pid, row.ports, row.agentless) == (Shown.BACKOFF, "unknown", None, {}, True)
    assert row.reason is not None
    assert (row.reason.code, row.reason.who, row.reason.next) == ("fetch.no_space", "you", "free space there")
    assert row.reason.message == (
        "its agent cannot be begun: 1.3 KiB needed, 0 B free on n1 /n1/slot.event; "
        "nobody watches over its program, which was pid 9879: whether it runs is not known"
    )
    told = service(now, "web")
    assert told is not None
    assert (told.ready, told.state) == (0, "degraded")
    assert next_act(row, realm.now_ms) == "tries in 4 s to begin its agent"
    said = of_target(now, "web/app/0", roots(now, "web/app/0"), {}, {})
    assert "has been running" not in said
    assert "its agent cannot be begun" in said
    (program,) = [one for one in processes(now, find_node(now, "n1")) if one.role == "application"]
    assert (program.pid, program.known) == (9879, False)
    assert "no agent is there" in nothing_waits(row)


def test_where_no_agent_can_be_begun_and_no_program_ever_ran_nothing_of_its_health_is_unknown() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle(obey=False)
    full = reason("fetch.no_space", need="1.3 KiB", free="0 B", node="n1", path="/n1/slot.event")
    realm.status(key(0), "n1", State.FAILED, layer=Layer.AGENT, reason=full, next_try_ms=realm.now_ms + 4000)
    row = row_of(realm)
    assert (row.agentless, row.health, row.pid) == (True, "none", None)


@pytest.mark.parametrize(("attempt", "told"), [(1, None), (2, "run.exited")])
def test_why_the_try_before_failed_is_told_of_a_later_try_alone(attempt: int, told: str | None) -> None:
    realm = running()
    why = reason("run.exited", exit_code=1, time="2 s", target="web/app/0")
    ended = LastExit(code=1, signal=None, at_ms=realm.now_ms, ran_s=2.0, reason=why)
    realm.status(key(0), "n1", State.INSTANTIATED, attempt=attempt, last_exit=ended)
    row = row_of(realm)
    assert (row.state, row.reason.code if row.reason else None) == (Shown.STARTING, told)


def test_what_the_start_up_check_of_this_start_sees_is_told_and_it_is_no_problem_yet() -> None:
    realm = running()
    fails = "its start-up check fails: 404"
    realm.health(key(0), "n1", "unready", evidence=fails)
    realm.now_ms += 1000
    realm.status(key(0), "n1", State.INSTANTIATED)
    assert row_of(realm).startup is None  # of the run before
    for seen, told in ((STARTED, None), (fails, fails)):
        realm.health(key(0), "n1", "unready", evidence=seen)
        row = row_of(realm)
        assert (row.startup, row.reason, is_problem(sight(realm), row)) == (told, None, False)
        assert instances(sight(realm), problems=True) == ([] if told is None else [row])
    assert f"{fails}; dsmt logs web/app/0" in screens.ps([row], sight(realm))
    for target in ("web/app/0", "web"):
        assert of_target(sight(realm), target, roots(sight(realm), target), {}, {}).endswith(f"; {fails}")
    realm.status(key(0), "n1", State.RUNNING)
    assert row_of(realm).startup is None


@pytest.mark.parametrize(
    ("state", "health", "shown"),
    [(State.RUNNING, "ready", "ok"), (State.RUNNING, "unready", "down"), (State.INSTANTIATED, "unready", "down")],
)
def test_a_check_that_cannot_be_made_is_a_problem_that_is_told_whatever_state_it_leaves(
    state: State, health: str, shown: str
) -> None:
    """A liveness check that could never be made guarded nothing, and no screen said so."""
    realm, error = running(), "./nosuch cannot be run"
    broken = reason("health.check_broken", error=error)
    realm.status(key(0), "n1", state, pid=7)
    realm.health(key(0), "n1", health, evidence=error, reason=broken)
    row, found = row_of(realm), service(sight(realm), "web")
    assert (row.reason, is_problem(sight(realm), row), row.startup_news) == (broken, True, "")
    assert found is not None
    assert (found.state, found.reason) == (shown, broken)
    until = "" if health == "ready" else "; nothing is sent to it until it is ready"
    assert next_act(row, realm.now_ms) == f"goes on checking{until}"


def test_what_is_being_stopped_has_its_process_and_its_ports_until_it_has_ended() -> None:
    realm = running()
    realm.endpoint(key(0), "n1", generation=realm.generation())
    for state, shown, pid in ((State.TERMINATED, Shown.STOPPING, 15), (State.STOPPED, Shown.STOPPED, None)):
        realm.status(key(0), "n1", state, pid=15)
        row = row_of(realm)
        assert (row.state, row.pid, row.ports) == (shown, pid, {} if pid is None else {"http": 8080})


def test_of_what_fails_beside_the_copy_before_the_copy_that_is_served_is_shown() -> None:
    realm = running()
    realm.endpoint(key(0), "n1", generation=1)
    realm.apply(web(1, component="env: {A: b}\n"))
    realm.step()
    realm.status(key(0), "n1", State.FAILED, next_try_ms=realm.now_ms + 16_000, pid=7, reason=EXITED)
    row = row_of(realm)
    assert (row.state, row.health, row.pid, row.ports) == (Shown.BACKOFF, "ready", 7, {"http": 8080})
    assert (is_problem(sight(realm), row), is_ready(sight(realm), row)) == (True, False)
    told = service(sight(realm), "web")
    assert told is not None
    assert (told.ready, told.wanted, told.state, told.reason) == (1, 1, "degraded", EXITED)
    assert of_target(sight(realm), "web", roots(sight(realm), "web"), {}, {}).startswith(
        "web: 1 of 1 ready; web/app/0 failed on n1 "
    )
    realm.endpoint(key(0), "n1", generation=1, ready=False)
    row = row_of(realm)
    assert (row.health, row.pid, row.ports) == ("none", None, {})
    told = service(sight(realm), "web")
    assert told is not None
    assert (told.ready, told.state) == (0, "down")


def test_of_what_cannot_be_installed_it_is_said_what_goes_on_running() -> None:
    realm = running()
    realm.endpoint(key(0), "n1", generation=1)
    realm.apply(web(1, component="env: {A: b}\n"))
    realm.step()
    missing = reason("fetch.not_found", url="https://x/a.tgz", status=404)
    realm.status(key(0), "n1", State.FAILED, next_try_ms=realm.now_ms + 16_000, pid=7, reason=missing)
    row = row_of(realm)
    assert row.reason is not None
    assert row.reason.message == "r1 goes on running; r2 cannot be installed: https://x/a.tgz does not exist (404)"
    realm.endpoint(key(0), "n1", generation=1, ready=False)
    assert row_of(realm).reason == missing


def test_an_update_beside_what_is_served_makes_no_service_start() -> None:
    realm = running()
    realm.endpoint(key(0), "n1", generation=1)
    realm.apply(web(1, component="env: {A: b}\n"))
    realm.step()
    realm.status(key(0), "n1", State.INSTANTIATED)
    told = service(sight(realm), "web")
    assert told is not None
    assert (told.ready, told.wanted, told.state) == (1, 1, "ok")


def test_a_lost_instance_that_no_other_node_takes_says_since_when_and_why_and_that_it_is_for_you() -> None:
    parked = reason("run.flapping", n=3, time="1 s", last="exited", pause="10m", cause="its spec", target="web/app/0")
    realm = Realm("n1", "n2")
    realm.apply(web(1, component="nodes: n1"))
    realm.settle()
    realm.status(key(0), "n1", State.FAILED, parked=True, reason=parked, next_try_ms=realm.now_ms + 600_000)
    realm.close("n1")
    realm.verdict("n1")
    since = rfc3339(realm.now_ms)
    realm.settle(seconds=1)
    row = row_of(realm)
    assert row.reason is not None
    assert (row.state, row.since, row.reason.code, row.reason.who) == (Shown.LOST, since, "node.lost", "you")
    assert row.reason.message.startswith(f"n1 is dead since {since}: as a test says; no node fits: 0 of 2 pass")
    assert row.reason.next == "dsmt why-not web/app/0"
    assert next_act(row, realm.now_ms) == "does nothing until you act"
    realm.apply(web(1))
    assert row_of(realm).reason.who == "dsmt", "n2 takes it"


@pytest.mark.parametrize("state", [State.INSTANTIATED, State.RUNNING])
def test_an_instance_that_moves_counts_as_ready_while_the_node_before_serves_it(state: State) -> None:
    realm = running()
    realm.node("n2")
    realm.endpoint(key(0), "n1", generation=1)
    realm.control(key(0), move="n2")
    realm.step()
    assert realm.slot(0).previous is not None
    realm.status(key(0), "n2", state)
    realm.health(key(0), "n2", "unready")
    told = service(sight(realm), "web")
    assert told is not None
    assert (told.ready, told.wanted) == (1, 1)
    realm.endpoint(key(0), "n1", generation=1, ready=False)
    told = service(sight(realm), "web")
    assert told is not None
    assert told.ready == 0


def moved() -> Realm:
    """One that ran on a node that is dead, was killed there once before that, and goes to another node."""
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.settle()
    ended = LastExit(code=None, signal="SIGKILL", at_ms=realm.now_ms, ran_s=2.0, reason=EXITED)
    node = realm.slot(0).node
    realm.status(key(0), node, State.RUNNING, attempt=1, last_exit=ended)
    realm.close(node)
    realm.verdict(node)
    realm.step()
    assert realm.slot(0).node not in (None, node)
    return realm


def test_what_failed_on_a_node_long_before_it_died_is_no_reason_of_what_starts_elsewhere() -> None:
    realm = moved()
    node = realm.slot(0).node
    assert row_of(realm).reason.code == "node.lost", "it waits for that"
    realm.status(key(0), node, State.INSTANTIATED, attempt=1)
    row = row_of(realm)
    assert (row.state, row.reason) == (Shown.STARTING, None)


def test_a_death_that_a_move_was_for_is_no_reason_of_what_its_node_does_later() -> None:
    realm = moved()
    node = realm.slot(0).node
    realm.status(key(0), node, State.RUNNING, attempt=1)
    realm.status(key(0), node, State.STOPPED, attempt=1)
    row = row_of(realm)
    assert (row.state, row.reason) == (Shown.STOPPED, None)


def test_an_agent_that_was_started_and_never_says_a_word_is_the_reason_after_thirty_seconds() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle(obey=False)
    realm.status(key(0), "n1", State.INSTALLED, layer=Layer.CONTAINER)
    realm.status(key(0), "n1", State.RUNNING, layer=Layer.AGENT, pid=77)
    realm.after(29)
    row = row_of(realm)
    assert (row.state, row.reason) == (Shown.INSTALLING, None)
    realm.after(2)
    shown = sight(realm)
    row = row_of(realm)
    assert row.reason is not None
    assert (row.reason.code, row.reason.who) == ("start.unheard", "you")
    said = "its agent, process 77 on n1, has said nothing since it began 31 s ago; it reaches no broker, or hangs"
    assert row.reason.message == said
    assert row.reason.next == KILL
    assert is_problem(shown, row)
    found = service(shown, "web")
    assert found is not None
    assert (found.state, found.reason) == ("down", row.reason)
    assert of_target(shown, "web/app/0", [], {}, {}).endswith(f": {row.reason.message}")
    realm.close("n1")
    row = row_of(realm)
    assert row.reason is None, "of a node that is silent itself that says nothing of its agent"
    realm.attach("n1")
    realm.status(key(0), "n1", State.STOPPED, generation=0)
    row = row_of(realm)
    assert (row.state, row.reason) == (Shown.INSTALLING, None), "it was heard since: of an older generation"
    realm.after(1).status(key(0), "n1", State.RUNNING, layer=Layer.AGENT, pid=78)
    row = row_of(realm.after(31))
    assert row.reason is not None, "the next one has said nothing"


@pytest.mark.parametrize(
    ("nodes", "advice"),
    [
        ("good", "dsmt nodeset show good"),
        ("goood", "there is no node or node set goood: correct `nodes`; dsmt nodeset list; dsmt why-not web/app/0"),
        ("minus(n1, n1)", "dsmt nodeset list; dsmt why-not web/app/0"),
    ],
)
def test_what_is_to_be_looked_at_of_a_set_that_selects_no_node_is_there(nodes: str, advice: str) -> None:
    realm = Realm("n1")
    realm.say("operator/alice", "nodeset/good", NodesetFact(expression="minus(n1, n1)", by="alice"))
    realm.apply(web(1, component=f"nodes: {nodes}"))
    realm.settle()
    why = row_of(realm).reason
    assert why is not None
    assert (why.code, why.next) == ("place.empty_set", advice)


def test_of_an_agent_that_never_says_a_word_where_no_broker_is_heard_it_is_not_told_to_kill_it() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle(obey=False)
    realm.status(key(0), "n1", State.RUNNING, layer=Layer.AGENT, pid=77)
    shown = sight(realm.after(31))
    monitor = Heartbeat(incarnation=1, sequence=1, lag_s=0.0, emit_rate_s=1.0)
    shown.passing.heard["monitor/n1"] = shown.now_ms, monitor
    for heard, advice in ((True, KILL), (False, "dsmt brokers")):
        shown.passing.stats.clear()
        shown.passing.stats.update({"b1": (shown.now_ms, stats())} if heard else {})
        why = instances(shown)[0].reason
        assert why is not None
        assert (why.code, why.next) == ("start.unheard", advice)
        assert ("no broker is heard" in why.message) != heard


def test_what_ended_with_a_removed_service_waits_for_nothing_where_that_is_applied_again_with_fewer() -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(3))
    realm.settle()
    realm.apply(web(3), removed=True)
    realm.settle()
    realm.after(10).settle()
    realm.apply(web(2))
    realm.settle()
    rows = [(row.key.index, row.state) for row in instances(sight(realm), Target("web"), everything=True)]
    assert Shown.GONE in {state for index, state in rows if index == 2}
    assert (2, Shown.WAITING) not in rows


def test_while_the_next_program_starts_beside_one_that_is_served_the_row_is_of_the_next_and_says_what_serves() -> None:
    realm = running()
    realm.endpoint(key(0), "n1", generation=1)
    realm.status(key(0), "n1", pid=15)
    assert (row_of(realm).pid, row_of(realm).ports, row_of(realm).serving) == (15, {"http": 8080}, None)
    realm.after(60).apply(web(1, component="env: {A: b}\n"))
    realm.step()
    for state in (State.INITIATED, State.INSTANTIATED, State.RUNNING):
        realm.status(key(0), "n1", state, pid=16)
        if state is State.RUNNING:
            realm.health(key(0), "n1", "unready", evidence=STARTED)
        row = row_of(realm)
        assert (row.pid, row.ports, row.address) == (None if state is State.INITIATED else 16, {}, None)
        said = "r1 serves at 192.0.2.1 http:8080 until this is ready"
        assert said in screens.ps([row], sight(realm))
        for target in ("web/app/0", "web"):
            assert of_target(sight(realm), target, roots(sight(realm), target), {}, {}).endswith(f"; {said}")
    realm.endpoint(key(0), "n1", generation=2)
    realm.health(key(0), "n1", "ready")
    assert (row_of(realm).ports, row_of(realm).serving) == ({"http": 8080}, None)


def test_of_what_moves_it_is_said_which_copy_serves() -> None:
    realm = running()
    realm.node("n2")
    realm.endpoint(key(0), "n1", generation=1)
    realm.control(key(0), move="n2")
    realm.step()
    realm.status(key(0), "n2", State.INSTANTIATED, pid=16)
    assert "the copy on n1 serves at 192.0.2.1 http:8080 until this is ready" in screens.ps([row_of(realm)], sight(realm))


def test_of_several_problems_of_a_service_the_one_that_waits_for_a_person_is_told_and_the_others_are_named() -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(3))
    realm.settle()
    waits = reason("start.port_in_use", port="80", holder="x")
    stops = reason("start.cannot_exec", program="x", dir="y", error="z")
    for index, why in ((0, waits), (1, stops), (2, waits)):
        fact = realm.view.slot(key(index)).record
        assert fact is not None
        realm.status(key(index), fact.node or "", State.FAILED, reason=why, next_try_ms=realm.now_ms + 20_000)
    told = service(sight(realm), "web")
    assert told is not None
    assert (told.reason, told.also) == (stops, {"web/app/0": "start.port_in_use", "web/app/2": "start.port_in_use"})
    assert "also: web/app/0 (start.port_in_use), web/app/2 (start.port_in_use): dsmt status web" in screens.services(
        [told], sight(realm)
    )
