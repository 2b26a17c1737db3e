"""Three real servers, of which one is killed under a source that publishes: nothing that was acknowledged is lost.

`make nats` kills every kind of server, `DSMT_NATS_ROUNDS` times; else the leader is killed once.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.link import ApiError
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import DsmtError, FailedError
from dsmt.ports.bus import Draft, Level, Start
from tests.bus.nats_servers import NatsServers
from tests.bus.realm import TestClock, TestEntropy, TestRealm, memory_network, reading, realm

pytestmark = [pytest.mark.real, pytest.mark.timeout(300), pytest.mark.xdist_group("nats-kills")]
ROUNDS = int(os.environ.get("DSMT_NATS_ROUNDS", "0"))
LEADER = ("the leader", "to it")
KILLS = [LEADER, ("the leader", "to another"), ("a follower", "to it")] if ROUNDS else [LEADER]
BOUND_S = 40.0
"""An election takes up to nine seconds, by constants of the server; two cores are shared with everybody."""


@asynccontextmanager
async def cluster(tmp_path) -> AsyncIterator[tuple[NatsServers, TestRealm, Subjects]]:
    async with realm(memory_network(), tmp_path) as made:
        servers = NatsServers(3)
        try:
            servers.start()
            yield servers, made, await servers.make(made.name)
        finally:
            servers.close()


class First(TestEntropy):
    """Chooses the same server each time; while that one is gone the next is taken."""

    def __init__(self, server: int | None) -> None:
        self._server = server

    def uniform(self, low: float, high: float) -> float:
        return super().uniform(low, high) if self._server is None or high < 3 else self._server


async def bus(
    made: TestRealm, servers: NatsServers, name: str, *, only: list[str] | None = None, first: int | None = None
) -> NatsBus:
    one = NatsBus(
        identity=made.identity(name),
        trust=made.trust(),
        realm=servers.realm(addresses=only),
        clock=TestClock(),
        entropy=First(first),
    )
    made.tasks[one] = asyncio.create_task(one.run())
    await asyncio.wait_for(one.wait_attached(), 30)
    return one


async def leader(servers: NatsServers, stream: str) -> int:
    """Which server leads a stream."""
    deadline = time.monotonic() + BOUND_S
    while True:
        try:
            link = await servers.administrator()
            try:
                told = await link.api(f"STREAM.INFO.{stream}")
            finally:
                await link.close()
            name = told.get("cluster", {}).get("leader", "")
            others = told["cluster"].get("replicas", [])
            if name and len(others) == 2 and all(one.get("current") for one in others):
                return int(name[1:])
        except (DsmtError, ApiError):
            pass
        assert time.monotonic() < deadline, f"nobody leads {stream}"
        await asyncio.sleep(0.1)


class Publishing:
    """A source that never stops saying signals and facts, and notes what was acknowledged."""

    def __init__(self, one: NatsBus) -> None:
        self._bus = one
        self.signals: list[int] = []
        self.facts: set[str] = set()
        self.unknown: set[str] = set()
        """Facts of which it was told that nobody knows: they may be there or not."""
        self.silence = 0.0
        """The longest time without an acknowledgement."""
        self.last = time.monotonic()
        self.stopping = False

    async def run(self) -> None:
        n = 0
        while not self.stopping:
            signals = [self._bus.emit(Draft("user/t", {"n": n + i})) for i in range(20)]
            fact = self._bus.emit(Draft(f"user/f/{n}", {"n": n}, version=1))
            for one in signals:
                await one.acknowledged()
            try:
                await fact.acknowledged()
            except FailedError:
                self.unknown.add(f"user/f/{n}")
            else:
                self.facts.add(f"user/f/{n}")
            now = time.monotonic()
            self.silence, self.last = max(self.silence, now - self.last), now
            self.signals += range(n, n + 20)
            n += 20


def facts_of(got) -> set[str]:
    return {one.signed.event.topic for one in got.arrived if one.signed.event.topic.startswith("user/f/")}


@pytest.mark.parametrize("round_", range(max(1, ROUNDS)))
@pytest.mark.parametrize(("killed", "link"), KILLS)
def test_no_acknowledged_event_is_lost_when_a_server_of_three_is_killed(
    tmp_path, killed: str, link: str, round_: int, capsys
) -> None:
    async def within() -> None:
        async with asyncio.timeout(240), cluster(tmp_path) as (servers, made, subjects):
            first = await leader(servers, subjects.history)
            victim = first if killed == "the leader" else (first + 1) % 3
            alice = await bus(made, servers, "operator/alice", first=victim if link == "to it" else (victim + 1) % 3)
            bob = await bus(made, servers, "operator/bob", only=[a for n, a in enumerate(servers.addresses) if n != victim])
            assert alice.can.level is Level.SAFE
            saying = Publishing(alice)
            async with reading(bob, "user/", start=Start.LIVE) as got:
                task = asyncio.create_task(saying.run())
                await got.until(lambda g: len(g.arrived) > 200)
                servers.stop(victim, hard=True)
                at, before = time.monotonic(), len(saying.signals)
                while len(saying.signals) < before + 200 or saying.last < at:
                    assert not task.done(), task.exception()
                    assert time.monotonic() < at + BOUND_S, "nothing was acknowledged after the kill"
                    await asyncio.sleep(0.01)
                saying.stopping = True
                await task
                await got.until(lambda g: g.of("user/t")[-1:] == [{"n": saying.signals[-1]}], seconds=BOUND_S)
                await got.until(
                    lambda g: saying.facts <= facts_of(g), seconds=BOUND_S
                )  # one may be stored after the last signal
                assert [data["n"] for data in got.of("user/t")] == saying.signals
                assert saying.facts <= facts_of(got) <= saying.facts | saying.unknown
                assert got.types() == []
            servers.start(victim)
            await leader(servers, subjects.history)
            carol = await bus(made, servers, "operator/carol", only=[servers.addresses[victim]])
            async with reading(carol, "user/", start=Start.HISTORY) as whole:
                assert [data["n"] for data in whole.of("user/t")] == saying.signals
            async with reading(carol, "user/") as held:
                assert saying.facts <= facts_of(held) <= saying.facts | saying.unknown
            with capsys.disabled():
                said = (
                    f"{killed} killed, with a link {link}: {saying.silence:.2f} s without an acknowledgement, nothing lost"
                )
                sys.stdout.write(f"\n{said} ")

    asyncio.run(within())


@pytest.mark.skipif(not ROUNDS, reason="takes half a minute: make nats")
def test_with_one_server_of_three_left_nothing_is_acknowledged_and_nothing_lost(tmp_path) -> None:
    async def within() -> None:
        async with asyncio.timeout(120), cluster(tmp_path) as (servers, made, subjects):
            stays = await leader(servers, subjects.history)
            alice = await bus(made, servers, "operator/alice")
            await alice.publish(Draft("user/t", {"n": 0}))
            gone = [n for n in range(3) if n != stays]
            servers.stop(*gone, hard=True)
            waiting, fact = alice.emit(Draft("user/t", {"n": 1})), alice.emit(Draft("user/f", {"n": 1}, version=1))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(waiting.acknowledged(), 3.0)
            with pytest.raises(FailedError, match="may be stored or not"):
                await asyncio.wait_for(fact.acknowledged(), 30)
            servers.start(*gone)
            await asyncio.wait_for(waiting.acknowledged(), 40)
            bob = await bus(made, servers, "operator/bob")
            async with reading(bob, "user/", start=Start.HISTORY) as got:
                assert got.of("user/t") == [{"n": 0}, {"n": 1}]

    asyncio.run(within())


@pytest.mark.parametrize("count", [1, 3])
def test_of_many_who_replace_one_fact_at_once_one_is_told_that_it_was_stored(tmp_path, count: int) -> None:
    async def within() -> None:
        async with asyncio.timeout(90), realm(memory_network(), tmp_path) as made:
            servers = NatsServers(count)
            try:
                servers.start()
                await servers.make(made.name)
                buses = [await bus(made, servers, f"operator/w{n}") for n in range(6)]
                held = None
                for turn in range(1, 11):
                    said = [one.emit(Draft("user/f", {"by": one.source}, replaces=held, version=turn)) for one in buses]
                    told = await asyncio.gather(*(one.acknowledged() for one in said), return_exceptions=True)
                    won = [one for one, ack in zip(said, told, strict=True) if not isinstance(ack, BaseException)]
                    assert len(won) == 1, f"turn {turn}: {len(won)} were told that they were first"
                    assert {one.code for one in told if isinstance(one, DsmtError)} == {"stale"}
                    held = won[0].signed
                    async with reading(buses[turn % 6], "user/f") as got:
                        assert [one.signed.id for one in got.arrived] == [held.id]
            finally:
                servers.close()

    asyncio.run(within())
