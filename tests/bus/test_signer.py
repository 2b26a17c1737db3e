"""From a draft to a signed event: numbers, causes that are not signed yet, and what is said anew (rules A3, A11, B3, B8)."""

from __future__ import annotations

from typing import Any

import pytest

from dsmt.bus.rules.emitting import Underway, pending_of
from dsmt.bus.rules.signer import EventSigner, PendingEvent, restate
from dsmt.errors import InputError, RefusedError
from dsmt.event.codec import decode_part
from dsmt.event.envelope import FIRST_EPOCH, NO_LEAF, ChainLink, EventId, SignedEvent
from dsmt.event.hlc import milliseconds
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.kinds.row import DAY_MS
from dsmt.event.kinds.source import Heartbeat, Started
from dsmt.event.records import from_data, to_data
from dsmt.ports.bus import Ack, Cursor, Draft, Level
from dsmt.trust.keys import SecretKey

NOW = 1_700_000_000_000
ALICE = "operator/alice"
SPEC = {"spec": {}, "by": "alice", "reason": ""}


def signer(*, begun: bool = True) -> EventSigner:
    made = EventSigner(ALICE, SecretKey(bytes(32)), "v1")
    if begun:
        made.begin(7, NOW, previous=None)
        made.sign()
    return made


def said(made: EventSigner, *pending: PendingEvent, **more: Any) -> list[SignedEvent]:
    """What is signed of these, in one burst."""
    for one in pending:
        assert made.say(one, NOW, **more)
    signed = [one.signed for one in made.sign()]
    assert None not in signed
    return signed  # type: ignore[return-value]


@pytest.mark.parametrize(("previous", "told"), [(None, (None, None)), ((6, 40), (6, 40)), ((6, None), (6, None))])
def test_an_incarnation_begins_by_saying_which_was_before_and_then_says_what_has_waited(previous, told) -> None:
    made = signer(begun=False)
    assert made.incarnation == 0
    waits = [made.pending("user/t", {"n": n}) for n in (1, 2)]
    assert [made.say(one, NOW) for one in waits] == [False, False]
    assert made.sign() == []
    made.begin(7, NOW, previous=previous)
    assert made.incarnation == 7
    first, *rest = [one.signed for one in made.sign() if one.signed is not None]
    assert first.event.topic == f"source/{ALICE}"
    started = from_data(Started, first.event.data)
    assert (started.previous_incarnation, started.previous_sequence, started.version) == (*told, "v1")
    assert [(one.event.data["n"], one.event.sequence, one.event.chain.number) for one in rest] == [(1, 2, 1), (2, 3, 2)]
    assert [one.id for one in waits] == [one.id for one in rest]
    assert made.sign() == []


def test_an_event_says_what_its_draft_says_under_the_next_numbers() -> None:
    made, other = signer(), EventId("node/n1", 3, 4)
    first = made.pending("user/t", {"n": 1})
    second = made.pending(
        "user/t", {"n": 2}, subject="web", cause=(other, first), ttl=5000, to=("node/n1",), epoch=3, version=4,
        replaces=other,
    )  # fmt: skip
    one, two = said(made, first, second, declares=(1, 9))
    event = two.event
    assert (event.source, event.incarnation, event.sequence, event.chain) == (ALICE, 7, 3, ChainLink(2, one.leaf))
    assert (event.type, event.topic, event.subject, event.data) == ("dsmt.user", "user/t", "web", {"n": 2})
    assert (event.cause, event.ttl, event.to) == ((other, one.id), 5000, ("node/n1",))
    assert (event.epoch, event.version, event.replaces, event.declares) == (3, 4, other, (1, 9))
    assert milliseconds(event.time) == NOW
    assert one.event.time < event.time
    assert (one.event.subject, one.event.cause, one.event.to, one.event.replaces) == ("user/t", (), (), None)
    assert one.event.chain == ChainLink(1, NO_LEAF)
    assert one.key_id == made.key.key_id
    (alone,) = said(made, made.pending("user/t", {}))
    assert alone.event.declares is None
    for signed in (one, two, alone):
        (read,) = decode_part(signed.raw).events
        assert (read.event, read.leaf) == (signed.event, signed.leaf), "a reader chains by the same hash"


def test_what_has_no_id_yet_is_named_as_a_cause_when_it_has_one_and_left_out_when_it_never_had() -> None:
    made = signer()
    never, first = made.pending("user/t", {}), made.pending("user/t", {})
    one, two = said(made, first, made.pending("user/u", {}, cause=(never, first), version=1, replaces=first))
    assert (two.event.cause, two.event.replaces) == ((one.id,), one.id)


@pytest.mark.parametrize(
    ("topic", "data", "about", "expected"),
    [
        ("user/t", {}, {}, {"fact": False, "evidence": False, "epoch": None, "version": None}),
        ("user/t", {}, {"version": 3}, {"fact": True, "evidence": False, "epoch": FIRST_EPOCH, "version": 3}),
        ("user/t", {}, {"version": 3, "epoch": 9}, {"fact": True, "evidence": False, "epoch": 9, "version": 3}),
        ("service/web/spec", SPEC, {}, {"fact": True, "evidence": True, "epoch": FIRST_EPOCH, "version": 1}),
        ("service/web/spec", SPEC, {"version": 2}, {"fact": True, "evidence": True, "epoch": FIRST_EPOCH, "version": 2}),
    ],
)
def test_a_draft_is_completed_as_its_topic_s_row_says(topic, data, about, expected) -> None:
    pending = signer().pending(topic, data, **about)
    assert {name: getattr(pending, name) for name in expected} == expected
    assert (pending.subject, pending.id, pending.signed) == (topic, None, None)


def test_what_lives_for_a_while_by_its_row_does_so_unless_the_draft_says_for_how_long() -> None:
    made, topic = signer(), f"broker/b1/session/{ALICE}"
    data = to_data(
        SessionFact(attachment=1, state="open", how=None, since_ms=0, incarnation=1, pid=None, version="", address="")
    )
    assert made.pending(topic, data).ttl == DAY_MS
    assert made.pending(topic, data, ttl=1).ttl == 1
    assert made.pending("user/t", {}).ttl is None


def test_a_heartbeat_vouches_for_all_that_was_said() -> None:
    made = signer(begun=False)
    before = from_data(Heartbeat, made.heartbeat(0.0, 1.0))
    assert (before.incarnation, before.sequence) == (0, 0)
    made.begin(7, NOW, previous=None)
    said(made, made.pending("user/t", {}))
    told = from_data(Heartbeat, made.heartbeat(0.123456, 5.0))
    assert (told.incarnation, told.sequence, told.lag_s, told.emit_rate_s) == (7, 2, 0.1235, 5.0)


@pytest.mark.parametrize(
    ("topic", "data", "code", "says"),
    [
        ("nobody/knows", {}, "event.topic", "no topic nobody/knows.*topics.md"),
        ("service/web/spec", {"by": 5}, "event.schema", "by"),
    ],
)
def test_what_no_topic_takes_is_not_said(topic, data, code, says) -> None:
    with pytest.raises(InputError, match=says) as refused:
        signer().pending(topic, data)
    assert refused.value.code == code


def test_what_is_said_anew_names_what_is_said_anew_with_it_and_what_was_signed_before() -> None:
    made = signer()
    kept, lost = made.pending("user/t", {"n": 1}), made.pending("user/f", {"n": 2}, version=1)
    one, _ = said(made, kept, lost)
    follows = made.pending("user/f", {"n": 3}, cause=(kept, lost, EventId("node/n1", 3, 4)), version=2, replaces=lost)
    fresh_lost = restate(lost, {})
    fresh = restate(follows, {lost: fresh_lost})
    assert (fresh_lost.id, fresh_lost.signed, fresh_lost.data) == (None, None, {"n": 2})
    assert fresh.cause == (kept, fresh_lost, EventId("node/n1", 3, 4))
    assert fresh.replaces is fresh_lost
    made.begin(8, NOW, previous=(7, 3))
    made.sign()
    first, second = said(made, fresh_lost, fresh)
    assert (first.event.incarnation, first.event.version) == (8, 1)
    assert second.event.cause == (one.id, first.id, EventId("node/n1", 3, 4))
    assert second.event.replaces == first.id
    assert restate(follows, {}).replaces is lost


def test_a_draft_that_follows_a_fact_takes_its_epoch_and_the_next_version() -> None:
    made = signer()
    held = said(made, made.pending("user/f", {}, epoch=3, version=4))[0]
    follows = pending_of(made, Draft("user/f", {"n": 1}, replaces=held))
    assert (follows.epoch, follows.version, follows.replaces) == (3, 5, held.id)
    again = pending_of(made, Draft("user/f", {}, replaces=Underway(follows)))
    assert (again.epoch, again.version, again.replaces) == (3, 6, follows)
    named = pending_of(made, Draft("user/f", {}, replaces=held, epoch=8, version=9))
    assert (named.epoch, named.version) == (8, 9)
    signal = pending_of(made, Draft("user/f", {}, replaces=said(made, made.pending("user/t", {}))[0]))
    assert (signal.epoch or FIRST_EPOCH, signal.version) == (FIRST_EPOCH, 1)


def test_a_draft_becomes_what_is_pending_word_by_word() -> None:
    made, other, own = signer(), EventId("node/n1", 3, 4), Underway(signer().pending("user/t", {}))
    draft = Draft("user/f", {"n": 1}, subject="web", cause=(other, own), ttl_ms=50, to=("node/n1",), epoch=2, version=3)
    pending = pending_of(made, draft)
    assert (pending.topic, pending.data, pending.subject, pending.ttl, pending.to) == (
        "user/f", {"n": 1}, "web", 50, ("node/n1",),
    )  # fmt: skip
    assert (pending.cause, pending.epoch, pending.version, pending.replaces) == ((other, own.pending), 2, 3, None)
    with pytest.raises(TypeError):
        pending_of(made, Draft("user/f", {}, cause=("somebody's",)))  # type: ignore[arg-type]


def test_what_is_under_way_is_answered_by_an_acknowledgement_or_by_why_not() -> None:
    made = signer()
    underway = Underway(made.pending("user/t", {}))
    assert (underway.id, underway.signed, underway.answered) == (None, None, False)
    (signed,) = said(made, underway.pending)
    assert (underway.id, underway.signed) == (signed.id, signed)
    refused = RefusedError("trust.denied", "no")
    underway.settle(None, refused)
    assert underway.answered
    with pytest.raises(RefusedError) as told:
        underway.answer()
    assert told.value is refused
    ack = Ack(Level.STORED, 1, synced=True, cursor=Cursor("s", 1, 0))
    underway.settle(ack, None)
    assert underway.answered
    assert underway.answer() is ack
