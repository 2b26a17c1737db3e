"""Backoff: how long to wait before the next try of what has failed.

Rule 1: the first wait is `first_s`, each further one `factor` times the last, at most `most_s`; the caller brings jitter.
Rule 2: what has succeeded begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """The waits of one thing that is tried, in seconds; `last_s` is the wait before the present try, 0 at first."""

    first_s: float
    most_s: float
    factor: float = 2.0
    last_s: float = 0.0

    def failed(self) -> float:
        """It has failed: how long to wait now."""
        self.last_s = min(self.most_s, max(self.first_s, self.last_s * self.factor))
        return self.last_s

    def reset(self) -> None:
        """It has succeeded (rule 2)."""
        self.last_s = 0.0
