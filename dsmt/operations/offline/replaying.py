"""Replaying: what controllers decided in a history file, decided again (rule H2, H3).

Rule 1: only what verifies is worth replaying: a file that does not is said to be so, and is not `ok`.
Rule 2: the rows below the horizon of trimming hold each topic's winner as of then, so what was decided behind it folds
    to the same view; what was decided before it has incomplete inputs, which is no difference.
Rule 3: a history from a time on lacks the facts of before: what was decided from them has incomplete inputs, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from math import inf

import msgspec

from dsmt.controllers.replay import ReplayedDecision, RevokedAt, Rows
from dsmt.errors import InputError, UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.operations.offline import history
from dsmt.operations.offline.elsewhere import replay_elsewhere
from dsmt.operations.offline.proving import verify_history
from dsmt.operations.offline.undecided import undecided
from dsmt.operations.words.telling import Tell, silent
from dsmt.operations.words.times import milliseconds
from dsmt.trust.revocations import revoked_by
from dsmt.trust.store import TrustStore


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """One decision, decided again. `details` are sentences; `stale`: how many of its facts were refused as such."""

    decision: str
    row: int
    outcome: str
    details: list[str]
    stale: int


class Undecided(msgspec.Struct, frozen=True, kw_only=True):
    """What a controller has said on a topic, and no decision of it names."""

    event: str
    topic: str


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    ok: bool
    verified: bool
    controllers: int
    same: int
    different: int
    incomplete: int
    other_ruleset: int
    stale: int
    before: int
    """How many rows the history had before the one with which the file begins."""
    decisions: list[Replay]
    undecided: list[Undecided]


def replay_file(raw: bytes, trust: TrustStore, tell: Tell = silent) -> Replayed:
    """Decide again. Raises `InputError` for a file that is no history."""
    if not history.is_history(raw):
        raise InputError("history.form", "the file is not a history", next="dsmt export FILE writes one")
    rows, known = Rows(), trust.fresh()
    found = verify_history(raw, trust, rows.add, tell)
    with suppress(UnusableEventError):
        known.add_all(history.certificates(raw))
    decisions = [signed for _, signed in rows.needed if signed.event.type == "dsmt.decision"]
    store = "" if found.history is None else found.history.store
    ended = revoked_at(rows.needed, known)
    until_ms = 0 if found.history is None or found.history.signed_at is None else milliseconds(found.history.signed_at)
    alone = undecided(rows, ended, until_ms)
    report = replay_elsewhere(rows, decisions, store=store, ended=ended)
    places = {signed.id: row for row, signed in rows.needed}
    return Replayed(
        ok=report.ok and found.ok,
        verified=found.ok,
        controllers=len({signed.event.source for signed in decisions}),
        same=report.count("same"),
        different=report.count("different"),
        incomplete=report.count("inputs incomplete"),
        other_ruleset=report.count("other ruleset"),
        stale=report.stale,
        before=0 if found.history is None else found.history.before,
        decisions=[_replay(one, places[one.decision.id]) for one in report.findings],
        undecided=[Undecided(event=str(one.id), topic=one.event.topic) for one in alone],
    )


def revoked_at(rows: Sequence[tuple[int, SignedEvent]], trust: TrustStore) -> RevokedAt:
    """Which keys the rows revoke, in the order in which their broker had that."""
    signers = {(signed.key_id, signed.event.source): signed for _, signed in rows}
    ended: dict[tuple[bytes, str], int] = {}
    for row, signed in rows:
        if revoked_by(signed.event.topic) is not None:
            trust.revoke(signed)
            gone = [who for who, one in signers.items() if who not in ended and trust.disowns(one)]
            ended |= dict.fromkeys(gone, row)
    return lambda signed: ended.get((signed.key_id, signed.event.source), inf)


def _replay(finding: ReplayedDecision, row: int) -> Replay:
    return Replay(
        decision=str(finding.decision.id),
        row=row,
        outcome=finding.outcome,
        details=list(finding.details),
        stale=finding.stale,
    )
