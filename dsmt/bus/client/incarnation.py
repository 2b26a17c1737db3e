"""The kept incarnation: a source's last one, on the disk of its process (rule A11)."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from dsmt.errors import FailedError
from dsmt.ports.files import Files

FILE: Final = "incarnation"


class KeptIncarnation:
    """What was kept by the process before this one, and by this one for the next; without files nothing is."""

    def __init__(self, files: Files | None) -> None:
        self._files = files
        kept = None
        with suppress(FailedError):  # what cannot be read is not known: the broker's word is awaited
            kept = None if files is None else files.read(FILE)
        self.last = int(kept) if kept is not None and kept.isdigit() else None
        """That of the process before; None when it is not known."""

    @property
    def next(self) -> int:
        """The least that comes after it; 0 when it is not known."""
        return 0 if self.last is None else self.last + 1

    def began(self, incarnation: int) -> bool:
        """Keep one before anything is signed in it; whether it is kept: else the broker's word alone counts."""
        try:
            if self._files is not None:
                self._files.write(FILE, str(incarnation).encode())
        except FailedError:  # a disk that takes nothing keeps nobody from the bus
            return False
        return True
