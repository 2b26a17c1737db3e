"""The broker's process: `python -m dsmt.programs.broker DIRECTORY`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dsmt.bus.broker import Broker, BrokerConfig
from dsmt.bus.sqlite import SqliteStore
from dsmt.bus.zeromq import ZmqNetwork
from dsmt.programs.configuration import BrokerFile, is_birth_record, read_config, read_identity
from dsmt.programs.running import run_until_signalled
from dsmt.system.clock import LinuxClock
from dsmt.system.entropy import SystemEntropy
from dsmt.trust.store import TrustStore
from dsmt.version import __version__


def main(directory: str) -> int:
    """Serve the realm from a broker's directory until a signal; the exit code."""
    return run_until_signalled(lambda: _serve(Path(directory)))


async def _serve(directory: Path) -> None:
    config = read_config(directory / "broker.cbor", BrokerFile)
    identity = read_identity(directory / "identity")
    entropy = SystemEntropy()
    trust = TrustStore(config.realm.realm)
    birth = directory / "birth"
    born = birth.exists() and is_birth_record(birth.read_bytes(), identity.name, trust)
    store = SqliteStore(str(directory / "store.db"), identity=entropy.bytes(8).hex(), synced=config.synced)
    broker = Broker(
        BrokerConfig(address=config.address, born=born, pid=os.getpid(), version=__version__),
        identity=identity,
        trust=trust,
        store=store,
        network=ZmqNetwork(),
        clock=LinuxClock(),
        entropy=entropy,
    )
    try:
        await broker.run()
    finally:
        store.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
