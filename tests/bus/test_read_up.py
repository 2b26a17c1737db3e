"""What a broker alone has stored is with another one before it is removed (rule R8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.client.client import BusClient
from dsmt.errors import DsmtError, RefusedError, TransportError
from dsmt.operations.local.members import handing
from dsmt.operations.words.telling import Tell, silent
from dsmt.ports.bus import BusReader, Draft
from dsmt.ports.realm import BrokerAddress
from tests.bus.idle import run_alone
from tests.bus.meshes import at, held, mesh, misses
from tests.bus.realm import TestRealm, scenario
from tests.waiting import until

BEHIND = "b3 has stored what no other broker has read yet"


async def read_up(waits: Tell = silent) -> bool:
    return await handing.read_up(SimpleNamespace(), SimpleNamespace(), "b3", waits)  # type: ignore[arg-type]


@asynccontextmanager
async def of_which_one_is_ahead(r: TestRealm, patch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[], None]]:
    """Three brokers, of which b3 has something that the others have not read before what this gives is called."""
    made = await mesh(r, "b1", "b2", "b3")
    takes = [misses(one) for one in made[:2]]
    source = await r.client("operator/a", brokers=at(made[2]))
    await source.publish(Draft("user/x", {}))
    asking = {one.address: await r.client(f"operator/{n}", brokers=at(one)) for n, one in enumerate(made)}

    async def announced(_: object) -> dict[str, BrokerAddress]:
        return {f"b{n}": at(one)[0] for n, one in enumerate(made, 1)}

    @asynccontextmanager
    async def asks(_: object, there: Sequence[BrokerAddress], *__: float) -> AsyncIterator[BusClient]:
        yield asking[there[0].address]

    patch.setattr(handing.brokers, "announced", announced)
    patch.setattr(handing, "_asking", asks)
    patch.setattr(handing, "SOON_S", 0.2)

    def go_on() -> None:
        assert not held(made[0]) >= held(made[2])
        for one in takes:
            one()

    yield go_on
    assert held(made[0]) >= held(made[2])


def patched(test: Callable[[TestRealm, pytest.MonkeyPatch], Awaitable[None]]) -> Callable[..., None]:
    """A scenario with something to patch."""

    async def within(r: TestRealm) -> None:
        with pytest.MonkeyPatch.context() as patch:
            await test(r, patch)

    within.__name__, within.__doc__ = test.__name__, test.__doc__
    return scenario(within)


@patched
async def test_what_others_have_yet_to_read_of_a_broker_that_is_removed_is_waited_for(
    r: TestRealm, patch: pytest.MonkeyPatch
) -> None:
    """It was cut off, and is removed as soon as it is heard again: all that was acknowledged there was lost."""
    async with of_which_one_is_ahead(r, patch) as go_on:
        told = list[str]()
        waiting = asyncio.create_task(read_up(told.append))
        await until(lambda: told)
        assert not waiting.done()
        go_on()
        assert await waiting
        assert told[0] == BEHIND


@patched
async def test_who_does_not_answer_is_not_taken_to_have_read_it(r: TestRealm, patch: pytest.MonkeyPatch) -> None:
    """Both that remain have just been stopped, and each screen says for some seconds that they live."""
    async with of_which_one_is_ahead(r, patch) as go_on:
        asks, hang = handing._asking, True

        @asynccontextmanager
        async def asks_now(home: Any, there: Sequence[BrokerAddress], *__: float) -> AsyncIterator[BusReader]:
            if hang and there[0].address != r.brokers[-1].address:
                raise TransportError("link.unreachable", "no broker answers")
            async with asks(home, there) as bus:
                yield bus

        patch.setattr(handing, "_asking", asks_now)
        go_on()
        with pytest.MonkeyPatch.context() as soon:
            soon.setattr(handing, "HANDED_S", 0.5)
            with pytest.raises(RefusedError, match=BEHIND):
                await read_up()
        hang = False
        await read_up()


@patched
async def test_a_broker_of_which_no_other_one_reads_what_it_has_stored_is_not_removed(
    r: TestRealm, patch: pytest.MonkeyPatch
) -> None:
    async with of_which_one_is_ahead(r, patch) as go_on:
        with pytest.MonkeyPatch.context() as soon:
            soon.setattr(handing, "HANDED_S", 0.5)
            with pytest.raises(RefusedError, match=BEHIND):
                await read_up()
        go_on()
        await read_up()


@pytest.mark.parametrize("error", [RefusedError("broker.expired", "its certificate has ended"), TransportError("a", "b")])
def test_a_broker_that_lets_nobody_in_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, error: DsmtError) -> None:
    async def announced(_: object) -> dict[str, BrokerAddress]:
        return {name: BrokerAddress(f"{name}:4000", name.encode() * 16) for name in ("b1", "b3")}

    @asynccontextmanager
    async def asks(*_: object) -> AsyncIterator[None]:
        raise error
        yield

    monkeypatch.setattr(handing.brokers, "announced", announced)
    monkeypatch.setattr(handing, "_asking", asks)
    assert asyncio.run(read_up()) == isinstance(error, RefusedError), "one that does not answer is asked again"


class Reached:
    """A broker that is asked: the heads that it gives one after the other, or how often it has not what it is asked for."""

    def __init__(self, *heads: str, lacks: int = 0) -> None:
        self.heads, self.lacks = list(heads), lacks

    async def head(self) -> SimpleNamespace:
        return SimpleNamespace(id=self.heads.pop(0))

    async def fetch(self, ids: Sequence[str]) -> Sequence[str]:
        self.lacks -= 1
        return [] if self.lacks >= 0 else ids


def asking(patch: pytest.MonkeyPatch, leaves: Sequence[str] = (), **brokers: Reached) -> list[str]:
    """Have these be the realm's brokers; the names of those that are asked, as they are."""
    asked = list[str]()

    async def announced(_: object) -> dict[str, BrokerAddress]:
        return {name: BrokerAddress(name, name.encode() * 16, leaf=name in leaves) for name in brokers}

    @asynccontextmanager
    async def asks(_: object, there: Sequence[BrokerAddress], *__: float) -> AsyncIterator[Reached]:
        asked.extend(one.address for one in there)
        yield brokers[there[0].address]

    patch.setattr(handing.brokers, "announced", announced)
    patch.setattr(handing, "_asking", asks)
    return asked


def test_what_a_leaf_has_read_is_with_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asking(monkeypatch, ["b1"], b1=Reached(), b2=Reached(), b3=Reached("head"))
    run_alone(read_up())
    assert asked == ["b3", "b2"]


@pytest.mark.parametrize(("lacks", "left"), [(1, ["second"]), (9, [])])
def test_of_what_was_long_behind_there_is_more_by_then_and_of_what_was_not_there_is_not(
    lacks: int, left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has so soon what is there has the rest as that broker ends; who took minutes has minutes to read again."""
    behind = Reached("first", "second")
    asking(monkeypatch, b2=Reached(lacks=lacks), b3=behind)
    told = list[str]()
    run_alone(read_up(told.append))
    assert (behind.heads, told) == (left, [] if left else [BEHIND])
