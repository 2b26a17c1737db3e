"""A host that is a node already is added again: it joins anew only where the realm lets its node in no more (rule J1)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.operations.remote import adding

NOW_S = 1_800_000_000


@pytest.mark.parametrize(
    ("state", "ends_in_s", "outside", "out"),
    [
        ("alive", 60, None, (None, None)),
        ("dead", 60, None, (None, None)),
        ("dead", -60, None, ("expired", None)),
        ("dead", None, None, ("expired", None)),
        ("alive", -60, None, (None, None)),
        ("suspect", -60, None, ("expired", None)),
        ("alive", 60, "revoked", ("revoked", "ab")),
        ("dead", -60, "revoked", ("revoked", "ab")),
        ("alive", 60, "kept out", ("kept out", "ab")),
    ],
)
def test_a_node_that_is_alive_joins_anew_only_where_it_is_let_in_no_more(
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    ends_in_s: int | None,
    outside: str | None,
    out: tuple[str | None, str | None],
) -> None:
    async def look(_bus: object, *, passing: bool) -> Any:
        assert passing, "what a broker says counts if that is heard"
        return SimpleNamespace(
            now_ms=NOW_S * 1000,
            view=SimpleNamespace(nodes={"n1": SimpleNamespace()}),
            fleet=SimpleNamespace(state=lambda _node: state),
        )

    used = {} if ends_in_s is None else {"node/n1": SimpleNamespace(not_after=NOW_S + ends_in_s)}
    told = None if outside is None else SimpleNamespace(why=outside, key="ab")
    monkeypatch.setattr(adding, "look", look)
    monkeypatch.setattr(adding, "outside", lambda *_: told)
    monkeypatch.setattr(adding, "in_use", lambda _trust, _now_s: used)
    connection: Any = SimpleNamespace(bus=None, trust=None)
    assert asyncio.run(adding._out(connection, "n1")) == out
