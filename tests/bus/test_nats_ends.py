"""Which store of a NATS server that stands alone is an older copy, by what its gate has noted (R5, D3)."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsmt.bus.nats import older
from dsmt.bus.nats.older import NatsEnd
from dsmt.bus.nats.streams import Head
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import TransportError
from dsmt.system.files import DiskFiles

Begins = Callable[[Head], str]


def head(store: str, last: int, anew_ms: int | None = None) -> Head:
    return Head(store, 1, last, 1, 0, last, 0, 0, anew_ms)


@pytest.fixture
def begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begins:
    """A server begins with a store: what its gate says was lost. One that is set apart is S3 from then on."""
    at, link = list[Head](), Any

    async def told(*_: object) -> Head:
        return at[-1]

    async def set_apart(*_: object) -> None:
        if at[-1].store == "S9":
            raise TransportError("nats.stream", "no leader")
        at.append(head("S3", at[-1].last, 0))

    def begins(found: Head) -> str:
        at.append(found)
        end = NatsEnd(Subjects("test"), DiskFiles(str(tmp_path)))
        said = asyncio.run(end.look(link))  # type: ignore[arg-type]
        asyncio.run(end.note(link))  # type: ignore[arg-type]
        return said

    monkeypatch.setattr(older, "head", told)
    monkeypatch.setattr(older, "set_apart", set_apart)
    return begins


def test_a_store_that_ends_where_it_did_or_later_is_no_older_copy_and_one_that_ends_before_is_one(begins: Begins) -> None:
    """Else whatever a server had stored would count as made anew each time it is restarted."""
    assert [begins(head("S1", last)) for last in (7, 7, 9)] == ["", "", ""]
    assert "it ends with row 8 and had row 9" in begins(head("S1", 8))
    assert begins(head("S3", 8, 0)) == ""


def test_one_that_was_lost_is_none_and_another_one_is(begins: Begins) -> None:
    assert begins(head("S1", 7)) == begins(head("S2", 0, 0)) == ""
    assert "it is S1 and was S2" in begins(head("S1", 7))


def test_what_could_not_be_set_apart_is_found_again(begins: Begins) -> None:
    begins(head("S1", 7))
    for _ in range(2):
        with pytest.raises(TransportError):
            begins(head("S9", 7))
