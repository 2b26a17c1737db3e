"""Introductions: who signed what a session is sent is proven to it before.

Rule 1: all certificates of a signer that are kept go to a session before its first event, a later one before the next.
Rule 2: a session is shown none twice, as far as is remembered of `KNOWN` signers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from dsmt.bus.broker.session import Session
from dsmt.bus.wire.frames import MAX_CERTIFICATES, Certificates, Frame
from dsmt.errors import UnusableEventError
from dsmt.ports.store import Row
from dsmt.trust.store import Signer, TrustStore

KNOWN: Final = 8192
"""Of how many signers it is remembered that a session was shown them."""

Send = Callable[[Session, Frame, tuple[bytes, ...]], bool]
"""Answers False when a session can take no more now."""
Proofs = Mapping[Signer, tuple[bytes, ...]]
"""What proves each of some signers."""


class Introductions:
    """Of one broker, by what its trust store holds."""

    def __init__(self, trust: TrustStore, send: Send) -> None:
        self._trust, self._send = trust, send

    def proofs(self, rows: Sequence[Row]) -> Proofs:
        """What proves those who signed some rows; it is the same for all sessions."""
        return {signer: self._trust.proof(*signer) for signer in self._signers(rows)}

    def introduce(self, session: Session, rows: Sequence[Row]) -> bool:
        """Prove to a session who signed some rows; False when it can take no more now."""
        return self.show(session, self.proofs(rows))

    def show(self, session: Session, proofs: Proofs) -> bool:
        """Send a session what it has not had of these; False when it can take no more now."""
        new = {signer: proof for signer, proof in proofs.items() if session.known.get(signer, ()) != proof}
        if not new:
            return True
        had = {raw for signer in new for raw in session.known.get(signer, ())}
        raws = [raw for raw in dict.fromkeys(raw for signer in sorted(new) for raw in new[signer]) if raw not in had]
        if len(session.known) + len(new) > KNOWN:
            session.known.clear()  # it is shown them again
        session.known.update(new)
        parts = (tuple(raws[at : at + MAX_CERTIFICATES]) for at in range(0, len(raws), MAX_CERTIFICATES))
        return all(self._send(session, Certificates(), part) for part in parts)

    def _signers(self, rows: Sequence[Row]) -> dict[Signer, None]:
        """Who signed some rows; their events are read only where a key has several names."""
        found: dict[Signer, None] = {}
        for key_id in dict.fromkeys([row.key_id for row in rows]):
            name = self._trust.sole_name(key_id)
            names = [name] if name else [_source(row) for row in rows if row.key_id == key_id]
            found.update(((key_id, one), None) for one in names)
        return found


def _source(row: Row) -> str:
    with suppress(UnusableEventError):  # nobody can read what is damaged
        return row.read().event.source
    return ""
