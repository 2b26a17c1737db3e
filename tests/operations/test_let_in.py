"""Who does something on the bus for long is told when nobody lets it in any more."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.errors import FailedError, RefusedError
from dsmt.operations import connection
from dsmt.operations.connection import while_let_in
from dsmt.ports.realm import KEPT_OUT


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ENDED_LOOK_S", 0.01)


def bus(code: str | None, *, attached: bool = False) -> Any:
    refusal = None if code is None else RefusedError(code, "the certificate of operator/a ended", next="dsmt cert rotate")
    return SimpleNamespace(attached=attached, refusal=refusal)


@pytest.mark.parametrize("code", ["trust.expired", "trust.revoked"])
def test_who_is_let_in_no_more_is_told_so_and_waits_no_longer(code: str) -> None:
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("the wait")

    with pytest.raises(RefusedError, match="ended") as refused:
        asyncio.run(asyncio.wait_for(while_let_in(bus(code), waits()), 20))
    assert (refused.value.code, ended) == (code, ["the wait"])


@pytest.mark.parametrize(
    "here",
    [bus(None), bus("bus.quota"), bus(KEPT_OUT), bus("trust.expired", attached=True)],
    ids=["no broker", "refused for now", "a gate that is away", "at another broker"],
)
def test_who_may_be_let_in_again_waits_on(here: Any) -> None:
    async def answer() -> int:
        await asyncio.sleep(0.1)
        return 7

    assert asyncio.run(while_let_in(here, answer())) == 7


def test_what_the_work_raises_is_raised() -> None:
    async def fails() -> None:
        raise FailedError("x.y", "it failed")

    with pytest.raises(FailedError, match="it failed"):
        asyncio.run(while_let_in(bus("trust.expired"), fails()))
