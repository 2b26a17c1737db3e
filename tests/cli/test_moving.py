"""What is told of a move that ends while nobody can be told of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.cli import bus
from dsmt.errors import TransportError
from dsmt.operations.local.home.home import Home


def test_who_aborts_while_nobody_is_let_in_hears_that_the_copy_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typed again it says that no move is under way."""

    async def aborts(*_: Any, **__: Any) -> None:
        return None

    async def stays(*_: Any) -> None:
        raise TransportError("link.none", "the servers let nobody in", next="see to them")

    monkeypatch.setattr(bus.migrating, "abort", aborts)
    monkeypatch.setattr(bus.moving, "stays", stays)
    ctx: Any = SimpleNamespace(tell_waits=None)
    with pytest.raises(TransportError, match=r"is removed, and the realm stays, .* let nobody in") as told:
        asyncio.run(bus._abort(ctx, Home(tmp_path)))
    assert told.value.next == "see to them"
