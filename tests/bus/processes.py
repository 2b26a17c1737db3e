"""Brokers as processes of their own, which are killed and started again on their directories."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.operations.local.home.addresses import free_port
from dsmt.operations.offline import history
from dsmt.operations.offline.proving import verify
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.birth import birth_record, open_store
from dsmt.programs.configuration import BrokerFile, RealmConfig, write_config
from dsmt.trust.identity import Identity, dump
from tests.bus.realm import TestRealm, realm


class KilledBroker:
    """A broker's process that is killed and started again on its directory."""

    def __init__(self, r: TestRealm, name: str, config: RealmConfig, address: str, identity: Identity) -> None:
        self.directory: Path = r.directory / name
        self.name = f"broker/{name}"
        self.address = BrokerAddress(address, identity.key.public)
        write_config(self.directory / "broker.cbor", BrokerFile(realm=config, address=address))
        (self.directory / "identity").write_bytes(dump(identity))
        self.process: subprocess.Popen[bytes] | None = None

    def born(self, r: TestRealm, name: str) -> None:
        """The realm is born in its store."""
        store = open_store(self.directory)
        store.close()
        (self.directory / "birth").write_bytes(birth_record(r.name, f"broker/{name}", store.identity, r.root))

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dsmt.programs.broker", str(self.directory)], stderr=log, stdout=log
            )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def killed_brokers(r: TestRealm, *names: str) -> list[KilledBroker]:
    """Brokers that know each other; the realm is born in the first."""
    identities = {name: r.identity(f"broker/{name}") for name in names}
    addresses = {name: f"127.0.0.1:{free_port()}" for name in names}
    known = tuple((addresses[name], one.key.public) for name, one in identities.items())
    config = RealmConfig(name=r.name, roots=(r.root.public,), brokers=known)
    made = [KilledBroker(r, name, config, addresses[name], identities[name]) for name in names]
    made[0].born(r, names[0])
    r.brokers = [one.address for one in made]
    return made


def with_brokers(tmp_path: Path, scene: Callable[..., Awaitable[None]], *names: str, seconds: float = 50.0) -> None:
    """Play a scene with brokers that run; whatever becomes of it, they are killed at its end."""

    async def within() -> None:
        network = ZmqNetwork()
        try:
            async with asyncio.timeout(seconds), realm(network, tmp_path) as r:
                brokers = killed_brokers(r, *names)
                try:
                    for broker in brokers:
                        broker.start()
                    await scene(r, *brokers)
                finally:
                    for broker in brokers:
                        broker.kill()
        finally:
            network.close()

    asyncio.run(within())


async def is_whole(r: TestRealm, broker: KilledBroker) -> None:
    """An export of a broker verifies, and says that nothing is missing."""
    file = bytearray()
    reader = await r.client("operator/reader", reads=True, brokers=[broker.address])
    await history.export(reader, reader._trust, file.extend)
    await r.stop(reader)
    verdict = await asyncio.to_thread(verify, bytes(file), r.trust())
    assert verdict.ok, verdict
