"""A realm that runs moves from its brokers to NATS: no service is restarted, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path

import pytest

from dsmt.bus.adapters.nats_link import NatsLink, NatsRealm
from dsmt.errors import DsmtError, RefusedError, TransportError
from dsmt.event.envelope import EventId
from dsmt.operations.local import migrating
from dsmt.operations.local.connection import connect
from dsmt.operations.local.home import SERVERS, Home
from dsmt.operations.local.machine import up
from dsmt.operations.local.wanted import Wanted
from dsmt.ports.bus import Arrived, Bus, Draft, Interest, Notice, Start
from dsmt.ports.processes import Identity
from dsmt.programs.configuration import GateFile, read_config
from dsmt.programs.keeper import KeeperFile
from dsmt.system.records import living, record_path
from dsmt.trust.keys import SecretKey
from tests.real.fleet import PATIENCE_S, attached, end, eventually, gone, web_spec

pytestmark = [pytest.mark.real, pytest.mark.timeout(120), pytest.mark.xdist_group("nats")]

WEB = web_spec(3)


BLOB = os.urandom(700_000)


async def pieces() -> AsyncIterator[bytes]:
    for start in range(0, len(BLOB), 100_000):
        yield BLOB[start : start + 100_000]


class Publisher:
    """Says something again and again, over whatever carries the realm, and keeps what was acknowledged."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.acknowledged: list[EventId] = []
        self.ends = False

    async def run(self) -> None:
        while not self.ends:
            with suppress(DsmtError, TimeoutError):
                async with connect(self._home.operator(), self._home.realm()) as connection:
                    while not self.ends:
                        await self._say(connection.bus)

    async def _say(self, bus: Bus) -> None:
        emission = bus.emit(Draft("user/test/said", {"n": len(self.acknowledged)}))
        async with asyncio.timeout(1.0):
            await emission.acknowledged()
        assert emission.id is not None
        self.acknowledged.append(emission.id)


@asynccontextmanager
async def publishing(home: Home) -> AsyncIterator[Publisher]:
    publisher = Publisher(home)
    running = asyncio.create_task(publisher.run())
    try:
        yield publisher
        before = len(publisher.acknowledged)
        await eventually("more that is acknowledged", lambda: len(publisher.acknowledged) > before + 5)
    finally:
        publisher.ends = True
        await running


async def begun(home: Home, brokers: int = 1) -> dict[tuple[str, int, str], int]:
    """A realm of two nodes with a service; the pids of its instances."""
    await up(home, Wanted(nodes=2, controllers=1, brokers=brokers, name="test", engine="dsmt"))
    async with attached(home, nodes=2) as made:
        await made.apply(WEB)
        await made.ready("web", 3)
        return made.pids("web")


def running(directory: Path, program: str) -> Identity | None:
    return living(record_path(str(directory), program))


async def moved(home: Home) -> None:
    started = await migrating.cut(home, tell=lambda _: None)
    async with attached(home, nodes=len(started.nodes)):
        await migrating.finish(home)


def within(home: Home, work: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        try:
            await work()
        finally:
            await end(home)

    asyncio.run(run())


async def commanded(home: Home, *words: str) -> str:
    """What a command line says that ends well."""
    environment = {**os.environ, "DSMT_HOME": str(home.root)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dsmt", *words, env=environment, stdout=PIPE, stderr=STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


async def stands(home: Home, publisher: Publisher, before: dict[tuple[str, int, str], int]) -> None:
    """All is as it was: instances, events, and nobody was judged dead."""
    async with attached(home, nodes=2) as made:
        await made.ready("web", 3)
        assert made.pids("web") == before
        made.acknowledged = list(publisher.acknowledged)  # it may go on
        assert await made.missing() == []
        async with made.connection.bus.subscribe(Interest(("/",), start=Start.HISTORY, follow=False)) as batches:
            found = [one async for batch in batches for one in batch]
        said = [one.signed for one in found if isinstance(one, Arrived)]
        assert not [one for one in said if one.event.topic.endswith("/verdict")]
        assert {one.id for one in said}.issuperset(made.acknowledged)
        assert [one for one in found if isinstance(one, Notice)] == []


def test_a_realm_moves_to_nats_and_no_service_is_restarted(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    async def work() -> None:
        before = await begun(home)
        async with publishing(home) as publisher:
            assert await migrating.begin(home)
            async with connect(home.operator(), home.realm()) as connection:
                await connection.bus.put_blob(pieces(), sha256(BLOB).digest())
            seed = read_config(home.part(SERVERS, "b1") / "gate.cbor", GateFile).bridge
            await eventually("a hundred words", lambda: len(publisher.acknowledged) > 100)
            bridge = running(home.migration, "bridge")
            assert bridge is not None
            os.kill(bridge.pid, signal.SIGKILL)
            await eventually("another bridge", lambda: running(home.migration, "bridge") not in (None, bridge))
            keeper = running(home.root / "keeper", "spawner")
            assert keeper is not None
            os.kill(keeper.pid, signal.SIGKILL)
            await eventually("another keeper", lambda: running(home.root / "keeper", "spawner") not in (None, keeper))
            assert "nobody has moved" in await commanded(home, "bus", "migrate", "nats")
            assert "no service was restarted" in await commanded(home, "bus", "migrate", "--cut")
        await stands(home, publisher, before)
        (aside,) = home.root.glob("brokers.dsmt-*")
        assert (aside / "b1" / "store.db").exists()
        assert not home.migration.exists()
        gate = read_config(home.part("brokers", "b1") / "gate.cbor", GateFile)
        assert gate.bridge == b""
        realm = home.realm()
        servers = NatsRealm(tuple(at for at, _ in realm.brokers), authority=realm.nats.authority, gated=True)
        with pytest.raises(TransportError, match="does not answer"):  # a gate answers nobody who shows no certificate
            await NatsLink.connect(servers.servers[0], servers, key=SecretKey(seed), name="bridge")
        async with connect(home.operator(), home.realm()) as connection:
            assert b"".join([one async for one in connection.bus.get_blob(sha256(BLOB).digest())]) == BLOB
        await works(home)

    within(home, work)


async def works(home: Home) -> None:
    """Commands see what was said before, and what is killed is repaired."""
    assert "web" in await commanded(home, "status")
    assert "running" in await commanded(home, "ps")
    assert "web/app/0" in await commanded(home, "why", "web/app/0")
    assert "1" in await commanded(home, "history", "web")
    await commanded(home, "restart", "web/app/0", "--wait")
    async with attached(home, nodes=2) as made:
        found = await made.ready("web", 3)
        key, instance = next(iter(found.items()))
        assert instance.application is not None
        pid = instance.application.record.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await made.watch.until("the next one", lambda: made.pids("web").get(key, pid) != pid, PATIENCE_S)


def test_a_move_that_is_aborted_leaves_the_realm_as_it_was(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    async def work() -> None:
        before = await begun(home)
        realm = home.realm()
        async with publishing(home) as publisher:
            assert await migrating.begin(home)
            await migrating.level(home, lambda _: None)
            server, bridge = running(home.part(SERVERS, "b1"), "nats_server"), running(home.migration, "bridge")
            broker = running(home.part("brokers", "b1"), "broker")
            assert await migrating.abort(home) is None
            assert server is not None
            assert bridge is not None
            await gone(server, bridge)
        assert running(home.part("brokers", "b1"), "broker") == broker
        assert home.realm() == realm
        assert not list(home.root.glob("migration*"))
        kept = read_config(home.root / "keeper" / "keeper.cbor", KeeperFile).kept
        assert {program for program, _ in kept} == {"broker", "controller"}
        await stands(home, publisher, before)
        assert await migrating.begin(home)  # `down` ends a move that is under way, too

    within(home, work)


STEPS = ("end_own", "_drain", "_settle", "reach_at", "_start")


class Killed(BaseException):
    """The command is killed here."""


def test_a_cut_that_is_killed_anywhere_goes_on_or_back(tmp_path: Path, monkeypatch) -> None:
    home = Home(tmp_path / "home")

    async def killed_at(step: str, *, after: bool) -> None:
        real = getattr(migrating, step)

        def dies(*values, **more):
            if after and step in ("_settle", "reach_at"):
                real(*values, **more)
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(migrating, step, dies)
            with pytest.raises(Killed):
                await migrating.cut(home, tell=lambda _: None)

    async def work() -> None:
        before = await begun(home)
        async with publishing(home) as publisher:
            await migrating.begin(home)
            await migrating.level(home, lambda _: None)
            await killed_at("_drain", after=False)
            with pytest.raises(RefusedError, match="is being moved to NATS, and was not started again"):
                await up(home, Wanted())
            assert await migrating.abort(home) is not None
            await stands(home, publisher, before)
            await migrating.begin(home)
            await migrating.level(home, lambda _: None)
            for step in STEPS:
                await killed_at(step, after=True)
                if step not in ("reach_at", "_start"):
                    assert home.realm().nats is None
            with pytest.raises(RefusedError, match="it is too late to abort"):
                await migrating.abort(home)
            await moved(home)
        await stands(home, publisher, before)

    within(home, work)
