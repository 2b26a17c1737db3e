"""A NATS server of the realm: how it is made, and its process, which becomes `nats-server` itself.

Its directory is that of its gate, a broker's (`programs.configuration`); `server.conf` is written anew at each start.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from dsmt.bus.rules.brokers import BROKERS_FILE, BrokerWords
from dsmt.bus.rules.nats_config import Gate, Server, Tls, server_config, server_name, way_of
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import RefusedError, UnusableEventError
from dsmt.event.addresses import host_of
from dsmt.ports.bus import BusReader
from dsmt.ports.realm import NatsTerms
from dsmt.programs.bus import nats_missing
from dsmt.programs.configuration import (
    BIRTH,
    IDENTITY,
    BrokerFile,
    GateFile,
    RealmConfig,
    ServersKey,
    read_identity,
)
from dsmt.system.entropy import SystemEntropy
from dsmt.system.files import write_atomically
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import TrustStore

COPIES: Final = 3
"""How many servers hold each stream, where there are so many."""


def main(directory: str) -> int:
    """Become the server of a directory; the exit code where that was removed. Raises `FailedError`: none is installed."""
    config = Path(directory) / "server.conf"
    try:
        write_atomically(str(config), configuration(Path(directory), log=_own_log(Path(directory))).encode())
    except RefusedError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit
    except OSError as error:  # a full disk keeps no server from what it holds: it starts as it did before
        if not config.exists():
            raise
        sys.stderr.write(f"{error}: the server starts with the configuration that it had\n")
    binary = program()
    return os.execv(binary, [binary, "-c", str(config)])  # noqa: S606 - it takes the place of this process


def _own_log(directory: Path) -> str:
    """The log to which this program was begun to write; empty for whatever else its standard error is."""
    log = directory / "nats_server.log"
    return str(log) if log.exists() and os.path.samestat(log.stat(), os.fstat(2)) else ""


def program() -> str:
    """The server's program: that of this environment, else that of the machine. Raises `FailedError`."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise nats_missing("nats-server")
    return found


def configuration(directory: Path, *, log: str = "") -> str:
    """What the server of a directory is told; in `log` it says how it is. Raises `RefusedError` for one that was removed."""
    told = BrokerFile.read(directory)
    keys = GateFile.read(directory)
    words = _words(directory, told.realm)
    own = directory / IDENTITY
    if own.exists() and read_identity(own).key.public in {one.public for one in words.removed.values()}:
        said = f"the NATS server at {told.address} was removed from realm {told.realm.name}"
        raise RefusedError("broker.removed", said, next="dsmt broker add makes another one")
    gone = {one.route for one in words.removed.values()}
    routes = dict.fromkeys([*keys.routes, *(one.route for one in words.present.values())])
    server = Server(
        name=keys.server or directory.name,
        listen=told.address,
        directory=str(directory),
        cluster=cluster_of(told, keys),
        routes=tuple(one for one in routes if one not in gone),
        synced=told.synced,
        log=log,
        tls=Tls(*(str(directory / name) for name in ("server.pem", "server.key", "authority.pem"))),
    )
    bridge = SecretKey(keys.bridge).public if keys.bridge else b""
    gate = Gate(SecretKey(keys.system).public, SecretKey(keys.issuer).public, bridge, way_of(keys.system))
    return server_config(server, gate)


def _words(directory: Path, realm: RealmConfig) -> BrokerWords:
    """What the gate beside a server has heard of brokers."""
    words = BrokerWords(realm.addresses, TrustStore(realm.realm), on_nats=True)
    with suppress(UnusableEventError, FileNotFoundError):
        words.recall((directory / BROKERS_FILE).read_bytes())
    return words


def cluster_of(told: BrokerFile, keys: GateFile) -> str:
    """Where a server listens for the others: in a directory of before this was kept, by its place among the brokers."""
    if keys.cluster or not keys.routes:
        return keys.cluster
    return keys.routes[[address for address, _ in told.realm.brokers].index(told.address)]


def make_servers(
    directories: Sequence[Path], realm: RealmConfig, routes: tuple[str, ...], *, home: Path, bridge: bytes = b""
) -> RealmConfig:
    """Make the directories of a realm's servers and gates, and in `home` the key for further ones; the realm on them.

    `bridge` is the seed of the key of who will make the streams, and fill them, where that is no gate. Raises
    `FailedError` where what they need is not installed.
    """
    try:
        import nats  # noqa: F401, PLC0415 - is it there?

        from dsmt.bus.nats.tls import issue_servers  # noqa: PLC0415 - only where it is installed
    except ImportError as error:
        raise nats_missing("its client") from error
    program()
    addresses = [address for address, _ in realm.brokers]
    hosts = [host_of(address) for address in addresses]
    authority, issued = issue_servers(realm.name, hosts, now_s=int(time.time()))
    replicas = COPIES if len(addresses) >= COPIES else 1
    known = msgspec.structs.replace(realm, nats=NatsTerms(authority=authority.certificate, replicas=replicas))
    entropy = SystemEntropy()
    key = ServersKey(authority=authority.key, system=entropy.bytes(32), issuer=entropy.bytes(32))
    ways = routes if len(addresses) > 1 else ("",) * len(addresses)
    gate = GateFile(system=key.system, issuer=key.issuer, routes=tuple(filter(None, ways)), bridge=bridge)
    for directory, address, way, tls in zip(directories, addresses, ways, issued, strict=True):
        BrokerFile(realm=known, address=address).write(directory)
        write_server(directory, msgspec.structs.replace(gate, cluster=way), authority.certificate, *tls)
    key.write(home)
    if not bridge:
        write_atomically(str(directories[0] / BIRTH), b"")
    return known


def write_server(directory: Path, gate: GateFile, authority: str, certificate: str, key: str) -> None:
    """Write what a server and its gate have besides a broker's file and identity."""
    gate.write(directory)
    texts = {"authority.pem": authority, "server.pem": certificate, "server.key": key}
    for name, text in texts.items():
        write_atomically(str(directory / name), text.encode())


# --- servers that are added, and those that are given up ---------------------------------------------------------------


def new_key() -> str:
    """The key of a further server, in PEM. Raises `FailedError` where no server is installed."""
    program()
    from dsmt.bus.nats import tls  # noqa: PLC0415 - only where it is installed

    return tls.new_key()


def public_of(key: str) -> str:
    """Its public half, in PEM."""
    from dsmt.bus.nats import tls  # noqa: PLC0415 - only where it is installed

    return tls.public_of(key)


def sign(realm: RealmConfig, key: ServersKey, host: str, public: str, *, now_s: int) -> str:
    """The certificate of a further server at a host. Raises `ValueError` for what is no key."""
    from dsmt.bus.nats import tls  # noqa: PLC0415 - only where it is installed

    assert realm.nats is not None  # noqa: S101 - who adds a server has looked
    return tls.issue_server(tls.Issued(realm.nats.authority, key.authority), host, public, now_s=now_s)


def add_server(
    directory: Path,
    file: BrokerFile,
    *,
    public: bytes,
    secrets: tuple[bytes, bytes],
    routes: tuple[str, ...],
    cluster: str,
    tls: tuple[str, str],
) -> None:
    """Write what a further server and its gate need; `public` is its gate's key, `secrets` are those of all gates."""
    assert file.realm.nats is not None  # noqa: S101 - who adds a server has looked
    name = server_name(directory.name, public)
    gate = GateFile(system=secrets[0], issuer=secrets[1], routes=routes, cluster=cluster, server=name)
    write_server(directory, gate, file.realm.nats.authority, *tls)


async def kept_by(bus: BusReader, realm: RealmConfig, broker: str) -> str | None:
    """What keeps a server from going, until all that it held is with others. Raises `TransportError`, `RefusedError`."""
    from dsmt.bus.nats import streams  # noqa: PLC0415 - the same
    from dsmt.bus.nats.bus import NatsBus  # noqa: PLC0415 - only where it is installed

    assert isinstance(bus, NatsBus)  # noqa: S101 - who gives one up has looked
    return await streams.kept_by(await bus.held(), Subjects(realm.name), broker)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
