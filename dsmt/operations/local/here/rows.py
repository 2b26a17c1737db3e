"""Rows: the rows of `ps` from what this machine knows of its own instances (`--local`).

Rule 1: the keys are those of a row of the realm; what nobody here can know is null.
Rule 2: what lives decides: a program that an agent has written down, and that lives no more, is not said to run. Of one
    without an agent nobody knows how well it is.
Rule 3: what an agent has written down is of realm time, and what is read here of this machine's clock, which may be another.
    So a program is said to be as it is since its start, where it would be since before that, or since later than now.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from dsmt.agents.rules.held_here import why_held
from dsmt.agents.rules.record import InstanceRecord
from dsmt.agents.rules.supervision import step_after, tries_of
from dsmt.event.hlc import rfc3339
from dsmt.event.reason import Reason
from dsmt.event.status import Layer, Shown, State
from dsmt.operations.local.here.here import Here
from dsmt.operations.read.rows.instance_row import HoldRow, InstanceRow, exit_of, hold_on
from dsmt.operations.words.times import time_or_null
from dsmt.view.shown import WORDS

_TOLD: Final = frozenset({Shown.STOPPED, Shown.BACKOFF, Shown.PARKED, Shown.FAILED, Shown.DONE})
_WELL: Final = frozenset({"ready", "none"})


def row_here(here: Here, read_ms: int) -> InstanceRow:
    """The row of an instance on this machine."""
    record, state = here.record, _state(here)
    runs, policy = here.program is not None, None if here.component is None else here.component.restart
    failures = 0 if record is None else record.history.failures
    next_try = record.next_try_ms if record is not None and state in (Shown.BACKOFF, Shown.PARKED) else None
    return InstanceRow(
        instance=str(here.key),
        service=here.key.service,
        component=here.key.component,
        index=here.key.index,
        node=here.node,
        state=state,
        health=_health(here, state),
        pid=None if here.program is None else here.program.pid,
        ports=record.ports if record is not None and runs else {},
        address=here.address if runs else None,
        restarts=0 if record is None else record.restarts,
        restarts_recent=0,
        failures=failures,
        tries=None if policy is None else tries_of(policy),
        last_exit=exit_of(None if record is None else record.last_exit),
        next_try_at=time_or_null(next_try),
        next_step=None if policy is None or not failures else step_after(policy, failures),
        held=_held(here),
        since=None if record is None or not record.since_ms else rfc3339(_since_ms(here, record.since_ms, read_ms)),
        generation=here.generation,
        revision=0 if here.slot is None else here.slot.revision,
        reason=_reason(here, state),
        working=None,
        startup=None,
        layers=_layers(here),
        observed_at=rfc3339(read_ms),
        stale=not here.agents,
        agentless=not here.agents,
    )


def _since_ms(here: Here, told_ms: int, read_ms: int) -> int:
    """Since when it is as it is (rule 3)."""
    began_ms = read_ms - here.ran_ms
    return told_ms if here.program is None or began_ms <= told_ms <= read_ms else began_ms


def is_problem_here(row: InstanceRow) -> bool:
    """Whether an instance is not as it should be, as far as this machine knows."""
    if row.state is Shown.DONE:
        return False
    return row.held is not None or row.agentless or row.state is not Shown.RUNNING or row.health not in _WELL


def service_here(name: str, rows: list[InstanceRow], keys: tuple[str, ...]) -> dict[str, Any]:
    """A service by what is here of it, with the `keys` that it has where the realm is asked."""
    held = sum(row.held is not None for row in rows)
    ready = sum(not is_problem_here(row) and row.state is Shown.RUNNING for row in rows)
    running = sorted({row.revision for row in rows if row.pid is not None}, reverse=True)
    worst = next((row.reason for row in rows if row.held is None and row.reason is not None), None)
    known = {"service": name, "ready": ready, "held": held, "running": running, "reason": worst}
    return {**dict.fromkeys(keys), **known}


def _state(here: Here) -> Shown:
    record = here.record
    if record is None:
        return Shown.WAITING
    if here.program is not None:
        if record.process is None or record.asked:
            return Shown.STOPPING
        return Shown.RUNNING if record.started else Shown.STARTING
    if record.process is not None or record.state in (State.RUNNING, State.INSTANTIATED, State.TERMINATED):
        return Shown.LOST
    return _ended(record) if record.state is State.FAILED else _word(record.state)


def _word(state: State | None) -> Shown:
    return Shown.WAITING if state is None else WORDS[Layer.APPLICATION].get(state, Shown.WAITING)


def _ended(record: InstanceRecord) -> Shown:
    if record.parked:
        return Shown.PARKED
    if record.next_try_ms is not None:
        return Shown.BACKOFF
    return Shown.DONE if record.ended_well else Shown.FAILED


def _health(here: Here, state: Shown) -> str:
    component, record = here.component, here.record
    if state is not Shown.RUNNING or record is None:
        return "none"
    if not here.agents:
        return "unknown"
    if component is not None and component.health is None:
        return "none"
    return "ready" if record.ready else "unready"


def _held(here: Here) -> HoldRow | None:
    if here.held is not None:
        return hold_on(here.node, here.held)
    slot = here.slot
    if slot is None or not slot.held or slot.reason is None:
        return None
    return HoldRow(by="an operator", at=None, reason=slot.reason.message)


def _reason(here: Here, state: Shown) -> Reason | None:
    if here.held is not None:
        why = why_held(here.held, target=str(here.key), node=here.node)
        return msgspec.structs.replace(why, next=f"dsmt start {here.key} --local")
    if here.slot is not None and here.slot.desired != "running":
        return here.slot.reason
    return here.record.reason if here.record is not None and state in _TOLD else None


def _layers(here: Here) -> dict[str, str | None]:
    application = None if here.record is None or here.record.state is None else here.record.state.value
    agent = State.RUNNING.value if here.agents else None
    return {"container": State.INSTALLED.value, "agent": agent, "application": application}
