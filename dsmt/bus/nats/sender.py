"""The sender: what a source has to say, into the stream, in order, until it is acknowledged.

Rule 1: one publish at a time is on its way, of one event or of many as an atomic batch: so nothing overtakes anything,
    whatever fails, and a source's events stand in the stream as they were numbered.
Rule 2: each event is judged first (`door`). What is refused nobody sees; the next one on its topic declares it.
Rule 3: what was not acknowledged is published again under its id, and a server drops it that knows the id: a sum of what was
    signed, for by an id that others can tell they would have it dropped and acknowledged. But a shared fact
    is given up when its link is lost, or after `GIVE_UP_S`: the decision is old, and who made it decides anew (A3).
Rule 4: a copy for each addressee goes in the same batch: with the event, or not at all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from dsmt.bus.nats.door import NatsDoor, PublishTerms
from dsmt.bus.nats.link import ApiError, NatsLink, Publication
from dsmt.bus.nats.streams import EXPECTED_LAST, MSG_ID, id_of
from dsmt.bus.rules.outbox import Outbox
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import FailedError, RefusedError, TransportError, UnusableEventError
from dsmt.event.burst import raws_of
from dsmt.event.envelope import Event, EventId, SignedEvent
from dsmt.event.registry import is_fact, row_of

BATCH: Final = 500
BATCH_BYTES: Final = 512 * 1024
"""Of a batch: a server takes a thousand messages at most."""
RETRY_S: Final = (0.02, 0.5)
GIVE_UP_S: Final = 12.0
"""How long a shared fact waits for a majority: an election takes up to nine seconds."""
SIGNALS_S: Final = 3600
_DUPLICATE: Final = 10201

Settle = Callable[[EventId, int, RefusedError | FailedError | None], None]


class Due(NamedTuple):
    """An event that is to be published, and its bytes: alone, as anybody can verify it."""

    signed: SignedEvent
    raw: bytes


def entries_of(subjects: Subjects, due: Due, verdict: PublishTerms) -> list[Publication]:
    """What is published of an event: the event, and a copy for each addressee."""
    signed, raw = due
    event = signed.event
    headers = {MSG_ID: id_of(raw)}
    ages = lifetime(event)
    if verdict.expected is not None:
        headers |= {EXPECTED_LAST: str(verdict.expected), f"{EXPECTED_LAST}-Subject": subjects.on(event.topic)}
    own = Publication(subjects.event(event.source, event.topic, fact=is_fact(event)), raw, {**headers, **ages})
    copies = [
        Publication(
            subjects.copy(event.source, one, event.topic, fact=is_fact(event)),
            raw,
            {MSG_ID: id_of(raw, one), **ages},
        )
        for one in dict.fromkeys(event.to)
    ]
    return [own, *copies]


def lifetime(event: Event) -> dict[str, str]:
    """How long the stream keeps what a broker keeps in the class of signals (B6); all else for as long as the history."""
    row = row_of(event.topic)
    short = row is not None and row.budget == "signal" and not row.takes_as_fact(event.version)
    return {"Nats-TTL": f"{SIGNALS_S}s"} if short else {}


class NatsSender:
    """Publishes an outbox. `settle` is told of each event its row, or why it was refused; it lets go of it there."""

    def __init__(
        self, subjects: Subjects, door: NatsDoor, outbox: Outbox, now_ms: Callable[[], int], settle: Settle
    ) -> None:
        self._subjects, self._door, self._outbox, self._now_ms, self._settle = subjects, door, outbox, now_ms, settle
        self._work = asyncio.Event()

    def wake(self) -> None:
        """There is something in the outbox."""
        self._work.set()

    async def run(self, link: NatsLink) -> None:
        """Publish, until the link is lost: then with `TransportError`."""
        self._outbox.again()
        waiting: deque[SignedEvent] = deque()
        while True:
            waiting.extend(self._outbox.due())
            if waiting:
                await self._publish(link, _batch(waiting))
            else:
                self._work.clear()
                await self._work.wait()

    def give_up(self, identities: Iterable[EventId]) -> None:
        """Let go of shared facts of which nobody knows whether they were stored, or will be (rule 3)."""
        for identity in identities:
            said = f"{identity} was not acknowledged in time: it may be stored or not"
            self._settle(identity, 0, FailedError("unanswered", said, next="see what it says now, and try again"))

    async def _publish(self, link: NatsLink, batch: list[Due]) -> None:
        """Publish a batch, however often that takes."""
        delay, began = RETRY_S[0], asyncio.get_running_loop().time()
        while batch:
            try:
                if await self._together(link, batch):
                    return
                while batch:
                    await self._alone(link, batch[0])
                    del batch[0]
                    began = asyncio.get_running_loop().time()  # what was stored shows that servers take more
            except TransportError:
                if link.lost.done():
                    raise
                await asyncio.sleep(delay)
                delay = min(2 * delay, RETRY_S[1])
                if asyncio.get_running_loop().time() > began + GIVE_UP_S:
                    self.give_up(one.signed.id for one in batch if one.signed.event.version is not None)
                    batch[:] = [one for one in batch if one.signed.event.version is None]

    async def _together(self, link: NatsLink, batch: list[Due]) -> bool:
        """Publish it as one; False when each is to be looked at alone. What is refused leaves the batch."""
        verdicts = await asyncio.gather(*(self._judged(link, one) for one in batch))
        good = [(one, verdict) for one, verdict in zip(batch, verdicts, strict=True) if verdict is not None]
        batch[:] = [one for one, _ in good]
        if not good:
            return True
        if len(good) == 1 or any(verdict.stored is not None for _, verdict in good):
            return False
        groups = [entries_of(self._subjects, one, verdict) for one, verdict in good]
        try:
            told = await link.publish(*(entry for group in groups for entry in group))
        except (ApiError, RefusedError):
            return False
        row = told["seq"] - sum(map(len, groups)) + 1
        for (one, _), group in zip(good, groups, strict=True):
            self._stored(one.signed, row)
            row += len(group)
        return True

    async def _alone(self, link: NatsLink, due: Due) -> None:
        signed = due.signed
        verdict = await self._judged(link, due)
        if verdict is None:
            return
        if verdict.stored is not None:
            self._stored(signed, verdict.stored)
            return
        entries = entries_of(self._subjects, due, verdict)
        try:
            row = (await link.publish(*entries))["seq"] - len(entries) + 1
        except RefusedError as error:
            self._settle(signed.id, 0, error)
            return
        except ApiError as error:
            self._door.forget(signed.event.topic)
            if error.code != _DUPLICATE:  # somebody else has said something there meanwhile, perhaps: it is judged anew
                raise TransportError("nats.stream", f"{signed.id} was not stored: {error}") from error
            headers = {name: value for name, value in entries[0].headers.items() if not name.startswith(EXPECTED_LAST)}
            row = (await link.publish(entries[0]._replace(headers=headers)))["seq"]
        self._stored(signed, row)

    async def _judged(self, link: NatsLink, due: Due) -> PublishTerms | None:
        """None: it is refused."""
        try:
            return await self._door.judge(link, due.raw, self._now_ms())
        except UnusableEventError as error:
            self._settle(due.signed.id, 0, RefusedError(error.code, error.message, next=error.next))
            return None

    def _stored(self, signed: SignedEvent, row: int) -> None:
        self._door.stored(signed, row)
        self._settle(signed.id, row, None)


def _batch(waiting: deque[SignedEvent]) -> list[Due]:
    """What is published as one: of the shared facts of a topic only the first, which those after it are compared with.

    Nor what comes after a tombstone: it is judged by what that has ended.
    """
    found: list[SignedEvent] = []
    size, messages, compared = 0, 0, set[str]()
    while waiting:
        event = waiting[0].event
        messages += 1 + len(event.to)
        size += waiting[0].size * (1 + len(event.to))
        is_full = messages > BATCH or size > BATCH_BYTES
        if found and (is_full or event.topic in compared or found[-1].event.ends):
            break
        if event.version is not None:
            compared.add(event.topic)
        found.append(waiting.popleft())
    return [Due(signed, raw) for signed, raw in zip(found, raws_of(one.sealed for one in found), strict=True)]
