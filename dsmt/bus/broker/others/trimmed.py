"""Trimmed: what another broker had trimmed before it was read here, and between which rows here that is missing (rule B6).

Rule 1: who is read says so before the first row behind which something is missing. It may be missing from the next row that
    is stored here on, up to the last one that stands when that broker was read beyond what it had trimmed, by its newest
    word: it may have another store by then.
Rule 2: that it is being read so is kept before anything of it is stored: a broker may end meanwhile, and reads on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Literal

import msgspec

from dsmt.event.kinds.row import CLASSES, Budget
from dsmt.ports.bus import Notice
from dsmt.ports.store import Store, StoreFullError

_TOLD: Final = "dsmt.notice.trimmed"


class _Part(msgspec.Struct, frozen=True):
    """The first row here behind which something may be missing, up to which row the other had trimmed, and of what."""

    first: int
    upto: int
    budgets: tuple[Budget, ...]


class Trimmed:
    """Of the broker with this store; `say` says what its trim records are to say. Others are read on, or again: `how`."""

    def __init__(self, store: Store, say: Callable[[], None]) -> None:
        self._store, self._say = store, say
        self._parts: dict[str, _Part | None] = {}

    def told(self, public: bytes, how: Literal["on", "again"], notices: Iterable[Any]) -> None:
        """Note what one that is read says of what it has trimmed, if it does, before what comes behind that is stored."""
        for one in notices:
            if isinstance(one, Notice) and one.type == _TOLD and isinstance(upto := one.fields.get("to"), int):
                said = one.fields.get("budgets")
                budgets = tuple(each for each in CLASSES if not isinstance(said, list) or each in said)
                key = _key(public, how)
                begun = self._begun(key) or _Part(self._store.head + 1, 0, ())
                self._keep(key, _Part(begun.first, upto, tuple({*begun.budgets, *budgets})))

    def reached(self, public: bytes, how: Literal["on", "again"], row: int) -> None:
        """Everything up to a row of one that is read is stored here."""
        part, last = self._begun(key := _key(public, how)), self._store.head
        if part is None or row < part.upto:
            return
        with suppress(StoreFullError):  # it is noted when there is room, before any more is stored
            for budget in part.budgets if last >= part.first else ():
                self._store.trimmed_elsewhere(budget, part.first, last)
            self._keep(key, None)
            self._say()

    def _begun(self, key: str) -> _Part | None:
        if key not in self._parts:
            kept = self._store.meta.get(key)
            self._parts[key] = msgspec.msgpack.decode(kept, type=_Part) if kept else None
        return self._parts[key]

    def _keep(self, key: str, part: _Part | None) -> None:
        self._parts[key] = part
        with suppress(StoreFullError):
            self._store.meta.put(key, b"" if part is None else msgspec.msgpack.encode(part))


def _key(public: bytes, how: str) -> str:
    return f"trimmed {how} {public.hex()}"
