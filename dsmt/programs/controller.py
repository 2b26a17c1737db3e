"""The controller's process: `python -m dsmt.programs.controller DIRECTORY`; and an issuer, if it has its key."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from dsmt.controllers.loop.runner import ControllerRunner
from dsmt.issuers.issuer import Issuer
from dsmt.logs import Logger
from dsmt.ports.bus import Bus
from dsmt.programs.bus import the_bus
from dsmt.programs.configuration import ISSUER, ControllerFile, RealmConfig
from dsmt.programs.following import Follower
from dsmt.programs.kept import keep_keeper, on_the_bus
from dsmt.programs.running import Attached, run_until_signalled
from dsmt.system.clock import LinuxClock
from dsmt.system.files import DiskFiles
from dsmt.system.garbage import collect_seldom
from dsmt.together import end_all
from dsmt.trust.identity import Identity
from dsmt.trust.store import TrustStore
from dsmt.version import __version__

LOOK_S: Final = 5.0
"""How often a controller without an issuer's key looks for one: `up` may bring it while it runs."""


def main(directory: str) -> int:
    """Control the realm that a controller's directory names until a signal; the exit code."""
    collect_seldom()
    return run_until_signalled(lambda: _serve(Path(directory)))


async def _serve(directory: Path) -> None:
    config, identity = ControllerFile.at_start(directory)
    trust = TrustStore(config.realm.realm)
    with _bus_of(identity, trust, config.realm, directory) as bus:
        bus.on_attached(Attached(directory).note)
        controlling = asyncio.ensure_future(_control(bus, trust, directory))
        moving = asyncio.ensure_future(Follower(bus, identity, directory, config.realm, trust).run())
        try:  # when the realm has moved this process ends: the next one is where it is
            done, _ = await asyncio.wait((controlling, moving), return_when=asyncio.FIRST_COMPLETED)
            done.pop().result()
        finally:
            await end_all(controlling, moving)


def _bus_of(identity: Identity, trust: TrustStore, realm: RealmConfig, directory: Path) -> AbstractContextManager[Bus]:
    """The bus of a controller, or of the issuer beside it; it keeps where the brokers are (rule R8), and nothing else."""
    return the_bus(identity, trust, realm.addresses, known=DiskFiles(str(directory), durable=False), nats=realm.nats)


async def _control(bus: Bus, trust: TrustStore, directory: Path) -> None:
    log = Logger(source=bus.source)
    runner = ControllerRunner(
        bus,
        LinuxClock(),
        trust,
        version=__version__,
        pid=os.getpid(),
        complain=log.warning,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(bus.run())
        group.create_task(runner.run())
        group.create_task(_issue(directory))
        group.create_task(keep_keeper("controller", directory, on_the_bus(bus)))


async def _issue(directory: Path) -> None:
    """Be an issuer, as soon as there is a key for that: a source of its own, with another key and another connection."""
    while not (directory / ISSUER).exists():  # noqa: ASYNC110 - a file tells nobody that it has come
        await asyncio.sleep(LOOK_S)
    config, identity = ControllerFile.at_start(directory, ISSUER)
    trust = TrustStore(config.realm.realm)
    with _bus_of(identity, trust, config.realm, directory) as bus:
        async with asyncio.TaskGroup() as group:
            group.create_task(bus.run())
            group.create_task(Issuer(bus, identity, trust).run())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
