"""Full disks of programs: what has not changed takes no room, and a NATS server that was refused a write begins anew."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from dsmt.programs import nats_gate, nats_server
from dsmt.programs.configuration import read_config, write_config
from dsmt.programs.kept import KeeperFile
from dsmt.programs.nats_gate import FULL_BYTES, ROOM_BYTES, ServerDisk

MIB, GIB = 2**20, 2**30


def test_a_configuration_that_stands_there_already_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "keeper" / "keeper.cbor"
    first, second = KeeperFile(kept=(("broker", "b1"),)), KeeperFile(kept=(("broker", "b2"),))
    write_config(path, first)
    written = path.stat().st_ino
    write_config(path, first)
    assert path.stat().st_ino == written
    write_config(path, second)
    assert read_config(path, KeeperFile) == second


def test_a_server_whose_disk_was_full_is_begun_anew_once_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frees = [ROOM_BYTES, FULL_BYTES - 1, FULL_BYTES, ROOM_BYTES, ROOM_BYTES, 0, ROOM_BYTES]
    ended: list[int] = []
    fulls: list[bool] = []
    disk = ServerDisk(tmp_path)

    async def main() -> None:
        left, done = iter(frees), asyncio.Event()

        def usage(_: Path) -> tuple[int, int, int]:
            free = next(left, None)
            fulls.append(disk.is_full)
            if free is None:
                done.set()
            return 16 * ROOM_BYTES, 0, ROOM_BYTES if free is None else free

        monkeypatch.setattr(nats_gate.shutil, "disk_usage", usage)
        monkeypatch.setattr(nats_gate, "DISK_LOOK_S", 0)
        looking = asyncio.ensure_future(disk.look(lambda: ended.append(len(frees))))
        await asyncio.wait_for(done.wait(), 10)
        looking.cancel()

    asyncio.run(main())
    assert len(ended) == 2
    assert fulls[: len(frees)] == [False, False, True, True, False, False, True]


@pytest.mark.parametrize(("total", "free", "low"), [
    (9 * GIB, 256 * MIB, False), (9 * GIB, 256 * MIB - 1, True), (80 * MIB, 20 * MIB, False), (80 * MIB, 20 * MIB - 1, True),
])  # fmt: skip
def test_of_a_disk_with_less_than_what_is_kept_for_events_little_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, free: int, low: bool
) -> None:
    monkeypatch.setattr(nats_gate.shutil, "disk_usage", lambda _: (total, total - free, free))
    disk = ServerDisk(tmp_path)

    async def main() -> None:
        looking = asyncio.ensure_future(disk.look(lambda: None))
        await asyncio.sleep(0)
        looking.cancel()

    asyncio.run(main())
    assert disk.is_low == low


def test_a_server_starts_on_a_full_disk_with_the_configuration_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    def full(place: str, _content: bytes, **_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", place)

    monkeypatch.setattr(nats_server, "configuration", lambda *_, **__: "server_name: b1")
    monkeypatch.setattr(nats_server, "program", lambda: "/bin/nats-server")
    monkeypatch.setattr(nats_server.os, "execv", lambda _, argv: started.append(argv))
    nats_server.main(str(tmp_path))
    monkeypatch.setattr(nats_server, "write_atomically", full)
    nats_server.main(str(tmp_path))
    assert started == [["/bin/nats-server", "-c", str(tmp_path / "server.conf")]] * 2
    (tmp_path / "server.conf").unlink()
    with pytest.raises(OSError, match="No space left"):
        nats_server.main(str(tmp_path))
