"""Presence: what a broker says of the sessions it holds (rule F1, F2, F3).

Rule 1: an attachment is `open` until it is closed; one that was quiet, was asked and did not answer (`quiet`) is `silent`,
    with the time of its last word, and `open` again when it speaks.
Rule 2: of two attachments of one source the greater (issue time of the certificate, number) stays (A11).
Rule 3: a broker that was itself stalled does not accuse: its own lag is added to every session's last word, which is
    never later than now.
Rule 4: sessions that were open when the broker last ended are `silent` only after `REATTACH_GRACE`.
Rule 5: a node's manager that was closed in an earlier life of the broker is `silent` since the start of this one: a close
    is evidence of death only at a broker that lives (F1), and a whole realm that starts must not be taken for dead.
Rule 6: a connection that ends after its source had fallen silent was given up by the network, as far as anybody can
    tell: `timeout`, whatever the socket says (F2: only a close by a peer that lived is evidence of its death); its
    record keeps the time of the last word, since which every probe counts.
Rule 7: two processes of one name take turns at most twice in `EXCHANGE_WINDOW`; with the third exchange both are kept out
    until there is a newer certificate, or the one that they were kept out by has ended (A11), and over restarts. It is a
    turn when a process takes a name back: one that claims an incarnation which was attached before; or the very one that
    is attached, and knows nothing of that attachment: it is a machine that was copied while it ran. A process that was
    started anew claims another, or none (0), however often it dies. What is said of who is kept out names the key, for as
    long as it comes and is refused.
Rule 8: what is closed is forgotten after `FORGET_AFTER`, when its session fact is dead; and of all that are closed, and all
    that were granted numbers and have not attached, those beyond the last `CLOSED_KNOWN`: the store and realm time keep
    their numbers from being given again.
Rule 9: what is not closed, or is kept out, is said again each `RENEW_AFTER`, before its fact dies: absence must not look
    like silence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from dsmt.bus.rules.quiet import STALL_S, asked_patience_s, patience_s
from dsmt.errors import RefusedError
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.phrases import another_key
from dsmt.trust.certificate import Certificate
from dsmt.view.liveness import REATTACH_GRACE_MS

REATTACH_GRACE: Final = REATTACH_GRACE_MS / 1000
EXCHANGES: Final = 3
EXCHANGE_WINDOW: Final = 60.0
ATTACHED_KNOWN: Final = 8
FORGET_AFTER: Final = 24 * 3600.0
CLOSED_KNOWN: Final = 16_384
RENEW_AFTER: Final = 12 * 3600.0
"""Half the time to live of a session fact."""

How = Literal["peer", "timeout", "local"]


class AttachedSource(Protocol):
    """What is known of who has attached."""

    name: str
    certificate: Certificate | None
    incarnation: int
    claimed: int
    """The incarnation that it had said it has."""
    follows: int | None
    """The number of its attachment before, if it told it."""
    attachment: int
    pid: int | None
    version: str
    address: str
    payer: str


class _Contest(NamedTuple):
    """What two processes of one name have shown: the issue time of their certificate, and the id of its key."""

    issued: int
    key: str


@dataclass(slots=True, kw_only=True)
class _Known:
    record: SessionFact
    """Without who is kept out."""
    heard: float
    grace: float
    """How long after its last word it is silent."""
    said: float
    issued: int = 0
    payer: str = ""

    @property
    def state(self) -> Literal["open", "silent", "closed"]:
        return self.record.state

    def becomes(self, state: Literal["open", "silent", "closed"], since_ms: int, how: How | None = None) -> None:
        self.record = replace(self.record, state=state, since_ms=since_ms, how=how)

    def last_ms(self, now: float, now_ms: int) -> int:
        """When its last word was."""
        return now_ms - int((now - self.heard) * 1000)


class Presence:
    """The sessions of one broker. `now` is boot-time seconds, `now_ms` realm ms; what is returned is to be published."""

    def __init__(self, now: float) -> None:
        self._known: dict[str, _Known] = {}
        self._granted: dict[str, int] = {}
        self._numbered: dict[str, int] = {}
        """The greatest attachment number that was granted, by name; whether it was attached with or not."""
        self._attached: dict[str, list[int]] = {}
        """The last incarnations that attached, by name."""
        self._exchanges: dict[str, list[float]] = {}
        self._contested: dict[str, _Contest] = {}
        """By name."""
        self._ticked = now

    def restore(self, source: str, record: SessionFact, now: float, now_ms: int) -> SessionFact | None:
        """Take in a session fact of this broker's own past (rule 4); what is to be said anew of it (rule 5)."""
        unset = dict.fromkeys(("leaf", "kept_out", "kept_out_issued"), msgspec.UNSET)
        bare = replace(record, instead_of="", **unset)
        known = self._known[source] = _Known(record=bare, heard=now, grace=REATTACH_GRACE, said=now)
        if record.kept_out and record.kept_out_issued is not msgspec.UNSET:
            self._contested[source] = _Contest(record.kept_out_issued, record.kept_out)
            return None
        if not source.startswith("node/") or record.state != "closed":
            return None
        known.becomes("silent", now_ms)
        return self._record(source, known)

    def renew(self) -> None:
        """Realm time was set ahead: who is not closed is said again with the next tick, before its fact dies (rule 9)."""
        for known in self._known.values():
            known.said = -RENEW_AFTER

    def are_open(self, role: str) -> list[str]:
        """The sources of a role that are attached, as far as is known."""
        return [source for source, known in self._known.items() if known.state == "open" and source.startswith(f"{role}/")]

    def attachment_of(self, source: str) -> int:
        """The greatest attachment number known of a source; 0 for none."""
        known = self._known.get(source)
        return 0 if known is None else known.record.attachment

    def record_of(self, source: str) -> SessionFact | None:
        """What is so of a source's session; None when it is not known."""
        known = self._known.get(source)
        return None if known is None else self._record(source, known)

    def payer_of(self, source: str) -> str:
        """Who pays for what is said of a source (rule D2); empty while that is not known."""
        known = self._known.get(source)
        return "" if known is None else known.payer

    def incarnation_of(self, source: str) -> int:
        """The greatest incarnation that a source was granted or attached with; 0 for none."""
        known = self._known.get(source)
        return max(self._granted.get(source, 0), 0 if known is None else known.record.incarnation)

    def granted(self, source: str, incarnation: int) -> None:
        """A source was granted an incarnation: nobody else gets it, even if two said hello at once."""
        self._granted[source] = max(incarnation, self._granted.get(source, 0))

    def grant(self, source: str, claimed: int, now_ms: int) -> int:
        """An attachment number for a source: greater than all that it was granted or has attached with, here (A11)."""
        number = max(claimed, now_ms, self.attachment_of(source) + 1, self._numbered.get(source, 0) + 1)
        self._numbered[source] = number
        return number

    def supersedes(self, source: str, issued: int) -> bool:
        """Whether a new attachment of a source with a certificate of that issue time replaces the one that is open."""
        known = self._known.get(source)
        return known is None or known.state == "closed" or issued >= known.issued

    def contested(self, source: str, issued: int) -> bool:
        """Whether a source is kept out because two processes of its name took turns (rule 7)."""
        return source in self._contested and issued <= self._contested[source].issued

    def refused(self, source: str, now: float) -> None:
        """A source that is kept out has come again: it is not forgotten (rule 7)."""
        known = self._known.get(source)
        if known is not None and known.state == "closed":
            known.heard = now

    def settle(self, is_revoked: Callable[[bytes, str], bool]) -> list[tuple[str, SessionFact]]:
        """Let in again who was kept out by a certificate, by key and name, that is revoked (rule 7); what to say."""
        settled = [source for source, (_, key) in self._contested.items() if is_revoked(bytes.fromhex(key), source)]
        for source in settled:
            del self._contested[source]
        known = ((source, self._known.get(source)) for source in settled)
        return [(source, self._record(source, one)) for source, one in known if one is not None and one.state == "closed"]

    def _exchanged(self, session: AttachedSource, shown: _Contest, now: float) -> None:
        source, claimed, follows = session.name, session.claimed, session.follows
        before = self._known.get(source)
        if before is None or before.state == "closed" or not claimed or claimed not in self._attached.get(source, ()):
            return
        if before.record.incarnation == claimed and (follows is None or follows >= before.record.attachment):
            return
        turns = [at for at in self._exchanges.get(source, ()) if now - at < EXCHANGE_WINDOW]
        self._exchanges[source] = [*turns, now]
        if len(turns) + 1 >= EXCHANGES:
            self._contested[source] = shown
            del self._exchanges[source]

    def opened(self, session: AttachedSource, now: float, now_ms: int) -> SessionFact:
        """A source has attached."""
        source, own, payer = session.name, session.certificate, session.payer
        shown = _Contest(0, "") if own is None else _Contest(own.issued, own.key_id.hex())
        self._exchanged(session, shown, now)
        self._attached[source] = [*self._attached.get(source, ()), session.incarnation][-ATTACHED_KNOWN:]
        record = SessionFact(
            attachment=session.attachment,
            state="open",
            how=None,
            since_ms=now_ms,
            incarnation=session.incarnation,
            pid=session.pid,
            version=session.version,
            address=session.address,
        )
        grace = _patience(source, payer)
        known = _Known(record=record, heard=now, grace=grace, said=now, issued=shown.issued, payer=payer)
        self._known[source] = known
        return self._record(source, known)

    def heard(self, source: str, now: float, now_ms: int, payer: str = "") -> SessionFact | None:
        """A source has said something; a record when it had been silent. Who pays for it its past did not tell."""
        known = self._known.get(source)
        if known is None or known.state == "closed":
            return None
        known.payer = payer or known.payer
        known.heard, known.grace = now, _patience(source, known.payer)
        if known.state == "open":
            return None
        known.becomes("open", now_ms)
        return self._record(source, known)

    def asked(self, source: str, now: float) -> None:
        """A source that is quiet was asked whether it is there."""
        known = self._known.get(source)
        if known is not None and known.state == "open":
            known.grace = min(known.grace, asked_patience_s(now - known.heard))

    def closed(self, source: str, attachment: int, how: How, now: float, now_ms: int) -> SessionFact | None:
        """An attachment has ended; a record unless a greater one has taken its place."""
        known = self._known.get(source)
        if known is None or known.record.attachment != attachment or known.state == "closed":
            return None
        if known.state == "silent":
            known.becomes("closed", known.record.since_ms, "timeout")
        else:
            known.becomes("closed", known.last_ms(now, now_ms) if how == "timeout" else now_ms, how)
        known.heard = now
        return self._record(source, known)

    def tick(self, now: float, now_ms: int, expected: float) -> list[tuple[str, SessionFact]]:
        """Find who has fallen silent, and who must be said again (rule 9); to be called each `expected` seconds."""
        lag = now - self._ticked - expected
        self._ticked = now
        fallen = []
        forgotten = []
        for source, known in self._known.items():
            if lag > STALL_S:
                known.heard = min(now, known.heard + lag)
            if known.state == "open" and now - known.heard > known.grace:
                known.becomes("silent", known.last_ms(now, now_ms))
                fallen.append((source, self._record(source, known)))
            elif now - known.said > RENEW_AFTER and self._is_to_be_said(source, known, now):
                known.said = now
                fallen.append((source, self._record(source, known)))
            elif known.state == "closed" and now - known.heard > FORGET_AFTER:
                forgotten.append(source)
        beyond = self._beyond(forgotten)
        for source in beyond:
            self._contested.pop(source, None)
        for source in (*forgotten, *beyond):
            self._known.pop(source, None)
            self._attached.pop(source, None)
            self._exchanges.pop(source, None)
            self._granted.pop(source, None)
            self._numbered.pop(source, None)
        return fallen

    def _is_to_be_said(self, source: str, known: _Known, now: float) -> bool:
        """Whether what was said of a source stands after its fact has died (rule 9)."""
        return known.state != "closed" or (now - known.heard < RENEW_AFTER and self.contested(source, known.issued))

    def _beyond(self, forgotten: Collection[str]) -> list[str]:
        """Who is forgotten because too many are known, beside those that are anyway (rule 8)."""
        if len(self._granted) - len(forgotten) <= CLOSED_KNOWN:
            return []
        closed = [(known.heard, source) for source, known in self._known.items() if known.state == "closed"]
        never = [source for source in self._granted if source not in self._known]
        return [source for _, source in sorted(closed)[:-CLOSED_KNOWN]] + never[:-CLOSED_KNOWN]

    def _record(self, source: str, known: _Known) -> SessionFact:
        contest = self._contested.get(source)
        if contest is None or known.state != "closed" or known.issued > contest.issued:
            return known.record
        return replace(known.record, kept_out=contest.key, kept_out_issued=contest.issued)


def two_of_one_name(own: Certificate) -> RefusedError:
    """What both of two processes that took turns are told, by the certificate that they show (rule 7)."""
    said = f"two processes keep attaching as {own.subject}"
    return RefusedError("trust.contested", said, next=f"stop one, then {another_key(own.subject, own.key_id.hex())}")


def _patience(source: str, payer: str) -> float:
    return patience_s(delegate=payer not in ("", source))
