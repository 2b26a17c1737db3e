"""The depot on NATS, where everybody puts blobs under a name of its own: whose is read (docs/nats.md)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.nats import depot
from dsmt.bus.nats.link import Publication
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import FailedError

SUBJECTS, CONTENT = Subjects("test"), b"right" * 50_000
DIGEST = hashlib.sha256(CONTENT).digest()


class Stream:
    """The stream of blobs: what was put there, in its order."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def put(self, publisher: str, content: bytes, *, lacks: int | None = None) -> None:
        pieces = [content[at : at + depot.PIECE] for at in range(0, len(content), depot.PIECE)]
        for number, piece in enumerate(pieces):
            if number != lacks:
                self.held[SUBJECTS.piece(publisher, DIGEST, str(number))] = piece
        self.held[SUBJECTS.piece(publisher, DIGEST, "count")] = str(len(pieces)).encode()

    async def held_on(self, _link: object, _stream: str, filters: list[str]) -> list[Any]:
        counts = [one for one in self.held if one.endswith(".count")] if filters == [SUBJECTS.counts(DIGEST)] else filters
        return [SimpleNamespace(subject=one, raw=self.held[one]) for one in counts if one in self.held]

    def got(self) -> bytes:
        async def read() -> bytes:
            link: Any = None
            return b"".join([piece async for piece in depot.get(depot.over(link), SUBJECTS, DIGEST)])

        return asyncio.run(read())


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    made = Stream()
    monkeypatch.setattr(depot, "held_on", made.held_on)
    return made


def test_of_several_who_have_put_a_blob_the_first_is_read_whose_pieces_are_whole_and_right(stream: Stream) -> None:
    stream.put("operator/eve", b"wrong" * 50_000)
    stream.put("operator/mallory", CONTENT, lacks=1)
    stream.put("operator/alice", CONTENT)
    assert stream.got() == CONTENT


def test_a_blob_of_more_pieces_than_are_asked_for_at_once_comes_once(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depot, "PIECE", 100_000)
    monkeypatch.setattr(depot, "AT_ONCE", 2)
    stream.put("operator/alice", CONTENT)
    assert stream.got() == CONTENT


def test_of_two_who_have_put_a_blob_the_one_is_read_that_has_put_it_right(stream: Stream) -> None:
    stream.put("operator/eve", b"wrong" * 50_000)
    stream.put("operator/alice", CONTENT)
    assert stream.got() == CONTENT


@pytest.mark.parametrize(
    ("content", "lacks", "says"), [(b"worse" * 50_000, None, "has another sha256"), (CONTENT, 1, "has no piece 1")]
)
def test_where_nobody_has_put_it_whole_that_is_said(stream: Stream, content: bytes, lacks: int | None, says: str) -> None:
    for publisher in ("operator/eve", "operator/mallory"):
        stream.put(publisher, content, lacks=lacks)
    with pytest.raises(FailedError, match=says) as caught:
        stream.got()
    assert caught.value.code == "depot.mismatch"


def test_that_a_blob_is_there_is_said_when_all_its_pieces_are(stream: Stream) -> None:
    """Who is ended meanwhile leaves nothing that says so."""
    under_way: set[str] = set()

    class Link:
        async def publish(self, one: Publication) -> None:
            if one.subject.endswith(".count"):
                assert not under_way
            under_way.add(one.subject)
            await asyncio.sleep(0)
            under_way.discard(one.subject)
            stream.held[one.subject] = one.payload

    async def chunks() -> AsyncIterator[bytes]:
        yield CONTENT

    link: Any = Link()
    asyncio.run(depot.put(depot.over(link), SUBJECTS, "operator/alice", chunks(), DIGEST))
    assert stream.got() == CONTENT
    assert list(stream.held)[-1] == SUBJECTS.piece("operator/alice", DIGEST, "count")
