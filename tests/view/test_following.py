"""Following: one view of one store, complete up to its last mark."""

from __future__ import annotations

from typing import Any

from dsmt.ports.bus import Arrived, Bookmark, Complete, Cursor, Notice, Reattached
from dsmt.view.following import DeliveryEffect, ViewFollower
from tests.operations.recorded import Recording


def fact() -> Arrived:
    recording = Recording()
    recording.say("operator/alice", "nodeset/good", {"expression": "all_nodes", "by": "alice", "reason": ""}, version=1)
    return Arrived(recording.events[-1], 1, live=False)


def steps(following: ViewFollower, *deliveries: Any) -> list[DeliveryEffect]:
    return [following.take(one) for one in deliveries]


def test_a_view_is_complete_at_a_mark_and_not_before() -> None:
    following, one = ViewFollower(), fact()
    assert steps(following, one, one, Notice("dsmt.notice.gap", "")) == [
        DeliveryEffect.FOLDED,
        DeliveryEffect.NOTHING,
        DeliveryEffect.NOTHING,
    ]
    assert not following.complete
    assert following.take(Complete(Cursor("s1", 4, 77), whole=False)) is DeliveryEffect.REACHED
    assert (following.complete, following.whole) == (True, False)
    assert following.take(Bookmark(Cursor("s1", 5, 99), whole=True)) is DeliveryEffect.REACHED
    assert (following.whole, following.store, following.row, following.as_of_ms) == (True, "s1", 5, 99)
    assert following.take(Bookmark(Cursor("s1", 5, 120), whole=True)) is DeliveryEffect.REACHED, "nothing was said meanwhile"
    assert (len(following.view), following.as_of_ms) == (1, 120)


def test_at_the_same_store_again_it_goes_on_and_at_another_it_begins_with_nothing() -> None:
    following = ViewFollower()
    steps(following, fact(), Complete(Cursor("s1", 4, 77), whole=True))
    assert following.take(Reattached("broker/b1", "s1")) is DeliveryEffect.NOTHING
    assert len(following.view) == 1
    assert following.take(Reattached("broker/b2", "s2")) is DeliveryEffect.ANEW
    assert (len(following.view), following.complete, following.whole, following.row) == (0, False, False, 0)
    assert following.take(Complete(Cursor("s2", 1, 80), whole=True)) is DeliveryEffect.REACHED


def test_a_store_that_ends_before_what_was_read_of_it_is_begun_anew() -> None:
    following = ViewFollower()
    steps(following, fact(), Complete(Cursor("s1", 4, 77), whole=True))
    assert following.take(Bookmark(Cursor("s1", 3, 90), whole=True)) is DeliveryEffect.BEHIND
    assert (len(following.view), following.complete) == (0, False)
    assert following.take(Complete(Cursor("s1", 3, 91), whole=True)) is DeliveryEffect.REACHED
