"""What is re-offered on NATS: what the stream lacks, or holds an older word of; nothing that it holds already."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.nats import offers
from dsmt.bus.nats.link import ApiError
from dsmt.bus.wire.subjects import Subjects
from tests.controllers.signing import signed

SUBJECTS = Subjects("test")
OLD, HELD, NEW = (signed("operator/a", "user/f", {"n": n}, sequence=n, version=n) for n in (1, 2, 3))


@pytest.mark.parametrize("by", ["its own source", "who offers it"])
@pytest.mark.parametrize(("stored", "published"), [(None, True), (OLD, True), (HELD, False), (NEW, False)])
def test_what_is_held_is_brought_where_it_is_missing_or_newer_than_what_is_there(
    stored: Any, published: bool, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = by == "its own source"
    there = SUBJECTS.event("operator/a", "user/f", fact=True) if own else SUBJECTS.offered("node/n1", "operator/a", "user/f")
    sent: list[bytes] = []

    async def last_on(_link: Any, _stream: str, subject: str) -> Any:
        return stored if subject == there else None

    async def publish(one: Any) -> dict[str, int]:
        sent.append(one.payload)
        return {"seq": 1}

    async def opened(_link: Any, one: Any) -> Any:
        return one

    async def vouch(*_: Any) -> None:
        pass

    monkeypatch.setattr(offers, "last_on", last_on)
    opener: Any = SimpleNamespace(subjects=SUBJECTS, open=opened, vouch=vouch)
    unasked: Any = None
    link: Any = SimpleNamespace(publish=publish)
    bus = offers.NatsOffers("node/n1", opener, unasked, lambda: 0)
    asyncio.run(bus._bring(link, HELD))
    assert sent == ([HELD.raw] if published else [])


def test_what_a_server_does_not_take_for_a_moment_is_offered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its disk is full, or its cluster begins: it says so, and who holds what was lost is attached already."""
    sent: list[bytes] = []

    async def publish(one: Any) -> dict[str, int]:
        sent.append(one.payload)
        if len(sent) < 3:
            raise ApiError(10008, "JetStream system temporarily unavailable")
        return {"seq": 1}

    async def nothing(*_: Any) -> None:
        pass

    async def play() -> None:
        link: Any = SimpleNamespace(publish=publish, lost=asyncio.get_running_loop().create_future())
        opener: Any = SimpleNamespace(subjects=SUBJECTS, vouch=nothing)
        door: Any = SimpleNamespace(check_offer=lambda *_, **__: None)
        await offers.NatsOffers("node/n1", opener, door, lambda: 0)._offer(link, HELD)

    monkeypatch.setattr(offers, "last_on", nothing)
    monkeypatch.setattr(offers, "RETRY_S", 0.0)
    asyncio.run(play())
    assert sent == 3 * [HELD.raw]
