"""Node rows: nodes, and the processes on each, as `nodes` and `node show` show them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, Literal

import msgspec

from dsmt.errors import NotFoundError, RefusedError
from dsmt.event.hlc import BOUND_MS, rfc3339
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.kinds.node import NodeAttributes
from dsmt.event.phrases import in_retrospect, some, whose
from dsmt.event.reason import Reason, reason
from dsmt.event.records import to_data
from dsmt.event.status import State
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.holding import Undrained, left_on
from dsmt.operations.read.rows.outside import NO_CERTIFICATES, Outside, Used, last_seen_ms, outside
from dsmt.operations.words.event_objects import plain
from dsmt.operations.words.names import bare, meant, natural
from dsmt.operations.words.targets import is_service
from dsmt.operations.words.times import span, time_or_null
from dsmt.view import NodeEntry, SlotKey
from dsmt.view.held import Held
from dsmt.view.sessions import AttachmentState, word
from dsmt.view.shown import unwatched

_HALVES: Final = (
    ("node", "manager", "nothing begins or ends there, and what is placed there waits"),
    ("monitor", "monitor", "nobody measures it, and it probes no other node"),
)


class ProcessRow(msgspec.Struct, frozen=True, kw_only=True):
    """A process on a node that is dsmt's or its services'."""

    pid: int
    role: Literal["spawner", "manager", "monitor", "agent", "application"]
    instance: str | None
    known: bool = True
    """Whether it is known that it is there: of a program with no agent nobody knows that."""


class NodeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One node. `pid` is its container manager's; `drain` says who wanted its mode, and why."""

    node: str
    liveness: str
    mode: str | None
    """What an operator wants of it; null for one that has left."""
    roles: list[str]
    version: str | None
    pid: int | None
    address: str | None
    labels: dict[str, str]
    attributes: dict[str, Any] | None
    instances: int
    last_seen: str | None
    evidence: str | None
    stale: bool
    mode_by: str | None
    mode_reason: str | None
    mode_since: str | None
    left: list[Undrained] = []
    """What is still on a node that is drained."""
    out: Outside | None = None
    """Why it is let in no more, where it is not."""


class NodeShown(NodeRow, frozen=True, kw_only=True):
    """One node with every process of ours on it, the spawner first."""

    processes: list[ProcessRow]


def node_rows(sight: Sight, used: Used = NO_CERTIFICATES) -> list[NodeRow]:
    """Every node that has not left, sorted."""
    entries = sight.view.nodes.values()
    known = [entry for entry in entries if entry.attributes is not None or f"node/{entry.name}" in entry.sources]
    known.sort(key=lambda entry: natural(entry.name))
    return [node_row(sight, entry, used) for entry in known if sight.fleet.state(entry.name) != "left"]


def node_row(sight: Sight, entry: NodeEntry, used: Used) -> NodeRow:
    """One node."""
    out = outside(sight, entry, used)
    told = None if entry.attributes is None else entry.attributes.record
    slots = sight.view.allocations.node(entry.name).slots
    manager = _manager(sight, entry)
    seen = last_seen_ms(sight, entry)
    liveness = sight.fleet.state(entry.name)
    control = entry.control
    mode = entry.mode if liveness != "left" else None
    left = left_on(sight, entry.name) if mode == "draining" else []
    if mode == "draining" and not left:
        mode = "drained"
    by, why, since = (None, None, None)
    if control is not None and mode not in ("active", None):
        by, why, since = whose(control.record.by, control.id.source), control.record.reason, rfc3339(control.time_ms)
    return NodeRow(
        node=entry.name,
        liveness=liveness,
        mode=mode,
        roles=["node"],
        version=told.version if told is not None else None,
        pid=manager if liveness in ("alive", "suspect") else None,
        address=None if told is None else told.address,
        labels={} if told is None else told.labels,
        attributes=None if told is None else _attributes(told, left=liveness == "left"),
        instances=len(slots),
        last_seen=time_or_null(seen),
        evidence=_evidence(sight, entry, out),
        out=out,
        stale=liveness != "alive" or told is None,
        mode_by=by,
        mode_reason=why,
        mode_since=since,
        left=left,
    )


def _attributes(told: NodeAttributes, *, left: bool) -> dict[str, Any]:
    """What a node has said of itself; the processes of one that has left are nobody's any more."""
    said: dict[str, Any] = plain(to_data(told))
    return {name: value for name, value in said.items() if not (left and name.endswith("_pid"))}


def node_shown(sight: Sight, name: str, used: Used = NO_CERTIFICATES) -> NodeShown:
    """One node with its processes; one that is dead or has left has none. Raises `NotFoundError`."""
    entry = find_node(sight, name)
    common = node_row(sight, entry, used)
    fields = {field: getattr(common, field) for field in NodeRow.__struct_fields__}
    return NodeShown(**fields, processes=processes(sight, entry) if common.liveness in ("alive", "suspect") else [])


def find_node(sight: Sight, name: str) -> NodeEntry:
    """A node's entry. Raises `NotFoundError`."""
    entry = sight.view.nodes.get(name)
    if entry is None or not sight.fleet.knows(name):
        lists = f"{meant(name, sight.fleet.members)}dsmt nodes lists them"
        known = bare("node", name, sight.view.nodes) or lists
        if is_service(sight.view, name):
            known = f"{name.partition('/')[0]} is a service: dsmt ps {name} shows on which nodes it is"
        if is_only_named(sight, name):
            given = some([str(key) for key in sorted(_given(sight, name))])
            said = f"nothing is known of {name} but what is to run there: {given}"
            raise NotFoundError("node.unknown", said, next=f"bring it back, or dsmt node remove {name} --forget")
        raise NotFoundError("node.unknown", f"there is no node {name or repr(name)}", next=known)
    return entry


def check_not_removed(sight: Sight, name: str) -> None:
    """Raise `RefusedError` for a node that was removed."""
    if sight.fleet.state(name) == "left":
        advice = "it takes nothing until it attaches again: dsmt nodes"
        raise RefusedError("node.removed", f"{name} was removed; nothing was done", next=advice)


def is_only_named(sight: Sight, name: str) -> bool:
    """Whether nothing is known of a node but what is to run there: no word of it has come back to a store that was lost."""
    return not sight.fleet.knows(name) and bool(_given(sight, name))


def _given(sight: Sight, name: str) -> Collection[SlotKey]:
    """What is to run on a node."""
    return sight.view.allocations.node(name).slots


def processes(sight: Sight, entry: NodeEntry) -> list[ProcessRow]:
    """Every process on a node that is dsmt's or its services': who kills them all in this order has killed the node."""
    told = None if entry.attributes is None else entry.attributes.record
    spawner = None if told is None else told.spawner_pid
    monitor = _open_pid(sight, entry, f"monitor/{entry.name}")
    found: list[tuple[int | None, Literal["spawner", "manager", "monitor", "agent", "application"], str | None]] = [
        (spawner, "spawner", None),
        (_manager(sight, entry), "manager", None),
        (monitor if monitor is not None else None if told is None else told.monitor_pid, "monitor", None),
    ]
    agents, applications = [], []
    for key, slot in sight.view.slots:
        instance = slot.instances.get(entry.name)
        if instance is None or not instance.left:
            continue
        agent = _open_pid(sight, entry, key.agent(entry.name))
        if agent is None and instance.agent is not None:
            agent = instance.agent.record.pid
        agents.append((agent, str(key)))
        said = instance.application
        if said is not None and said.record.state not in (State.STOPPED, State.GONE):
            applications.append((said.record.pid, str(key), unwatched(instance) is None))
    listed = [ProcessRow(pid=pid, role=role, instance=instance) for pid, role, instance in found if pid is not None]
    listed += [ProcessRow(pid=pid, role="agent", instance=name) for pid, name in agents if pid is not None]
    ran = [(pid, name, known) for pid, name, known in applications if pid is not None]
    return listed + [ProcessRow(pid=pid, role="application", instance=name, known=known) for pid, name, known in ran]


def _open_pid(sight: Sight, entry: NodeEntry, source: str) -> int | None:
    attachments = entry.sources.get(source)
    said = None if attachments is None else word(attachments, sight.fleet.lost_brokers)
    return said.held.record.pid if said is not None and said.state == "open" else None


def _manager(sight: Sight, entry: NodeEntry) -> int | None:
    pid = _open_pid(sight, entry, f"node/{entry.name}")
    if pid is None and entry.attributes is not None:
        return entry.attributes.record.manager_pid
    return pid


def manager_away(said: AttachmentState[Held[SessionFact]], who: str = "manager") -> str:
    """What a word that is not `open` says of a node's manager, or of another program of it, for people."""
    how = {"closed": "closed its session", "silent": "is silent", "unknown": "was attached to a lost broker"}
    return f"its {who} {how[said.state]} at {said.broker}"


def half_away(sight: Sight, found: NodeRow) -> tuple[str, str, str] | None:
    """Which program of a node that is alive does not come back, how it is away, and what that means; None where each may."""
    for role, who, means in _HALVES if found.liveness == "alive" and found.out is None else ():
        source = f"{role}/{found.node}"
        if sight.fleet.is_away(source) and (said := sight.fleet.word_of(source)) is not None:
            since = span(sight.now_ms - said.since_ms)
            return who, said.state, f"{manager_away(said, who)}, and is away for {since}: {means}"
    return None


def _evidence(sight: Sight, entry: NodeEntry, out: Outside | None) -> str | None:
    """Why a node is held for anything but alive; what was said of it before it came back is no evidence any more."""
    if out is not None and out.why != "expired":
        return f"{out.message}; next: {out.next}"
    if sight.fleet.state(entry.name) == "alive":
        return None
    died = _died(sight, entry)
    if out is None:
        return died
    return f"{out.message}{'' if died is None else f'; {died}'}; next: {out.next}"


def _died(sight: Sight, entry: NodeEntry) -> str | None:
    """What a node that is not alive died of, as far as anybody has said."""
    verdict = sight.fleet.verdict(entry.name)
    if verdict is not None:
        return in_retrospect(verdict.record.message)
    for said in sight.fleet.words(entry.name)[:1]:
        if said.state != "open":
            return f"{manager_away(said)} since {rfc3339(said.since_ms)}"
    failed = sorted(name for name, probe in entry.probes.items() if probe.record.result == "failed")
    return f"probes by {', '.join(failed)} failed" if failed else None


def clock_offset_s(found: NodeRow) -> float:
    """By how much a node's wall clock is ahead of realm time, as its monitor said last."""
    offset_s: float = 0.0 if found.attributes is None else found.attributes["clock_offset_s"]
    return offset_s


def clock(found: NodeRow) -> Reason | None:
    """`node.clock` for a living node whose wall clock is off by more than realm time is ever pardoned (rule J4)."""
    offset_s = clock_offset_s(found)
    if found.liveness not in ("alive", "suspect") or abs(offset_s) * 1000 <= BOUND_MS:
        return None
    sign = "+" if offset_s > 0 else "-"
    return reason("node.clock", node=found.node, offset=f"{sign}{span(round(abs(offset_s)) * 1000)}")
