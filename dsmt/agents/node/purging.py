"""Purging: deleting what a service that has ended left in a node's data directory, when an operator says so (rule A23).

Rule 1: the word names an epoch of the service. What lies here of it goes, of whichever slot: but not of one that has a
    container by a fact of a later epoch, for that is of the service that was made anew.
Rule 2: a word is obeyed once. Which that was, and what is yet to go, is written down before anything goes: what the service
    that was made anew leaves here later is not meant by it, though the word comes again at each attachment.
Rule 3: what a container uses goes after that. No container is made of a slot of which something is yet to go.
Rule 4: what cannot be deleted is told in the log, and tried again each `AGAIN_S`. Where a container waits for it, why is
    told of that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Never

import msgspec

from dsmt.errors import FailedError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.realm import PURGES, PurgeWord
from dsmt.event.records import readable
from dsmt.event.slots import SlotKey, index_of
from dsmt.logs import Logger
from dsmt.ports.files import Files

KEPT: Final = "PURGED"
"""No service has a name in capitals."""
AGAIN_S: Final = 60.0


class _Obeyed(msgspec.Struct, frozen=True):
    """The last word on a service that is obeyed here: up to which epoch, and which slots' data is yet to go."""

    epoch: int
    left: tuple[str, ...]


class Purging:
    """What is to be deleted here.

    `stands` is the epoch of the fact of a slot's container, None where there is none. Of each slot of which a container was
    to be made `kept` is told why that cannot be yet, and `free` once nothing of it is left to go.
    """

    def __init__(
        self,
        data: Files,
        *,
        stands: Callable[[SlotKey], int | None],
        free: Callable[[SlotKey], None],
        kept: Callable[[SlotKey, FailedError], None],
    ) -> None:
        self._data, self._stands, self._free, self._kept = data, stands, free, kept
        self._obeyed: dict[str, _Obeyed] = {}
        self._is_read = False
        self._words: dict[str, int] = {}
        """What was heard, and is yet to be written down."""
        self._waiting: set[SlotKey] = set()
        self._some = asyncio.Event()

    def take(self, signed: SignedEvent) -> None:
        """Take in an operator's word; no container is made of the service before it is written down."""
        word = readable(PurgeWord, signed.event.data)
        if word is not None:
            service = signed.event.topic.removeprefix(PURGES)
            self._words[service] = max(word.epoch, self._words.get(service, 0))
            self._some.set()

    def look(self) -> None:
        """Look again: a container has gone."""
        self._some.set()

    def defers(self, slot: SlotKey) -> bool:
        """Whether no container of a slot may be made yet (rule 3); then `free` is told when it may."""
        if self._is_left(slot):
            self._waiting.add(slot)
            self._some.set()
        return slot in self._waiting

    def _is_left(self, slot: SlotKey) -> bool:
        self._try(self._read)
        known = self._obeyed.get(slot.service)
        return slot.service in self._words or (known is not None and str(slot) in known.left)

    async def run(self) -> Never:
        """Delete what is to go, until cancelled."""
        while True:
            unnoted = self._try(self._note)
            names = [one for known in self._obeyed.values() for one in known.left]
            wrong = {name: await self._purge(SlotKey.named(name)) for name in names}
            for slot in sorted(self._waiting):
                if not self._is_left(slot):
                    self._waiting.discard(slot)
                    self._free(slot)
                elif (error := wrong.get(str(slot)) or unnoted) is not None:
                    self._kept(slot, error)
            more = self._words or any(known.left for known in self._obeyed.values())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S if more else None):
                    await self._some.wait()
            self._some.clear()

    def _try(self, act: Callable[[], None]) -> FailedError | None:
        try:
            act()
        except FailedError as error:
            _tell(error)
            return error
        return None

    def _read(self) -> None:
        """What is written down. Raises `FailedError` where that cannot be read: then nothing is deleted."""
        kept = None if self._is_read else self._data.read(KEPT)
        if kept is not None:
            try:
                self._obeyed = msgspec.json.decode(kept, type=dict[str, _Obeyed])
            except msgspec.DecodeError as error:
                said = f"{self._data.root}/{KEPT} is damaged, which says what was purged here: nothing more is"
                todo = "copy what is to stay of what lies beside it, and remove it"
                raise FailedError("node.files", said, next=todo) from error
        self._is_read = True

    def _note(self) -> None:
        """Write down which words are obeyed, and what is to go by them (rule 2). Raises `FailedError`."""
        self._read()
        obeyed = dict(self._obeyed)
        for service, epoch in self._words.items():
            known = obeyed.get(service)
            if known is None or epoch > known.epoch:
                found = [str(slot) for slot in self._slots(service) if (self._stands(slot) or 0) <= epoch]
                obeyed[service] = _Obeyed(epoch, tuple(found))
        if obeyed != self._obeyed:
            self._keep(obeyed)
        self._words.clear()

    def _keep(self, obeyed: dict[str, _Obeyed]) -> None:
        self._data.write(KEPT, msgspec.json.encode(obeyed))
        self._obeyed = obeyed

    def _slots(self, service: str) -> list[SlotKey]:
        found = []
        for component in self._data.names(service):
            indexes = map(index_of, self._data.names(f"{service}/{component}"))
            found += [SlotKey(service, component, index) for index in indexes if index is not None]
        return found

    async def _purge(self, slot: SlotKey) -> FailedError | None:
        """Delete the data of one slot, unless a container uses it, or it is of a later epoch by now; why it cannot be."""
        known = self._obeyed[slot.service]
        stands = self._stands(slot)
        if stands is not None and stands <= known.epoch:
            return None
        try:
            if stands is None:
                await self._data.removed(str(slot))
                self._clear_above(slot)
            left = tuple(one for one in known.left if one != str(slot))
            self._keep({**self._obeyed, slot.service: _Obeyed(known.epoch, left)})
        except FailedError as error:
            _tell(error)
            return error
        return None

    def _clear_above(self, slot: SlotKey) -> None:
        for above in (f"{slot.service}/{slot.component}", slot.service):
            if not self._data.names(above):
                self._data.remove(above)


def _tell(error: FailedError) -> None:
    Logger().error("data that is to be purged is still here", code=error.code, reason=str(error))
