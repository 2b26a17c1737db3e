"""Who moves a realm waits for the members elsewhere, and names who has not come."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.errors import RefusedError
from dsmt.operations.local import following
from dsmt.operations.local.home import Home, ensure_controller, ensure_node, init


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


def test_members_are_who_is_not_in_this_home_and_none_of_them_may_be_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    ensure_node(home, "n1")
    ensure_controller(home, "c1")
    found = {"n1": "alive", "n7": "alive", "n8": "suspect", "n9": "left"}
    living = {"c1": True, "far": True, "gone": False}
    seen: Any = None
    monkeypatch.setattr(
        following, "nodes", lambda _: [SimpleNamespace(node=name, liveness=state) for name, state in found.items()]
    )
    monkeypatch.setattr(
        following, "controllers", lambda _: [SimpleNamespace(controller=one, alive=state) for one, state in living.items()]
    )
    assert following._elsewhere(seen, home) == ["node/n7", "node/n8", "controller/far"]
    found["n1"] = "dead"
    assert following._elsewhere(seen, home)[:1] == ["node/n7"], "what is here is started here"
    found["n7"] = "dead"
    with pytest.raises(RefusedError, match="node n7 would not hear where the realm goes: it is dead") as told:
        following._elsewhere(seen, home)
    assert "node remove --forget" in told.value.next
