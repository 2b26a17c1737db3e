"""Contention: controllers that prefer different nodes, as they do when their views differ, and must agree anyway.

Rule 1: each controller dislikes two thirds of the nodes, and takes one of them only when there is nothing else.
Rule 2: who only looks where something would go, as an operator's command does, prefers none.
Rule 3: who decides is the running process; a replay, which has none, says for whom (`speaking_for`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from dsmt.controllers import placement
from dsmt.simulator.engine.process import current_process
from dsmt.view import SlotKey

TASTES: Final = 3
_SPEAKER: ContextVar[str] = ContextVar("speaker", default="c1")


@contextmanager
def contention() -> Iterator[None]:
    """Controllers contend meanwhile."""
    choose = placement.Chooser.choose

    def chosen(self: placement.Chooser, key: SlotKey, avoid: Iterable[str] = ()) -> str | None:
        process = current_process()
        speaker = _SPEAKER.get() if process is None else process.name.partition(":")[0]
        if not speaker[1:].isdigit():
            return choose(self, key, avoid)
        own = int(speaker[1:])
        dislikes = frozenset(node for node in self.fleet.members if int(node[1:]) % TASTES != own % TASTES)
        return choose(self, key, dislikes.union(avoid)) or choose(self, key, avoid)

    placement.Chooser.choose = chosen  # type: ignore[method-assign]
    try:
        yield
    finally:
        placement.Chooser.choose = choose  # type: ignore[method-assign]


@contextmanager
def speaking_for(controller: str) -> Iterator[None]:
    """Decide as this controller does, outside of its process."""
    token = _SPEAKER.set(controller)
    try:
        yield
    finally:
        _SPEAKER.reset(token)
