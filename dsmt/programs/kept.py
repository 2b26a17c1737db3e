"""Who the keeper of `up` keeps: the file that names them, and how they keep the keeper (`programs.keeper`).

Rule 1: a controller starts another keeper 0.1 s after its death, a broker after 1 s, when no controller has. Its lock lets
    only one of them, who says so, signed.
Rule 2: who was not started by a keeper starts none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from dsmt.errors import InputError
from dsmt.event.kinds.source import KeeperReplaced
from dsmt.event.records import to_data
from dsmt.ports.bus import Bus, Draft
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.configuration import ConfigFile
from dsmt.system.processes import spawner_of, watch_spawner

PAUSE_S: Final[Mapping[str, float]] = {"controller": 0.1, "broker": 1.0}
"""How long the keeper must be dead before who is kept by it starts another (rule 1)."""


class KeeperFile(ConfigFile, frozen=True, kw_only=True):
    """The programs to keep alive, as (program, absolute directory), and the nodes' directories."""

    FILE = "keeper.cbor"
    kept: tuple[tuple[str, str], ...]
    nodes: tuple[str, ...] = ()


async def keep_keeper(program: str, directory: Path, say: Callable[[KeeperReplaced], object]) -> None:
    """Start the keeper of this program again whenever it dies, and say so, until cancelled; returns when there is none."""
    where = _keeper_of(program, directory)
    if where is not None:
        tell = keeper_teller(say, where.parent)
        await watch_spawner(str(where), command_of(where), pause_s=PAUSE_S[program], replaced=tell)


def _keeper_of(program: str, directory: Path) -> Path | None:
    """The directory of the living keeper that keeps this program (rule 2)."""
    where = directory.absolute().parent.parent / "keeper"
    with suppress(InputError, OSError):
        kept = KeeperFile.read(where).kept
        if (program, str(directory.absolute())) in kept and spawner_of(str(where)) is not None:
            return where
    return None


def keeper_teller(
    say: Callable[[KeeperReplaced], object], directory: Path
) -> Callable[[ProcessIdentity, ProcessIdentity], None]:
    """Says, signed, that who kept this directory's programs had died."""

    def tell(dead: ProcessIdentity, now: ProcessIdentity) -> None:
        say(KeeperReplaced(directory=str(directory), died=dead.pid, pid=now.pid))

    return tell


def on_the_bus(bus: Bus) -> Callable[[KeeperReplaced], object]:
    """Says it as the source of a connection."""
    return lambda record: bus.emit(Draft(f"{bus.source}/keeper", to_data(record)))


def command_of(directory: Path) -> list[str]:
    """The command line of a directory's keeper, to which the descriptor of its lock is added."""
    return [sys.executable, "-m", "dsmt.programs.keeper", str(directory)]
