"""Waiting: watch the view until instances are as wanted. A wait that ends changes nothing: what was asked for goes on.

Rule 1: a wait that ends too soon says what is not so, after how long, and how far it is.
    It looks once however short it is: what nobody has looked at is not said to be so, or not.
Rule 2: who waits is told how far it is, each time that this changes.
Rule 3: what is parked, or has failed and is not run again, is told as the outcome when it has stayed so for `PARKED_MS`:
    before that a controller may roll it back, or move it. Nobody waits longer for what dsmt does nothing more about.
Rule 4: what is held by hand, or has ended well and is not run again, is not waited for to be ready, by whoever waits. Where
    nothing else is, all is ready, if nothing is to run or what was has ended well and was good. If not, that is the outcome
    when it has stayed so for `PARKED_MS`: what is held, or has failed, is not called ready.
Rule 5: what a broker does not know yet, to which who waits went meanwhile, is waited for; what has been removed since it was
    seen is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from typing import Final, TypeVar

import msgspec

from dsmt.controllers.ended import stays_ended
from dsmt.errors import InputError, TimedOutError, TransportError
from dsmt.event.status import Shown
from dsmt.operations.read.realm.sight import Sight, watch
from dsmt.operations.read.rows.controller_rows import is_undecided
from dsmt.operations.read.rows.instance_row import InstanceRow
from dsmt.operations.read.rows.instances import instances, is_problem, is_ready
from dsmt.operations.read.waits.decided import all_decided, all_there
from dsmt.operations.read.waits.lasting import Lasting, has_failed, nothing_more
from dsmt.operations.words.targets import Target, no_service, slots_of, was_removed
from dsmt.operations.words.telling import Tell, silent
from dsmt.ports.bus import BusReader

Result = TypeVar("Result")
READY: Final = "ready"
UNREADY: Final = "unready"
NOTHING_TO_RUN: Final = "nothing of it is to run"
FIRST_LOOK_S: Final = 5.0
"""How long the first look may take, where a wait is shorter than it (rule 1)."""
STATES: Final = (READY, UNREADY, *(state.value for state in Shown))


class Waited(msgspec.Struct, frozen=True, kw_only=True):
    """What a wait has seen at its end. `because` says why there was nothing to wait for, where there was not."""

    target: str
    wanted: str
    reached: bool
    instances: list[InstanceRow]
    because: str = ""


async def until(
    bus: BusReader,
    seen: Callable[[Sight], Result | None],
    *,
    limit_s: float | None,
    unmet: str,
    look: str = "dsmt status",
    far: Callable[[Sight], str] | None = None,
    tell: Tell = silent,
    began: float | None = None,
) -> Result:
    """What `seen` says of the view, as soon as it says anything.

    Raises `TimedOutError`: `unmet` is what is not so yet, `far` how far it is, `look` the command that shows it. The limit
    counts from `began`, in the loop's time, or from now.
    """
    told = ""
    now_s = asyncio.get_running_loop().time()
    ends_s = None if limit_s is None else (now_s if began is None else began) + limit_s
    first_s = None if ends_s is None else max(ends_s, now_s + FIRST_LOOK_S)
    try:
        async with asyncio.timeout_at(first_s) as limit, aclosing(watch(bus)) as sights:
            async for sight in sights:
                if limit.when() != ends_s:
                    limit.reschedule(ends_s)
                found = seen(sight)
                if found is not None:
                    return found
                nobody = ["no controller is alive"] if is_undecided(sight) else []
                now = "; ".join(nobody if far is None else [far(sight), *nobody])
                if now != told:
                    tell(f"{unmet}: {now}")
                told = now
    except TimeoutError as error:
        so_far = f" ({told})" if told else ""
        said = f"{unmet} after {limit_s:g} s{so_far}; it goes on"
        raise TimedOutError("wait.timeout", said, next=f"{look} shows how far it is") from error
    raise TransportError("wait.ended", f"the connection ended, and {unmet}", next="try again")


async def until_none(bus: BusReader, left: Callable[[Sight], list[str]], *, limit_s: float) -> list[str]:
    """Wait until nobody is left, or for so long; who is."""
    found: list[str] = []

    def none(sight: Sight) -> bool | None:
        nonlocal found
        found = left(sight)
        return None if found else True

    with suppress(TimedOutError):
        await until(bus, none, limit_s=limit_s, unmet="somebody has not come")
    return found


def unheard_of(sight: Sight) -> str:
    """How far what is waited for is at a broker that does not know it yet (rule 5)."""
    return f"broker {sight.broker} has not heard of it yet"


def progress(sight: Sight, rows: Iterable[InstanceRow], met: Callable[[InstanceRow], bool]) -> str:
    """How many rows are as wanted, and what is wrong with the first of those that are not: `2 of 4; web/app/0 backoff`."""
    listed = list(rows)
    sick = [row for row in listed if not met(row) and is_problem(sight, row)]
    why = "" if not sick or sick[0].reason is None else f": {sick[0].reason.message}"
    wrong = f"; {sick[0].instance} {sick[0].state}{why}" if sick else ""
    return f"{sum(map(met, listed))} of {len(listed)}{wrong}"


async def wait_for(bus: BusReader, target: Target, state: str, *, limit_s: float | None, tell: Tell = silent) -> Waited:
    """Wait until every instance of a target is in a state.

    Raises `InputError`, `NotFoundError`, `TimedOutError`, and `FailedError` where one is over that is to be ready (3, 4).
    """
    if state not in STATES:
        raise InputError("wait.state", f"there is no state {state}", next=f"one of {', '.join(STATES)}")
    waited, look = _Awaited(target, state), f"dsmt status {target.service}"
    return await until(
        bus, waited.seen, limit_s=limit_s, unmet=f"{target} is not {state}", look=look, far=waited.far, tell=tell
    )


class _Awaited:
    """The instances of a target that are waited for to be in a state."""

    def __init__(self, target: Target, state: str) -> None:
        self._target, self._state, self._lasting = target, state, Lasting()

    def seen(self, sight: Sight) -> Waited | None:
        """What is so once all are; else None. Raises `FailedError` where one is over that is to be ready."""
        if self._state == READY:
            return self._ready(sight)
        entry = sight.view.services.get(self._target.service)
        if self._state == Shown.GONE and (entry is None or not entry.slots):
            return self._reached([], _gone_with(sight, self._target.service))
        rows = self._rows(sight)
        there = rows or self._state == Shown.GONE
        return self._reached(rows) if there and all(_is(sight, row, self._state) for row in rows) else None

    def far(self, sight: Sight) -> str:
        """How far it is; of what has no instance, that it has none."""
        rows = self._rows(sight)
        return progress(sight, rows, lambda row: _is(sight, row, self._state)) if rows else NOTHING_TO_RUN

    def _ready(self, sight: Sight) -> Waited | None:
        rows = self._rows(sight)
        if all(is_ready(sight, row) or _has_ended_well(sight, row) for row in rows):
            if rows:
                return self._reached(rows) if all_decided(sight, self._target) else None
            return self._reached([], NOTHING_TO_RUN) if all_there(sight, self._target) else None
        over = self._lasting.first(sight, rows, lambda row: is_over(sight, row))
        if over is not None:
            raise nothing_more(over, f"dsmt status {self._target.service}")
        return None

    def _rows(self, sight: Sight) -> list[InstanceRow]:
        gone = self._state == Shown.GONE
        slots_of(sight.view, self._target, gone=gone)
        rows = instances(sight, self._target, everything=gone)
        if self._state == READY:
            return [row for row in rows if not row.rests] or rows
        return _last_copies(rows) if gone else rows

    def _reached(self, rows: list[InstanceRow], because: str = "") -> Waited:
        return Waited(target=str(self._target), wanted=self._state, reached=True, instances=rows, because=because)


def _has_ended_well(sight: Sight, row: InstanceRow) -> bool:
    """Whether it has ended with 0, is not run again, and was good (A20)."""
    slot = sight.view.slot(row.key)
    return row.held is None and row.state is Shown.DONE and stays_ended(slot)


def _gone_with(sight: Sight, service: str) -> str:
    """What is said of a service of which there are no slots. Raises `NotFoundError` for one that nobody has ever known."""
    entry = sight.view.services.get(service)
    if entry is not None and entry.spec is not None:
        return ""
    why = no_service(sight.view, service)
    if why.code == "service.unknown" and not was_removed(sight.view, service):
        raise why
    return why.message


def is_over(sight: Sight, row: InstanceRow) -> bool:
    """Whether it is not ready, and dsmt does nothing more about it (rules 3 and 4)."""
    return has_failed(row) or (row.rests and not _has_ended_well(sight, row))


def _last_copies(rows: Iterable[InstanceRow]) -> list[InstanceRow]:
    """Of each instance one row: a copy that is left, if one is; it is gone with its last one."""
    found: dict[str, InstanceRow] = {}
    for row in rows:
        if row.instance not in found or (found[row.instance].state is Shown.GONE and row.state is not Shown.GONE):
            found[row.instance] = row
    return list(found.values())


def _is(sight: Sight, row: InstanceRow, state: str) -> bool:
    if state == READY:
        return is_ready(sight, row)
    if state == UNREADY:
        return row.state is Shown.RUNNING and not is_ready(sight, row)
    return row.state == state
