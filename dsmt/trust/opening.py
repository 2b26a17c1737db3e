"""Opening: what an event must be by itself, to whoever reads it from a file; a broker asks the same, run by run (rule B9).

Rule 1: its key is certified and granted its topic, and its signature is good (`store`).
Rule 2: it is what its topic's row in the registry takes: so who reads a type knows who may have written it.
"""

from __future__ import annotations

from dsmt.event.envelope import SignedEvent
from dsmt.event.registry import Match, taken
from dsmt.trust.store import TrustStore


def opened(trust: TrustStore, raw: bytes) -> tuple[SignedEvent, Match]:
    """An event that may have been said, and its topic's row. Raises `UnusableEventError` that says why not."""
    signed = trust.open(raw)
    return signed, taken(signed.event)
