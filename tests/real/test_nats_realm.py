"""A realm that is carried by NATS, with real processes: what is killed comes back, and who was revoked is out."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from dsmt.demo import Line, demo
from dsmt.errors import FailedError, InputError, RefusedError
from dsmt.operations.connection import attached as attached_as
from dsmt.operations.connection import connect
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import init, issue
from dsmt.operations.local.members import brokers, servers
from dsmt.operations.local.processes.ending import down
from dsmt.operations.local.up.machine import up
from dsmt.operations.local.up.wanted import Wanted, check_same
from dsmt.operations.read.realm.sight import look
from dsmt.operations.read.rows.broker_rows import broker_rows
from dsmt.operations.words.telling import silent
from dsmt.ports.bus import Draft
from dsmt.ports.processes import ProcessIdentity
from dsmt.programs import nats_server
from dsmt.programs.configuration import ServersKey, read_config
from dsmt.system.fork import LOG_CAP
from dsmt.system.procfs import is_alive
from dsmt.system.records import process_of
from dsmt.trust.revocations import topic_of
from tests.operations.scripted import ScriptedBus
from tests.real.fleet import Fleet, attached, end, eventually, fleet, processes_of, web_spec
from tests.waiting import told

pytestmark = [pytest.mark.real, pytest.mark.timeout(300), pytest.mark.xdist_group("nats-realm")]

WEB = web_spec(2)


def on_nats(**wanted: int) -> Callable[[Callable[[Fleet], Awaitable[None]]], Callable[[Path], None]]:
    def decorated(test: Callable[[Fleet], Awaitable[None]]) -> Callable[[Path], None]:
        def run(tmp_path: Path) -> None:
            async def within() -> None:
                async with fleet(tmp_path, engine="nats", **wanted) as made:
                    await test(made)

            asyncio.run(within())

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorated


def kill(fleet: Fleet, name: str, *programs: str) -> list[ProcessIdentity]:
    found = [fleet.record("brokers", name, program) for program in programs]
    for one in found:
        with suppress(ProcessLookupError):  # a gate ends by itself when its server has gone
            os.kill(one.pid, signal.SIGKILL)
    return found


def test_the_demo_repairs_an_instance_and_a_node_on_nats_and_leaves_nothing() -> None:
    lines: list[Line] = []
    result = asyncio.run(demo(lines.append, engine="nats"))
    assert result.ok
    assert result.instance_restart_ms is not None
    assert result.node_repair_ms is not None
    assert any("session lost, broker/b1" in line.text for line in lines)
    assert not Path(result.home).exists()
    assert processes_of(Path(result.home)) == {}


@on_nats(nodes=2)
async def test_a_killed_server_and_a_killed_gate_come_back_and_nothing_was_lost(made: Fleet) -> None:
    log = made.home.part("brokers", "b1") / "nats_server.log"
    told = json.loads((log.parent / "server.conf").read_text())
    assert (told["log_file"], told["logfile_size_limit"]) == (str(log), LOG_CAP), "it bounds its log itself"
    assert "Server is ready" in log.read_text()
    await made.apply(WEB)
    await made.ready("web", 2)
    before = made.pids("web")
    await made.say()
    for programs in (("nats_server",), ("broker",), ("nats_server", "broker")):
        killed = kill(made, "b1", *programs)
        for program, one in zip(programs, killed, strict=True):
            await made.replaced("brokers", "b1", program, one)
        await made.say()
        async with connect(made.home.operator(), made.home.realm(), patience_s=30.0) as another:
            await another.bus.publish(Draft("user/test/again", {}))
    assert await made.missing() == []
    assert {node: made.watch.sight().fleet.state(node) for node in ("n1", "n2")} == {"n1": "alive", "n2": "alive"}
    assert made.pids("web") == before


@on_nats(nodes=1, controllers=1)
async def test_a_revoked_operator_is_out_and_what_needs_a_store_is_refused(made: Fleet) -> None:
    root = made.home.root_key()
    eve, realm = issue(root, "operator/eve"), made.home.realm()
    async with connect(eve, realm) as connection:
        await connection.bus.publish(Draft("user/test/eve", {}))
        async with attached_as(issue(root, "root", key=root), realm) as by_root:
            await by_root.bus.publish(Draft(topic_of(eve.key.key_id, "root"), {"by": "root", "reason": "stolen"}))
        await eventually("that it is out", lambda: not connection.bus.attached, 5.0)
    with pytest.raises(RefusedError, match="does not let operator/eve"):
        async with connect(eve, realm):
            pass
    with pytest.raises(RefusedError, match="this bus cannot prove its history"):
        await made.connection.bus.head()


@pytest.mark.parametrize("brokers", [1, 3])
def test_up_again_finds_what_is_there(tmp_path: Path, brokers: int) -> None:
    home = Home(tmp_path / "home")

    async def within() -> None:
        try:
            await up(home, Wanted(nodes=1, controllers=1, brokers=brokers, engine="nats"))
            async with attached(home, nodes=1) as made:
                await made.apply(WEB)
                await made.say()
            ended = await down(home)
            assert ended.stuck == ()
            assert processes_of(home.root) == {}
            await up(home, Wanted())
            async with attached(home, nodes=1) as again:
                again.acknowledged = made.acknowledged
                assert await again.missing() == []
                await again.ready("web", 2)
        finally:
            await end(home)

    asyncio.run(within())


@on_nats(nodes=2, brokers=3)
async def test_of_three_servers_one_may_die_with_its_gate(made: Fleet) -> None:
    async with asyncio.TaskGroup() as saying:
        for _ in range(20):
            saying.create_task(made.say())
        kill(made, "b2", "nats_server", "broker")
    await made.say()
    assert await made.missing() == []

    def alive() -> bool:
        fleet = made.watch.sight().fleet
        return all(fleet.state(node) == "alive" for node in ("n1", "n2"))

    await made.watch.until("both nodes alive", alive, 30)
    assert not any(seen.signed.event.topic.endswith("/verdict") for seen in made.watch.seen)


@on_nats(nodes=1, brokers=3)
async def test_a_server_is_added_and_one_is_given_up_and_nothing_is_lost_and_never_are_fewer_than_three(made: Fleet) -> None:
    bus, now_s = made.connection.bus, int(time.time())
    saying = asyncio.create_task(keep_saying(made))
    with pytest.raises(RefusedError, match="b1 is one of 3 NATS servers, and no fewer than 3"):
        await brokers.remove(made.home, bus, "b1", by="test", reason="", waits=silent)
    at = await brokers.add(made.home, bus, "b4", listen=None, by="test", reason="", now_s=now_s, waits=silent, leaf=False)
    gone = [made.record("brokers", "b1", program) for program in ("nats_server", "broker")]
    await heard(made, "b4", True)
    gate = made.record("brokers", "b2", "broker").pid
    os.kill(gate, signal.SIGSTOP)
    await heard(made, "b2", False)
    for other in ("b3", "b4"):
        await heard(made, other, True)
    told: list[str] = []

    def waits(said: str) -> None:
        told.append(said)
        os.kill(gate, signal.SIGCONT)

    await brokers.remove(made.home, bus, "b1", by="test", reason="", waits=waits)
    assert told == ["b2 is silent"]
    assert not any(is_alive(one) for one in gone)
    assert made.home.names("brokers") == ["b2", "b3", "b4"]
    assert at.address in {address for address, _ in made.home.realm().brokers}
    await saying
    assert await made.missing() == []
    with pytest.raises(RefusedError, match="without b4 only b2, b3 of the others are there"):
        await brokers.remove(made.home, bus, "b4", by="test", reason="", waits=silent)


async def keep_saying(made: Fleet) -> None:
    for _ in range(100):
        await made.say()


async def heard(made: Fleet, broker: str, wanted: bool) -> None:
    """Wait until a broker is heard, or is not any more."""

    async def as_wanted() -> bool:
        sight = await look(made.connection.bus, passing=True)
        return wanted == any(one.alive and one.broker == broker for one in broker_rows(sight, []))

    await told(as_wanted, f"{broker} is heard: {wanted}", 30)


def test_the_engine_of_a_realm_and_its_servers_are_chosen_once(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with pytest.raises(InputError, match="a realm has 1, 3 or 5 of them"):
        asyncio.run(up(home, Wanted(engine="nats", brokers=2)))
    realm = init(home, name="test", nats=True, brokers=3)
    assert realm.nats is not None
    assert realm.nats.replicas == 3
    for wanted, said in (
        (Wanted(engine="dsmt"), "is carried by nats, and is not moved by `up`"),
        (Wanted(brokers=5), "keeps as many NATS servers as it has, 3"),
    ):
        with pytest.raises(RefusedError, match=said):
            check_same(home, wanted)
    check_same(home, Wanted(engine="nats", brokers=3))
    servers.check_grows(realm)
    alone = init(Home(tmp_path / "alone"), name="test", nats=True)
    with pytest.raises(RefusedError, match="born with one NATS server, and one that stands alone cannot become a cluster"):
        servers.check_grows(alone)
    asked = brokers.remove(Home(tmp_path / "alone"), ScriptedBus((), now_ms=0), "b1", by="root", reason="", waits=silent)
    with pytest.raises(RefusedError, match="b1 is the only NATS server") as last:
        asyncio.run(asked)
    assert last.value.next.startswith("dsmt bus migrate dsmt"), "no other one may be added"
    with pytest.raises(RefusedError, match="on NATS there is no leaf"):
        servers.check_mesh(leaf=True)
    (home.root / "servers.key").rename(tmp_path / "away")
    with pytest.raises(RefusedError, match=r"servers\.key is missing"):
        servers.key_of(home)
    (tmp_path / "away").rename(home.root / "servers.key")
    assert (home.root / "servers.key").stat().st_mode & 0o077 == 0
    key = read_config(home.root / "servers.key", ServersKey)
    for name in ("b1", "b2", "b3"):
        held = b"".join(file.read_bytes() for file in home.part("brokers", name).iterdir())
        assert key.authority.encode() not in held, "the authority's key is in the home alone"
        for file in ("gate.cbor", "server.key", "identity"):
            assert (home.part("brokers", name) / file).stat().st_mode & 0o077 == 0


def test_where_nothing_of_nats_is_installed_that_is_said_and_no_home_is_left(tmp_path: Path, monkeypatch) -> None:
    home = Home(tmp_path / "home")
    monkeypatch.setattr(nats_server.shutil, "which", lambda _: None)
    monkeypatch.setattr(nats_server.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(FailedError, match="nats-server is not installed here") as told:
        asyncio.run(up(home, Wanted(engine="nats")))
    assert "dsmt[nats]" in told.value.next
    assert not home.exists
    assert process_of(home.root / "keeper", "spawner") is None
