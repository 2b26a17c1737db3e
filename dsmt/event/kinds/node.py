"""Nodes: what is said of them by themselves, by others that probe them, by controllers and by operators."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from dsmt.event.envelope import Event
from dsmt.event.kinds.numbers import Count, Degrees, Load, Ms, Offset, Port, Seconds
from dsmt.event.kinds.row import DAY_MS, MINUTE_MS, KindRow, fact
from dsmt.event.phrases import size_in_words, whose


class DriverAttributes(msgspec.Struct, frozen=True):
    """What a driver on a node can do.

    `fence` is `kernel` or `none` (C5), `enforces` names limits, `users` as whom it runs programs (`any`: everybody).
    """

    fence: str
    enforces: tuple[str, ...] = ()
    users: tuple[str, ...] = ()


class NodeAttributes(msgspec.Struct, frozen=True, kw_only=True):
    """A node as its monitor sees it from inside. `load` is the 1-minute load average."""

    cpus: Count
    memory_bytes: Count
    memory_free_bytes: Count
    disk_bytes: Count
    disk_free_bytes: Count
    load: Load
    address: str
    version: str
    boot_id: str
    key: str = ""
    """The id of the key that the node had when its data directory was made: one made anew under its name has another."""
    labels: dict[str, str] = {}
    location: tuple[Degrees, Degrees] | None = None
    drivers: dict[str, DriverAttributes] = {}
    udp_port: Port | None = None
    accepts: str | None = None
    clock_offset_s: Offset = 0.0
    """The node's wall clock minus realm time; shown when it is over 10 s (J4)."""
    spawner_pid: Count | None = None
    manager_pid: Count | None = None
    monitor_pid: Count | None = None
    attachments: dict[str, Count] = {}
    emit_rate_s: Seconds = 30.0


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """Another node's probe of a node (F4): `passed` carries the signed answer to the nonce. It is said each `every_s`."""

    result: Literal["passed", "failed"]
    reason: str
    round_trip_s: Seconds | None
    attachment: Count | None = None
    nonce: bytes = b""
    answer: bytes = b""
    every_s: Seconds = 2.0


class NodeVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """A node is dead, or has left. `attachments` are those judged, by source; a greater one undoes it (F4).

    `others` is the sum of the attachments of all sources that are not named: there may be too many for an event.
    """

    state: Literal["dead", "left"]
    road: Literal["closed", "silent", "operator"]
    attachments: dict[str, Count]
    evidence: tuple[str, ...]
    message: str
    since_ms: Ms
    others: Count = 0


class NodeControl(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's will for a node."""

    mode: Literal["active", "draining", "excluded"]
    by: str
    reason: str


def _attributes(_: Event, told: NodeAttributes) -> str:
    free = f"{size_in_words(told.memory_free_bytes)} of {size_in_words(told.memory_bytes)} memory free"
    return f"has {told.cpus} cores, {free}, load {told.load:.1f}"


def _probe(event: Event, said: Probe) -> str:
    observer = event.topic.rsplit("/", 1)[1]
    if said.result == "failed":
        return f"did not answer a probe from {observer}: {said.reason}"
    took = "" if said.round_trip_s is None else f" in {said.round_trip_s * 1000:.1f} ms"
    return f"answered a probe from {observer}{took}"


def _node_control(event: Event, will: NodeControl) -> str:
    verb = {"active": "is in use", "draining": "drains", "excluded": "is excluded"}[will.mode]
    return f"{verb}, says {whose(will.by, event.source, will.reason)}"


def _verdict(_: Event, said: NodeVerdict) -> str:
    return f"{'is dead' if said.state == 'dead' else 'has left'}: {said.message}"


ROWS: Final[tuple[KindRow, ...]] = (
    fact(
        "node/<node>/attributes", "dsmt.node.attributes", "monitor/<node>", NodeAttributes, _attributes,
        ttl_ms=DAY_MS, folded=True, routine=True,
    ),
    fact(
        "node/<node>/probe/<observer>", "dsmt.node.probe", "monitor/<observer>", Probe, _probe,
        ttl_ms=10 * MINUTE_MS, folded=True,
    ),
    fact("node/<node>/verdict", "dsmt.node.verdict", ("controller", "operator"), NodeVerdict, _verdict, folded=True),
    fact("node/<node>/control", "dsmt.node.control", ("operator",), NodeControl, _node_control, folded=True),
)  # fmt: skip
