"""What the door compares a fact with, line by line (rules A3, A11)."""

from __future__ import annotations

import time

import pytest

from dsmt.bus.rules.validator import Admitted, EventValidator, Standing
from dsmt.errors import UnusableEventError
from dsmt.event.envelope import NO_LEAF, ChainLink, Event, EventId, SignedEvent
from dsmt.event.hlc import BOUND_MS, hlc
from dsmt.event.order import MAX_STEP
from dsmt.event.payload import payload
from dsmt.event.registry import lookup
from tests.bus.realm import Pen, TestRealm, scenario

NOW_MS = 1_000_000
OTHER = EventId("operator/bob", 1, 99)


def fact(*, sequence=1, version=1, epoch=1, at_ms=NOW_MS, ttl=None, replaces=None):
    event = Event(
        source="operator/alice",
        incarnation=1,
        sequence=sequence,
        chain=ChainLink(1, NO_LEAF),
        type="dsmt.user",
        topic="user/f",
        subject="",
        time=hlc(at_ms),
        data={},
        ttl=ttl,
        epoch=epoch,
        version=version,
        replaces=replaces,
    )
    return SignedEvent(event, payload(event), NO_LEAF, b"")


def admitted(signed: SignedEvent, at: Standing, *, own: bool = True, now_ms: int = NOW_MS) -> Admitted:
    match = lookup("user/f")
    assert match is not None
    return EventValidator.admit(signed, match, fact=True, at=at, own=own, now_ms=now_ms)


DEAD = fact(at_ms=NOW_MS - 100, ttl=100)


def test_where_the_winner_is_dead_only_that_one_or_none_may_be_replaced():
    at = Standing(DEAD)
    assert admitted(fact(sequence=2, version=2), at).winner
    assert admitted(fact(sequence=2, version=2, replaces=DEAD.id), at).winner
    with pytest.raises(UnusableEventError, match=r"there is no operator/bob#1-99 to be replaced") as told:
        admitted(fact(sequence=2, version=2, replaces=OTHER), at)
    assert told.value.code == "stale"


def test_what_its_own_source_says_in_an_epoch_that_has_ended_is_stale_and_what_another_re_offers_is_history():
    at = Standing(None, ended=3)
    with pytest.raises(UnusableEventError, match="its epoch 3 has ended") as told:
        admitted(fact(epoch=3), at)
    assert told.value.code == "stale"
    assert not admitted(fact(epoch=3), at, own=False).winner
    assert admitted(fact(epoch=4), at).winner


def test_what_is_dead_at_this_very_moment_is_history_only():
    assert not admitted(fact(at_ms=NOW_MS - 100, ttl=100), Standing(None)).winner
    assert admitted(fact(at_ms=NOW_MS - 99, ttl=100), Standing(None)).winner


@pytest.mark.parametrize(
    ("at", "epoch", "version"),
    [
        (Standing(None, ended=MAX_STEP), 2 * MAX_STEP, MAX_STEP),
        (Standing(fact(epoch=5, version=7)), 5 + MAX_STEP, 7 + MAX_STEP),
    ],
    ids=["above what has ended", "above what is held"],
)
def test_numbers_may_be_so_far_above_and_no_further(at, epoch, version):
    assert admitted(fact(sequence=2, epoch=epoch, version=version), at, own=False).winner
    for far in (fact(sequence=2, epoch=epoch + 1, version=version), fact(sequence=2, epoch=epoch, version=version + 1)):
        with pytest.raises(UnusableEventError) as told:
            admitted(far, at)
        assert told.value.code == "event.version"


@scenario
async def test_an_incarnation_that_was_granted_to_a_session_is_no_leave_for_what_it_re_offers_of_others(r: TestRealm):
    now_ms = int(time.time() * 1000)
    far = now_ms + 10 * BOUND_MS
    identity = r.identity("operator/alice")
    trust = r.trust()
    trust.add_all([one.raw for one in identity.chain])
    raw = Pen(identity, far).write("user/f", {}, version=1).raw
    door = EventValidator(trust)
    signed = trust.open(raw)
    assert signed.event.incarnation == far
    door.check(signed, session="operator/alice", now_ms=now_ms, granted=far)
    with pytest.raises(UnusableEventError) as told:
        door.check(signed, session="operator/bob", now_ms=now_ms, granted=far)
    assert told.value.code == "event.incarnation"
