"""What a list reads of the realm."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.cli import listing
from dsmt.operations.read.sight import Sight
from dsmt.operations.words.targets import Target
from tests.cli.screens import running_one
from tests.operations.sights import sight


def test_who_asks_for_one_service_reads_no_other_unless_there_is_none_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, kept = list[tuple[str, ...]](), list[object]()

    async def look(_bus: object, *, passing: bool, of: tuple[str, ...] = ()) -> Sight:
        assert passing
        asked.append(of)
        return sight(running_one())

    ctx: Any = SimpleNamespace(ask=lambda work: asyncio.run(work(SimpleNamespace(bus=None))))
    monkeypatch.setattr(listing, "look", look)
    monkeypatch.setattr(listing, "remember", lambda _, found: kept.append(found))
    for named, looks in ((None, [()]), (Target("web"), [("web",)]), (Target("wbe"), [("wbe",), ()])):
        asked.clear()
        listing.seen(ctx, named)
        assert asked == looks
    assert len(kept) == 2, "what is completed is of a whole view"
