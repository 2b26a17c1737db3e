"""A broker's process is killed while others publish and read: nothing acknowledged is lost, and nobody sees a gap."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from dsmt.bus.adapters.sqlite import SqliteStore
from dsmt.bus.adapters.zeromq import ZmqNetwork
from dsmt.errors import FailedError
from dsmt.ports.bus import Draft, Start
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.birth import birth_record, open_store
from dsmt.programs.configuration import BrokerFile, RealmConfig, write_config
from dsmt.trust.identity import dump
from tests.bus.realm import TestRealm, reading, realm, until

PUBLISHERS = 3

pytestmark = pytest.mark.real


class KilledBroker:
    """A broker's process that is killed and started again on its directory."""

    def __init__(self, r: TestRealm) -> None:
        self.directory: Path = r.directory / "broker"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        identity = r.identity("broker/b1")
        config = RealmConfig(name=r.name, roots=(r.root.public,), brokers=((address, identity.key.public),))
        write_config(self.directory / "broker.cbor", BrokerFile(realm=config, address=address))
        (self.directory / "identity").write_bytes(dump(identity))
        store = open_store(self.directory)
        store.close()
        (self.directory / "birth").write_bytes(birth_record(r.name, "broker/b1", store.identity, r.root))
        r.brokers = [BrokerAddress(address, identity.key.public)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dsmt.programs.broker", str(self.directory)], stderr=log, stdout=log
            )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def run(tmp_path, scene) -> None:
    async def within() -> None:
        network = ZmqNetwork()
        try:
            async with asyncio.timeout(150), realm(network, tmp_path) as r:
                broker = KilledBroker(r)
                try:
                    broker.start()
                    await scene(r, broker)
                finally:
                    broker.kill()
        finally:
            network.close()

    asyncio.run(within())


class Publishers:
    """Clients that publish without pause: signals, and facts of which each follows the one that is known to be stored."""

    def __init__(self) -> None:
        self.emissions = [[] for _ in range(PUBLISHERS)]
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
            topic = f"user/p{number}/f{version % 7}"
            emission = client.emit(Draft(topic, {"n": version}, version=version, replaces=last.get(topic)))
            try:
                await emission.acknowledged()
            except FailedError:  # the link was lost: the history says what came of it
                if not await client.fetch([emission.id]):
                    continue
            last[topic] = emission.signed
            self.emissions[number].append(emission)

    @property
    def acknowledged(self) -> int:
        return sum(e.acked is not None for some in self.emissions for e in some)


async def _killed_while_publishing(r: TestRealm, broker: KilledBroker, kills: int) -> None:
    clients = [await r.client(f"operator/p{n}") for n in range(PUBLISHERS)]
    bob = await r.client("operator/bob")
    publishers = Publishers()
    async with reading(bob, "user/", start=Start.LIVE) as got, reading(bob, "user/", conflate=True) as folded:
        tasks = [asyncio.create_task(publishers.publish(client, n)) for n, client in enumerate(clients)]
        try:
            for _ in range(kills):
                before = publishers.acknowledged
                await until(lambda before=before: publishers.acknowledged > before + 20, 30)
                await asyncio.sleep(random.uniform(0, 0.05))
                broker.kill()
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


def test_a_broker_killed_while_three_publish_loses_nothing_and_nobody_sees_a_gap(tmp_path):
    run(tmp_path, lambda r, broker: _killed_while_publishing(r, broker, 2))


@pytest.mark.timeout(300)
def test_a_broker_killed_twenty_times_in_the_middle_of_commits_loses_nothing(tmp_path):
    run(tmp_path, lambda r, broker: _killed_while_publishing(r, broker, 20))


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
