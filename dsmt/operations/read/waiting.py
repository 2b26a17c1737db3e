"""Waiting: watch the view until instances are as wanted. A wait that ends changes nothing: what was asked for goes on.

Rule 1: a wait that ends too soon says what is not so, after how long, and how far it is.
    It looks once however short it is: what nobody has looked at is not said to be so, or not.
Rule 2: who waits is told how far it is, each time that this changes.
Rule 3: what is parked, or has failed and is not run again, is told as the outcome when it has stayed so for `PARKED_MS`:
    before that a controller may roll it back, or move it. Nobody waits longer for what dsmt does nothing more about.
Rule 4: what is held by hand, or has ended well and is not run again, is not waited for to be ready, by whoever waits. Where
    nothing else is, all is ready, if nothing is to run or what was has ended well and was good. If not, that is the outcome
    when it has stayed so for `PARKED_MS`: what is held, or has failed, is not called ready.
Rule 5: a revision goes no further while an instance in which it was tried is stopped by hand, and it is tried in no other of
    its component. Who waits for it is told so when that has stayed so for `PARKED_MS`: before, it may be started again.
Rule 6: what a broker does not know yet, to which who waits went meanwhile, is waited for; what has been removed since it was
    seen is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing
from math import inf
from typing import Final, TypeVar

import msgspec

from dsmt.controllers.ended import stays_ended
from dsmt.errors import FailedError, InputError, TimedOutError, TransportError
from dsmt.event.envelope import EventId
from dsmt.event.kinds.service import SpecFact
from dsmt.event.phrases import quoted
from dsmt.event.reason import Reason
from dsmt.event.status import Shown
from dsmt.operations.read.controller_rows import is_undecided
from dsmt.operations.read.decided import all_decided, all_there, unwanted
from dsmt.operations.read.instance_row import InstanceRow
from dsmt.operations.read.instances import instances, is_behind, is_problem, is_ready, serves
from dsmt.operations.read.lasting import Lasting, has_failed, nothing_more
from dsmt.operations.read.revisions import by_component, refused, running
from dsmt.operations.read.sight import Sight, watch
from dsmt.operations.words.targets import Target, no_service, slots_of, was_removed
from dsmt.operations.words.telling import Tell, silent
from dsmt.ports.bus import BusReader
from dsmt.view import Held

Result = TypeVar("Result")
READY: Final = "ready"
UNREADY: Final = "unready"
NOTHING_TO_RUN: Final = "nothing of it is to run"
FIRST_LOOK_S: Final = 5.0
"""How long the first look may take, where a wait is shorter than it (rule 1)."""
STATES: Final = (READY, UNREADY, *(state.value for state in Shown))


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one service.

    `outcome`: `applied`, `unchanged`; waited for: `ready`, `held`, `rolled_back`, `parked`, `failed`, `superseded`.
    Waited for, `running` are the revisions that run, `refused` the one that was rolled back, `reason` why it is not ready;
    `refused_by` are the components that went back, where others did not, and `parts` what each component runs then.
    """

    service: str
    revision: int
    plan: str | None
    outcome: str
    ready: int
    wanted: int
    running: list[int] = []
    refused: int | None = None
    refused_by: list[str] = []
    parts: dict[str, list[int]] = {}
    reason: Reason | None = None
    warnings: list[str] = []

    @property
    def failed(self) -> bool:
        """Whether what was asked for did not become so."""
        return self.outcome in ("rolled_back", "parked", "failed", "superseded")


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


def unheard_of(sight: Sight) -> str:
    """How far what is waited for is at a broker that does not know it yet (rule 6)."""
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
        over = self._lasting.first(sight, rows, lambda row: _is_over(sight, row))
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
    return row.held is None and row.state is Shown.DONE and slot is not None and stays_ended(slot)


def _gone_with(sight: Sight, service: str) -> str:
    """What is said of a service of which there are no slots. Raises `NotFoundError` for one that nobody has ever known."""
    entry = sight.view.services.get(service)
    if entry is not None and entry.spec is not None:
        return ""
    why = no_service(sight.view, service)
    if why.code == "service.unknown" and not was_removed(sight.view, service):
        raise why
    return why.message


def _is_over(sight: Sight, row: InstanceRow) -> bool:
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


async def all_settled(
    bus: BusReader, applied: Iterable[Applied], *, limit_s: float | None, tell: Tell = silent
) -> tuple[list[Applied], FailedError | TimedOutError | None]:
    """What became of several services, for all of which together `limit_s` is.

    And why one did not, if that is so: the first that goes no further (rule 5), else the one that was late.
    """
    began, found, stuck = asyncio.get_running_loop().time(), list[Applied](), list[FailedError]()
    for one in applied:
        try:
            found.append(await settled(bus, one, limit_s=limit_s, tell=tell, began=began))
        except FailedError as opposed:
            stuck.append(opposed)
        except TimedOutError as late:
            return found, stuck[0] if stuck else late
    return found, stuck[0] if stuck else None


async def settled(
    bus: BusReader,
    applied: Applied,
    *,
    limit_s: float | None,
    tell: Tell = silent,
    counted: bool = False,
    began: float | None = None,
) -> Applied:
    """Wait until a revision is ready everywhere, was rolled back, is parked, or another one stands.

    Raises `TimedOutError`, and `FailedError` where it goes no further for what somebody has stopped (rule 5).
    `counted`: it was asked only for how many instances there are; where what stands was refused, what runs is counted (A18).
    """
    waited = _Settling(applied, counted=counted)
    unmet, look = f"{applied.service} r{applied.revision} is not ready", f"dsmt status {applied.service}"
    return await until(bus, waited.seen, limit_s=limit_s, unmet=unmet, look=look, far=waited.far, tell=tell, began=began)


class _Settling:
    """What a revision is waited for to become; `counted` as `settled` has it."""

    def __init__(self, applied: Applied, *, counted: bool) -> None:
        self._applied, self._counted = applied, counted
        self._target, self._lasting, self._stopped = Target(applied.service), Lasting(), Lasting()
        self._spec: EventId | None = None
        self._epoch = inf

    def seen(self, sight: Sight) -> Applied | None:
        """What became of it, when that is known. Raises `FailedError` where it goes no further (rule 5)."""
        applied, entry = self._applied, sight.view.services.get(self._applied.service)
        spec = None if entry is None else entry.spec
        if self._is_replaced(sight, spec):
            return msgspec.structs.replace(applied, outcome="superseded")
        if entry is None or spec is None or spec.version < applied.revision:
            return None
        self._epoch = spec.signed.event.epoch or 0
        free = self._waited_for(sight)
        current = [row for row in free if self._stands(sight, row)]
        ready, wanted = sum(is_ready(sight, row) for row in current), len(free)
        told = msgspec.structs.replace(applied, ready=ready, wanted=wanted, running=running(entry))
        denied = refused(entry)
        if denied is not None:
            parts = by_component(entry) if denied.by else {}
            told = msgspec.structs.replace(told, refused=denied.revision, refused_by=denied.by, parts=parts)
        if denied is not None and not self._counted:
            back = sum(serves(sight, row) for row in free)
            return msgspec.structs.replace(told, outcome="rolled_back", ready=back, reason=denied.reason)
        if len(current) == wanted and ready == wanted and all_there(sight, self._target):
            rests = [row for row in instances(sight, self._target) if not wanted and _is_over(sight, row)]
            if not rests:
                return msgspec.structs.replace(told, outcome="ready")
            if rests[0].held is not None:
                return msgspec.structs.replace(told, outcome="held")
            return msgspec.structs.replace(told, outcome=rests[0].state.value, reason=rests[0].reason)
        over = self._lasting.first(sight, current)
        if over is not None:
            return msgspec.structs.replace(told, outcome=over.state.value, reason=over.reason)
        stopped = self._stopped.first(sight, self._holding(sight), lambda _: True)
        if stopped is not None:
            raise _opposed(applied, stopped)
        return None

    def far(self, sight: Sight) -> str:
        """How far it is."""
        entry = sight.view.services.get(self._applied.service)
        if entry is None or entry.spec is None or entry.spec.version < self._applied.revision:
            return unheard_of(sight)
        ends = [f"{instance} is to end" for instance in unwanted(sight, self._target)]
        waits = [f"it waits until {row.instance} is started" for row in self._holding(sight)]
        so_far = progress(sight, self._waited_for(sight), lambda row: self._stands(sight, row) and is_ready(sight, row))
        return "; ".join([so_far, *ends[:1], *waits[:1]])

    def _is_replaced(self, sight: Sight, spec: Held[SpecFact] | None) -> bool:
        """Whether another spec than what was applied stands: a later one, or one of its number that overruled it (E2).

        Or its service was removed, perhaps made anew.
        """
        if spec is None or (spec.signed.event.epoch or 0) > self._epoch:
            return sight.view.epoch(f"service/{self._applied.service}/spec") > self._epoch
        if spec.version == self._applied.revision:
            self._spec = self._spec or spec.id
        return spec.version > self._applied.revision or (spec.version == self._applied.revision and spec.id != self._spec)

    def _waited_for(self, sight: Sight) -> list[InstanceRow]:
        """All but what is held, and what has ended by itself and stays so (A20)."""
        found = []
        for row in instances(sight, self._target):
            entry = sight.view.slot(row.key)
            is_over = entry is not None and stays_ended(entry) and self._stands(sight, row)
            if row.held is None and not is_over:
                found.append(row)
        return found

    def _holding(self, sight: Sight) -> list[InstanceRow]:
        """Those in which it was tried until they were stopped by hand, and that keep it from going further (rule 5)."""
        tried = {row.component for row in self._waited_for(sight) if self._is_of_it(sight, row)}
        rows = (row for row in instances(sight, self._target) if row.component not in tried)
        return [row for row in rows if row.held is not None and row.held.stands is not None]

    def _stands(self, sight: Sight, row: InstanceRow) -> bool:
        """Whether it is of this revision, and its agent has begun with that."""
        return self._is_of_it(sight, row) and not is_behind(sight, row)

    def _is_of_it(self, sight: Sight, row: InstanceRow) -> bool:
        """Whether it is of this revision, of one that says the same but for their number, or is all that is to run."""
        entry, revision = sight.view.services[self._applied.service], self._applied.revision
        if self._counted and refused(entry) is not None:
            return True
        slot = sight.view.slot(row.key)
        fact = None if slot is None else slot.fact
        return row.revision >= revision if fact is None else entry.says_again(fact.record.spec)


def _opposed(applied: Applied, row: InstanceRow) -> FailedError:
    """That a revision goes no further, for somebody has stopped the instance in which it was tried."""
    by = "" if row.held is None else f" by {row.held.by}{quoted(row.held.reason)}"
    what = f"{applied.service} r{applied.revision} is not ready, and goes no further"
    next_ = f"dsmt start {row.instance} lets it go on; dsmt rollback {applied.service} gives it up"
    return FailedError("wait.opposed", f"{what}: {row.instance}, in which it was tried, was stopped{by}", next=next_)
