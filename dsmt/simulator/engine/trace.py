"""The trace of a run: a hash over all that happened, in order, by which two runs are compared.

Rule 1: nothing that differs between two runs of one seed enters it: no address, no `hash()`, no real time.
Rule 2: what is noted is numbers, text and bytes; anything else is refused, for its `repr` may hold an address.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from hashlib import blake2b

from dsmt.simulator.engine.handles import Owner, SimHandle, SimTimer, owner_of

Noted = str | int | float | bytes | None


class Trace:
    """Hashes each callback that the loop runs, and what `note` is given. `count` is the number of lines so far."""

    def __init__(self) -> None:
        self.count = 0
        self._hash = blake2b(digest_size=16)

    def note(self, *fields: Noted) -> None:
        """Add one line, for example of a packet delivered."""
        for field in fields:
            if field is not None and not isinstance(field, str | int | float | bytes):
                raise TypeError(f"a trace takes text, numbers and bytes, not {type(field).__name__}")
        self.count += 1
        self._hash.update(repr(fields).encode() + b"\n")

    def ran(self, tick: int, handle: SimHandle | SimTimer) -> None:
        """Add the callback that the loop is about to run."""
        owner = owner_of(handle)
        self.note(tick, _name(owner), describe_callback(handle._callback))  # noqa: SLF001 - a handle shows it nowhere else

    def hexdigest(self) -> str:
        """Return the hash over all lines so far."""
        return self._hash.hexdigest()


def describe_callback(callback: Callable[..., object] | None) -> str:
    """Return a name for a callback that is the same in every run: the task it steps, or its qualified name."""
    while isinstance(callback, functools.partial):
        callback = callback.func
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        return f"task {task.get_name()}"
    module = getattr(callback, "__module__", None)
    name = getattr(callback, "__qualname__", type(callback).__qualname__)
    return f"{module}.{name}"


def _name(owner: Owner | None) -> str | None:
    return None if owner is None else owner.name
