"""Who moves a realm waits for the members elsewhere, and names who has not come."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.operations.local import following


def sight(**sessions: tuple[str, int]) -> Any:
    """What is seen where these nodes' sessions are in a state, since a time."""
    found = {}
    for node, (state, since_ms) in sessions.items():
        said = SimpleNamespace(record=SimpleNamespace(state=state, since_ms=since_ms))
        found[f"node/{node}"] = SimpleNamespace(newest=("b1", said))
    return SimpleNamespace(view=SimpleNamespace(sessions=SimpleNamespace(of=found)))


def test_a_session_of_before_is_not_taken_for_one_where_the_realm_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of who had attached, or joined, just before the cut: what carries the realm now knows that session, too."""
    before = sight(a=("open", 1000), b=("open", 1000))
    seen = [before, sight(a=("silent", 3000), b=("open", 2000)), sight(a=("open", 4000), b=("open", 2000))]
    looks = iter(seen)

    async def look(_: Any) -> Any:
        return next(looks)

    monkeypatch.setattr(following, "look", look)
    monkeypatch.setattr(following, "LOOK_S", 0.0)
    nobody: Any = None
    assert asyncio.run(following.come(nobody, {"node/a": 1000, "node/b": 1000})) == []
    assert next(looks, None) is None, "it looked until both had come"
    looks = iter([before])
    monkeypatch.setattr(following, "COME_S", -1.0)
    assert asyncio.run(following.come(nobody, {"node/a": 1000, "node/b": 1000})) == ["node/a", "node/b"]
