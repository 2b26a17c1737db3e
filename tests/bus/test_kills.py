"""A broker's process is killed while others publish and read: nothing acknowledged is lost, and nobody sees a gap.

`make kills` kills `DSMT_KILL_ROUNDS` times; else it is a few times.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest

from dsmt.bus.client.emission import ClientEmission
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.errors import FailedError
from dsmt.event.envelope import EventId
from dsmt.ports.bus import Arrived, Draft, Level, Start
from tests.bus.processes import KilledBroker, is_whole, with_brokers
from tests.bus.realm import Reading, TestRealm, reading
from tests.waiting import until

PUBLISHERS = 3
ROUNDS = int(os.environ.get("DSMT_KILL_ROUNDS", "0"))
LARGE = 16 * 1024 * 1024
"""A store of so many bytes is looked at in each twentieth round."""

pytestmark = pytest.mark.real


def run(tmp_path, scene, *names: str, seconds: float = 60 + 15 * ROUNDS) -> None:
    with_brokers(tmp_path, scene, *names or ("b1",), seconds=seconds)


class Publishers:
    """Clients that publish without pause: signals, and facts of which each follows the one that is known to be stored."""

    def __init__(self, topics: int = 7) -> None:
        self.emissions, self.topics = [[] for _ in range(PUBLISHERS)], topics
        self.stopped = asyncio.Event()

    async def publish(self, client, number: int) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._signals(client, number))
            group.create_task(self._facts(client, number))

    async def _signals(self, client, number: int) -> None:
        count = 0
        while not self.stopped.is_set():
            for _ in range(5):
                count += 1
                self.emissions[number].append(client.emit(Draft(f"user/p{number}/s", {"n": count})))
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopped.wait(), 0.005)

    async def _facts(self, client, number: int) -> None:
        last = {}
        version = 0
        while not self.stopped.is_set():
            version += 1
            topic = f"user/p{number}/f{version % self.topics}"
            emission = client.emit(Draft(topic, {"n": version}, version=version, replaces=last.get(topic)))
            try:
                await emission.acknowledged()
            except FailedError:  # the link was lost: the history says what came of it
                if not await client.fetch([emission.id]):
                    continue
            last[topic] = emission.signed
            self.emissions[number].append(emission)

    @property
    def all(self) -> list[ClientEmission]:
        return [emission for some in self.emissions for emission in some]

    @property
    def acknowledged(self) -> int:
        return sum(e.acked is not None for e in self.all)


class Rows:
    """What stands in the rows of one broker's store, looked at in a copy while it is dead: no number is used twice."""

    def __init__(self, broker: KilledBroker) -> None:
        self.broker, self.rounds = broker, 0
        self.leaves: list[bytes] = []

    def look(self, acknowledged: Sequence[ClientEmission]) -> None:
        """Everything that was acknowledged is there, and every row is the one that it was."""
        self.rounds += 1
        path, copy = self.broker.directory / "store.db", self.broker.directory / "copy.db"
        if path.stat().st_size > LARGE and self.rounds % 20:
            return
        for end in ("", "-wal"):
            if Path(f"{path}{end}").exists():
                shutil.copy(f"{path}{end}", f"{copy}{end}")
        with closing(sqlite3.connect(copy)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            found = db.execute("SELECT row, leaf, source, incarnation, sequence FROM events ORDER BY row").fetchall()
        assert [row for row, *_ in found] == list(range(1, len(found) + 1))
        leaves = [leaf for _, leaf, *_ in found]
        assert leaves[: len(self.leaves)] == self.leaves, "no row has become another one"
        self.leaves = leaves
        there = {tuple(identity): leaf for _, leaf, *identity in found}
        assert [e.id for e in acknowledged if there.get(tuple(e.id)) != e.signed.leaf] == []


async def _killed_while_publishing(r: TestRealm, broker: KilledBroker, kills: int) -> None:
    clients = [await r.client(f"operator/p{n}") for n in range(PUBLISHERS)]
    bob = await r.client("operator/bob")
    publishers, rows = Publishers(), Rows(broker)
    async with reading(bob, "user/", start=Start.LIVE) as got, reading(bob, "user/", conflate=True) as folded:
        tasks = [asyncio.create_task(publishers.publish(client, n)) for n, client in enumerate(clients)]
        try:
            for _ in range(kills):
                before = publishers.acknowledged
                await until(lambda before=before: publishers.acknowledged > before + 20, 30)
                await asyncio.sleep(random.uniform(0, 0.05))
                acknowledged = [e for e in publishers.all if e.acked is not None]
                broker.kill()
                await asyncio.to_thread(rows.look, acknowledged)
                broker.start()
        finally:
            publishers.stopped.set()
            await asyncio.gather(*tasks)
        for some in publishers.emissions:
            for emission in some:
                if emission.pending.version is None:
                    await emission.acknowledged()
        for number, some in enumerate(publishers.emissions):
            expected = [e.pending.data["n"] for e in some if e.pending.topic == f"user/p{number}/s"]
            await got.until(lambda g, n=number, e=expected: len(g.of(f"user/p{n}/s")) >= len(e), 60)
            assert [d["n"] for d in got.of(f"user/p{number}/s")] == expected, "each once, and in order"
        assert got.types() == []
        newest = {e.pending.topic: e.pending.data["n"] for some in publishers.emissions for e in some if e.pending.version}
        await folded.until(lambda g: {t: g.of(t)[-1]["n"] for t in newest if g.of(t)} == newest, 60)
    await is_whole(r, broker)
    broker.kill()
    await asyncio.to_thread(_check_store, broker, publishers)


def _check_store(broker: KilledBroker, publishers: Publishers) -> None:
    store = SqliteStore(str(broker.directory / "store.db"), identity="0" * 16)
    try:
        assert store._db.one("PRAGMA integrity_check")[0] == "ok"
        for some in publishers.emissions:
            for emission in some:
                assert store.leaf(*emission.id) == emission.signed.leaf
        count = store._db.one("SELECT count(*) FROM events WHERE topic LIKE 'user/%'")[0]
        assert count == sum(map(len, publishers.emissions)), "every one exactly once"
    finally:
        store.close()


@pytest.mark.timeout(90 + 15 * ROUNDS)
def test_a_broker_killed_while_three_publish_loses_nothing_and_nobody_sees_a_gap(tmp_path):
    run(tmp_path, lambda r, broker: _killed_while_publishing(r, broker, ROUNDS or 4))


def _has_come(missing: set[EventId], got: Reading) -> bool:
    """Whether all these have come; what has come is looked at once."""
    for batch in got.batches:
        missing.difference_update(one.signed.id for one in batch if isinstance(one, Arrived))
    got.batches.clear()
    return not missing


async def _one_of_two_is_killed(r: TestRealm, *brokers: KilledBroker) -> None:
    clients = [await r.client(f"operator/p{n}") for n in range(PUBLISHERS)]
    # each fact on a topic of its own: who could not know whether it was stored is second, where it says another one (E2)
    publishers, rows = Publishers(topics=10**9), {broker: Rows(broker) for broker in brokers}

    def safe() -> list[ClientEmission]:
        return [e for e in publishers.all if e.acked is not None and e.acked.level is Level.SAFE]

    tasks = [asyncio.create_task(publishers.publish(client, n)) for n, client in enumerate(clients)]
    try:
        for _ in range(ROUNDS or 2):
            before = len(safe())
            # the other one reads the last minute again after each kill, before anything is safe with it
            await until(lambda before=before: len(safe()) > before + 20, 60 + ROUNDS)
            await asyncio.sleep(random.uniform(0, 0.05))
            held, broker = safe(), random.choice(brokers)
            broker.kill()
            await asyncio.to_thread(rows[broker].look, held)
            broker.start()
    finally:
        publishers.stopped.set()
        await asyncio.gather(*tasks)
    for emission in publishers.all:
        if emission.pending.version is None:
            await emission.acknowledged()
    for broker in brokers:
        watcher = await r.client(f"operator/w{brokers.index(broker)}", brokers=[broker.address])
        async with reading(watcher, "user/", wait=False, start=Start.HISTORY) as got:
            await got.until(partial(_has_come, {e.id for e in publishers.all}), 60 + ROUNDS)
        await r.stop(watcher)
        await is_whole(r, broker)
    for broker in brokers:
        broker.kill()
        rows[broker].rounds = -1
        await asyncio.to_thread(rows[broker].look, publishers.all)


@pytest.mark.timeout(90 + 15 * ROUNDS)
def test_what_is_safe_is_with_each_of_two_brokers_that_are_killed_in_turn(tmp_path):
    run(tmp_path, _one_of_two_is_killed, "b1", "b2")


def test_a_killed_broker_is_served_again_within_seconds_and_says_that_it_began_anew(tmp_path):
    async def scene(r: TestRealm, broker: KilledBroker) -> None:
        alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
        await alice.publish(Draft("user/t", {"n": 1}))
        async with reading(bob, "source/broker/b1", "broker/b1/session/", start=Start.HISTORY) as got:
            broker.kill()
            broker.start()
            began = time.monotonic()
            await alice.publish(Draft("user/t", {"n": 2}))
            assert time.monotonic() - began < 20
            await got.until(lambda g: len(g.of("source/broker/b1")) == 2)
            first, second = got.of("source/broker/b1")
            assert first["previous_incarnation"] is None
            assert second["previous_incarnation"] is not None
            session = "broker/b1/session/operator/alice"
            await got.until(lambda g: g.of(session)[-1]["attachment"] > g.of(session)[0]["attachment"])
            states = [d["state"] for d in got.of("broker/b1/session/operator/alice")]
            assert states == ["open", "open"], "a session is not closed by its broker's death"

    run(tmp_path, scene)


def test_a_second_broker_on_one_store_is_told_so(tmp_path):
    async def scene(r: TestRealm, broker: KilledBroker) -> None:
        await r.client("operator/alice")
        second = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "dsmt.programs.broker",
            str(broker.directory),
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            _, said = await asyncio.wait_for(second.communicate(), 30)
        finally:
            if second.returncode is None:
                second.kill()
                await second.wait()
        assert second.returncode != 0
        assert b"store.locked" in said

    run(tmp_path, scene)
