"""A container: what stands in its directory, what its agent is called, and the codes it exits with.

Layout, below the node's `containers/<service>/<component>/<index>/`:

| file | holds | written by |
|---|---|---|
| `agent.cbor` | `AgentConfig` | the container manager |
| `identity` | the agent's delegated identity (`dsmt.trust.identity.dump`) | the container manager |
| `slot.event` | the slot fact obeyed, as signed, and its signer's certificates | the manager at creation, then the agent |
| `told.event` | the slot fact that the manager has heard and the agent had not, in the same way | the container manager |
| `spec.event` | the spec fact that slot names, in the same way | the agent |
| `instance.json` | `InstanceRecord` | the agent |
| `outcome` | `gone` or `recreate`: why the agent ended by itself | the agent |
| | `followed` or `excused`: that dsmt ended it | `dsmt upgrade`, `dsmt bus migrate`, the container manager |
| `agent.json` | which process the agent is (`ProcessIdentity`) | the container manager |
| `files/<install key>/` | the instance's directory, one for each installation | the agent |
| `logs/` | `stdout.log`, `stderr.log`, a log for each step | the programs |

`{data}` is outside, below the node's data root: `<service>/<component>/<index>`; it survives the container.
"""

from __future__ import annotations

import signal
from enum import StrEnum
from typing import Final

import cbor2
import msgspec

from dsmt.agents.rules.supervision import RestartHistory
from dsmt.errors import InputError
from dsmt.event.kinds.instance import LastExit
from dsmt.event.kinds.slot import Good
from dsmt.event.payload import canonical
from dsmt.event.reason import Reason
from dsmt.event.slots import SlotKey
from dsmt.event.status import State
from dsmt.ports.driver import Handle
from dsmt.ports.realm import NatsTerms

EXIT_GONE: Final = 0
"""The agent has stopped, uninstalled and said so: its container can go."""
EXIT_STOPPED: Final = 3
"""It was told to stop, and has stopped its instance; the slot is still this node's."""
EXIT_RECREATE: Final = 4
"""Escalation asks for a new container."""

CONFIG: Final = "agent.cbor"
IDENTITY: Final = "identity"
SLOT: Final = "slot.event"
TOLD: Final = "told.event"
SPEC: Final = "spec.event"
RECORD: Final = "instance.json"
OUTCOME: Final = "outcome"
PROCESS: Final = "agent.json"
FILES: Final = "files"
LOGS: Final = "logs"
LEFT: Final = frozenset({SLOT, TOLD, SPEC, RECORD, FILES})
"""What stays of a container that is cleared away (`dsmt down`): what its node brings to a store that lacks it (R5), what
its agent had written down, and what is installed, which a depot that was lost cannot give again (E6)."""
KEPT_BY_RECREATION: Final = frozenset({CONFIG, IDENTITY, SLOT, TOLD, SPEC})

POKE: Final = signal.SIGURG
"""Sent to an agent: there is something in `TOLD`. Its default action is nothing (signal(7))."""


class Ended(StrEnum):
    """The outcome of an agent: as what its container's keeper takes its end."""

    GONE = "gone"
    RECREATE = "recreate"
    FOLLOWED = "followed"
    """It was ended so that one of another version follows it."""
    EXCUSED = "excused"
    """It was ended by dsmt: the next agent counts nothing against the step in which it was (`dsmt.agents.node.excusing`)."""


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent is told by its manager. `brokers` are (host:port, public key); paths are absolute."""

    node: str
    service: str
    component: str
    index: str
    realm: str
    roots: tuple[bytes, ...]
    brokers: tuple[tuple[str, bytes], ...]
    address: str
    labels: dict[str, str] = {}
    node_directory: str = ""
    data_root: str = ""
    nats: NatsTerms | None = None
    """With it the brokers are NATS servers."""

    @property
    def slot(self) -> SlotKey:
        """The slot it is for."""
        return SlotKey(self.service, self.component, int(self.index))


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's container manager is told. `directory` is the node's own, `data_root` where `{data}` is; absolute.

    `data_key` tells that this is the data directory that it was (`agents.node.data_key`).
    """

    node: str
    realm: str
    roots: tuple[bytes, ...]
    brokers: tuple[tuple[str, bytes], ...]
    address: str
    directory: str
    data_root: str
    data_key: str
    labels: dict[str, str] = {}
    nats: NatsTerms | None = None
    heartbeat_s: float = 1.0
    """Seconds from one of the node's heartbeats to the next."""

    def for_agent(self, slot: SlotKey) -> AgentConfig:
        """What the agent of a slot is told."""
        return AgentConfig(
            node=self.node,
            service=slot.service,
            component=slot.component,
            index=str(slot.index),
            realm=self.realm,
            roots=self.roots,
            brokers=self.brokers,
            nats=self.nats,
            address=self.address,
            labels=self.labels,
            node_directory=self.directory,
            data_root=self.data_root,
        )


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """The copy that is still served while its successor starts, and its ports: all that takes it over or back."""

    process: Handle
    ports: dict[str, int]
    driver: str = ""
    run_key: str = ""
    install_key: str = ""
    run_generation: int = 0
    run_restart: int = 0
    began_s: float = 0.0
    restarts: int = 0
    history: RestartHistory = RestartHistory()
    """How often it had been restarted when it was let go: what its successor fails is not its own."""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has ended well: its key, the slot's restart number under which it was started, and how it ended."""

    run_key: str
    restart: int
    at_ms: int
    ran_s: float


class InstanceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent must know of its instance after it was killed. Times `_s` are boot-time seconds of `boot`.

    `epoch` and `generation` are those of the slot fact that was obeyed. `process` is what runs, in words of its `driver`,
    with `run_key`, `install_key`, `run_generation` and `run_restart` it was started under; `ready` and `started` are its
    health; `check` is by which checks it was ready last (`launching.check_key`), empty while it was by none.
    `installed` are the keys of complete installations. `held` is the generation in which a STOP command came, 0 for none.
    """

    boot: str
    epoch: int = 0
    generation: int = 0
    revision: int = 0
    state: State | None = None
    attempt: int = 0
    since_ms: int = 0
    taken_ms: int | None = None
    process: Handle | None = None
    outgoing: Outgoing | None = None
    driver: str = ""
    run_key: str = ""
    install_key: str = ""
    run_generation: int = 0
    run_restart: int = 0
    started: bool = False
    ready: bool = False
    check: str = ""
    began_s: float = 0.0
    output: dict[str, int] = {}
    before: dict[str, tuple[bool, int, int]] = {}
    """The output of the run before: for each stream whether it is in the rotated file, its start and end."""
    installed: tuple[str, ...] = ()
    configured: str = ""
    ports: dict[str, int] = {}
    restarts: int = 0
    finished: bool = False
    not_before_s: float = 0.0
    step: str = ""
    doing: str = ""
    """The step of the spec that is under way, with its key."""
    cut: int = 0
    """How many agents in a row have ended in it."""
    history: RestartHistory = RestartHistory()
    last_exit: LastExit | None = None
    good: Good | None = None
    good_key: str = ""
    """The run key that was good last: what asks for nothing else is good, too."""
    done: Done | None = None
    """What had ended well before anything else was wanted: who goes back to it does not run it again."""
    begun: dict[str, int] = {}
    """When the last few programs were begun here, by their run keys (realm ms)."""
    commands: tuple[str, ...] = ()
    last_command: str | None = None
    held: int = 0
    trigger: tuple[str, ...] = ()
    reason: Reason | None = None
    next_try_ms: int | None = None
    parked: bool = False
    """Why it failed, as that was told, and what comes next."""

    @property
    def ended_well(self) -> bool:
        """Whether its program has ended with 0, and is not run again, with what was good (A20)."""
        ended = self.finished and self.last_exit is not None and self.last_exit.code == 0
        return ended and self.good_key == self.run_key


def carried(record: InstanceRecord) -> InstanceRecord:
    """What of a record a new container inherits: counters, ports and words, no process and no files."""
    return InstanceRecord(
        boot=record.boot,
        epoch=record.epoch,
        generation=record.generation,
        revision=record.revision,
        state=record.state,
        attempt=record.attempt,
        since_ms=record.since_ms,
        ports=record.ports,
        restarts=record.restarts,
        not_before_s=record.not_before_s,
        history=record.history,
        last_exit=record.last_exit,
        good=record.good,
        good_key=record.good_key,
        done=record.done,
        begun=record.begun,
        doing=record.doing,
        cut=record.cut,
        commands=record.commands,
        last_command=record.last_command,
        held=record.held,
        trigger=record.trigger,
        reason=record.reason,
        next_try_ms=record.next_try_ms,
        parked=record.parked,
    )


def remembered(record: InstanceRecord | None) -> InstanceRecord | None:
    """What of a record outlives a cleared container: what was good (A18), has ended well (A20), and is installed (E6)."""
    if record is None or (record.good is None and not record.installed):
        return None
    kept = InstanceRecord(boot=record.boot, installed=record.installed)
    if record.good is None:
        return kept
    kept = msgspec.structs.replace(kept, good=record.good, good_key=record.good_key, done=record.done, begun=record.begun)
    if not record.ended_well:
        return kept
    return msgspec.structs.replace(
        kept,
        finished=True,
        last_exit=record.last_exit,
        run_key=record.run_key,
        install_key=record.install_key,
        run_restart=record.run_restart,
    )


def dump_record(record: InstanceRecord) -> bytes:
    """A record as JSON, which a person can read."""
    return msgspec.json.encode(record)


def load_record(raw: bytes | None) -> InstanceRecord | None:
    """Read a record; None when there is none or it is damaged: then nothing is known."""
    try:
        return None if raw is None else msgspec.json.decode(raw, type=InstanceRecord)
    except msgspec.DecodeError:
        return None


def dump_config(config: AgentConfig) -> bytes:
    """`agent.cbor`: canonical CBOR."""
    return canonical(msgspec.to_builtins(config, builtin_types=(bytes,)))


def load_config(raw: bytes | None, *, where: str) -> AgentConfig:
    """Read `agent.cbor`. Raises `InputError` that names the file."""
    try:
        return msgspec.convert(cbor2.loads(raw or b""), AgentConfig, builtin_types=(bytes,))
    except (cbor2.CBORDecodeError, msgspec.ValidationError, ValueError) as error:
        raise InputError("agent.config", f"{where} cannot be used: {error}", next="the manager makes it anew") from error
