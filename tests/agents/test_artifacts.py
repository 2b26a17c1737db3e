"""Unpacking: what archives hold, and what they must not do."""

import asyncio
import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from dsmt.agents.fetch.archive import Bounds
from dsmt.agents.fetch.artifacts import unpack
from dsmt.errors import FailedError

TYPES = {tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE}
PLAIN = b"#!/bin/sh\necho hello\n"


def tar_of(*members):
    """A tar archive as bytes; a member is (name, content or type, changes)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content, changes in members:
            member = tarfile.TarInfo(name)
            member.mode = 0o644
            if content in TYPES:
                member.type, content = content, b""  # noqa: PLW2901
            member.size = len(content)
            for key, value in changes.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def zip_of(*members):
    """A zip archive as bytes; a member is (name, content, st_mode)."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in members:
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            archive.writestr(member, content)
    return stream.getvalue()


def tar_with_size(archive: bytes, size: bytes) -> bytes:
    """A tar archive of which the first member claims another size."""
    header = bytearray(archive[:512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + archive[512:]


GOOD = (
    ("./", tarfile.DIRTYPE, {"mode": 0o755}),
    ("pkg-1/bin/server", PLAIN, {"mode": 0o755}),
    ("pkg-1/etc", tarfile.DIRTYPE, {"mode": 0o500}),
    ("pkg-1/etc/conf", b"a=1\n", {"mode": 0o666}),
    ("pkg-1/lib/current", tarfile.SYMTYPE, {"linkname": "../bin"}),
    ("pkg-1/bin/alias", tarfile.LNKTYPE, {"linkname": "pkg-1/bin/server"}),
)


@pytest.fixture
def put(tmp_path):
    """Write an archive, unpack it, and return the directory."""

    def act(content, name="download", to="", **options):
        archive = tmp_path / name
        archive.write_bytes(content)
        target = tmp_path / "instance"
        target.mkdir(exist_ok=True)
        asyncio.run(unpack(str(archive), str(target), name=to, **options))
        return target

    return act


def tree(directory):
    """Every path below a directory."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["plain", "gz", "bz2", "xz"])
@pytest.mark.parametrize("how", ["auto", "tar"])
def test_a_tar_is_known_by_its_content_whatever_its_compression(put, pack, how):
    target = put(pack(tar_of(*GOOD)), name="archive.zip", how=how, strip=1)
    assert tree(target) == ["bin", "bin/alias", "bin/server", "etc", "etc/conf", "lib", "lib/current"]
    assert (target / "lib/current/server").read_bytes() == PLAIN
    assert (target / "bin/alias").samefile(target / "bin/server")
    assert stat.S_IMODE((target / "bin/server").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "etc/conf").stat().st_mode) == 0o644


@pytest.mark.parametrize("how", ["auto", "zip"])
def test_a_zip_is_known_by_its_content(put, how):
    content = zip_of(
        ("pkg/bin/server", PLAIN, stat.S_IFREG | 0o4755),
        ("pkg/plain", b"x", stat.S_IFREG),
        ("pkg/empty/", b"", stat.S_IFDIR | 0o755),
        ("pkg/link", b"bin/server", stat.S_IFLNK | 0o777),
    )
    target = put(content, name="archive.tar", how=how)
    assert tree(target) == ["pkg", "pkg/bin", "pkg/bin/server", "pkg/empty", "pkg/link", "pkg/plain"]
    assert (target / "pkg/link").read_bytes() == PLAIN
    assert stat.S_IMODE((target / "pkg/bin/server").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "pkg/plain").stat().st_mode) == 0o644


def test_a_plain_file_gets_its_name_and_mode(put):
    target = put(PLAIN, name="server", mode="0750")
    assert (target / "server").read_bytes() == PLAIN
    assert stat.S_IMODE((target / "server").stat().st_mode) == 0o750
    assert (put(PLAIN, name="0a1b", mode="4755", how="auto") / "0a1b").stat().st_mode & 0o7777 == 0o755


def test_a_plain_file_may_be_given_another_name(tmp_path):
    (tmp_path / "cafe").write_bytes(PLAIN)
    asyncio.run(unpack(str(tmp_path / "cafe"), str(tmp_path / "new"), name="server"))
    assert (tmp_path / "new" / "server").read_bytes() == PLAIN


@pytest.mark.parametrize(
    "content",
    [gzip.compress(PLAIN)[:-9], tar_of(), tar_of(*GOOD)[:1500], b"\x28\xb5\x2f\xfd"],
    ids=["half a gzip", "an empty tar", "half a tar", "the head of a zstd"],
)
def test_an_archive_that_is_broken_is_called_by_the_name_that_its_operator_knows(put, content):
    with pytest.raises(FailedError, match=r"^site-1\.0 cannot be unpacked"):
        put(content, name="5f3c0a", to="site-1.0", how="tar")


@pytest.mark.parametrize("name", [".", "..", "a/b", "/a"])
def test_a_plain_file_has_one_plain_name(tmp_path, name):
    (tmp_path / "cafe").write_bytes(PLAIN)
    with pytest.raises(FailedError) as caught:
        asyncio.run(unpack(str(tmp_path / "cafe"), str(tmp_path / "new"), name=name))
    assert caught.value.code == "install.unpack"
    assert tree(tmp_path) == ["cafe", "new"]


@pytest.mark.parametrize(
    "content", [tar_of(*GOOD), zip_of(("a", b"b", 0)), gzip.compress(b"no tar")], ids=["tar", "zip", "gzip"]
)
def test_an_archive_is_left_alone_when_it_is_not_to_be_unpacked(put, content):
    assert (put(content, how="no") / "download").read_bytes() == content


def test_a_compressed_file_that_is_no_tar_is_a_plain_file(put):
    content = gzip.compress(b"a log, say" * 1000)
    assert (put(content) / "download").read_bytes() == content


def test_of_two_members_with_one_name_the_later_counts(put):
    target = put(tar_of(("a", b"first", {}), ("b", tarfile.LNKTYPE, {"linkname": "a"}), ("a", b"second", {})))
    assert (target / "a").read_bytes() == b"second"
    assert (target / "b").read_bytes() == b"first"


def test_a_directory_that_its_archive_closes_to_its_owner_is_open_to_who_unpacks_it(put):
    target = put(tar_of(("d", tarfile.DIRTYPE, {"mode": 0o055}), ("d/f", PLAIN, {"mode": 0o044})))
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "d/f").stat().st_mode) == 0o644


def test_a_directory_may_stand_behind_what_is_in_it(put):
    target = put(tar_of(("d/a", b"one", {}), ("d", tarfile.DIRTYPE, {"mode": 0o700})))
    assert tree(target) == ["d", "d/a"]
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("members", "strip", "said"),
    [
        ([("d", tarfile.DIRTYPE, {"mode": 0o755})], 0, "it holds no file"),
        ([("a/b", b"", {})], 2, "nothing is left of it after strip 2"),
    ],
)
def test_an_archive_of_which_nothing_is_left_says_why(put, members, strip, said):
    with pytest.raises(FailedError, match=said):
        put(tar_of(*members), strip=strip)


def test_unpacking_again_replaces_files_and_keeps_others(put):
    put(tar_of(("d/a", b"one", {}), ("d/b", b"one", {})))
    target = put(tar_of(("d/a", b"two", {}), ("e", b"two", {})))
    assert [(target / name).read_bytes() for name in ("d/a", "d/b", "e")] == [b"two", b"one", b"two"]
    assert tree(target) == ["d", "d/a", "d/b", "e"]


EVIL = {
    "dot dot": [("ok", b"", {}), ("../evil", b"", {})],
    "dot dot inside": [("a/../../evil", b"", {})],
    "absolute": [("/evil", b"", {})],
    "device": [("evil", tarfile.CHRTYPE, {"devmajor": 1, "devminor": 3})],
    "pipe": [("evil", tarfile.FIFOTYPE, {})],
    "absolute link": [("evil", tarfile.SYMTYPE, {"linkname": "/etc/passwd"})],
    "link out": [("a/evil", tarfile.SYMTYPE, {"linkname": "../../x"})],
    "write through a link out": [("evil", tarfile.SYMTYPE, {"linkname": ".."}), ("evil/x", b"", {})],
    "write through a link inside": [("d/x", b"", {}), ("evil", tarfile.SYMTYPE, {"linkname": "d"}), ("evil/x", b"", {})],
    "link to a link out": [
        ("d/up", tarfile.SYMTYPE, {"linkname": ".."}),
        ("evil", tarfile.SYMTYPE, {"linkname": "d/up/.."}),
    ],
    "link that is long only by its text": [
        ("evil", tarfile.SYMTYPE, {"linkname": "a/b/c/../../../x"}),
        ("a/b/c", tarfile.SYMTYPE, {"linkname": "../.."}),
    ],
    "hard link out": [("evil", tarfile.LNKTYPE, {"linkname": "../../etc/passwd"})],
    "absolute hard link": [("evil", tarfile.LNKTYPE, {"linkname": "/etc/passwd"})],
    "hard link to nothing": [("evil", tarfile.LNKTYPE, {"linkname": "nothing"})],
    "hard link through a link": [
        ("l", tarfile.SYMTYPE, {"linkname": "/etc"}),
        ("evil", tarfile.LNKTYPE, {"linkname": "l/passwd"}),
    ],
    "file as directory": [("a", b"", {}), ("a/evil", b"", {})],
    "directory as file": [("evil/b", b"", {}), ("evil", b"", {})],
    "name too long": [("evil" * 100, b"", {})],
    "header bomb": [("evil" * 400_000, b"", {})],
}


@pytest.mark.parametrize("name", EVIL)
def test_an_archive_that_reaches_out_is_refused_whole(put, tmp_path, name):
    with pytest.raises(FailedError) as caught:
        put(tar_of(*EVIL[name]))
    assert caught.value.code == "install.unpack"
    assert caught.value.fields["file"]
    assert "cannot be unpacked: " in caught.value.message
    assert tree(tmp_path) == ["download", "instance"]


@pytest.mark.parametrize(
    "member",
    [
        ("../evil", b"", stat.S_IFREG),
        ("/evil", b"", stat.S_IFREG),
        ("evil", b"../../x", stat.S_IFLNK | 0o777),
        ("evil", b"/etc/passwd", stat.S_IFLNK | 0o777),
        ("evil", b"", stat.S_IFIFO | 0o644),
    ],
)
def test_a_zip_that_reaches_out_is_refused_whole(put, tmp_path, member):
    with pytest.raises(FailedError) as caught:
        put(zip_of(("ok", b"", 0), member))
    assert caught.value.code == "install.unpack"
    assert "evil" in caught.value.fields["file"]
    assert tree(tmp_path) == ["download", "instance"]


def test_set_user_id_and_its_like_are_dropped(put):
    target = put(tar_of(("a", b"", {"mode": 0o7777}), ("d", tarfile.DIRTYPE, {"mode": 0o7777})))
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o755
    assert (target / "a").stat().st_uid == os.getuid()


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(tar_of(("bomb", bytes(1 << 20), {}))),
        zip_of(("bomb", bytes(1 << 20), 0)),
    ],
    ids=["tar.gz", "zip"],
)
def test_what_comes_out_is_bounded_by_bytes(put, tmp_path, content):
    with pytest.raises(FailedError) as caught:
        put(content, bounds=Bounds(size=1 << 19))
    assert (caught.value.code, caught.value.fields["file"]) == ("install.unpack", "bomb")
    assert tree(tmp_path) == ["download", "instance"]


def test_what_comes_out_is_bounded_by_entries(put):
    with pytest.raises(FailedError) as caught:
        put(tar_of(*((f"{number}", b"", {}) for number in range(11))), bounds=Bounds(entries=10))
    assert caught.value.fields["file"] == "10"


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (gzip.compress(tar_of(("a", os.urandom(5000), {})))[:-300], {}),
        (tar_of(("a", bytes(5000), {}))[:3000], {}),
        (bytes([*gzip.compress(tar_of(*GOOD))[:40], *bytes(200)]), {}),
        (zip_of(("a", b"a" * 100, 0))[:-20], {}),
        (PLAIN, {"how": "zip"}),
        (PLAIN, {"how": "tar"}),
        (b"\x28\xb5\x2f\xfd" + bytes(100), {}),
        (tar_of(("a/b", b"", {})), {"strip": 2}),
        (tar_of(("site", tarfile.DIRTYPE, {"mode": 0o755})), {}),
        (PLAIN, {"mode": "rwx"}),
        (zip_of(("é", b"", 0)).replace("é".encode(), b"\xff\xfe"), {}),
        (zip_of(("a", b"", 0), ("", b"", 0)), {}),
        (tar_with_size(tar_of(("a", b"", {})), b"\xff\xff\xff\xff" + bytes(8)), {}),
    ],
    ids=[
        *("tar.gz cut", "tar cut", "tar.gz overwritten", "zip cut", "no zip", "no tar", "zstd"),
        *("nothing below the strip", "one empty directory", "no mode"),
        *("zip with a name that is none", "zip with an empty name", "tar with a size below zero"),
    ],
)
def test_a_broken_archive_is_told_and_leaves_nothing(put, tmp_path, content, options):
    with pytest.raises(FailedError) as caught:
        put(content, **options)
    assert caught.value.code == "install.unpack"
    assert caught.value.next == "check the archive"
    assert tree(tmp_path) == ["download", "instance"]


def test_what_is_to_be_unpacked_below_a_file_is_told(tmp_path):
    (tmp_path / "instance").mkdir()
    (tmp_path / "instance" / "file").write_bytes(b"1")
    archive = tmp_path / "archive"
    archive.write_bytes(tar_of(*GOOD))
    with pytest.raises(FailedError, match="cannot be unpacked: not a directory: ") as caught:
        asyncio.run(unpack(str(archive), str(tmp_path / "instance" / "file")))
    assert caught.value.code == "install.unpack"


def test_a_directory_is_not_replaced_by_a_file_nor_a_file_by_a_directory(put):
    target = put(tar_of(("d/a", b"", {}), ("f", b"", {})))
    for member in (("d", b"", {}), ("f/a", b"", {})):
        with pytest.raises(FailedError) as caught:
            put(tar_of(member))
        assert caught.value.code == "install.unpack"
    assert tree(target) == ["d", "d/a", "f"]


def test_a_link_to_a_directory_is_replaced_by_a_file_and_what_it_led_to_stays(put):
    target = put(tar_of(("d/a", b"one", {})))
    (target / "l").symlink_to("d")
    put(tar_of(("l", b"two", {})))
    assert ((target / "l").is_symlink(), (target / "l").read_bytes()) == (False, b"two")
    assert (target / "d/a").read_bytes() == b"one"


@pytest.mark.real
def test_a_full_disk_is_told_and_nothing_is_left(small_disk, tmp_path):
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(tar_of(("big", os.urandom(1 << 20), {}))))
    with pytest.raises(FailedError) as caught:
        asyncio.run(unpack(str(archive), str(small_disk / "in")))
    assert caught.value.code == "fetch.no_space"
    assert tree(small_disk) == ["in"]


def test_a_cancelled_unpacking_ends_and_leaves_nothing(tmp_path):
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_of(*((f"{number}", b"x", {}) for number in range(20_000))))
    target = tmp_path / "in"

    async def main():
        task = asyncio.ensure_future(unpack(str(archive), str(target)))
        while not list(target.glob(".unpack*/*1")):  # noqa: ASYNC110 - a thread fills it
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert tree(Path(target)) == []
