"""What a gate asks JetStream for somebody: never for what the certificate of who asks does not let it read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.bus.rules.nats_reads import CONSUMER, EVERYBODY, KEPT_S, passed_on
from dsmt.bus.wire.subjects import Question, Subjects
from dsmt.errors import RefusedError
from dsmt.event.envelope import TOMBSTONE, thing_of
from dsmt.event.registry import lookup
from dsmt.event.topic import covers
from dsmt.trust.grants import may, publish_patterns, read_patterns
from tests.bus.test_subjects import takes

SUBJECTS = Subjects("a.b")
AGENT, OTHER = "agent/n1/web/app/0", "agent/n2/db/app/0"
LIMITED = (AGENT, "monitor/n1", "joining/t1")
HISTORY = SUBJECTS.history
NAME = "0123456789abcdef01"


def ask(asked: str, body: Any = None, *, name: str = AGENT) -> bytes:
    subject = f"{SUBJECTS.asking(name, read_patterns(name))}.{asked}"
    return passed_on(SUBJECTS, SUBJECTS.question(subject), b"" if body is None else json.dumps(body).encode())


def may_ask(subject: str, *, name: str = AGENT) -> bool:
    try:
        ask(f"STREAM.MSG.GET.{HISTORY}", {"last_by_subj": subject}, name=name)
    except RefusedError:
        return False
    return True


def consumer(**changed: Any) -> dict[str, Any]:
    config = {
        "name": NAME, **CONSUMER, "inactive_threshold": int(KEPT_S * 1e9), "deliver_policy": "by_start_sequence",
        "opt_start_seq": 1, "filter_subjects": SUBJECTS.taken_by(["service/web/"], signals=True), **changed,
    }  # fmt: skip
    return {"stream_name": HISTORY, "config": config, "action": "create"}


LEVEL = st.sampled_from(
    ["service", "web", "db", "app", "node", "n1", "config", "broker", "*", ">", "%2B", "%2F", "+", "a.b"]
)
TOKENS = st.lists(LEVEL | st.sampled_from(["agent%2Fn1%2Fweb%2Fapp%2F0", "operator%2Falice"]), min_size=1, max_size=6)
SAID = st.sampled_from(
    [
        ("operator/alice", "service/web/spec"),
        ("operator/alice", "service/db/spec"),
        ("operator/alice", "config/colour"),
        ("operator/alice", "node/n1/attributes"),
        ("node/n1", "node/n1/heartbeat"),
        ("node/n2", "node/n2/heartbeat"),
        (OTHER, "app/db/facts"),
        (AGENT, "app/web/facts"),
    ]
)


@given(st.sampled_from("fsoincmtb*>"), TOKENS, SAID, st.booleans())
def test_what_is_passed_on_takes_nothing_that_may_not_be_read(kind: str, tokens: list[str], said, fact: bool) -> None:
    filtered, (author, topic) = ".".join(["d", "a%2Eb", kind, *tokens]), said
    own = author == AGENT or may(read_patterns(AGENT), topic)
    subjects = [SUBJECTS.event(author, topic, fact=fact), SUBJECTS.offered("controller/c1", author, topic)]
    subjects.append(SUBJECTS.copy(author, "operator/bob", topic, fact=fact))
    if may_ask(filtered) and not own:
        assert not any(takes(filtered, subject) for subject in subjects)


def shared(name: str) -> list[str]:
    """Topics that it may write and others too."""
    topics = [pattern.replace("+", "x") + "x" * pattern.endswith("/") for pattern in publish_patterns(name)]
    return [one for one in topics if (match := lookup(one)) is not None and match.row.owner is None]


@pytest.mark.parametrize("name", LIMITED)
def test_all_that_a_reader_and_a_writer_ask_for_within_a_grant_is_passed_on(name: str) -> None:
    for pattern in (*read_patterns(name), *EVERYBODY):
        assert all(may_ask(one, name=name) for one in SUBJECTS.taken_by([pattern], signals=True)), pattern
    for topic in shared(name):  # a writer compares what it says with what stands there, and with its thing's tombstone
        for one in (topic, TOMBSTONE + thing_of(topic)):
            assert may_ask(SUBJECTS.on(one), name=name), one
            assert may_ask(SUBJECTS.offered_on(one), name=name), one
    for one in (*SUBJECTS.of(name), *SUBJECTS.retained_of(name), *SUBJECTS.mailbox(name)):
        assert may_ask(one, name=name)
    assert may_ask(SUBJECTS.mark(name, "7", begins=True), name=name)
    assert may_ask(SUBJECTS.certificates("operator/alice", b"k" * 16), name=name)
    assert may_ask(SUBJECTS.counts(b"d" * 32), name=name)
    assert shared(AGENT) == ["app/web/x"]


@pytest.mark.parametrize(
    "subject",
    [
        "",
        ">",
        "d.>",
        "d.a%2Eb.>",
        "d.a%2Eb.*.>",
        "d.a%2Eb.f.*.>",
        "d.a%2Eb.f.>",
        "d.other.f.*.service.web.>",
        "d.a%2Eb.c.>",
        "d.a%2Eb.c.*.*.*",
        "d.a%2Eb.c.*.operator%2Falice.*",
        "b.a%2Eb.>",
        "b.a%2Eb.*.*.count",
        *SUBJECTS.mailbox(OTHER),
        SUBJECTS.mark(OTHER, "7", begins=True),
        *SUBJECTS.of("operator/alice"),
        *SUBJECTS.taken_by(["service/"], signals=True),
        *SUBJECTS.taken_by(["service/+/spec"], signals=True),
    ],
)
def test_what_is_wider_than_a_grant_is_refused(subject: str) -> None:
    assert not may_ask(subject)
    with pytest.raises(RefusedError, match="agent/n1/web/app/0 may not ask") as refused:
        ask(f"CONSUMER.CREATE.{HISTORY}.{NAME}", consumer(filter_subjects=[*SUBJECTS.mailbox(AGENT), subject]))
    assert refused.value.code == "trust.denied"


OWN = SUBJECTS.mailbox(AGENT)[0]


@pytest.mark.parametrize(
    ("asked", "body"),
    [
        ("STREAM.INFO", {"subjects_filter": ">"}),
        ("STREAM.MSG.GET", {"seq": 1}),
        ("STREAM.MSG.GET", {"seq": 1, "next_by_subj": ""}),
        ("STREAM.MSG.GET", {"seq": 1, "next_by_subj": None}),
        ("STREAM.MSG.GET", {"seq": 1, "Next_By_Subj": OWN}),
        ("STREAM.MSG.GET", {"last_by_subj": OWN, "Last_by_subj": ">"}),
        ("STREAM.MSG.GET", [OWN]),
        ("DIRECT.GET", {"multi_last": [], "batch": 1}),
        ("DIRECT.GET", {"multi_last": OWN, "batch": 1}),
        ("DIRECT.GET", {"multi_last": [OWN], "batch": 1, "seq": 1}),
        ("DIRECT.GET", {"multi_last": [OWN, 7], "batch": 1}),
        ("STREAM.PURGE", None),
        ("STREAM.DELETE", None),
        ("CONSUMER.NAMES", None),
        ("CONSUMER.LIST", None),
    ],
)
def test_what_is_no_question_of_ours_is_refused(asked: str, body: Any) -> None:
    with pytest.raises(RefusedError):
        ask(f"{asked}.{HISTORY}", body)
    for bad in (b"{", b"[" * 100_000, b"\xff"):
        with pytest.raises(RefusedError):
            passed_on(SUBJECTS, Question(AGENT, ("/",), f"STREAM.MSG.GET.{HISTORY}"), bad)


@pytest.mark.parametrize(
    ("asked", "body"),
    [
        ("STREAM.MSG.GET", {"last_by_subj": OWN}),
        ("STREAM.MSG.GET", {"seq": 7, "next_by_subj": OWN}),
        ("DIRECT.GET", {"multi_last": [OWN, OWN], "batch": 9}),
    ],
)
def test_what_is_looked_up_within_a_grant_is_passed_on(asked: str, body: Any) -> None:
    assert json.loads(ask(f"{asked}.{HISTORY}", body)) == body


def test_a_question_is_passed_on_as_it_was_understood() -> None:
    twice = f'{{"last_by_subj": ">", "last_by_subj": "{OWN}"}}'.encode()
    passed = passed_on(SUBJECTS, Question(AGENT, read_patterns(AGENT), f"STREAM.MSG.GET.{HISTORY}"), twice)
    assert passed == json.dumps({"last_by_subj": OWN}).encode()
    assert ask(f"STREAM.INFO.{HISTORY}") == b""
    with pytest.raises(RefusedError):
        ask("STREAM.INFO.H-other")


@pytest.mark.parametrize(
    "changed",
    [
        {"filter_subjects": []},
        {"filter_subject": ">"},
        {"Filter_Subjects": [">"]},
        {"deliver_subject": SUBJECTS.event(OTHER, "app/db/facts", fact=True)},
        {"durable_name": "x"},
        {"inactive_threshold": 0},
        {"inactive_threshold": int(1e18)},
        {"name": "other"},
        {"mem_storage": False},
        {"num_replicas": 3},
    ],
)
def test_of_a_consumer_only_what_it_begins_with_and_what_it_takes_may_be_chosen(changed: dict[str, Any]) -> None:
    assert json.loads(ask(f"CONSUMER.CREATE.{HISTORY}.{NAME}", consumer())) == consumer()
    with pytest.raises(RefusedError):
        ask(f"CONSUMER.CREATE.{HISTORY}.{NAME}", consumer(**changed))
    for wrong in (f"CONSUMER.CREATE.{HISTORY}", f"CONSUMER.CREATE.{HISTORY}.{NAME}.>", f"CONSUMER.CREATE.H-other.{NAME}"):
        with pytest.raises(RefusedError):
            ask(wrong, consumer())


def test_patterns_of_a_grant_are_told_by_their_subject_as_they_are() -> None:
    for name in LIMITED:
        subject = f"{SUBJECTS.asking(name, read_patterns(name))}.STREAM.INFO.{HISTORY}"
        assert SUBJECTS.question(subject) == (name, read_patterns(name), f"STREAM.INFO.{HISTORY}")
        assert takes(SUBJECTS.questions, subject)
    assert not any(covers(one, "/") for name in LIMITED for one in read_patterns(name))
