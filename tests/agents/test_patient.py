"""What an agent writes down on a full disk comes to it once there is room: of each path what was to be written last."""

import asyncio

import pytest

from dsmt.agents.shared.patient import AGAIN_S, PatientWriter
from dsmt.errors import FailedError
from tests.loops import in_virtual_time

from .memory_machine import MemoryFiles


class Disk(MemoryFiles):
    """Takes no file whose path is in `full`, and fails as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.full: set[str] = set()
        self.code = "fetch.no_space"
        self.fields: dict[str, bool] = {}
        self.tried: list[str] = []

    def write(self, path: str, content: bytes, *, mode: int = 0o600) -> None:
        self.tried.append(path)
        if path in self.full:
            raise FailedError(self.code, "cannot be written", **self.fields)
        super().write(path, content, mode=mode)


@in_virtual_time
async def test_the_last_of_each_path_is_written_when_there_is_room_and_who_waits_for_it_goes_on() -> None:
    disk = Disk()
    writer = PatientWriter(disk)
    disk.full = {"a", "b"}
    for content in (b"1", b"2"):
        writer.write("a", content)
    writer.write("b", b"1")
    assert writer.lacking is not None
    waiting = asyncio.ensure_future(writer.written())
    disk.full = {"b"}
    await asyncio.sleep(AGAIN_S)
    assert (disk.read("a"), disk.read("b"), waiting.done()) == (b"2", None, False)
    writer.write("c", b"1")
    assert disk.read("c") == b"1", "who writes what there is room for waits for nobody"
    assert writer.lacking is not None
    disk.full = set()
    await asyncio.wait_for(waiting, 2 * AGAIN_S)
    assert (disk.read("b"), writer.lacking) == (b"1", None)


@in_virtual_time
async def test_a_full_disk_is_tried_once_each_time_by_what_waits_longest_however_much_was_written() -> None:
    disk = Disk()
    writer = PatientWriter(disk)
    disk.full = {"a", "b"}
    for path in ("b", "a", "b", "a"):
        writer.write(path, b"1")
    disk.tried.clear()
    await asyncio.sleep(3.5 * AGAIN_S)
    assert disk.tried == ["b"] * 3
    disk.full = set()
    disk.tried.clear()
    await asyncio.wait_for(writer.written(), 2 * AGAIN_S)
    assert disk.tried == ["b", "a"]


@in_virtual_time
async def test_what_cannot_be_written_for_another_reason_keeps_nothing_waiting_that_there_is_room_for() -> None:
    """A program may have put something in its place while the disk was full."""
    disk = Disk()
    writer = PatientWriter(disk)
    disk.full = {"a", "b"}
    for path in ("a", "b"):
        writer.write(path, b"1")
    disk.full, disk.code = {"a"}, "node.files"
    await asyncio.sleep(1.5 * AGAIN_S)
    assert (disk.read("a"), disk.read("b")) == (None, b"1")
    assert writer.lacking is not None
    disk.full = set()
    await asyncio.wait_for(writer.written(), 2 * AGAIN_S)
    assert (disk.read("a"), writer.lacking) == (b"1", None)


@in_virtual_time
async def test_who_waits_goes_on_waiting_for_what_came_while_the_rest_was_written() -> None:
    disk = Disk()
    writer = PatientWriter(disk)
    disk.full = {"a", "b"}
    writer.write("a", b"1")
    waiting = asyncio.ensure_future(writer.written())
    await asyncio.sleep(0)
    disk.full = {"b"}
    for path in ("a", "b"):
        writer.write(path, b"2")
    await asyncio.sleep(AGAIN_S)
    assert not waiting.done()
    disk.full = set()
    await asyncio.wait_for(waiting, 2 * AGAIN_S)


@in_virtual_time
async def test_what_is_forgotten_is_not_written_and_waited_for_by_nobody() -> None:
    disk = Disk()
    writer = PatientWriter(disk)
    disk.full = {"a"}
    writer.write("a", b"1")
    writer.forget("a")
    await writer.written()
    assert writer.lacking is None
    disk.full = set()
    await asyncio.sleep(2 * AGAIN_S)
    assert disk.read("a") is None


@in_virtual_time
async def test_another_failure_is_that_of_who_writes_and_later_is_one_more_wait() -> None:
    disk = Disk()
    writer = PatientWriter(disk)
    for code, fields in (("start.failed", {}), ("node.files", {"other": True})):
        disk.full, disk.code, disk.fields = {"a"}, code, fields
        with pytest.raises(FailedError):
            writer.write("a", b"1")
    await writer.written()
    disk.fields = {}
    disk.code = "fetch.no_space"
    writer.write("a", b"1")
    disk.code = "start.failed"
    await asyncio.sleep(2 * AGAIN_S)
    assert writer.lacking is not None
    assert writer.lacking.code == "start.failed"
    disk.full = set()
    await asyncio.wait_for(writer.written(), 2 * AGAIN_S)
    assert disk.read("a") == b"1"
