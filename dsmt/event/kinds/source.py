"""Sources: what every one of them says of its own running, and of the keeper under it."""

from __future__ import annotations

from typing import Final

import msgspec

from dsmt.event.envelope import Event
from dsmt.event.kinds.numbers import Count, Seconds
from dsmt.event.kinds.row import AGENT, DAY_MS, KindRow, fact, signal
from dsmt.event.phrases import whose


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """A source's vouching for all its facts (B2): how far it has said anything in this incarnation, and its own loop lag."""

    incarnation: int
    sequence: int
    lag_s: Seconds
    emit_rate_s: Seconds


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The first event of an incarnation (B3): the one before and its last sequence, if the source's disk knows."""

    previous_incarnation: int | None
    previous_sequence: int | None
    version: str


class KeeperReplaced(msgspec.Struct, frozen=True, kw_only=True):
    """A spawner, or the keeper of `up`, has died, and the source of this word has started another in its directory."""

    directory: str
    died: Count
    """The pid of the one that died."""
    pid: Count


class Following(msgspec.Struct, frozen=True, kw_only=True):
    """A member has kept where the realm moves (`config/engine`): the id of that word, and what it lacks to follow."""

    word: str
    lacks: str = ""


class TakenDown(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's `down` is about to end what the topic names, on the machine where it was started."""

    by: str
    reason: str = ""


def keeper_died(source: str, said: KeeperReplaced) -> str:
    """What happened to the keeper, or the spawner, that a source has replaced."""
    who = "spawner" if source.startswith("node/") else "keeper"
    return f"its {who}, pid {said.died}, had died; pid {said.pid} took its place"


def _heartbeat(_: Event, said: Heartbeat) -> str:
    return f"is alive: #{said.sequence}, lag {said.lag_s * 1000:.0f} ms"


def _started(_: Event, said: Started) -> str:
    return f"starts, version {said.version}"


def _keeper(event: Event, said: KeeperReplaced) -> str:
    return f"{keeper_died(event.source, said)} ({said.directory})"


def _following(_: Event, said: Following) -> str:
    return f"cannot follow the realm: {said.lacks}" if said.lacks else "follows the realm where that moves"


def _down(event: Event, said: TakenDown) -> str:
    return f"is taken down, says {whose(said.by, event.source, said.reason)}"


def _beats(template: str, source: str) -> KindRow:
    return signal(template, "dsmt.heartbeat", source, Heartbeat, _heartbeat, routine=True)


def _keeps(template: str, source: str) -> KindRow:
    return signal(template, "dsmt.keeper", source, KeeperReplaced, _keeper, budget="evidence")


def _follows(template: str, source: str) -> KindRow:
    return fact(template, "dsmt.following", source, Following, _following, ttl_ms=DAY_MS)


def _downs(thing: str) -> KindRow:
    return signal(f"{thing}/down", "dsmt.down", ("operator",), TakenDown, _down, budget="evidence")


ROWS: Final[tuple[KindRow, ...]] = (
    signal("source/<source/>", "dsmt.source.started", "<source/>", Started, _started, budget="evidence"),
    _beats("node/<node>/heartbeat", "node/<node>"),
    _beats("node/<node>/monitor/heartbeat", "monitor/<node>"),
    _beats("node/<node>/agent/<service>/<component>/<index>/heartbeat", AGENT),
    _beats("broker/<broker>/heartbeat", "broker/<broker>"),
    _beats("controller/<controller>/heartbeat", "controller/<controller>"),
    _keeps("node/<node>/keeper", "node/<node>"),
    _keeps("broker/<broker>/keeper", "broker/<broker>"),
    _keeps("controller/<controller>/keeper", "controller/<controller>"),
    _follows("node/<node>/following", "node/<node>"),
    _follows("controller/<controller>/following", "controller/<controller>"),
    _downs("node/<node>"),
    _downs("broker/<broker>"),
    _downs("controller/<controller>"),
)
