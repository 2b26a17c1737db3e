"""Artifacts: fetch what a component needs, check it, and unpack it without trusting it.

Rule 1: a file is put in its place only when its sha256 is what was declared; until then it is beside it, unnamed.
Rule 2: what an archive is, its content says, not its name; whatever it holds stays inside the directory.
Rule 3: an archive is unpacked into a directory of its own, checked as a whole, and only then moved to its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import IO, Final, Self, TypeVar

from dsmt.agents.fetch.archive import ArchiveMember, Bounds, shown, unpack_archive
from dsmt.errors import FailedError
from dsmt.event.reason import failed
from dsmt.system.failures import full_disk_told
from dsmt.system.removing import remove_tree
from dsmt.system.threads import Stop, in_thread
from dsmt.version import __version__

T = TypeVar("T")
Progress = Callable[[int, int | None], None]
"""Told how many bytes are here, of how many, if that is known; called from the event loop."""

CHUNK: Final = 1 << 18
STALL_S: Final = 30.0
"""A server that sends nothing for so long is unreachable."""

_numbers = count()


async def fetch_https(
    url: str,
    to_path: str,
    *,
    sha256: str,
    progress: Progress | None = None,
    context: ssl.SSLContext | None = None,
) -> int:
    """Fetch `url` into `to_path`; the number of bytes. The proxies of the environment are used.

    Raises `FailedError`: `fetch.unreachable`, `fetch.not_found`, `fetch.denied`, `fetch.mismatch`, `fetch.no_space`.
    """
    loop = asyncio.get_running_loop()

    def tell(here: int, total: int | None) -> None:
        if progress is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(progress, here, total)

    return await in_thread(
        lambda stop: _fetch(url, to_path, stop, sha256=sha256, tell=tell, context=context or ssl.create_default_context()),
        patient=False,
    )


async def fetch_blob(chunks: AsyncIterator[bytes], to_path: str, *, sha256: str, name: str = "depot blob") -> int:
    """Write the chunks of a depot blob to `to_path`; the number of bytes. `name` is what errors call it.

    Raises `FailedError`: `fetch.mismatch`, `fetch.no_space`; and whatever `chunks` raises.
    """
    with _Arriving(name, to_path, sha256) as arriving:
        async for chunk in chunks:
            await in_thread(lambda _stop, chunk=chunk: arriving.write(chunk), patient=True)  # type: ignore[misc]
        return await in_thread(lambda _stop: arriving.finish(), patient=True)


async def unpack(
    archive_path: str,
    directory: str,
    *,
    how: str = "auto",
    strip: int = 0,
    mode: str = "0755",
    name: str = "",
    bounds: Bounds | None = None,
) -> None:
    """Unpack an archive into a directory, or put a plain file there under `name` with `mode`. Errors call both by `name`.

    `name` is by default the file's own. `how` is `auto`, `no`, `tar` or `zip`; `strip` leading parts are dropped from every
    path in the archive. Files that are in the directory already are replaced, others stay. A cancelled call leaves nothing
    behind.
    Raises `FailedError`: `install.unpack`, which names the member, or `fetch.no_space`.
    """
    named = name or os.path.basename(archive_path)
    await in_thread(
        lambda stop: _unpack(archive_path, directory, stop, how=how, strip=strip, mode=mode, name=named, bounds=bounds),
        patient=True,
    )


# -- fetching


class _Arriving:
    """A file on its way: beside its place, hashed as it comes, renamed when it is right (rule 1)."""

    def __init__(self, source: str, to_path: str, sha256: str, total: int | None = None) -> None:
        self._source = source
        self._to_path = to_path
        self._want = sha256.lower()
        self._beside = f"{to_path}.{os.getpid()}.{next(_numbers)}.part"
        self._hash = hashlib.sha256()
        self._total = total
        self.size = 0
        with full_disk_told(to_path, total or 0):
            os.makedirs(os.path.dirname(to_path) or ".", exist_ok=True)
            self._file = open(self._beside, "xb", buffering=0)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._beside)

    def write(self, chunk: bytes) -> None:
        """Take a chunk."""
        self._hash.update(chunk)
        self.size += len(chunk)
        with full_disk_told(self._to_path, max(self._total or 0, self.size)):
            rest = memoryview(chunk)
            while rest:
                rest = rest[self._file.write(rest) :]

    def finish(self) -> int:
        """Check it and put it in its place; its size."""
        got = self._hash.hexdigest()
        if got != self._want:
            raise failed("fetch.mismatch", url=self._source, got=got, want=self._want)
        with full_disk_told(self._to_path, self.size):
            os.fsync(self._file.fileno())
            os.replace(self._beside, self._to_path)
        return self.size


def _opener(context: ssl.SSLContext) -> urllib.request.OpenerDirector:
    """Opens what is https."""
    import http.client  # noqa: PLC0415 - it takes 7 ms and brings a parser of mail, and few agents fetch over https
    import urllib.request  # noqa: PLC0415 - the same

    class HttpsOnly(urllib.request.HTTPRedirectHandler):
        """Follows redirects, but never out of https."""

        def redirect_request(  # noqa: PLR0917 - as the library calls it
            self,
            req: urllib.request.Request,
            fp: IO[bytes],
            code: int,
            msg: str,
            headers: http.client.HTTPMessage,
            newurl: str,
        ) -> urllib.request.Request | None:
            if urllib.parse.urlsplit(newurl).scheme != "https":
                fp.close()
                raise urllib.error.URLError(f"it redirects to {newurl}, which is not https")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    return urllib.request.build_opener(HttpsOnly(), urllib.request.HTTPSHandler(context=context))


def _fetch(
    url: str,
    to_path: str,
    stop: Stop,
    *,
    sha256: str,
    tell: Callable[[int, int | None], None],
    context: ssl.SSLContext,
) -> int:
    """Fetch, in a thread."""
    import http.client  # noqa: PLC0415 - as in `_opener`
    import urllib.error  # noqa: PLC0415 - the same
    import urllib.request  # noqa: PLC0415 - the same

    host = urllib.parse.urlsplit(url).hostname or url
    if urllib.parse.urlsplit(url).scheme != "https":
        raise failed("fetch.unreachable", host=host, error=f"{url} is not https")
    opener = _opener(context)
    request = urllib.request.Request(url, headers={"User-Agent": f"dsmt/{__version__}"})  # noqa: S310 - https, above
    try:
        with _asked(opener.open, request, timeout=STALL_S) as response:
            stop.check()  # who had asked for it may have something else in its place by now
            length = response.headers.get("Content-Length")
            total = int(length) if length is not None and length.isdigit() else None
            with _Arriving(url, to_path, sha256, total) as arriving:
                while chunk := _asked(response.read, CHUNK):
                    stop.check()
                    arriving.write(chunk)
                    tell(arriving.size, total)
                if total is not None and arriving.size < total:
                    raise failed("fetch.unreachable", host=host, error=f"it sent {arriving.size} of {total} bytes")
                stop.check()
                return arriving.finish()
    except urllib.error.HTTPError as error:
        error.close()
        raise _answered(url, host, error.code) from error
    except (urllib.error.URLError, http.client.HTTPException) as error:
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        raise failed("fetch.unreachable", host=host, error=str(why) or type(why).__name__) from error


def _asked(call: Callable[..., T], *about: object, **more: object) -> T:
    """What a call gives that touches nothing but the network. Raises `URLError` where that fails, however it does."""
    import urllib.error  # noqa: PLC0415 - as in `_opener`

    try:
        return call(*about, **more)
    except urllib.error.URLError:
        raise
    except OSError as error:
        raise urllib.error.URLError(error) from error


def _answered(url: str, host: str, status: int) -> FailedError:
    """What a status that is no success means."""
    if status in (404, 410):
        return failed("fetch.not_found", url=url, status=status)
    if status in (401, 403, 407):
        return failed("fetch.denied", url=url, status=status)
    return failed("fetch.unreachable", host=host, error=f"HTTP status {status}")


# -- unpacking


def _unpack(
    archive_path: str,
    directory: str,
    stop: Stop,
    *,
    how: str,
    strip: int,
    mode: str,
    name: str,
    bounds: Bounds | None,
) -> None:
    """Unpack, in a thread (rule 3)."""
    room = os.path.join(directory, f".unpack.{os.getpid()}.{next(_numbers)}")
    need = os.stat(archive_path).st_size
    try:
        with full_disk_told(directory, need):
            os.makedirs(room, mode=0o700)
            if not unpack_archive(archive_path, room, how=how, strip=strip, name=name, bounds=bounds, check=stop.check):
                _put_file(archive_path, room, name, mode, stop)
            stop.check()
            _move_in(room, directory)
    except OSError as error:
        said = f"{error.strerror or error}: {error.filename or directory}".lower()
        raise failed("install.unpack", file=name, error=said) from error
    finally:
        with contextlib.suppress(OSError):
            remove_tree(room)


def _put_file(path: str, room: str, name: str, mode: str, stop: Stop) -> None:
    """Copy one plain file. `mode` is octal; set-user-id and its like are dropped."""
    try:
        bits = int(mode, 8) & 0o777
    except ValueError:
        raise failed("install.unpack", file=name, error=f"mode {mode!r} is not an octal number") from None
    parts = ArchiveMember(name, 0).parts(0)
    if len(parts) != 1:
        raise failed("install.unpack", file=shown(name), error="that is not a file name")
    target = os.path.join(room, parts[0])
    with open(path, "rb") as source, open(target, "xb") as file:
        while chunk := source.read(CHUNK):
            stop.check()
            file.write(chunk)
    os.chmod(target, bits)


def _move_in(room: str, directory: str) -> None:
    """Move everything from the room into the directory, replacing files that are there."""
    for entry in sorted(os.scandir(room), key=lambda found: found.name):
        target = os.path.join(directory, entry.name)
        if entry.is_dir(follow_symlinks=False):
            _move_directory(entry.path, target)
        elif os.path.isdir(target) and not os.path.islink(target):
            raise failed("install.unpack", file=entry.name, error="a directory is in its place")
        else:
            os.replace(entry.path, target)


def _move_directory(source: str, target: str) -> None:
    """Move a directory, or what it holds when there is one already."""
    if not os.path.lexists(target):
        os.replace(source, target)
    elif os.path.isdir(target) and not os.path.islink(target):
        _move_in(source, target)
    else:
        raise failed("install.unpack", file=os.path.basename(target), error="a file is in its place")
