"""Entropy: the only source of chance, as a port."""

from __future__ import annotations

from typing import Protocol


class Entropy(Protocol):
    """Where randomness comes from; the simulator gives a seeded one."""

    def bytes(self, count: int) -> bytes:
        """`count` bytes fit for keys."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A float in [low, high), for jitter."""
        ...
