"""Settling: what becomes of a revision that was applied, once that is known (`waiting`).

Rule 1: a revision goes no further while an instance in which it was tried is stopped by hand, and it is tried in no other of
    its component. Who waits for it is told so when that has stayed so for `PARKED_MS`: before, it may be started again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from math import inf

import msgspec

from dsmt.controllers.ended import stays_ended
from dsmt.controllers.rollout import standing
from dsmt.errors import FailedError, TimedOutError
from dsmt.event.envelope import EventId
from dsmt.event.kinds.service import SpecFact
from dsmt.event.phrases import quoted
from dsmt.event.reason import Reason
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.instance_row import InstanceRow
from dsmt.operations.read.rows.instances import instances, is_behind, is_ready, serves
from dsmt.operations.read.rows.revisions import by_component, refused, running
from dsmt.operations.read.waits.decided import all_there, unwanted
from dsmt.operations.read.waits.lasting import Lasting
from dsmt.operations.read.waits.waiting import is_over, progress, unheard_of, until
from dsmt.operations.words.targets import Target
from dsmt.operations.words.telling import Tell, silent
from dsmt.ports.bus import BusReader
from dsmt.view import Held, SlotKey


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one service.

    `outcome`: `applied`, `unchanged`; waited for: `ready`, `held`, `rolled_back`, `parked`, `failed`, `superseded`.
    Waited for, `running` are the revisions that run, `refused` the one that was rolled back, `reason` why it is not ready;
    `refused_by` are the components that went back, where others did not, and `parts` what each component runs then.
    """

    service: str
    revision: int
    epoch: int = 0
    """The one of the service in which the revision was said (A6); 0 where that is not known."""
    again: int | None = None
    """The earlier revision that a rollback has applied again."""
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


async def all_settled(
    bus: BusReader, applied: Iterable[Applied], *, limit_s: float | None, tell: Tell = silent
) -> tuple[list[Applied], FailedError | TimedOutError | None]:
    """What became of several services, for all of which together `limit_s` is.

    And why one did not, if that is so: the first that goes no further (rule 1), else the one that was late.
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

    Raises `TimedOutError`, and `FailedError` where it goes no further for what somebody has stopped (rule 1).
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
        self._epoch = applied.epoch or inf

    def seen(self, sight: Sight) -> Applied | None:
        """What became of it, when that is known. Raises `FailedError` where it goes no further (rule 1)."""
        applied, entry = self._applied, sight.view.services.get(self._applied.service)
        spec = None if entry is None else entry.spec
        if self._is_replaced(sight, spec):
            return msgspec.structs.replace(applied, outcome="superseded")
        if entry is None or spec is None or self._is_earlier(spec):
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
            rests = [row for row in instances(sight, self._target) if not wanted and is_over(sight, row)]
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
        if entry is None or entry.spec is None or self._is_earlier(entry.spec):
            return unheard_of(sight)
        ends = unwanted(sight, self._target)
        waits = [f"it waits until {row.instance} is started" for row in self._holding(sight)]
        so_far = progress(sight, self._waited_for(sight), lambda row: self._stands(sight, row) and is_ready(sight, row))
        return "; ".join([so_far, *ends[:1], *waits[:1]])

    def _is_earlier(self, spec: Held[SpecFact]) -> bool:
        """Whether it was said before what was applied, of which nothing is known here yet: of what was removed, perhaps."""
        epoch = spec.signed.event.epoch or 0
        return (epoch, spec.version) < (self._applied.epoch or epoch, self._applied.revision)

    def _is_replaced(self, sight: Sight, spec: Held[SpecFact] | None) -> bool:
        """Whether another spec than what was applied stands: a later one, or one of its number that overruled it (E2).

        Or its service was removed, perhaps made anew.
        """
        if spec is None or (spec.signed.event.epoch or 0) > self._epoch:
            return sight.view.epoch(f"service/{self._applied.service}/spec") > self._epoch
        if self._is_earlier(spec):
            return False
        if spec.version == self._applied.revision:
            self._spec = self._spec or spec.id
        return spec.version > self._applied.revision or (spec.version == self._applied.revision and spec.id != self._spec)

    def _waited_for(self, sight: Sight) -> list[InstanceRow]:
        """All but what is held, and what has ended by itself and stays so (A20)."""
        found = []
        for row in instances(sight, self._target):
            entry = sight.view.slot(row.key)
            is_over = stays_ended(entry) and self._stands(sight, row)
            if row.held is None and not is_over:
                found.append(row)
        return found

    def _holding(self, sight: Sight) -> list[InstanceRow]:
        """Those in which it was tried until they were stopped by hand, and that keep it from going further (rule 1)."""
        waited = self._waited_for(sight)
        tried = {row.component for row in waited if self._is_of_it(sight, row) and not _was_good(sight, row.key)}
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
        fact = sight.view.slot(row.key).fact
        return row.revision >= revision if fact is None else entry.says_again(fact.record.spec)


def _was_good(sight: Sight, key: SlotKey) -> bool:
    """Whether what stands was good in an instance."""
    component = standing(sight.fleet, key)
    return component is not None and component.is_good(sight.view.slot(key))


def _opposed(applied: Applied, row: InstanceRow) -> FailedError:
    """That a revision goes no further, for somebody has stopped the instance in which it was tried."""
    by = "" if row.held is None else f" by {row.held.by}{quoted(row.held.reason)}"
    what = f"{applied.service} r{applied.revision} is not ready, and goes no further"
    next_ = f"dsmt start {row.instance} lets it go on; dsmt rollback {applied.service} gives it up"
    return FailedError("wait.opposed", f"{what}: {row.instance}, in which it was tried, was stopped{by}", next=next_)
