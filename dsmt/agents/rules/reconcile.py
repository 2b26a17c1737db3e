"""Reconcile: what a node does about a slot, and what an agent does next (rule A1, A5, A8, A12, A13, A15).

Rule 1: only a signed fact starts, stops or moves anything; absence keeps what is (A5).
Rule 2: the greatest fact in fact order is obeyed; the caller brings it (`dsmt.event.order.newer`).
Rule 3: who is named nowhere leaves; the `previous` keeps its copy until the new one is ready, or the deadline (A8).
Rule 4: contents are compared, not ids: what already is so needs no action (A13).
Rule 5: an update installs beside what runs, and stops it only when the new is installed; where two copies may be, only
    when the new is ready (`handover`). Until then no step of the new one's escalation touches the old one: there is no
    new container, and no installation anew of what the old one lives in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dsmt.event.kinds.instance import Health
from dsmt.event.kinds.slot import Slot

OFFLINE_START_AFTER_S: Final = 30.0
"""After a reboot with no broker: start from the kept facts after so long (A15)."""


class Duty(StrEnum):
    """What a node owes a slot."""

    RUN = "run"
    STOP = "stop"
    """Stay, with nothing running."""
    KEEP = "keep"
    """Go on with what is there: as `previous`, or because no fact says anything."""
    LEAVE = "leave"
    """Stop, uninstall, be gone."""


@dataclass(frozen=True, slots=True)
class Owed:
    """A duty, and until when (realm ms) if it ends by itself."""

    duty: Duty
    until_ms: int | None = None


def owed(node: str, slot: Slot | None, *, now_ms: int, successor_ready: bool) -> Owed:
    """What `node` owes a slot by its greatest fact; None is no fact at all (rule 1)."""
    if slot is None:
        return Owed(Duty.KEEP)
    if slot.desired == "gone":
        return Owed(Duty.LEAVE)
    if slot.node == node:
        return Owed(Duty.RUN if slot.desired == "running" else Duty.STOP)
    before = slot.previous
    if before is None or before.node != node or slot.desired != "running":
        return Owed(Duty.LEAVE)
    if successor_ready or now_ms >= before.deadline_ms:
        return Owed(Duty.LEAVE)
    return Owed(Duty.KEEP, before.deadline_ms)


def is_successor_ready(slot: Slot, generation: int, healths: Mapping[str, Health]) -> bool:
    """Whether the node that a slot's generation names has said that its copy is ready. `healths` is by node."""
    health = healths.get(slot.node or "")
    return health is not None and health.generation >= generation and health.health != "unready"


class Task(StrEnum):
    """What the container manager does about one slot."""

    CREATE = "create"
    """Make a container for it, and start an agent there."""
    WATCH = "watch"
    """Keep the agent of its container alive: it knows what to do, also how to leave."""
    ORPHAN = "orphan"
    """The same, and tell that no fact asks for it (A5)."""
    NOTHING = "nothing"


def task(node: str, slot: Slot | None, *, exists: bool, data_key: str = "") -> Task:
    """What a node's manager does by a slot's greatest fact, given whether it has a container of it.

    `data_key` is that of the node's data: a slot that is pinned to another machine of this name starts nothing here.
    """
    if exists:
        return Task.WATCH if slot is not None else Task.ORPHAN
    if slot is not None and slot.node == node and slot.desired != "gone":
        home = slot.home
        if home is not None and home.key and data_key and home.key != data_key:
            return Task.NOTHING
        return Task.CREATE
    return Task.NOTHING


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to run: the keys of its spec, its generation, and the slot's restart number."""

    install_key: str
    run_key: str
    generation: int
    restart: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that an agent's next act depends on. Times are boot-time seconds.

    `wanted` None: the spec is not here yet. `running` None: no process. `installed`, `configured`: the keys that are.
    """

    duty: Duty
    wanted: Wanted | None
    running: Wanted | None
    installed: tuple[str, ...]
    configured: str
    prepared: str = ""
    """The run key that its driver has made all ready for, as far as this agent knows."""
    condemned: bool = False
    """What runs is to be ended as failed: not live, or not ready in time."""
    restart_asked: bool = False
    outgoing: Wanted | None = None
    """The copy before, which is served until what runs is ready."""
    ready: bool = False
    """What runs is ready."""
    overlaps: bool = False
    """What is wanted may be started beside what runs."""
    held: bool = False
    """A STOP command of this generation."""
    finished: bool = False
    reinstall: bool = False
    recreate: bool = False
    not_before: float = 0.0
    now: float


class Do(StrEnum):
    """An agent's acts."""

    REST = "rest"
    AWAIT_SPEC = "await_spec"
    INSTALL = "install"
    CONFIGURE = "configure"
    PREPARE = "prepare"
    """Have the driver make ready what the start needs."""
    START = "start"
    STOP = "stop"
    """Stop, and stay stopped."""
    RESTART = "restart"
    """Stop, in order to start again."""
    FAIL = "fail"
    """End what is condemned; supervision says what then."""
    HAND_OVER = "hand_over"
    """Let what runs go on beside its successor."""
    RETIRE = "retire"
    """The successor is ready: stop the copy before."""
    TAKE_BACK = "take_back"
    """The copy before is wanted again: end its successor."""
    TAKE_OVER = "take_over"
    """The new generation asks for nothing new of what runs."""
    RECREATE = "recreate"
    LEAVE = "leave"


def next_act(at: Situation) -> Do:  # noqa: C901, PLR0911 - an order of precedence
    """The one thing an agent does now; it asks again afterwards."""
    if at.duty is Duty.LEAVE:
        return Do.LEAVE
    if at.duty is Duty.STOP or (at.held and at.duty is Duty.RUN):
        return Do.STOP
    if at.outgoing is not None:
        if at.running is not None and at.ready:
            return Do.RETIRE
        if at.duty is Duty.RUN and _is_same(at.wanted, at.outgoing):
            return Do.TAKE_BACK
    if at.running is not None:
        return _while_running(at, at.running)
    if at.finished:
        return Do.REST
    if at.wanted is None:
        return Do.REST if at.duty is Duty.KEEP else Do.AWAIT_SPEC
    if at.now < at.not_before:
        return Do.REST
    if at.recreate and at.outgoing is None:
        return Do.RECREATE
    if at.wanted.install_key not in at.installed or ((at.reinstall or at.recreate) and not _is_in_use(at, at.wanted)):
        return Do.INSTALL
    if at.configured != at.wanted.run_key:
        return Do.CONFIGURE
    return Do.START if at.prepared == at.wanted.run_key else Do.PREPARE


def _is_in_use(at: Situation, wanted: Wanted) -> bool:
    """Whether the copy before, which is served, lives in the installation that is wanted."""
    return at.outgoing is not None and at.outgoing.install_key == wanted.install_key


def _while_running(at: Situation, running: Wanted) -> Do:
    if at.condemned:
        return Do.FAIL
    if at.restart_asked:
        return Do.RESTART
    wanted = at.wanted
    if wanted is None or at.duty is Duty.KEEP or wanted == running:
        return Do.REST
    if _is_same(wanted, running):
        return Do.TAKE_OVER
    if wanted.install_key not in at.installed:
        return Do.REST if at.now < at.not_before else Do.INSTALL
    if at.overlaps and at.ready and wanted.restart == running.restart:
        return Do.HAND_OVER
    return Do.RESTART


def _is_same(wanted: Wanted | None, running: Wanted) -> bool:
    return wanted is not None and wanted.run_key == running.run_key and wanted.restart == running.restart
