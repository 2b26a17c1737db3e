"""Trimming: when the output of a program that writes is looked at again.

Rule 1: at the rate of late, at most one `size` is written until then; but nobody looks more often than each `SOONEST_S`.
Rule 2: a rate can rise at any time: what is written to is looked at each `LATEST_S` at least.
Rule 3: what was not written to is looked at after twice the time, and from `LATEST_S` on not for its own sake: an idle
    program costs no wake-up.
"""

from __future__ import annotations

from typing import Final

SOONEST_S: Final = 0.2
LATEST_S: Final = 5.0


def look_again_s(over_s: float, written: int, size_bytes: int) -> float | None:
    """In how many seconds to look again at what was `written` to in `over_s`; None when it is idle (rule 3)."""
    if written <= 0:
        return max(SOONEST_S, 2 * over_s) if 2 * over_s < LATEST_S else None
    return min(LATEST_S, max(SOONEST_S, over_s * size_bytes / written))
