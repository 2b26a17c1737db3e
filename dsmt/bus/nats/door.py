"""The door that NATS does not have: what a source says is judged by itself, from the stream, before it is published.

Rule 1: it is judged as a broker judges it (`validator`, `authority`), against the facts that streams F and H hold of the
    topic and the tombstone of its thing, which are at least as new as what was acknowledged before. What a key has said
    there that is revoked stands for who names it as replaced, and so has believed it: that one says it again (J3). So does
    what a later word of that key has taken the place of: of that the number is enough.
Rule 2: a shared fact is published on the condition that nobody has said anything on its topic since that look. So of two
    who replace one fact the first is stored and the other one is not, as at a broker (A3); the server compares. By an
    earlier look nobody is refused: somebody else may have said since what is to be replaced.
Rule 3: who may not have all facts that it likes (`DEFAULT_QUOTA`) knows how many of its own are retained, and refuses
    itself one more than its certificate allows (D2); each copy for an addressee is one. What takes the place of another
    always may.
Rule 4: who cheats here is not kept from publishing, but from being believed (`opener`), and by the server's
    permissions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from msgspec.structs import replace

from dsmt.bus.nats.link import ANSWER_S, NatsLink
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.nats.streams import StreamMessage, last_of_each, last_on
from dsmt.bus.rules.authority import check_runs
from dsmt.bus.rules.quota import over_own
from dsmt.bus.rules.validator import NOWHERE, EventValidator, Standing, standing
from dsmt.errors import TransportError, UnusableEventError
from dsmt.event.codec import decode
from dsmt.event.envelope import TOMBSTONE, Event, EventId, SignedEvent, thing_of
from dsmt.event.fold import Fold
from dsmt.event.order import newer
from dsmt.event.registry import Match
from dsmt.trust.grants import DEFAULT_QUOTA
from dsmt.trust.store import TrustStore

FRESH_S: Final = 0.5
"""How long a look at a slot is good for."""
_REMEMBERED: Final = 4096
_LOOK_AGAIN_S: Final = 0.002


@dataclass(slots=True)
class _Look:
    """The facts of one topic and of its thing's tombstone, and the last row of each."""

    fold: Fold
    last: int
    ended: int
    at: float
    rows: dict[EventId, int] = field(default_factory=dict)
    disowned: dict[EventId, SignedEvent] = field(default_factory=dict)
    """What revoked keys have said on the topic."""


class PublishTerms(NamedTuple):
    """What may be published: on the condition that this is the last row on its topic; or where it is stored already."""

    expected: int | None = None
    stored: int | None = None


class NatsDoor:
    """Judges what one source says. `now` is boot-time seconds."""

    def __init__(self, trust: TrustStore, opener: NatsOpener, now: Callable[[], float]) -> None:
        self._trust, self._subjects, self._opener, self._now = trust, opener.subjects, opener, now
        self._validator = EventValidator(trust)
        self._looks: dict[str, _Look] = {}
        self._counting = asyncio.Lock()
        self._own: set[str] | None = None
        """The subjects of all facts of its own, and of their copies, that are retained, or on their way (rule 3)."""

    async def judge(self, link: NatsLink, raw: bytes, now_ms: int) -> PublishTerms:
        """Whether an event may be published. Raises `UnusableEventError` that says why not, `TransportError`."""
        signed = self._trust.open(raw)
        event = signed.event
        match, fact = self._validator.check(signed, session=event.source, granted=event.incarnation, now_ms=now_ms)
        verdict = await self._judged(link, signed, match, now_ms, fact=fact)
        if fact and verdict.stored is None:
            await self._count(link, signed)
        return verdict

    async def _judged(self, link: NatsLink, signed: SignedEvent, match: Match, now_ms: int, *, fact: bool) -> PublishTerms:
        event = signed.event
        if event.topic.startswith("app/"):
            _, _, service, component, index = event.source.split("/")
            slot = await self._recent(link, f"service/{service}/slot/{component}/{index}")
            check_runs(event, slot.fold.get)
        if not fact or event.version is None:
            self._validator.admit(signed, match, fact=fact, at=NOWHERE, own=True, now_ms=now_ms)
            return PublishTerms()
        known = self._looks.get(event.topic)
        look = await self._look(link, event.topic)
        try:
            return self._compared(signed, match, look, now_ms)
        except UnusableEventError:
            if look is not known:
                raise
        return self._compared(signed, match, await self._read(link, event.topic), now_ms)

    async def _count(self, link: NatsLink, signed: SignedEvent) -> None:
        """Count a fact that is to be retained (rule 3). Raises `UnusableEventError` for one too many."""
        source, holder = signed.event.source, self._trust.certificate(signed.key_id, signed.event.source)
        if holder is None or holder.certificate.quota >= DEFAULT_QUOTA:
            return
        async with self._counting:
            if self._own is None:
                facts, _ = self._subjects.of(source)
                self._own = set[str]()
                for one in await last_of_each(link, self._subjects.facts, [facts]):
                    with suppress(UnusableEventError):  # it is none of its words
                        self._own |= self._retained((await self._opener.open(link, one)).event)
        more = self._retained(signed.event) - self._own
        why = over_own(holder.certificate, len(self._own), len(more)) if more else ""
        if why:
            raise UnusableEventError("quota", why, next="end facts that are not needed any more")
        self._own |= more

    def _retained(self, event: Event) -> set[str]:
        """The subjects on which a fact and its copies are retained."""
        copies = (self._subjects.copy(event.source, one, event.topic, fact=True) for one in event.to)
        return {self._subjects.event(event.source, event.topic, fact=True), *copies}

    def _compared(self, signed: SignedEvent, match: Match, look: _Look, now_ms: int) -> PublishTerms:
        if signed.id in look.rows:
            return PublishTerms(stored=look.rows[signed.id])
        self._validator.admit(signed, match, fact=True, at=_standing(signed.event, look), own=True, now_ms=now_ms)
        return PublishTerms(expected=look.last)

    def check_offer(self, signed: SignedEvent, *, publisher: str, now_ms: int) -> None:
        """Whether somebody's fact may be re-offered. Raises `UnusableEventError`."""
        self._validator.check(signed, session=publisher, now_ms=now_ms)

    def stored(self, signed: SignedEvent, row: int) -> None:
        """What was judged stands in the stream now."""
        look = self._looks.get(signed.event.topic)
        if look is not None and signed.event.version is not None:
            look.fold.take(signed)
            look.rows = {signed.id: row}
            look.last, look.at = row, self._now()

    def forget(self, topic: str) -> None:
        """Somebody else has said something there."""
        self._looks.pop(topic, None)

    async def _look(self, link: NatsLink, topic: str) -> _Look:
        """What is known of the topic, which the server compares anyway, and of its tombstone as it stands now."""
        look, tombstone = self._looks.get(topic), TOMBSTONE + thing_of(topic)
        if look is not None and not topic.startswith(TOMBSTONE):
            last = await last_on(link, self._subjects.history, self._subjects.on(tombstone))
            if last is not None and last.row != look.ended:
                look = None
        return look or await self._read(link, topic)

    async def _recent(self, link: NatsLink, topic: str) -> _Look:
        look = self._looks.get(topic)
        return look if look is not None and self._now() - look.at <= FRESH_S else await self._read(link, topic)

    async def _read(self, link: NatsLink, topic: str) -> _Look:
        """Raises `TransportError`."""
        at, names, history = self._now(), (topic, TOMBSTONE + thing_of(topic)), self._subjects.history
        filters = [one(name) for one in (self._subjects.on, self._subjects.offered_on) for name in names]
        newest = await asyncio.gather(*(last_on(link, history, one) for one in filters))
        last, ended = (0 if one is None else one.row for one in newest[: len(names)])
        filters = list(dict.fromkeys(filters))
        found = retained = await last_of_each(link, self._subjects.facts, filters)
        while not all(_holds(found, one) for one in newest):  # stream F is behind, or the server that was asked
            if self._now() > at + ANSWER_S:
                raise TransportError("nats.behind", f"the last of {topic} does not come")
            found = [*retained, *await last_of_each(link, history, filters)]
            await asyncio.sleep(_LOOK_AGAIN_S)
        look = _Look(Fold(), last, ended, at)
        for stored in found:
            try:
                signed = await self._opener.open(link, stored)
            except UnusableEventError as error:
                if error.code == "trust.revoked":
                    disowned = decode(stored.raw)
                    if disowned.event.topic == topic:
                        look.disowned[disowned.id] = disowned
                continue
            look.fold.take(signed)
            if signed.event.topic == topic:
                look.rows[signed.id] = stored.row
        if len(self._looks) >= _REMEMBERED:
            self._looks.clear()
        self._looks[topic] = look  # whole: by a part of what is held a late decision would be the first
        return look


def _holds(found: list[StreamMessage], newest: StreamMessage | None) -> bool:
    """Whether a subject's last message, or what came after it, is among those found."""
    return newest is None or any(one.subject == newest.subject and one.row >= newest.row for one in found)


def _standing(event: Event, look: _Look) -> Standing:
    fold, held = look.fold, look.fold.get(event.topic)
    named = None if event.replaces is None else look.disowned.get(event.replaces)
    if named is not None and (held is None or newer(named.event, held.event)):
        held = named
    elif named is None:
        held = _displaced(event, look, held) or held
    return standing(event, held, lambda: fold.ended(thing_of(event.topic)))


def _displaced(event: Event, look: _Look, held: SignedEvent | None) -> SignedEvent | None:
    """What an event replaces, as far as is known where a later word of its source has its place: whoever has the key."""
    was, number = event.replaces, (event.epoch or 0, (event.version or 0) - 1)
    if was is None or (held is not None and (held.event.epoch or 0, held.event.version or 0) >= number):
        return None
    last = next((one for one in look.disowned.values() if one.event.source == was.source), None)
    if last is None:
        return None
    numbers = {"incarnation": was.incarnation, "sequence": was.sequence, "epoch": number[0], "version": number[1]}
    return replace(last, event=replace(last.event, **numbers))
