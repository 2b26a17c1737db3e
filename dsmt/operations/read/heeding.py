"""Heeding: waiting until what was asked is done: instances have stopped, begun, restarted, moved, or were tried again.

Or until nothing is left of a service that was removed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from dsmt.controllers.endings import BURIAL_MS
from dsmt.errors import FailedError
from dsmt.event.status import Shown
from dsmt.operations.read.instance_row import InstanceRow
from dsmt.operations.read.instances import application, instances, is_behind, is_ready, living_holders
from dsmt.operations.read.sight import Sight
from dsmt.operations.read.waiting import READY, Waited, progress, until
from dsmt.operations.words.targets import Target
from dsmt.operations.words.telling import Tell, silent
from dsmt.ports.bus import BusReader

_FAILED: Final = frozenset({Shown.BACKOFF, Shown.PARKED, Shown.FAILED})


async def restarted(bus: BusReader, target: Target, *, limit_s: float | None, tell: Tell = silent) -> Waited:
    """Wait until every restart that was asked for is done and ready, or has ended well; what is held is left out.

    Raises `TimedOutError`.
    """

    def done(sight: Sight, row: InstanceRow) -> bool:
        entry = sight.view.slot(row.key)
        asked = 0 if entry is None or entry.control is None else entry.control.record.restart
        last = 0 if entry is None or entry.fact is None else entry.fact.record.restart
        return last >= asked and _is_done(sight, row)

    return await _all_done(bus, target, done, unmet=f"{target} is not restarted and ready", limit_s=limit_s, tell=tell)


async def moved(bus: BusReader, target: Target, *, limit_s: float | None, tell: Tell = silent) -> Waited:
    """Wait until every move that was asked for is done and ready, or has ended well; what is held is left out.

    Raises `TimedOutError`.
    """

    def done(sight: Sight, row: InstanceRow) -> bool:
        entry = sight.view.slot(row.key)
        asked = None if entry is None else entry.move_asked
        return asked is None and _is_done(sight, row)

    return await _all_done(bus, target, done, unmet=f"{target} is not moved and ready", limit_s=limit_s, tell=tell)


def _is_done(sight: Sight, row: InstanceRow) -> bool:
    """Whether it is as it is to be: ready, or it has run and ended with 0, and is not run again."""
    return (is_ready(sight, row) or row.state is Shown.DONE) and not is_behind(sight, row)


def wills(sight: Sight, target: Target) -> dict[str, int]:
    """By instance: which operator's will for it was said last."""
    return {row.instance: _will(sight, row) for row in instances(sight, target)}


def _will(sight: Sight, row: InstanceRow) -> int:
    entry = sight.view.slot(row.key)
    return 0 if entry is None or entry.control is None else entry.control.version


async def obeyed(
    bus: BusReader,
    target: Target,
    before: dict[str, int],
    *,
    held: bool,
    limit_s: float | None,
    tell: Tell = silent,
) -> Waited:
    """Wait until all is held and stopped or, if not `held`, ready or ended well, by a will that came after `before`.

    Raises `TimedOutError`, and `FailedError` where another will that came after it says the opposite.
    """
    goal = "stopped" if held else "ready"

    def rows_of(sight: Sight) -> list[InstanceRow]:
        rows = instances(sight, target)
        if not rows:
            raise FailedError("wait.unwanted", f"{target} is wanted no more", next=f"dsmt status {target.service}")
        for row in rows:
            if (row.held is not None) is not held and _will(sight, row) > before.get(row.instance, 0):
                was, look = ("started", f"dsmt why {row.instance}") if held else ("stopped", f"dsmt start {row.instance}")
                raise FailedError("wait.opposed", f"{row.instance} was {was} meanwhile, before it was {goal}", next=look)
        return rows

    def done(sight: Sight, row: InstanceRow) -> bool:
        entry = sight.view.slot(row.key)
        fact = None if entry is None or entry.fact is None else entry.fact.record
        if held:
            return row.held is not None and row.state is Shown.STOPPED
        return row.held is None and fact is not None and not fact.held and _is_done(sight, row)

    unmet = f"{target} is not {goal}"
    return await _all_done(bus, target, done, rows_of=rows_of, wanted=goal, unmet=unmet, limit_s=limit_s, tell=tell)


def tries(sight: Sight, target: Target) -> dict[str, tuple[int, int]]:
    """By instance: which generation it tries, for which time."""
    return {row.instance: _tries(sight, row) for row in instances(sight, target)}


def _tries(sight: Sight, row: InstanceRow) -> tuple[int, int]:
    said = application(sight, row)
    return (0, 0) if said is None else (said.generation, said.attempt)


async def retried(
    bus: BusReader, target: Target, before: dict[str, tuple[int, int]], *, limit_s: float | None, tell: Tell = silent
) -> Waited:
    """Wait until all is ready or, tried once more than `before`, has ended well or failed.

    Raises `TimedOutError`, `FailedError`.
    """

    def done(sight: Sight, row: InstanceRow) -> bool:
        if is_ready(sight, row) or (row.state is Shown.DONE and _tries(sight, row) > before.get(row.instance, (0, 0))):
            return True
        if row.state in _FAILED and _tries(sight, row) > before.get(row.instance, (0, 0)):
            why = "" if row.reason is None else f": {row.reason.message}"
            said = f"{row.instance} was tried again and failed{why}"
            raise FailedError("retry.failed", said, next=f"dsmt logs {row.instance} --previous")
        return False

    return await _all_done(bus, target, done, unmet=f"{target} is not ready", limit_s=limit_s, tell=tell)


def _free(sight: Sight, target: Target) -> list[InstanceRow]:
    return [row for row in instances(sight, target) if row.held is None]


async def _all_done(
    bus: BusReader,
    target: Target,
    done: Callable[[Sight, InstanceRow], bool],
    *,
    rows_of: Callable[[Sight], list[InstanceRow]] | None = None,
    wanted: str = READY,
    unmet: str,
    limit_s: float | None,
    tell: Tell,
) -> Waited:
    """Wait until it is so of every instance of `rows_of`: of those that are not held, where that is not given."""
    those = rows_of or partial(_free, target=target)

    def seen(sight: Sight) -> Waited | None:
        rows = those(sight)
        if all(done(sight, row) for row in rows):
            return Waited(target=str(target), wanted=wanted, reached=True, instances=rows)
        return None

    def far(sight: Sight) -> str:
        return progress(sight, those(sight), lambda row: done(sight, row))

    look = f"dsmt status {target.service}"
    return await until(bus, seen, limit_s=limit_s, unmet=unmet, look=look, far=far, tell=tell)


async def ended(
    bus: BusReader, service: str, *, epoch: int | None = None, limit_s: float | None, tell: Tell = silent
) -> Waited:
    """Wait until nothing of a service is left. Raises `TimedOutError`, and `FailedError` when it stands in a later epoch."""

    def left(sight: Sight) -> list[str]:
        entry = sight.view.services.get(service)
        slots = {} if entry is None else entry.slots
        return [
            f"{service}/{component}/{index} on {node}"
            for (component, index), slot in sorted(slots.items())
            for node in living_holders(sight, slot)
        ]

    def seen(sight: Sight) -> Waited | None:
        entry = sight.view.services.get(service)
        if entry is None or (entry.spec is None and not left(sight)):
            return Waited(target=service, wanted=Shown.GONE.value, reached=True, instances=[])
        if epoch is not None and entry.spec is not None and (entry.spec.signed.event.epoch or 0) > epoch:
            said = f"{service} was removed, and applied again before it was seen to be gone"
            raise FailedError("wait.applied_again", said, next=f"dsmt status {service}")
        return None

    def far(sight: Sight) -> str:
        quiet = f"nothing is left; a node that has more may say so until {BURIAL_MS / 1000:g} s after the last has ended"
        return f"left: {', '.join(left(sight))}" if left(sight) else quiet

    unmet = f"{service} is not gone"
    return await until(bus, seen, limit_s=limit_s, unmet=unmet, look=f"dsmt ps {service}", far=far, tell=tell)
