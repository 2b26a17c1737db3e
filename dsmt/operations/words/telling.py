"""Telling: how what takes its time says how far it is, or whom it waits for."""

from __future__ import annotations

from collections.abc import Callable

Tell = Callable[[str], object]


def silent(_: str) -> None:
    """Nobody hears of it."""
