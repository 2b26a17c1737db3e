"""Explaining: `why`: the chain of signed events that led here, back to where nothing earlier is named.

Rule 1: it begins at the event that decides what is shown of the target: its health, status, slot, or verdict.
Rule 2: each event's own `cause` is followed through the history; what the history does not hold makes it incomplete.
Rule 3: where the deciding event names no cause, the facts that it stands on (the slot's) are explained beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from dsmt.errors import NotFoundError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.status import Shown
from dsmt.operations.read.instances import health, instances, is_problem, see
from dsmt.operations.read.members import find, revoked
from dsmt.operations.read.sight import Sight, look, patience
from dsmt.operations.words.event_objects import event_object
from dsmt.operations.words.sentences import sentence
from dsmt.operations.words.targets import Target, slots_of
from dsmt.ports.bus import Bus
from dsmt.trust.store import TrustStore
from dsmt.view import SlotKey

DEPTH: Final = 16
MAX_EVENTS: Final = 500


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One event of the chain: as JSON, in one sentence, and the ids of those that it names as its causes."""

    event: dict[str, Any]
    says: str
    because: list[str]


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """Why a target is as it is; newest first. `missing` are ids that the history does not hold."""

    target: str
    complete: bool
    chain: list[Link]
    missing: list[str]


@dataclass(frozen=True, slots=True)
class Chain:
    """An explanation, and the signed events behind it, newest first."""

    explained: Explained
    events: tuple[SignedEvent, ...]


async def why(bus: Bus, trust: TrustStore, target: str, *, depth: int = DEPTH) -> Chain:
    """Explain a target: `service[/component[/index]]`, `node/NODE` or an event id.

    Raises `NotFoundError`, `InputError`.
    """
    if "#" in target:
        begin = await _fetch(bus, [EventId.parse(target)])
        if not begin:
            raise NotFoundError("event.unknown", f"the history does not hold {target}", next="dsmt tail --since 1h")
    else:
        begin = roots(await look(bus), target)
    found, missing = await _collect(bus, begin, depth)
    newest = sorted(found.values(), key=lambda signed: (signed.event.time, signed.event.sequence), reverse=True)
    chain = [
        Link(
            event=event_object(signed, trust),
            says=sentence(signed.event),
            because=[str(cause) for cause in signed.event.cause],
        )
        for signed in newest
    ]
    explained = Explained(target=target, complete=not missing, chain=chain, missing=sorted(map(str, missing)))
    return Chain(explained, tuple(newest))


async def _fetch(bus: Bus, ids: list[EventId]) -> list[SignedEvent]:
    async with patience("the events of the history"):
        return await bus.fetch(ids)


async def _collect(bus: Bus, begin: list[SignedEvent], depth: int) -> tuple[dict[EventId, SignedEvent], set[EventId]]:
    found = {signed.id: signed for signed in begin}
    missing: set[EventId] = set()
    level = begin
    for _ in range(depth):
        wanted = dict.fromkeys(c for signed in level for c in signed.event.cause if c not in found and c not in missing)
        if not wanted or len(found) >= MAX_EVENTS:
            break
        level = await _fetch(bus, list(wanted))
        found |= {signed.id: signed for signed in level}
        missing |= {one for one in wanted if one not in found}
    return found, missing


def roots(sight: Sight, target: str) -> list[SignedEvent]:
    """The events that decide what is shown of a target (rule 1). Raises `NotFoundError`."""
    kind, _, name = target.partition("/")
    if kind == "node" and name:
        return _of_node(sight, name)
    parsed = Target.parse(target)
    keys = slots_of(sight.view, parsed)
    if parsed.index is None:
        sick = [row.key for row in instances(sight, parsed, problems=True) if is_problem(sight, row)]
        keys = sick or keys
    found: dict[EventId, SignedEvent] = {}
    for key in keys:
        found |= {signed.id: signed for signed in _of_slot(sight, key)}
    if not found:
        entry = sight.view.services.get(parsed.service)
        if entry is not None and entry.spec is not None:
            return [entry.spec.signed]
        raise NotFoundError("why.nothing", f"nothing is known of {target}", next=f"dsmt tail service/{parsed.service}/")
    return list(found.values())


def _of_node(sight: Sight, name: str) -> list[SignedEvent]:
    entry = find(sight, name)
    verdict, ended = sight.fleet.verdict(name), revoked(sight, entry)
    if ended is not None:
        return [ended] if verdict is None else [ended, verdict.signed]
    if verdict is not None:
        return [verdict.signed]
    found = []
    if entry.control is not None and entry.mode != "active":
        found.append(entry.control.signed)
    words = sight.fleet.words(name)
    found += [said.held.signed for said in words[:1]]
    if not found and entry.attributes is not None:
        found.append(entry.attributes.signed)
    return found


def _of_slot(sight: Sight, key: SlotKey) -> list[SignedEvent]:
    slot = sight.view.slot(key)
    if slot is None:
        return []
    fact = slot.fact
    node = None if fact is None else fact.record.node
    seen = see(sight, key, node)
    found = []
    instance = None if node is None else slot.instances.get(node)
    if seen.state is Shown.LOST and node is not None:
        verdict = sight.fleet.verdict(node)
        found += [verdict.signed] if verdict is not None else []
    checked = None if instance is None else instance.health
    if checked is not None and seen.state is Shown.RUNNING and health(slot, node, seen) != "none":
        found.append(checked.signed)
    if not found and seen.status is not None:
        found.append(seen.status.signed)
    if fact is not None and not any(signed.event.cause for signed in found):
        found.append(fact.signed)
    if slot.control is not None and slot.control.record.hold is not None:
        found.append(slot.control.signed)
    return found
