"""System entropy: the kernel's random numbers."""

from __future__ import annotations

import os
import random


class SystemEntropy:
    """The `Entropy` port over getrandom(2)."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def bytes(self, count: int) -> bytes:
        """`count` bytes fit for keys."""
        return os.urandom(count)

    def uniform(self, low: float, high: float) -> float:
        """A float in [low, high), for jitter."""
        return low + (high - low) * self._random.random()
