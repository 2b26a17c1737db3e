"""The rest of a realm that moves: it is copied once its servers can take it, and what they refuse is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.errors import RefusedError, TransportError
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.moving import migrating

NO_LEADER = TransportError("nats.stream", "no leader yet")
NO_STREAM = RefusedError("nats.stream", "NATS has no stream S", next="wait")
NO_ROOM = RefusedError("nats.size", "its disk is full", next="make room")


def drained(home: Home, monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> int:
    """Copy the rest where each try but the last ends with one of `errors`, and the keeper; how often it was tried."""
    left, tried, keepers = [*errors], list[int](), list[int]()

    async def drain(*_: object) -> None:
        assert len(keepers) == len(tried) + 1, "it waited for servers that nobody starts any more"
        tried.append(1)
        if left:
            raise left.pop(0)

    async def start_keeper(_: Home) -> None:
        keepers.append(1)

    monkeypatch.setattr(migrating, "start_keeper", start_keeper)
    way: Any = SimpleNamespace(fence=lambda _: None, drain=lambda: drain)
    asyncio.run(asyncio.wait_for(migrating._drain(home, way, lambda _: None), 60))
    return len(tried)


def test_what_servers_cannot_take_before_they_have_their_leaders_is_copied_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drained(Home(tmp_path), monkeypatch, NO_LEADER, NO_STREAM) == 3


def test_what_servers_refuse_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefusedError, match="its disk is full"):
        drained(Home(tmp_path), monkeypatch, NO_ROOM)


def test_who_waits_for_servers_without_leaders_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrating, "SERVERS_S", -1.0)
    with pytest.raises(TransportError, match="what is left was not copied: no leader yet") as told:
        drained(Home(tmp_path), monkeypatch, NO_LEADER)
    assert told.value.next == "dsmt bus migrate --cut goes on; dsmt bus migrate --abort goes back"
