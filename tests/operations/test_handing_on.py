"""What a broker alone holds in its depot is with another one before it is none any more (rule E6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.errors import RefusedError
from dsmt.operations.local.members import handing
from dsmt.ports.realm import BrokerAddress

DIGEST = bytes(32)


def broker(name: str, *, leaf: bool = False) -> BrokerAddress:
    return BrokerAddress(f"{name}:4000", name.encode() * 16, leaf=leaf)


class Depots:
    """Which brokers hold the blob; `fetches` does who is asked for it, from another one."""

    def __init__(self, patch: pytest.MonkeyPatch, *holders: str, fetches: bool = True) -> None:
        self.holders, self.fetches, self.asked = set(holders), fetches, list[str]()
        patch.setattr(handing, "AGAIN_S", 0.0)
        patch.setattr(handing, "HANDED_S", 0.05)
        patch.setattr(handing, "_named", self.named)
        patch.setattr(handing, "_asking", self.asking)
        patch.setattr(handing, "_has", self.has)

    async def named(self, _bus: object) -> dict[bytes, str]:
        return {DIGEST: "site.tar.gz"}

    @asynccontextmanager
    async def asking(self, _home: object, there: Sequence[BrokerAddress]) -> AsyncIterator[str]:
        yield there[0].address.partition(":")[0]

    async def has(self, name: str, _digest: bytes) -> bool:
        self.asked.append(name)
        held = name in self.holders
        if self.fetches and self.holders:
            self.holders.add(name)
        return held

    async def handed_on(self, patch: pytest.MonkeyPatch, *known: BrokerAddress) -> list[str]:
        async def announced(_bus: object) -> dict[str, BrokerAddress]:
            return {one.address.partition(":")[0]: one for one in known}

        patch.setattr(handing.brokers, "announced", announced)
        told = list[str]()
        home: Any = SimpleNamespace(realm=lambda: SimpleNamespace(nats=None))
        await handing.handed_on(home, SimpleNamespace(), "b1", told.append)  # type: ignore[arg-type]
        return told


def test_what_a_broker_alone_holds_is_waited_for_until_another_one_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    depots = Depots(monkeypatch, "b1")
    told = asyncio.run(depots.handed_on(monkeypatch, broker("b1"), broker("b2")))
    assert told == ["b1 alone holds site.tar.gz, which another broker is fetching"]
    assert depots.holders == {"b1", "b2"}


def test_what_no_other_one_takes_keeps_it_from_being_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    depots = Depots(monkeypatch, "b1", fetches=False)
    with pytest.raises(RefusedError, match="b1 alone holds site"):
        asyncio.run(depots.handed_on(monkeypatch, broker("b1"), broker("b2")))


def test_a_leaf_is_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its site is read by its upstream alone."""
    depots = Depots(monkeypatch, "b1", "b2")
    assert asyncio.run(depots.handed_on(monkeypatch, broker("b1"), broker("b2", leaf=True))) == []
    assert depots.asked == []
