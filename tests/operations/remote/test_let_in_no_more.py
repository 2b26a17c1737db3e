"""A host that is a node already is added again: it joins anew only where the realm lets its node in no more (rule J1)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.operations.remote import adding

NOW_S = 1_800_000_000


@pytest.mark.parametrize(
    ("state", "ends_in_s", "was_revoked", "out"),
    [
        ("alive", 60, False, ""),
        ("dead", 60, False, ""),
        ("dead", -60, False, "ended"),
        ("dead", None, False, "ended"),
        ("alive", -60, False, ""),
        ("suspect", -60, False, "ended"),
        ("alive", 60, True, "revoked"),
        ("dead", -60, True, "revoked"),
    ],
)
def test_a_node_that_is_alive_joins_anew_only_where_its_key_was_revoked(
    monkeypatch: pytest.MonkeyPatch, state: str, ends_in_s: int | None, was_revoked: bool, out: str
) -> None:
    async def look(_bus: object) -> Any:
        return SimpleNamespace(
            view=SimpleNamespace(nodes={"n1": SimpleNamespace()}), fleet=SimpleNamespace(state=lambda _node: state)
        )

    used = {} if ends_in_s is None else {"node/n1": SimpleNamespace(not_after=NOW_S + ends_in_s)}
    monkeypatch.setattr(adding, "look", look)
    monkeypatch.setattr(adding, "revoked", lambda _sight, _entry: object() if was_revoked else None)
    monkeypatch.setattr(adding, "in_use", lambda _trust, _now_s: used)
    connection: Any = SimpleNamespace(bus=SimpleNamespace(now_ms=lambda: NOW_S * 1000), trust=None)
    assert asyncio.run(adding._out(connection, "n1")) == out
