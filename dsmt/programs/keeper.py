"""The keeper of `up`: a spawner that keeps this machine's brokers and controllers, and forks its nodes' spawners.

`python -m dsmt.programs.keeper DIRECTORY [LOCK]`, where `keeper.cbor` names what is to be kept alive, and LOCK is the
descriptor of the directory's lock, if who started it took it. Of a node it keeps what is half dead (`wards`): who killed
all of it meant it; on real hosts the init system starts a node's spawner.

Rule 1: whom the keeper keeps keep the keeper: a controller starts another 0.1 s after its death, a broker after 1 s, when
    no controller has. Its lock lets only one of them, who says so, signed.
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
from dsmt.programs import spawner
from dsmt.programs.configuration import ConfigFile
from dsmt.system.processes import spawner_of, watch_spawner

PROGRAMS: Final[Mapping[str, str]] = {
    "broker": "dsmt.programs.broker:main",
    "nats_server": "dsmt.programs.nats_server:main",
    "bridge": "dsmt.programs.bridge:main",
    "controller": "dsmt.programs.controller:main",
    "spawner": "dsmt.programs.spawner:main",
    **spawner.PROGRAMS,
}
"""Every program it can fork; a node's own are imported here so that its spawner's forks are warm at once."""

PAUSE_S: Final[Mapping[str, float]] = {"controller": 0.1, "broker": 1.0}
"""How long the keeper must be dead before who is kept by it starts another (rule 1)."""


class KeeperFile(ConfigFile, frozen=True, kw_only=True):
    """The programs to keep alive, as (program, absolute directory), and the nodes' directories."""

    FILE = "keeper.cbor"
    kept: tuple[tuple[str, str], ...]
    nodes: tuple[str, ...] = ()


def main(directory: str, lock: int | None = None) -> int:
    """Keep what `keeper.cbor` names until told to stop; the exit code. `lock` is the spawner's, if it was inherited."""
    config = KeeperFile.read(Path(directory))
    return spawner.main(directory, PROGRAMS, [spawner.Keep(*one) for one in config.kept], lock=lock, nodes=config.nodes)


async def keep_keeper(program: str, directory: Path, say: Callable[[KeeperReplaced], object]) -> None:
    """Start the keeper of this program again whenever it dies, and say so, until cancelled; returns when there is none."""
    where = _keeper_of(program, directory)
    if where is not None:
        tell = keeper_teller(say, where.parent)
        await watch_spawner(str(where), command_of(where), pause_s=PAUSE_S[program], replaced=tell)


def _keeper_of(program: str, directory: Path) -> Path | None:
    """The directory of the living keeper that keeps this program (rule 2)."""
    where = directory.absolute().parent.parent / "keeper"
    with suppress(InputError):
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:3])))
