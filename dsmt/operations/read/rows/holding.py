"""Holding: what is left on a node that is to be free, and why each of it is still there."""

from __future__ import annotations

from typing import Final

import msgspec

from dsmt.controllers.left_data import data_of
from dsmt.controllers.pending import waits_for
from dsmt.controllers.placement import Chooser
from dsmt.event.kinds.slot import Slot
from dsmt.event.reason import Reason
from dsmt.event.status import Shown, State
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.hearing import unheard
from dsmt.operations.read.rows.instance_reason import STUCK
from dsmt.operations.read.rows.seen_instance import SeenInstance
from dsmt.operations.words.times import local
from dsmt.view import SlotEntry, SlotKey

LINGERS_MS: Final = 60_000
"""How long what is to end may be there, without a word that it is being ended, before that is told."""


class Undrained(msgspec.Struct, frozen=True, kw_only=True):
    """One instance on a node that is drained. `stays`: no drain moves it, for its data is there."""

    instance: str
    stays: bool
    because: str


def left_on(sight: Sight, node: str) -> list[Undrained]:
    """Everything that is left on a node, by instance."""
    found = []
    for key, entry in sight.view.slots:
        given = entry.wanted_on == node
        if not given and node not in entry.holders:
            continue
        stays = given and _stays(sight, key)
        because = _because(sight, key, entry, node, stays=stays)
        found.append(Undrained(instance=str(key), stays=stays, because=because))
    return found


def data_on(sight: Sight, node: str) -> list[str]:
    """The instances whose data is on a node: also of those that have ended, and of services that were removed (A17)."""
    topics = (signed.event.topic.split("/") for signed in sight.view.winners())
    buried = (levels[2] for levels in topics if levels[:2] == ["tombstone", "service"])
    homes = ((name, data_of(sight.fleet, name)) for name in sorted({*sight.view.services, *buried}))
    return [str(SlotKey(name, *at)) for name, known in homes for at, home in sorted(known.items()) if home.node == node]


def lingering(sight: Sight) -> dict[str, list[SlotKey]]:
    """What is to end, by the node that lives, says to have it, and has not said for long that it ends it."""
    found: dict[str, list[SlotKey]] = {}
    for key, slot in sight.view.slots:
        fact = slot.fact
        if fact is None or fact.record.desired != "gone" or sight.now_ms - fact.time_ms < LINGERS_MS:
            continue
        for node in (one for one in slot.holders if sight.fleet.state(one) == "alive"):
            said = slot.application(node)
            if said is None or said.record.state is not State.TERMINATED:
                found.setdefault(node, []).append(key)
    return found


def is_to_leave(sight: Sight, node: str) -> bool:
    """Whether anything of a node that is dead is placed elsewhere yet: no data, no hold, and not one of each node."""
    for service, entry in sight.view.services.items():
        for (component, index), slot in entry.slots.items():
            fact = None if slot.fact is None else slot.fact.record
            if fact is None or fact.node != node or fact.desired != "running":
                continue
            key = SlotKey(service, component, index)
            spec = sight.spec_of(key)
            if spec is None or not (spec.each_node or _stays(sight, key)):
                return True
    return False


def _stays(sight: Sight, key: SlotKey) -> bool:
    spec = sight.spec_of(key)
    return spec is not None and not spec.each_node and sight.home_of(key) is not None


def _because(sight: Sight, key: SlotKey, entry: SlotEntry, node: str, *, stays: bool) -> str:
    if stays:
        return f"its data is there; dsmt move {key} --accept-data-loss moves it without its data"
    slot = None if entry.fact is None else entry.fact.record
    if slot is None:
        return "no controller has decided yet what becomes of it"
    if (stays_on := _does_not_end(sight, key, entry, node)) is not None:
        return f"{_elsewhere(sight, key, slot)} now; what is left here does not end: {stays_on.message}; {stays_on.next}"
    if slot.previous is not None and slot.previous.node == node:
        now = SeenInstance(sight, key, slot.node)
        until = local(slot.previous.deadline_ms)
        return (
            f"its copy stays until the one on {slot.node} is ready, which is {now.state}; it ends at {until} at the latest"
        )
    if slot.wanted_on == node:
        return _not_moved(sight, key, slot)
    instance = entry.instances[node]
    state = next((held.record.state.value for held in instance.statuses[::-1] if held.record.state != "gone"), "unknown")
    ends = f"is being ended, and is {state}"
    if sight.fleet.state(node) != "alive":
        ends = f"was {state} when that was said last, and ends when {node} is back"
    return f"{_elsewhere(sight, key, slot)} now; what is left here {ends}"


def _does_not_end(sight: Sight, key: SlotKey, entry: SlotEntry, node: str) -> Reason | None:
    """Why what a node has of a slot does not end: it was killed and lives, or it is to leave and its agent is not heard."""
    said = entry.application(node)
    if said is None or said.record.state is State.GONE:
        return None
    why = said.record.reason
    if why is not None and why.code == STUCK:
        return why
    leaves = entry.wanted_on != node
    return unheard(SeenInstance(sight, key, node)) if leaves and sight.fleet.state(node) == "alive" else None


def _elsewhere(sight: Sight, key: SlotKey, slot: Slot) -> str:
    """How a slot is on the node to which it went, if it is wanted anywhere."""
    if slot.wanted_on is None:
        return "it is wanted nowhere" if slot.desired == "gone" else "it has no node"
    state = SeenInstance(sight, key, slot.wanted_on).state
    return f"it {'runs' if state is Shown.RUNNING else f'is {state.value}'} on {slot.wanted_on}"


def _not_moved(sight: Sight, key: SlotKey, slot: Slot) -> str:
    """Why a slot is still on its node."""
    spec = sight.spec_of(key)
    if spec is None:
        return "its service is being removed"
    if slot.held:
        return f"it is stopped here; dsmt start {key}, or dsmt move {key}"
    waits = waits_for(sight.governing, key) if slot.desired == "stopped" else None
    if waits is not None:
        return f"it stops before it begins elsewhere: {waits.message}"
    if spec.each_node:
        return "one runs on each node; it ends in its turn"
    chooser = Chooser(sight.fleet, key.service, spec)
    if next(chooser.fitting(), None) is None:
        return f"there is no other place: {chooser.reason(key).message}; dsmt why-not {key}"
    return "its turn has not come: update.max_parallel at a time, each after those before are ready"
