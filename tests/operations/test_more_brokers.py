"""Brokers that are added to a realm: where they listen, and under which names."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsmt.errors import InputError, RefusedError
from dsmt.operations.local import brokers
from dsmt.operations.local.brokers import of_home
from dsmt.operations.local.home import Home, ensure_broker, init
from dsmt.operations.words.telling import silent
from dsmt.operations.write.brokers import announce, announced
from dsmt.ports.realm import BrokerAddress
from tests.bus.realm import memory_network, realm

FAR = BrokerAddress("10.9.9.9:4000", bytes(range(32)))


def on_a_bus(tmp_path: Path, test: Callable[[Any], Awaitable[None]]) -> None:
    """Have an operator attached while a test runs."""

    async def within() -> None:
        async with asyncio.timeout(30), realm(memory_network(), tmp_path) as made:
            await made.broker()
            await test(await made.client("operator/alice"))

    asyncio.run(within())


async def add(home: Home, bus: Any, name: str, listen: str | None = None) -> str:
    at = await brokers.add(home, bus, name, listen=listen, by="a", reason="", now_s=0, waits=silent, leaf=False)
    return at.address


def host(address: str) -> str:
    return address.rpartition(":")[0]


def test_a_broker_listens_where_those_of_its_home_do(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test", listen="127.0.0.9:4222")

    async def test(bus: Any) -> None:
        at = await add(home, bus, "b2")
        assert host(at) == "127.0.0.9"
        assert (await announced(bus))["b2"].address == at
        ensure_broker(home, "b3")
        assert {host(address) for address, _ in home.realm().brokers} == {"127.0.0.9"}
        assert len(set(home.realm().brokers)) == 3

    on_a_bus(tmp_path, test)


def test_a_broker_that_the_others_would_not_reach_is_not_made(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")

    async def test(bus: Any) -> None:
        await announce(bus, {"far": FAR}, by="a")
        for listen in (None, "127.0.0.1:4223"):
            with pytest.raises(InputError, match="the realm's other brokers do not reach one at 127") as refused:
                await add(home, bus, "b2", listen)
            assert "--listen" in refused.value.next
        assert (await announced(bus)).keys() == {"far"}
        assert home.names("brokers") == ["b1"]

    on_a_bus(tmp_path, test)


def test_no_broker_takes_the_name_of_one_on_another_machine(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")

    async def test(bus: Any) -> None:
        await announce(bus, {"far": FAR}, by="a")
        with pytest.raises(RefusedError, match="there is a broker far on another machine"):
            await add(home, bus, "far")
        assert (await announced(bus))["far"].public == FAR.public
        assert home.names("brokers") == ["b1"]

    on_a_bus(tmp_path, test)


def test_several_that_are_announced_at_the_same_moment_are_all_announced(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    here, hosts = of_home(home), {f"h{n}": replace(FAR, address=f"10.0.0.{n}:4222") for n in range(5)}

    async def test(bus: Any) -> None:
        await asyncio.gather(*(announce(bus, {**here, name: at}, by="a") for name, at in hosts.items()))
        assert await announced(bus) == {**here, **hosts}

    on_a_bus(tmp_path, test)
