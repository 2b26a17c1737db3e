"""Calls of the C library: what a kernel refuses is an error, and an installation is written out before it counts."""

import asyncio
import errno
import os
from pathlib import Path

import pytest

from dsmt.errors import FailedError
from dsmt.system import files, libc, logs
from dsmt.system.files import DiskFiles


def test_what_the_kernel_refuses_is_an_error_with_its_number() -> None:
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        libc.call("syncfs", -1)
    assert caught.value.errno == errno.EBADF


def test_the_file_system_of_a_directory_is_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def call(name: str, descriptor: int) -> None:
        asked.append((name, str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        libc.call(name, descriptor)

    monkeypatch.setattr(files, "call", call)
    disk = DiskFiles(str(tmp_path))
    disk.below("place")
    before = len([*Path("/proc/self/fd").iterdir()])
    asyncio.run(disk.synced("place"))
    assert asked == [("syncfs", str(tmp_path / "place"))]
    assert len([*Path("/proc/self/fd").iterdir()]) == before
    asyncio.run(disk.synced("gone"))


def test_a_disk_that_cannot_be_written_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(name: str, descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files, "call", call)
    with pytest.raises(FailedError, match="cannot be synced") as caught:
        asyncio.run(DiskFiles(str(tmp_path)).synced(""))
    assert caught.value.code == "node.files"


def test_a_log_whose_file_system_cannot_free_a_part_of_it_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(name: str, *_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(logs, "call", call)
    (tmp_path / "out").write_bytes(bytes(2**20))
    logs._punch(str(tmp_path / "out"), 2**20)
    assert (tmp_path / "out").read_bytes() == bytes(2**20)
