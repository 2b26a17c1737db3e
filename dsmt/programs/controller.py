"""The controller's process: `python -m dsmt.programs.controller DIRECTORY`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from dsmt.bus.adapters.zeromq import ZmqNetwork
from dsmt.bus.client.client import About, BusClient
from dsmt.controllers.resaying import Resaying
from dsmt.controllers.runner import ControllerRunner
from dsmt.logs import Logger
from dsmt.programs.configuration import ControllerFile, read_config, read_identity
from dsmt.programs.keeper import keep_keeper, keeper_teller, on_the_bus
from dsmt.programs.running import run_until_signalled
from dsmt.system.clock import LinuxClock
from dsmt.system.entropy import SystemEntropy
from dsmt.system.processes import PAUSE_S
from dsmt.trust.store import TrustStore
from dsmt.version import __version__


def main(directory: str) -> int:
    """Control the realm that a controller's directory names until a signal; the exit code."""
    return run_until_signalled(lambda: _serve(Path(directory)))


async def _serve(directory: Path) -> None:
    config = read_config(directory / "controller.cbor", ControllerFile)
    clock, network = LinuxClock(), ZmqNetwork()
    bus = BusClient(
        identity=read_identity(directory / "identity"),
        trust=TrustStore(config.realm.realm),
        brokers=config.realm.addresses,
        network=network,
        clock=clock,
        entropy=SystemEntropy(),
        about=About(os.getpid(), __version__),
    )
    log = Logger(source=bus.source)
    trust = bus.trust
    runner = ControllerRunner(
        bus,
        clock,
        version=__version__,
        pid=os.getpid(),
        complain=log.warning,
        resaying=Resaying(bus.source, trust.disowns, lambda: trust.revocations),
    )
    tell = keeper_teller(on_the_bus(bus), directory.parent.parent)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(bus.run())
            group.create_task(runner.run())
            group.create_task(keep_keeper("controller", directory, pause_s=PAUSE_S, replaced=tell))
    finally:
        network.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
