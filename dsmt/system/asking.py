"""Asking a disk: whether it answers. It is written to by a thread of its own: one that hangs keeps nobody waiting."""

from __future__ import annotations

import threading
from contextlib import suppress


class AskedDisk:
    """The disk of a file, which is made to ask it."""

    def __init__(self, path: str) -> None:
        self._path, self._answered = path, threading.Event()
        self._answered.set()

    def ask(self) -> None:
        """Ask it, once it has answered the question before."""
        if self._answered.is_set():
            self._answered = answered = threading.Event()
            threading.Thread(target=self._write, args=(answered,), daemon=True, name="asks-disk").start()

    @property
    def answered(self) -> bool:
        """Whether it has answered the last question, though it may have been with an error."""
        return self._answered.is_set()

    def _write(self, answered: threading.Event) -> None:
        with suppress(OSError), open(self._path, "wb") as file:
            file.write(b".")
        answered.set()
