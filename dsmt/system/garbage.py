"""Garbage: who folds a whole realm keeps nearly all that it makes, and looks seldom for cycles in it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SELDOM: Final = (50_000, 20, 20)
"""Objects until the youngest are looked through, and how often until older ones are: 700, 10, 10 by default."""


def collect_seldom() -> None:
    """Look for garbage among what is made from now on only, and only once in a while. For commands and controllers."""
    gc.freeze()
    gc.set_threshold(*SELDOM)


def leave_all() -> None:
    """All that there is goes with the process: at its end nothing is looked through, which takes a command 20 ms."""
    gc.freeze()


@contextmanager
def keeping_all() -> Iterator[None]:
    """All that is made within stays, as modules do: nothing is looked through for garbage, then or later."""
    looked = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if looked:
            gc.enable()
