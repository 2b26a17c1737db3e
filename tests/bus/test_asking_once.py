"""Which broker a command asks: one that has what all others have, if there is one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.broker.broker import Broker
from dsmt.bus.client.attaching import measure
from dsmt.bus.client.brokers import FIRST_S
from dsmt.bus.wire.frames import TimeIs
from dsmt.bus.wire.framing import pack
from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.errors import RefusedError
from dsmt.operations import connection
from dsmt.operations.connection import PATIENCE_S, REFUSED_S, connect, reading
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.configuration import RealmConfig
from dsmt.system.entropy import SystemEntropy
from dsmt.trust.keys import SecretKey
from tests.bus.idle import run_alone
from tests.bus.realm import TestRealm, realm, scenario
from tests.waiting import until

TRIES = 8
"""Each client begins at any of two brokers: so many find the same one by chance each 256th time."""


def filled(broker: Broker) -> Broker:
    """A broker that lacks what others have."""
    broker._admission._is_whole = lambda: False
    return broker


async def left_by_commands(r: TestRealm, lacking: Callable[[Broker], Broker]) -> None:
    """Commands leave the first of two brokers, and a program that was given that one alone does not."""
    lacking(await r.broker("b1"))
    await r.broker("b2")
    commands = [await r.client(f"operator/a{n}", asks_once=True) for n in range(TRIES)]
    assert {one.broker for one in commands} == {"broker/b2"}
    program = await r.client("operator/eve", brokers=r.brokers[:1])
    assert program.broker == "broker/b1"


@scenario
async def test_a_command_leaves_a_broker_that_lacks_something_and_a_program_does_not(r: TestRealm) -> None:
    await left_by_commands(r, filled)


def isolated(broker: Broker) -> Broker:
    """A broker that no other one reaches."""
    broker._others._isolation = SimpleNamespace(stands=True, look=lambda *_, **__: False)  # type: ignore[assignment]
    return broker


@scenario
async def test_a_command_leaves_a_broker_that_no_other_one_reaches_while_it_was_given_another(r: TestRealm) -> None:
    await left_by_commands(r, isolated)


@scenario
async def test_where_each_is_isolated_any_answers(r: TestRealm) -> None:
    for name in ("b1", "b2"):
        isolated(await r.broker(name))
    assert (await r.client("operator/alice", asks_once=True)).attached


@scenario
async def test_where_none_has_everything_any_answers_and_where_it_is_the_only_one_that_one(r: TestRealm) -> None:
    filled(await r.broker("b1"))
    alone = await r.client("operator/alice", asks_once=True)
    assert alone.broker == "broker/b1"
    filled(await r.broker("b2"))
    assert (await r.client("operator/bob", asks_once=True)).attached


@scenario
async def test_a_command_whose_broker_dies_asks_the_one_that_is_left_though_that_lacks_something(r: TestRealm) -> None:
    filled(await r.broker("b1"))
    whole = await r.broker("b2")
    command = await r.client("operator/alice", asks_once=True)
    assert command.broker == "broker/b2"
    await r.stop(whole)
    await until(lambda: command.attached and command.broker == "broker/b1")


@pytest.mark.parametrize("how", [reading, connect])
def test_each_command_of_a_home_does_so(tmp_path: Path, how: Any) -> None:
    network = ZmqNetwork()

    async def main() -> set[str]:
        async with asyncio.timeout(60), realm(network, tmp_path) as made:
            filled(await made.broker("b1"))
            await made.broker("b2")
            brokers = tuple((one.address, one.public) for one in made.brokers)
            operator, found = made.identity("operator/alice"), set()
            of = RealmConfig(name=made.name, roots=(made.root.public,), brokers=brokers)
            for _ in range(TRIES):
                async with how(operator, of) as attached:
                    found.add(attached.bus.broker)
            return found

    try:
        assert asyncio.run(main()) == {"broker/b2"}
    finally:
        network.close()


def test_a_command_has_the_time_to_leave_each_that_takes_a_connection_and_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = ZmqNetwork()

    async def main(hang: list[str]) -> str:
        async with asyncio.timeout(60), realm(network, tmp_path) as made:
            await made.broker("b1")
            last = made.brokers[0]
            monkeypatch.setattr(SystemEntropy, "uniform", lambda _self, low, _high: low)  # the first that is left is next
            brokers = (
                *((address, SecretKey(bytes([number]) * 32).public) for number, address in enumerate(hang)),
                (last.address, last.public),
            )
            of = RealmConfig(name=made.name, roots=(made.root.public,), brokers=brokers)
            async with reading(made.identity("operator/alice"), of, patience_s=1.0) as attached:
                return attached.bus.broker

    try:
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            assert asyncio.run(main([f"127.0.0.1:{at.getsockname()[1]}" for at in (one, two)])) == "broker/b1"
    finally:
        network.close()


@pytest.mark.parametrize(("takes_s", "asked"), [(0.1, 3), (0.3, 2), (0.6, 1)])
def test_who_is_far_away_measures_less_for_it_is_left_soon(takes_s: float, asked: int) -> None:
    link = _Far(takes_s)
    clock: Any = SimpleNamespace(boottime=lambda: link.now)
    assert len(asyncio.run(measure(link, clock))) == link.asked == asked


class _Far:
    """A link on which each round trip takes so long."""

    def __init__(self, takes_s: float) -> None:
        self.takes_s, self.now, self.asked = takes_s, 100.0, 0

    def send(self, _message: Any) -> None:
        self.asked += 1

    async def receive(self) -> list[Any]:
        self.now += self.takes_s
        return [pack(TimeIs(sent=self.now, realm_ms=1_000))]

    async def close(self) -> None: ...


@pytest.mark.parametrize(("brokers", "waits_s"), [(1, REFUSED_S), (2, FIRST_S), (3, 2 * FIRST_S)])
def test_who_is_refused_by_one_has_the_time_to_leave_others_that_hang(brokers: int, waits_s: float) -> None:
    refusal = RefusedError("broker.left", "broker/b1 is a broker of this realm no more")
    never: Any = SimpleNamespace(attached=False, refusal=refusal, wait_attached=lambda: asyncio.sleep(PATIENCE_S))
    every = [BrokerAddress(f"127.0.0.1:{port}", bytes([port]) * 32) for port in range(1, brokers + 1)]

    async def main() -> None:
        began = asyncio.get_running_loop().time()
        with pytest.raises(RefusedError, match="no more"):
            await connection._wait_attached(never, every, SimpleNamespace(), PATIENCE_S)  # type: ignore[arg-type]
        assert waits_s <= asyncio.get_running_loop().time() - began < PATIENCE_S

    run_alone(main())
