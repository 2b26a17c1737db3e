"""Who does something on the bus for long is told when nobody lets it in any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.errors import FailedError, RefusedError
from dsmt.operations import connection
from dsmt.operations.connection import while_let_in
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.members import joining
from dsmt.ports.realm import KEPT_OUT
from dsmt.trust.identity import root_issued
from dsmt.trust.joining import Token, joining_identity
from dsmt.trust.keys import SecretKey


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


def test_who_joins_with_a_token_that_expires_before_an_issuer_answers_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waiting(SimpleNamespace):
        @asynccontextmanager
        async def subscribe(self, _interest: Any) -> AsyncIterator[AsyncIterator[Any]]:
            async def nothing() -> AsyncIterator[Any]:
                await asyncio.Event().wait()
                yield ()

            yield nothing()

    @asynccontextmanager
    async def attached(*_: Any) -> AsyncIterator[Any]:
        here = bus("trust.expired")
        yield SimpleNamespace(bus=Waiting(attached=here.attached, refusal=here.refusal), realm=SimpleNamespace(name="test"))

    root, key = SecretKey(b"r" * 32), SecretKey(b"t" * 32)
    operator = root_issued("operator/a", root, key=SecretKey(b"o" * 32), now_s=1_800_000_000, serial=bytes(16))
    holder = joining_identity(operator, key=key, token_id=bytes(16), now_s=1_800_000_000, lifetime_s=60)
    token = Token(
        realm="test",
        roots=(root.public,),
        brokers=(("10.0.0.1:1", bytes(32)),),
        seed=key.seed,
        chain=tuple(signed.raw for signed in holder.chain),
    )
    monkeypatch.setattr(joining, "attached", attached)
    with pytest.raises(RefusedError) as refused:
        asyncio.run(asyncio.wait_for(joining.join(Home(tmp_path / "home"), token.line(), name="n1", address="10.0.0.2"), 10))
    assert refused.value.code == "token.expired"
