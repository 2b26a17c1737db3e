"""Node artifacts: fetch an artifact of the service file from where it is, and unpack it into an instance's directory.

Rule 1: a path was put into the depot by `apply`, so it is fetched from there as `depot:` is: by its sha256.
Rule 2: the download lies beside what is unpacked, in the same directory, and is removed with success or without.
"""

from __future__ import annotations

import contextlib
import os
import urllib.parse
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final

from dsmt.agents.fetch.artifacts import fetch_blob, fetch_https, unpack
from dsmt.errors import NotFoundError
from dsmt.event.reason import failed
from dsmt.ports.artifacts import Progress
from dsmt.spec.records import Artifact
from dsmt.system.files import is_within

DOWNLOAD: Final = ".artifact"


class NodeArtifacts:
    """The `Artifacts` port. `get_blob` gives a depot blob by its sha256, as `Bus.get_blob` does."""

    def __init__(self, get_blob: Callable[[bytes], AsyncIterator[bytes]]) -> None:
        self._get_blob = get_blob

    async def install(self, artifact: Artifact, directory: str, progress: Progress) -> None:
        """Fetch, check and unpack. Raises `FailedError`: a `fetch.` code or `install.unpack`."""
        if artifact.sha256 is None:
            raise failed(
                "fetch.not_found",
                url=artifact.url,
                status="it was never put into the depot",
                advice="dsmt apply the file again",
            )
        target = _inside(directory, artifact.to)
        download = os.path.join(directory, DOWNLOAD, artifact.sha256)
        try:
            size = await self._fetch(artifact, artifact.sha256, download, progress)
            progress("unpack", 0, size)
            await unpack(
                download,
                target,
                how=artifact.unpack,
                strip=artifact.strip,
                mode=artifact.mode,
                name=file_name(artifact.url),
            )
            progress("unpack", size, size)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(download)
            with contextlib.suppress(OSError):  # a cancelled fetch may still be removing its part
                os.rmdir(os.path.dirname(download))

    async def _fetch(self, artifact: Artifact, sha256: str, download: str, progress: Progress) -> int:
        """Bring it here; its size."""
        if artifact.origin == "https":
            return await fetch_https(
                artifact.url,
                download,
                sha256=sha256,
                progress=lambda done, total: progress("fetch", done, total),
            )
        chunks = _counted(self._get_blob(bytes.fromhex(sha256)), lambda done: progress("fetch", done, None))
        try:
            async with contextlib.aclosing(chunks):
                return await fetch_blob(chunks, download, sha256=sha256, name=artifact.url)
        except NotFoundError as error:
            advice = "dsmt apply its file again: that puts it there"
            raise failed("fetch.not_found", url=artifact.url, status="the depot does not have it", advice=advice) from error


def file_name(url: str) -> str:
    """What a plain file from this place is called: the last part of its path."""
    path = urllib.parse.urlsplit(url).path if url.startswith("https:") else url.removeprefix("depot:")
    return urllib.parse.unquote(path).rstrip("/").rpartition("/")[2] or "artifact"


def _inside(directory: str, to: str) -> str:
    """A place inside a directory. Raises `FailedError` for one that is not, also over a link."""
    place = os.path.join(directory, to)
    if not is_within(os.path.realpath(place), os.path.realpath(directory)):
        raise failed("install.unpack", file=to, error="`artifact.to` leaves the directory")
    return place


async def _counted(chunks: AsyncIterator[bytes], tell: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
    """The same chunks, their bytes counted; closes them with itself."""
    done = 0
    try:
        async for chunk in chunks:
            done += len(chunk)
            tell(done)
            yield chunk
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
