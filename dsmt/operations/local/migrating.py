"""Moving a realm from dsmt's brokers to NATS, on one machine, while its services run (docs/decisions/0035).

Rule 1: what was done stands on the disk, and each step may be done again: `migration/migration.cbor` is there from the
    beginning to the end of a move, and says whether it is cut; `migration/brokers` is there until the realm has its servers.
Rule 2: nothing of the old engine is changed before all that it holds is in the new one, and nobody uses both.
Rule 3: the brokers' directories are kept under another name, which nothing here reads.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from dsmt.errors import FailedError, InputError, RefusedError, TimedOutError, TransportError
from dsmt.operations.local.dating import dated
from dsmt.operations.local.home import SERVERS, Home, free_port, reach_at, write_secret
from dsmt.operations.local.keeping import is_up, start_keeper, write_kept
from dsmt.operations.local.lock import Waits, alone, silent
from dsmt.operations.local.machine import Started, end, end_own, start
from dsmt.operations.local.parts import Parts, keeper_directory
from dsmt.operations.local.wanted import NATS_SERVERS, names_of
from dsmt.operations.read.members import nodes
from dsmt.operations.read.sight import look
from dsmt.operations.write.brokers import announced
from dsmt.ports.bus import BusReader
from dsmt.programs.bridge import copied
from dsmt.programs.configuration import (
    BrokerFile,
    CopiedFile,
    GateFile,
    MigrationFile,
    RealmConfig,
    brokers_in,
    read_config,
    read_identity,
    write_config,
)
from dsmt.programs.nats_server import make_servers
from dsmt.system.entropy import SystemEntropy
from dsmt.system.processes import SpawnedProcesses
from dsmt.system.procfs import is_alive

Tell = Callable[[str], object]
STUCK_S: Final = 60.0
"""How long the bridge may get no further."""
SERVERS_S: Final = 30.0
CLOCK_S: Final = 5.0
"""How far realm time may be from the machine's clock, which NATS takes for it."""
LOOK_S: Final = 0.1


def check_home(home: Home, engine: str) -> None:
    """Raise `RefusedError`, `InputError` where a realm cannot be moved to an engine, as far as its home tells it."""
    realm = home.realm()
    if engine == ("dsmt" if realm.nats is None else "nats"):
        said = f"realm {realm.name} is carried by {engine} already"
        raise InputError("migrate.same", said, next="dsmt brokers shows what carries it")
    if engine == "dsmt":
        said = f"moving realm {realm.name} from NATS to brokers of dsmt is not built"
        raise RefusedError("bus.unable", said, next="it stays on NATS; docs/nats.md says what is built")
    if home.is_joined:
        said = f"{home.root} has joined realm {realm.name}, which was made on another machine"
        raise RefusedError("migrate.machines", said, next="NATS carries realms of one machine only")
    number = len(home.names("brokers"))
    if number not in NATS_SERVERS:
        said = f"realm {realm.name} has {number} brokers, and NATS takes 1, 3 or 5 servers: a majority must be there"
        raise RefusedError("migrate.count", said, next="dsmt broker add, or dsmt broker remove, first")


async def check_realm(bus: BusReader, home: Home) -> None:
    """Raise `RefusedError` where the realm is not on this machine alone, or its time is not this machine's."""
    said = await announced(bus)
    elsewhere = [f"node {one.node}" for one in nodes(await look(bus)) if one.node not in home.names("nodes")]
    elsewhere += [f"broker {one}" for one in said if one not in home.names("brokers")]
    if elsewhere:
        told = f"{', '.join(elsewhere)} of the realm {'is' if len(elsewhere) == 1 else 'are'} not in {home.root}"
        raise RefusedError("migrate.machines", told, next="NATS carries one machine's realm: remove what is elsewhere first")
    leaves = [name for name, at in said.items() if at.leaf]
    if leaves:
        told = f"broker {leaves[0]} is a leaf, and on NATS there is none"
        raise RefusedError("migrate.leaf", told, next=f"dsmt broker remove {leaves[0]} first")
    off_s = (await dated(home.realm().clocks)).now_s - time.time()
    if abs(off_s) > CLOCK_S:
        told = f"realm time is {abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} this machine's clock"
        raise RefusedError("migrate.clock", told, next="NATS goes by the machine's clock: set it right, then try again")


# --- copying while the realm is up -------------------------------------------------------------------------------------


async def begin(home: Home, *, waits: Waits = silent) -> bool:
    """Make the servers beside the brokers, and have them filled; whether that was not under way already.

    Raises `RefusedError`, and `FailedError` where NATS is not installed.
    """
    async with alone(home, waits):
        move = home.moving()
        if move is not None and move.cut:
            raise RefusedError("migrate.cut", "the move is being cut already", next="dsmt bus migrate --cut goes on")
        if not is_up(home):
            raise RefusedError("migrate.down", f"the realm in {home.root} is not up", next="dsmt up, then try again")
        if move is None:
            _make(home)
        await start_keeper(home)  # or, as it runs, have it answer: it may have died just now
        for name in home.names(SERVERS):
            await _ask(home, "keep", "nats_server", home.part(SERVERS, name))
        await _ask(home, "keep", "bridge", home.migration)
        return move is None


def _make(home: Home) -> None:
    """Make the directories of the servers, whole or not at all. Raises `FailedError`."""
    made, names, realm = home.root / "migration.new", home.names("brokers"), home.realm()
    shutil.rmtree(made, ignore_errors=True)
    identities = [read_identity(home.part("brokers", name) / "identity") for name in names]
    reached = tuple((f"127.0.0.1:{free_port()}", one.certificate.public) for one in identities)
    routes = tuple(f"127.0.0.1:{free_port()}" for _ in names)
    directories = [made / "brokers" / name for name in names]
    try:
        planned = msgspec.structs.replace(realm, brokers=reached)
        make_servers(directories, planned, routes, bridge=SystemEntropy().bytes(32))
        for name, one in zip(names, directories, strict=True):
            synced = read_config(home.part("brokers", name) / "broker.cbor", BrokerFile).synced
            told = read_config(one / "broker.cbor", BrokerFile)
            write_config(one / "broker.cbor", msgspec.structs.replace(told, synced=synced))
        write_config(made / "migration.cbor", MigrationFile())
    except FailedError:
        shutil.rmtree(made, ignore_errors=True)
        raise
    made.rename(home.migration)


async def _ask(home: Home, op: str, program: str, directory: Path) -> None:
    request = {"op": op, "program": program, "directory": str(directory)}
    await SpawnedProcesses(str(keeper_directory(home))).request(request)


async def level(home: Home, tell: Tell) -> CopiedFile:
    """Wait until everything is copied that is there; `tell` hears how far it is.

    Raises `TimedOutError` when it gets no further, and `RefusedError` when somebody has ended the move.
    """
    told, since = CopiedFile(), time.monotonic()
    while not told.level:
        await asyncio.sleep(LOOK_S)
        if home.moving() is None:
            raise RefusedError("migrate.none", "the move was ended meanwhile", next="dsmt bus migrate nats begins it again")
        now = copied(home.migration)
        if now != told:
            told, since = now, (since if now.row == told.row else time.monotonic())
            tell(behind(told))
        if time.monotonic() > since + STUCK_S:
            why = told.why or "nothing comes"
            said = f"the bridge got no further for {STUCK_S:.0f} s, at row {told.row} of {told.head}: {why}"
            raise TimedOutError(
                "migrate.stuck", said, next=f"its log is {home.migration}/bridge.log; dsmt bus migrate --abort"
            )
    return told


def behind(told: CopiedFile) -> str:
    """How far it is, in words."""
    return f"{told.row} of {told.head} rows copied"


# --- back --------------------------------------------------------------------------------------------------------------


async def abort(home: Home, *, waits: Waits = silent) -> Started | None:
    """End a move, and remove what was made for it; what was started again, if the brokers had been ended.

    Raises `RefusedError` where there is none, or the realm has moved.
    """
    async with alone(home, waits):
        move = home.moving()
        if move is None:
            raise RefusedError("migrate.none", "there is nothing to abort: no move is under way", next="dsmt status")
        if not home.names(SERVERS):
            said = "it is too late to abort: the realm is on NATS, and what it has said there is nowhere else"
            raise RefusedError("migrate.done", said, next="dsmt bus migrate --cut ends the move")
        if move.cut:
            await end_own(home, servers=True)
            _back(home, move)
        else:
            await _release(home)
        _forget(home)
        if not move.cut:
            return None
        return await _start(home)


async def _start(home: Home) -> Started:
    """Start the realm as `up` does."""
    return await start(home, home.names("brokers"), home.names("controllers"), names_of(home, "nodes", None, else_=0))


async def _release(home: Home) -> None:
    """Have the keeper end bridge and servers, and keep them no more."""
    kept = [("bridge", home.migration), *(("nats_server", home.part(SERVERS, name)) for name in home.names(SERVERS))]
    parts = Parts(home)
    up = is_up(home) or bool(parts.brokers())  # a keeper that has died is just being replaced
    if up:
        await start_keeper(home)
    write_kept(home, moving=False)
    for program, directory in kept if up else ():
        await _ask(home, "release", program, directory)
    await end([*parts.bridges(), *parts.servers()], 5.0)  # before the realm has moved it has no other servers


def _back(home: Home, move: MigrationFile) -> None:
    aside = home.root / move.aside
    if aside.exists() and not (home.root / "brokers").exists():
        aside.rename(home.root / "brokers")


def _forget(home: Home) -> None:
    """There is no move any more, at once; what it had on the disk goes."""
    gone = home.root / "migration.old"
    shutil.rmtree(gone, ignore_errors=True)
    home.migration.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


# --- the cut -----------------------------------------------------------------------------------------------------------


def is_cut(home: Home) -> bool:
    """Whether a cut goes on that was begun before. Raises `RefusedError` where there is nothing to cut."""
    move = home.moving()
    if move is None:
        said = "there is nothing to cut: no move is under way"
        raise RefusedError("migrate.none", said, next="dsmt bus migrate nats begins one")
    return move.cut


def serves(home: Home) -> bool:
    """Whether programs of services run here, which a cut does not restart."""
    return any(map(is_alive, Parts(home).instances()))


def _check_level(home: Home) -> None:
    told = copied(home.migration)
    if not told.level:
        why = f": {told.why}" if told.why else ""
        raise RefusedError("migrate.behind", f"{behind(told)}{why}", next="dsmt bus migrate nats waits until it is level")


async def cut(home: Home, *, tell: Tell, waits: Waits = silent) -> Started:
    """Move the realm: no service is restarted. It may be called again, wherever it was interrupted, until `finish`.

    Raises `RefusedError`, `FailedError`, `TransportError`.
    """
    async with alone(home, waits):
        move = home.moving() or MigrationFile()
        if not is_cut(home):
            _check_level(home)
            move = MigrationFile(cut=True, aside=f"brokers.dsmt-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
            write_config(home.migration / "migration.cbor", move)
        if home.names(SERVERS):
            if (home.root / "brokers").exists():
                tell("ending the brokers")
                await end_own(home, servers=False)
                await _drain(home, tell)
                await end_own(home, servers=True)
                (home.root / "brokers").rename(home.root / move.aside)
            _settle(home, move)
            (home.root / SERVERS).rename(home.root / "brokers")
        tell("starting the realm on NATS")
        reach_at(home, read_config(brokers_in(home.root / "brokers")[0] / "broker.cbor", BrokerFile).realm)
        return await _start(home)


async def _drain(home: Home, tell: Tell) -> None:
    """Copy the rest, which is all that there will ever be."""
    from dsmt.programs.copying import drain  # noqa: PLC0415 - only where the client of NATS is installed

    await start_keeper(home)
    deadline = time.monotonic() + SERVERS_S
    while True:
        try:
            await drain(home.migration, home.root / "brokers", lambda rows: tell(f"{rows} rows are left to copy"))
        except TransportError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(LOOK_S)
        else:
            return


def _settle(home: Home, move: MigrationFile) -> None:
    """Make of the servers' directories what a realm on NATS has: keys as they are now, and no bridge."""
    servers = brokers_in(home.root / SERVERS)
    keys = {}
    for one in servers:
        raw = (home.root / move.aside / one.name / "identity").read_bytes()
        write_secret(one / "identity", raw)
        keys[read_config(one / "broker.cbor", BrokerFile).address] = read_identity(one / "identity").certificate.public
    for one in servers:
        told = read_config(one / "broker.cbor", BrokerFile)
        reached = tuple((address, keys[address]) for address, _ in told.realm.brokers)
        realm: RealmConfig = msgspec.structs.replace(told.realm, brokers=reached)
        write_config(one / "broker.cbor", msgspec.structs.replace(told, realm=realm))
        gate = read_config(one / "gate.cbor", GateFile)
        write_config(one / "gate.cbor", msgspec.structs.replace(gate, bridge=b""))


async def finish(home: Home, *, waits: Waits = silent) -> str:
    """Everybody is attached: the move is over; where the brokers' directories are now."""
    async with alone(home, waits):
        move = home.moving()
        aside = "" if move is None else str(home.root / move.aside)
        if move is not None:
            _forget(home)
        return aside
