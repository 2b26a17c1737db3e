"""The keeper of `up`: a spawner that keeps this machine's brokers and controllers, and forks its nodes' spawners.

`python -m dsmt.programs.keeper DIRECTORY [LOCK]`, where `keeper.cbor` names what is to be kept alive, and LOCK is the
descriptor of the directory's lock, if who started it took it. Of a node it keeps what is half dead (`wards`): who killed
all of it meant it; on real hosts the init system starts a node's spawner. Whom it keeps keep it (`kept`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dsmt.programs import spawner
from dsmt.programs.kept import KeeperFile
from dsmt.programs.kept_programs import Keep

PROGRAMS: Final[Mapping[str, str]] = {
    "broker": "dsmt.programs.broker:main",
    "nats_server": "dsmt.programs.nats_server:main",
    "bridge": "dsmt.programs.bridge:main",
    "controller": "dsmt.programs.controller:main",
    "spawner": "dsmt.programs.spawner:main",
    **spawner.PROGRAMS,
}
"""Every program it can fork; a node's own are imported here so that its spawner's forks are warm at once."""


def main(directory: str, lock: int | None = None) -> int:
    """Keep what `keeper.cbor` names until told to stop; the exit code. `lock` is the spawner's, if it was inherited."""
    config = KeeperFile.read(Path(directory))
    return spawner.main(directory, PROGRAMS, [Keep(*one) for one in config.kept], lock=lock, nodes=config.nodes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:3])))
