"""Patient writer: what an agent must write down and a disk does not take now is written as soon as it does.

Rule 1: who writes goes on at once. Of each path what was to be written last is what comes to the disk, the path that has
    waited longest first.
Rule 2: a disk that is full, or fails, is tried again each `AGAIN_S`. That something else stands in the place, and any other
    failure, is that of who writes, when it happens at once; later it keeps nothing else waiting. Nor does a file that fails.
"""

from __future__ import annotations

import asyncio
from typing import Final

from dsmt.errors import FailedError
from dsmt.event.reason import WAITS_FOR_DISK
from dsmt.logs import Logger
from dsmt.ports.files import Files

AGAIN_S: Final = 1.0


class PatientWriter:
    """Writes whole files below one directory."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._waiting: dict[str, bytes] = {}
        self._again: asyncio.TimerHandle | None = None
        self._written = asyncio.Event()
        self.lacking: FailedError | None = None
        """Why something waits; None where nothing does."""

    def write(self, path: str, content: bytes) -> None:
        """Write a file, now or as soon as the disk takes it. Raises `FailedError` for what is not the disk's."""
        self._waiting[path] = content
        try:
            self._write(path)
        except FailedError as error:
            if not _passes(error):
                del self._waiting[path]
                raise
            self._wait(error)

    def forget(self, path: str) -> None:
        """What waits of a file is not wanted any more."""
        self._waiting.pop(path, None)
        if not self._waiting:
            self.lacking = None
            self._written.set()

    async def written(self) -> None:
        """Wait until nothing waits."""
        while self._waiting:
            self._written.clear()
            await self._written.wait()

    def _write(self, path: str) -> None:
        self._files.write(path, self._waiting[path])
        self.forget(path)

    def _wait(self, error: FailedError) -> None:
        if self.lacking is None:
            Logger().error("what is to be written waits", reason=str(error))
        self.lacking = error
        if self._again is None:
            self._again = asyncio.get_running_loop().call_later(AGAIN_S, self._try_again)

    def _try_again(self) -> None:
        self._again = None
        for path in list(self._waiting):
            try:
                self._write(path)
            except FailedError as error:
                self._wait(error)
                if error.code in WAITS_FOR_DISK:  # there is no room for the others either
                    return


def _passes(error: FailedError) -> bool:
    """Whether it is the disk that does not take it now."""
    return error.code in WAITS_FOR_DISK or (error.code == "node.files" and not error.fields.get("other"))
