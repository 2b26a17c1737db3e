"""Members: nodes, brokers and controllers, as `nodes`, `node show`, `brokers` and `controllers` show them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import filterfalse
from typing import Any, Final, Literal

import msgspec

from dsmt.errors import NotFoundError
from dsmt.event.hlc import BOUND_MS, FAR_MS
from dsmt.event.kinds.broker import Session
from dsmt.event.kinds.node import NodeAttributes
from dsmt.event.phrases import in_retrospect, person, some
from dsmt.event.reason import Reason, reason
from dsmt.event.records import to_data
from dsmt.event.status import State
from dsmt.operations.read.holding import Left, left_on
from dsmt.operations.read.outside import NO_CERTIFICATES, Outside, Used, last_seen_ms, outside
from dsmt.operations.read.sight import CONTROLLER_EACH_S, Sight
from dsmt.operations.words.event_objects import plain
from dsmt.operations.words.names import meant, natural
from dsmt.operations.words.times import rfc3339, span
from dsmt.ports.realm import BrokerAddress
from dsmt.view import NodeEntry, SlotKey
from dsmt.view.held import Held
from dsmt.view.liveness import REATTACH_GRACE_MS
from dsmt.view.sessions import Word, word
from dsmt.view.shown import unwatched

UNDECIDED: Final = "its broker was lost a moment ago: whether it is alive is not known yet"


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process on a node that is dsmt's or its services'."""

    pid: int
    role: Literal["spawner", "manager", "monitor", "agent", "application"]
    instance: str | None
    known: bool = True
    """Whether it is known that it is there: of a program with no agent nobody knows that."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
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
    left: list[Left] = []
    """What is still on a node that is drained."""
    out: Outside | None = None
    """Why it is let in no more, where it is not."""


class NodeShown(Node, frozen=True, kw_only=True):
    """One node with every process of ours on it, the spawner first."""

    processes: list[Process]


class Broker(msgspec.Struct, frozen=True, kw_only=True):
    """One broker, by its own word; `alive`: its word comes to this reader, and it is no other one's loss.

    The one that is asked is no exception: one that can store nothing answers, and says nothing.
    """

    broker: str | None
    address: str
    alive: bool
    pid: int | None
    version: str | None
    sessions: int | None
    peers: int | None
    lag_s: float | None
    facts: int | None
    history_from: str | None
    disk_bytes: int | None
    dropped: int | None
    clock_ahead_s: float | None
    """Its machine's clock minus realm time."""
    whole: bool | None
    """Whether it has everything that the realm holds."""
    leaf: bool | None
    """Whether it is the broker of a site (E5)."""
    upstream: str | None
    """Of a leaf, the broker to which it is linked; null for none."""
    fault: str | None = None
    """What is wrong with one that is not alive, by its own word or where it could be asked."""

    @property
    def clock_is_far(self) -> bool:
        """Whether that is too much to follow."""
        return self.clock_ahead_s is not None and abs(self.clock_ahead_s) * 1000 > FAR_MS


class Controller(msgspec.Struct, frozen=True, kw_only=True):
    """One controller. `lag_s` is how late its own loop was when it was heard last; where it is null, `lag_why` says why.

    One `in_doubt` is not known to be alive, and not known to be gone: its broker was lost a moment ago, as that of a node
    that counts as alive (F1).
    """

    controller: str
    alive: bool
    pid: int | None
    version: str
    lag_s: float | None
    decisions: int
    lag_why: str | None = None
    in_doubt: bool = False


def nodes(sight: Sight, used: Used = NO_CERTIFICATES) -> list[Node]:
    """Every node that has not left, sorted."""
    entries = sight.view.nodes.values()
    known = [entry for entry in entries if entry.attributes is not None or f"node/{entry.name}" in entry.sources]
    known.sort(key=lambda entry: natural(entry.name))
    return [node(sight, entry, used) for entry in known if sight.fleet.state(entry.name) != "left"]


def node(sight: Sight, entry: NodeEntry, used: Used = NO_CERTIFICATES) -> Node:
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
        by, why, since = person(control.record.by), control.record.reason, rfc3339(control.time_ms)
    return Node(
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
        last_seen=rfc3339(seen),
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
    entry = find(sight, name)
    common = node(sight, entry, used)
    fields = {field: getattr(common, field) for field in Node.__struct_fields__}
    return NodeShown(**fields, processes=processes(sight, entry) if common.liveness in ("alive", "suspect") else [])


def find(sight: Sight, name: str) -> NodeEntry:
    """A node's entry. Raises `NotFoundError`."""
    entry = sight.view.nodes.get(name)
    if entry is None or not sight.fleet.knows(name):
        kind, _, bare = name.partition("/")
        lists = f"{meant(name, sight.fleet.members)}dsmt nodes lists them"
        known = f"write {bare}, without node/" if kind == "node" and bare in sight.view.nodes else lists
        if is_only_named(sight, name):
            given = some([str(key) for key in sorted(_given(sight, name))])
            said = f"nothing is known of {name} but what is to run there: {given}"
            raise NotFoundError("node.unknown", said, next=f"bring it back, or dsmt node remove {name} --forget")
        raise NotFoundError("node.unknown", f"there is no node {name or repr(name)}", next=known)
    return entry


def is_only_named(sight: Sight, name: str) -> bool:
    """Whether nothing is known of a node but what is to run there: no word of it has come back to a store that was lost."""
    return not sight.fleet.knows(name) and bool(_given(sight, name))


def _given(sight: Sight, name: str) -> Collection[SlotKey]:
    """What is to run on a node."""
    return sight.view.allocations.node(name).slots


def processes(sight: Sight, entry: NodeEntry) -> list[Process]:
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
    for service in sorted(sight.view.services):
        for (component, index), slot in sorted(sight.view.services[service].slots.items()):
            instance = slot.instances.get(entry.name)
            if instance is None or not instance.left:
                continue
            name = f"{service}/{component}/{index}"
            agent = _open_pid(sight, entry, f"agent/{entry.name}/{name}")
            if agent is None and instance.agent is not None:
                agent = instance.agent.record.pid
            agents.append((agent, name))
            said = instance.application
            if said is not None and said.record.state not in (State.STOPPED, State.GONE):
                applications.append((said.record.pid, name, unwatched(instance) is None))
    listed = [Process(pid=pid, role=role, instance=instance) for pid, role, instance in found if pid is not None]
    listed += [Process(pid=pid, role="agent", instance=name) for pid, name in agents if pid is not None]
    ran = [(pid, name, known) for pid, name, known in applications if pid is not None]
    return listed + [Process(pid=pid, role="application", instance=name, known=known) for pid, name, known in ran]


def _open_pid(sight: Sight, entry: NodeEntry, source: str) -> int | None:
    attachments = entry.sources.get(source)
    said = None if attachments is None else word(attachments, sight.fleet.lost_brokers)
    return said.held.record.pid if said is not None and said.state == "open" else None


def _manager(sight: Sight, entry: NodeEntry) -> int | None:
    pid = _open_pid(sight, entry, f"node/{entry.name}")
    if pid is None and entry.attributes is not None:
        return entry.attributes.record.manager_pid
    return pid


def manager_away(said: Word[Held[Session]]) -> str:
    """What a word that is not `open` says of a node's manager, for people."""
    how = {"closed": "closed its session", "silent": "is silent", "unknown": "was attached to a lost broker"}
    return f"its manager {how[said.state]} at {said.broker}"


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


def clock(found: Node) -> Reason | None:
    """`node.clock` for a living node whose wall clock is off by more than realm time is ever pardoned (rule J4)."""
    offset_s = 0.0 if found.attributes is None else found.attributes["clock_offset_s"]
    if found.liveness not in ("alive", "suspect") or abs(offset_s) * 1000 <= BOUND_MS:
        return None
    sign = "+" if offset_s > 0 else "-"
    return reason("node.clock", node=found.node, offset=f"{sign}{span(round(abs(offset_s)) * 1000)}")


def withholding(sight: Sight) -> dict[str, list[str]]:
    """The brokers that do not give what they have said to hold, by name, and to which others (E4)."""
    gone = sight.passing.removed
    found = {name: sorted(set(by) - gone) for name, by in sorted(sight.passing.withheld.items()) if name not in gone}
    return {name: by for name, by in found.items() if by}


def apart(sight: Sight) -> dict[str, list[str]]:
    """The brokers that do not reach others which live, for longer than it takes to attach anew; by name (F1)."""
    lost = sight.fleet.lost_brokers.keys() | sight.passing.removed
    found = {
        name: [other for other, since_ms in others.items() if sight.now_ms >= since_ms + REATTACH_GRACE_MS]
        for name, others in sight.view.sessions.apart(lost).items()
    }
    return {name: others for name, others in found.items() if others}


def brokers(sight: Sight, known: list[BrokerAddress]) -> list[Broker]:
    """The realm's brokers, by name; those that have said nothing lately, and were not announced, by their address alone.

    A home may name one that was removed from another home: that is none.
    """
    found = []
    lost = sight.fleet.lost_brokers
    for name, (_, told) in sorted(sight.passing.stats.items(), key=lambda one: natural(one[0])):
        if name in sight.passing.removed and name != sight.broker:
            continue
        heard = sight.passing.heard.get(f"broker/{name}")
        found.append(
            Broker(
                broker=name,
                address=told.address,
                alive=sight.passing.hears(name, sight.now_ms)
                and not told.full
                and (name == sight.broker or name not in lost),
                pid=told.pid,
                version=told.version,
                sessions=_sessions(sight, name),
                peers=len(sight.view.sessions.brokers - {name}),
                lag_s=told.lag_s if heard is None else heard[1].lag_s,
                facts=told.facts,
                history_from=rfc3339(told.history_from_ms) if told.history_from_ms else None,
                disk_bytes=told.disk_bytes,
                dropped=told.dropped,
                clock_ahead_s=told.clock_ahead_s,
                whole=told.whole,
                leaf=name in sight.passing.leaves,
                upstream=sight.view.sessions.upstream(name, lost) or None,
                fault=f"the disk of {told.full} is full, and it stores nothing: free space there" if told.full else None,
            )
        )
    addresses = {broker.address for broker in found}
    names = {at.address: name for name, at in sight.passing.announced.items() if name not in sight.passing.removed}
    for one in filterfalse(sight.passing.is_none, known):
        if one.address not in addresses and not (len(known) == 1 and found):
            said = {"broker": names.get(one.address), "address": one.address, "alive": False}
            fields = dict.fromkeys(Broker.__struct_fields__) | said
            found.append(Broker(**fields))  # type: ignore[arg-type]
    return found


def _sessions(sight: Sight, broker: str) -> int:
    newest = (source.newest for source in sight.view.sessions.of.values())
    return sum(one is not None and one[0] == broker and one[1].record.state == "open" for one in newest)


def controllers(sight: Sight) -> list[Controller]:
    """The controllers whose state is known, by name, but those that went with their node, which they are named after."""
    found = []
    for name, held in sorted(sight.view.controllers.items(), key=lambda one: natural(one[0])):
        said = sight.fleet.word_of(f"controller/{name}")
        alive = said is not None and said.state == "open"
        in_doubt = said is not None and sight.fleet.in_grace(said)
        if not alive and sight.fleet.state(name) == "left":
            continue
        heard = sight.passing.heard.get(f"controller/{name}")
        told = held.record
        pid = said.held.record.pid if said is not None and alive else told.pid
        found.append(
            Controller(
                controller=name,
                alive=alive,
                pid=pid if alive else None,
                version=told.version,
                lag_s=None if heard is None or not alive else heard[1].lag_s,
                decisions=told.decisions,
                lag_why=_no_lag(alive=alive, in_doubt=in_doubt, heard=heard is not None),
                in_doubt=in_doubt,
            )
        )
    return found


def nobody_decides(found: Iterable[Controller]) -> bool:
    """Whether none of some controllers is alive, and none is in doubt."""
    return not any(one.alive or one.in_doubt for one in found)


def _no_lag(*, alive: bool, in_doubt: bool, heard: bool) -> str | None:
    if in_doubt:
        return UNDECIDED
    if not alive:
        return "it is not alive"
    return None if heard else f"its first heartbeat has not come yet (one every {CONTROLLER_EACH_S} s)"
