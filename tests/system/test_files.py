"""Files: nothing leaves the root, nothing is half written, a full disk is told."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from dsmt.errors import FailedError, InputError
from dsmt.ports.files import Files
from dsmt.system.files import DiskFiles
from dsmt.system.procfs import identity_of
from dsmt.system.records import read_record, record_path, write_record


@pytest.fixture
def files(tmp_path) -> Files:
    return DiskFiles(str(tmp_path / "root"))


def test_what_was_written_is_read_back_with_its_mode(files):
    files.write("keys/node.key", b"secret")
    files.write("run/me.json", b"{}", mode=0o644)
    assert files.read("keys/node.key") == b"secret"
    assert Path(files.root, "keys/node.key").stat().st_mode & 0o777 == 0o600
    assert Path(files.root, "run/me.json").stat().st_mode & 0o777 == 0o644
    assert files.names("") == ["keys", "run"]
    assert files.below("keys").read("node.key") == b"secret"


def test_a_file_that_is_not_there_is_none_and_removing_it_is_nothing(files):
    assert files.read("nothing") is None
    assert files.names("nothing") == []
    files.write("a", b"1")
    assert files.read("a/b") is None
    files.remove("nothing")
    files.remove("a/b")
    assert files.names("") == ["a"]


def test_a_directory_is_removed_with_all_it_holds(files):
    files.write("d/e/f", b"1")
    files.remove("d")
    assert files.names("") == []


def test_a_reader_of_a_replaced_file_keeps_the_old_content(files):
    files.write("a", b"old")
    with Path(files.root, "a").open("rb") as reader:
        files.write("a", b"new")
        assert reader.read() == b"old"
    assert files.read("a") == b"new"
    assert files.names("") == ["a"]


@pytest.mark.parametrize("path", ["../a", "/etc/passwd", "a/../../b", "a/..", "\0"])
def test_a_path_that_leaves_the_root_is_refused(files, path):
    for act in (files.read, files.names, files.remove, files.below, lambda p: files.write(p, b"")):
        with pytest.raises(InputError):
            act(path)


def test_a_link_out_of_the_root_is_not_followed_and_can_be_removed(files, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("kept")
    Path(files.root, "link").symlink_to(tmp_path / "outside")
    for path in ("link/kept", "link/new"):
        with pytest.raises(InputError):
            files.write(path, b"")
        with pytest.raises(InputError):
            files.read(path)
    files.remove("link")
    assert (tmp_path / "outside" / "kept").read_text() == "kept"
    assert files.names("") == []


def test_the_root_itself_cannot_be_removed(files):
    with pytest.raises(InputError):
        files.remove(".")


@pytest.mark.real
def test_a_full_disk_is_told_and_the_old_content_stays(small_disk):
    files = DiskFiles(str(small_disk))
    files.write("a", b"old")
    with pytest.raises(FailedError) as caught:
        files.write("a", b"x" * (1 << 20))
    assert caught.value.code == "fetch.no_space"
    assert caught.value.fields["need"] == "1 MiB"
    assert str(small_disk) in caught.value.message
    assert files.read("a") == b"old"
    assert files.names("") == ["a"]


def test_a_full_disk_takes_a_record_in_the_place_of_the_one_before_and_none_where_there_was_none(small_disk):
    path, own = record_path(str(small_disk), "broker"), identity_of(os.getpid())
    assert own is not None
    write_record(path, replace(own, pid=4_000_000, started=own.started * 1000))
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    write_record(path, own)
    assert read_record(path) == own
    with pytest.raises(OSError, match="No space left"):
        write_record(record_path(str(small_disk), "controller"), own)
