"""Sentences: every kind of event in the words of an operator."""

import msgspec
import pytest

from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.broker import BrokerNotice
from dsmt.event.kinds.instance import Health, LastExit
from dsmt.event.kinds.realm import Revoked
from dsmt.event.kinds.slot import Hold
from dsmt.event.kinds.source import Heartbeat, KeeperReplaced
from dsmt.event.reason import REASONS, reason
from dsmt.event.status import State
from dsmt.operations.words.sentences import needs_a_person, predicate, sentence, severity, subject
from dsmt.view import SlotKey
from tests.controllers.build import Realm, web
from tests.controllers.signing import START_MS, signed

KEY = SlotKey("web", "app", 0)


def test_a_life_is_told_in_sentences() -> None:
    realm = Realm("n1")
    told = [sentence(realm.apply(web(1)).event)]
    realm.step()
    slot = realm.view.winner("service/web/slot/app/0")
    assert slot is not None
    told.append(sentence(slot.event))
    told.append(sentence(realm.status(KEY, "n1", State.INSTANTIATED, pid=7).event))
    told.append(sentence(realm.status(KEY, "n1", State.RUNNING, pid=7).event))
    why = reason("run.exited", exit_code=1, time="2 s", target=str(KEY))
    failed = realm.status(KEY, "n1", State.FAILED, reason=why, next_try_ms=realm.now_ms + 1500)
    told.append(sentence(failed.event))
    told.append(sentence(realm.health(KEY, "n1", "ready").event))
    told.append(sentence(realm.hold(KEY).event))
    told.append(sentence(realm.control_node("n1", "draining").event))
    realm.close("n1")
    told.append(sentence(realm.verdict("n1").event))
    told.append(sentence(realm.attributes("n1", memory_free_bytes=900 * 2**20).event))
    assert told == [
        'web is r1, applied by alice: "a test"',
        "web/app/0 is to run on n1, generation 1, r1",
        "web/app/0 starts on n1, pid 7",
        "web/app/0 runs on n1, pid 7",
        "web/app/0 failed on n1: exited with code 1 after 2 s; next try in 1.5 s",
        "web/app/0 is ready: http",
        'web/app/0 is held stopped by alice: "a test"',
        'node/n1 drains, says alice: "kernel 6.8"',
        "node/n1 is dead: as a test says",
        "node/n1 has 4 cores, 900 MiB of 8 GiB memory free, load 0.5",
    ]


def test_a_will_tells_a_move_that_stands_beside_what_was_said_after_it() -> None:
    realm = Realm("n1", "n2")
    moved = {"move": "n2", "move_number": 1}
    told = [
        sentence(realm.control(KEY, **moved).event),
        sentence(realm.control(KEY, restart=realm.now_ms, **moved).event),
        sentence(realm.control(KEY, hold=Hold(by="bob", at_ms=1, reason="disk"), **moved).event),
    ]
    assert told == [
        'web/app/0 is to move to n2, says alice: "a test"',
        f'web/app/0 is to move to n2, restart of {rfc3339(realm.now_ms)}, says alice: "a test"',
        'web/app/0 is to move to n2, is held stopped by bob, signed by alice: "disk"',
    ]


def test_a_session_speaks_of_the_source_and_names_the_broker() -> None:
    realm = Realm()
    told = [
        sentence(realm.session("node/n1", "open").event),
        sentence(realm.session("node/n1", "silent").event),
        sentence(realm.session("node/n1", "closed", how="peer").event),
        sentence(realm.session("node/n2", "closed", how="local").event),
    ]
    assert told == [
        "node/n1 is connected to b1",
        "node/n1 is silent at b1",
        "node/n1 is disconnected from b1 (the peer closed it)",
        "node/n2 is disconnected from b1 (b1 closed it)",
    ]


def test_what_was_started_and_not_checked_is_said_so() -> None:
    realm = Realm("n1")
    started = Health(
        health="unready", generation=1, check="none", evidence="started, not checked yet", failures=0, since_ms=1
    )
    event = realm.say("agent/n1/web/app/0", "service/web/health/app/0/n1", started).event
    assert sentence(event) == "web/app/0 is not ready: started, not checked yet"


def test_what_is_not_held_is_said_with_when_its_restart_was_asked_for() -> None:
    realm = Realm("n1")
    told = [sentence(realm.control(KEY, restart=number).event) for number in (0, realm.now_ms)]
    assert told == [
        'web/app/0 is to run, says alice: "a test"',
        f'web/app/0 is to run, restart of {rfc3339(realm.now_ms)}, says alice: "a test"',
    ]


def test_a_revoked_key_is_told_of_its_owner() -> None:
    said = Revoked(by="alice", name="node/n2", reason="stolen")
    event = signed("operator/alice", f"trust/revoked/{'ab' * 16}/operator/alice", said).event
    assert sentence(event) == 'node/n2 has its key revoked by alice: "stolen"'


def test_severity_tells_what_needs_a_person_from_what_mends_itself() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.step()
    own = reason("run.exited", exit_code=1, time="2 s", target=str(KEY))
    assert severity(realm.status(KEY, "n1", State.FAILED, reason=own, next_try_ms=realm.now_ms).event) == "warning"
    assert severity(realm.status(KEY, "n1", State.RUNNING).event) == ""
    assert severity(realm.health(KEY, "n1", "ready").event) == "good"
    assert severity(realm.session("node/n1", "silent").event) == "warning"
    realm.close("n1")
    assert severity(realm.verdict("n1").event) == "bad"


def test_what_cannot_be_read_is_shown_as_it_is() -> None:
    event = signed("controller/c1", "service/web/slot/app/0", {"node": 5}, version=1).event
    assert predicate(event) == 'cannot be read: {"node":5}'
    own = signed("operator/alice", "user/a/b", {"x": b"\x00"}).event
    assert sentence(own) == 'user/a/b {"x":"AA=="}'


def test_a_death_needs_a_person_and_a_heartbeat_does_not() -> None:
    realm = Realm("n1")
    realm.close("n1")
    assert needs_a_person(realm.verdict("n1").event)
    beat = Heartbeat(sequence=1, incarnation=1, lag_s=0.0, emit_rate_s=1.0)
    assert not needs_a_person(signed("node/n1", "node/n1/heartbeat", beat, time_ms=START_MS).event)


def test_a_heartbeat_is_about_who_beats() -> None:
    beat = Heartbeat(sequence=1, incarnation=1, lag_s=0.0, emit_rate_s=1.0)
    topics = ("node/n1/heartbeat", "node/n1/monitor/heartbeat", "node/n1/agent/web/app/0/heartbeat", "broker/b1/heartbeat")
    told = [subject(signed("node/n1", topic, beat).event) for topic in topics]
    assert told == ["node/n1", "node/n1", "web/app/0", "broker/b1"]


@pytest.mark.parametrize(
    ("topic", "about"),
    [
        ("source/agent/n1/web/app/0", "agent/n1/web/app/0"),
        ("broker/b1/session/agent/n1/web/app/0", "agent/n1/web/app/0"),
        ("broker/b1/notice", "broker/b1"),
        ("controller/c1/decision", "controller/c1"),
        ("nodeset/edge", "nodeset/edge"),
        ("config/clock/b1", "config/clock"),
        ("tombstone/service/web", "service/web"),
        ("service/web/barrier/begin/arrived/app/0/n1", "web"),
        ("service/web/status/app/0/n1/container", "web/app/0"),
        ("app/web/orders/taken", "app/web/orders/taken"),
        ("user/a/b", "user/a/b"),
    ],
)
def test_an_event_is_about_what_its_topic_names(topic: str, about: str) -> None:
    assert subject(signed("broker/b1", topic, {}).event) == about


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("node/n1/keeper", KeeperReplaced(directory="/x", died=7, pid=8)),
        *(
            ("broker/b1/notice", BrokerNotice(kind=kind, source="node/n1", topic=None, first=1, last=2, message="so it is"))
            for kind in ("gap", "equivocation", "clone", "damaged", "older")
        ),
    ],
)
def test_a_keeper_that_died_and_a_fault_of_the_history_need_a_person(topic: str, said: msgspec.Struct) -> None:
    event = signed("/".join(topic.split("/")[:2]), topic, said).event
    assert (needs_a_person(event), severity(event)) == (True, "bad")


def test_what_has_ended_well_is_no_failure_wherever_it_was() -> None:
    realm = Realm("n1")
    why = reason("run.exited", code="code 0", exit_code=0, time="1.0s", target=KEY)
    last = LastExit(code=0, signal=None, at_ms=realm.now_ms, ran_s=1.0, reason=why)
    ended = realm.status(KEY, "n1", State.FAILED, reason=why, last_exit=last).event
    assert predicate(ended) == f"has ended well: {why.message}"
    assert (severity(ended), needs_a_person(ended)) == ("", False)
    again = realm.status(KEY, "n1", State.FAILED, reason=why, last_exit=last, next_try_ms=realm.now_ms).event
    assert predicate(again).startswith("failed on n1: ")
    assert severity(again) == "warning"


@pytest.mark.parametrize(
    ("state", "code", "bad"),
    [
        ("failed", "fetch.not_found", "bad"),
        ("failed", "run.unseen", "warning"),
        ("failed", None, "warning"),
        ("running", "fetch.not_found", "bad"),
        ("running", "run.unseen", "warning"),
        ("running", None, ""),
        ("stopped", None, ""),
    ],
)
def test_how_bad_a_state_is_follows_from_who_acts_on_its_reason_and_without_one_from_whether_it_failed(
    state: str, code: str | None, bad: str
) -> None:
    why = None if code is None else {"code": code, "who": REASONS[code].who}
    event = signed("agent/n1/web/app/0", "service/web/status/app/0/n1/instance", {"state": state, "reason": why}).event
    event = msgspec.structs.replace(event, type="dsmt.status")
    assert (severity(event), needs_a_person(event)) == (bad, bad == "bad")


@pytest.mark.parametrize(
    ("topic", "type_", "data", "bad"),
    [
        ("node/n1/verdict", "dsmt.node.verdict", {"state": "alive"}, ""),
        ("broker/b1/notice", "dsmt.notice", {"kind": "clock"}, ""),
        ("broker/b1/session/node/n1", "dsmt.session", {"state": "open"}, ""),
        ("broker/b1/session/node/n1", "dsmt.session", {"state": "closed"}, ""),
        ("service/web/health/app/0/n1", "dsmt.health", {"health": "unready"}, ""),
        ("service/web/health/app/0/n1", "dsmt.health", {"health": "unchecked"}, "good"),
    ],
)
def test_what_is_in_the_usual_course_of_things_needs_nobody(topic: str, type_: str, data: dict[str, str], bad: str) -> None:
    event = msgspec.structs.replace(signed("node/n1", topic, dict(data)).event, type=type_)
    assert (severity(event), needs_a_person(event)) == (bad, False)
