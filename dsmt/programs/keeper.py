"""The keeper of `up`: a spawner that keeps this machine's brokers and controllers, and forks its nodes' spawners.

`python -m dsmt.programs.keeper DIRECTORY [LOCK]`, where `keeper.cbor` names what is to be kept alive, and LOCK is the
descriptor of the directory's lock, if who started it took it. A node is not kept: who killed all of it meant it; on real
hosts the init system starts a node's spawner.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from dsmt.programs import spawner
from dsmt.programs.configuration import read_config

PROGRAMS: Final[Mapping[str, str]] = {
    "broker": "dsmt.programs.broker:main",
    "controller": "dsmt.programs.controller:main",
    "spawner": "dsmt.programs.spawner:main",
    **spawner.PROGRAMS,
}
"""Every program it can fork; a node's own are imported here so that its spawner's forks are warm at once."""


class KeeperFile(msgspec.Struct, frozen=True, kw_only=True):
    """`keeper.cbor`: the programs to keep alive, as (program, absolute directory)."""

    kept: tuple[tuple[str, str], ...]


def main(directory: str, lock: int | None = None) -> int:
    """Keep what `keeper.cbor` names until told to stop; the exit code. `lock` is the spawner's, if it was inherited."""
    config = read_config(Path(directory) / "keeper.cbor", KeeperFile)
    return spawner.main(directory, PROGRAMS, [spawner.Keep(*one) for one in config.kept], lock=lock)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:3])))
