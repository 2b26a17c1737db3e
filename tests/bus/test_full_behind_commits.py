"""A disk that fills between a commit and what is written behind it: what was stored is stored once, and given to all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dsmt.bus.store import sqlite, trimming
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.bus.store.trimming import Candidate
from dsmt.event.rowset import RowSet
from dsmt.ports.bus import Draft
from dsmt.ports.store import StoreFullError, Trim
from tests.bus.realm import TestRealm, reading, scenario
from tests.bus.spoiled import Full
from tests.bus.stored import append


def test_rows_are_stored_though_the_edge_of_their_tree_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "EDGE_ROWS", 4)
    store = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16)
    store.append([append(1)])
    store._db.put = full = Full()  # type: ignore[assignment, method-assign]
    assert store.append([append(n) for n in range(2, 6)]) == [2, 3, 4, 5]
    assert full.tried == 1
    del store._db.put
    head = store.head_hash
    store.close()
    again = SqliteStore(str(tmp_path / "s.db"), identity="b" * 16)
    assert (again.head_hash, len(again.rows(0, 10))) == (head, 5)
    again.close()


@scenario
async def test_a_record_of_trimming_whose_row_is_not_noted_ends_no_broker_and_is_said_again(r: TestRealm) -> None:
    broker = await r.broker()
    alice, bob = await r.client("operator/alice"), await r.client("operator/bob")
    store = broker._store
    store.untold = lambda: [Trim(1, "signal", 1, 1, RowSet.of([1]).dump())]  # type: ignore[method-assign]
    store.told = full = Full()  # type: ignore[method-assign]
    async with reading(bob, "broker/", "user/") as got:
        broker._reporter.trimmed()
        await alice.publish(Draft("user/t", {"n": 1}))
        await got.until(lambda g: g.of("user/t") and g.of("broker/b1/trimmed"))
        await alice.publish(Draft("user/t", {"n": 2}))
        await got.until(lambda g: len(g.of("user/t")) == 2)
    assert full.tried == 1


def test_records_of_trimming_that_are_put_together_are_not_told_twice_where_that_is_not_done_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimming, "RECORDS", 2)
    path = str(tmp_path / "s.db")
    store = SqliteStore(path, identity="a" * 16, boot="one")
    for number in range(1, 5):
        with store._db.transaction():
            store._trimmings.went(0, [Candidate(number, 0, number, 10, 0, bytes(32), "node/n1", "user/t")])
        for trim in store.untold() if number < 4 else ():
            store.told(trim.number, 100 + number)
    pins, real, no_room = set(store._trimmings.pins), store._trimmings._do, Full()

    def full(statement: str, values: tuple[Any, ...] = ()) -> Any:
        if statement.startswith("DELETE FROM trims"):
            no_room()
        return real(statement, values)

    store._trimmings._do = full
    for _ in range(3):
        with pytest.raises(StoreFullError):
            store.untold()
    assert store._trimmings.pins == pins
    store._trimmings._do = real
    rows = [row for (raw,) in store._db.do("SELECT rows FROM trims") for row in RowSet.read(bytes(raw)).runs]
    assert sum(last - first + 1 for first, last in rows) == 4
    store.untold()
    assert store._trimmings.between(0, 1, 4) == 4
    store.close()
