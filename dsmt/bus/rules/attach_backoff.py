"""Backoff: how long a client waits before it tries to attach again, longer after what `ports.realm.ENDED` names.

Rule 1: each failure doubles the wait, up to the most; who was attached begins anew.
Rule 2: who was revoked, or whose certificate has ended, waits longer: only an operator changes that (J3). So does
    who is kept out by the gate of a NATS server, which has no way to tell why. But where there is a broker that was not
    tried yet that one is tried soon: whose clock is wrong takes every certificate for one that has not begun, or has ended.
Rule 3: brokers, which are few, look for each other more often: whoever is attached to one waits for what the others have.
"""

from __future__ import annotations

from typing import Final

from dsmt.backoff import Backoff
from dsmt.errors import DsmtError
from dsmt.ports.realm import ENDED

WAIT_S: Final = (0.02, 2.0)
BROKERS_S: Final = (0.02, 0.5)
ENDED_S: Final = (5.0, 60.0)


class AttachBackoff:
    """The waits of one client, in seconds, by its name; the caller adds jitter."""

    def __init__(self, source: str) -> None:
        self._usual_s = BROKERS_S if source.startswith("broker/") else WAIT_S
        self._waits = Backoff(*self._usual_s)

    def attached(self) -> None:
        """It was attached, and not sent away."""
        self._waits.reset()

    def failed(self, error: DsmtError, *, others: bool = False) -> float:
        """It was not attached, or the link was lost: how long to wait now. `others`: some were not tried yet."""
        self._waits.first_s, self._waits.most_s = ENDED_S if error.code in ENDED and not others else self._usual_s
        return self._waits.failed()
