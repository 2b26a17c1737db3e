"""Disks that are full and stores that are damaged or another's: said clearly, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from hashlib import sha256

import pytest

from dsmt.bus.store import high_water
from dsmt.bus.store.sqlite import LOG_BYTES, SqliteStore
from dsmt.bus.store.sums import damaged
from dsmt.bus.wire import frames as f
from dsmt.errors import FailedError, RefusedError
from dsmt.ports.bus import Draft, Start
from dsmt.ports.store import StoreFullError
from dsmt.programs.damage import found_in, told
from tests.bus.realm import Pen, TestRealm, reading, scenario
from tests.bus.spoiled import Full
from tests.bus.stored import append
from tests.waiting import until


@scenario
async def test_a_full_store_acknowledges_nothing_it_has_not_and_loses_nothing(r: TestRealm):
    broker = await r.broker()
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    store = broker._store
    async with reading(bob, "user/", start=Start.HISTORY) as got:
        await alice.publish(Draft("user/t", {"n": 0}))
        pages = store._db.connection.execute("PRAGMA page_count").fetchone()[0]
        store._db.connection.execute(f"PRAGMA max_page_count={pages + 3}")
        emissions = [alice.emit(Draft("user/t", {"n": n, "pad": "x" * 2000})) for n in range(1, 101)]
        await until(lambda: alice.refusal is not None and alice.refusal.code == "store.full")
        acknowledged = [e for e in emissions if e.acked is not None]
        stored = [row for row in store.rows(0, 1000) if row.topic == "user/t"]
        assert len(acknowledged) < 100
        assert len(stored) == 1 + len(acknowledged)
        assert "free space" in alice.refusal.next
        store._db.connection.execute("PRAGMA max_page_count=100000")
        for emission in emissions:
            await emission.acknowledged()
        await got.until(lambda g: len(g.arrived) == 101)
        assert [d["n"] for d in got.of("user/t")] == list(range(101))
        assert got.types() == []


@scenario
async def test_who_only_reads_attaches_to_a_full_store_and_a_source_is_told_that_it_is_full(r: TestRealm):
    broker = await r.broker()
    alice = await r.client("operator/alice")
    store = broker._store
    await alice.publish(Draft("config/x", {"n": 0}, version=1))

    store.append = Full()
    emission = alice.emit(Draft("user/t", {"n": 1}))
    await until(lambda: alice.refusal is not None and alice.refusal.code == "store.full")
    stored = store.head

    reader = await r.client("operator/bob", reads=True)
    async with reading(reader, "config/", "user/", start=Start.HISTORY, follow=False) as got:
        assert got.of("config/x") == [{"n": 0}]
    await r.stop(reader)
    with pytest.raises(RefusedError) as caught:
        await r.raw("operator/carol")
    assert caught.value.code == "store.full"
    other = r.identity("broker/b9")
    raw = await r.raw(other.name, identity=other, reads=True)
    await until(lambda: broker._session_words.presence.attachment_of("broker/b9") > 0)
    raw.send(f.Publish(), Pen(other).write("broker/b9/stats", {}).raw)
    assert (await raw.next(f.Refused))[0].code == "bus.reads"
    assert store.head == stored
    assert store.winner("broker/b1/session/broker/b9") is None

    del store.append
    await emission.acknowledged()
    await until(lambda: store.winner("broker/b1/session/broker/b9") is not None)
    assert store.winner("broker/b1/session/operator/bob") is None


@scenario
async def test_who_had_to_leave_a_full_store_is_not_said_to_have_closed_its_connection(r: TestRealm):
    """All brokers were full for ten seconds: a node that came back a second after the controllers was dead by that."""
    broker = await r.broker()
    alice = await r.client("operator/alice")
    await alice.publish(Draft("user/t", {"n": 0}))
    store, presence = broker._store, broker._session_words.presence

    store.append = Full()
    emission = alice.emit(Draft("user/t", {"n": 1}))
    await until(lambda: alice.refusal is not None and alice.refusal.code == "store.full")
    await until(lambda: presence.record_of("operator/alice").state == "closed")
    del store.append
    await emission.acknowledged()
    await r.stop(alice)
    await until(lambda: presence.record_of("operator/alice").state == "closed")
    async with reading(await r.client("operator/bob"), "broker/b1/session/", start=Start.HISTORY, follow=False) as got:
        await got.complete()
    closed = [one["how"] for one in got.of("broker/b1/session/operator/alice") if one["state"] == "closed"]
    assert (set(closed[:-1]), closed[-1]) == ({"local"}, "peer"), "the last time it has left by itself"


@scenario
async def test_a_broker_that_finds_its_store_damaged_as_time_passes_ends_and_one_whose_disk_is_full_goes_on(r: TestRealm):
    broker = await r.broker()
    store = broker._store

    def wrong(_now_ms):
        raise damaged("b1.db", "a row is not what was written")

    store.expire = full = Full()
    broker._upkeep._expire_at = 0.0
    await until(lambda: full.tried >= 2)
    assert not r.tasks[broker].done()
    store.expire = wrong
    task = r.tasks.pop(broker)
    await asyncio.wait({task}, timeout=20)
    assert task.done()
    assert found_in(task.exception(), "store.damaged")


@pytest.mark.parametrize("small_disk", ["400k"], indirect=True)
def test_a_full_disk_is_survived_and_what_waited_is_stored_when_there_is_room(tmp_path, small_disk):
    @scenario
    async def full(r: TestRealm):
        broker = await r.broker(store=str(small_disk / "b1.db"))
        alice = await r.client("operator/alice")
        emissions = [alice.emit(Draft("user/t", {"n": n, "pad": "x" * 4000})) for n in range(200)]
        await until(lambda: alice.refusal is not None and alice.refusal.code == "store.full")
        assert not r.tasks[broker].done()
        await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,size=20m", small_disk], check=True)
        for emission in emissions:
            await emission.acknowledged()
        bob = await r.client("operator/bob")
        async with reading(bob, "user/", start=Start.HISTORY) as got:
            assert [d["n"] for d in got.of("user/t")] == list(range(200))

    full("memory", tmp_path)


async def chunks(*content: bytes) -> AsyncIterator[bytes]:
    for one in content:
        yield one


@scenario
async def test_a_store_that_cannot_be_written_for_another_reason_is_not_called_full(r: TestRealm):
    broker = await r.broker()
    alice = await r.client("operator/alice")
    store = broker._store

    def broken(_batch):
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
        raise store._db._translated(error)

    store.blobs.put_chunk = lambda *_, **__: broken(None)
    with pytest.raises(FailedError, match="disk I/O error") as caught:
        await alice.put_blob(chunks(b"blob"), sha256(b"blob").digest())
    assert "free space" not in caught.value.next
    store.append = broken
    emission = alice.emit(Draft("user/t", {"n": 1}))
    await until(lambda: alice.refusal is not None and alice.refusal.code == "store.full")
    assert alice.refusal.message == "the store of broker/b1 cannot be written: disk I/O error"
    assert "read-only" in alice.refusal.next
    with pytest.raises(RefusedError, match="disk I/O error"):
        await r.raw("operator/carol")
    del store.append
    await emission.acknowledged()


def test_a_store_whose_log_cannot_be_brought_into_its_file_takes_no_more_than_a_bound_and_goes_on_when_it_can(tmp_path):
    """SQLite tells nobody: what it has stored would stand in a log that grows for ever, on a disk that fails."""
    store, log = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16), tmp_path / "s.db-wal"

    def say(first: int, last: int) -> None:
        for n in range(first, last):
            store.append([append(n, size=50_000)])

    say(1, 300)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "s.db").stat().st_size, before[1]))
    try:
        with pytest.raises(StoreFullError, match="cannot be written: disk I/O error"):
            say(300, 500)
        assert log.stat().st_size < LOG_BYTES + 200_000
        head = store.head
        with pytest.raises(StoreFullError):
            say(500, 501)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    say(501, 502)
    assert store.head == head + 1
    assert log.stat().st_size < LOG_BYTES, "what the log took is given back"
    assert len(store.rows(0, 1000)) == store.head
    store.close()


def test_a_store_of_which_it_cannot_be_read_how_far_it_came_is_called_damaged(tmp_path, monkeypatch):
    SqliteStore(str(tmp_path / "s.db"), identity="a" * 16).close()

    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(high_water.os, "pread", broken)
    with pytest.raises(FailedError) as caught:
        SqliteStore(str(tmp_path / "s.db"), identity="a" * 16)
    assert caught.value.code == "store.damaged"
    monkeypatch.undo()
    SqliteStore(str(tmp_path / "s.db"), identity="a" * 16).close()


def test_that_a_broker_cannot_look_what_was_set_aside_does_not_end_it(tmp_path):
    (tmp_path / "store.damaged-1.db").touch()
    assert told(tmp_path).endswith("store.damaged-1.db")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))  # the lowest that is free: nothing more can be opened
    try:
        assert told(tmp_path) == ""
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (sqlite3.SQLITE_IOERR_READ, "store.damaged"),
        (sqlite3.SQLITE_IOERR_SHORT_READ, "store.damaged"),
        (sqlite3.SQLITE_CORRUPT, "store.damaged"),
        (sqlite3.SQLITE_IOERR_WRITE, "store.full"),
        (sqlite3.SQLITE_IOERR_FSYNC, "store.full"),
        (sqlite3.SQLITE_FULL, "store.full"),
    ],
)
def test_what_cannot_be_read_is_damaged_and_what_cannot_be_written_waits_for_room(tmp_path, number, code):
    store, error = _store(tmp_path / "b.db"), sqlite3.OperationalError("it is so")
    error.sqlite_errorcode = number
    assert store._db._translated(error).code == code
    store.close()


def _store(path) -> SqliteStore:
    return SqliteStore(str(path), identity="0" * 16)


def test_a_store_whose_directory_is_not_there_is_not_called_full(tmp_path):
    with pytest.raises(FailedError, match="cannot be used: unable to open database file") as failed:
        _store(tmp_path / "nowhere" / "b.db")
    assert failed.value.code == "store.failed"
    assert "see that its directory exists" in failed.value.next


def test_a_file_that_is_no_store_is_called_damaged(tmp_path):
    path = tmp_path / "b.db"
    path.write_bytes(os.urandom(8192))
    with pytest.raises(FailedError) as damaged:
        _store(path)
    assert damaged.value.code == "store.damaged"
    assert str(path) in damaged.value.message
    assert "sets the store aside" in damaged.value.next


@scenario
async def test_a_store_with_damaged_pages_stops_its_broker_with_a_clear_word(r: TestRealm):
    broker = await r.broker()
    alice = await r.client("operator/alice")
    for n in range(300):
        alice.emit(Draft(f"user/t{n}", {"n": n, "pad": "x" * 300}, version=1))
    await alice.publish(Draft("user/end", {}))
    identity = r.identities[broker]
    await r.stop(broker)
    broker._store._db.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    broker._store.close()
    path = r.directory / "b1.db"
    content = bytearray(path.read_bytes())
    for start in range(8192, len(content) - 4096, 4096):
        content[start : start + 200] = os.urandom(200)
    path.write_bytes(content)
    with pytest.raises((FailedError, BaseExceptionGroup)) as damaged:
        await r.broker("b1", identity=identity)
    error = damaged.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert error.code == "store.damaged"


def test_a_store_belongs_to_one_process(tmp_path):
    first = _store(tmp_path / "b.db")
    other = sqlite3.connect(tmp_path / "b.db", timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT * FROM meta")
    other.close()
    first.close()
    _store(tmp_path / "b.db").close()


def test_a_store_in_a_directory_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FailedError) as failed:
        _store(tmp_path / "nowhere" / "b.db")
    assert "nowhere" in failed.value.message
