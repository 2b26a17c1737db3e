"""Files: nothing leaves the root, nothing is half written, a full disk is told."""

import errno
import os
import stat
import subprocess
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from dsmt.errors import FailedError, InputError
from dsmt.ports.files import Files
from dsmt.system import files as disk_files
from dsmt.system.failures import full_disk_told, no_space
from dsmt.system.files import DiskFiles, write_atomically
from dsmt.system.procfs import identity_of
from dsmt.system.records import process_of, read_record, record_path, take_lock, write_record
from dsmt.system.removing import mounted_in


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


def test_a_file_has_the_mode_that_it_is_to_have_whatever_is_masked(files):
    masked = os.umask(0o077)
    try:
        files.write("run/me.json", b"{}", mode=0o644)
    finally:
        os.umask(masked)
    assert Path(files.root, "run/me.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(("durable", "done"), [(True, ["content", "renamed", "name"]), (False, ["renamed"])])
def test_what_is_durable_is_on_the_disk_before_it_takes_the_place_of_another_and_so_is_its_name(
    tmp_path, monkeypatch, durable, done
):
    seen, sync, rename = [], os.fsync, os.replace

    def synced(descriptor):
        seen.append("name" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "content")
        sync(descriptor)

    def renamed(source, target):
        seen.append("renamed")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    DiskFiles(str(tmp_path), durable=durable).write("a", b"x")
    assert seen == done


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
        with pytest.raises(FailedError, match="cannot be used: a link on its way leads out of"):
            files.write(path, b"")
        with pytest.raises(FailedError, match="cannot be used: a link on its way leads out of"):
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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT], ids=["full", "over its quota"])
def test_a_disk_that_takes_nothing_more_is_told_as_full_whoever_says_so(number, tmp_path):
    with pytest.raises(FailedError) as caught, full_disk_told(str(tmp_path), 1):
        raise OSError(number, os.strerror(number))
    assert caught.value.code == "fetch.no_space"


@pytest.mark.parametrize("small_disk", ["1m,nr_inodes=4"], indirect=True)
def test_a_disk_on_which_no_directory_can_be_made_any_more_is_told_and_is_read_as_ever(small_disk):
    files = DiskFiles(str(small_disk))
    for name in ("a", "b", "c"):
        files.write(name, b"x")
    for full in (lambda: files.below("d"), lambda: files.write("d/e", b"x")):
        with pytest.raises(FailedError) as caught:
            full()
        assert caught.value.code == "fetch.no_space"
        assert "no inode free" in caught.value.message
    later = files.below("d", made=False)
    assert (later.read("e"), later.names("")) == (None, [])
    files.remove("a")
    files.remove("b")
    later.write("e", b"x")
    assert later.read("e") == b"x"


def test_a_disk_that_has_become_read_only_is_told_as_such_and_waited_for(small_disk):
    files = DiskFiles(str(small_disk))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for closed in (lambda: files.below("d"), lambda: files.write("a", b"x")):
        with pytest.raises(FailedError) as caught:
            closed()
        assert caught.value.code == "fetch.read_only"
        assert "is read-only" in caught.value.message
        assert "mount it writable" in caught.value.next
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    files.write("a", b"x")


def test_what_a_killed_process_of_the_same_pid_has_left_half_written_fails_no_write(tmp_path, monkeypatch):
    """In a container pids are the same at each start."""
    monkeypatch.setattr(disk_files, "_numbers", count(7))
    (tmp_path / f".a.{os.getpid()}.7.new").write_bytes(b"half")
    write_atomically(str(tmp_path / "a"), b"whole", durable=False)
    assert (tmp_path / "a").read_bytes() == b"whole"


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


def test_who_finds_that_another_has_the_lock_of_a_directory_keeps_nothing_of_it_open(tmp_path):
    lock = take_lock(str(tmp_path))
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert take_lock(str(tmp_path)) is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    os.close(lock)


def test_a_record_in_a_copy_of_a_home_names_nobody_there_while_the_home_that_was_copied_is_there(tmp_path):
    home, copy = tmp_path / "home/n1", tmp_path / "copy/n1"
    for directory in (home, copy):
        directory.mkdir(parents=True)
    code = "import time; print(flush=True); time.sleep(600)"
    runs = subprocess.Popen([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE)
    try:
        runs.stdout.readline()
        identity = identity_of(runs.pid)
        for directory in (home, copy):
            write_record(record_path(str(directory), "spawner"), identity)
        assert process_of(home, "spawner") == identity
        assert process_of(copy, "spawner") is None
        home.rename(tmp_path / "moved")
        assert process_of(copy, "spawner") == identity
    finally:
        runs.kill()
        runs.communicate()


@pytest.mark.parametrize("small_disk", ["1m,nr_inodes=20"], indirect=True)
def test_a_disk_with_no_inode_left_takes_a_number_in_the_place_of_one_as_long_and_nothing_else(small_disk):
    files = DiskFiles(str(small_disk))
    files.write("incarnation", b"1700000000000")
    files.write("facts", b"x" * 100)
    with suppress(OSError):
        for number in range(100):
            (small_disk / str(number)).touch()
    files.write("incarnation", b"1700000000001")
    assert files.read("incarnation") == b"1700000000001"
    for path, content in (("incarnation", b"2"), ("another", b"1700000000001"), ("facts", b"y" * 100)):
        with pytest.raises(FailedError, match="no inode free"):
            files.write(path, content)
    assert files.read("incarnation") == b"1700000000001"
    assert files.read("facts") == b"x" * 100, "more than a number is never half written"


@pytest.mark.parametrize("path", [".", "there", "file/below"])
def test_what_stands_where_a_file_is_to_be_is_told_and_left(files, path):
    files.write("there/inside", b"1")
    files.write("file", b"2")
    with pytest.raises(FailedError, match=r"cannot be written: (is a|not a) directory") as told:
        files.write(path, b"3")
    assert told.value.code == "node.files"
    assert (files.read("there/inside"), files.read("file")) == (b"1", b"2")


@pytest.mark.parametrize(("inodes", "said"), [((0, 0), "4 KiB"), ((9, 0), "no inode"), ((9, 1), "4 KiB")])
def test_a_disk_that_counts_no_inodes_is_not_said_to_lack_them(inodes, said, monkeypatch, tmp_path):
    total, left = inodes
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_files=total, f_favail=left, f_bavail=1, f_frsize=4096))
    told = no_space(str(tmp_path), 1 << 20, OSError(errno.ENOSPC, "full"))
    assert told.message == f"1 MiB needed, {said} free at {tmp_path}"


@pytest.mark.parametrize(("made", "why"), [(os.mkdir, "is a directory"), (os.mkfifo, "it is no file")])
def test_who_reads_what_is_no_file_is_told_so_and_does_not_wait_for_it(files, made, why):
    made(Path(files.root, "there"))
    with pytest.raises(FailedError, match=f"there cannot be read: {why}") as told:
        files.read("there")
    assert (told.value.code, told.value.fields["error"]) == ("node.files", why)


def test_what_something_is_mounted_in_is_left_as_it_is_and_told(tmp_path, small_disk):
    files = DiskFiles(str(tmp_path))
    files.write("beside", b"1")
    (small_disk / "kept").write_bytes(b"2")
    with pytest.raises(FailedError, match="small cannot be removed: something is mounted there") as told:
        DiskFiles(str(tmp_path.parent)).remove(tmp_path.name)
    assert (told.value.code, told.value.fields["path"]) == ("node.files", str(small_disk))
    assert (files.read("beside"), (small_disk / "kept").read_bytes()) == (b"1", b"2")


def test_where_a_mount_is_is_told_by_its_whole_name(tmp_path):
    place = tmp_path / "a b"
    (place / "c\\d").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    assert mounted_in(str(place)) is None
    subprocess.run(["mount", "--bind", tmp_path / "a", place / "c\\d"], check=True)
    try:
        assert mounted_in(str(place)) == str(place / "c\\d")
        assert mounted_in(str(tmp_path / "a")) is None
    finally:
        subprocess.run(["umount", place / "c\\d"], check=True)


UNPRIVILEGED = """
import os, sys
from dsmt.errors import FailedError
from dsmt.system.files import DiskFiles
os.setresuid(65534, 65534, 65534)
files = DiskFiles(sys.argv[1])
os.makedirs(f"{files.root}/mod/closed/deep")
files.write("mod/closed/deep/f", b"1")
os.symlink("/usr", f"{files.root}/mod/closed/link")
for name, mode in (("mod/closed/deep", 0o500), ("mod/closed", 0o0), ("mod", 0o500)):
    os.chmod(f"{files.root}/{name}", mode)
files.remove("mod")
print(files.names(""))
below = files.below("a/b")
below.write("f", b"1")
for name, mode in (("a/b", 0o0), ("a", 0o411)):
    os.chmod(f"{files.root}/{name}", mode)
print(files.names("a/b"), files.read("a/b/f"), oct(os.stat(f"{files.root}/a").st_mode & 0o777))
os.chmod(f"{files.root}/a/b", 0o500)
below.write("f", b"2")
os.chmod(f"{files.root}/a", 0o500)
files.remove("a/b")
print(files.names("a"))
files.remove("a")
own = files.below("service/slot")
own.write("f", b"1")
for name in ("service/slot/f", "service/slot", "service"):
    os.chmod(f"{files.root}/{name}", 0)
print(own.read("f"))
own.write("f", b"2")
files.below("operators").write("f", b"3")
os.chmod(f"{files.root}/operators", 0o0)
try:
    DiskFiles("/", made=False, ours=False).read(f"{files.root}/operators/f".lstrip("/"))
except FailedError as error:
    print(error.message, oct(os.stat(f"{files.root}/operators").st_mode & 0o777))
files.remove("operators")
files.remove("service")
try:
    files.remove("others")
except FailedError as error:
    print(error.code, error.message)
try:
    files.read("others/secret")
except FailedError as error:
    print(error.code, error.message)
"""


def test_who_is_not_privileged_removes_what_a_program_has_closed_and_is_told_of_what_is_anothers():
    """As Go closes its module cache. To be another one for a while needs root, as the project's CI has."""
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        others = Path(directory, "others")
        others.mkdir(mode=0o755)
        (others / "secret").write_bytes(b"1")
        (others / "secret").chmod(0o600)
        command = [sys.executable, "-c", UNPRIVILEGED, directory]
        said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert said.stdout.splitlines() == [
        "['others']",
        "['f'] b'1' 0o711",
        "[]",
        "b'1'",
        f"{directory}/operators/f cannot be read: permission denied 0o0",
        f"node.files {others} cannot be removed: permission denied",
        f"node.files {others}/secret cannot be read: permission denied",
    ], said.stderr


def test_what_is_larger_than_any_small_file_is_not_read(files):
    with Path(files.root, "large").open("wb") as file:
        file.truncate(2**38)
    with pytest.raises(FailedError, match="large cannot be read: it is larger than 64 mib"):
        files.read("large")


def test_a_name_may_be_as_long_as_the_disk_lets_it_be_and_what_is_longer_is_told(files):
    longest = "ü" * 127
    files.write(longest, b"1")
    assert files.read(longest) == b"1"
    for write in (files.write, lambda path, content: files.write_given("given", path, content, user="nobody", mode=0o600)):
        files.below("given")
        with pytest.raises(FailedError, match="cannot be written: file name too long") as told:
            write("ü" * 128, b"1")
        assert told.value.code == "node.files"
