"""The process of the gate beside a NATS server; it looks how full that server's disk is (`ServerDisk`).

Its directory is a broker's (`programs.configuration`).
A server that a full disk has refused a write once writes no more, however much room there is later: who sees that there
is has it begin anew. One of several whose disk hangs is killed: it leads streams, perhaps, and nothing is acknowledged
before another one does.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Never

from dsmt.bus.rules.nats_config import way_of
from dsmt.logs import Logger
from dsmt.ports.blobs import kept_for_events
from dsmt.ports.realm import About
from dsmt.programs.bus import nats_missing
from dsmt.programs.configuration import ANEW, BIRTH, BrokerFile, GateFile
from dsmt.programs.kept import keep_keeper, on_the_bus
from dsmt.programs.running import run_beside, run_until_signalled
from dsmt.system.asking import AskedDisk
from dsmt.system.clock import LinuxClock
from dsmt.system.entropy import SystemEntropy
from dsmt.system.files import DiskFiles
from dsmt.system.procfs import identity_of, send_signal
from dsmt.system.records import ask_to_end, process_of, record_path, write_record
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import TrustStore
from dsmt.version import __version__

DISK_LOOK_S: Final = 1.0
FULL_BYTES: Final = 2**20
"""With less room than this a server may have been refused a write: the largest message takes as much."""
ROOM_BYTES: Final = 2 * FULL_BYTES
ASK_S: Final = 5.0
HANGS: Final = 2
"""A disk that takes no file while it is looked at so often hangs."""
ASKED: Final = "jetstream/.asked"
"""Beside the streams of the server."""


def main(directory: str) -> int:
    """Be the gate of a directory's server until a signal, or until the server has gone; the exit code."""
    return run_until_signalled(lambda: _serve(Path(directory)))


def serve(directory: str) -> int:
    """Be the gate of a directory's server, and run that, too, where nobody keeps the two: they end together."""
    argv = [sys.executable, "-m", "dsmt.programs.nats_server", directory]
    with subprocess.Popen(argv) as server:
        try:
            running = identity_of(server.pid)
            with suppress(OSError):  # a full disk takes no records
                if running is not None:
                    write_record(record_path(directory, "nats_server"), running)
            return main(directory)
        finally:
            server.terminate()


async def _serve(directory: Path) -> None:
    try:
        from dsmt.bus.nats.connecting import NatsRealm  # noqa: PLC0415 - the same
        from dsmt.bus.nats.gate import GateKeys, NatsGate  # noqa: PLC0415 - only where it is installed
        from dsmt.bus.nats.servers import KnownServers  # noqa: PLC0415 - the same
    except ImportError as error:
        raise nats_missing("its client") from error
    (config, identity), (keys, _) = BrokerFile.at_start(directory), GateFile.at_start(directory)
    birth, nats = directory / BIRTH, config.realm.nats
    asked = directory / ANEW
    assert nats is not None  # noqa: S101 - who starts a gate has looked
    anew = not birth.exists() and (nats.replicas == 1 or asked.exists())

    def made() -> None:
        for one in (birth, asked):
            one.unlink(missing_ok=True)

    servers = tuple(address for address, _ in config.realm.brokers)
    trust, disk = TrustStore(config.realm.realm), ServerDisk(directory)
    gate = NatsGate(
        identity=identity,
        trust=trust,
        realm=NatsRealm(
            servers, nats.replicas, config.synced, nats.authority, gated=True, own=config.address, way=way_of(keys.system)
        ),
        keys=GateKeys(SecretKey(keys.system), SecretKey(keys.issuer)),
        clock=LinuxClock(),
        entropy=SystemEntropy(),
        about=About(os.getpid(), __version__, config.address),
        made=made if birth.exists() or anew else None,
        anew=anew,
        known=KnownServers(config.realm.addresses, trust, DiskFiles(str(directory))),
        dismissed=lambda: ask_to_end(directory, "nats_server"),  # it refuses to start from then on
        full=lambda: str(directory) if disk.is_full else "",
        low=lambda: disk.is_low,
        ends=DiskFiles(str(directory), durable=False),
    )
    keeping = keep_keeper("broker", directory, on_the_bus(gate.bus))
    looks = disk.look(lambda: ask_to_end(directory, "nats_server"))
    await run_beside(gate.run(), keeping, looks, disk.watch(lambda: _kill(directory) if nats.replicas > 1 else None))


def _kill(directory: Path) -> None:
    """A server whose disk hangs does not end when it is asked to."""
    running = process_of(directory, "nats_server")
    if running is not None:
        send_signal(running, signal.SIGKILL)


class ServerDisk:
    """The disk on which a server writes. `is_full`: it was once, and the server may have been refused a write since."""

    def __init__(self, directory: Path) -> None:
        self._directory, self.is_full, self.is_low = directory, False, False

    async def look(self, end: Callable[[], object]) -> Never:
        """Whenever there is room again, end the server: who keeps it starts the next one."""
        while True:
            total, _, free = shutil.disk_usage(self._directory)
            self.is_low = free < kept_for_events(total)
            if self.is_full and free >= ROOM_BYTES:
                self.is_full = False
                Logger(gate=self._directory.name).warning("the disk has room again: the server begins anew")
                end()
            self.is_full = self.is_full or free < FULL_BYTES
            await asyncio.sleep(DISK_LOOK_S)

    async def watch(self, kill: Callable[[], object]) -> Never:
        """Whenever the disk hangs, kill the server, once; the next one begins when it answers."""
        asked, silent = AskedDisk(str(self._directory / ASKED)), 0
        while True:
            silent = 0 if asked.answered else silent + 1
            if silent == HANGS:
                Logger(gate=self._directory.name).warning("its server's disk does not answer", seconds=HANGS * ASK_S)
                kill()
            asked.ask()
            await asyncio.sleep(ASK_S)
