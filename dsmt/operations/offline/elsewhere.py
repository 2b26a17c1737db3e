"""Decisions that were made from another broker's store, decided again from this one (rule H2).

Rule 1: the digest of the winners says what a decision was made from, whatever store that stood in: where the rows of this
    one come to that digest, in their own order, they hold all of it, and it is decided again from there.
Rule 2: where they do not, brokers had the same rows in another order, and only the store that was read tells which.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from msgspec.structs import replace

from dsmt.controllers.replay import ReplayReport, RevokedAt, Rows, fold_and_decide
from dsmt.errors import UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.controller import Decision
from dsmt.event.records import from_data
from dsmt.view import View


def replay_elsewhere(rows: Rows, decisions: Sequence[SignedEvent], *, store: str, ended: RevokedAt) -> ReplayReport:
    """Replay decisions over the rows of one store, also those that were made from another one."""
    report = fold_and_decide(rows, decisions, store=store, ended=ended)
    found = fold_and_decide(rows, _as_here(rows, decisions, store), store=store, ended=ended).findings
    again = {one.decision.id: one for one in found if one.outcome != "inputs incomplete"}
    return ReplayReport([again.get(one.decision.id, one) for one in report.findings])


def _as_here(rows: Rows, decisions: Sequence[SignedEvent], store: str) -> list[SignedEvent]:
    """Those that were made from another store, each with the row of this one that gives the same view (rule 1)."""
    sought: dict[bytes, list[SignedEvent]] = {}
    for signed in decisions:
        with suppress(UnusableEventError):
            told = from_data(Decision, signed.event.data)
            if told.store != store:
                sought.setdefault(told.view_digest, []).append(signed)
    found, view = [], View()
    for row, signed in rows.needed if sought else ():
        view.apply(signed)
        view.expire(signed.event.time_ms)
        for one in sought.pop(view.digest, ()):
            data = {**one.event.data, "store": store, "row": row}
            found.append(replace(one, event=replace(one.event, data=data)))
    return found
