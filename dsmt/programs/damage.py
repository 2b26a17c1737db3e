"""Damage: a broker's store that is damaged is set aside, and the broker goes on with a new one (rule B11).

Rule 1: it stays beside the new one under a name that tells when and why, `store.damaged-DATE-WHY.db`. That ends in `.new`
    before all that is sound in it was taken over, so that a broker that dies meanwhile goes on with it.
Rule 2: so is the store of another broker, which was copied here: what that one says of it would not verify as this one's.
Rule 3: of those the newest `KEPT` stay: damage that comes again and again does not fill the disk.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dsmt.bus.store.remains import StoreRemains
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.bus.store.sums import damaged
from dsmt.errors import DsmtError, FailedError, leaves
from dsmt.programs.birth import open_store

KEPT: Final = 3
_NEW: Final = ".new"
_OWNER: Final = "broker"
"""The name of the broker whose store it is."""
_FILES: Final = ("-wal", "")
"""What belongs to a store; the log goes first, for without it the rest is known to be damaged."""


class SetAside:
    """A store that was set aside; fulfils `ports.store.Remains`."""

    def __init__(self, path: Path) -> None:
        self._path, self._inside = path, StoreRemains(str(path))
        self.certificates, self.parts, self.chunks = self._inside.certificates, self._inside.parts, self._inside.chunks

    @property
    def said(self) -> str:
        """What became of it."""
        lies = self._path.with_name(self._path.name.removesuffix(_NEW))
        return f"the store was damaged, and is set aside as {lies}; what is sound in it is taken over into a new one"

    def taken(self) -> None:
        """All that is sound was taken over; where a disk does not let that be said it is taken over once more later."""
        with suppress(OSError):
            _rename(self._path, self._path.with_name(self._path.name.removesuffix(_NEW)))


def open_sound(directory: Path, broker: str, *, synced: bool) -> SqliteStore:
    """The store in a broker's directory; one that is damaged, or another broker's, is set aside, and a new one made.

    Raises `FailedError`.
    """
    try:
        return _open_own(directory, broker, synced=synced)
    except FailedError as error:
        if error.code != "store.damaged":
            raise
        set_aside(directory, error)
    return _open_own(directory, broker, synced=synced)


def _open_own(directory: Path, broker: str, *, synced: bool) -> SqliteStore:
    store = open_store(directory, synced=synced)
    owner = store.meta.get(_OWNER)
    if owner is None:
        store.meta.put(_OWNER, broker.encode())
    elif owner != broker.encode():
        store.close()
        raise damaged(str(directory / "store.db"), f"it is the store of {owner.decode()}")
    return store


def set_aside(directory: Path, error: DsmtError) -> None:
    """Set the store aside that an error calls damaged."""
    why = re.sub(r"[^a-z0-9]+", "-", str(error.fields.get("what", "")).lower()).strip("-")[:60]
    date = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    _rename(directory / "store.db", directory / f"store.damaged-{date}-{why}.db{_NEW}")
    for old in _lie(directory)[:-KEPT]:
        for end in _FILES:
            old.with_name(old.name + end).unlink(missing_ok=True)


def remains(directory: Path) -> tuple[SetAside, ...]:
    """What is still to be taken over."""
    return tuple(SetAside(path) for path in _lie(directory) if path.name.endswith(_NEW))


def told(directory: Path) -> str:
    """Where the last one lies; empty where none does, and where it cannot be looked, for want of a descriptor."""
    try:
        lie = _lie(directory)
    except OSError:  # that is only told: it must end no broker
        return ""
    return str(lie[-1].with_name(lie[-1].name.removesuffix(_NEW))) if lie else ""


def found_in(error: BaseException, code: str) -> DsmtError | None:
    """That the store is damaged, or an older copy, if that is what ended a broker."""
    found = leaves(error) if isinstance(error, BaseExceptionGroup) else iter((error,))
    return next((one for one in found if isinstance(one, DsmtError) and one.code == code), None)


def _lie(directory: Path) -> list[Path]:
    """The stores that were set aside, by age."""
    return sorted(path for path in directory.glob("store.damaged-*") if path.name.endswith((".db", f".db{_NEW}")))


def _rename(store: Path, to: Path) -> None:
    for end in _FILES:
        with suppress(FileNotFoundError):
            store.with_name(store.name + end).rename(to.with_name(to.name + end))
