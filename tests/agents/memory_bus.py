"""A bus in memory, and the clock that it goes by."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from dsmt.errors import TransportError
from dsmt.event.codec import seal
from dsmt.event.envelope import NO_LEAF, ChainLink, Event, EventId, SignedEvent, thing_of
from dsmt.event.order import is_over, newer
from dsmt.event.registry import is_fact, lookup
from dsmt.event.topic import matches
from dsmt.ports.bus import Ack, Arrived, Complete, Cursor, Draft, Interest, Level, Start
from dsmt.trust.keys import SecretKey

EPOCH_MS = 1_700_000_000_000
BOOTED = 500.0
KEY = SecretKey(bytes(32))


class Clock:
    def boottime(self) -> float:
        return asyncio.get_running_loop().time() + BOOTED

    def wall_ms(self) -> int:
        return EPOCH_MS + int(asyncio.get_running_loop().time() * 1000)


class Emission:
    def __init__(self, signed: SignedEvent, realm: "Realm") -> None:
        self.signed = signed
        self.id = signed.id
        self._realm = realm

    async def acknowledged(self) -> Ack:
        await self._realm.up.wait()
        return Ack(Level.STORED, 1, False, Cursor("s", 1, 0))


class Realm:
    """One broker that never forgets, and may be away."""

    def __init__(self) -> None:
        self.facts: dict[str, SignedEvent] = {}
        self.void: list[SignedEvent] = []
        self.log: list[SignedEvent] = []
        self.readers: list[tuple[Interest, str, asyncio.Queue[Any]]] = []
        self.whole = True
        self.up = asyncio.Event()
        self.up.set()
        self.fetched = 0
        self.changed = asyncio.Event()

    def publish(self, signed: SignedEvent) -> None:
        self.log.append(signed)
        event = signed.event
        if is_fact(event):
            held = self.facts.get(event.topic)
            if held is not None and not held.event.is_dead(event.time_ms) and not newer(event, held.event):
                return
            self.facts[event.topic] = signed
            of = {topic: fact.event for topic, fact in self.facts.items() if thing_of(topic) == event.ends}
            for topic in [topic for topic, fact in of.items() if is_over(fact, event.epoch)]:
                del self.facts[topic]
        for interest, source, queue in self.readers:
            if wants(interest, source, event):
                queue.put_nowait([Arrived(signed, len(self.log), live=True)])
        self.changed.set()

    def tell(self, delivery: Any) -> None:
        """Deliver this to all who read."""
        for *_, queue in self.readers:
            queue.put_nowait([delivery])

    def told(self, topic: str) -> list[Any]:
        """The data of all events on a topic."""
        return [signed.event.data for signed in self.log if signed.event.topic == topic]

    def states(self, topic: str) -> list[str]:
        return [data["state"] for data in self.told(topic)]

    async def until(self, true: Callable[[], Any], within: float = 600.0) -> Any:
        """Wait until something is so; it is looked at after each event, and each virtual 10 ms."""
        async with asyncio.timeout(within):
            while not (found := true()):
                self.changed.clear()
                try:
                    async with asyncio.timeout(0.01):
                        await self.changed.wait()
                except TimeoutError:
                    continue
        return found


def wants(interest: Interest, source: str, event: Event) -> bool:
    return any(matches(pattern, event.topic) for pattern in interest.patterns) or (interest.inbox and source in event.to)


class Bus:
    """One source's connection to the small realm; fulfils the port."""

    incarnations = iter(range(1_000_000, 9_000_000))

    def __init__(self, realm: Realm, source: str) -> None:
        self.realm = realm
        self.source = source
        self.broker = "b1"
        self.attachment = 7
        self.incarnation = next(Bus.incarnations)
        self.sequence = 0
        self.beats = 0
        self.offered: list[SignedEvent] = []
        self.introduced: set[bytes] = set()
        self.calls: list[Callable[[], None]] = []
        self.on_time_known: list[Callable[[int], None]] = []

    @property
    def attached(self) -> bool:
        return self.realm.up.is_set()

    async def wait_attached(self) -> None:
        await self.realm.up.wait()

    def now_ms(self) -> int:
        return Clock().wall_ms()

    def seal(self, draft: Draft) -> SignedEvent:
        self.sequence += 1
        match = lookup(draft.topic)
        assert match is not None, draft.topic
        version = draft.version
        if draft.replaces is not None and version is None:
            version = (draft.replaces.event.version or 0) + 1
        cause = tuple(one if isinstance(one, EventId) else one.id for one in draft.cause)
        assert None not in cause
        if match.row.record is not None:
            msgspec.convert(dict(draft.data), match.row.record, builtin_types=(bytes,))
        event = Event(
            source=self.source,
            incarnation=self.incarnation,
            sequence=self.sequence,
            chain=ChainLink(1, NO_LEAF),
            type=match.row.event_type,
            topic=draft.topic,
            subject=draft.subject,
            time=self.now_ms() << 16 | self.sequence & 0xFFFF,
            data=dict(draft.data),
            cause=cause,
            ttl=match.row.ttl_ms if draft.ttl_ms is None else draft.ttl_ms,
            to=draft.to,
            epoch=None if version is None else draft.epoch or 1,
            version=version,
            replaces=None if draft.replaces is None else draft.replaces.id,
        )
        return seal([event], KEY)[0]

    def emit(self, draft: Draft, *, level: Level | None = None) -> Emission:
        signed = self.seal(draft)
        self.realm.publish(signed)
        return Emission(signed, self.realm)

    async def publish(self, draft: Draft, *, level: Level | None = None) -> Ack:
        return await self.emit(draft).acknowledged()

    def offer(self, signed: list[SignedEvent]) -> None:
        self.offered += signed

    def proof(self, signed: SignedEvent) -> tuple[bytes, ...]:
        return (b"certificate of " + signed.event.source.encode(),)

    def introduce(self, certificates: Sequence[bytes]) -> None:
        self.introduced |= set(certificates)

    @asynccontextmanager
    async def subscribe(self, interest: Interest) -> Any:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        await self.realm.up.wait()
        reader = (interest, self.source, queue)
        history = interest.start is Start.HISTORY
        since = interest.since if isinstance(interest.since, int) else 0
        kept = [s for s in self.realm.log if s.event.time_ms >= since] if history else list(self.realm.facts.values())
        for signed in kept:
            if wants(interest, self.source, signed.event):
                queue.put_nowait([Arrived(signed, 1, live=False)])
        queue.put_nowait([Complete(Cursor("s", len(self.realm.log), 0), whole=self.realm.whole)])
        self.realm.readers.append(reader)

        async def batches() -> Any:
            while True:
                batch = await queue.get()
                yield batch
                if not interest.follow and isinstance(batch[0], Complete):
                    return

        stream = batches()
        try:
            yield stream
        finally:
            self.realm.readers.remove(reader)
            await stream.aclose()

    async def fetch(self, ids: list[EventId]) -> list[SignedEvent]:
        self.realm.fetched += 1
        await self.realm.up.wait()
        return [signed for signed in self.realm.log if signed.id in ids]

    async def put_blob(self, chunks: Any, digest: bytes) -> None:
        raise TransportError("depot", "there is no depot here")

    def get_blob(self, digest: bytes) -> Any:
        raise TransportError("depot", "there is no depot here")

    def heartbeat(self, topic: str, emit_rate_s: float) -> None:
        self.beats += 1

    def on_attached(self, call: Callable[[], None]) -> None:
        self.calls.append(call)
