"""Backoff: how long a client waits before it tries to attach again.

Rule 1: each failure doubles the wait, up to the most; who was attached begins anew.
Rule 2: who was revoked, or whose certificate has ended, waits longer: only an operator changes that (J3). So does
    who is kept out by the gate of a NATS server, which has no way to tell why.
"""

from __future__ import annotations

from typing import Final

from dsmt.backoff import Backoff
from dsmt.errors import DsmtError
from dsmt.ports.realm import ENDED

WAIT_S: Final = (0.02, 2.0)
ENDED_S: Final = (5.0, 60.0)


class AttachBackoff:
    """The waits of one client, in seconds; the caller adds jitter."""

    def __init__(self) -> None:
        self._waits = Backoff(*WAIT_S)

    def attached(self) -> None:
        """It was attached, and not sent away."""
        self._waits.reset()

    def failed(self, error: DsmtError) -> float:
        """It was not attached, or the link was lost: how long to wait now."""
        self._waits.first_s, self._waits.most_s = ENDED_S if error.code in ENDED else WAIT_S
        return self._waits.failed()
