"""Archive: unpack tar and zip from people we do not trust, into an empty directory.

Rule 1: what it is, its first bytes say: zip, or tar, plain or compressed with gzip, bzip2 or xz.
Rule 2: a path that is absolute or has `..`, a device, a pipe or a socket, is refused, and with it the whole archive.
Rule 3: links are made after everything else, so nothing is ever written through one; then each of them, followed to its
        end, must end inside.
Rule 4: files belong to who unpacks them; set-user-id, set-group-id, sticky and write bits of others are dropped.
Rule 5: bytes and entries are counted as they come out, whatever the archive claims.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import IO, Any, Final

import msgspec

from dsmt.event.reason import failed
from dsmt.system.failures import DISK_IS_FULL
from dsmt.system.files import is_within

CHUNK: Final = 1 << 18
LONGEST_LINK: Final = 4096
LARGEST_READ: Final = 1 << 20
"""A tar header (a long name, pax records) larger than this is refused."""

Opener = Callable[[str], Any]
"""Opens a file for reading what is in it, decompressed."""

_COMPRESSIONS: Final[Mapping[bytes, Opener]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_ZSTANDARD: Final = b"\x28\xb5\x2f\xfd"
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
_BROKEN: Final = (
    tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, struct.error, ArithmeticError,
    LookupError, RuntimeError, ValueError,
)  # fmt: skip
"""What the libraries raise at an archive that is broken: the last four are theirs, for no code of ours raises them here."""


class Bounds(msgspec.Struct, frozen=True):
    """The most that may come out of one archive: bytes, and entries."""

    size: int = 16 << 30
    entries: int = 200_000


class Kind(StrEnum):
    """What an entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    OTHER = "other"


class ArchiveMember(msgspec.Struct, frozen=True):
    """One member of an archive. `link` is where a link leads; `open` gives a file's bytes."""

    name: str
    mode: int
    kind: Kind = Kind.FILE
    link: str = ""
    open: Callable[[], IO[bytes]] | None = None

    def parts(self, strip: int, path: str | None = None) -> list[str]:
        """The parts of its path, or of `path`, after `strip` of them; none for what is dropped (rule 2)."""
        path = self.name if path is None else path
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if path.startswith("/"):
            raise failed("install.unpack", file=shown(self.name), error="its path is absolute")
        if ".." in parts or "\0" in path:
            raise failed("install.unpack", file=shown(self.name), error="its path leaves the directory")
        return parts[strip:]


def unpack_archive(
    path: str,
    room: str,
    *,
    how: str,
    strip: int,
    name: str,
    bounds: Bounds | None,
    check: Callable[[], None],
) -> bool:
    """Unpack into an empty directory; False, with nothing done, for a plain file that is not to be unpacked.

    `how` is `auto`, `no`, `tar` or `zip`; `name` is what errors call it; `check` is called often and may raise to end the
    work. Raises `FailedError` (`install.unpack`), and OSError on a full disk.
    """
    try:
        entries = _entries(path, how, name)
        if entries is None:
            return False
        unpacking = _Unpacking(room, strip, bounds or Bounds(), check)
        for entry in entries:
            unpacking.put(entry)
        unpacking.finish(name)
    except _BROKEN as error:
        raise failed("install.unpack", file=name, error=str(error) or type(error).__name__) from error
    except OSError as error:
        if error.errno is not None:  # the machine's, not gzip's or bzip2's
            raise
        raise failed("install.unpack", file=name, error=str(error)) from error
    return True


def shown(name: str) -> str:
    """A member's name as it may be printed and encoded."""
    return name.encode("utf-8", "backslashreplace").decode()[:200]


class _Unpacking:
    """One archive on its way into one empty directory."""

    def __init__(self, room: str, strip: int, bounds: Bounds, check: Callable[[], None]) -> None:
        self._room = room
        self._strip = strip
        self._bounds = bounds
        self._check = check
        self._links: dict[str, ArchiveMember] = {}
        self._entries = 0
        self._size = 0
        self._placed = 0

    def put(self, entry: ArchiveMember) -> None:
        """Place one entry; links wait for `finish`."""
        self._check()
        self._entries += 1
        if self._entries > self._bounds.entries:
            raise failed("install.unpack", file=shown(entry.name), error=f"more than {self._bounds.entries} entries")
        if entry.kind is Kind.OTHER:
            raise failed("install.unpack", file=shown(entry.name), error="it is a device, a pipe or a socket")
        parts = entry.parts(self._strip)
        if not parts:
            return
        self._placed += entry.kind is not Kind.DIRECTORY
        place = os.path.join(self._room, *parts)
        try:
            self._place(entry, place)
        except OSError as error:
            raise _told(entry, error) from error

    def finish(self, archive: str) -> None:
        """Make the links and see where they lead (rule 3). Raises `FailedError`."""
        if not self._placed:
            raise failed("install.unpack", file=archive, error=_empty(self._strip))
        for place, entry in self._links.items():
            try:
                os.symlink(entry.link, place)
            except OSError as error:
                raise _told(entry, error) from error
        root = os.path.realpath(self._room)
        for place, entry in self._links.items():
            if not is_within(os.path.realpath(place), root):
                raise failed("install.unpack", file=shown(entry.name), error=f"it links to {shown(entry.link)}, outside")

    def _place(self, entry: ArchiveMember, place: str) -> None:
        """Place an entry. Raises OSError, `FailedError`."""
        if entry.kind is Kind.DIRECTORY:
            os.makedirs(place, mode=0o755, exist_ok=True)
            os.chmod(place, entry.mode & 0o755 | 0o700)
            return
        os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
        if entry.kind is Kind.SYMLINK:
            if entry.link.startswith("/"):
                raise failed("install.unpack", file=shown(entry.name), error=f"it links to {shown(entry.link)}, outside")
            self._links[place] = entry
        elif entry.kind is Kind.HARDLINK:
            self._link(entry, place)
        else:
            self._copy(entry, place)

    def _link(self, entry: ArchiveMember, place: str) -> None:
        """Make a hard link to a file that was unpacked before."""
        source = os.path.join(self._room, *entry.parts(self._strip, entry.link))
        if not os.path.isfile(source):
            raise failed("install.unpack", file=shown(entry.name), error=f"{shown(entry.link)} was not there before it")
        _remove_file(place)
        os.link(source, place, follow_symlinks=False)

    def _copy(self, entry: ArchiveMember, place: str) -> None:
        """Write a file's bytes, counting them (rule 5)."""
        _remove_file(place)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            if entry.open is not None:
                with entry.open() as source:
                    while chunk := source.read(CHUNK):
                        self._check()
                        self._size += len(chunk)
                        if self._size > self._bounds.size:
                            raise failed(
                                "install.unpack",
                                file=shown(entry.name),
                                error=f"more than {self._bounds.size} bytes come out of it",
                            )
                        file.write(chunk)
            os.fchmod(file.fileno(), entry.mode & 0o755 | 0o600)


def _empty(strip: int) -> str:
    return "it holds no file" if not strip else f"nothing is left of it after strip {strip}"


def _remove_file(place: str) -> None:
    """Remove an earlier member of the same name: the later one counts."""
    if os.path.lexists(place):
        os.unlink(place)


def _told(entry: ArchiveMember, error: OSError) -> Exception:
    """A foreign error as ours; a full disk and a broken archive as they are."""
    if error.errno is None or error.errno in DISK_IS_FULL:
        return error
    return failed("install.unpack", file=shown(entry.name), error=error.strerror or str(error))


# -- reading


def _entries(path: str, how: str, name: str) -> Iterator[ArchiveMember] | None:
    """The entries of an archive; None for a plain file."""
    if how == "no":
        return None
    with open(path, "rb") as file:
        magic = file.read(8)
    if how == "zip" or (how == "auto" and magic.startswith(_ZIP)):
        return _zip_entries(path)
    if magic.startswith(_ZSTANDARD):
        raise failed("install.unpack", file=name, error="zstd is not known; use gzip, bzip2 or xz")
    opener: Opener = next((opener for start, opener in _COMPRESSIONS.items() if magic.startswith(start)), io.FileIO)
    if how == "tar" or _is_tar(path, opener):
        return _tar_entries(path, opener)
    return None


def _is_tar(path: str, opener: Opener) -> bool:
    """Whether a file begins with a tar header, which carries a checksum of itself."""
    with opener(path) as stream:
        header = stream.read(tarfile.BLOCKSIZE)
    try:
        tarfile.TarInfo.frombuf(header, tarfile.ENCODING, "surrogateescape")
    except tarfile.TarError:
        return False
    return True


class _Modest:
    """A stream that refuses to give much at once: tarfile reads whatever a header claims to be long."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek = stream.seek
        self.tell = stream.tell

    def read(self, size: int = -1) -> bytes:
        """At most `LARGEST_READ` bytes."""
        if not 0 <= size <= LARGEST_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._stream.read(size)


def _tar_entries(path: str, opener: Opener) -> Iterator[ArchiveMember]:
    """The members of a tar archive."""
    with opener(path) as stream, tarfile.open(fileobj=_Modest(stream), mode="r:") as tar:  # type: ignore[call-overload]
        while (member := tar.next()) is not None:
            yield ArchiveMember(member.name, member.mode, _tar_kind(member), member.linkname, _opener(tar, member))
            tar.members.clear()


def _opener(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    """What opens a member's bytes."""

    def open_member() -> IO[bytes]:
        stream = tar.extractfile(member)
        if stream is None:
            raise tarfile.ReadError(f"{shown(member.name)} has no content")
        return stream

    return open_member


def _tar_kind(member: tarfile.TarInfo) -> Kind:
    """What a tar member is."""
    if member.isdir():
        return Kind.DIRECTORY
    if member.issym():
        return Kind.SYMLINK
    if member.islnk():
        return Kind.HARDLINK
    return Kind.FILE if member.isreg() else Kind.OTHER


def _zip_entries(path: str) -> Iterator[ArchiveMember]:
    """The members of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.flag_bits & 1:
                raise failed("install.unpack", file=shown(member.filename), error="it is encrypted")
            if not member.filename:
                raise zipfile.BadZipFile("a member has no name")
            kind, mode = _zip_kind(member)
            link = ""
            if kind is Kind.SYMLINK:
                with archive.open(member) as content:
                    link = os.fsdecode(content.read(LONGEST_LINK))
            yield ArchiveMember(member.filename, mode, kind, link, lambda member=member: archive.open(member))  # type: ignore[misc]


def _zip_kind(member: zipfile.ZipInfo) -> tuple[Kind, int]:
    """What a zip member is, and its mode; one that was made without Unix modes is 0644."""
    mode = member.external_attr >> 16
    kinds = {0: Kind.FILE, stat.S_IFREG: Kind.FILE, stat.S_IFLNK: Kind.SYMLINK, stat.S_IFDIR: Kind.DIRECTORY}
    if member.is_dir():
        return Kind.DIRECTORY, mode if mode & 0o777 else 0o755
    return kinds.get(stat.S_IFMT(mode), Kind.OTHER), mode if mode & 0o777 else 0o644
