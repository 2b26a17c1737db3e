"""A container: what stands in its directory, what its agent is told, and the codes it exits with.

Layout, below the node's `containers/<service>/<component>/<index>/`:

| file | holds | written by |
|---|---|---|
| `agent.cbor` | `AgentConfig` | the container manager |
| `identity` | the agent's delegated identity (`dsmt.trust.identity.dump`) | the container manager |
| `slot.event` | the slot fact obeyed, as signed, and its signer's certificates | the manager at creation, then the agent |
| `told.event` | the slot fact that the manager has heard and the agent had not, in the same way | the container manager |
| `spec.event` | the spec fact that slot names, in the same way | the agent |
| `instance.json` | `InstanceRecord` (`dsmt.agents.rules.record`) | the agent |
| `held.json` | who has stopped it on this node (`HeldHere`), while that lasts | `dsmt stop --local` |
| `outcome` | `gone` or `recreate`: why the agent ended by itself | the agent |
| | `followed` or `excused`: that dsmt ended it | `dsmt upgrade`, `dsmt bus migrate`, the container manager |
| `agent.json` | which process the agent is (`ProcessIdentity`) | the container manager |
| `files/<install key>/` | the instance's directory, one for each installation | the agent |
| `logs/` | `stdout.log`, `stderr.log`, a log for each step | the programs |
| | `stdout-2.log`, `stderr-2.log`: of one that was begun beside another, which writes to the first | the programs |

`{data}` is outside, below the node's data root: `<service>/<component>/<index>`; it survives the container.
"""

from __future__ import annotations

import signal
from enum import StrEnum
from typing import Final

import cbor2
import msgspec

from dsmt.errors import InputError
from dsmt.event.payload import canonical
from dsmt.event.slots import SlotKey
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
HELD: Final = "held.json"
OUTCOME: Final = "outcome"
PROCESS: Final = "agent.json"
FILES: Final = "files"
LOGS: Final = "logs"
LEFT: Final = frozenset({SLOT, TOLD, SPEC, RECORD, HELD, FILES})
"""What stays of a container that is cleared away (`dsmt down`): what its node brings to a store that lacks it (R5), what
its agent had written down, who has stopped it here, and what is installed: a depot that was lost cannot give that (E6)."""
KEPT_BY_RECREATION: Final = frozenset({CONFIG, IDENTITY, SLOT, TOLD, SPEC, HELD, LOGS})
"""What stays of a container in whose place a new one is made: what was told, and what the runs wrote that led to it."""

POKE: Final = signal.SIGURG
"""Sent to an agent: there is something in `TOLD` or `HELD`. Its default action is nothing (signal(7))."""


class AgentOutcome(StrEnum):
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


def dump_config(config: AgentConfig) -> bytes:
    """`agent.cbor`: canonical CBOR."""
    return canonical(msgspec.to_builtins(config, builtin_types=(bytes,)))


def load_config(raw: bytes | None, *, where: str) -> AgentConfig:
    """Read `agent.cbor`. Raises `InputError` that names the file."""
    try:
        return msgspec.convert(cbor2.loads(raw or b""), AgentConfig, builtin_types=(bytes,))
    except (cbor2.CBORDecodeError, msgspec.ValidationError, ValueError) as error:
        raise InputError("agent.config", f"{where} cannot be used: {error}", next="the manager makes it anew") from error
