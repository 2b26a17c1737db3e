"""The keeper of a home: what it is to keep, whether it runs, and how it is started (programs/keeper.py)."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from dsmt.errors import FailedError, TransportError
from dsmt.operations.local.home.home import SERVERS, Home, is_up, keeper_directory
from dsmt.operations.local.home.lock import is_held
from dsmt.operations.local.home.steadiness import ENDS, last_words
from dsmt.operations.local.processes.parts import Parts
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.configuration import MigrationFile, RealmConfig
from dsmt.programs.kept import KeeperFile, command_of
from dsmt.system.files import write_atomically
from dsmt.system.processes import Request, SpawnedProcesses, start_spawner
from dsmt.system.procfs import is_alive

START_S = 30.0
LIVES_S = 2.0
"""A keeper that cannot begin has ended by then."""
BEGINS_S = 5.0
"""How long one that runs may take to answer for the first time."""
BEGUN_ANEW = "begun_anew"
"""Stands beside the keeper from when `upgrade` ends all until the keeper answers again, or `down` has ended it."""

RUN = "this_run"
"""Stands beside the keeper, and names one run of the realm: from the `up` that begins it until `down` has ended it."""


def was_up(home: Home) -> bool:
    """Whether a home's keeper was ever started."""
    return (keeper_directory(home) / KeeperFile.FILE).exists()


def is_kept(home: Home) -> bool:
    """Whether `up` keeps a home: its keeper runs, or was ended to be begun anew, which was interrupted."""
    return is_up(home) or (keeper_directory(home) / BEGUN_ANEW).exists()


def begin(home: Home) -> str:
    """Begin a run of the realm, unless one goes on; its name. Who calls it is alone in the home."""
    run = run_of(home)
    if not run or not _goes_on(home):
        run = secrets.token_hex(8)
        keeper_directory(home).mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(str(keeper_directory(home) / RUN), run.encode())
    return run


def check_run(home: Home, run: str) -> None:
    """Raise `FailedError` where `down` has ended this run of the realm: what runs here now is not of it."""
    if _is_over(home, run):
        said = f"dsmt down, typed elsewhere, has ended the realm in {home.root}"
        raise FailedError("up.ended", said, next="dsmt up starts it again")


def check_goes_on(home: Home, run: str) -> None:
    """Raise `FailedError` where this run of the realm has ended, in whatever way, and nobody is at work on the home."""
    if (_is_over(home, run) or not _goes_on(home)) and not is_held(home):
        check_run(home, run)
        said = f"the keeper of {home.root}, and all that would start it again, have died"
        raise FailedError("up.ended", said, next="dsmt up starts again what is missing; dsmt down ends what is left")


def _is_over(home: Home, run: str) -> bool:
    """Whether another run has followed this one, or none; a home that was removed, or a disk that fails, tells nothing."""
    return home.exists and run_of(home) not in (run, None)


def run_of(home: Home) -> str | None:
    """The name of the run that there is, empty where there is none; None where a disk does not give it back."""
    try:
        return (keeper_directory(home) / RUN).read_text("ascii")
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):  # one that is damaged is none
        return ""
    except OSError:
        return None


def _goes_on(home: Home) -> bool:
    """Whether the keeper lives, or somebody who starts it again; of a home that was removed, whether anybody does."""
    parts = Parts(home)
    if not home.exists:
        return bool(parts.holders())
    return is_kept(home) or bool(parts.controllers() or parts.brokers())


def write_kept(home: Home, *, without: str = "", moving: bool = True) -> None:
    """Write down what the keeper is to keep: all that the home holds, without one directory, which may be a node's.

    Of a move that is under way also its servers and its bridge, unless not `moving`; when it is cut the servers alone.
    """
    move = home.moving() if moving and home.names(SERVERS) else None
    if move is not None and move.cut:
        KeeperFile(kept=tuple(_servers_of(home, move))).write(keeper_directory(home))
        return
    programs = broker_programs(home.realm()) if home.exists else ("broker",)
    kept = [(program, str(part)) for part in home.parts("brokers").values() for program in programs]
    kept += [("controller", str(part)) for part in home.parts("controllers").values()]
    if move is not None:
        kept += [one for one in [*_servers_of(home, move), ("bridge", str(home.migration))] if one not in kept]
    nodes = tuple(where for where in map(str, home.parts("nodes").values()) if where != without)
    still = tuple(one for one in kept if one[1] != without)
    KeeperFile(kept=still, nodes=nodes).write(keeper_directory(home))


def broker_programs(realm: RealmConfig) -> tuple[str, ...]:
    """What runs in the directory of each broker, in the order in which it is started."""
    return ("broker",) if realm.nats is None else ("nats_server", "broker")


def _servers_of(home: Home, move: MigrationFile) -> list[tuple[str, str]]:
    """The NATS servers of a move: those to which the realm moves, or those that it leaves."""
    kind = SERVERS if move.engine == "nats" else "brokers"
    return [("nats_server", str(part)) for part in home.parts(kind).values()]


async def start_keeper(home: Home) -> None:
    """Start the keeper of a home, unless it runs; it answers when this returns. Raises `FailedError`.

    One that is just ending keeps others from starting, and answers nobody: the next one is started when it has. Who ends
    `ENDS` times before it answers will not.
    """
    directory = keeper_directory(home)
    write_kept(home)
    answering = SpawnedProcesses(str(directory))
    deadline, begun = time.monotonic() + START_S, set[ProcessIdentity]()
    while True:
        started = start_spawner(str(directory), command_of(directory))
        begun.update([] if started is None else [started])
        if len(begun) > ENDS and not await _lives(begun):
            log = directory / "spawner.log"
            said = f"the keeper ends as it begins, again and again: {last_words(log)}"
            raise FailedError("up.keeper", said, next=f"see {log}; where something is missing there, install dsmt again")
        try:
            await answering.request(Request("status"))  # a list of all its nodes may be longer than an answer
        except TransportError as error:
            if time.monotonic() > deadline:
                hangs = "those that it keeps end one that hangs, within a minute: try again then; " if is_up(home) else ""
                advice = f"{hangs}its log is {directory}/spawner.log"
                raise FailedError("up.keeper", "the keeper does not answer", next=advice) from error
            await asyncio.sleep(0.02)
        else:
            if (directory / BEGUN_ANEW).exists():  # a disk that has become read-only takes no removal, not even of nothing
                (directory / BEGUN_ANEW).unlink()
            return


async def _lives(begun: Iterable[ProcessIdentity]) -> bool:
    """Whether one of these lives in the end, and not only for a moment."""
    until = time.monotonic() + LIVES_S
    while (living := any(map(is_alive, begun))) and time.monotonic() < until:  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.02)
    return living


async def keep(home: Home, kind: str, program: str, names: Iterable[str]) -> None:
    """Have the keeper keep brokers or controllers that it did not know of when it was started."""
    for name in names:
        await ask_keeper(home, "keep", program, home.part(kind, name))


async def keep_added(home: Home, kind: str, programs: Iterable[str], name: str) -> None:
    """Have the keeper of a home that is up keep what was added, and the one that follows it when it is killed."""
    if was_up(home):
        write_kept(home)
    if is_up(home):
        for program in programs:
            await keep(home, kind, program, [name])


async def ask_keeper(home: Home, op: Literal["start", "keep", "release"], program: str, directory: Path) -> None:
    """Have the keeper start, keep or release a program. Raises `TransportError`, or the `FailedError` that it answers.

    One that takes no connection yet, for it has just followed one that was killed (C7), is waited for.
    """
    asking, deadline = SpawnedProcesses(str(keeper_directory(home))), time.monotonic() + BEGINS_S
    while True:
        try:
            await asking.request(Request(op, program, str(directory)))
        except TransportError as error:
            taken = not isinstance(error.__cause__, ConnectionRefusedError | FileNotFoundError)
            if taken or not is_up(home) or time.monotonic() > deadline:
                raise
        else:
            return
        await asyncio.sleep(0.02)
