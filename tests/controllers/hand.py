"""A controller's run loop in the test's hand: what it is given, what it says, and when."""

import asyncio

from dsmt.controllers.loop.runner import ControllerRunner
from dsmt.errors import DsmtError, FailedError, InputError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.ports.bus import Arrived, Bookmark, Cursor, Draft
from dsmt.trust.store import Realm as TrustedRealm
from dsmt.trust.store import TrustStore

from .build import Realm, web
from .signing import START_MS

NOBODY_ENDED = TrustStore(TrustedRealm(name="test", roots=(bytes(32),)))
"""Nobody's key has ended."""


def never(sentence: str) -> None:
    raise AssertionError(sentence)


class HandClock:
    def __init__(self) -> None:
        self.now = 100.0

    def boottime(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return 0


class HandEmission:
    def __init__(self, name: EventId, error: DsmtError | None = None, answer: asyncio.Event | None = None) -> None:
        self.id, self.signed, self.error, self.answer = name, None, error, answer

    async def acknowledged(self) -> None:
        if self.answer is not None:
            await self.answer.wait()
        if self.error is not None:
            raise self.error


class HandBus:
    """Keeps what is emitted. On the topics of `too_big` nothing is, on those of `dropped` nothing is acknowledged.

    All else is acknowledged at `answer`.
    """

    source, broker, attached, incarnation = "controller/c1", "b1", True, 1
    early_s = 0.0

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        self.said: list[Draft] = []
        self.offered: list[SignedEvent] = []
        self.too_big: set[str] = set()
        self.dropped: set[str] = set()
        self.answer: asyncio.Event | None = None

    def now_ms(self) -> int:
        return START_MS + int(self._clock.now * 1000)

    def flush(self) -> None:
        pass

    def offer(self, signed: list[SignedEvent]) -> None:
        self.offered += signed

    async def fetch(self, _ids: list[EventId]) -> list[SignedEvent]:
        return []

    def emit(self, draft: Draft) -> HandEmission:
        if draft.topic in self.too_big:
            raise InputError("event.too_big", f"event on {draft.topic} is too big")
        self.said.append(draft)
        dropped = FailedError("outbox.full", "it was dropped") if draft.topic in self.dropped else None
        return HandEmission(EventId(self.source, self.incarnation, len(self.said)), dropped, self.answer)


class HandSubscription:
    """Keeps the newest token."""

    def __init__(self) -> None:
        self.token: int | None = None

    def mark(self, token: int) -> None:
        self.token = token


class Hand:
    """A runner whose deliveries and time a test gives."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.bus = HandBus(self.clock)
        self.heard: list[str] = []
        told = self.heard.append
        self.runner = ControllerRunner(  # type: ignore[arg-type]
            self.bus, self.clock, NOBODY_ENDED, version="0.1", pid=None, complain=told
        )
        self.subscription = self.runner._subscription = HandSubscription()  # type: ignore[assignment]
        self._row = 0

    def give(self, *events: SignedEvent) -> None:
        for event in events:
            self._row += 1
            self.runner._fold([Arrived(event, self._row, live=True)])

    def slots(self, seconds: float = 0.0) -> list[str]:
        """Time passes with bookmarks, and a turn at its end; the slots that were said then."""
        before = len(self.bus.said)
        for _ in range(max(1, round(seconds / 0.25))):
            self.clock.now += 0.25 if seconds else 0.0
            self.runner._gate.beat(self.clock.now)
        self.turn()
        self.bookmark()
        self.turn()
        return [draft.topic for draft in self.bus.said[before:] if "/slot/" in draft.topic]

    def bookmark(self) -> None:
        """The broker answers: everything up to here."""
        cursor = Cursor("s1", self._row, self.bus.now_ms())
        self.runner._fold([Bookmark(cursor, whole=True, token=self.subscription.token)])

    def turn(self) -> list[str]:
        """One turn of the loop; the topics on which something was said."""
        before = len(self.bus.said)

        async def turn() -> None:
            async with asyncio.TaskGroup() as self.runner._group:
                self.runner._turn()

        asyncio.run(turn())
        return [draft.topic for draft in self.bus.said[before:]]


def applied(instances: int = 2) -> Hand:
    hand, realm = Hand(), Realm("n1", "n2")
    realm.apply(web(instances))
    hand.give(*(event for _, event in realm.rows))
    return hand


SLOTS = ["service/web/slot/app/0", "service/web/slot/app/1"]
