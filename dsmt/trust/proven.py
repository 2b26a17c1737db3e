"""Proven: the signatures that were found good, so that the one over many events that come one by one is checked once.

Rule 1: only what stands over the root of a burst is remembered: nothing else is asked again.
Rule 2: but a broker hears the same from each other one, and remembers all that was good lately (`remembering`).
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Final

from dsmt.event.codec import Part
from dsmt.newest import Newest

Verify = Callable[[int, bytes, bytes, bytes], bool]
_REMEMBERED: Final = 1024
_ROOT_BYTES: Final = 128
"""What is signed for a burst is shorter than this: a header and a root; no event is."""


def remembering(verify: Verify, most: int) -> Verify:
    """The same, but what it found good is not checked again until so many others were."""
    good: Newest[bytes, None] = Newest(most)

    def check(algorithm: int, public: bytes, message: bytes, signature: bytes) -> bool:
        parts = b"%d %d %d " % (algorithm, len(public), len(signature))
        proven = sha256(parts + public + signature + message).digest()
        if proven in good:
            return True
        if not verify(algorithm, public, message, signature):
            return False
        good[proven] = None
        return True

    return check


class ProvenSignatures:
    """Checks signatures, with what is remembered of those before."""

    def __init__(self, verify: Verify) -> None:
        self._verify, self._once = verify, remembering(verify, _REMEMBERED)

    def check(self, public: bytes, part: Part) -> bool:
        """Whether what was read bears a key's signature."""
        check = self._verify if len(part.message) > _ROOT_BYTES else self._once
        return check(part.algorithm, public, part.message, part.signature)
