"""Real NATS servers for tests: one, or a cluster, on free ports; they end with who started them, whatever happens."""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from dsmt.bus.nats.connecting import NatsRealm
from dsmt.bus.nats.gate import GateKeys, NatsGate
from dsmt.bus.nats.link import ApiError, NatsLink
from dsmt.bus.nats.streams import make_streams
from dsmt.bus.nats.tls import issue_servers
from dsmt.bus.rules import nats_config as config
from dsmt.bus.rules.nats_config import Server, Tls, server_config
from dsmt.bus.wire.nats_tokens import certificates_token, connection_name
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import DsmtError, TransportError
from dsmt.operations.local.home.addresses import free_port
from dsmt.ports.realm import About
from dsmt.system.files import DiskFiles
from dsmt.trust.identity import Identity
from dsmt.trust.keys import SecretKey
from tests.bus.realm import TestClock, TestEntropy, TestRealm

BINARY = os.environ.get("DSMT_NATS_SERVER") or str(Path(sys.executable).parent / "nats-server")


def _ends_with_us() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Gates:
    """The gates of servers, kept as a keeper would keep them; each is a broker of a realm, named as its server is."""

    def __init__(self, made: TestRealm, servers: NatsServers) -> None:
        self._made, self._servers = made, servers
        system, issuer = (SecretKey(os.urandom(32)) for _ in range(2))
        self.keys = GateKeys(system, issuer)
        self.way = os.urandom(8).hex()
        self.public = config.Gate(system.public, issuer.public, way=self.way)
        self.administrator = made.identity("broker/administrator")
        self.identities = [made.identity(f"broker/{name}") for name in servers.names]
        self.born = asyncio.Event()
        self.running: dict[int, NatsGate] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.full = ""
        """The directory whose disk they say is full."""
        self.low = False

    def open(self, *which: int) -> None:
        for n in which or range(len(self.identities)):
            self._tasks[n] = asyncio.create_task(self._keep(n))

    async def close(self, *which: int) -> None:
        for n in which or list(self._tasks):
            task = self._tasks.pop(n)
            task.cancel()
            await asyncio.wait({task})

    async def _keep(self, n: int) -> None:
        while True:
            born = n == 0 and not self.born.is_set()
            anew = not born and self._servers.realm().replicas == 1
            gate = self.running[n] = NatsGate(
                identity=self.identities[n],
                trust=self._made.trust(),
                realm=replace(self._servers.administered(), own=self._servers.addresses[n]),
                keys=self.keys,
                clock=TestClock(),
                entropy=TestEntropy(),
                about=About(os.getpid(), "test"),
                made=self.born.set if born or anew else None,
                anew=anew,
                known=None,
                dismissed=lambda: None,
                full=lambda: self.full,
                low=lambda: self.low,
                ends=DiskFiles(str(self._servers.directory / f"gate{n}"), durable=False),
            )
            try:
                await gate.run()
            except* TransportError:
                await asyncio.sleep(0.05)


class NatsServers:
    """`count` servers; where no `gates` stand beside them everybody may do everything."""

    def __init__(self, count: int, *, tls: bool = False, synced: bool = False, host: str = "127.0.0.1") -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="dsmt-nats-"))
        self._authority, certificates = self._issued(count, host.strip("[]")) if tls else ("", [])
        ports = [free_port() for _ in range(2 * count)]
        self.addresses = [f"{host}:{port}" for port in ports[:count]]
        routes = tuple(f"127.0.0.1:{port}" for port in ports[count:])
        self._servers = [
            Server(
                name=f"s{n}",
                listen=self.addresses[n],
                directory=str(self.directory / f"s{n}"),
                cluster=routes[n] if count > 1 else "",
                routes=routes,
                synced=synced,
                tls=certificates[n] if tls else None,
            )
            for n in range(count)
        ]
        self.names = [one.name for one in self._servers]
        self.gates: Gates | None = None
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        atexit.register(self.close)

    def _issued(self, count: int, host: str) -> tuple[str, list[Tls]]:
        authority, issued = issue_servers("test", [host] * count, now_s=int(time.time()))
        (self.directory / "ca.pem").write_text(authority.certificate)
        for n, one in enumerate(issued):
            (self.directory / f"s{n}.pem").write_text(one.certificate)
            (self.directory / f"s{n}.key").write_text(one.key)
        at = str(self.directory)
        return authority.certificate, [Tls(f"{at}/s{n}.pem", f"{at}/s{n}.key", f"{at}/ca.pem") for n in range(count)]

    def realm(self, *, addresses: list[str] | None = None) -> NatsRealm:
        replicas = 3 if len(self._servers) >= 3 else 1
        addresses = addresses or self.addresses
        return NatsRealm(tuple(addresses), replicas, authority=self._authority, gated=self.gates is not None)

    def administered(self) -> NatsRealm:
        """The same, for who may administer the streams."""
        return replace(self.realm(), way="" if self.gates is None else self.gates.way)

    def _write(self, n: int) -> Path:
        path = self.directory / f"s{n}.conf"
        path.write_text(server_config(self._servers[n], self.gates and self.gates.public))
        return path

    def start(self, *which: int) -> None:
        for n in which or range(len(self._servers)):
            with (self.directory / f"s{n}.log").open("ab") as log:
                command = [BINARY, "-c", self._write(n)]
                self.processes[n] = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=_ends_with_us)  # noqa: PLW1509

    def stop(self, *which: int, hard: bool = False) -> None:
        for n in which or list(self.processes):
            self.processes[n].send_signal(signal.SIGKILL if hard else signal.SIGTERM)
        for n in which or list(self.processes):
            self.processes.pop(n).wait(20)

    def forget(self) -> None:
        """The disks are gone."""
        for n in range(len(self._servers)):
            shutil.rmtree(self.directory / f"s{n}", ignore_errors=True)

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait(20)
        self.processes.clear()
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.directory.glob("*.log")))

    async def administrator(self, seconds: float = 20.0) -> NatsLink:
        """A link that may do everything, when a server is there."""
        deadline = time.monotonic() + seconds
        while True:
            with suppress(DsmtError):
                return await self._link()
            assert time.monotonic() < deadline, f"no server came up: {self.log()[-2000:]}"
            await asyncio.sleep(0.02)

    async def _link(self) -> NatsLink:
        if self.gates is None:
            return await NatsLink.connect(self.addresses[0], self.realm(), key=SecretKey(os.urandom(32)), name="tests")
        return await self.link(self.gates.administrator, self.administered())

    async def link(self, identity: Identity, realm: NatsRealm | None = None) -> NatsLink:
        """A bare link of a source that minds no rule."""
        shows = certificates_token([one.raw for one in identity.chain])
        name, realm = connection_name(identity.name, About(None, "test"), 0, reads=True), realm or self.realm()
        return await NatsLink.connect(self.addresses[0], realm, key=identity.key, name=name, shows=shows)

    async def make(self, realm: str, seconds: float = 60.0) -> Subjects:
        """The streams of a new realm."""
        subjects, deadline = Subjects(realm), time.monotonic() + seconds
        while True:
            link = await self.administrator()
            try:
                await make_streams(link, subjects, replicas=self.realm().replicas)
            except (ApiError, DsmtError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
            else:
                return subjects
            finally:
                await link.close()


class Way:
    """A way to the servers that can be shut: every connection over it is lost, and none is made."""

    def __init__(self, targets: list[str]) -> None:
        self._targets = targets
        self._ports = [free_port() for _ in targets]
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self.addresses = [f"127.0.0.1:{port}" for port in self._ports]

    async def open(self) -> None:
        for port, target in zip(self._ports, self._targets, strict=True):
            self._servers.append(await asyncio.start_server(self._through(target), "127.0.0.1", port))

    async def shut(self) -> None:
        for server in self._servers:
            server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self._servers = []

    def _through(self, target: str):
        host, _, port = target.rpartition(":")

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError, asyncio.IncompleteReadError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
            writer.transport.abort()

        async def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                far_reader, far_writer = await asyncio.open_connection(host, int(port))
            except OSError:
                writer.transport.abort()
                return
            self._writers |= {writer, far_writer}
            try:
                await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
            finally:
                self._writers -= {writer, far_writer}

        return opened
