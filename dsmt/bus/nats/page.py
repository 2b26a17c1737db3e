"""The page of retained facts: those that were stored before a mark, from stream F, and from stream H what F lacks.

Rule 1: stream F takes over what is retained in the order of stream H, marks too. When the mark has come, and nothing is
    left, each subject's last message was read: what was replaced meanwhile has come again behind it.
Rule 2: so the page may hold facts that are newer than the mark; `covered` is the row of the newest.
Rule 3: F may be behind, for 10 s and more where H or F had another leader (nats-server 2.15.1). A mark that does not come
    is not waited for: what F has not taken over stands in H, behind the newest of these facts that F has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from dsmt.bus.nats.consumer import PullConsumer
from dsmt.bus.nats.link import ApiError, NatsLink, Publication
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.nats.streams import MARK_S, StreamMessage
from dsmt.errors import TransportError, UnusableEventError
from dsmt.event.envelope import SignedEvent

LATE_S: Final = 0.5
"""How long stream F may give nothing before its mark; then stream H is asked."""
MARKED_S: Final = 5.0
"""How long stream H may."""


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
    link: NatsLink, opener: NatsOpener, patterns: Sequence[str], *, mark: str, text: str, addressee: str = ""
) -> Page:
    """The retained facts on these patterns, and copies of them for an addressee, with a mark of this text.

    Raises `TransportError`.
    """
    subjects = opener.subjects
    copies = [subjects.noted(addressee)] if addressee else []
    filters = [*subjects.taken_by(patterns, signals=False), *copies, mark]
    page, marked = Page([], [], 0), False
    for stream, patience_s in ((subjects.facts, LATE_S), (subjects.history, MARKED_S)):
        consumer = PullConsumer(link, stream, filters)
        try:
            await consumer.begin(after=page.covered)
            page, marked = await _read_on(link, opener, consumer, page, mark=(mark, text.encode()), patience_s=patience_s)
        finally:
            await consumer.end()
        if marked:
            return page
    raise TransportError("nats.behind", f"a mark in stream {subjects.history} does not come")


async def _read_on(
    link: NatsLink, opener: NatsOpener, consumer: PullConsumer, page: Page, *, mark: tuple[str, bytes], patience_s: float
) -> tuple[Page, bool]:
    """The page with what a stream has until a mark, of this subject and text; whether that has come."""
    waited_s, marked, left = 0.0, False, 0
    while waited_s < patience_s and (left or not marked):
        batch = await consumer.next(LATE_S / 10)
        waited_s = 0.0 if batch else waited_s + LATE_S / 10
        for stored in batch:
            left = stored.left
            if stored.subject == mark[0]:
                marked = marked or stored.raw == mark[1]
                continue
            page = page._replace(covered=max(page.covered, stored.row))
            await _read(link, opener, stored, page)
    return page, marked and not left


async def _read(link: NatsLink, opener: NatsOpener, stored: StreamMessage, page: Page) -> None:
    try:
        page.facts.append((stored.row, await opener.open(link, stored)))
    except UnusableEventError as error:
        page.refused.append((stored.row, error))
