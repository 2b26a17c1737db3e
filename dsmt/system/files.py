"""Disk files: a process's own directory on a Linux file system.

Rule 1: a path is relative, has no `..`, and no link on its way leads out of the root. Nor is a root used in whose place, or
    on the way to which from what it is `below`, somebody has put a link or something else.
Rule 2: a reader sees the old content or the new one, whole; after a power cut too, when `durable`. What is half written
    has no name, where the file system has such files.
Rule 3: on a full disk, or one with no inode left, a number takes the place of one that is as long: who is to begin anew must
    write down that it does, and what fills the disk may be its own to end.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import BinaryIO, Final, TypeVar

from dsmt.errors import InputError
from dsmt.event.reason import failed
from dsmt.system import giving
from dsmt.system.failures import DISK_IS_FULL, full_disk_told
from dsmt.system.libc import call
from dsmt.system.reading import OTHERS, read_file
from dsmt.system.removing import remove, take_back_way
from dsmt.system.users import account_of

T = TypeVar("T")
FEW_BYTES: Final = 64
"""So few are written over a file's at once: a number, where a disk has no room for the file beside it (rule 3)."""
_numbers = count()
DIRECTORY_BYTES: Final = 4096
"""What a directory takes."""


@contextlib.contextmanager
def _told(place: str, done: str, need: int = 0) -> Iterator[None]:
    """Tell a full disk as `full_disk_told` does, and all else that the machine does not let be `done` as `node.files`.

    Its field `other` says whether that is since something else stands there than what is to be.
    """
    try:
        with full_disk_told(place, need):
            yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) and error.filename.startswith("/") else place
        said = os.fsencode(where).decode(errors="replace")  # a program's file may have any name
        why, other = (error.strerror or str(error)).lower(), error.errno in OTHERS
        raise failed("node.files", path=said, done=done, error=why, other=other) from error


class DiskFiles:
    """The `Files` port over one directory, made when missing (mode 0700), unless it need not be `made`.

    `durable` False leaves out fsync: for what is worthless after a power cut, such as which processes run. `top` is the
    directory from which the way is opened to what is given to a user, empty for the root. Where what is there is not `ours`
    no right is taken back.
    """

    def __init__(
        self, root: str, *, durable: bool = True, top: str = "", made: bool = True, ours: bool = True, anchor: str = ""
    ) -> None:
        self._root = os.path.abspath(root)
        self._anchor = anchor or self._root
        """What it is `below`: from there on no link is on the way to the root (rule 1)."""
        self._durable = durable
        self._ours = ours
        self._top = os.path.abspath(top) if top else self._root
        if made:
            with _told(self._root, "made", DIRECTORY_BYTES):
                make_directories(self._root)

    @property
    def root(self) -> str:
        """The root as an absolute path."""
        return self._root

    def read(self, path: str) -> bytes | None:
        """The whole content, or None when there is no such file. Raises `FailedError` where it cannot be read."""
        place = self._place(path)
        return self._do(place, "read", lambda: read_file(place), None)

    def write(self, path: str, content: bytes, *, mode: int = 0o600) -> None:
        """Replace the file atomically. Raises `FailedError` on a full disk, and where it cannot be written."""
        place = self._place(path, follow=False)

        def write() -> None:
            make_directories(os.path.dirname(place))
            try:
                write_atomically(place, content, mode=mode, durable=self._durable)
            except OSError as error:
                if error.errno not in DISK_IS_FULL or len(content) > FEW_BYTES or not write_over(place, content):
                    raise

        with _told(place, "written", len(content)):
            self._with_rights(place, write)

    def give(self, path: str, user: str) -> None:
        """Give a directory with all in it to a user. Raises `FailedError` for one that this machine does not have."""
        account = account_of(user)
        if account is not None:
            place = self._place(path)
            giving.open_way(place, self._top)
            giving.give(place, account)

    def write_given(self, path: str, name: str, content: bytes, *, user: str, mode: int) -> None:
        """Write a file below a directory that was given to a user. Raises `FailedError` when a link is in its way."""
        account = account_of(user)
        if account is None:
            self.write(f"{path}/{name}", content, mode=mode)
        else:
            place = self._place(path)
            with _told(f"{place}/{name}", "written", len(content)):
                giving.write(place, name, content, account, mode)

    async def synced(self, path: str) -> None:
        """Wait until what anybody has written below a directory is on the disk. Raises `FailedError` where it cannot be."""
        from dsmt.system.threads import in_thread  # noqa: PLC0415 - who has no event loop does without asyncio

        place = self._place(path)
        await in_thread(lambda _stop: self._do(place, "synced", lambda: sync_file_system(place), None), patient=False)

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted; empty when there is none. Raises `FailedError` where it cannot be read."""
        place = self._place(path)
        return self._do(place, "read", lambda: sorted(os.listdir(place)), [])

    def remove(self, path: str) -> None:
        """Remove a file, a link, or a whole directory; nothing happens when there is none.

        Raises `FailedError` where it cannot be removed.
        """
        place = self._place(path, follow=False)
        if place == self._root:
            raise InputError("files.path", "the root of a file port cannot be removed", path=path)
        self._do(place, "removed", partial(remove, place), None)

    async def removed(self, path: str) -> None:
        """The same beside the event loop; what was begun goes on when its caller is cancelled."""
        from dsmt.system.threads import in_thread  # noqa: PLC0415 - as for `synced`

        await in_thread(lambda _stop: self.remove(path), patient=False)

    def below(self, path: str, *, made: bool = True) -> DiskFiles:
        """The same port rooted at a directory below this one. Raises `FailedError` on a full disk, if it is to be `made`."""
        place = self._place(path) if made else os.path.join(self._root, *self._parts(path))
        return DiskFiles(place, durable=self._durable, top=self._top, made=made, ours=self._ours, anchor=self._anchor)

    def _do(self, place: str, done: str, act: Callable[[], T], absent: T) -> T:
        """Do something at a place where nothing may be: then `absent`."""
        with _told(place, done):
            try:
                return self._with_rights(place, act)
            except (FileNotFoundError, NotADirectoryError):
                return absent

    def _with_rights(self, place: str, act: Callable[[], T]) -> T:
        """Do something; a program that has our uid may have taken away our rights on the way there: we take them back."""
        try:
            return act()
        except PermissionError:
            if not self._ours or not take_back_way(self._anchor, place):
                raise
            return act()

    def _place(self, path: str, *, follow: bool = True) -> str:
        """The absolute place of a path (rule 1). Without `follow` its last part may be any link: it is not followed."""
        parts = self._parts(path)
        place = os.path.join(self._root, *parts)
        resolved = os.path.realpath(place if follow or not parts else os.path.dirname(place))
        root = os.path.normpath(os.path.join(os.path.realpath(self._anchor), os.path.relpath(self._root, self._anchor)))
        if not is_within(resolved, root):
            why = f"a link on its way leads out of {self._root}"
            raise failed("node.files", path=place, done="used", error=why, other=True)
        if not os.path.isdir(root) and os.path.lexists(root):
            raise failed("node.files", path=root, done="used", error="it is no directory", other=True)
        return place

    def _parts(self, path: str) -> list[str]:
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if path.startswith("/") or ".." in parts or "\0" in path:
            raise InputError("files.path", f"{path!r} leaves the directory {self._root}", path=path)
        return parts


def make_directories(place: str) -> None:
    """Make a directory and all that lead to it, for ourselves only (os.makedirs would open the ones between)."""
    if not os.path.isdir(place):
        make_directories(os.path.dirname(place))
        with contextlib.suppress(FileExistsError):
            os.mkdir(place, mode=0o700)


def write_atomically(place: str, content: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Write a file beside `place`, then rename it over it. Raises OSError that names it, and leaves nothing behind then."""
    beside = ""
    try:
        beside = _written_nameless(place, content, mode, durable=durable)
        if not beside:
            beside, made = _beside(place, mode)
            try:
                _fill(made, content, mode, durable=durable)
            finally:
                os.close(made)
        os.replace(beside, place)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        if isinstance(error, OSError):
            error.filename = place
        raise
    if durable:
        _sync_directory(os.path.dirname(place))


@contextlib.contextmanager
def replacing(place: str, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file that takes the place of what is there when all of it was written, as `write_atomically` does; the umask counts.

    Raises OSError, and leaves nothing behind then, nor where something else was raised.
    """
    beside, made = "", -1
    try:
        made = os.open(os.path.dirname(place) or ".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, mode)
    except OSError:  # for that file system; or for what the one with a name will tell
        beside, made = _beside(place, mode)
    try:
        with open(made, "wb") as file:
            yield file
            file.flush()
            beside = beside or _named(made, place)
        os.replace(beside, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def _named(made: int, place: str) -> str:
    """The name beside a place that a file without one is given."""
    while True:
        beside = _name_beside(place)
        with contextlib.suppress(FileExistsError):
            os.link(f"/proc/self/fd/{made}", beside, src_dir_fd=made)  # which alone has it follow that link
            return beside


def _written_nameless(place: str, content: bytes, mode: int, *, durable: bool) -> str:
    """A file that is given its name beside a place when it is whole: who is killed before that leaves nothing.

    Empty where there is none such, for that file system, or for what the one with a name will tell, as a full disk.
    """
    with contextlib.suppress(OSError):
        made = os.open(os.path.dirname(place) or ".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, mode)
        try:
            _fill(made, content, mode, durable=durable)
            return _named(made, place)
        finally:
            os.close(made)
    return ""


def _fill(made: int, content: bytes, mode: int, *, durable: bool) -> None:
    os.fchmod(made, mode)
    with open(made, "wb", closefd=False) as file:
        file.write(content)
    if durable:
        os.fsync(made)


def _beside(place: str, mode: int) -> tuple[str, int]:
    """A new file beside a place, and its descriptor. One that a killed process of our pid has left is passed over."""
    while True:
        beside = _name_beside(place)
        with contextlib.suppress(FileExistsError):
            return beside, os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)


def _name_beside(place: str) -> str:
    directory, name = os.path.split(place)
    return os.path.join(directory, f".{name[:40]}.{os.getpid()}.{next(_numbers)}.new")


def write_over(place: str, content: bytes) -> bool:
    """Write over a file that has as many bytes, which takes no room and no inode; whether there was such a one."""
    with contextlib.suppress(OSError):
        descriptor = os.open(place, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if os.fstat(descriptor).st_size == len(content):
                return os.pwrite(descriptor, content, 0) == len(content)
        finally:
            os.close(descriptor)
    return False


def _sync_directory(directory: str) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(directory: str) -> None:
    """Write out all that a directory's file system holds back (syncfs(2)): programs that end have synced nothing."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call("syncfs", descriptor)
    finally:
        os.close(descriptor)


def is_within(place: str, root: str) -> bool:
    """Whether a resolved path is the root or below it."""
    return place == root or place.startswith(root.rstrip("/") + "/")
