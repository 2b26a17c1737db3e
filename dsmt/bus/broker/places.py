"""Places: how far another broker was read, as it is kept in the store's meta for the next start (rule E1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dsmt.ports.bus import Cursor
from dsmt.ports.store import Meta

OVERLAP_MS: Final = 60_000
"""How far before the place of a broker that was lost the others are read again: their clocks may differ."""
_PARTS: Final = 4
"""Of what is kept of a place: its store, its row, its time, and from when on it is to be read again."""


def read_place(meta: Meta, public: bytes) -> tuple[Cursor | None, int | None]:
    """How far the broker of a key was read, and from when on (realm ms) it is to be read again."""
    kept = meta.get(_key(public))
    parts = [] if kept is None else kept.decode().split()
    if len(parts) != _PARTS:
        return None, None
    store, row, time_ms, again_ms = parts
    return Cursor(store, int(row), int(time_ms)), int(again_ms)


def keep_place(meta: Meta, public: bytes, place: Cursor, again_ms: int) -> None:
    """Keep that."""
    meta.put(_key(public), f"{place.store} {place.row} {place.time_ms} {again_ms}".encode())


def again_from_ms(before: int | None, places: Sequence[Cursor]) -> int:
    """From when on what is behind all these places is read again, and what was to be before."""
    since_ms = max(0, min(place.time_ms for place in places) - OVERLAP_MS)
    return since_ms if before is None else min(before, since_ms)


def _key(public: bytes) -> str:
    return f"copied {public.hex()}"
