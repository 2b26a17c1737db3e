"""Unanswered: what one source has said, and keeps until it is answered: of every bus.

Rule 1: what is said before the source has an incarnation waits for that.
Rule 2: what had to be dropped, for too much is unanswered, is answered: its caller may say something else (`outbox`).
Rule 3: what is refused is declared by the next event on its topic. What was given up is not: its incarnation ends with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from dsmt.bus.rules.emitting import Underway
from dsmt.bus.rules.outbox import Outbox
from dsmt.bus.rules.signer import EventSigner, PendingEvent, put_right, restate
from dsmt.errors import DsmtError, FailedError
from dsmt.event.envelope import EventId, EventRange
from dsmt.ports.bus import Ack
from dsmt.trust.identity import Identity

Said = TypeVar("Said", bound=Underway)


class Unanswered(Generic[Said]):
    """That of one source. `now_ms` gives realm time."""

    def __init__(self, identity: Identity, version: str, now_ms: Callable[[], int]) -> None:
        self.signer, self.outbox = EventSigner(identity.name, identity.key, version), Outbox()
        self.on_time_known: list[Callable[[int], None]] = []
        self._now_ms = now_ms
        self._emissions: dict[EventId, Said] = {}
        self._waiting: list[Said] = []

    # --- saying --------------------------------------------------------------------------------------------------

    def say(self, emission: Said) -> None:
        """Number it, to be signed with the next `sign`. Raises `InputError` over 64 KiB: then nothing is declared by it."""
        pending = emission.pending
        self.signer.say(pending, self._now_ms(), declares=self.outbox.undeclared(pending.topic))
        self.outbox.declared(pending.topic)
        if pending.id is None:
            self._waiting.append(emission)
        else:
            self._emissions[pending.id] = emission

    def put_right(self, by_ms: int) -> bool:
        """Realm time is later by so much than was guessed, and nobody has heard anything yet; whether that matters (J4)."""
        matters = put_right((one.pending for one in (*self._emissions.values(), *self._waiting)), by_ms)
        for call in self.on_time_known if matters else ():
            call(by_ms)
        return matters

    def begin(self, incarnation: int, *, previous: tuple[int, int | None] | None) -> None:
        """Start an incarnation (rule 1); `previous` as in `EventSigner.begin`."""
        unsaid = self.signer.begin(incarnation, self._now_ms(), previous=previous)
        waiting, self._waiting = self._waiting, []
        self._emissions.update((one.id, one) for one in waiting if one.id is not None)
        for one in waiting:
            if one.pending in unsaid:
                one.settle(None, unsaid[one.pending])

    def begin_anew(self, incarnation: int, *, previous: tuple[int, int | None] | None) -> None:
        """Start another incarnation, in which everything unanswered is said again."""
        again, fresh = list(self._emissions.values()), dict[PendingEvent, PendingEvent]()
        self._emissions.clear()
        self.outbox.clear()
        self.signer.sign()
        self.begin(incarnation, previous=previous)
        for emission in again:
            former, emission.pending = emission.pending, restate(emission.pending, fresh)
            fresh[former] = emission.pending
            self.say(emission)

    def begin_backwards(self, incarnation: int, lately: Iterable[Said]) -> None:
        """The same, for realm time went back: what is said from now on may have earlier times than what was (J4).

        What was answered `lately` is said again before it, where nothing is unanswered on its topic.
        """
        chain = self.signer.chain
        assert chain is not None  # noqa: S101 - an incarnation is there, and goes
        self.sign()
        newer = {one.pending.topic for one in self._emissions.values()}
        again = {one.id: one for one in lately if one.id is not None and one.pending.topic not in newer}
        self._emissions = {**again, **self._emissions}
        self.signer.time_went_back()
        self.begin_anew(incarnation, previous=(chain.incarnation, self.outbox.before(chain.incarnation, chain.sequence)))

    def sign(self) -> None:
        """Sign what was said, and keep it (rule 2)."""
        for pending in self.signer.sign():
            if pending.signed is not None:
                for dropped in self.outbox.add(pending.signed, fact=pending.fact, evidence=pending.evidence):
                    error = FailedError("outbox.full", f"{dropped} was dropped: too much is unacknowledged")
                    self._settle(dropped, None, error)

    # --- what becomes of it --------------------------------------------------------------------------------------

    def stored(self, identity: EventId, ack: Ack) -> Said | None:
        """It was stored; who said it has this of it."""
        self.outbox.settled(identity)
        return self._settle(identity, ack, None)

    def acknowledged(self, stored: EventRange, ack: Ack) -> None:
        """Events of a range were stored."""
        for identity in self.outbox.acknowledged(stored):
            self._settle(identity, ack, None)

    def refused(self, identity: EventId, error: DsmtError) -> None:
        """Nobody will ever see it (rule 3)."""
        self.outbox.refused(identity)
        self._settle(identity, None, error)

    def given_up(self, identity: EventId, error: DsmtError) -> None:
        """Nobody knows whether it was stored (rule 3)."""
        self.outbox.settled(identity)
        self._settle(identity, None, error)

    def _settle(self, identity: EventId, ack: Ack | None, error: DsmtError | None) -> Said | None:
        emission = self._emissions.pop(identity, None)
        if emission is not None:
            emission.settle(ack, error)
        return emission
