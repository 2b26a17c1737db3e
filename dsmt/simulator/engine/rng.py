"""Randomness by name: one small splitmix64 stream for each concern of each simulated node.

Rule 1: a seed is derived from a root seed and names by BLAKE2b, never by `hash()`, so it is the same in every run.
Rule 2: a stream's draws depend on nothing but its seed and the draws before; a new concern takes a new name, so
that it shifts no other.

splitmix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014. Not for keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import log
from typing import Final, TypeVar

T = TypeVar("T")

_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF
_GAMMA: Final = 0x9E37_79B9_7F4A_7C15
_MIX_1: Final = 0xBF58_476D_1CE4_E5B9
_MIX_2: Final = 0x94D0_49BB_1331_11EB
_TWO_64: Final = 2.0**64
_TO_UNIT: Final = 2.0**-53


def derive(seed: int, *names: str | int) -> int:
    """Return the 64-bit seed that belongs to `names` under `seed` (any integer).

    Distinct name tuples give independent seeds: `("a", "b")`, `("ab",)`, `("1",)` and `(1,)` all differ.
    """
    digest = blake2b(digest_size=8)
    for name in (seed, *names):
        raw = name.encode() if isinstance(name, str) else b"%d" % name
        digest.update(b"%c%d:" % (b"s" if isinstance(name, str) else b"i", len(raw)))
        digest.update(raw)
    return int.from_bytes(digest.digest(), "big")


class Stream:
    """A splitmix64 stream; `Stream(seed, "node-7", "latency")` is the one of these names under this seed."""

    __slots__ = ("_seed", "_state")

    def __init__(self, seed: int, *names: str | int) -> None:
        self._seed = derive(seed, *names) if names else seed & _MASK
        self._state = self._seed

    def __repr__(self) -> str:
        return f"<Stream seed={self._seed:016x} state={self._state:016x}>"

    def stream(self, *names: str | int) -> Stream:
        """Return the stream of `names` under this one's seed, whatever was drawn from this one so far."""
        return Stream(derive(self._seed, *names))

    def word(self) -> int:
        """Return the next integer in [0, 2**64)."""
        self._state = z = (self._state + _GAMMA) & _MASK
        z = ((z ^ (z >> 30)) * _MIX_1) & _MASK
        z = ((z ^ (z >> 27)) * _MIX_2) & _MASK
        return z ^ (z >> 31)

    def random(self) -> float:
        """Return a float in [0, 1), a multiple of 2**-53."""
        return (self.word() >> 11) * _TO_UNIT

    def uniform(self, a: float, b: float) -> float:
        """Return a float between `a` and `b`."""
        return a + (b - a) * ((self.word() >> 11) * _TO_UNIT)

    def below(self, n: int) -> int:
        """Return an integer in [0, n), 1 <= n <= 2**64; the bias is under n / 2**64."""
        if not 1 <= n <= 1 << 64:
            raise ValueError(f"below(n) needs 1 <= n <= 2**64, not {n}")
        return (self.word() * n) >> 64

    def chance(self, p: float) -> bool:
        """Return True with probability `p`; always for p >= 1, never for p <= 0. Always one draw."""
        return self.word() < p * _TWO_64

    def exponential(self, mean: float) -> float:
        """Return an exponentially distributed float, at least 0, of this mean."""
        return -mean * log(1.0 - (self.word() >> 11) * _TO_UNIT)

    def bytes(self, n: int) -> bytes:
        """Return `n` bytes."""
        words = (n + 7) // 8
        return b"".join(self.word().to_bytes(8, "big") for _ in range(words))[:n]

    def choice(self, items: Sequence[T]) -> T:
        """Return one of `items`; a set has no order and is refused, as an empty sequence is."""
        if not isinstance(items, Sequence):
            raise TypeError(f"choice needs a sequence, which has an order, not {type(items).__name__}")
        if not items:
            raise ValueError("choice from an empty sequence")
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return a new list of `items` in random order (Fisher-Yates)."""
        if not isinstance(items, Sequence):
            raise TypeError(f"shuffled needs a sequence, which has an order, not {type(items).__name__}")
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = self.below(last + 1)
            result[last], result[other] = result[other], result[last]
        return result
