"""Why an instance is not as it should be: of all that is known of it, the one reason that its row has."""

from __future__ import annotations

from typing import Final

import msgspec

from dsmt.controllers.pending import waits_for_brake, waits_for_home, waits_for_place
from dsmt.event.kinds.instance import STARTED
from dsmt.event.phrases import in_retrospect
from dsmt.event.reason import Reason, reason
from dsmt.event.status import Shown
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.hearing import (
    agent_failed,
    is_agentless,
    last_pid,
    never_heard,
    unheard,
    without_agent,
)
from dsmt.operations.words.times import rfc3339, span
from dsmt.spec.records import ComponentSpec
from dsmt.view import Instance, SlotEntry, SlotKey
from dsmt.view.liveness import RETURN_MS
from dsmt.view.served import served
from dsmt.view.shown import FAILED, Seen

_FAILURES: Final = ("fetch.", "install.", "start.", "run.", "health.")
"""The reasons of ends that were not asked for."""
_INSTALLING: Final = ("fetch.", "install.")
_THERE: Final = frozenset({Shown.RUNNING, Shown.STOPPING})
RETURNED_MS: Final = 10_000
"""By then who lives has attached to a store that began blank, and has said again what it holds."""


def reason_of(sight: Sight, key: SlotKey, entry: SlotEntry, node: str | None, seen: Seen) -> Reason | None:
    """Why it is not as it should be; null when all is well."""
    told = _decided(entry, seen)
    spec = sight.spec_of(key)
    as_asked = seen.state is Shown.STOPPED and entry.fact is not None and entry.fact.record.desired == "stopped"
    there = spec is None or seen.state in _THERE or as_asked
    pinned = None if there else waits_for_home(sight.governing, key)
    braked = None if node is None else waits_for_brake(sight.governing, sight.brake, key, node)
    waits = pinned or braked or _waits_for_node(sight, node, seen)
    if waits is not None:
        return waits
    instance = None if node is None else entry.instances.get(node)
    own = None if seen.status is None else seen.status.record.reason
    match seen.state:
        case Shown.LOST:
            return _lost(sight, key, spec, node, seen)
        case Shown.WAITING | Shown.STOPPED | Shown.GONE:
            return told or own
        case Shown.STOPPING:
            return told or own or unheard(sight, instance)
        case Shown.RUNNING:
            return unheard(sight, instance) or _not_ready(entry, node)
        case Shown.INSTALLING | Shown.STARTING:
            failed = _failed_before(entry, node) or agent_failed(entry, node)
            own = own or (None if startup_of(instance, seen) is None else _said_of_health(instance))
            return own or failed or unheard(sight, instance) or never_heard(sight, instance, seen)
    return own if own is None else _failed(sight, entry, node, seen, own)


def _waits_for_node(sight: Sight, node: str | None, seen: Seen) -> Reason | None:
    """That nothing is known of the node where it is to run, though all that live had the time to come back to this store."""
    until_ms = None if node is None or seen.state is not Shown.WAITING else sight.fleet.return_until_ms(node)
    if until_ms is None or sight.now_ms < until_ms - RETURN_MS + RETURNED_MS:
        return None
    return reason("wait.node", node=node, until=rfc3339(until_ms))


def _failed(sight: Sight, entry: SlotEntry, node: str | None, seen: Seen, why: Reason) -> Reason:
    """Why it has failed; with that its agent cannot be begun, or which revision goes on running beside it."""
    if is_agentless(seen):
        return without_agent(why, last_pid(entry, node))
    slot = None if entry.fact is None else entry.fact.record
    if slot is None or slot.former is None or slot.former.revision == slot.revision:
        return why
    if not why.code.startswith(_INSTALLING) or not serves_on(sight, entry, node, seen):
        return why
    said = f"r{slot.former.revision} goes on running; r{slot.revision} cannot be installed: {why.message}"
    return msgspec.structs.replace(why, message=said)


def _decided(entry: SlotEntry, seen: Seen) -> Reason | None:
    """The reason in its slot's fact; None once it runs there as that fact wants: what comes later has other reasons."""
    fact = entry.fact
    if fact is None:
        return None
    done = seen.status is not None and seen.status.record.generation >= fact.version
    return None if done and fact.record.desired == "running" else fact.record.reason


def _lost(sight: Sight, key: SlotKey, spec: ComponentSpec | None, node: str | None, seen: Seen) -> Reason:
    """The reason of an instance whose node is dead, or whose reports have stopped for too long."""
    verdict = None if node is None else sight.fleet.verdict(node)
    since = 0 if seen.since_ms is None else seen.since_ms
    if node is None or verdict is None:
        rate = "" if seen.status is None else f"{seen.status.record.emit_rate_s:g} s"
        return reason("node.stale", age=span(sight.now_ms - since), rate=rate, node=node)
    lost = reason("node.lost", node=node, time=rfc3339(since), evidence=in_retrospect(verdict.record.message))
    if spec is None or not spec.each_node:
        waits = waits_for_place(sight.governing, key, node)
        if waits is None:
            return lost
        return msgspec.structs.replace(waits, code=lost.code, message=f"{lost.message}; {waits.message}")
    # nothing replaces it: it comes back with its node, or goes with it
    return msgspec.structs.replace(lost, next=f"bring {node} back, or dsmt node remove {node} --forget", who="you")


def _not_ready(entry: SlotEntry, node: str | None) -> Reason | None:
    """Why it is not ready; or, where it is, why that cannot be checked any more."""
    instance = None if node is None else entry.instances.get(node)
    checked = None if instance is None or instance.health is None else instance.health.record
    if checked is None or checked.health != "unready":
        return _said_of_health(instance)
    return checked.reason or _failed_before(entry, node)


def _said_of_health(instance: Instance | None) -> Reason | None:
    return None if instance is None or instance.health is None else instance.health.record.reason


def _failed_before(entry: SlotEntry, node: str | None) -> Reason | None:
    """Why the try before this one failed, here or on the node that an instance was moved from for that, and nothing else."""
    said = entry.application(node)
    tried = [] if said is None or said.record.attempt <= 1 else [said.record]
    if not tried and entry.fact is not None and entry.fact.record.moves and entry.fact.record.reason is None:
        others = [one.application for name, one in entry.instances.items() if name != node and one.application is not None]
        tried = [held.record for held in sorted(others, key=lambda held: held.time_ms)[-1:]]
    why = tried[0].last_exit.reason if tried and tried[0].last_exit is not None else None
    return why if why is not None and why.code.startswith(_FAILURES) else None


def serves_on(sight: Sight, entry: SlotEntry, node: str | None, seen: Seen) -> bool:
    """Whether a copy is served there beside which a try has failed."""
    if seen.state not in FAILED or is_agentless(seen):
        return False
    found = served(sight.fleet, entry)
    return found is not None and found.node == node


def startup_of(instance: Instance | None, seen: Seen) -> str | None:
    """What its start-up check found last, while it starts; None where nothing is known, or it has passed."""
    said = None if instance is None or instance.health is None else instance.health.record
    if said is None or seen.status is None or seen.state is not Shown.STARTING or said.evidence == STARTED:
        return None
    of_this_start = said.generation == seen.status.record.generation and said.since_ms >= (seen.since_ms or 0)
    return said.evidence if of_this_start else None
