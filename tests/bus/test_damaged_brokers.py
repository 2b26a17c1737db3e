"""Brokers whose stores are damaged, or are those of others: they go on with what is sound in them (rule B11)."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest

from dsmt.event.envelope import EventId
from dsmt.ports.bus import Draft, Start
from tests.bus.processes import KilledBroker, is_whole, with_brokers
from tests.bus.realm import TestRealm, reading
from tests.waiting import until

PAGE = 4096


async def _said(r: TestRealm, broker: KilledBroker) -> list[str]:
    """What a broker says of damage: by notice, and in its stats."""
    reader = await r.client("operator/looks", reads=True, brokers=[broker.address])
    topics = (f"{broker.name}/notice", f"{broker.name}/stats")
    async with reading(reader, *topics, start=Start.HISTORY) as got:
        await got.until(lambda g: any(one.get("kind") == "damaged" for one in g.of(topics[0])))
        notices = [one["message"] for one in got.of(topics[0]) if one["kind"] == "damaged"]
        await got.until(lambda g: any("damaged" in one for one in g.of(topics[1])))
    await r.stop(reader)
    return notices


async def _filled(r: TestRealm, broker: KilledBroker, count: int = 150) -> list[EventId]:
    alice = await r.client("operator/alice", brokers=[broker.address])
    facts = [alice.emit(Draft(f"user/f{n}", {"n": n, "pad": "x" * 300}, version=1)) for n in range(count)]
    signals = [alice.emit(Draft("user/s", {"n": n})) for n in range(count)]
    for emission in (*facts, *signals):
        await emission.acknowledged()
    await r.stop(alice)
    return [emission.id for emission in (*facts, *signals)]


async def _holds(r: TestRealm, broker: KilledBroker, wanted: set[EventId]) -> None:
    """Wait until a broker has all these, for a reader who looks again and again while it is filled."""
    reader = await r.client("operator/reads", reads=True, brokers=[broker.address])
    async with reading(reader, "user/", wait=False, start=Start.HISTORY) as got:
        await got.until(lambda g: wanted <= {one.signed.id for one in g.arrived}, 30)
    await r.stop(reader)


def _aside(broker: KilledBroker) -> list[str]:
    return [path.name for path in broker.directory.glob("store.damaged-*.db*")]


@pytest.mark.real
def test_a_broker_that_meets_a_wrong_byte_gives_it_to_nobody_and_is_filled_by_another(tmp_path):
    async def scene(r: TestRealm, b1: KilledBroker, b2: KilledBroker) -> None:
        wanted = set(await _filled(r, b1))
        await _holds(r, b2, wanted)
        b1.kill()
        with closing(sqlite3.connect(b1.directory / "store.db")) as db:
            for row in (40, 90, 200):
                db.execute(
                    "UPDATE events SET body = CAST(replace(body, x'78787878', x'78797878') AS BLOB) WHERE row = ?", (row,)
                )
            db.commit()
        b1.start()
        await _holds(r, b1, wanted)
        (said,) = await _said(r, b1)
        (name,) = _aside(b1)
        assert name.endswith("-row-40-is-not-what-was-written.db"), "it was looked through to its end"
        assert str(b1.directory / name) in said
        assert b1.process.poll() is None
        await is_whole(r, b1)

    with_brokers(tmp_path, scene, "b1", "b2")


@pytest.mark.real
def test_a_broker_alone_goes_on_with_what_is_sound_when_pages_are_lost(tmp_path):
    async def scene(r: TestRealm, b1: KilledBroker) -> None:
        wanted = set(await _filled(r, b1))
        b1.kill()
        path = b1.directory / "store.db"
        with closing(sqlite3.connect(path)) as db:
            held = db.execute("SELECT count(*) FROM events WHERE source = 'operator/alice'").fetchone()[0]
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert held == len(wanted) + 1, "and that it has begun"
        content = bytearray(path.read_bytes())
        lost = next(
            at for at in range(20 * PAGE, len(content), PAGE) if content[at] == 13 and b"user/f" in content[at : at + PAGE]
        )
        content[lost : lost + PAGE] = bytes(PAGE)
        path.write_bytes(content)
        b1.start()
        (said,) = await _said(r, b1)
        await until(lambda: not any(name.endswith(".new") for name in _aside(b1)))
        reader = await r.client("operator/reads", reads=True, brokers=[b1.address])
        async with reading(reader, "user/", start=Start.HISTORY) as got:
            left = {one.signed.id for one in got.arrived}
        assert left < wanted
        assert len(left) >= len(wanted) - 15, "a page holds no more"
        assert "taken over" in said
        await is_whole(r, b1)

    with_brokers(tmp_path, scene, "b1")


@pytest.mark.real
def test_what_a_command_has_said_once_below_its_operator_is_taken_over_too(tmp_path):
    async def scene(r: TestRealm, b1: KilledBroker) -> None:
        below = r.identity("operator/bob.1f7bbb54", parent=r.identity("operator/bob"))
        bob = await r.client("operator/bob.1f7bbb54", identity=below, brokers=[b1.address])
        said = bob.emit(Draft("user/once", {"n": 1}, version=1))
        await said.acknowledged()
        await r.stop(bob)
        await _filled(r, b1, 5)
        b1.kill()
        with closing(sqlite3.connect(b1.directory / "store.db")) as db:
            db.execute("DELETE FROM events WHERE row = (SELECT max(row) FROM events)")
            db.commit()
        b1.start()
        await _said(r, b1)
        await _holds(r, b1, {said.id})
        assert _aside(b1)

    with_brokers(tmp_path, scene, "b1")


@pytest.mark.real
def test_a_broker_that_was_given_the_store_of_another_takes_over_what_is_sound_in_it_and_is_itself(tmp_path):
    async def scene(r: TestRealm, b1: KilledBroker, b2: KilledBroker) -> None:
        wanted = set(await _filled(r, b1, 50))
        await _holds(r, b2, wanted)
        for broker in (b1, b2):
            broker.kill()
        for path in b2.directory.glob("store.db*"):
            path.unlink()
        for path in b1.directory.glob("store.db*"):
            shutil.copy(path, b2.directory)
        shutil.rmtree(b1.directory)
        b2.start()
        (said,) = await _said(r, b2)
        (name,) = _aside(b2)
        assert name.endswith("-it-is-the-store-of-broker-b1.db")
        assert str(b2.directory / name) in said
        await _holds(r, b2, wanted)
        await is_whole(r, b2)
        b2.kill()
        b2.start()
        await _holds(r, b2, wanted)
        assert _aside(b2) == [name], "its own store is its own"

    with_brokers(tmp_path, scene, "b1", "b2")
