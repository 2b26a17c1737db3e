"""The publisher: a client's saying half: numbers, signs, keeps until acknowledged, sends in order, says again.

Rule 1: the first thing that is said in a turn of the loop is signed and sent at once, all others as one burst after it.
Rule 2: an event that is refused for good is declared by the next one on its topic; one refused for its time or its number
    begins a new incarnation, in which everything unacknowledged is said again (A11, J4).
Rule 3: a fact that is refused as `stale` is no fault: another one was first, and who said it decides anew (A3).
Rule 4: at the loss of a link the shared facts that are not acknowledged are given up: resent blindly, an old decision would
    win as the earlier sibling. They leave holes in their incarnation, so another one begins, whose `started` says up to
    where the one before is whole (B3); it is sent before what else of that is sent again, unchanged. So does one where
    something was refused behind all that is stored: another broker, or this one begun anew, would miss that number.
Rule 5: re-offered facts go with the certificates of those who signed them, a few at a time, and wait for no acknowledgement;
    each waits once, and those that a lost link leaves are dropped: who offers does so again at the next one (R5).
    Those for which the broker's clock is behind are kept, and offered again (`early`); with their certificates, for a
    broker forgets those of whom it has nothing (`passed`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Final

from dsmt.bus.client.emission import ClientEmission
from dsmt.bus.client.send_queue import SendQueue
from dsmt.bus.rules.early import CODES, PROBE_S, Early
from dsmt.bus.rules.unanswered import Unanswered
from dsmt.bus.wire import frames as f
from dsmt.errors import FailedError, RefusedError, TransportError
from dsmt.event.burst import in_portions, parts_of
from dsmt.event.chain import SourceChain
from dsmt.event.envelope import EventId, EventRange, SignedEvent
from dsmt.event.hlc import BOUND_MS
from dsmt.ports.bus import Ack, Cursor, Level
from dsmt.trust.identity import Identity
from dsmt.trust.revocations import revoked_by
from dsmt.trust.store import TrustStore

PUBLISH_EVENTS: Final = 256
PUBLISH_BYTES: Final = 256 * 1024
MISSING: Final = 64
"""How many ranges one answer names; the broker gives up the others by itself."""
OFFERS: Final = 512
OFFER_BYTES: Final = 256 * 1024
"""How many re-offered events, and bytes, are on their way: with the outbox's window, less than a broker takes."""


class Publisher:
    """What one source says. `now_ms` gives realm time; `began` is told each incarnation before anything is signed in it."""

    def __init__(
        self,
        identity: Identity,
        trust: TrustStore,
        version: str,
        *,
        now_ms: Callable[[], int],
        began: Callable[[int], object],
        previous: int | None,
    ) -> None:
        self.said = Unanswered[ClientEmission](identity, version, now_ms)
        self.signer = self.said.signer
        self._own, self._trust, self._now_ms, self._began = [one.raw for one in identity.chain], trust, now_ms, began
        self._previous: tuple[int, int | None] | None = None if previous is None else (previous, None)
        self._offers: dict[EventId, SignedEvent] = {}
        self._offered: dict[EventId, SignedEvent] = {}
        """Re-offers that the broker has not answered."""
        self._early = Early()
        self._probe_at = 0.0
        self._stored = self._refused = (0, 0)
        """The greatest (incarnation, sequence) that a broker has stored, and that one has refused."""
        self._queue: SendQueue | None = None
        self._introduced: set[bytes] = set()
        """The certificates that the broker of this attachment has had from us."""
        self._flushing = False

    # --- saying --------------------------------------------------------------------------------------------------

    def say(self, emission: ClientEmission) -> None:
        """Say something as soon as that can be. Raises `InputError` over 64 KiB."""
        self.said.say(emission)
        self.flush_soon()

    def offer(self, signed: Sequence[SignedEvent]) -> None:
        """Re-offer signed facts of anybody (rule 5)."""
        self._offers.update((one.id, one) for one in signed)
        self.flush_soon()

    @property
    def early_s(self) -> float:
        """How far a re-offered event is ahead of the broker's realm time, so that the broker refuses it; 0 when none is."""
        return self._early.ahead_s

    @property
    def offers(self) -> bool:
        """Whether the broker has not answered for all that was re-offered."""
        return bool(self._offers or self._offered or self._early.ahead_s)

    def probe(self, now: float) -> None:
        """Offer now and then the earliest of what the broker refuses for its time. `now` is boot-time seconds."""
        if now >= self._probe_at:
            self._probe_at = now + PROBE_S
            first = self._early.earliest()
            if first is not None and first.id not in self._offered:
                self.offer([first])

    def begin(self, incarnation: int, *, unheard: bool = False) -> None:
        """Start an incarnation; what is not acknowledged is said again under it.

        `unheard`: nobody has heard anything of the one before, so it was none.
        """
        chain = self.signer.chain
        if chain is not None and not unheard:
            self.said.sign()
            self._previous = self._whole(chain)
        self.said.begin_anew(incarnation, previous=self._previous)
        self._began(incarnation)

    def _ends_refused(self, chain: SourceChain) -> bool:
        """Whether something of an incarnation was refused behind all that is stored: to a store that is lost."""
        return self._refused > max(self._stored, (chain.incarnation, 0))

    def _whole(self, chain: SourceChain) -> tuple[int, int]:
        """An incarnation, and up to where all of it was answered and may be in a store."""
        before = self.said.outbox.before(chain.incarnation, chain.sequence)
        last = self._stored[1] if self._stored[0] == chain.incarnation else 0
        return chain.incarnation, min(before, last) if self._ends_refused(chain) else before

    def _give_up(self) -> None:
        """A link is lost: nobody knows whether shared facts that are not acknowledged were stored (rule 4)."""
        self.flush()
        outbox, chain = self.said.outbox, self.signer.chain
        lost = outbox.unanswered()
        if chain is None or not (lost or self._ends_refused(chain)):
            return
        self._previous = self._whole(chain)
        for identity in lost:
            why = f"the link was lost before {identity} was acknowledged: it may be stored or not"
            self.said.given_up(identity, FailedError("unanswered", why, next="see what it says now, and try again"))
        incarnation = max(chain.incarnation + 1, self._now_ms())
        outbox.declare_from(incarnation)
        self.said.begin(incarnation, previous=self._previous)
        self._began(incarnation)
        self.flush()
        outbox.goes_first(incarnation)

    def outlive(self, ended_ms: int) -> bool:
        """Speak later than another key of our name, which has ended then; whether this incarnation is older (J3)."""
        older = self.signer.incarnation <= ended_ms
        if older:
            self.begin_next(after=min(ended_ms, self._now_ms() + BOUND_MS - 1))
        return older

    def begin_next(self, *, after: int = 0, backwards: bool = False) -> None:
        """Begin an incarnation that is later than the present one, and `after`; `backwards` as in `restart`.

        Everything unacknowledged is said again in it. Raises `TransportError` where no broker would take it, which has not
        granted it.
        """
        now_ms = self._now_ms()
        incarnation = max(self.signer.incarnation + 1, after + 1, now_ms)
        if incarnation > now_ms + BOUND_MS:
            raise TransportError("link.time", "realm time went back", next="it attaches anew")
        self.restart(incarnation, backwards=backwards)

    def restart(self, incarnation: int, *, backwards: bool, unheard: bool = False) -> None:
        """Start anew because the broker said so; `backwards`: the clock had run ahead (A2)."""
        if backwards:
            self.signer.time_went_back()
        self.begin(incarnation, unheard=unheard)
        self.flush()

    # --- sending -------------------------------------------------------------------------------------------------

    def attached(self, queue: SendQueue | None) -> None:
        """There is a new attachment, over which everything unacknowledged is sent again; None: it is lost."""
        lost, self._queue = self._queue, queue
        self._introduced = {*self._own}
        if queue is None:
            self._offers.clear()
            self._offered.clear()
            self._early.clear()
        if lost is not None and queue is None:
            self._give_up()
        self.said.outbox.again()

    def flush_soon(self) -> None:
        """Sign and send now, or at the end of this turn of the loop (rule 1)."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush_burst)
            self.flush()

    def _flush_burst(self) -> None:
        self._flushing = False
        self.flush()

    def flush(self) -> None:
        """Sign what was said, and send what is due."""
        self.said.sign()
        with suppress(TransportError):
            self._send_due()

    def _send_due(self) -> None:
        if self._queue is None or not self._queue.clear:
            return
        offers = self._due_offers()
        if offers:
            self._introduce(self._queue, offers)
            self._post(self._queue, f.Publish(offered=True), offers)
        self._post(self._queue, f.Publish(), self.said.outbox.due())

    @staticmethod
    def _post(queue: SendQueue, frame: f.Publish, due: Iterable[SignedEvent]) -> None:
        """Post events in frames of bounded size."""
        for portion in in_portions(due, PUBLISH_EVENTS, PUBLISH_BYTES):
            queue.post(frame, *parts_of(one.sealed for one in portion))

    def _due_offers(self) -> list[SignedEvent]:
        """Re-offers that may be sent now: those on their way were not answered yet (rule D2)."""
        found: list[SignedEvent] = []
        left = OFFER_BYTES - sum(signed.size for signed in self._offered.values())
        while self._offers and len(self._offered) < OFFERS and left > 0:
            signed = self._offers.pop(next(iter(self._offers)))
            self._offered[signed.id] = signed
            left -= signed.size
            found.append(signed)
        return found

    def _taken(self, stored: EventRange) -> None:
        """A broker has taken what was re-offered."""
        for identity in [one for one in self._offered if stored.holds(one)]:
            del self._offered[identity]
            self._early.answered(identity)

    def not_taken(self, identity: EventId, code: str, realm_ms: int) -> None:
        """A broker has refused something: if it was re-offered, and is early, it waits."""
        signed = self._offered.pop(identity, None)
        if signed is not None and code in CODES:
            self._early.wait(signed)
            self._introduced.difference_update(self._trust.proof(signed.key_id, signed.event.source))
        elif signed is not None:
            self._early.answered(identity)
        self._offer_due(realm_ms)

    def _offer_due(self, realm_ms: int) -> None:
        self._offers.update((one.id, one) for one in self._early.due(realm_ms))

    def _introduce(self, queue: SendQueue, signed: Sequence[SignedEvent]) -> None:
        """Bring the certificates of those whose words are re-offered: the broker may be new and know nobody.

        Of a revocation also those of the key that it ends: who may end it depends on them.
        """
        ended = {key_id for one in signed if (key_id := revoked_by(one.event.topic)) is not None}
        signers = {(one.key_id, one.event.source) for one in signed}
        signers |= {(key_id, name) for key_id in ended for name in self._trust.names(key_id)}
        proofs = dict.fromkeys(raw for signer in sorted(signers) for raw in self._trust.proof(*signer))
        known = [raw for raw in proofs if raw not in self._introduced]
        self._introduced.update(known)
        for start in range(0, len(known), f.MAX_CERTIFICATES):
            queue.post(f.Certificates(), *known[start : start + f.MAX_CERTIFICATES])

    # --- what becomes of it --------------------------------------------------------------------------------------

    def acked(self, frame: f.Acked) -> None:
        """A broker has stored these. Raises `TransportError` when the link is lost under what is sent next."""
        ack = Ack(Level(frame.level), frame.copies, frame.synced, Cursor(frame.store, frame.row, frame.time_ms))
        for stored in (EventRange(*one) for one in frame.ranges):
            if self._offered:
                self._taken(stored)
            if stored.source == self.signer.name:
                self._stored = max(self._stored, (stored.incarnation, stored.last))
            self.said.acknowledged(stored, ack)
        self._offer_due(frame.time_ms)
        self._send_due()

    def missing(self, incarnation: int, ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """A broker misses these sequences: what is kept is sent again; the ranges that are not."""
        gone: list[tuple[int, int]] = []
        for first, last in ranges:
            held = self.said.outbox.resend(EventRange(self.signer.name, incarnation, first, last))
            ends = [first - 1, *held, last + 1]
            gone += [(low + 1, high - 1) for low, high in pairwise(ends) if high > low + 1]
        self._send_due()
        return tuple(gone[:MISSING])

    def refused(self, identity: EventId, error: RefusedError) -> None:
        """A broker will never store this one (rule 2)."""
        self._refused = max(self._refused, identity[1:])
        self.said.refused(identity, error)
        self._send_due()
