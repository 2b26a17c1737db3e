"""The sender: what a source has to say, into the stream, in order, until it is acknowledged.

Rule 1: one publish at a time is on its way, of one event or of many as an atomic batch: so nothing overtakes anything,
    whatever fails, and a source's events stand in the stream as they were numbered.
Rule 2: each event is judged first (`nats_door`). What is refused nobody sees; the next one on its topic declares it.
Rule 3: what was not acknowledged is published again under its id. A server drops it that knows the id; a shared fact goes
    under the same condition again, so an old decision is never stored after a newer one.
Rule 4: a copy for each addressee goes in the same batch: with the event, or not at all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from dsmt.bus.adapters.nats_door import NatsDoor, Verdict
from dsmt.bus.adapters.nats_link import ApiError, Entry, NatsLink
from dsmt.bus.rules.outbox import Outbox
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import RefusedError, TransportError, UnusableEventError
from dsmt.event.envelope import EventId, SignedEvent
from dsmt.event.registry import is_fact

BATCH: Final = 500
BATCH_BYTES: Final = 512 * 1024
"""Of a batch: a server takes a thousand messages at most."""
RETRY_S: Final = (0.02, 0.5)
_COMPARED: Final = frozenset({10071, 10164})
"""The last row on the topic is another one; or it will be, for a publish of somebody else is on its way."""
_DUPLICATE: Final = 10201
_ROW: Final = "Nats-Expected-Last-Subject-Sequence"

Settle = Callable[[EventId, int, RefusedError | None], None]


def entries_of(subjects: Subjects, signed: SignedEvent, verdict: Verdict) -> list[Entry]:
    """What is published of an event: the event, and a copy for each addressee."""
    event = signed.event
    headers = {"Nats-Msg-Id": str(signed.id)}
    if verdict.expected is not None:
        headers |= {_ROW: str(verdict.expected), f"{_ROW}-Subject": subjects.on(event.topic)}
    own = Entry(subjects.event(event.source, event.topic, fact=is_fact(event)), signed.raw, headers)
    copies = [
        Entry(subjects.copy(event.source, one, event.topic), signed.raw, {"Nats-Msg-Id": f"{signed.id} {one}"})
        for one in dict.fromkeys(event.to)
    ]
    return [own, *copies]


class NatsSender:
    """Publishes an outbox. `settle` is told of each event its row, or why it was refused."""

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

    async def _publish(self, link: NatsLink, batch: list[SignedEvent]) -> None:
        """Publish a batch, however often that takes."""
        delay = RETRY_S[0]
        while batch:
            try:
                if await self._together(link, batch):
                    return
                while batch:
                    await self._alone(link, batch[0])
                    del batch[0]
            except TransportError:
                if link.lost.done():
                    raise
                await asyncio.sleep(delay)
                delay = min(2 * delay, RETRY_S[1])

    async def _together(self, link: NatsLink, batch: list[SignedEvent]) -> bool:
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
            self._stored(one, row)
            row += len(group)
        return True

    async def _alone(self, link: NatsLink, signed: SignedEvent) -> None:
        while True:
            verdict = await self._judged(link, signed)
            if verdict is None:
                return
            if verdict.stored is not None:
                self._stored(signed, verdict.stored)
                return
            entries = entries_of(self._subjects, signed, verdict)
            try:
                row = (await link.publish(*entries))["seq"] - len(entries) + 1
            except RefusedError as error:
                self._refuse(signed, error)
                return
            except ApiError as error:
                self._door.forget(signed.event.topic)
                if error.code in _COMPARED:
                    continue
                if error.code != _DUPLICATE:
                    raise TransportError("nats.stream", f"{signed.id} was not stored: {error}") from error
                row = (await link.publish(entries[0]._replace(headers={"Nats-Msg-Id": str(signed.id)})))["seq"]
            self._stored(signed, row)
            return

    async def _judged(self, link: NatsLink, signed: SignedEvent) -> Verdict | None:
        """None: it is refused."""
        try:
            return await self._door.judge(link, signed, self._now_ms())
        except UnusableEventError as error:
            self._refuse(signed, RefusedError(error.code, error.message, next=error.next))
            return None

    def _refuse(self, signed: SignedEvent, error: RefusedError) -> None:
        self._outbox.refused(signed.id)
        self._settle(signed.id, 0, error)

    def _stored(self, signed: SignedEvent, row: int) -> None:
        self._door.stored(signed, row)
        self._outbox.settled(signed.id)
        self._settle(signed.id, row, None)


def _batch(waiting: deque[SignedEvent]) -> list[SignedEvent]:
    """What is published as one: of the shared facts of a topic only the first, which those after it are compared with."""
    found: list[SignedEvent] = []
    size, messages, compared = 0, 0, set[str]()
    while waiting:
        event = waiting[0].event
        messages += 1 + len(event.to)
        size += waiting[0].size * (1 + len(event.to))
        if found and (messages > BATCH or size > BATCH_BYTES or event.topic in compared):
            break
        if event.version is not None:
            compared.add(event.topic)
        found.append(waiting.popleft())
    return found
