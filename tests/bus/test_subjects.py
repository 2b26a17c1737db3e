"""Subjects: exact both ways, one writer to each, and no filter that NATS would refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.bus.wire.nkeys import user_nkey
from dsmt.bus.wire.subjects import Subjects, smallest, token
from dsmt.errors import UnusableEventError
from dsmt.event.codec import sig_structure
from dsmt.event.topic import covers, matches
from dsmt.trust.grants import publish_patterns
from dsmt.trust.keys import SecretKey

LEVEL = st.from_regex(r"(?!\.{1,2}\Z)[a-z0-9._-]{1,12}", fullmatch=True)
TOPIC = st.lists(LEVEL, min_size=1, max_size=6).map("/".join)
PATTERN = st.tuples(st.lists(LEVEL | st.just("+"), min_size=1, max_size=4), st.booleans()).map(
    lambda made: "/".join(made[0]) + "/" * made[1]
)
SUBJECTS = Subjects("a.b")


def takes(wanted: str, subject: str) -> bool:
    """Whether NATS gives a subject to a filter: `*` takes one token, `>` one or more."""
    want, have = wanted.split("."), subject.split(".")
    if want[-1] == ">":
        return len(have) >= len(want) and all(w in ("*", h) for w, h in zip(want[:-1], have, strict=False))
    return len(want) == len(have) and all(w in ("*", h) for w, h in zip(want, have, strict=True))


@given(st.text(min_size=0, max_size=40))
def test_a_token_holds_nothing_that_nats_reads(text: str) -> None:
    made = token(text)
    assert made
    assert made.isascii()
    assert not set(made) & set(".*> \t\r\n\0")


@given(author=TOPIC, publisher=TOPIC, topic=TOPIC)
def test_a_subject_says_who_said_what_where_and_for_whom(author: str, publisher: str, topic: str) -> None:
    assert SUBJECTS.said(SUBJECTS.event(author, topic, fact=True)) == ("f", author, author, topic, "")
    assert SUBJECTS.said(SUBJECTS.event(author, topic, fact=False)) == ("s", author, author, topic, "")
    assert SUBJECTS.said(SUBJECTS.offered(publisher, author, topic)) == ("o", publisher, author, topic, "")
    assert SUBJECTS.said(SUBJECTS.copy(author, publisher, topic, fact=False)) == ("i", author, author, topic, publisher)
    assert SUBJECTS.said(SUBJECTS.copy(author, publisher, topic, fact=True)) == ("n", author, author, topic, publisher)


@pytest.mark.parametrize("subject", ["", "d", "d.a%2Eb.f", "d.a%2Eb.f.x", "d.other.f.x.y", "d.a%2Eb.q.x.y", "d.a%2Eb.o.x.y"])
def test_what_is_no_subject_of_the_realm_is_refused(subject: str) -> None:
    with pytest.raises(UnusableEventError, match="no subject of this realm"):
        SUBJECTS.said(subject)


@given(pattern=PATTERN, author=TOPIC, topic=TOPIC)
def test_a_filter_takes_what_its_pattern_takes(pattern: str, author: str, topic: str) -> None:
    for fact in (True, False):
        subject = SUBJECTS.event(author, topic, fact=fact)
        taken = any(takes(one, subject) for one in SUBJECTS.taken_by([pattern], signals=True))
        assert taken == matches(pattern, topic)
    assert not any(takes(one, subject) for one in SUBJECTS.taken_by([pattern], signals=False))


@given(st.lists(PATTERN, min_size=1, max_size=6))
def test_no_filter_contains_another_and_none_is_lost(patterns: list[str]) -> None:
    kept = smallest(patterns)
    assert not any(a != b and covers(a, b) for a in kept for b in kept)
    assert all(any(covers(a, one) for a in kept) for one in patterns)


def test_a_grant_lets_a_source_speak_under_its_own_name_only() -> None:
    grants = SUBJECTS.grants("node/n1", publish_patterns("node/n1"))

    def allowed(subject: str) -> bool:
        return any(takes(one, subject) for one in grants)

    assert allowed(SUBJECTS.event("node/n1", "node/n1/heartbeat", fact=False))
    assert not allowed(SUBJECTS.event("node/n1", "config/colour", fact=True))
    assert not allowed(SUBJECTS.event("node/n2", "node/n2/heartbeat", fact=False))
    assert allowed(SUBJECTS.offered("node/n1", "operator/alice", "config/colour"))
    assert not allowed(SUBJECTS.offered("node/n2", "operator/alice", "config/colour"))
    assert not allowed(SUBJECTS.certificate("node/n2", "node/n2", b"k" * 16))


def test_an_nkey_is_what_the_nkeys_package_makes_of_the_same_key() -> None:
    key = SecretKey(bytes(range(32)))
    assert user_nkey(key.public) == "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK", "by nkeys 0.2.1"


def test_what_a_server_has_a_client_sign_begins_no_signed_statement() -> None:
    with pytest.raises(UnicodeDecodeError):
        sig_structure(b"\xa0", b"content")[:1].decode()


def test_what_is_asked_through_a_gate_is_where_gates_hear_it() -> None:
    asked = f"{SUBJECTS.asking('node/n1', ['node/n1/', 'service/+/spec'])}.STREAM.INFO.H-lab"
    assert takes(SUBJECTS.questions, asked)
    assert SUBJECTS.question(asked) == ("node/n1", ("node/n1/", "service/+/spec"), "STREAM.INFO.H-lab")


def test_the_pieces_of_a_blob_are_those_of_one_who_has_put_it_or_of_all() -> None:
    digest = bytes(range(32))
    pieces = [SUBJECTS.piece(publisher, digest, "0") for publisher in ("operator/alice", "operator/bob")]
    other = SUBJECTS.piece("operator/alice", bytes(32), "0")
    assert [takes(SUBJECTS.blob(digest, "operator/alice"), one) for one in (*pieces, other)] == [True, False, False]
    assert [takes(SUBJECTS.blob(digest), one) for one in (*pieces, other)] == [True, True, False]
    assert [SUBJECTS.publisher(one) for one in pieces] == ["operator/alice", "operator/bob"]
    assert {SUBJECTS.digest(one) for one in pieces} == {digest}
