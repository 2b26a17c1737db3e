"""Ingest: a broker's inward side: the validator, and the store's next batch.

Rule 1: everything that came in one turn of the loop is stored in one commit, then routed and acknowledged.
Rule 2: an event that is stored already is acknowledged again; one with a stored id and another hash is equivocation.
Rule 3: what is missing before what comes over its source's own session is looked for (`holes`).
Rule 4: what the broker says itself (`words`) is signed with the commit.
Rule 5: when the disk is full nothing of the batch is stored or acknowledged; what the broker has signed is kept.
Rule 6: what this broker said and others bring back is its word, on realm time (J4) too, until it says it anew (`recorder`).
    What one with another key said under this name does not stand here, unless the store is founded (`founding`).
Rule 7: what another broker brings was judged where it was stored first, and is merged by fact order (E1). What is ahead
    waits until its time has come. Not taken is what a key has signed that has ended, and what nobody here could use: of
    another version, or with a number that nobody can follow (A3).
Rule 8: new signals of a source on a topic, each the next one, are judged once if they come as a run: by the latest of them,
    and by their place. Where that does not do each is looked at, and refused for its own reason.
Rule 9: a revocation whose time is yet to come ends its key; what was displaced stands again when it is stored (`void`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from dsmt.bus.broker.accounts import Accounts
from dsmt.bus.broker.batch import Batch
from dsmt.bus.broker.holes import Holes
from dsmt.bus.broker.receipts import PublishOutcome, Refusal
from dsmt.bus.broker.void import Void
from dsmt.bus.broker.words import Words
from dsmt.bus.rules.authority import check_runs, ends_something, obeys
from dsmt.bus.rules.early import CODES
from dsmt.bus.rules.source_marks import Marks
from dsmt.bus.rules.validator import HARMLESS, NOWHERE, OWN, Admitted, EventValidator, Standing, standing
from dsmt.errors import FailedError, UnusableEventError
from dsmt.event.codec import decode_part
from dsmt.event.envelope import TOMBSTONE, Event, EventId, EventRange, SignedEvent, thing_of
from dsmt.event.hlc import BOUND_MS
from dsmt.event.kinds.broker import BrokerNotice
from dsmt.event.order import is_over
from dsmt.event.registry import Match
from dsmt.newest import Newest
from dsmt.ports.store import Append, Events, Row
from dsmt.trust.identity import Identity
from dsmt.trust.store import Opened, TrustStore

_WINNERS_REMEMBERED: Final = 8192
_WHO_DECIDE: Final = frozenset({"root", "operator", "controller"})


class PublishedBy(NamedTuple):
    """By whom events were published: by a session, that was granted an incarnation; `again`: facts were offered."""

    session: str
    again: bool
    granted: int


class Ingest:
    """Takes events in and stores them in batches, with the broker's own words. `settled_ms` is as in `Holes`."""

    def __init__(
        self,
        identity: Identity,
        trust: TrustStore,
        store: Events,
        words: Words,
        *,
        now_ms: Callable[[], int],
        was: Callable[[int], None] = lambda _ms: None,
        settled_ms: Callable[[], int | None] = lambda: None,
        founds: bool = False,
    ) -> None:
        self._was, self._words, self._founds = was, words, founds
        self._identity, self._trust, self._store, self._now_ms = identity, trust, store, now_ms
        self._validator, self._pending = EventValidator(trust), Batch()
        self._own: dict[EventId, Append] = {}
        self._winners: Newest[str, SignedEvent | None] = Newest(_WINNERS_REMEMBERED)
        self._won: dict[str, SignedEvent] = {}  # those that are pending: the store does not know them yet
        self._marks = Marks(store.high_mark, lambda *one: (row := store.event(*one)) is not None and row.row < store.trimmed)
        self._reoffered: set[str] = set()
        """Sources of whom somebody else has brought events, so that their marks do not tell what is stored."""
        self._accounts = Accounts(identity.certificate, trust, store)
        self._void, self.dropped = Void(store, trust), 0
        self._elected: list[Row] = []
        payer_of = self._accounts.payer_of
        self.holes = Holes(self._marks, store, words, payer_of=payer_of, now_ms=now_ms, settled_ms=settled_ms)

    # --- what sessions say ---------------------------------------------------------------------------------------

    def offered(self, session: str, parts: Sequence[bytes], *, again: bool = False, granted: int = 0) -> PublishOutcome:
        """Take in what a session published; `again`: facts that were stored elsewhere before, its own among them (R5)."""
        outcome, told, now_ms = PublishOutcome(), PublishedBy(session, again=again, granted=granted), self._now_ms()
        for part in parts:
            try:
                opened = self._trust.open_part(part)
            except UnusableEventError as error:
                for identity in _claimed(part):
                    self._refuse(identity, error, told, outcome)
                continue
            if self._take_run(opened, told, outcome, now_ms):
                continue
            for signed, denied in opened:
                if denied is None:
                    now_ms = self._now_ms() if again else now_ms  # what is offered may tell of realm time
                    self._take(signed, told, outcome, now_ms)
                else:
                    self._refuse(signed.id, denied, told, outcome)
        return outcome

    def _take_run(self, opened: Sequence[Opened], told: PublishedBy, outcome: PublishOutcome, now_ms: int) -> bool:
        """Take in new signals of a source on a topic, each the next one, by what they have in common (rule 8).

        False where that is not so, or one of them may be refused: then each is looked at.
        """
        if told.again or len(opened) < 2 or not all(denied is None for _, denied in opened):
            return False
        run = [signed for signed, _ in opened]
        first = run[0].event
        if not self._is_new(first.id, told.session):
            return False
        match = self._validator.check_run(run, session=told.session, granted=told.granted, now_ms=now_ms)
        if match is None:
            return False
        try:
            check_runs(first, self._held)
        except UnusableEventError:
            return False
        source, incarnation, sequence, last = *first.id, run[-1].event.sequence
        self.holes.tell(self._marks.came(source, incarnation, sequence, now_ms, last=last))
        payer, budget = self._accounts.payer(run[0]).subject, match.row.budget
        self._pending.add(
            [
                Append(one, now_ms, budget, fact=False, winner=False, expires_ms=one.event.expires_ms, payer=payer)
                for one in run
            ]
        )
        outcome.accept(EventRange(source, incarnation, sequence, last))
        return True

    def _take(self, signed: SignedEvent, told: PublishedBy, outcome: PublishOutcome, now_ms: int) -> None:
        """Take in one event whose signature is good."""
        event, identity = signed.event, signed.id
        try:
            match, fact = self._validator.check(signed, session=told.session, granted=told.granted, now_ms=now_ms)
            if told.again:
                self._check_not_own(event.topic)
            held_leaf = self._leaf(identity, told.session)
            if held_leaf is None:
                own = event.source == told.session and not told.again
                won = self._admit(signed, match, fact=fact, own=own, now_ms=now_ms)
                outcome.refilled = outcome.refilled or (told.again and won)
                outcome.accept(EventRange(*identity, identity.sequence))
            elif held_leaf == signed.leaf:
                outcome.accept(EventRange(*identity, identity.sequence), brought=self._marks.was_brought(*identity))
            else:
                outcome.refused.append(self._equivocation(signed))
        except UnusableEventError as error:
            self._refuse(identity, error, told, outcome)
            if error.code in CODES:
                self._look_ahead(signed, outcome if told.again else PublishOutcome())

    def _refuse(
        self, identity: EventId | None, error: UnusableEventError, told: PublishedBy, outcome: PublishOutcome
    ) -> None:
        self.dropped += error.code not in HARMLESS
        if identity is not None and identity.source == told.session and not told.again:
            self._marks.refused(*identity)  # it is no hole: its source is told
        outcome.refused.append(Refusal(identity, error))

    def _check_not_own(self, topic: str) -> None:
        name = self._identity.name
        if topic.startswith(f"{name}/"):
            said = f"what {name} says on {topic} it says itself, and takes from nobody"
            raise UnusableEventError(OWN, said, next="offer what others have said")

    def _look_ahead(self, signed: SignedEvent, outcome: PublishOutcome) -> None:
        """Note what a fact that is ahead tells of realm time (rule 6); obey it where it ends a key (rule 9)."""
        event = signed.event
        if obeys(self._trust, signed):
            self._winners.clear()
        if event.source == self._identity.name and self._has_signed(signed):
            self._was(event.time_ms)
        elif event.source.split("/")[0] in _WHO_DECIDE:
            outcome.early_ms = max(outcome.early_ms, event.time_ms, event.incarnation)

    def _leaf(self, identity: EventId, session: str) -> bytes | None:
        if self._is_new(identity, session):
            return None
        return self._pending.leaf(identity) or self._store.leaf(*identity)

    def _is_new(self, identity: EventId, session: str) -> bool:
        """Whether an event comes over its own source's session, and is newer than all that is known of that source."""
        if identity.source != session or session in self._reoffered:
            return False
        mark = self._marks.high(session)
        return mark is not None and identity[1:] > mark

    def _admit(self, signed: SignedEvent, match: Match, *, fact: bool, own: bool, now_ms: int) -> bool:
        """Take one in, to be stored with the next commit; whether it is its topic's winner."""
        event = signed.event
        check_runs(event, self._held)
        at = self._standing(event) if fact else NOWHERE
        admitted = self._validator.admit(signed, match, fact=fact, at=at, own=own, now_ms=now_ms)
        if admitted.winner and not ends_something(event, self._held):  # which always may
            self._accounts.charge(signed, at.winner)
        if own:
            self.holes.watch(event, now_ms)
        else:
            self._reoffered.add(event.source)
        self._pending.add([self._append(admitted, now_ms)])
        return admitted.winner

    def _append(self, admitted: Admitted, now_ms: int, payer: str = "", brought: str = "") -> Append:
        signed, event = admitted.signed, admitted.signed.event
        payer = payer or self._accounts.payer(signed).subject
        if admitted.fact:
            self._void.note(signed)
        if admitted.winner:
            self._winners[event.topic] = self._won[event.topic] = signed
        return Append(signed, now_ms, admitted.budget, admitted.fact, admitted.winner, event.expires_ms, payer, brought)

    def _held(self, topic: str) -> SignedEvent | None:
        if topic in self._won:
            return self._won[topic]
        if topic in self._winners:
            self._winners.move_to_end(topic)
            return self._winners[topic]
        held = self._winners[topic] = self._void.standing(self._store.winner(topic))
        return held

    def revoked(self) -> None:
        """Keys have ended: what is void by that stands no more."""
        self._winners.clear()
        self._elected += self._void.displace(self._now_ms())

    def let_go(self) -> None:
        """Let go of what a key has said and nobody has said again in the time for that."""
        if self._void.is_late(self._now_ms()):
            self.revoked()

    def elected(self) -> list[Row]:
        """What stands again since this was last asked, in the place of what is void."""
        elected, self._elected = self._elected, []
        return elected

    def _standing(self, event: Event) -> Standing:
        """What is held where a fact wants to stand; what a tombstone of this very batch hides is not held any more."""
        held = self._void.followed(event, self._held(event.topic))
        at = standing(event, held, lambda: self._ended(thing_of(event.topic)))
        hidden = at.winner is not None and is_over(at.winner.event, at.ended)
        return Standing(None if hidden else at.winner, at.ended, lambda: self._void.numbers(event.topic))

    def _ended(self, thing: str) -> int:
        tombstone = self._held(TOMBSTONE + thing)
        return 0 if tombstone is None else tombstone.event.epoch or 0

    # --- what another broker brings ------------------------------------------------------------------------------

    def brought(self, broker: str, signed: SignedEvent) -> int:
        """Take in an event that another broker has stored (rule 7); by how many ms it is early, if it must wait."""
        event, identity, now_ms = signed.event, signed.id, self._now_ms()
        if self._trust.disowns(signed):
            return 0
        held = self._leaf(identity, broker)
        if held is not None:
            if held != signed.leaf:
                self._equivocation(signed)
            return 0
        ahead_ms = max(event.time_ms, event.incarnation) - now_ms - BOUND_MS
        if ahead_ms > 0:
            self._look_ahead(signed, PublishOutcome())
            return ahead_ms
        try:
            match, fact = self._validator.check(signed, session=event.source, now_ms=now_ms)
            at = self._standing(event) if fact else NOWHERE
            admitted = self._validator.admit(signed, match, fact=fact, at=at, own=False, now_ms=now_ms)
        except UnusableEventError:  # of another version, or poisoned: nobody here could use it
            self.dropped += 1
            return 0
        own = event.source == self._identity.name
        if own and admitted.winner and not (self._founds or self._has_signed(signed)):  # rule 6
            admitted = Admitted(signed, fact, winner=False, budget=admitted.budget)
        self._reoffered.add(event.source)
        self._marks.brought(*identity)
        self._pending.add([self._append(admitted, now_ms, brought=broker)])
        return 0

    def _has_signed(self, signed: SignedEvent) -> bool:
        return signed.key_id == self._identity.key.key_id

    # --- what cannot be, and who has left ------------------------------------------------------------------------

    def _equivocation(self, signed: SignedEvent) -> Refusal:
        event = signed.event
        said = f"{event.source} signed two different events as #{event.incarnation}-{event.sequence}"
        self._words.notice(
            BrokerNotice(
                kind="equivocation",
                source=event.source,
                topic=event.topic,
                first=event.sequence,
                last=event.sequence,
                message=said,
            ),
            payer=self._accounts.payer(signed).subject,
        )
        return Refusal(signed.id, UnusableEventError("event.equivocation", said), restart=True)

    def forget_source(self, source: str) -> None:
        """A source has left: what is remembered is read from the store when it returns, but while something is missing."""
        self._marks.forget(source)
        if self._marks.high(source) is None:  # or what others have brought would be taken for new, and stored twice
            self._reoffered.discard(source)

    # --- storing -------------------------------------------------------------------------------------------------

    def commit(self) -> list[Row]:
        """Store what is pending; the rows. Raises `FailedError` when that cannot be: nothing was stored (rule 5)."""
        for signed, match, payer in () if self._own else self._words.sign():  # what was signed before goes first
            fact = match.row.kind == "fact"
            self._own[signed.id] = self._append(Admitted(signed, fact, fact, match.row.budget), self._now_ms(), payer)
        batch = [*self._own.values(), *self._pending.take()]
        self._won.clear()
        self._accounts.committed()
        if not batch:
            return []
        try:
            numbers = self._store.append(batch)
        except FailedError:
            self._winners.clear()
            self._marks.clear()
            raise
        self._own.clear()
        rows = []
        for number, one in zip(numbers, batch, strict=True):
            signed, event = one.signed, one.signed.event
            rows.append(
                Row(number, one.arrived_ms, event.topic, event.to, one.fact, signed.key_id, signed.sealed, one.brought)
            )
            if one.winner and event.ends:
                self._winners.clear()
        return rows

    def expire(self) -> None:
        """Let dead facts die; whose certificate pays is looked up anew, for it may have been renewed.

        Of whom no mark is in memory what others have brought is in the store, where it is looked for.
        """
        self._accounts.renew()
        if self._void.waits:
            self.revoked()
        self._reoffered = {source for source in self._reoffered if self._marks.high(source) is not None}
        if self._store.expire(self._now_ms()):
            self._winners.clear()


def _claimed(part: bytes) -> Iterable[EventId | None]:
    """The ids that the events of an unusable part claim, so that their refusals can be addressed."""
    try:
        return [signed.id for signed in decode_part(part).events]
    except UnusableEventError:
        return (None,)
