"""The validator: what a broker checks before an event is stored; what is refused here, nobody ever sees.

Rule 1: signature, certificate, owner and grant were asked of the trust store.
Rule 2: it is what its topic's row takes, and counts no further than its time (`ahead`). Whoever reads a file asks for the
    first of these, by the same words (`opened`, B9).
Rule 3: time is judged here and nowhere else: more than 10 s ahead of realm time is `clock_ahead`; the past is never refused.
    Nor is an incarnation taken that is further ahead than that and was not granted here: it would be the greatest of its
    source for ever (A11). So it is with what is re-offered: who offers it keeps what is refused for that (`early`).
    But a revocation that may be said ends its key at once, also where it is refused for its time: a broker that begins
    anew with a clock that is behind would let the revoked in (J3).
Rule 4: epoch and version are at most 2^20 above those held (A3). What was said elsewhere before may have been raised in
    steps, and be brought to a store that has nothing: of that they are at most its time in ms, if that is more.
Rule 5: a shared fact is compared where its own source says it: it must replace the winner that is held there, in an epoch
    that has not ended; else it is `stale` (A3). A tombstone replaces the one before it, and ends its or a
    later epoch. What it follows need not be held: it may be a revoked key's, which no broker brings (J3).
Rule 6: a fact that is dead or over when it comes is history only.
Rule 7: anyone may re-offer a fact of anyone (R5), which is merged by fact order; a signal comes from its own source only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from dsmt.bus.rules.ahead import check_ahead, is_beyond
from dsmt.bus.rules.authority import check_revocation
from dsmt.errors import UnusableEventError
from dsmt.event.envelope import Event, SignedEvent, thing_of
from dsmt.event.hlc import BOUND_MS
from dsmt.event.kinds.row import Budget
from dsmt.event.order import MAX_STEP, is_over, newer
from dsmt.event.registry import Match, lookup, taken
from dsmt.trust.revocations import REVOKED
from dsmt.trust.store import TrustStore


class Standing(msgspec.Struct, frozen=True):
    """What a store holds where a fact wants to stand.

    `winner` is the topic's retained fact, dead or alive, `ended` the last epoch of its thing that has ended.
    """

    winner: SignedEvent | None
    ended: int = 0
    void: Callable[[], tuple[int, int]] = lambda: (0, 0)
    """Asked for the greatest epoch and version that were said there and are void: others may count on from these (J3)."""


def standing(event: Event, held: SignedEvent | None, ended: Callable[[], int]) -> Standing:
    """What stands where a fact wants to: `held` is on its topic; `ended` is asked for the last epoch of its thing that has.

    After a tombstone one of the same epoch may follow: the signer of the first may have been revoked (J3).
    """
    if event.ends:
        return Standing(held, 0 if held is None else (held.event.epoch or 0) - 1)
    return Standing(held, 0 if event.epoch is None else ended())


NOWHERE: Final = Standing(None)
"""Of a signal."""
STALE: Final = "stale"
"""The code of what is refused for somebody else was first: nothing is wrong with it, and who said it decides again."""
OWN: Final = "own"
"""The code of what is refused for this broker has said it itself: it is offered to tell the broker what its time was."""
HARMLESS: Final = frozenset({STALE, OWN})
"""What is refused in the usual course of things: it is not counted, and nobody is warned of it."""


class Admitted(msgspec.Struct, frozen=True):
    """An event that may be stored, and how."""

    signed: SignedEvent
    fact: bool
    winner: bool
    budget: Budget


class EventValidator:
    """Judges what a session publishes."""

    def __init__(self, trust: TrustStore) -> None:
        self._trust = trust

    def check(self, signed: SignedEvent, *, session: str, now_ms: int, granted: int = 0) -> tuple[Match, bool]:
        """Check all that needs no store of an event that was opened: its registry row, and whether it is a fact.

        `granted` is the incarnation that this broker granted the session.

        Raises `UnusableEventError`.
        """
        event = signed.event
        match = taken(event)
        check_ahead(event)
        fact = match.row.takes_as_fact(event.version)
        if event.topic.startswith(REVOKED):
            check_revocation(self._trust, signed)
            self._trust.revoke(signed)
        if event.time_ms - now_ms > BOUND_MS:
            raise UnusableEventError(
                "clock_ahead",
                f"event of {event.source} is {(event.time_ms - now_ms) / 1000:.1f} s ahead of realm time",
                next="set the clock of its machine; realm time is used after the next attachment",
            )
        if event.incarnation > max(now_ms + BOUND_MS, granted if event.source == session else 0):
            ahead_s = (event.incarnation - now_ms) / 1000
            raise UnusableEventError(
                "event.incarnation",
                f"{event.source} claims an incarnation that is {ahead_s:.0f} s ahead of realm time",
                next="set the clock of its machine, and start it again",
            )
        if not fact and event.source != session:
            raise UnusableEventError("trust.relayed", f"{session} may not publish a signal of {event.source}")
        return match, fact

    def check_run(self, run: Sequence[SignedEvent], *, session: str, now_ms: int, granted: int) -> Match | None:
        """The row of signals of a source on a topic, each the next one, if all pass `check`; None: ask one by one."""
        first = latest = run[0]
        said, sequence = first.event, first.event.sequence
        alike = (said.source, said.incarnation, said.topic, said.type, None)
        for one in run:
            event = one.event
            if (event.source, event.incarnation, event.topic, event.type, event.version) != alike:
                return None
            if event.sequence != sequence or is_beyond(event):
                return None
            sequence += 1
            if event.time > latest.event.time:
                latest = one
        match = lookup(said.topic)
        if match is None or match.row.record is not None:  # which is held against each one's data
            return None
        try:
            match, fact = self.check(latest, session=session, now_ms=now_ms, granted=granted)
        except UnusableEventError:
            return None
        return None if fact else match

    @staticmethod
    def admit(signed: SignedEvent, match: Match, *, fact: bool, at: Standing, own: bool, now_ms: int) -> Admitted:
        """Decide whether it becomes its topic's retained fact. Raises `UnusableEventError` (rules 4 and 5).

        `own`: it comes over the session of its own source; else somebody re-offers it.
        """
        event = signed.event
        if not fact:
            return Admitted(signed, fact=False, winner=False, budget=match.row.budget)
        _check_step(event, at, own=own)
        over = is_over(event, at.ended)
        if own and event.version is not None:
            _check_fresh(event, at, over=over, now_ms=now_ms)
        held = at.winner
        winner = not over and (
            not event.is_dead(now_ms) if held is None else newer(event, held.event)
        )  # a dead one replaces
        return Admitted(signed, fact=True, winner=winner, budget=match.row.budget)


def _check_step(event: Event, at: Standing, *, own: bool) -> None:
    """Rule 4: nobody poisons a topic with a number that nobody can follow."""
    held = None if at.winner is None else at.winner.event
    above = (at.ended, 0) if held is None else (max(at.ended, held.epoch or 0), held.version or 0)
    for word, number, known in (("epoch", event.epoch, above[0]), ("version", event.version, above[1])):
        if number is None or number <= max(known + MAX_STEP, 0 if own else event.time_ms):
            continue
        if number > at.void()[word == "version"] + MAX_STEP:
            raise UnusableEventError("event.version", f"{word} {number} of {event.topic} is far above {known}")


def _check_fresh(event: Event, at: Standing, *, over: bool, now_ms: int) -> None:
    """Rule 5."""
    if over:
        raise _stale(f"{thing_of(event.topic)} was removed at the same moment: its epoch {event.epoch} has ended")
    held = at.winner
    if held is None or held.event.is_dead(now_ms):
        if event.replaces is not None and not event.ends and (held is None or held.id != event.replaces):
            raise _stale(f"{event.topic} is not held here: there is no {event.replaces} to be replaced")
        return
    if held.id != event.replaces:
        raise _stale(f"{held.event.source} changed {event.topic} at the same moment, and was first")
    if not newer(event, held.event):
        raise _stale(f"what was said on {event.topic} does not come after {held.id}, which it replaces")


def _stale(why: str) -> UnusableEventError:
    return UnusableEventError(STALE, why, next="see what it says now, and decide again")
