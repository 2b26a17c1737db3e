"""Node processes: what the three programs of a node have in common: their files and their client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog  # noqa: F401 - warm in the spawner, so that its forks share it: 7 MB less for each agent

from dsmt.bus.adapters.zeromq import ZmqNetwork
from dsmt.bus.client.client import About, BusClient
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.configuration import NodeFile, read_config, read_identity
from dsmt.system.clock import LinuxClock
from dsmt.system.entropy import SystemEntropy
from dsmt.system.files import DiskFiles
from dsmt.trust.identity import Identity
from dsmt.trust.store import Realm, TrustStore
from dsmt.version import __version__


@dataclass(frozen=True, slots=True)
class Outside:
    """The parts of the machine that every program of a node uses."""

    clock: LinuxClock
    entropy: SystemEntropy


def outside() -> Outside:
    """The real ones."""
    return Outside(LinuxClock(), SystemEntropy())


def data_root(directory: Path) -> str:
    """Where `{data}` directories are: beside the containers, and not in them."""
    return str(directory / "data")


def read_node(directory: Path) -> tuple[NodeFile, Identity]:
    """What a node's programs are told, and who the node is. Raises `InputError` that names the file."""
    return read_config(directory / "node.cbor", NodeFile), read_identity(directory / "identity")


@asynccontextmanager
async def client(
    identity: Identity,
    realm: Realm,
    brokers: tuple[tuple[str, bytes], ...],
    deps: Outside,
    *,
    directory: str,
    address: str,
) -> AsyncIterator[BusClient]:
    """A client of the bus that keeps itself attached while the block lasts; `directory` keeps its incarnation."""
    network = ZmqNetwork()
    made = BusClient(
        identity=identity,
        trust=TrustStore(realm),
        brokers=[BrokerAddress(where, public) for where, public in brokers],
        network=network,
        clock=deps.clock,
        entropy=deps.entropy,
        about=About(pid=os.getpid(), version=__version__, address=address),
        kept=DiskFiles(directory, durable=False),
    )
    try:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(made.run())
            yield made
            running.cancel()
    finally:
        network.close()
