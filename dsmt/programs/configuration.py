"""What each program reads at its start: small canonical CBOR files in its directory, beside its `identity`.

| program | directory holds |
|---|---|
| broker | `broker.cbor`, `identity`, `birth` (the realm was born in this store: signed by its root), `store.db` |
| gate, NATS server | `broker.cbor`, `identity`, `birth` (till the streams are made), `gate.cbor`, `server.*`, `jetstream/` |
| controller | `controller.cbor`, `identity`, `issuer` (with which it certifies nodes: `dsmt.issuers`) |
| node | `node.cbor`, `identity`, `run/`, `containers/`, `data/` with its `KEY` |
| bridge | `migration.cbor`, `copied.cbor`; `brokers/` with the directories of the new NATS servers, or brokers |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, Self, TypeVar

import cbor2
import msgspec

from dsmt.errors import InputError, unreadable
from dsmt.event.payload import canonical
from dsmt.ports.realm import BrokerAddress, NatsTerms
from dsmt.system.files import write_atomically
from dsmt.trust.identity import Identity, load
from dsmt.trust.store import Realm

Config = TypeVar("Config", bound=msgspec.Struct)
IDENTITY: Final = "identity"
ISSUER: Final = "issuer"
BIRTH: Final = "birth"
ANEW: Final = "anew"
"""With this file in its directory the gate of one of several NATS servers makes the realm's streams anew."""
ATTACHED: Final = "attached"
"""The record of a node's manager, or of a controller, that was attached since its start."""
RESTORE: Final = "restore it from a backup, or choose another home: --home DIR"


@contextmanager
def legible() -> Iterator[None]:
    """For what a program reads before all else: `InputError` names a file that is none, or somebody else's."""
    try:
        yield
    except OSError as error:
        said = unreadable(error.filename, error)
        raise InputError("config.unreadable", said, next="see to its owner and mode, or restore it from a backup") from error


class ConfigFile(msgspec.Struct, frozen=True):
    """What stands in a directory, in the `FILE` of its kind."""

    FILE: ClassVar[str]

    @classmethod
    def read(cls, directory: Path) -> Self:
        """What stands there. Raises `InputError` that names the file."""
        return read_config(directory / cls.FILE, cls)

    @classmethod
    def at_start(cls, directory: Path, identity: str = IDENTITY) -> tuple[Self, Identity]:
        """What a program of a directory is told, and who it is; `InputError` names also a file that cannot be read."""
        with legible():
            return cls.read(directory), read_identity(directory / identity)

    def write(self, directory: Path) -> None:
        """Write it there, as `write_config` does."""
        write_config(directory / self.FILE, self)


class RealmConfig(ConfigFile, frozen=True, kw_only=True, omit_defaults=True):
    """A realm as its members know it: name, root public keys, brokers as (address, public key).

    With `nats` the brokers are NATS servers, and the keys those of their gates.
    """

    FILE = "realm.cbor"
    name: str
    roots: tuple[bytes, ...]
    brokers: tuple[tuple[str, bytes], ...]
    nats: NatsTerms | None = None

    @property
    def engine(self) -> str:
        """What carries it: `dsmt` or `nats`."""
        return "dsmt" if self.nats is None else "nats"

    @property
    def realm(self) -> Realm:
        """What a trust store needs."""
        return Realm(name=self.name, roots=self.roots)

    def distribution(self, *, serves: bool = False) -> str:
        """What must be installed where members of it run, or, with `serves`, a broker (PEP 508).

        The client of NATS is brought to all: the realm may move there.
        """
        return "dsmt[nats]" if serves and self.nats is not None else "dsmt[nats-client]"

    @property
    def clocks(self) -> list[BrokerAddress]:
        """The brokers that tell realm time to anybody who asks: a NATS server tells nobody without a certificate."""
        return self.addresses if self.nats is None else []

    @property
    def addresses(self) -> list[BrokerAddress]:
        """What a client needs."""
        return [BrokerAddress(address, public) for address, public in self.brokers]


class BrokerFile(ConfigFile, frozen=True, kw_only=True):
    """What a broker, or a NATS server, is told. `synced`: each commit is on the disk before it is acknowledged."""

    FILE = "broker.cbor"
    realm: RealmConfig
    address: str
    synced: bool = False


class GateFile(ConfigFile, frozen=True, kw_only=True):
    """The seeds of the keys with which a gate connects, and lets in; the same for all gates of a realm.

    `routes` is where the servers listen for each other that were known when this one was made, and `cluster` where this one
    does; one alone has none. `server` is what it is called in the cluster, if not as its broker: a name that was given up
    is no member again for minutes. `bridge` is the seed of the key of who fills the servers before the realm moves to
    them, or reads them as it leaves; else empty.
    """

    FILE = "gate.cbor"
    system: bytes
    issuer: bytes
    routes: tuple[str, ...] = ()
    bridge: bytes = b""
    cluster: str = ""
    server: str = ""


class ServersKey(ConfigFile, frozen=True, kw_only=True):
    """Of a home, beside its root key: what makes further servers; no other machine is given all of it.

    `authority` is the key in PEM that signs the servers' certificates, `system` and `issuer` are those of all gates.
    """

    FILE = "servers.key"
    authority: str
    system: bytes
    issuer: bytes


class MigrationFile(ConfigFile, frozen=True, kw_only=True):
    """A move of the realm to another engine, `nats` or `dsmt`, that is under way.

    `cut`: the brokers were ended, or are to be. `aside` is the name of the directory to which theirs goes. `members` are
    those on other machines that are to come along, each with since when it was attached before (realm ms).
    """

    FILE = "migration.cbor"
    engine: str = "nats"
    cut: bool = False
    aside: str = ""
    members: dict[str, int] = {}


class CopiedFile(ConfigFile, frozen=True, kw_only=True):
    """How far a bridge has come: the last row that it has copied, and the last one of the store.

    `level`: it has had all that there was, since it was started. `why`: what keeps it from going on, if anything does.
    """

    FILE = "copied.cbor"
    row: int = 0
    head: int = 0
    level: bool = False
    why: str = ""


class ControllerFile(ConfigFile, frozen=True, kw_only=True):
    """What a controller is told."""

    FILE = "controller.cbor"
    realm: RealmConfig


class NodeFile(ConfigFile, frozen=True, kw_only=True):
    """What a node's programs are told. `address` is where its services listen; `elsewhere`: it is not one of its machine.

    So it is behind NAT: somebody has typed it, and it stays.
    """

    FILE = "node.cbor"
    node: str
    realm: RealmConfig
    address: str = "127.0.0.1"
    labels: dict[str, str] = {}
    elsewhere: bool = False


def brokers_in(directory: Path) -> list[Path]:
    """The directories of the brokers of a home, or of the servers to which it moves: always in the same order."""
    return sorted(one for one in directory.iterdir() if (one / BrokerFile.FILE).exists())


def write_config(path: Path, config: msgspec.Struct) -> None:
    """Write a configuration file, mode 0600, whole or not at all, making its directory; what stands there takes no room."""
    content = canonical(msgspec.to_builtins(config, builtin_types=(bytes,)))
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(str(path), content)


def set_realm(directory: Path, realm: RealmConfig) -> None:
    """Have the program of a directory know its realm so at its next start. Raises `InputError` for a damaged file."""
    kinds: tuple[type[BrokerFile | ControllerFile | NodeFile], ...] = (BrokerFile, ControllerFile, NodeFile)
    for kind in kinds:
        if (directory / kind.FILE).exists():
            msgspec.structs.replace(kind.read(directory), realm=realm).write(directory)


def read_config(path: Path, kind: type[Config]) -> Config:
    """Read a configuration file. Raises `InputError` that names it."""
    try:
        told: Any = cbor2.loads(path.read_bytes())
        return msgspec.convert(told, kind, builtin_types=(bytes,))
    except FileNotFoundError as error:
        raise InputError("config.missing", f"{path} is missing", next=RESTORE) from error
    except (cbor2.CBORDecodeError, msgspec.ValidationError, ValueError) as error:
        raise InputError("config.broken", f"{path} is damaged: it holds no configuration", next=RESTORE) from error


def read_identity(path: Path) -> Identity:
    """Read an identity file. Raises `InputError` that names it."""
    try:
        return load(path.read_bytes(), where=str(path))
    except FileNotFoundError as error:
        said = f"{path} is missing: the key and certificate of who works here"
        raise InputError("trust.identity", said, next=RESTORE) from error
