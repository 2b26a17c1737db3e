"""Why an instance is not as it should be: of all that is known of it, the one reason that its row has."""

from __future__ import annotations

from typing import Final

import msgspec

from dsmt.controllers.pending import waits_for_brake, waits_for_home, waits_for_place
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.instance import STARTED, Health
from dsmt.event.phrases import in_retrospect
from dsmt.event.reason import Reason, reason
from dsmt.event.status import Shown
from dsmt.operations.read.rows.hearing import agent_failed, hanging, never_heard, unheard, without_agent
from dsmt.operations.read.rows.seen_instance import SeenInstance
from dsmt.operations.words.times import span
from dsmt.view.liveness import RETURN_MS

_FAILURES: Final = ("fetch.", "install.", "start.", "run.", "health.")
"""The reasons of ends that were not asked for."""
STUCK: Final = "stop.stuck"
"""Whatever it was asked for, it is killed and does not die."""
_INSTALLING: Final = ("fetch.", "install.")
_THERE: Final = frozenset({Shown.RUNNING, Shown.STOPPING})
RETURNED_MS: Final = 10_000
"""By then who lives has attached to a store that began blank, and has said again what it holds."""


def reason_of(one: SeenInstance) -> Reason | None:
    """Why it is not as it should be; null when all is well."""
    waits = _waits(one)
    if waits is not None:
        return waits
    told, own = _decided(one), None if one.status is None else one.status.record.reason
    match one.state:
        case Shown.LOST:
            return _lost(one)
        case Shown.WAITING | Shown.STOPPED | Shown.GONE:
            return told or own
        case Shown.STOPPING:
            return (own if own is not None and own.code == STUCK else told) or own or unheard(one)
        case Shown.RUNNING:
            return unheard(one) or _not_ready(one)
        case Shown.INSTALLING | Shown.STARTING:
            failed = _failed_before(one) or agent_failed(one)
            own = own or (None if startup_of(one) is None else _said_of_health(one))
            return own or failed or unheard(one) or never_heard(one)
    return own if own is None else _failed(one, own)


def _waits(one: SeenInstance) -> Reason | None:
    """What keeps its slot waiting, whatever is said of it: its home, the brake, or that its node is not known yet."""
    governing, fact = one.sight.governing, one.entry.fact
    as_asked = one.state is Shown.STOPPED and fact is not None and fact.record.desired == "stopped"
    there = one.spec is None or one.state in _THERE or as_asked
    pinned = None if there else waits_for_home(governing, one.key)
    braked = None if one.node is None else waits_for_brake(governing, one.sight.brake, one.key, one.node)
    return pinned or braked or _waits_for_node(one)


def _waits_for_node(one: SeenInstance) -> Reason | None:
    """That nothing is known of the node where it is to run, though all that live had the time to come back to this store."""
    sight, node = one.sight, one.node
    until_ms = None if node is None or one.state is not Shown.WAITING else sight.fleet.return_until_ms(node)
    if until_ms is None or sight.now_ms < until_ms - RETURN_MS + RETURNED_MS:
        return None
    return reason("wait.node", node=node, until=rfc3339(until_ms))


def _failed(one: SeenInstance, why: Reason) -> Reason:
    """Why it has failed; with that its agent cannot be begun, or which revision goes on running beside it."""
    if one.is_agentless:
        return without_agent(why, one.last_pid)
    slot = one.entry.record
    if slot is None or slot.former is None or slot.former.revision == slot.revision:
        return why
    if not why.code.startswith(_INSTALLING) or not one.serves_on:
        return why
    said = f"r{slot.former.revision} goes on running; r{slot.revision} cannot be installed: {why.message}"
    return msgspec.structs.replace(why, message=said)


def _decided(one: SeenInstance) -> Reason | None:
    """The reason in its slot's fact; None once it runs there as that fact wants: what comes later has other reasons."""
    fact = one.entry.fact
    if fact is None:
        return None
    done = one.status is not None and one.status.record.generation >= fact.version
    return None if done and fact.record.desired == "running" else fact.record.reason


def _lost(one: SeenInstance) -> Reason:
    """The reason of an instance whose node is dead, or whose reports have stopped for too long."""
    sight, node, since = one.sight, one.node, 0 if one.since_ms is None else one.since_ms
    verdict = None if node is None else sight.fleet.verdict(node)
    if node is None or verdict is None:
        rate = "" if one.status is None else f"{one.status.record.emit_rate_s:g} s"
        return hanging(one, reason("node.stale", age=span(sight.now_ms - since), rate=rate, node=node))
    lost = reason("node.lost", node=node, time=rfc3339(since), evidence=in_retrospect(verdict.record.message))
    if one.spec is None or not one.spec.each_node:
        waits = waits_for_place(sight.governing, one.key, node)
        if waits is None:
            return lost
        return msgspec.structs.replace(waits, code=lost.code, message=f"{lost.message}; {waits.message}")
    # nothing replaces it: it comes back with its node, or goes with it
    return msgspec.structs.replace(lost, next=f"bring {node} back, or dsmt node remove {node} --forget", who="you")


def _not_ready(one: SeenInstance) -> Reason | None:
    """Why it is not ready; or, where it is, why that cannot be checked any more."""
    checked = _checked(one)
    if checked is None or checked.health != "unready":
        return _said_of_health(one)
    return checked.reason or _failed_before(one)


def _checked(one: SeenInstance) -> Health | None:
    return None if one.instance is None or one.instance.health is None else one.instance.health.record


def _said_of_health(one: SeenInstance) -> Reason | None:
    checked = _checked(one)
    return None if checked is None else checked.reason


def _failed_before(one: SeenInstance) -> Reason | None:
    """Why the try before this one failed, here or on the node that an instance was moved from for that, and nothing else."""
    said, told = one.application, one.entry.record
    tried = [] if said is None or said.record.attempt <= 1 else [said.record]
    if not tried and told is not None and told.moves and told.reason is None:
        others = [each.application for name, each in one.entry.instances.items() if name != one.node and each.application]
        tried = [held.record for held in sorted(others, key=lambda held: held.time_ms)[-1:]]
    why = tried[0].last_exit.reason if tried and tried[0].last_exit is not None else None
    return why if why is not None and why.code.startswith(_FAILURES) else None


def startup_of(one: SeenInstance) -> str | None:
    """What its start-up check found last, while it starts; None where nothing is known, or it has passed."""
    said = _checked(one)
    if said is None or one.status is None or one.state is not Shown.STARTING or said.evidence == STARTED:
        return None
    of_this_start = said.generation == one.status.record.generation and said.since_ms >= (one.since_ms or 0)
    return said.evidence if of_this_start else None
