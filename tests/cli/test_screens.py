"""Golden screens: what people see of a realm that is not well: into a pipe as it is, and on a terminal of 80 columns.

`DSMT_REWRITE=1` writes them anew; the diff is the review.
"""

import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dsmt.cli import cert, event_lines, nodeset, screens, service_screen
from dsmt.cli.command import CliContext
from dsmt.cli.listing import endpoint_lines
from dsmt.cli.logs import written
from dsmt.cli.past import screen as history_screen
from dsmt.cli.plan_screen import difference as difference_screen
from dsmt.cli.plan_screen import screens as plan_screens
from dsmt.cli.printing import Escaping, document, folded, one_line
from dsmt.cli.root import main
from dsmt.cli.why_screen import screen as why_screen
from dsmt.errors import InputError, NotFoundError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.kinds.broker import BrokerStats
from dsmt.event.kinds.controller import ControllerState
from dsmt.event.kinds.instance import Endpoint, Health
from dsmt.event.kinds.node import NodeControl
from dsmt.event.kinds.realm import Brake
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Hold, Slot
from dsmt.event.kinds.source import Heartbeat
from dsmt.event.reason import reason
from dsmt.event.records import to_data
from dsmt.event.status import State
from dsmt.operations.local.certificates import Held
from dsmt.operations.read.alerting import alerts
from dsmt.operations.read.endpoints import endpoints
from dsmt.operations.read.explaining import Explained, Link
from dsmt.operations.read.instances import instances
from dsmt.operations.read.members import brokers, controllers, node_shown, nodes
from dsmt.operations.read.past import Revision
from dsmt.operations.read.planning import difference, plan
from dsmt.operations.read.reading_logs import Line, Told
from dsmt.operations.read.summaries import service, services, status
from dsmt.operations.read.waiting import Applied
from dsmt.operations.words.event_objects import event_object
from dsmt.operations.words.sentences import sentence
from dsmt.operations.words.targets import Target
from dsmt.operations.words.times import rfc3339
from dsmt.operations.write.nodesets import NodeSet
from dsmt.ports.bus import Notice
from dsmt.spec.parsing import parse
from dsmt.trust.identity import root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import Realm as RealmName
from dsmt.trust.store import TrustStore
from dsmt.view import SlotKey
from tests.controllers.build import Realm, agent, key, web
from tests.operations.recorded import Recording
from tests.operations.sights import sight

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def check(name: str, text: str, *, folds: bool = True) -> None:
    """Into a pipe nothing is cut or broken; in 80 columns no line is longer. Streams fit their own lines."""
    shapes = {f"{name}.txt": text}
    if folds:
        shapes[f"{name}.80.txt"] = folded(text, 80)
        assert max(map(len, shapes[f"{name}.80.txt"].splitlines())) <= 80
    for path, shown in ((GOLDEN / file, shape) for file, shape in shapes.items()):
        if os.environ.get("DSMT_REWRITE"):
            GOLDEN.mkdir(exist_ok=True)
            path.write_text(shown + "\n")
        assert shown + "\n" == path.read_text()


def trouble() -> Realm:
    """Three of web, one of them failing, one held; a service without a place; a dead node and a drained one."""
    realm = Realm("n1", "n2", "n3", "n4")
    realm.apply(web(3))
    realm.settle()
    for index in range(3):
        node = on(realm, key(index))
        told = Endpoint(address="192.0.2.1", ports={"http": 20_000 + index}, generation=1, ready=True)
        realm.say(agent(key(index), node), f"service/web/endpoint/app/{index}/{node}", told)
        realm.health(key(index), node, "ready")
    realm.after(3600)
    realm.hold(key(2))
    realm.settle()
    realm.apply(web(1, service="big", component="reserve: {memory: 900GiB}"))
    realm.settle()
    realm.control_node(free(realm, 0), "draining")
    dead = free(realm, 1)
    realm.after(8)
    if dead:
        realm.close(dead)
        realm.verdict(dead)
    why = reason("run.exited", exit_code=1, time="0.4 s", target="web/app/1", last_output="no space left")
    realm.status(key(1), on(realm, key(1)), State.FAILED, reason=why, next_try_ms=realm.now_ms + 20_000, restarts=7)
    return realm.after(8)


def on(realm: Realm, at: SlotKey) -> str:
    slot = realm.view.slot(at)
    assert slot is not None
    assert slot.fact is not None
    return slot.fact.record.node or ""


def free(realm: Realm, place: int) -> str:
    """A node without instances, or else the one of web/app/0."""
    taken = {on(realm, key(i)) for i in range(3)}
    return [*sorted(set(realm.view.nodes) - taken), on(realm, key(0))][place]


def test_ps_puts_the_reason_under_a_sick_line() -> None:
    realm = trouble()
    seen = sight(realm)
    check("ps", screens.ps(instances(seen), seen))


def test_services_say_who_acts() -> None:
    seen = sight(trouble())
    check("services", screens.services(services(seen), seen))


def test_nodes_say_why_one_is_not_used() -> None:
    seen = sight(trouble())
    check("nodes", screens.nodes(nodes(seen), seen))


def test_status_is_the_realm_in_one_screen() -> None:
    realm = trouble()
    seen = sight(realm)
    trust = TrustStore(RealmName(name="prod", roots=(bytes(32),)))
    check("status", screens.status(status(seen, trust, []), seen))


def rolled_back() -> Realm:
    """One of web, which was rolled back, and one of db that fails again and again."""
    realm = Realm("n1", "n2")
    realm.apply(web(1, head="owner: team-web\n", component="restart: {escalate: [restart: 3]}\n"))
    realm.settle(seconds=1)
    realm.after(100).apply(web(1, head="owner: team-web\n", component="env: {A: b}\n"))
    realm.step()
    why = reason("start.exited", code="code 1", time="0.1 s", target="web/app/0")
    realm.status(key(), realm.slot().node or "", State.FAILED, parked=True, reason=why, attempt=3)
    realm.settle(seconds=1)
    db = key(service="db")
    realm.apply(web(1, service="db", head="owner: team-db\n"))
    realm.settle()
    why = reason("run.exited", exit_code=1, time="0.4 s", target="db/app/0", last_output="starting\nno space left")
    about = {"reason": why, "failures": 6, "restarts": 6, "restarts_recent": 6, "next_try_ms": realm.now_ms + 12_500}
    realm.status(db, realm.slot(service="db").node or "", State.FAILED, **about)
    return realm.after(0.5)


def of_service(realm: Realm, name: str) -> str:
    seen = sight(realm)
    told = service(seen, name)
    assert told is not None
    events = [signed.event for _, signed in realm.rows if signed.event.topic.startswith(f"service/{name}/")]
    return service_screen.screen(told, instances(seen, Target(name)), events, sight=seen, realm="prod")


def test_a_sick_service_says_what_dsmt_does_next_and_what_you_can_do() -> None:
    check("service", of_service(rolled_back(), "db"))


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


@pytest.mark.parametrize(
    ("left_s", "said"),
    [
        (40 * 24 * 3600, "ok    next to renew: node/n1 in 40 d"),
        (7200, "SOON    next to renew: node/n1 in 2 h"),
        (0, "SOON    next to renew: node/n1 in 0.0 s"),
        (-31, "ENDED    node/n1, 31 s ago: dsmt cert rotate node/n1"),
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


def test_a_node_that_is_drained_names_what_holds_it() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1, component="nodes: n1\n"))
    realm.settle(seconds=1)
    realm.control_node("n1", "draining")
    seen = sight(realm)
    check("nodes_draining", screens.nodes(nodes(seen), seen))
    check("node", screens.node_shown(node_shown(seen, "n1"), seen))


def test_brokers_say_what_they_hold_and_whose_clock_is_off() -> None:
    seen = sight(Realm("n1"))
    stats = BrokerStats(
        store="s", head=1, head_hash=b"", sessions=9, events=900, facts=40, disk_bytes=3 * 2**20,
        history_from_ms=seen.now_ms - 3_600_000, dropped=2, lag_s=0.001, pid=7, version="0.1", address="127.0.0.1:4000",
        clock_ahead_s=-400.0,
    )  # fmt: skip
    seen.passing.stats["b1"] = (seen.now_ms, stats)
    check("brokers", screens.brokers(brokers(seen, []), seen))


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
    found = brokers(seen, [])
    assert [one.broker for one in found] == ["b1"]
    assert "it is not whole yet" in screens.brokers(found, seen)


def test_a_leaf_is_shown_with_the_broker_to_which_it_is_linked() -> None:
    realm = Realm("n1")
    realm.session("broker/leaf", "open", broker="b1", leaf="read")
    seen = sight(realm)
    about = {"sessions": 9, "events": 900, "facts": 40, "disk_bytes": 1, "history_from_ms": 1, "dropped": 0, "lag_s": 0.1}
    for name in ("b1", "leaf"):
        stats = BrokerStats(store=name, head=1, head_hash=b"", pid=7, version="0.1", address=f"{name}:1", **about)
        seen.passing.stats[name] = (seen.now_ms, stats)
    seen.passing.leaves.add("leaf")
    found = brokers(seen, [])
    assert [(one.leaf, one.upstream) for one in found] == [(False, None), (True, "b1")]
    assert "it is a leaf, linked to b1" in screens.brokers(found, seen)
    realm.session("broker/leaf", "closed", broker="b1", leaf="read")
    assert "its uplink is down" in screens.brokers(brokers(seen, []), seen)


def test_a_store_that_was_damaged_is_told_of_with_what_to_do_as_long_as_it_lies_there() -> None:
    seen = sight(Realm("n1"))
    about = {"sessions": 9, "events": 900, "facts": 40, "disk_bytes": 1, "history_from_ms": 1, "dropped": 0, "lag_s": 0.1}
    stats = BrokerStats(store="s", head=1, head_hash=b"", pid=7, version="0.1", address="", **about)
    assert "damaged" not in to_data(stats)
    seen.passing.stats["b1"] = (seen.now_ms, stats)
    assert [one for one in alerts(seen, [], [], []) if one.code == "broker.damaged"] == []
    seen.passing.stats["b1"] = (seen.now_ms, msgspec.structs.replace(stats, damaged="/h/store.damaged-1-row-40.db"))
    (told,) = [one for one in alerts(seen, [], [], []) if one.code == "broker.damaged"]
    assert (told.target, told.who) == ("broker/b1", "you")
    assert "is set aside as /h/store.damaged-1-row-40.db" in told.message
    assert "remove that file" in told.next


def test_a_difference_is_shown_without_a_plan() -> None:
    realm = running_one()
    spec = parse(web(2, component="env: {LOG: debug}"), file="web.yaml")[0]
    check("diff", difference_screen(difference(sight(realm), spec)))


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
    check("controllers", screens.controllers(controllers(seen), seen))


def test_what_became_of_an_applied_service_says_what_runs_and_why() -> None:
    why = reason("rollout.rolled_back", rev="r2", its="web/app/0 was not ready within 5 s", good="r1")
    told = Applied(
        service="web", revision=2, plan=None, outcome="rolled_back", ready=3, wanted=3, running=[1], refused=2, reason=why
    )
    check("applied", "\n".join(screens.applied(told)))


def test_a_plan_shows_what_differs_of_long_values_and_hides_secrets() -> None:
    realm = Realm("n1", "n2", "n3")
    command = "run: python3 -m http.server 8080 --bind 127.0.0.1 --directory /srv/a/site"
    text = web(1).replace("run: ./app", command + "\n    env: {DB_PASSWORD: hunter2}")
    realm.apply(text)
    realm.settle()
    spec = parse(text.replace("/srv/a", "/srv/b").replace("hunter2", "hunter3"), file="web.yaml")[0]
    shown = plan_screens([plan(sight(realm), spec, by="alice", warnings=[])], "web.yaml")
    assert "hunter" not in shown
    check("plan_long", shown)


def test_a_plan_is_read_from_the_change_to_the_command() -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(3))
    realm.settle()
    spec = parse(web(4, component="env: {LOG: debug}"), file="web.yaml")[0]
    check("plan", plan_screens([plan(sight(realm), spec, by="alice", warnings=[])], "web.yaml"))


def explained(events: list[SignedEvent], recording: Recording, says: str, cut: tuple[EventId, ...] = ()) -> Explained:
    """What `why` has found: these events, newest first."""
    newest = sorted(events, key=lambda one: (one.event.time, one.event.sequence), reverse=True)
    links = [
        Link(event=event_object(one, recording.trust), says=sentence(one.event), because=[str(c) for c in one.event.cause])
        for one in newest
    ]
    not_followed = [str(one) for one in cut]
    return Explained(target="web", says=says, complete=not cut, chain=links, missing=[], cut=not_followed)


def recorded(index: int, recording: Recording, spec: SignedEvent) -> list[SignedEvent]:
    """An instance that was placed, and is ready."""
    slot = Slot(node="n1", spec=str(spec.id), revision=1, desired="running")
    placed = recording.say("controller/c1", f"service/web/slot/app/{index}", to_data(slot), version=1, cause=(spec.id,))
    health = Health(health="ready", generation=1, check="http", evidence="200 OK", failures=0, since_ms=1)
    topic = f"service/web/health/app/{index}/n1"
    return [placed, recording.say(f"agent/n1/web/app/{index}", topic, to_data(health), cause=(placed.id,))]


def begun() -> tuple[Recording, SignedEvent]:
    recording = Recording()
    recording.now_ms = 1_700_000_000_000
    fact = SpecFact(spec={}, by="alice", reason="4.1.0, JIRA-790")
    return recording, recording.say("operator/alice", "service/web/spec", to_data(fact), version=1)


def test_why_answers_first_and_names_signers_and_causes_newest_first() -> None:
    recording, spec = begun()
    events = [spec, *recorded(0, recording, spec)]
    told = explained(events, recording, "web/app/0 runs on n1 since 22:13:20 (2 m) and is ready, because web is r1")
    check("why", "\n".join(why_screen(told, events=False)), folds=False)
    check("why_events", "\n".join(why_screen(told, events=True)), folds=False)


def failing() -> tuple[Recording, list[SignedEvent]]:
    """Two instances, one of which fails again and again."""
    recording, spec = begun()
    events = [spec, *recorded(0, recording, spec), *recorded(1, recording, spec)]
    before = events[-2]
    about = {"layer": "application", "node": "n1", "generation": 1, "attempt": 1, "since_ms": 1, "emit_rate_s": 30.0}
    why = reason("run.exited", exit_code=1, time="0.4 s", target="web/app/1", last_output="no space left")
    topic = "service/web/status/app/1/n1/application"
    for number in range(4):
        for state, more in (("running", {"pid": 40 + number}), ("failed", {"reason": msgspec.to_builtins(why)})):
            before = recording.say("agent/n1/web/app/1", topic, {**about, "state": state, **more}, cause=(before.id,))
            events.append(before)
    return recording, [one for one in events if one.event.topic != "service/web/health/app/1/n1"]


def test_why_shows_siblings_side_by_side_and_what_repeats_once_in_eighty_columns() -> None:
    recording, events = failing()
    told = explained(events, recording, "web: 1 of 2 ready; web/app/1 failed on n1 since 22:13:20 (2 s): exited with code 1")
    lines = why_screen(told, events=False, width=80)
    check("why_tree", "\n".join(lines), folds=False)
    assert all(len(line) <= 80 for line in lines)
    everything = why_screen(told, events=True)
    assert sum("failed on n1" in line for line in everything) == 1 + 4
    assert sum("failed on n1" in line for line in lines) == 2 + 0


def test_why_lists_causes_that_have_none_themselves_one_below_the_other() -> None:
    recording = Recording()
    recording.now_ms = 1_700_000_000_000
    closed = []
    for source in ("node/n1", "monitor/n1"):
        about = {"attachment": 1, "incarnation": 1, "pid": 1, "version": "0.1", "address": "", "since_ms": 1}
        topic = f"broker/b1/session/{source}"
        closed.append(recording.say("broker/b1", topic, {**about, "state": "closed", "how": "peer"}))
    verdict = {"state": "dead", "road": "closed", "attachments": {}, "evidence": [], "since_ms": 1}
    message = {"message": "all 2 connections from n1 closed, the last at b1, none reopened"}
    causes = tuple(one.id for one in closed)
    dead = recording.say("controller/c1", "node/n1/verdict", {**verdict, **message}, version=1, cause=causes)
    told = explained([dead, *closed], recording, "node/n1 has been dead since 22:13:20 (2 s)")
    check("why_node", "\n".join(why_screen(told, events=False, width=80)), folds=False)


def test_why_says_where_depth_cut_it() -> None:
    recording, events = failing()
    told = explained(events[-3:], recording, "web/app/1 failed on n1", cut=events[-3].event.cause)
    check("why_cut", "\n".join(why_screen(told, events=False)), folds=False)


def test_tail_is_fitted_to_eighty_columns_and_whole_into_a_pipe() -> None:
    realm = trouble()
    dead = next(name for name in sorted(realm.view.nodes) if realm.view.winner(f"node/{name}/verdict"))
    told = [signed.event for _, signed in realm.rows if signed.event.type != "dsmt.heartbeat"]
    kinds = ("dsmt.session", "dsmt.service.spec", "dsmt.slot", "dsmt.status", "dsmt.health", "dsmt.node.verdict")
    one_each = [next(event for event in reversed(told) if event.type == kind) for kind in kinds]
    notices = [
        Notice("dsmt.notice.gap", f"node/{dead}/probe/n1 #118..#120 of monitor/n1: not seen yet"),
        Notice("dsmt.notice.disconnected", "from b1: nothing arrives until a broker is back; trying again"),
        Notice("dsmt.notice.badsignature", "the signature of an event on service/web/ is wrong"),
    ]

    def screen(width: int | None) -> str:
        lines = [event_lines.event_line(event, width) for event in one_each]
        return "\n".join([*lines, *(event_lines.notice_line(one, realm.now_ms, width) for one in notices)])

    check("tail", screen(80), folds=False)
    check("tail_pipe", screen(None), folds=False)
    assert all(len(line) <= 80 for line in screen(80).splitlines())


def test_a_line_is_coloured_by_how_bad_it_is_and_only_on_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    realm = trouble()
    told = [signed.event for _, signed in realm.rows]
    verdict = next(event for event in told if event.type == "dsmt.node.verdict")
    plain = event_lines.event_line(verdict, 80)
    assert as_sent(plain) == plain
    monkeypatch.setattr("dsmt.cli.printing.coloured", lambda: True)
    assert as_sent(event_lines.event_line(verdict, 80)) == f"\x1b[31m{plain}\x1b[0m"


def test_logs_name_the_instance_where_there_are_several_and_null_an_unknown_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at = 1_700_000_000_000
    told: list[Line | Told] = [
        Line("web/app/0", "n1", "stdout", "listening on :20000", None, at),
        Told("web/app/0", "web/app/0 is on n2 now"),
        Line("web/app/0", "n2", "stderr", 'GET / "x\x1b[31m"', at - 400, at),
    ]
    sent = io.StringIO()
    monkeypatch.setattr("sys.stdout", Escaping(sent))
    for ctx, many in ((CliContext(), False), (CliContext(), True), (CliContext(json=True), True)):
        sent.write(f"== {'json' if ctx.json else 'several' if many else 'one'}\n")
        for one in told:
            written(ctx, one, many=many)
    check("logs", sent.getvalue().rstrip("\n"), folds=False)
    assert capsys.readouterr().err == "-- web/app/0 is on n2 now\n" * 2


def test_raw_is_refused_to_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["tail", "--raw"]) == InputError.exit
    assert "dsmt tail --raw > FILE" in capsys.readouterr().err


def test_colour_only_repeats_what_a_word_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsmt.cli.printing.coloured", lambda: True)
    seen = sight(trouble())
    coloured = as_sent(screens.ps(instances(seen), seen))
    assert "\x1b[31m" in coloured
    plain = coloured
    for code in ("\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"):
        plain = plain.replace(code, "")
    check("ps", plain)


def as_sent(text: str) -> str:
    """What the terminal gets of a text that is printed."""
    sent = io.StringIO()
    Escaping(sent).write(text)
    return sent.getvalue()


def test_what_others_wrote_never_steers_the_terminal() -> None:
    theirs = "a\nb\x1b[31m\x9bc\rd\x7f"
    assert as_sent(theirs) == "a\nb\\x1b[31m\\x9bc\\rd\\x7f"
    realm = running_one()
    realm.control(key(0), hold=Hold(by="alice", at_ms=realm.now_ms, reason=theirs))
    realm.settle()
    seen = sight(realm)
    shown = screens.ps(instances(seen), seen)
    assert "a\\nb\\x1b[31m\\x9bc\\rd\\x7f" in shown
    assert as_sent(shown) == shown


THEIRS = "a\nb\x1b[31m\x9bc\rd\x7f\u202ee\u2028f\tg"


def spoken(said: str) -> list[str]:
    """Every screen of a realm in which others have said something wherever they may say what they like."""
    realm = Realm("n1", "n2", "n3")
    quoted = json.dumps(said)
    text = web(
        2, head=f"description: {quoted}\nowner: {quoted}\nlabels: {{tier: {quoted}}}\n", component=f"env: {{A: {quoted}}}"
    )
    realm.apply(text)
    realm.settle()
    before = realm.view.winner("service/web/spec")
    assert before is not None
    realm.say("operator/alice", "service/web/spec", {**before.event.data, "by": said, "reason": said})
    realm.settle()
    realm.say("operator/alice", "node/n3/control", NodeControl(mode="draining", by=said, reason=said))
    realm.attributes("n2", version=said, labels={"a": said})
    realm.control(key(0), hold=Hold(by=said, at_ms=realm.now_ms, reason=said))
    why = reason("run.exited", exit_code=1, time=said, target="web/app/1", last_output="\x1b[31mred")
    why = msgspec.structs.replace(why, message=said, next=said)
    realm.status(key(1), on(realm, key(1)), State.FAILED, reason=why, next_try_ms=realm.now_ms + 20_000, restarts=7)
    realm.say("operator/alice", "config/brake", Brake(held=True, released_ms=0, by=said, reason=said))
    seen = sight(realm)
    trust = TrustStore(RealmName(name="prod", roots=(bytes(32),)))
    told = status(seen, trust, [])
    rows = instances(seen, Target("web"))
    (one,) = services(seen)
    events = [signed.event for _, signed in realm.rows if signed.event.topic.startswith("service/web/")]
    about = {"revision": 1, "at": rfc3339(seen.now_ms), "by": said, "reason": said, "removed": False}
    past = [Revision(state=["refused"], refusal=said, **about)]
    planned = plan(seen, parse(web(3, component=f"env: {{B: {quoted}}}"), file="web.yaml")[0], by="alice", warnings=[said])
    return [
        screens.ps(rows, seen),
        screens.services([one], seen),
        screens.nodes(nodes(seen), seen),
        *(screens.node_shown(node_shown(seen, name), seen) for name in ("n1", "n2", "n3")),
        screens.status(told, seen),
        service_screen.screen(one, rows, events, sight=seen, realm="prod"),
        plan_screens([planned], "web.yaml"),
        history_screen("web", past, seen),
    ]


def test_no_screen_shows_control_characters_or_is_broken_by_a_newline_wherever_others_say_them() -> None:
    hostile, harmless = spoken(THEIRS), spoken("a" * len(one_line(THEIRS)))
    for theirs, plain in zip(hostile, harmless, strict=True):
        assert len(theirs.splitlines()) == len(plain.splitlines()), theirs
        assert not [c for c in theirs if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u202e\u2028")], theirs


def running_one() -> Realm:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle()
    return realm


def test_json_keeps_what_others_wrote_and_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = io.StringIO()
    monkeypatch.setattr("sys.stdout", Escaping(sent))
    document({"said": "a\x9b\x1b\n"})
    assert json.loads(sent.getvalue()) == {"said": "a\x9b\x1b\n"}


def test_the_next_try_of_an_agent_that_is_dead_is_not_announced() -> None:
    realm = running_one()
    realm.status(key(0), "n1", State.FAILED, parked=True, next_try_ms=realm.now_ms + 600_000)
    realm.close("n1")
    realm.after(0.3).step()
    seen = sight(realm)
    assert "lost" in screens.ps(instances(seen), seen)
    assert "next try" not in screens.ps(instances(seen), seen)


def test_removing_what_does_not_exist_says_so_before_anybody_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dsmt.cli.control.seen", lambda _: sight(running_one()))
    assert main(["remove", "nosuch"]) == NotFoundError.exit
    assert "there is no service nosuch" in capsys.readouterr().err
    assert main(["remove", "web", "--json"]) == InputError.exit
    assert "needs a yes" in capsys.readouterr().err


def test_a_service_without_endpoints_is_said_to_have_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dsmt.cli.listing.seen", lambda _: sight(running_one()))
    assert main(["endpoints", "web"]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err.startswith("web has no endpoint")) == ("", True)


def test_node_sets_are_shown_with_what_they_select_and_what_is_odd() -> None:
    when, long = "2026-01-01T00:00:00.000Z", "minus(union(all_nodes, label(zone=eu-central-1)), union(failed, old, n4))"
    good = NodeSet(
        name="good", expression=long, nodes=[f"n{i}" for i in range(1, 16)], unknown=["old"], used_by=["web/app", "db/pg"],
        by="alice", at=when, reason="the other rack is\x1b[31m being moved", hides=None,
    )  # fmt: skip
    n4 = NodeSet(name="n4", expression="n5", nodes=[], unknown=[], used_by=[], by="bob", at=when, hides="n4")
    check("nodesets", nodeset.listed([good, n4]))
    check("nodesets_none", nodeset.listed([]))
    check("nodeset", nodeset.screen(good))
    check("nodeset_hides", nodeset.screen(n4))


def test_certificates_are_shown_with_what_is_to_be_done() -> None:
    def held(name: str, state: str, *, here: bool) -> Held:
        times = {"issued": "2026-01-01T00:00:00Z", "renew": "2026-07-01T00:00:00Z", "expires": "2027-01-01T00:00:00Z"}
        return Held(name=name, key="0123456789abcdef", state=state, issuer="root", here=here, **times)  # type: ignore[arg-type]

    agent_name = "agent/a-node-with-a-long-name.example.com/web/app/0"
    check(
        "certs",
        cert.listed(
            [
                held("operator/alice", "ok", here=True),
                held("node/n1", "renew", here=True),
                held("node/n2", "renew", here=False),
                held(agent_name, "expired", here=True),
                held("controller/c1", "revoked", here=False),
            ]
        ),
    )


def test_endpoints_are_a_line_for_each_port() -> None:
    realm = Realm("n1")
    realm.apply(web(2))
    realm.settle()
    said = Endpoint(address="10.0.0.1", ports={"http": 8080, "admin": 9000}, generation=1, ready=True)
    realm.say(agent(key(0), "n1"), "service/web/endpoint/app/0/n1", said)
    realm.health(key(0), "n1", "ready")
    check("endpoints", endpoint_lines(endpoints(sight(realm), Target.parse("web"))), folds=False)
