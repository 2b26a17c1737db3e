"""Records: the `data` of each kind of event, as typed structs.

Times are realm milliseconds named `_ms`, spans are seconds named `_s`, sizes are bytes named `_bytes`. A field that is
not known is null. Fields may be added; a reader ignores those it does not know.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from dsmt.errors import UnusableEventError
from dsmt.event.reason import Reason
from dsmt.event.status import Layer, State

Record = TypeVar("Record", bound=msgspec.Struct)


class DriverAttributes(msgspec.Struct, frozen=True):
    """What a driver on a node can do.

    `fence` is `kernel` or `none` (C5), `enforces` names limits, `users` as whom it runs programs (`any`: everybody).
    """

    fence: str
    enforces: tuple[str, ...] = ()
    users: tuple[str, ...] = ()


class NodeAttributes(msgspec.Struct, frozen=True, kw_only=True):
    """A node as its monitor sees it from inside. `load` is the 1-minute load average."""

    cpus: int
    memory_bytes: int
    memory_free_bytes: int
    disk_bytes: int
    disk_free_bytes: int
    load: float
    address: str
    version: str
    boot_id: str
    key: str = ""
    """The id of the key that the node had when its data directory was made: one made anew under its name has another."""
    labels: dict[str, str] = {}
    location: tuple[float, float] | None = None
    drivers: dict[str, DriverAttributes] = {}
    udp_port: int | None = None
    accepts: str | None = None
    clock_offset_s: float = 0.0
    """The node's wall clock minus realm time; shown when it is over 10 s (J4)."""
    spawner_pid: int | None = None
    manager_pid: int | None = None
    monitor_pid: int | None = None
    attachments: dict[str, int] = {}
    emit_rate_s: float = 30.0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """A source's vouching for all its facts (B2): how far it has said anything in this incarnation, and its own loop lag."""

    incarnation: int
    sequence: int
    lag_s: float
    emit_rate_s: float


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The first event of an incarnation (B3): the one before and its last sequence, if the source's disk knows."""

    previous_incarnation: int | None
    previous_sequence: int | None
    version: str


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """Another node's probe of a node (F4): `passed` carries the signed answer to the nonce. It is said each `every_s`."""

    result: Literal["passed", "failed"]
    reason: str
    round_trip_s: float | None
    attachment: int | None = None
    nonce: bytes = b""
    answer: bytes = b""
    every_s: float = 2.0


class NodeVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """A node is dead, or has left. `attachments` are those judged, by source; a greater one undoes it (F4).

    `others` is the sum of the attachments of all sources that are not named: there may be too many for an event.
    """

    state: Literal["dead", "left"]
    road: Literal["closed", "silent", "operator"]
    attachments: dict[str, int]
    evidence: tuple[str, ...]
    message: str
    since_ms: int
    others: int = 0


class NodeControl(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's will for a node."""

    mode: Literal["active", "draining", "excluded"]
    by: str
    reason: str


class ControllerState(msgspec.Struct, frozen=True, kw_only=True):
    """A controller, live while its session is open. `ruleset` is A10's number."""

    version: str
    ruleset: int
    pid: int | None
    decisions: int


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A broker's word on one attachment of a source (F1, F2). `how` says how it was closed."""

    attachment: int
    state: Literal["open", "silent", "closed"]
    how: Literal["peer", "timeout", "local"] | None
    since_ms: int
    incarnation: int
    pid: int | None
    version: str
    address: str


class BrokerStats(msgspec.Struct, frozen=True, kw_only=True):
    """A broker on itself, each 30 s, on start and when somebody exports: the signed head of its store is the witness of J3.

    `head` is the last row that it stands over, `head_hash` the head of the tree over all of them (`event.rowtree`).
    """

    store: str
    head: int
    head_hash: bytes
    sessions: int
    events: int
    facts: int
    disk_bytes: int
    history_from_ms: int
    dropped: int
    lag_s: float
    pid: int | None
    version: str
    address: str
    clock_ahead_s: float = 0.0
    """Its machine's clock minus realm time."""
    early_s: float = 0.0
    """By how much what was decided before, and is brought back to it, is ahead of realm time and refused for that."""


class SpecFact(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator wants a service to be; its version is the revision. `removed` ends the service.

    `since` is the first revision that said the same but for how many instances there are; 0 where it is this one.
    `earlier` is what specs that slots may go back to said otherwise of where instances may be: by their event's id, by
    component, by field.
    """

    spec: dict[str, Any]
    by: str
    reason: str
    removed: bool = False
    since: int = 0
    earlier: dict[str, dict[str, dict[str, Any]]] = {}


class NodesetFact(msgspec.Struct, frozen=True, kw_only=True):
    """A named node set."""

    expression: str
    by: str
    reason: str = ""


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """A stop by hand: it survives apply and failover until it is lifted."""

    by: str
    at_ms: int
    reason: str


class SlotControl(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's lasting will for one slot: held or not, how often restarted, where it was asked to move.

    Restarts and moves are numbered; a slot's fact names the last that was done of each.
    """

    hold: Hold | None = None
    restart: int = 0
    move: str | None = None
    """To this node; to any other one if it is empty."""
    leave: str = ""
    """The node that a move to any other one is to leave: where the slot was when that was said."""
    move_number: int = 0
    accept_data_loss: bool = False
    """It is moved though its data stays behind: in the move of this number, and in no other."""
    by: str = ""
    reason: str = ""


class Home(msgspec.Struct, frozen=True, kw_only=True):
    """The node whose disk holds a pinned slot's data, with the `key` of its attributes, by which that machine is told."""

    node: str
    key: str


class Previous(msgspec.Struct, frozen=True, kw_only=True):
    """The node that keeps its copy until the new one is ready or the deadline passes (A8)."""

    node: str
    generation: int
    deadline_ms: int


class Good(msgspec.Struct, frozen=True, kw_only=True):
    """A revision with which an instance was ready for `update.healthy_after`; `spec` is the id of its spec event."""

    spec: str
    revision: int


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """One slot's decision; the fact's version is the generation (R3). `spec` is the id of the spec event (A12).

    `good` is the last revision that was good in this slot: the only one to go back to. `former` is the one that it had
    before this one, whether it was good then or not. `home` is where its data is.
    `refused` is a later revision that was rolled back to this one. `move_number` is that of the last move by an operator
    that is done.
    `parked`: its instance was parked, and is stopped here only to start on another node.
    """

    node: str | None
    spec: str
    revision: int
    desired: Literal["running", "stopped", "gone"]
    previous: Previous | None = None
    moves: int = 0
    moved_at_ms: int | None = None
    restart: int = 0
    move_number: int = 0
    reason: Reason | None = None
    refused: int = 0
    good: Good | None = None
    former: Good | None = None
    home: Home | None = None
    parked: bool = False

    @property
    def held(self) -> bool:
        """Whether an operator's hold stopped it."""
        return self.desired == "stopped" and self.reason is not None and self.reason.code == "hold.operator"

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that may run it: the one that it is on, and the one that keeps its copy meanwhile."""
        both = (self.node, None if self.previous is None else self.previous.node)
        return tuple(node for node in both if node is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """The ids of the spec events that its nodes may ask for: of what it implements, and of what it would go back to.

        One that is gone comes back with what was good, and implements what it did where a later revision was refused.
        """
        back = [one.spec for one in (self.good, None if self.desired == "gone" else self.former) if one is not None]
        return tuple(back) if self.desired == "gone" and not self.refused else (self.spec, *back)


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One observer's word on one layer of an instance (docs/reference/topics.md)."""

    state: State
    layer: Layer
    node: str
    generation: int
    attempt: int
    since_ms: int
    emit_rate_s: float
    managed: bool = True
    orphan: bool = False
    reason: Reason | None = None
    pid: int | None = None
    restarts: int = 0
    restarts_recent: int = 0
    failures: int = 0
    """Failures in a row: the next try is one more than these."""
    next_try_ms: int | None = None
    parked: bool = False
    last_exit: LastExit | None = None
    last_command: str | None = None
    expired_command: str | None = None
    """The last command that came too late, and was not executed (A7)."""
    revision: int = 0
    good: Good | None = None
    """Of the application: the last revision that was good here."""


class LastExit(msgspec.Struct, frozen=True, kw_only=True):
    """How the run before this one ended; what failed before it could run has neither code nor signal."""

    code: int | None
    signal: str | None
    at_ms: int
    ran_s: float
    reason: Reason | None


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a download or an installation is. `total` is null when it is not known."""

    step: str
    done: int
    total: int | None
    unit: str


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A signal to a deployment agent (A7); it is executed once, if the generation is current."""

    id: str
    verb: Literal["APPCONFIG", "UPDATE", "UNINSTALL", "START", "STOP", "RESTART", "RETRY", "LOGS"]
    generation: int
    asker: str
    arguments: dict[str, Any] = {}


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The health monitor's word, with the evidence of the try that turned it."""

    health: Literal["ready", "unready", "none"]
    generation: int
    check: str
    evidence: str
    failures: int
    since_ms: int
    reason: Reason | None = None


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a ready instance is reached (A9); `ready` False withdraws it."""

    address: str
    ports: dict[str, int]
    generation: int
    ready: bool


class LogLines(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of an instance's output, on demand. `last` ends the answer to the command named in `command`.

    `written_ms` is when they were written, to within a second, if their agent saw them come; `upto` is the place in its
    stream behind them, from where a later command may go on.
    """

    command: str
    lines: tuple[str, ...]
    last: bool
    written_ms: int | None = None
    upto: int | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs of one batch of decisions (H2): enough to fold and decide again, and compare."""

    store: str
    row: int
    view_digest: bytes
    now_ms: int
    ruleset: int
    broker: str
    may_accuse: bool
    produced: tuple[str, ...]


class Brake(msgspec.Struct, frozen=True, kw_only=True):
    """`config/brake`: an operator holds all replacing, or releases it for what was silent up to `released_ms`."""

    held: bool
    released_ms: int
    by: str
    reason: str


class Tombstone(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one epoch of a thing, which is the epoch of the fact itself (A6)."""

    by: str
    reason: str


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the key that the topic names, and of all below it (J3). `name` is who had it."""

    by: str
    name: str = ""
    reason: str = ""


class KeeperReplaced(msgspec.Struct, frozen=True, kw_only=True):
    """A spawner, or the keeper of `up`, has died, and the source of this word has started another in its directory."""

    directory: str
    died: int
    """The pid of the one that died."""
    pid: int


class ClockWord(msgspec.Struct, frozen=True, kw_only=True):
    """`config/clock/<broker>`: a broker's machine, whose clock is `ahead_s` ahead of realm time, is right (J4)."""

    ahead_s: float
    by: str
    reason: str


class BrokerNotice(msgspec.Struct, frozen=True, kw_only=True):
    """A broker's signed word on a fault of the stream: `gap`, `equivocation`, `trimmed`, `declared`, `dropped`, `clock`.

    `first` and `last` are in one `unit`: sequences of the source, numbers of the topic's chain, or rows of the store.
    """

    kind: str
    source: str
    topic: str | None
    first: int
    last: int
    message: str
    unit: Literal["sequence", "number", "row"] = "sequence"


class TrimRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows of a store its broker let go (B6): `count` rows of one class between two, as the bytes of a `RowSet`.

    `number` is the store's own, for the broker to know that it has said it.
    """

    store: str
    number: int
    budget: Literal["evidence", "signal", "log"]
    first: int
    last: int
    count: int
    rows: bytes


def to_data(record: msgspec.Struct) -> dict[str, Any]:
    """A record as the `data` of an event: text, numbers, bytes, lists and maps only.

    It is equal to what a reader of the event decodes, so that contents can be compared (rule A13).
    """
    built: dict[str, Any] = _lists(msgspec.to_builtins(record, builtin_types=(bytes,)))
    return built


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_lists(one) for one in value]
    return value


def from_data(kind: type[Record], data: dict[str, Any]) -> Record:
    """The `data` of an event as its record. Raises `UnusableEventError` when it is not one."""
    try:
        return msgspec.convert(data, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise UnusableEventError("event.schema", f"data is no {kind.__name__}: {error}") from error
