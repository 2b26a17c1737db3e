"""The container manager's process: `main(DIRECTORY)` in a warm fork of the spawner; DIRECTORY is the node's.

It restarts a dead spawner, as the spawner restarts it. When the node's certificate was renewed it ends, to be started with
the new one; a monitor that stands below another one it ends after that, when it is attached again itself.
When the realm has moved, it ends likewise.

SIGTERM and SIGINT: exit, and leave all agents running. SIGUSR1: end the node: stop every instance, then the spawner (and
with it the monitor), then exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Final, Never

from dsmt.agents.drivers import drivers_of
from dsmt.agents.node.container_manager import ContainerManager
from dsmt.agents.node.data_key import data_key
from dsmt.agents.node.delegation import chain_of, is_below
from dsmt.agents.node.renewing import LOOK_S, renewed, returned
from dsmt.agents.rules.container import NodeConfig
from dsmt.agents.shared.surroundings import NodeSurroundings
from dsmt.errors import FailedError, UnusableEventError
from dsmt.logs import Logger
from dsmt.ports.bus import Bus
from dsmt.ports.driver import KILL_S
from dsmt.programs.configuration import IDENTITY, NodeFile
from dsmt.programs.containers import owners_in
from dsmt.programs.following import Follower
from dsmt.programs.kept import keeper_teller, on_the_bus
from dsmt.programs.known_spawner import KnownSpawner
from dsmt.programs.node_process import MONITOR_IDENTITY, bus_of_manager, client, data_root
from dsmt.programs.running import Attached, on_signals, run, until_over
from dsmt.system.clock import LinuxClock
from dsmt.system.entropy import SystemEntropy
from dsmt.system.files import DiskFiles
from dsmt.system.process_tree import kill_owned
from dsmt.system.processes import PAUSE_S, SpawnedProcesses, keep_asking, spawner_of, watch_spawner
from dsmt.system.procfs import boot, children, identity_of, send_signal
from dsmt.system.records import ask_to_end
from dsmt.trust.identity import Identity, dump
from dsmt.trust.keys import SecretKey
from dsmt.trust.revocations import is_disowned
from dsmt.trust.store import Realm, TrustStore

FORMER: Final = "identity.former"
"""Who the node was before its certificate was renewed: the key is the same."""


def main(directory: str) -> int:
    """Manage a node's containers until a signal; the exit code."""
    return run(lambda: _serve(Path(directory).absolute()))


async def _serve(directory: Path) -> int:
    told, identity = NodeFile.at_start(directory)
    realm = told.realm
    trust, kept = _known(realm.realm, identity, directory), bus_of_manager(str(directory))
    async with client(identity, realm, directory=kept, address=told.address, trust=trust) as bus:
        spawner = KnownSpawner(directory, keeper_teller(on_the_bus(bus), directory))
        bus.on_attached(Attached(directory).note)  # so the node lives without its agents
        bus.on_attached(spawner.attached)
        manager = ContainerManager(_config(told, identity, directory), _surroundings(bus, identity, directory, trust))
        running = asyncio.ensure_future(manager.run())
        watching = asyncio.ensure_future(watch_spawner(str(directory), replaced=spawner.replaced))
        renewing = asyncio.ensure_future(_renew(bus, identity, trust, directory, running))
        moving = asyncio.ensure_future(_follow(Follower(bus, identity, directory, realm, trust), directory, running))
        ending: list[asyncio.Task[None]] = []
        asking: list[asyncio.Task[Never]] = []

        def end_the_node() -> None:
            watching.cancel()
            if not ending:  # it takes as long as the slowest program, and is no hanging
                asking.append(asyncio.ensure_future(keep_asking(str(directory))))
                ending.append(asyncio.ensure_future(manager.shutdown()))

        on_signals({signal.SIGTERM: running.cancel, signal.SIGINT: running.cancel, signal.SIGUSR1: end_the_node})
        await until_over(running, moving, renewing, watching)
        watching.cancel()
        renewing.cancel()
        moving.cancel()
        for one in ending:
            await one
            asking[0].cancel()
            _end_spawner(str(directory))
    spawner.forget()
    return 0


def _config(told: NodeFile, identity: Identity, directory: Path) -> NodeConfig:
    return NodeConfig(
        node=told.node,
        realm=told.realm.name,
        roots=told.realm.roots,
        brokers=told.realm.brokers,
        nats=told.realm.nats,
        address=told.address,
        directory=str(directory),
        data_root=data_root(directory),
        data_key=data_key(DiskFiles(data_root(directory)), identity.key.key_id),
        labels=told.labels,
    )


def _surroundings(bus: Bus, identity: Identity, directory: Path, trust: TrustStore) -> NodeSurroundings:
    spawner = SpawnedProcesses(str(directory))
    return NodeSurroundings(
        bus=bus,
        identity=identity,
        make_key=SecretKey,
        processes=spawner,
        drivers=lambda place: drivers_of(place, spawner.ended),
        clear=_clear,
        files=DiskFiles(str(directory)),
        data=DiskFiles(data_root(directory)),
        clock=LinuxClock(),
        entropy=SystemEntropy(),
        ended=spawner.ended,
        boot=boot(),
        is_disowned=partial(is_disowned, is_revoked=trust.disowns),
    )


async def _clear(containers: Collection[str]) -> None:
    await kill_owned(*(owner for place in containers for owner in owners_in(Path(place))), deadline=KILL_S)


def _known(realm: Realm, identity: Identity, directory: Path) -> TrustStore:
    """The certificates of a node: that which it shows, and the one before."""
    trust = TrustStore(realm)
    for chain in (chain_of(DiskFiles(str(directory)).read(FORMER)), [one.raw for one in identity.chain]):
        with contextlib.suppress(UnusableEventError):  # a broker tells what is wrong with it
            trust.add_all(chain)
    return trust


async def _renew(bus: Bus, identity: Identity, trust: TrustStore, directory: Path, running: asyncio.Future[None]) -> None:
    """Keep the node's certificate valid: the next one takes the place of this process."""
    await bus.wait_attached()
    files = DiskFiles(str(directory))
    monitor = None
    with contextlib.suppress(FailedError):  # the monitor tells what is wrong with it
        monitor = files.read(MONITOR_IDENTITY)
    if monitor is not None and not is_below(monitor, identity):
        ask_to_end(directory, "node_monitor")
    while not running.cancelled():
        renewed_as = await _next(bus, identity, trust)
        try:
            files.write(FORMER, dump(identity))
            files.write(IDENTITY, dump(renewed_as))
        except FailedError as error:
            Logger(node=identity.name).warning("the renewed certificate is not kept", reason=error.message)
            await asyncio.sleep(LOOK_S)  # then it is asked for again
        else:
            await _has_spawner(directory)
            running.cancel()


async def _follow(follower: Follower, directory: Path, running: asyncio.Future[None]) -> None:
    """Go where the realm goes: there this process is another one."""
    await follower.run()
    await _has_spawner(directory)
    running.cancel()


async def _has_spawner(directory: Path) -> None:
    """Wait until the spawner answers: it starts who comes after us, and nobody but us restarts it."""
    spawner = SpawnedProcesses(str(directory))
    while spawner_of(str(directory)) is None or await spawner.is_silent():  # noqa: ASYNC110 - no event
        await asyncio.sleep(PAUSE_S)


async def _next(bus: Bus, identity: Identity, trust: TrustStore) -> Identity:
    """Who the node is next: with a certificate that was renewed, or with the one before."""
    waits = [asyncio.ensure_future(one) for one in (renewed(bus, identity, trust.realm), returned(bus, identity, trust))]
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result()
    finally:
        for one in waits:
            one.cancel()


def _end_spawner(directory: str) -> None:
    """End the node's spawner, and one that is only just starting: this process has no other children."""
    starting = [identity_of(pid) for pid in children(os.getpid())]
    ask_to_end(directory, "spawner")
    for identity in starting:
        if identity is not None:
            send_signal(identity, signal.SIGTERM)


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(sys.argv[1]))
