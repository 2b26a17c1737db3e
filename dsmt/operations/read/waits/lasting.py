"""Lasting: what a wait has seen to be over, and for how long: only what has stayed so is told as the outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from dsmt.errors import FailedError
from dsmt.event.status import Shown
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.instance_row import InstanceRow

PARKED_MS: Final = 3_000
"""How long something is over before it is told: before that a controller may roll it back, or move it."""


def has_failed(row: InstanceRow) -> bool:
    """Whether it is parked, or has failed for good."""
    return row.state in (Shown.PARKED, Shown.FAILED)


class Lasting:
    """Which rows are over, and since when."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str | None], int] = {}

    def first(
        self, sight: Sight, rows_: Iterable[InstanceRow], over: Callable[[InstanceRow], bool] = has_failed
    ) -> InstanceRow | None:
        """The first of those that are over, and have been since `PARKED_MS` on the same node."""
        rows = {(row.instance, row.node): row for row in rows_ if over(row)}
        self._since = {one: self._since.get(one, sight.now_ms) for one in rows}
        return next((row for one, row in rows.items() if sight.now_ms - self._since[one] >= PARKED_MS), None)


def nothing_more(row: InstanceRow, look: str) -> FailedError:
    """That one is not ready, and dsmt does nothing more about it."""
    if row.held is not None:
        said, next_ = f"{row.instance} is held by {row.held.by}, and so not run", f"dsmt start {row.instance}"
    elif row.state is Shown.DONE:
        said, next_ = f"{row.instance} is done, and not run again", f"dsmt restart {row.instance} runs it once more"
    else:
        why, next_ = ("", look) if row.reason is None else (f": {row.reason.message}", row.reason.next)
        said = f"{row.instance} is {row.state}{why}; dsmt does nothing more"
    return FailedError("wait.failed", said, next=next_)
