"""A machine's disk: what is written is read again, by whoever reads it, and nothing else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsmt.ports.logs import Begun
from dsmt.simulator.engine.disk import Disk, SimFiles, SimLogs

PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(lambda names: "/" + "/".join(names))


def test_a_file_takes_the_place_of_what_was_there() -> None:
    disk = Disk()
    disk.write("/home/node/key", b"1")
    disk.append("/home/node/key", b"2")
    disk.append("/home/node/log", b"3")
    assert (disk.read("/home/node/key"), disk.read("/home/node/log")) == (b"12", b"3")
    assert disk.names("/home/node") == ["key", "log"]
    assert (disk.read("/home/node"), disk.names("/home/node/key")) == (None, [])
    assert (disk.read("/nowhere"), disk.read("/home/node/key/below"), disk.names("/nowhere")) == (None, None, [])
    disk.write("/home/node/key/below", b"4")
    assert disk.names("/home/node/key") == ["below"], "a directory is made where a file was"


def test_what_is_removed_is_gone_with_all_below_it() -> None:
    disk = Disk()
    for path in ("/a/b/c", "/a/d", "/e"):
        disk.write(path, path.encode())
    disk.remove("/a/b/")
    disk.remove("/nowhere/at/all")
    disk.remove("/a/nothing")
    disk.remove("/e/below")
    assert dict(disk.files()) == {"/a/d": b"/a/d", "/e": b"/e"}
    disk.remove("/a")
    assert dict(disk.files()) == {"/e": b"/e"}


@given(st.lists(st.tuples(PATHS, st.binary(max_size=2)), max_size=8))
def test_every_file_is_listed_with_what_is_read_of_it(written: list[tuple[str, bytes]]) -> None:
    disk = Disk()
    for path, content in written:
        disk.write(path, content)
    found = dict(disk.files())
    assert all(disk.read(path) == content for path, content in found.items())
    assert all(path in found or disk.read(path) is None for path, _ in written)
    if written:
        assert found[written[-1][0]] == written[-1][1]


def test_a_program_sees_its_own_part_of_a_disk() -> None:
    disk = Disk()
    files = SimFiles(disk, "/home/n1")
    files.write("incarnation", b"7")
    below = files.below("slots/0")
    below.write_given("run", "config", b"c", user="web", mode=0o640)
    below.give("run", "web")
    assert (files.root, below.root) == ("/home/n1", "/home/n1/slots/0")
    assert disk.read("/home/n1/slots/0/run/config") == below.read("run/config") == b"c"
    assert files.names("slots") == ["0"]
    assert files.below("empty").names("") == []
    assert files.names("") == ["empty", "incarnation", "slots"]
    files.remove("slots")
    assert (below.read("run/config"), files.read("incarnation")) == (None, b"7")


def test_a_log_over_its_size_is_rotated_when_a_run_begins_and_read_by_its_offsets() -> None:
    disk = Disk()
    logs = SimLogs(disk, "/logs")
    assert logs.begin("stdout", size_bytes=4, keep=1) == Begun(0, rotated=False)
    disk.append(logs.path("stdout"), b"1234")
    assert logs.begin("stdout", size_bytes=4, keep=1) == Begun(4, rotated=False), "it is at its size, not over it"
    disk.append(logs.path("stdout"), b"5")
    logs.trim("stdout", size_bytes=1, keep=1)
    assert logs.begin("stdout", size_bytes=4, keep=1) == Begun(0, rotated=True)
    assert dict(disk.files()) == {"/logs/stdout.log": b"", "/logs/stdout.log.1": b"12345"}
    disk.append(logs.path("stdout"), b"67")
    assert logs.read("stdout", 0, None) == b"67"
    assert logs.read("stdout", 1, None, back=1) == b"2345"
    assert logs.read("stdout", 1, 3, back=1) == b"23"
    assert logs.read("stdout", 0, None, back=1, most=2) == b"45"
    assert logs.read("stderr", 0, None) == b""
