"""What a source has said and nobody has answered: nothing of it is left without an answer, and what is lost is declared."""

from __future__ import annotations

from typing import Any

import pytest

from dsmt.bus.rules.emitting import Underway, pending_of
from dsmt.bus.rules.outbox import Outbox
from dsmt.bus.rules.unanswered import Unanswered
from dsmt.errors import FailedError, InputError, RefusedError
from dsmt.event.envelope import Event, EventRange
from dsmt.ports.bus import TOLERATED_MS, Ack, Cursor, Draft, Level
from dsmt.trust.identity import root_issued
from dsmt.trust.keys import SecretKey

NOW = 1_700_000_000_000
LONG = "x" * 160
ACK = Ack(Level.STORED, copies=1, synced=True, cursor=Cursor("s", 1, 1))
IDENTITY = root_issued("operator/alice", SecretKey(bytes(32)), key=SecretKey(b"a" * 32), now_s=NOW // 1000, serial=bytes(16))
NEVER, FAILED = RefusedError("trust.grant", "it may not"), FailedError("bus.lost", "nobody knows")


class Source:
    def __init__(self, *, begun: bool = True) -> None:
        self.kept: Unanswered[Underway] = Unanswered(IDENTITY, "v1", lambda: NOW)
        if begun:
            self.kept.begin(7, previous=None)
            self.signed()
            self.kept.acknowledged(EventRange("operator/alice", 7, 1, 1), ACK)

    def say(self, topic: str = "user/t", *, sign: bool = True, **about: Any) -> Underway:
        said = Underway(pending_of(self.kept.signer, Draft(topic, **{"data": {}, **about})))
        self.kept.say(said)
        if sign:
            self.kept.sign()
        return said

    def signed(self) -> list[Event]:
        """What leaves now."""
        self.kept.sign()
        return [one.event for one in self.kept.outbox.due()]


def test_what_is_said_before_there_is_an_incarnation_waits_for_it_and_what_can_be_no_event_is_answered() -> None:
    source = Source(begun=False)
    one, large, two = source.say(), source.say(data={"x": "x" * 70_000}), source.say()
    assert source.signed() == []
    source.kept.begin(7, previous=None)
    assert [event.topic for event in source.signed()] == ["source/operator/alice", "user/t", "user/t"]
    assert isinstance(large.error, InputError)
    source.kept.acknowledged(EventRange("operator/alice", 7, 1, 3), ACK)
    assert (one.acked, two.acked, large.acked) == (ACK, ACK, None)
    assert len(source.kept.outbox) == 0


def test_what_was_dropped_for_too_much_is_unanswered_is_answered_and_declared_by_the_next_on_its_topic() -> None:
    source = Source()
    source.kept.outbox = Outbox(1000)
    said = [source.say(data={"x": LONG}) for _ in range(3)]
    assert [one.answered for one in said] == [True, False, False]
    assert said[0].error is not None
    assert said[0].error.code == "outbox.full"
    source.kept.acknowledged(EventRange("operator/alice", 7, 1, 4), ACK)
    assert [one.acked for one in said] == [None, ACK, ACK]
    later = source.say()
    assert later.signed is not None
    assert later.signed.event.declares == (1, 1)


@pytest.mark.parametrize(
    ("topic", "data", "dropped"),
    [
        ("user/t", {"text": LONG}, True),
        ("node/n1/following", {"word": LONG}, True),
        ("service/web/command/app/0", {"id": LONG, "verb": "STOP", "generation": 1, "asker": "operator/alice"}, False),
    ],
)
def test_signals_that_are_evidence_are_never_dropped_and_facts_that_are_only_where_they_are_superseded(
    topic: str, data: dict[str, Any], dropped: bool
) -> None:
    source = Source()
    source.kept.outbox = Outbox(1000)
    said = [source.say(topic, data=data) for _ in range(3)]
    assert [one.answered for one in said] == [dropped, False, False]


def test_what_was_refused_is_declared_once_and_what_was_given_up_is_not() -> None:
    source = Source()
    refused, given_up = source.say("user/a"), source.say("user/b")
    assert refused.id is not None
    assert given_up.id is not None
    source.kept.refused(refused.id, NEVER)
    source.kept.given_up(given_up.id, FAILED)
    assert (refused.error, given_up.error) == (NEVER, FAILED)
    assert len(source.kept.outbox) == 0
    after = [source.say(topic) for topic in ("user/a", "user/a", "user/b")]
    assert [one.signed.event.declares for one in after if one.signed] == [(1, 1), None, None]


def test_in_another_incarnation_all_that_is_unanswered_is_said_again_and_keeps_its_caller() -> None:
    source = Source()
    stored, first = source.say(), source.say()
    assert stored.id is not None
    source.kept.stored(stored.id, ACK)
    assert len(source.kept.outbox) == 1
    then = source.say(cause=(first,), sign=False)
    source.kept.begin_anew(9, previous=(7, 3))
    started, one, two = source.signed()
    assert (started.data["previous_incarnation"], started.data["previous_sequence"]) == (7, 3)
    assert [(event.incarnation, event.sequence, event.chain.number) for event in (one, two)] == [(9, 2, 1), (9, 3, 2)]
    assert two.cause == (first.id,)
    source.kept.acknowledged(EventRange("operator/alice", 9, 1, 3), ACK)
    assert (stored.acked, first.acked, then.acked) == (ACK, ACK, ACK)


def test_where_realm_time_went_back_times_begin_anew_below_those_that_were_said() -> None:
    source = Source()
    source.kept.signer.clock.tick(NOW + 60_000)
    unanswered = source.say(sign=False)
    source.kept.begin_backwards(8, ())
    started, *again = source.signed()
    assert (started.data["previous_incarnation"], started.data["previous_sequence"]) == (7, 1)
    assert [event.time_ms for event in (started, *again)] == [NOW] * 2
    assert unanswered.id == again[-1].id


def test_where_realm_time_went_back_what_was_answered_lately_is_said_again_where_nothing_newer_is() -> None:
    source = Source()
    stored, replaced = source.say("user/a"), source.say("user/b")
    for one in (stored, replaced):
        assert one.id is not None
        assert source.kept.stored(one.id, ACK) is one
    newer = source.say("user/b")
    source.kept.begin_backwards(8, [stored, replaced])
    _, *again = source.signed()
    assert [(event.topic, event.incarnation) for event in again] == [("user/a", 8), ("user/b", 8)]
    assert [stored.id, newer.id] == [event.id for event in again]


@pytest.mark.parametrize(("by_ms", "matters"), [(TOLERATED_MS, False), (-TOLERATED_MS - 1, True), (5000, True)])
def test_own_times_of_all_that_is_unanswered_are_put_right_where_they_were_guessed_too_wrong(
    by_ms: int, matters: bool
) -> None:
    told: list[int] = []
    source = Source(begun=False)
    waits = source.say(data={"at_ms": NOW}, own_times=("at_ms",))
    source.kept.begin(7, previous=None)
    unanswered = source.say(data={"at_ms": NOW}, own_times=("at_ms",))
    source.kept.on_time_known.append(told.append)
    assert source.kept.put_right(by_ms) == matters
    assert told == [by_ms] * matters
    assert [one.pending.data["at_ms"] for one in (waits, unanswered)] == [NOW + by_ms * matters] * 2
