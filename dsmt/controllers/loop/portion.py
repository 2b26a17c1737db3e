"""The portion of a realm that one turn looks at, where everything is to be looked at.

Rule 1: a look that took longer than `CURRENT_S` is thrown away, for what was seen is too old by then (A4); the next one
    looks at half as much. Where that is no less than one service it may take up to `SERVICE_S`: else nothing would ever be
    decided while one takes as long.
Rule 2: where a look at everything has come to its end, and no part of it took long, the parts of the next one are twice as
    large.
"""

from __future__ import annotations

from typing import Final

from dsmt.controllers.loop.completeness import CURRENT_S

LOOKED_MOST: Final = 4_000
"""Slots that one turn looks at: a fraction of `CURRENT_S` on a slow machine."""
SERVICE_S: Final = 5.0


class Portion:
    """How many slots one turn looks at: `most`."""

    def __init__(self) -> None:
        self.most = LOOKED_MOST
        self._dearest_s = 0.0

    def is_too_old(self, took_s: float) -> bool:
        """Whether what was seen by a look that took so long is not to be decided on (rule 1)."""
        if took_s <= (CURRENT_S if self.most > 1 else SERVICE_S):
            return False
        self.most, self._dearest_s = max(1, self.most // 2), 0.0
        return True

    def took(self, took_s: float, *, ended: bool) -> None:
        """A part of a look at everything took so long; `ended`: it was the last one (rule 2)."""
        self._dearest_s = max(self._dearest_s, took_s)
        if ended:
            self.most = min(LOOKED_MOST, self.most * (2 if self._dearest_s < CURRENT_S / 4 else 1))
            self._dearest_s = 0.0
