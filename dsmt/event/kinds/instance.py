"""Instances: what runs of a slot on a node, how it does, and what is asked of it."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from dsmt.event.envelope import Event
from dsmt.event.kinds.numbers import Count, Ms, Port, Seconds
from dsmt.event.kinds.row import AGENT, DAY_MS, KindRow, fact, signal
from dsmt.event.kinds.slot import Good
from dsmt.event.phrases import quoted, speaker, stepped, why
from dsmt.event.reason import Reason
from dsmt.event.status import Layer, State


class LastExit(msgspec.Struct, frozen=True, kw_only=True):
    """How the run before this one ended; what failed before it could run has neither code nor signal."""

    code: int | None
    signal: str | None
    at_ms: Ms
    ran_s: Seconds
    reason: Reason | None
    restart: Count | None = None
    """The number of the restart after which that run was begun (A7); null where who says it does not tell."""


STEPS: Final = ("install", "configure", "uninstall", "stop")
"""The steps whose logs an agent keeps, and shows who asks for one."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A fetch, or a command of the spec (`install`, `stop`), that takes long: since when it runs, and when it is ended."""

    name: str
    since_ms: Ms
    limit_s: Seconds


class HeldHere(msgspec.Struct, frozen=True, kw_only=True):
    """A stop by hand on the node itself (`dsmt stop --local`), while no operator's word could be said: by which user there.

    `id` tells it from any other one: an operator's word that lifts it names it (`SlotControl.lifts`).
    """

    id: str
    by: str
    at_ms: Ms
    reason: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One observer's word on one layer of an instance (docs/reference/statuses.md)."""

    state: State
    layer: Layer
    node: str
    generation: Count
    attempt: Count
    since_ms: Ms
    emit_rate_s: Seconds
    managed: bool = True
    orphan: bool = False
    reason: Reason | None = None
    pid: Count | None = None
    restarts: Count = 0
    restarts_recent: Count = 0
    failures: Count = 0
    """Failures in a row: the next try is one more than these."""
    next_try_ms: Ms | None = None
    parked: bool = False
    last_exit: LastExit | None = None
    last_command: str | None = None
    expired_command: str | None = None
    """The last command that came too late, and was not executed (A7)."""
    revision: Count = 0
    taken_ms: Ms | None = None
    """Of the application: when its agent had the slot fact of this generation (A18)."""
    good: Good | None = None
    """Of the application: the last revision that was good here."""
    step: Step | None = None
    """Of the application: what its agent is at, where that takes long."""
    held_here: HeldHere | None = None
    """Of the application: who has stopped it on its node, until that is lifted (A24)."""

    @property
    def is_left_alone(self) -> bool:
        """Whether it has failed, and is parked or not tried again."""
        return self.state is State.FAILED and (self.parked or self.next_try_ms is None)

    @property
    def has_ended(self) -> bool:
        """Whether its program has ended by itself and is not to be run again; wherever that was."""
        return self.is_left_alone and not self.parked

    @property
    def ended_well(self) -> bool:
        """Whether it has ended so with 0."""
        return self.has_ended and self.last_exit is not None and self.last_exit.code == 0


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a download or an installation is. `total` is null when it is not known."""

    step: str
    done: Count
    total: Count | None
    unit: str


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A signal to a deployment agent (A7); it is executed once, if the generation is current."""

    id: str
    verb: Literal["APPCONFIG", "UPDATE", "UNINSTALL", "START", "STOP", "RESTART", "RETRY", "LOGS"]
    generation: Count
    asker: str
    arguments: dict[str, Any] = {}


STARTED: Final = "started, not checked yet"
"""The evidence of a run that was only just begun."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The health monitor's word, with the evidence of the try that turned it.

    `live` is said of what is only unready: its liveness is checked by something else, which has not failed (A22).
    """

    health: Literal["ready", "unready", "none"]
    generation: Count
    check: str
    evidence: str
    failures: Count
    since_ms: Ms
    reason: Reason | None = None
    live: bool = False


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a ready instance is reached (A9); `ready` False withdraws it."""

    address: str
    ports: dict[str, Port]
    generation: Count
    ready: bool


class LogLines(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of an instance's output, on demand. `last` ends the answer to the command named in `command`.

    `written_ms` is when they were written, to within a second, if their agent saw them come; `upto` is the place in its
    stream behind them, from where a later command may go on.
    """

    command: str
    lines: tuple[str, ...]
    last: bool
    written_ms: Ms | None = None
    upto: Count | None = None


def _status(event: Event, said: Status) -> str:
    where = f"on {said.node}"
    what = {Layer.CONTAINER: "container", Layer.AGENT: "agent"}.get(said.layer)
    if what is not None:
        text = f"{what} {where} is {said.state}"
        return text + (f", pid {said.pid}" if said.pid else "") + why(said.reason) + _orphan(said)
    pid = f", pid {said.pid}" if said.pid else ""
    match said.state:
        case State.REQUESTED:
            text = f"begins {where}, generation {said.generation}"
        case State.INITIATED:
            text = f"installs {where}"
        case State.INSTANTIATED:
            text = f"starts {where}{pid}"
        case State.RUNNING:
            text = f"runs {where}{pid}"
        case State.FAILED:
            ended = f"has ended well{why(said.reason)}" if said.ended_well else f"failed {where}{why(said.reason)}"
            text = f"{ended}{_next_try(event, said)}"
        case State.TERMINATED:
            text = f"stops {where}"
        case State.STOPPED:
            text = f"is stopped {where}{why(said.reason)}"
        case _:
            text = f"is {said.state} {'from' if said.state is State.GONE else 'on'} {said.node}{why(said.reason)}"
    return text + _step(event, said.step) + _orphan(said)


def _step(event: Event, step: Step | None) -> str:
    if step is None:
        return ""
    took, left = event.time_ms - step.since_ms, step.limit_s
    return f"; {stepped(step.name)} has taken {max(0, took) / 1000:.3g} s so far, and is ended after {left:.4g} s"


def _orphan(said: Status) -> str:
    return ", with no slot fact" if said.orphan else ""


def _next_try(event: Event, said: Status) -> str:
    if said.parked:
        return "" if said.reason is not None and said.reason.code == "run.flapping" else "; parked"  # that one says so
    if said.next_try_ms is None:
        return ""
    wait = max(0.0, (said.next_try_ms - event.time_ms) / 1000)
    return "; dsmt tries again at once" if wait < 0.05 else f"; next try in {wait:.3g} s"


def _health(_: Event, said: Health) -> str:
    word = {"ready": "is ready", "unready": "is not ready", "none": "is up"}[said.health]
    return f"{word}: {said.evidence or said.check if said.reason is None else said.reason.message}"


def _endpoint(event: Event, said: Endpoint) -> str:
    node = event.topic.rsplit("/", 1)[1]
    if not said.ready:
        return f"is no longer served on {node}"
    ports = " ".join(f"{name}:{port}" for name, port in said.ports.items())
    return f"is served on {node} at {said.address} {ports}".rstrip()


def _command(_: Event, told: Command) -> str:
    their = told.arguments.get("reason")
    return f"gets {told.verb} from {speaker(told.asker)}{quoted(their if isinstance(their, str) else '')}"


def _lines(_: Event, told: LogLines) -> str:
    if len(told.lines) > 1:
        return f"wrote {len(told.lines)} lines, the last: {told.lines[-1]}"
    return f"wrote: {told.lines[0]}" if told.lines else "wrote nothing more"


def _progress(_: Event, said: Progress) -> str:
    return f"{said.step}: {said.done}{f' of {said.total}' if said.total else ''} {said.unit}"


def _status_row(template: str, source: str) -> KindRow:
    return fact(template, "dsmt.status", source, Status, _status, ttl_ms=DAY_MS, folded=True)


ROWS: Final[tuple[KindRow, ...]] = (
    _status_row("service/<service>/status/<component>/<index>/<node>/container", "node/<node>"),
    _status_row("service/<service>/status/<component>/<index>/<node>/agent", "node/<node>"),
    _status_row("service/<service>/status/<component>/<index>/<node>/application", AGENT),
    fact(
        "service/<service>/health/<component>/<index>/<node>", "dsmt.health", AGENT, Health, _health,
        ttl_ms=DAY_MS, folded=True,
    ),
    fact(
        "service/<service>/endpoint/<component>/<index>/<node>", "dsmt.endpoint", AGENT, Endpoint, _endpoint,
        ttl_ms=90_000, budget="signal", folded=True,
    ),
    signal("service/<service>/progress/<component>/<index>/<node>", "dsmt.progress", AGENT, Progress, _progress),
    signal(
        "service/<service>/command/<component>/<index>", "dsmt.command", ("operator", "controller"), Command, _command,
        budget="evidence",
    ),
    signal("service/<service>/log/<component>/<index>/<node>/<stream>", "dsmt.log", AGENT, LogLines, _lines, budget="log"),
)  # fmt: skip
