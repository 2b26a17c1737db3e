"""Resuming: what an agent does first with what an earlier one left, by the record that this one kept.

Rule 1: each row of FIRST that holds when its turn comes is done, in the order of the table.
Rule 2: what the record names, and lives, is taken over. Where its program lives no more, all else that lives in the
    container is ended, but the copy before: another one may have been started that was not written down. So it is where
    there is no record: a program may have removed it.
Rule 3: what ran has failed if it lives no more, but not with its machine: nothing that ran before a reboot runs.
Rule 4: what is served stays served: the copy before, unless its successor is ready.
Rule 5: what an agent said last, and nobody may have heard, is said again: what runs, and what has ended and stays so.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """What was left, and what has become of it by now."""

    rebooted: bool
    """The machine has been started anew since the record was written."""
    named: bool
    """The record names a program."""
    found: bool
    """That one lives."""
    before_named: bool
    """The record names a copy that was handing over."""
    before_found: bool
    """That one lives."""
    before_runs: bool = False
    """It was taken over."""
    ready: bool = False
    """What was taken over is ready."""
    stays: bool = False
    """What was said last is so until something is asked for: it is stopped, or has failed and is not tried again."""


class First(StrEnum):
    """What is done."""

    FORGET_BEFORE = "forget_before"
    """Know nothing of a copy before; that is written with what is told next."""
    TELL_REBOOTED = "tell_rebooted"
    TAKE_BEFORE = "take_before"
    """Take over the copy before."""
    LOSE_BEFORE = "lose_before"
    """Write that there is no copy before."""
    TAKE = "take"
    """Take over what runs."""
    SWEEP = "sweep"
    """End whatever of this container runs but what was taken over."""
    TELL_ENDED = "tell_ended"
    TELL_AGAIN = "tell_again"
    """Say again what was said last."""
    SERVE_NONE = "serve_none"
    """Withdraw what an earlier agent said is served."""
    SERVE_BEFORE = "serve_before"


Condition = Callable[[Left], bool]


def rebooted(left: Left) -> bool:
    """The machine was started anew."""
    return left.rebooted


def named(left: Left) -> bool:
    """The record names a program."""
    return left.named


def found(left: Left) -> bool:
    """The program that is named lives."""
    return left.found


def before_named(left: Left) -> bool:
    """The record names a copy before."""
    return left.before_named


def before_found(left: Left) -> bool:
    """The copy before that is named lives."""
    return left.before_found


def before_runs(left: Left) -> bool:
    """The copy before was taken over, and runs."""
    return left.before_runs


def ready(left: Left) -> bool:
    """What was taken over is ready."""
    return left.ready


def stays(left: Left) -> bool:
    """What was said last stays so."""
    return left.stays


class Rule(NamedTuple):
    """What is done when all of `when` and none of `unless` holds."""

    do: First
    when: tuple[Condition, ...]
    unless: tuple[Condition, ...] = ()

    def holds(self, left: Left) -> bool:
        """Whether it is done."""
        return all(one(left) for one in self.when) and not any(one(left) for one in self.unless)


FIRST: Final = (
    Rule(First.FORGET_BEFORE, (rebooted,)),
    Rule(First.TELL_REBOOTED, (rebooted, named)),
    Rule(First.TAKE_BEFORE, (before_found,), (rebooted,)),
    Rule(First.LOSE_BEFORE, (before_named,), (rebooted, before_found)),
    Rule(First.TAKE, (found,), (rebooted,)),
    Rule(First.SWEEP, (), (rebooted, found)),
    Rule(First.TELL_ENDED, (named,), (rebooted, found)),
    Rule(First.TELL_AGAIN, (stays,), (named,)),
    Rule(First.SERVE_NONE, (before_named,), (rebooted, before_runs, ready)),
    Rule(First.SERVE_BEFORE, (before_runs,), (rebooted, ready)),
)
