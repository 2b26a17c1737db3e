"""Moving a realm between dsmt's brokers and NATS, on one machine, while its services run (docs/decisions/0035).

Rule 1: what was done stands on the disk, and each step may be done again: `migration/migration.cbor` is there from the
    beginning to the end of a move, and says whether it is cut; `migration/brokers` is there until it is the realm's.
Rule 2: nothing of the old engine is changed before all that it holds is in the new one, and nobody uses both.
Rule 3: the brokers' directories are kept under another name, which nothing here reads.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from dsmt.errors import FailedError, RefusedError, TimedOutError, TransportError
from dsmt.event.addresses import host_of
from dsmt.operations.local.home.addresses import free_everywhere
from dsmt.operations.local.home.home import ENGINES, SERVERS, Home, is_up, write_secret
from dsmt.operations.local.home.lock import alone
from dsmt.operations.local.home.making import reach_at
from dsmt.operations.local.moving.ways import WAYS, Way, way_to
from dsmt.operations.local.processes.ending import OWN_S, end, end_own
from dsmt.operations.local.processes.keeping import ask_keeper, start_keeper, write_kept
from dsmt.operations.local.processes.parts import Parts
from dsmt.operations.local.up.machine import StartedRealm, start_all
from dsmt.operations.words.telling import Tell, silent
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.bridge import copied
from dsmt.programs.configuration import (
    IDENTITY,
    BrokerFile,
    CopiedFile,
    MigrationFile,
    RealmConfig,
    brokers_in,
    read_identity,
)
from dsmt.system.procfs import is_alive
from dsmt.system.records import process_of

STUCK_S: Final = 60.0
"""How long the bridge may get no further."""
SERVERS_S: Final = 60.0
"""How long servers that start together may take to find their leaders."""
NO_STREAM: Final = "nats.stream"
ENDED: Final = ("migrate.none", "the move was ended meanwhile")
BEGIN_AGAIN: Final = "dsmt bus migrate --help says how to begin it again"
CUT_AGAIN: Final = "dsmt bus migrate --cut goes on; dsmt bus migrate --abort goes back"
LOOK_S: Final = 0.1


# --- copying while the realm is up -------------------------------------------------------------------------------------


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A move to another engine: how many of the rows that there are have been copied, and what keeps it from going on.

    `level`: all that there was is copied. `cut`: the realm is being cut over.
    """

    engine: str
    row: int
    head: int
    level: bool
    cut: bool
    why: str | None


async def begin(home: Home, engine: str, *, waits: Tell = silent) -> bool:
    """Make what an engine needs beside what there is, and have it filled; whether that was not under way already.

    Raises `InputError`, `RefusedError`, and `FailedError` where NATS is not installed.
    """
    async with alone(home, waits):
        move = home.moving()
        if move is not None and move.cut:
            raise RefusedError("migrate.cut", "the move is being cut already", next="dsmt bus migrate --cut goes on")
        if not is_up(home):
            raise RefusedError("migrate.down", f"the realm in {home.root} is not up", next="dsmt up, then try again")
        if move is None:
            _make(home, engine, way_to(home, engine))
        await start_keeper(home)  # or, as it runs, have it answer: it may have died just now
        for program, directory in (*WAYS[engine].beside(home), ("bridge", home.migration)):
            await ask_keeper(home, "keep", program, directory)
        return move is None


def _make(home: Home, engine: str, way: Way) -> None:
    """Make the directories of what it moves to, whole or not at all. Raises `FailedError`."""
    made, names, realm = home.root / "migration.new", home.names("brokers"), home.realm()
    shutil.rmtree(made, ignore_errors=True)
    identities = [read_identity(home.part("brokers", name) / IDENTITY) for name in names]
    hosts = {public: host_of(address) for address, public in realm.brokers}  # who is elsewhere reaches these
    reached = tuple((free_everywhere(hosts[one.certificate.public]), one.certificate.public) for one in identities)
    directories = [made / "brokers" / name for name in names]
    try:
        way.make(home, directories, msgspec.structs.replace(realm, brokers=reached, nats=None))
        for name, one in zip(names, directories, strict=True):
            synced = BrokerFile.read(home.part("brokers", name)).synced
            told = BrokerFile.read(one)
            msgspec.structs.replace(told, synced=synced).write(one)
        MigrationFile(engine=engine).write(made)
    except FailedError:
        shutil.rmtree(made, ignore_errors=True)
        raise
    made.rename(home.migration)


def planned(home: Home) -> dict[str, BrokerAddress]:
    """Where what the realm moves to will be, by name: the keys are those that the realm has now."""
    found = {}
    for name, directory in home.parts(SERVERS).items():
        address = BrokerFile.read(directory).address
        found[name] = BrokerAddress(address, read_identity(home.part("brokers", name) / IDENTITY).key.public)
    return found


async def level(home: Home, tell: Tell) -> CopiedFile:
    """Wait until everything is copied that is there; `tell` hears how far it is.

    Raises `TimedOutError` when it gets no further, and `RefusedError` when somebody has ended the move.
    """
    told, since = CopiedFile(), time.monotonic()
    while not told.level:
        await asyncio.sleep(LOOK_S)
        if home.moving() is None:
            raise RefusedError(*ENDED, next=BEGIN_AGAIN)
        now = copied(home.migration)
        if now != told:
            told, since = now, (since if now.row == told.row else time.monotonic())
            tell(_so_far(told))
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


def _so_far(told: CopiedFile) -> str:
    return f"{behind(told)}: {told.why}" if told.why else behind(told)


# --- back --------------------------------------------------------------------------------------------------------------


async def abort(home: Home, *, waits: Tell = silent) -> StartedRealm | None:
    """End a move, and remove what was made for it; what was started again, if the brokers had been ended.

    Raises `RefusedError` where there is none, or the realm has moved.
    """
    async with alone(home, waits):
        move = home.moving()
        if move is None:
            raise RefusedError("migrate.none", f"there is nothing to abort: {_stands(home)}", next="dsmt status")
        if not home.names(SERVERS):
            there = ENGINES[move.engine]
            said = f"it is too late to abort: the realm is on {there}, and what it has said there is nowhere else"
            raise RefusedError("migrate.done", said, next="dsmt bus migrate --cut ends the move")
        if move.cut:
            await end_own(home, servers=True)
            _back(home, move)
            WAYS[move.engine].unfence(home)
        else:
            await _release(home, WAYS[move.engine].beside(home))
        _forget(home)
        if not move.cut:
            return None
        return await start_all(home)


async def _release(home: Home, beside: list[tuple[str, Path]]) -> None:
    """Have the keeper end the bridge, and what runs beside it, and keep them no more."""
    parts = Parts(home)
    up = is_up(home) or bool(parts.brokers())  # a keeper that has died is just being replaced
    if up:
        await start_keeper(home)
    write_kept(home, moving=False)
    for program, directory in (("bridge", home.migration), *beside) if up else ():
        await ask_keeper(home, "release", program, directory)
    running = (process_of(directory, program) for program, directory in beside)
    await end([*parts.bridges(), *(one for one in running if one is not None)], OWN_S)


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


def under_way(home: Home) -> str:
    """The engine to which a move is under way; `nats` where there is none."""
    return (home.moving() or MigrationFile()).engine


def shown(home: Home) -> Move | None:
    """The move that is under way, as `dsmt status` tells it."""
    move = home.moving()
    if move is None:
        return None
    told = copied(home.migration)
    return Move(engine=move.engine, row=told.row, head=told.head, level=told.level, cut=move.cut, why=told.why or None)


def is_cut(home: Home) -> bool:
    """Whether a cut goes on that was begun before. Raises `RefusedError` where there is nothing to cut."""
    move = home.moving()
    if move is None:
        said = f"there is nothing to cut: {_stands(home)}"
        raise RefusedError("migrate.none", said, next="dsmt bus migrate nats, or dsmt, begins one")
    return move.cut


def serves(home: Home) -> bool:
    """Whether services run, here or on other machines, which a cut does not restart."""
    return is_up(home) or any(map(is_alive, Parts(home).instances()))


def _stands(home: Home) -> str:
    """For who types again what was killed when it was done."""
    realm = home.realm()
    return f"no move is under way, and realm {realm.name} is on {ENGINES[realm.engine]}"


def _check_level(home: Home, engine: str) -> None:
    told = copied(home.migration)
    if not told.level:
        raise RefusedError("migrate.behind", _so_far(told), next=f"dsmt bus migrate {engine} waits until it is level")


async def cut(home: Home, *, tell: Tell, waits: Tell = silent, members: Mapping[str, int] | None = None) -> StartedRealm:
    """Move the realm: no service is restarted. It may be called again, wherever it was interrupted, until `finish`.

    `members` on other machines have been told (`far_members`), and are kept for who goes on with it. Raises `RefusedError`,
    `FailedError`, `TransportError`.
    """
    async with alone(home, waits):
        move = home.moving() or MigrationFile()
        if not is_cut(home):
            _check_level(home, move.engine)
            aside = f"brokers.{home.realm().engine}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
            move = MigrationFile(engine=move.engine, cut=True, aside=aside, members=dict(members or {}))
            move.write(home.migration)
        if home.names(SERVERS):
            if (home.root / "brokers").exists():
                tell("ending the brokers")
                await end_own(home, servers=WAYS[move.engine].ends_servers)
                await _drain(home, WAYS[move.engine], tell)
                await end_own(home, servers=True)
                (home.root / "brokers").rename(home.root / move.aside)
            _settle(home, move)
            (home.root / SERVERS).rename(home.root / "brokers")
        WAYS[move.engine].moved(home)
        tell(f"starting the realm on {ENGINES[move.engine]}")
        reach_at(home, BrokerFile.read(brokers_in(home.root / "brokers")[0]).realm)
        return await start_all(home)


async def _drain(home: Home, way: Way, tell: Tell) -> None:
    """Copy the rest, which is all that there will ever be."""
    way.fence(home)
    drain, deadline = way.drain(), time.monotonic() + SERVERS_S
    while True:
        await start_keeper(home)  # who would start it anew has ended
        try:
            await drain(home.migration, home.root / "brokers", lambda rows: tell(f"{rows} rows are left to copy"))
        except (TransportError, RefusedError) as error:
            if isinstance(error, RefusedError) and error.code != NO_STREAM:
                raise
            if time.monotonic() > deadline:
                raise TransportError(error.code, f"what is left was not copied: {error.message}", next=CUT_AGAIN) from error
            await asyncio.sleep(LOOK_S)
        else:
            return


def _settle(home: Home, move: MigrationFile) -> None:
    """Make of the directories what a realm has that has moved: keys as they are now, and no bridge."""
    made = brokers_in(home.root / SERVERS)
    keys = {}
    for one in made:
        raw = (home.root / move.aside / one.name / IDENTITY).read_bytes()
        write_secret(one / IDENTITY, raw)
        keys[BrokerFile.read(one).address] = read_identity(one / IDENTITY).certificate.public
    for one in made:
        told = BrokerFile.read(one)
        reached = tuple((address, keys[address]) for address, _ in told.realm.brokers)
        realm: RealmConfig = msgspec.structs.replace(told.realm, brokers=reached)
        msgspec.structs.replace(told, realm=realm).write(one)
        WAYS[move.engine].settle(one)


async def finish(home: Home, *, waits: Tell = silent) -> str:
    """Everybody is attached: the move is over; where the brokers' directories are now."""
    async with alone(home, waits):
        move = home.moving()
        aside = "" if move is None else str(home.root / move.aside)
        if move is not None:
            _forget(home)
        return aside
