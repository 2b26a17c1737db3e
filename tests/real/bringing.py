"""What hosts are brought in a run of the tests: wheels that are collected once, and the program that came of them on a host.

To what is not about how a host comes to its program, that of another host is copied: `node add` finds it there.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from dsmt.errors import FailedError
from dsmt.operations.remote.wheels import Platform, cache_directory, collected
from tests.real.machines import Machine, sh


@dataclass(frozen=True)
class Brought:
    """What hosts are brought in this run of the tests: the name of it, and where its wheels and the program are kept."""

    build: str
    directory: Path

    @property
    def cache(self) -> Path:
        """Of this run only: another checkout writes a wheel of its own, of the same name, to that of the user."""
        return self.directory / "cache"

    def give(self, machine: Machine) -> None:
        """Have the program on a machine, when one of this run has it by now: all that `node add` looks for is there."""
        program, place = self.directory / self.build, machine.place("/opt/dsmt")
        if program.exists() and not (place / self.build).exists():
            place.mkdir(exist_ok=True)
            sh(f"cp -a {program} {place}")

    def keep(self, machine: Machine) -> None:
        """Take the program from a machine to which `node add` has brought it."""
        program, beside = self.directory / self.build, self.directory / f"{self.build}.{os.getpid()}"
        if not program.exists() and machine.place(f"/opt/dsmt/{self.build}/complete").exists():
            sh(f"cp -a {machine.place('/opt/dsmt')}/{self.build} {beside}")
            with suppress(OSError):  # somebody else was first
                beside.rename(program)


def brought(what: str, tmp_path_factory: pytest.TempPathFactory) -> Brought:
    told = "import json, platform, sys; print(json.dumps([sys.version_info[:2], platform.machine(), *platform.libc_ver()]))"
    version, machine, libc, libc_version = json.loads(subprocess.check_output(["/usr/bin/python3", "-c", told]))
    if version < [3, 11]:
        pytest.skip("the machines have this one's Python, which is too old")
    platform = Platform(version=(version[0], version[1]), machine=machine, libc=libc, libc_version=libc_version)
    try:
        found = asyncio.run(collected(platform, what=what))
    except FailedError as error:
        pytest.skip(str(error))
    base = tmp_path_factory.getbasetemp()
    all_workers = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = Brought(found.build, all_workers / "brought")
    wheels = made.cache / "dsmt" / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    for directory in filter(Path.is_dir, cache_directory().iterdir()):
        with suppress(FileExistsError):
            (wheels / directory.name).symlink_to(directory)
    return made
