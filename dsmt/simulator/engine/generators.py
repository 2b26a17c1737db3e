"""The asynchronous generators of a loop: which are half-way, in the order in which they began, and whose they are."""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Final

from dsmt.simulator.engine.handles import OWNER, Owner

Generator = AsyncGenerator[Any, Any]

_PRUNE_FROM: Final = 1024


class Generators:
    """Asynchronous generators that were begun; asyncio keeps a set of them, which has no order."""

    def __init__(self) -> None:
        self._begun: dict[int, tuple[weakref.ref[Generator], Owner | None]] = {}
        self._prune_at = _PRUNE_FROM

    def begin(self, agen: Generator) -> None:
        """Note a generator at its first iteration, and the process that iterates it."""
        if len(self._begun) >= self._prune_at:
            self._begun = {key: entry for key, entry in self._begun.items() if entry[0]() is not None}
            self._prune_at = max(_PRUNE_FROM, 2 * len(self._begun))
        key = id(agen)  # only a key: what is ordered here is the insertion
        self._begun.pop(key, None)
        self._begun[key] = (weakref.ref(agen), OWNER.get())

    def end(self, agen: Generator) -> Owner | None:
        """Forget a generator that is being finalized (no reference to it lives) and return its process."""
        _, owner = self._begun.pop(id(agen), (None, None))
        return owner

    def half_way(self) -> Iterator[tuple[Generator, Owner | None]]:
        """Yield those that live and have not ended, in the order in which they began, and forget them all."""
        begun, self._begun = list(self._begun.values()), {}
        for reference, owner in begun:
            agen = reference()
            if agen is not None and getattr(agen, "ag_frame", None) is not None:
                yield agen, owner


def name_of(agen: Generator) -> str:
    """Return the qualified name of the generator's function."""
    return str(getattr(agen, "__qualname__", type(agen).__qualname__))
