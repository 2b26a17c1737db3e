"""Explaining: `why`: the chain of signed events that led here, back to where nothing earlier is named.

Rule 1: it begins at the event that decides what is shown of the target: its health, status, slot, or verdict. Health
    of a run before the present one decides nothing: the failure stands between the two. What runs with no slot fact
    is explained by the removal of its service, if there was one: that hides the fact. What does not begin on another machine
    of the name of the one that has its data is explained by what that machine said of itself: its key is another.
Rule 2: each event's own `cause` is followed through the history; what the history does not hold makes it incomplete, and so
    does what lies deeper than was asked for. At most `MAX_EVENTS` are asked for, whatever an event names.
Rule 3: where the deciding event names no cause, the facts that it stands on (the slot's) are explained beside it.
Rule 4: the first event of an incarnation is its source's start: of a broker, a controller or a node it is told beside.
Rule 5: an operator's `down` stands between a source's last two starts, or after the last: it is told beside, too; of an
    instance that of its node.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from dsmt.controllers.pinning import is_replaced
from dsmt.errors import NotFoundError
from dsmt.event.envelope import TOMBSTONE, EventId, SignedEvent
from dsmt.event.status import Shown
from dsmt.operations.read.realm.patience import patience
from dsmt.operations.read.realm.sight import Sight, look, look_at
from dsmt.operations.read.rows.certificates import in_use
from dsmt.operations.read.rows.instances import instances, is_problem
from dsmt.operations.read.rows.node_rows import find_node
from dsmt.operations.read.rows.outside import revoked
from dsmt.operations.read.rows.overruled import overruled
from dsmt.operations.read.rows.seen_instance import SeenInstance
from dsmt.operations.read.why.answers import first_row, of_target
from dsmt.operations.words.event_objects import event_object
from dsmt.operations.words.sentences import sentence
from dsmt.operations.words.targets import Target, member_of, slots_of
from dsmt.operations.words.times import milliseconds
from dsmt.ports.bus import BusReader, Interest, Start
from dsmt.ports.listening import arrivals
from dsmt.trust.store import TrustStore
from dsmt.view import SlotKey

DEPTH: Final = 64
MAX_EVENTS: Final = 500


class CauseLink(msgspec.Struct, frozen=True, kw_only=True):
    """One event of the chain: as JSON, in one sentence, and the ids of those that it names as its causes."""

    event: dict[str, Any]
    says: str
    because: list[str]


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """Why a target is as it is; `says` in one sentence, `chain` event by event, newest first.

    `missing` are ids that the history does not hold; `disowned` are those of them of whose signer a key was revoked, which
    nobody believes; `cut` are those that were not followed any more.
    """

    target: str
    says: str
    complete: bool
    chain: list[CauseLink]
    missing: list[str]
    cut: list[str]
    disowned: list[str] = []
    overruled: list[CauseLink] = []
    """What operators said of it on the other side of a partition, while what stands was said under the same number (E2)."""


class Chain(msgspec.Struct, frozen=True):
    """An explanation, and the signed events behind it, newest first."""

    explained: Explained
    events: tuple[SignedEvent, ...]


async def why(bus: BusReader, trust: TrustStore, target: str, *, depth: int = DEPTH) -> Chain:
    """Explain a target: `service[/component[/index]]`, `node/NODE`, `broker/B`, `controller/C` or an event id.

    Raises `NotFoundError`, `InputError`.
    """
    sight: Sight | None = None
    lost: list[SignedEvent] = []
    if "#" in target:
        begin = await _fetch(bus, [EventId.parse(target)])
        if not begin:
            raise NotFoundError("event.unknown", f"the history does not hold {target}", next="dsmt tail --since 1h")
    else:
        sight = await look(bus, passing=True) if any(member_of(target)) else await look_at(bus, Target.parse(target).service)
        begin = roots(sight, target)
        begin += await _fetch(bus, starts(sight, target))
        begin += await _downs(bus, sight, target)
        lost = await overruled(bus, sight, target)
    found, missing, cut = await _collect(bus, begin, depth)
    newest = sorted(found.values(), key=lambda signed: (signed.event.time, signed.event.sequence), reverse=True)
    ended = _ended(trust) if missing else frozenset()
    used = in_use(trust, bus.now_ms() // 1000)
    explained = Explained(
        target=target,
        says=sentence(begin[0].event) if sight is None else of_target(sight, target, begin, found, used),
        complete=not missing and not cut,
        chain=[_link(signed, trust) for signed in newest],
        missing=sorted(map(str, missing)),
        cut=sorted(map(str, cut)),
        disowned=sorted(str(one) for one in missing if one.source in ended),
        overruled=[_link(signed, trust) for signed in lost],
    )
    return Chain(explained, tuple(newest))


def _link(signed: SignedEvent, trust: TrustStore) -> CauseLink:
    because = [str(cause) for cause in signed.event.cause]
    return CauseLink(event=event_object(signed, trust), says=sentence(signed.event), because=because)


def _ended(trust: TrustStore) -> frozenset[str]:
    """The names of which a key was revoked."""
    return frozenset(one.subject for one in trust.certificates() if trust.is_revoked(one.key_id, one.subject))


async def _fetch(bus: BusReader, ids: list[EventId]) -> list[SignedEvent]:
    if not ids:
        return []
    async with patience("the events of the history"):
        return await bus.fetch(ids)


async def _downs(bus: BusReader, sight: Sight, target: str) -> list[SignedEvent]:
    """The operator's `down` that ended the target, or the node of its instance (rule 5)."""
    source, placed_ms, since_ms = target, 0, sight.now_ms
    if not any(member_of(target)):
        row = first_row(sight, Target.parse(target))
        slot = None if row is None else sight.view.slot(row.key)
        if row is None or row.node is None or row.since is None or slot is None or slot.fact is None:
            return []
        source, placed_ms, since_ms = f"node/{row.node}", slot.fact.time_ms, milliseconds(row.since)
    interest = Interest((f"{source}/down",), start=Start.HISTORY, since=placed_ms, conflate=True, follow=False)
    async with patience("what was taken down"):
        said = await arrivals(bus, interest)
    last, began_ms = max(said, key=lambda one: one.event.time, default=None), _incarnation(sight, source)
    if last is None or last.event.time_ms > began_ms:
        return [] if last is None else [last]
    start = await _fetch(bus, [EventId(source, began_ms, 1)])
    before_ms = (start[0].event.data.get("previous_incarnation") if start else None) or 0
    return [last] if before_ms < last.event.time_ms and began_ms <= since_ms else []


async def _collect(
    bus: BusReader, begin: list[SignedEvent], depth: int
) -> tuple[dict[EventId, SignedEvent], set[EventId], set[EventId]]:
    """What the chain holds, what of it the history does not hold, and what was not followed."""
    found = {signed.id: signed for signed in begin}
    missing: set[EventId] = set()
    for _ in range(depth):
        room = max(0, MAX_EVENTS - len(found) - len(missing))
        wanted = sorted(_named(found) - missing)[:room]
        if not wanted:
            break
        found |= {signed.id: signed for signed in await _fetch(bus, wanted)}
        missing |= set(wanted) - set(found)
    return found, missing, _named(found) - missing


def _named(found: dict[EventId, SignedEvent]) -> set[EventId]:
    """What is named as a cause and was not found yet."""
    return {cause for signed in found.values() for cause in signed.event.cause if cause not in found}


def roots(sight: Sight, target: str) -> list[SignedEvent]:
    """The events that decide what is shown of a target (rule 1). Raises `NotFoundError`."""
    kind, name = member_of(target)
    if kind:
        return _of_node(sight, name) if kind == "node" else _of_source(sight, target)
    parsed = Target.parse(target)
    keys = slots_of(sight.view, parsed, gone=parsed.index is not None)  # an ended one that is asked for by name has a why
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


def starts(sight: Sight, target: str) -> list[EventId]:
    """The start of a broker's, a controller's or a living node's present process (rule 4)."""
    kind, name = member_of(target)
    is_there = kind in ("broker", "controller") or (kind == "node" and sight.fleet.state(name) == "alive")
    incarnation = _incarnation(sight, target) if is_there else 0
    return [EventId(target, incarnation, 1)] if incarnation else []


def _incarnation(sight: Sight, source: str) -> int:
    """That of the last process of a broker, a controller or a node; 0 where none is known."""
    kind, _, name = source.partition("/")
    if kind == "broker":
        return max((signed.event.incarnation for signed in _words_of(sight, name)), default=0)
    newest = sight.newest_session(source)
    return 0 if newest is None else newest.record.incarnation


def _words_of(sight: Sight, broker: str) -> list[SignedEvent]:
    """What a broker says of the sources that are connected to it."""
    words = (known.words.get(broker) for known in sight.view.sessions.of.values())
    return [held.signed for held in words if held is not None]


def _of_source(sight: Sight, source: str) -> list[SignedEvent]:
    """A broker or a controller: what is said of its connection, and what it says itself."""
    kind, _, name = source.partition("/")
    newest = sight.newest_session(source)
    found = [] if newest is None else [newest.signed]
    state = sight.view.controllers.get(name) if kind == "controller" else None
    if state is not None:
        found.append(state.signed)
    if not found and not (kind == "broker" and _words_of(sight, name)):
        raise NotFoundError(f"{kind}.unknown", f"there is no {kind} {name}", next=f"dsmt {kind}s lists them")
    return found


def _of_node(sight: Sight, name: str) -> list[SignedEvent]:
    entry = find_node(sight, name)
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
    if slot.empty:
        return []
    fact = slot.fact
    node = next(iter(slot.holders), None) if fact is None else fact.record.node
    seen, found = SeenInstance(sight, key, node), []
    if seen.state is Shown.LOST and node is not None:
        verdict = sight.fleet.verdict(node)
        found += [verdict.signed] if verdict is not None else []
    checked = None if seen.instance is None else seen.instance.health
    if checked is not None and seen.state is Shown.RUNNING and seen.health != "none":
        of_this_run = seen.since_ms is None or checked.record.since_ms >= seen.since_ms
        found.append(checked.signed if of_this_run or seen.status is None else seen.status.signed)
    if not found and seen.status is not None:
        found.append(seen.status.signed)
    if not found and fact is not None and is_replaced(sight.fleet, fact.record):
        told = sight.view.nodes[fact.record.node or ""].attributes
        found += [] if told is None else [told.signed]
    if fact is not None and not any(signed.event.cause for signed in found):
        found.append(fact.signed)
    if slot.control is not None and slot.control.record.hold is not None:
        found.append(slot.control.signed)
    removed = sight.view.winner(f"{TOMBSTONE}service/{key.service}")
    return [*found, removed] if found and fact is None and removed is not None else found
