"""Older: a gate finds that the store of its server is an older copy, which was put back (rules R5, D3).

Rule 1: each second it notes, beside its server, which store that has and where stream H ends.
Rule 2: a server that begins with another store than was noted, or with one that ends before that, has lost what was
    acknowledged. Before anybody is let in its store takes another name and counts as made anew (`streams`, rules 2 and 3):
    who is attached brings what it holds.
Rule 3: this is of a server that stands alone: the others fill one of several.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Never

from dsmt.bus.nats.link import ApiError, NatsLink
from dsmt.bus.nats.streams import head, set_apart
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import DsmtError, FailedError, RefusedError
from dsmt.ports.files import Files

ENDS: Final = "store-ends"
NOTED_S: Final = 1.0


class NatsEnd:
    """Where the store of one server ends, as far as `files` tell."""

    def __init__(self, subjects: Subjects, files: Files) -> None:
        self._subjects, self._files = subjects, files

    async def look(self, link: NatsLink) -> str:
        """Have an older copy take another name; what was lost, in words, or empty. Raises `ApiError`, `TransportError`."""
        try:
            at = await head(link, self._subjects.history)
        except RefusedError:  # there is no stream
            return ""
        store, last = self._noted()
        if not store or (at.store == store and at.last >= last) or at.anew_ms == 0:  # a lost disk, or it was just found
            return ""
        await set_apart(link, self._subjects)
        await self.note(link)
        had = f"it ends with row {at.last} and had row {last}" if at.store == store else f"it is {at.store} and was {store}"
        return f"its store is an older copy: {had}. It takes another name, and who is attached brings what it holds"

    async def note(self, link: NatsLink) -> None:
        """Note where it ends now. Raises `RefusedError`, `TransportError`."""
        at = await head(link, self._subjects.history)
        with suppress(FailedError):  # a disk that is full, or hangs: nothing is stored there meanwhile
            await asyncio.to_thread(self._files.write, ENDS, f"{at.store} {at.last}".encode())

    async def run(self, held: Callable[[], Awaitable[NatsLink]]) -> Never:
        """Note it each `NOTED_S` (rule 1)."""
        while True:
            with suppress(ApiError, DsmtError):
                await self.note(await held())
            await asyncio.sleep(NOTED_S)

    def _noted(self) -> tuple[str, int]:
        """The store, and its last row; nothing where none was noted, or that cannot be read."""
        with suppress(FailedError, ValueError):
            store, last = (self._files.read(ENDS) or b"").decode().split()
            return store, int(last)
        return "", 0
