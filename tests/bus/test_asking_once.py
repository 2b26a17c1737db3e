"""Which broker a command asks: one that has what all others have, if there is one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.broker.broker import Broker
from dsmt.bus.client.brokers import FIRST_S
from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.errors import RefusedError
from dsmt.operations import connection
from dsmt.operations.connection import PATIENCE_S, REFUSED_S, connect, reading
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.configuration import RealmConfig
from tests.bus.idle import run_alone
from tests.bus.realm import TestRealm, realm, scenario
from tests.waiting import until

TRIES = 8
"""Each client begins at any of two brokers: so many find the same one by chance each 256th time."""


def filled(broker: Broker) -> Broker:
    """A broker that lacks what others have."""
    broker._admission._is_whole = lambda: False
    return broker


@scenario
async def test_a_command_leaves_a_broker_that_lacks_something_and_a_program_does_not(r: TestRealm) -> None:
    filled(await r.broker("b1"))
    await r.broker("b2")
    commands = [await r.client(f"operator/a{n}", asks_once=True) for n in range(TRIES)]
    assert {one.broker for one in commands} == {"broker/b2"}
    program = await r.client("operator/eve", brokers=r.brokers[:1])
    assert program.broker == "broker/b1"


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
