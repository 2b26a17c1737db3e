"""The page of retained facts: stream F from its beginning to a mark, in which every fact is that was stored before the mark.

Rule 1: stream F takes over what is retained in the order of stream H, marks too. When the mark has come, and nothing is
    left, each subject's last message was read: what was replaced meanwhile has come again behind it.
Rule 2: so the page may hold facts that are newer than the mark; `covered` is the row of the newest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from dsmt.bus.adapters.nats_consumer import PullConsumer
from dsmt.bus.adapters.nats_link import ApiError, NatsLink, Publication
from dsmt.bus.adapters.nats_opener import NatsOpener
from dsmt.bus.adapters.nats_streams import MARK_S, Stored
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import TransportError, UnusableEventError
from dsmt.event.envelope import SignedEvent

MARKED_S: Final = 5.0
"""How long a mark is waited for that does not come."""


class Page(NamedTuple):
    """Facts with their rows, and those that cannot be believed."""

    facts: list[tuple[int, SignedEvent]]
    refused: list[tuple[int, UnusableEventError]]
    covered: int


async def set_mark(link: NatsLink, subject: str, text: str) -> int:
    """Put a mark into the stream; its row. Raises `TransportError`, `RefusedError`."""
    try:
        told = await link.publish(Publication(subject, text.encode(), {"Nats-TTL": f"{MARK_S}s"}))
    except ApiError as error:
        raise TransportError("nats.stream", f"no mark was stored: {error}") from error
    return int(told["seq"])


async def read_page(
    link: NatsLink,
    subjects: Subjects,
    opener: NatsOpener,
    patterns: Sequence[str],
    *,
    mark: str,
    text: str,
    addressee: str = "",
) -> Page:
    """The retained facts on these patterns, and copies of them for an addressee, with a mark of this text.

    Raises `TransportError`.
    """
    copies = [subjects.noted(addressee)] if addressee else []
    consumer = PullConsumer(link, subjects.facts, [*subjects.taken_by(patterns, signals=False), *copies, mark])
    page, waited, marked, left = Page([], [], 0), 0.0, False, 0
    covered = 0
    try:
        await consumer.begin()
        while not marked or left:
            batch = await consumer.next(MARKED_S / 10)
            waited = 0.0 if batch else waited + MARKED_S / 10
            if waited > MARKED_S:
                raise TransportError("nats.behind", f"stream {subjects.facts} is behind {subjects.history}")
            for stored in batch:
                left = stored.left
                if stored.subject == mark:
                    marked = marked or stored.raw == text.encode()
                    continue
                covered = max(covered, stored.row)
                await _read(link, opener, stored, page)
    finally:
        await consumer.end()
    return page._replace(covered=covered)


async def _read(link: NatsLink, opener: NatsOpener, stored: Stored, page: Page) -> None:
    try:
        page.facts.append((stored.row, await opener.open(link, stored)))
    except UnusableEventError as error:
        page.refused.append((stored.row, error))
