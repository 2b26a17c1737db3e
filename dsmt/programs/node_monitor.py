"""The node monitor's process: `main(DIRECTORY)` in a warm fork of the spawner; DIRECTORY is the node's.

Its identity is delegated by the node's, and kept in `monitor.identity`. It asks its spawner from the loop in which it does
all of its work (C15). SIGTERM and SIGINT: exit.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

from dsmt.agents.drivers import drivers_of
from dsmt.agents.node.data_key import data_key
from dsmt.agents.node.delegation import delegated
from dsmt.errors import FailedError
from dsmt.event.kinds.node import DriverAttributes
from dsmt.logs import Logger
from dsmt.monitors.node import MonitorConfig, MonitorSurroundings, NodeMonitor
from dsmt.programs.configuration import NodeFile
from dsmt.programs.following import written
from dsmt.programs.node_process import MONITOR_IDENTITY, bus_of_monitor, client, data_root
from dsmt.programs.running import run_until_signalled
from dsmt.system.clock import LinuxClock
from dsmt.system.datagrams import UdpDatagrams
from dsmt.system.entropy import SystemEntropy
from dsmt.system.files import DiskFiles
from dsmt.system.machine import LinuxMachine
from dsmt.system.processes import keep_asking
from dsmt.system.watch import nobody
from dsmt.trust.identity import load
from dsmt.trust.keys import SecretKey
from dsmt.version import __version__


def main(directory: str) -> int:
    """Monitor a node until a signal; the exit code."""
    return run_until_signalled(lambda: _serve(Path(directory).absolute()))


async def _serve(directory: Path) -> None:
    told, node = NodeFile.at_start(directory)
    clock, entropy = LinuxClock(), SystemEntropy()
    files = DiskFiles(str(directory))
    kept = files.read(MONITOR_IDENTITY)
    raw = delegated(
        kept,
        f"monitor/{told.node}",
        node,
        now_s=clock.wall_ms() // 1000,
        make_key=SecretKey,
        entropy=entropy,
    )
    if raw != kept:
        with suppress(FailedError):  # a disk that takes nothing keeps nobody from the bus (A11): the next one makes another
            files.write(MONITOR_IDENTITY, raw)
    identity = load(raw, where=str(directory / MONITOR_IDENTITY))
    realm = told.realm
    async with client(identity, realm, directory=bus_of_monitor(str(directory)), address=told.address) as bus:
        monitor = NodeMonitor(
            MonitorConfig(
                node=told.node,
                address=told.address,
                version=__version__,
                key=data_key(DiskFiles(data_root(directory)), node.key.key_id),
                labels=told.labels,
                drivers=_drivers(),
                pid=os.getpid(),
            ),
            MonitorSurroundings(
                bus=bus,
                key=identity.key,
                machine=LinuxMachine(str(directory)),
                datagrams=UdpDatagrams(),
                clock=clock,
                entropy=entropy,
            ),
        )
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in (keep_asking(str(directory)), monitor.run())]
            await written(bus, directory, realm)
            for task in tasks:
                task.cancel()


def _drivers() -> dict[str, DriverAttributes]:
    """What each driver that can run here can do; why another cannot goes to the log."""
    found = {}
    for word, driver in drivers_of("", nobody).items():
        why = driver.available()
        if why:
            Logger(driver=word).warning("driver.unavailable", why=why)
        else:
            found[word] = DriverAttributes(fence=driver.fence, enforces=driver.enforces, users=driver.users)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
