"""What an agent does first with what an earlier one left: one row for each situation, and what holds for all of them."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from msgspec.structs import replace

from dsmt.agents.rules.resuming import FIRST, First, Left

NOTHING = Left(rebooted=False, named=False, found=False, before_named=False, before_found=False)
LIVES = replace(NOTHING, named=True, found=True)
ENDED = replace(NOTHING, named=True)
REBOOTED = replace(NOTHING, rebooted=True)
ALL = [
    Left(**dict(zip(Left.__struct_fields__, bits, strict=True)))
    for bits in product([False, True], repeat=len(Left.__struct_fields__))
]


def possible(left: Left) -> bool:
    """What lives is named, in a record; and nothing that is named was looked for after a reboot."""
    found = left.found <= left.named and left.before_found <= left.before_named
    looked = not left.rebooted or not (left.found or left.before_found)
    return found and looked and not left.before_runs and left.ready <= left.found


def done(left: Left) -> list[First]:
    """What is done, one after another; the copy before runs from when it was taken over."""
    did: list[First] = []
    for row in FIRST:
        if row.holds(replace(left, before_runs=First.TAKE_BEFORE in did, ready=left.ready and First.TAKE in did)):
            did.append(row.do)
    return did


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (NOTHING, [First.SWEEP]),
        (replace(NOTHING, stays=True), [First.SWEEP, First.TELL_AGAIN]),
        (replace(REBOOTED, stays=True), [First.FORGET_BEFORE, First.TELL_AGAIN]),
        (replace(LIVES, stays=True), [First.TAKE]),
        (LIVES, [First.TAKE]),
        (ENDED, [First.SWEEP, First.TELL_ENDED]),
        (REBOOTED, [First.FORGET_BEFORE]),
        (replace(REBOOTED, named=True, before_named=True), [First.FORGET_BEFORE, First.TELL_REBOOTED]),
        (replace(LIVES, before_named=True), [First.LOSE_BEFORE, First.TAKE, First.SERVE_NONE]),
        (replace(LIVES, before_named=True, ready=True), [First.LOSE_BEFORE, First.TAKE]),
        (replace(LIVES, before_named=True, before_found=True), [First.TAKE_BEFORE, First.TAKE, First.SERVE_BEFORE]),
        (replace(LIVES, before_named=True, before_found=True, ready=True), [First.TAKE_BEFORE, First.TAKE]),
        (
            replace(ENDED, before_named=True, before_found=True),
            [First.TAKE_BEFORE, First.SWEEP, First.TELL_ENDED, First.SERVE_BEFORE],
        ),
        (replace(NOTHING, before_named=True), [First.LOSE_BEFORE, First.SWEEP, First.SERVE_NONE]),
    ],
)
def test_what_is_done_first_follows_from_what_was_left(left: Left, expected: list[First]) -> None:
    assert possible(left)
    assert done(left) == expected


def test_there_is_a_situation_above_for_each_row_of_the_table() -> None:
    marks: Any = test_what_is_done_first_follows_from_what_was_left
    assert {one for _, expected in marks.pytestmark[0].args[1] for one in expected} == set(First)


@pytest.mark.parametrize("left", [one for one in ALL if possible(one)], ids=str)
def test_what_lives_is_taken_over_or_ended_and_what_lives_no_more_is_told_once(left: Left) -> None:
    did = done(left)
    assert (First.TAKE in did) == left.found
    assert (First.TAKE_BEFORE in did) == left.before_found
    assert (First.SWEEP in did) == (not left.found and not left.rebooted)
    told = [one for one in did if one in (First.TELL_REBOOTED, First.TELL_ENDED)]
    assert len(told) == (left.named and not left.found)
    if left.before_named and not left.rebooted and not left.ready:
        assert did[-1] is (First.SERVE_BEFORE if left.before_found else First.SERVE_NONE)
