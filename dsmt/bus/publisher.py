"""The publisher: a client's saying half: numbers, signs, keeps until acknowledged, sends in order, says again.

Rule 1: the first thing that is said in a turn of the loop is signed and sent at once, all others as one burst after it.
Rule 2: an event that is refused for good is declared by the next one on its topic; one refused for its time or its number
    begins a new incarnation, in which everything unacknowledged is said again (A11, J4).
Rule 3: re-offered events of others go with the certificates of those who signed them, and wait for no acknowledgement.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from dsmt.bus import frames as f
from dsmt.bus.emission import ClientEmission
from dsmt.bus.outbox import Outbox
from dsmt.bus.speaker import Speaker, restate
from dsmt.bus.uplink import Uplink
from dsmt.errors import DsmtError, FailedError, RefusedError, TransportError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.ports.bus import Ack, Cursor, Level
from dsmt.trust.identity import Identity
from dsmt.trust.store import TrustStore

PUBLISH_EVENTS: Final = 64
PUBLISH_BYTES: Final = 256 * 1024
OFFERS: Final = 512
"""How many re-offered events are sent in one turn."""


class Publisher:
    """What one source says. `now_ms` gives realm time; `began` is told each incarnation before anything is signed in it."""

    def __init__(
        self,
        identity: Identity,
        trust: TrustStore,
        version: str,
        *,
        now_ms: Callable[[], int],
        began: Callable[[int], None],
        previous: int | None,
    ) -> None:
        self.speaker = Speaker(identity.name, identity.key, version)
        self.outbox = Outbox()
        self._own_key, self._trust, self._now_ms, self._began = identity.key.key_id, trust, now_ms, began
        self._previous: tuple[int, int | None] | None = None if previous is None else (previous, None)
        self._emissions: dict[EventId, ClientEmission] = {}
        self._waiting: list[ClientEmission] = []
        self._offers: deque[SignedEvent] = deque()
        self._uplink: Uplink | None = None
        self._introduced: set[bytes] = set()
        """Key ids whose certificates the broker of this attachment has had from us."""
        self._flushing = False

    # --- saying --------------------------------------------------------------------------------------------------

    def say(self, emission: ClientEmission) -> None:
        """Say something as soon as that can be. Raises `InputError` over 64 KiB."""
        saying = emission.saying
        if not self.speaker.say(saying, self._now_ms(), declares=self.outbox.declare(saying.topic)):
            self._waiting.append(emission)
        elif saying.id is not None:
            self._emissions[saying.id] = emission
        self.flush_soon()

    def offer(self, signed: Sequence[SignedEvent]) -> None:
        """Re-offer signed facts of anybody (rule 3)."""
        self._offers.extend(signed)
        self.flush_soon()

    def begin(self, incarnation: int, *, unheard: bool = False) -> None:
        """Start an incarnation; what is not acknowledged is said again under it.

        `unheard`: nobody has heard anything of the one before, so it was none.
        """
        again = list(self._emissions.values())
        self._emissions.clear()
        self.outbox = Outbox()
        self.speaker.sign()
        if self.speaker.chain is not None and not unheard:
            self._previous = (self.speaker.incarnation, self.speaker.chain.sequence)
        self.speaker.begin(incarnation, self._now_ms(), previous=self._previous)
        self._began(incarnation)
        waiting, self._waiting = self._waiting, []
        for emission in waiting:
            if emission.saying.id is not None:
                self._emissions[emission.saying.id] = emission
        for emission in again:
            emission.saying = restate(emission.saying)
            if self.speaker.say(emission.saying, self._now_ms()) and emission.saying.id is not None:
                self._emissions[emission.saying.id] = emission

    def restart(self, incarnation: int, *, backwards: bool, unheard: bool = False) -> None:
        """Start anew because the broker said so; `backwards`: the clock had run ahead (A2)."""
        if backwards:
            self.speaker.clock.last = 0
        self.begin(incarnation, unheard=unheard)
        self.flush()

    # --- sending -------------------------------------------------------------------------------------------------

    def attached(self, uplink: Uplink | None) -> None:
        """There is a new attachment, over which everything unacknowledged is sent again; None: it is lost."""
        self._uplink = uplink
        self._introduced = {self._own_key}
        self.outbox.again()

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
        for saying in self.speaker.sign():
            if saying.signed is not None:
                for dropped in self.outbox.add(saying.signed, fact=saying.fact, evidence=saying.evidence):
                    error = FailedError("outbox.full", f"{dropped} was dropped: too much is unacknowledged")
                    self._settle(dropped, None, error)
        with suppress(TransportError):
            self._send_due()

    def _send_due(self) -> None:
        if self._uplink is None or not self._uplink.clear:
            return
        due = [self._offers.popleft() for _ in range(min(OFFERS, len(self._offers)))]
        if due:
            self._introduce(self._uplink, due)
            self.flush_soon()
        due.extend(self.outbox.due())
        parts: list[bytes] = []
        size = 0
        for signed in due:
            if len(parts) >= PUBLISH_EVENTS or size >= PUBLISH_BYTES:
                self._uplink.post(f.Publish(), *parts)
                parts, size = [], 0
            parts.append(signed.raw)
            size += len(signed.raw)
        if parts:
            self._uplink.post(f.Publish(), *parts)

    def _introduce(self, uplink: Uplink, signed: Sequence[SignedEvent]) -> None:
        """Bring the certificates of those whose words are re-offered: the broker may be new and know nobody."""
        strangers = {one.key_id for one in signed} - self._introduced
        self._introduced |= strangers
        raws = dict.fromkeys(one.raw for key_id in sorted(strangers) for one in reversed(self._trust.chain(key_id)))
        known = list(raws)
        for start in range(0, len(known), f.MAX_CERTIFICATES):
            uplink.post(f.Certificates(), *known[start : start + f.MAX_CERTIFICATES])

    # --- what becomes of it --------------------------------------------------------------------------------------

    def acked(self, frame: f.Acked) -> None:
        """A broker has stored these. Raises `TransportError` when the link is lost under what is sent next."""
        ack = Ack(Level(frame.level), frame.copies, frame.synced, Cursor(frame.store, frame.row, frame.time_ms))
        for source, incarnation, first, last in frame.ranges:
            for identity in self.outbox.waiting(source, incarnation, first, last):
                self.outbox.settled(identity)
                self._settle(identity, ack, None)
        self._send_due()

    def refused(self, identity: EventId, error: RefusedError) -> None:
        """A broker will never store this one (rule 2)."""
        self.outbox.refused(identity)
        self._settle(identity, None, error)
        self._send_due()

    def _settle(self, identity: EventId, ack: Ack | None, error: DsmtError | None) -> None:
        emission = self._emissions.pop(identity, None)
        if emission is not None:
            emission.settle(ack, error)
