"""Node processes: what the three programs of a node have in common: their files and their client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from dsmt.ports.bus import Bus
from dsmt.programs.bus import the_bus
from dsmt.programs.configuration import RealmConfig
from dsmt.system.files import DiskFiles
from dsmt.trust.identity import Identity
from dsmt.trust.store import TrustStore

MONITOR_IDENTITY: Final = "monitor.identity"


def data_root(directory: Path) -> str:
    """Where `{data}` directories are: beside the containers, and not in them."""
    return str(directory / "data")


def bus_of_manager(node: str) -> str:
    """Where the client of a node's container manager keeps what it has learnt."""
    return f"{node}/bus/manager"


def bus_of_monitor(node: str) -> str:
    """The same of its monitor's."""
    return f"{node}/bus/monitor"


def bus_of_agent(container: DiskFiles) -> str:
    """Where the client of an agent keeps what it has learnt: nothing, where its program has put something else there."""
    place = f"{container.root}/bus"
    held = [f"{place}/{name}" for name in container.names("bus")] if os.path.isdir(place) else [place]
    if os.path.islink(place) or any(os.path.islink(one) or not os.path.isfile(one) for one in held):
        container.remove("bus")
    return place


@asynccontextmanager
async def client(
    identity: Identity, realm: RealmConfig, *, directory: str, address: str, trust: TrustStore | None = None
) -> AsyncIterator[Bus]:
    """A client of the bus that keeps itself attached while the block lasts; `directory` keeps its incarnation.

    What it is shown is in `trust`.
    """
    trust, kept = trust or TrustStore(realm.realm), DiskFiles(directory, durable=False)
    with the_bus(identity, trust, realm.addresses, address=address, kept=kept, nats=realm.nats) as bus:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(bus.run())
            yield bus
            running.cancel()
