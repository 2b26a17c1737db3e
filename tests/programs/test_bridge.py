"""What a bridge copies while the realm is up, so that nothing large is left for when it is down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.errors import NotFoundError, TransportError
from dsmt.ports.bus import HistoryPage
from dsmt.programs import bridge, bridge_copies
from dsmt.programs.bridge import copied
from dsmt.programs.bridge_copies import FEW, LiveCopy
from dsmt.programs.configuration import CopiedFile


def test_what_services_name_is_in_the_next_depot_before_the_realm_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is large the cut would last for as long as it takes to copy it."""
    pages = [tuple((row, 0, b"%d" % row) for row in rows) for rows in (range(1, 1 + FEW), range(1 + FEW, 3 + FEW))]
    places, put = dict[str, int](), dict[bytes, bytes]()

    async def history(_after: int) -> HistoryPage:
        return HistoryPage("s", pages.pop(0) if pages else (), (), ())

    async def take(store: str, rows: list[Any], upto: int, _proof: object) -> list[int]:
        places[store] = upto
        return [one.row for one in rows]

    async def get_blob(digest: bytes) -> AsyncIterator[bytes]:
        if digest == b"2":
            raise NotFoundError("blob.unknown", "the depot has lost it")
        yield b"content of " + digest

    async def put_blob(chunks: AsyncIterator[bytes], digest: bytes) -> None:
        put[digest] = b"".join([chunk async for chunk in chunks])

    class Filler(SimpleNamespace):
        stores = places

    filler: Any = Filler(place=lambda store: places.get(store, 0), take=take, put_blob=put_blob)
    bus: Any = SimpleNamespace(history=history, get_blob=get_blob)
    monkeypatch.setattr(bridge_copies, "named_in", lambda row: [b"%d" % row] if row < 4 else [])

    async def copied() -> list[bool]:
        live = LiveCopy(bus, filler)
        return [(await live.step()).level for _ in range(2)]

    assert asyncio.run(copied()) == [False, True]
    assert put == {b"1": b"content of 1", b"3": b"content of 3"}


def test_what_was_level_is_not_while_a_link_is_lost(tmp_path: Path) -> None:
    """Who cuts the realm then would end its brokers with nobody there who takes the rest."""
    told, steps = list[bool](), 0

    async def step() -> CopiedFile:
        nonlocal steps
        told.append(copied(tmp_path).level)
        steps += 1
        if steps == 2:
            raise TransportError("link.lost", "the server has gone")
        if steps == 3:
            raise asyncio.CancelledError
        return CopiedFile(row=7, head=7, level=True)

    @asynccontextmanager
    async def begin() -> AsyncIterator[Any]:
        yield SimpleNamespace(step=step, idle=False)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(bridge._copy(tmp_path, begin))
    assert told == [False, True, False]
    assert copied(tmp_path).row == 7
