"""Which broker a command asks: one that is whole, if there is one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.errors import TransportError
from dsmt.operations import connection
from dsmt.operations.connection import connect, reading
from dsmt.ports.bus import Complete, Cursor
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.configuration import RealmConfig
from tests.bus.realm import realm

B1, B2, B3 = (BrokerAddress(f"127.0.0.1:{port}", bytes([port]) * 32) for port in (1, 2, 3))
FILE: Any = object()


class Brokers:
    """Attaches to the first of those that are asked for; `whole` are those that are."""

    def __init__(self, *whole: BrokerAddress, away: tuple[BrokerAddress, ...] = ()) -> None:
        self.whole, self.away = whole, away
        self.first: BrokerAddress | None = None
        """Where it is at first, of those that its home has heard of."""
        self.asked: list[tuple[list[BrokerAddress], bool, bool]] = []

    @asynccontextmanager
    async def attached(
        self, _who: object, realm: Any, brokers: Any, _patience_s: float, *, known: object = None, reads: bool
    ) -> AsyncIterator[Any]:
        reached = brokers or ([self.first] if self.first is not None else realm.addresses)
        self.asked.append((reached, known is not None, reads))
        if reached[0] in self.away:
            raise TransportError("bus.unreachable", "nobody answers", next="try again")
        yield SimpleNamespace(bus=self.bus(reached[0]), at=reached[0])

    def bus(self, one: BrokerAddress) -> Any:
        async def said() -> AsyncIterator[Any]:
            yield [Complete(Cursor("s", 1, 1), one in self.whole)]

        @asynccontextmanager
        async def subscribe(_: object) -> AsyncIterator[Any]:
            yield said()

        return SimpleNamespace(subscribe=subscribe)


async def all_answer(brokers: list[BrokerAddress]) -> list[BrokerAddress]:
    return brokers


@pytest.fixture
def asks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., BrokerAddress]:
    """Where a command is in the end."""

    def ask(
        brokers: Brokers, *every: BrokerAddress, how: Any = reading, nats: object = None, known: Any = FILE
    ) -> BrokerAddress:
        monkeypatch.setattr(connection, "_attached", brokers.attached)
        monkeypatch.setattr(connection, "_answering", all_answer)
        monkeypatch.setattr(connection, "_program", lambda operator: operator)
        operator, realm = SimpleNamespace(), SimpleNamespace(addresses=list(every), nats=nats)

        async def main() -> BrokerAddress:
            async with how(operator, realm, known=known) as found:
                at: BrokerAddress = found.at
                return at

        return asyncio.run(main())

    return ask


@pytest.mark.parametrize("how", [reading, connect])
def test_where_one_is_being_filled_another_one_that_is_whole_is_asked(asks: Any, how: Any) -> None:
    brokers = Brokers(B3, away=(B2,))
    assert asks(brokers, B1, B2, B3, how=how) == B3
    says = how is connect
    probes = [([one], False, True) for one in (B1, B2, B3)]
    assert brokers.asked == [([B1, B2, B3], True, not says), *probes, ([B3], False, not says)]


def test_where_none_is_whole_any_is_asked_and_where_the_first_is_no_other(asks: Any) -> None:
    assert asks(Brokers(), B1, B2) == B1
    brokers = Brokers(B1)
    assert asks(brokers, B1, B2) == B1
    assert len(brokers.asked) == 1


@pytest.mark.parametrize(("every", "nats"), [((B1,), None), ((B1, B2), object())])
def test_who_is_named_alone_and_who_is_on_nats_is_not_asked_whether_it_is_whole(asks: Any, every: Any, nats: Any) -> None:
    brokers = Brokers()
    assert asks(brokers, *every, nats=nats, known=None) == B1
    assert len(brokers.asked) == 1


def test_one_that_a_home_has_heard_of_is_left_for_the_one_that_it_names(asks: Any) -> None:
    brokers = Brokers(B1)
    brokers.first = B2
    assert asks(brokers, B1) == B1


def test_what_is_done_while_it_is_attached_fails_as_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no broker that does not answer."""
    brokers = Brokers(B2)
    monkeypatch.setattr(connection, "_attached", brokers.attached)
    monkeypatch.setattr(connection, "_answering", all_answer)
    operator: Any = SimpleNamespace()
    realm: Any = SimpleNamespace(addresses=[B1, B2], nats=None)

    async def main() -> None:
        async with reading(operator, realm):
            raise TransportError("bus.slow", "it did not come", next="try again")

    with pytest.raises(TransportError, match="it did not come"):
        asyncio.run(main())
    assert len(brokers.asked) == 4


def test_of_two_real_brokers_the_one_that_is_whole_answers_each_command(tmp_path: Path) -> None:
    network = ZmqNetwork()

    async def main() -> set[str]:
        async with asyncio.timeout(60), realm(network, tmp_path) as made:
            filled, _ = await made.broker("b1"), await made.broker("b2")
            filled._fan_out._whole = lambda: False
            brokers = tuple((one.address, one.public) for one in made.brokers)
            operator = made.identity("operator/alice")
            of = RealmConfig(name=made.name, roots=(made.root.public,), brokers=brokers)
            found = set()
            for how in (reading, connect) * 4:
                async with how(operator, of) as attached:
                    found.add(attached.bus.broker)
            return found

    try:
        assert asyncio.run(main()) == {"broker/b2"}
    finally:
        network.close()
