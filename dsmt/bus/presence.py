"""Presence: what a broker says of the sessions it holds (SEMANTICS F1, F2, F3).

Rule 1: an attachment is `open` until it is closed; one from which nothing was heard for `SILENT_AFTER` is `silent`,
    with the time of its last word, and `open` again when it speaks.
Rule 2: of two attachments of one source the greater (issue time of the certificate, number) stays (A11).
Rule 3: a broker that was itself stalled does not accuse: its own lag is added to every session's last word.
Rule 4: sessions that were open when the broker last ended are `silent` only after `REATTACH_GRACE`.
Rule 5: a node's manager that was closed in an earlier life of the broker is `silent` since the start of this one: a close
    is evidence of death only at a broker that lives (F1), and a whole realm that starts must not be taken for dead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from dsmt.event.records import Session

SILENT_AFTER: Final = 3.0
REATTACH_GRACE: Final = 10.0
STALL: Final = 0.5

How = Literal["peer", "timeout", "local"]


@dataclass(slots=True)
class _Known:
    attachment: int
    issued: int
    incarnation: int
    pid: int | None
    version: str
    address: str
    heard: float
    since_ms: int
    state: Literal["open", "silent", "closed"]
    how: How | None = None
    grace: float = SILENT_AFTER


class Presence:
    """The sessions of one broker. `now` is boot-time seconds, `now_ms` realm ms; what is returned is to be published."""

    def __init__(self, now: float) -> None:
        self._known: dict[str, _Known] = {}
        self._ticked = now

    def restore(self, source: str, record: Session, now: float, now_ms: int) -> Session | None:
        """Take in a session fact of this broker's own past (rule 4); what is to be said anew of it (rule 5)."""
        self._known[source] = _Known(
            record.attachment,
            0,
            record.incarnation,
            record.pid,
            record.version,
            record.address,
            now,
            record.since_ms,
            record.state,
            record.how,
            REATTACH_GRACE,
        )
        if not source.startswith("node/") or record.state != "closed":
            return None
        known = self._known[source]
        known.state, known.how, known.since_ms = "silent", None, now_ms
        return _record(known)

    def attachment_of(self, source: str) -> int:
        """The greatest attachment number known of a source; 0 for none."""
        known = self._known.get(source)
        return 0 if known is None else known.attachment

    def supersedes(self, source: str, issued: int) -> bool:
        """Whether a new attachment of a source with a certificate of that issue time replaces the one that is open."""
        known = self._known.get(source)
        return known is None or known.state == "closed" or issued >= known.issued

    def opened(
        self,
        source: str,
        *,
        attachment: int,
        issued: int,
        incarnation: int,
        pid: int | None,
        version: str,
        address: str,
        now: float,
        now_ms: int,
    ) -> Session:
        """A source has attached."""
        known = _Known(attachment, issued, incarnation, pid, version, address, now, now_ms, "open")
        self._known[source] = known
        return _record(known)

    def heard(self, source: str, now: float, now_ms: int) -> Session | None:
        """A source has said something; a record when it had been silent."""
        known = self._known.get(source)
        if known is None or known.state == "closed":
            return None
        known.heard, known.grace = now, SILENT_AFTER
        if known.state == "open":
            return None
        known.state, known.since_ms = "open", now_ms
        return _record(known)

    def closed(self, source: str, attachment: int, how: How, now_ms: int) -> Session | None:
        """An attachment has ended; a record unless a greater one has taken its place."""
        known = self._known.get(source)
        if known is None or known.attachment != attachment or known.state == "closed":
            return None
        known.state, known.how, known.since_ms = "closed", how, now_ms
        return _record(known)

    def tick(self, now: float, now_ms: int, expected: float) -> list[tuple[str, Session]]:
        """Find who has fallen silent; to be called each `expected` seconds."""
        lag = now - self._ticked - expected
        self._ticked = now
        fallen = []
        for source, known in self._known.items():
            if lag > STALL:
                known.heard += lag
            if known.state == "open" and now - known.heard > known.grace:
                known.state = "silent"
                known.since_ms = now_ms - int((now - known.heard) * 1000)
                fallen.append((source, _record(known)))
        return fallen


def _record(known: _Known) -> Session:
    return Session(
        attachment=known.attachment,
        state=known.state,
        how=known.how,
        since_ms=known.since_ms,
        incarnation=known.incarnation,
        pid=known.pid,
        version=known.version,
        address=known.address,
    )
