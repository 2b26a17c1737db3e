"""The door: what a broker checks before an event is stored; what is refused here, nobody ever sees.

Rule 1: signature, certificate, owner and grant, by the trust store; the bytes must be the deterministic encoding.
Rule 2: the data must be its topic's record, the type its topic's type; a shared fact has a version, no other event has.
Rule 3: time is judged here and nowhere else: more than 10 s ahead of realm time is `clock_ahead`; the past is never refused.
Rule 4: a version is at most 2^20 above the one held (A3), and a source has a quota of live facts (A14).
Rule 5: a fact that is dead or buried when it comes is history only.
Rule 6: anyone may re-offer a fact of anyone (R5); a signal comes from its own source only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dsmt.errors import UnusableEventError
from dsmt.event.codec import reencodes
from dsmt.event.envelope import Event, SignedEvent
from dsmt.event.hlc import BOUND_MS
from dsmt.event.order import newer
from dsmt.event.records import from_data
from dsmt.event.registry import Match, lookup
from dsmt.trust.store import TrustStore

MAX_VERSION_STEP: Final = 2**20


@dataclass(frozen=True, slots=True)
class Admitted:
    """An event that may be stored, and how."""

    signed: SignedEvent
    fact: bool
    winner: bool
    budget: str


class Door:
    """Judges what a session publishes."""

    def __init__(self, trust: TrustStore) -> None:
        self._trust = trust

    def open(self, raw: bytes, *, session: str, now_ms: int) -> tuple[SignedEvent, Match, bool]:
        """Check all that needs no store: the event, its registry row, whether it is a fact.

        Raises `UnusableEventError`.
        """
        signed, envelope = self._trust.open(raw)
        if not reencodes(signed, envelope):
            raise UnusableEventError("event.form", "not the deterministic encoding")
        event = signed.event
        match = lookup(event.topic)
        if match is None:
            raise UnusableEventError("event.topic", f"there is no topic {event.topic} in the registry")
        fact = event.version is not None if match.row.kind is None else match.row.kind == "fact"
        self._check_schema(event, match, fact=fact)
        if event.time_ms - now_ms > BOUND_MS:
            raise UnusableEventError(
                "clock_ahead",
                f"event of {event.source} is {(event.time_ms - now_ms) / 1000:.1f} s ahead of realm time",
                next="set the clock of its machine; realm time is used after the next attachment",
            )
        if not fact and event.source != session:
            raise UnusableEventError("trust.relayed", f"{session} may not publish a signal of {event.source}")
        return signed, match, fact

    @staticmethod
    def _check_schema(event: Event, match: Match, *, fact: bool) -> None:
        row = match.row
        if event.type != row.event_type:
            raise UnusableEventError("event.schema", f"{event.topic} takes events of type {row.event_type}")
        if (event.version is not None) != (fact and row.shared):
            raise UnusableEventError("event.schema", f"a version stands on shared facts only, not on {event.topic}")
        if row.record is not None:
            from_data(row.record, event.data)

    @staticmethod
    def admit(
        signed: SignedEvent,
        match: Match,
        *,
        fact: bool,
        held: SignedEvent | None,
        buried_until: int,
        within_quota: bool,
        now_ms: int,
    ) -> Admitted:
        """Decide whether it becomes its topic's retained fact. Raises `UnusableEventError` (rule 4).

        `held` is the topic's retained fact, `buried_until` the time of the greatest tombstone above it (0: none).
        """
        event = signed.event
        if not fact:
            return Admitted(signed, fact=False, winner=False, budget=match.row.budget)
        above = 0 if held is None or held.event.version is None else held.event.version
        if event.version is not None and event.version > above + MAX_VERSION_STEP:
            raise UnusableEventError("event.version", f"version {event.version} of {event.topic} is far above {above}")
        if not within_quota:
            raise UnusableEventError("quota", f"{event.source} has as many live facts as its certificate allows")
        buried = event.version is not None and event.time <= buried_until
        dead = event.expires_ms is not None and event.expires_ms <= now_ms
        winner = not buried and not dead and (held is None or newer(event, held.event))
        return Admitted(signed, fact=True, winner=winner, budget=match.row.budget)
