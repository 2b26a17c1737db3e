"""Ended keys: the revocations that a client was told of, and what it tells a broker that has lost them (rule J3, R5).

Rule 1: every client is told, whatever it may read: who verifies knows who may not be believed.
Rule 2: each is checked as any event is, and ends what its signer may end (`trust.store`).
Rule 3: what a broker does not tell and this client knows is re-offered to it: its disk may be new.
Rule 4: where another key had the name of the client's node, two machines may have joined under it (J2): others may hold
    that one's words for the newer ones, so from its end on the client says again what it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dsmt.errors import UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.ports.bus import Notice
from dsmt.ports.realm import KEY_ENDED
from dsmt.trust.certificate import Certificate
from dsmt.trust.revocations import revoked_by
from dsmt.trust.store import TrustStore

NAMESAKE: Final = Notice("dsmt.notice.namesake", "another one had this name, and has ended: what it said may count as newer")

KEY_HAS_ENDED: Final = Notice(KEY_ENDED, "a key has ended: what it said, and nobody says again, is void")


class EndedKeys:
    """The revocations that one client knows, by topic."""

    def __init__(self, trust: TrustStore) -> None:
        self._trust = trust
        self._known: dict[str, SignedEvent] = {}
        self._told: set[str] = set()
        """Topics of those that the broker of this attachment has told."""

    def attached(self) -> None:
        """There is a new attachment, whose broker has told nothing yet."""
        self._told = set()

    def told(self, raws: Sequence[bytes]) -> list[UnusableEventError]:
        """Take in what a broker tells (rule 2); why each that is not believed is not."""
        refused = []
        for raw in raws:
            try:
                signed = self._trust.open(raw)
            except UnusableEventError as error:
                refused.append(error)
                continue
            self._trust.revoke(signed)
            self._told.add(signed.event.topic)
            self._known[signed.event.topic] = signed
        return refused

    def namesake_ended_ms(self, own: Certificate) -> int:
        """When the last other key ended that had a certificate's name, in ms of realm time; 0 where none has (rule 4)."""
        known = (one.event for one in self._known.values() if one.event.data.get("name") == own.subject)
        return max((one.time_ms for one in known if revoked_by(one.topic) != own.key_id), default=0)

    def missing(self) -> list[SignedEvent]:
        """What the broker has not told, after it has told all (rule 3)."""
        return [signed for topic, signed in self._known.items() if topic not in self._told]
