"""The store on SQLite: rows, winners, budgets; what it kept is there after a crash of its process."""

from __future__ import annotations

import os
import time

import pytest

from dsmt.bus.sqlite import BUDGETS, SqliteStore
from dsmt.errors import FailedError
from dsmt.event.envelope import Event, Link, SignedEvent
from dsmt.event.hlc import hlc
from dsmt.ports.store import Append


def append(
    n: int, *, topic="user/t", source="operator/a", budget="signal", winner=False, version=None, arrived=1000, size=100
):
    event = Event(
        source=source,
        incarnation=1,
        sequence=n,
        chain=Link(n, bytes(32)),
        type="dsmt.user",
        topic=topic,
        subject=topic,
        time=hlc(n),
        data={},
        version=version,
    )
    signed = SignedEvent(event, os.urandom(size), os.urandom(32), b"k" * 16)
    return Append(signed, arrived, budget, fact=winner, winner=winner, expires_ms=None)


@pytest.fixture
def store(tmp_path):
    made = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16)
    yield made
    made.close()


def test_rows_are_numbered_in_the_order_of_appending(store):
    assert store.append([append(1), append(2)]) == [1, 2]
    assert store.append([append(3)]) == [3]
    assert store.head == 3
    assert [row.row for row in store.rows(1, 10)] == [2, 3]
    assert [row.row for row in store.rows(0, 2)] == [1, 2]


def test_a_batch_is_stored_whole_or_not_at_all(store):
    store.append([append(1)])
    with pytest.raises(FailedError):
        store.append([append(2), append(3), append(2)])
    assert store.head == 1
    assert [row.row for row in store.rows(0, 10)] == [1]
    assert store.append([append(2)]) == [2]


def test_one_row_of_a_topic_is_its_winner_even_within_a_batch(store):
    store.append([append(1, winner=True), append(2, winner=True), append(3, topic="user/u", winner=True)])
    assert [row.row for row in store.rows(0, 10, winners_only=True)] == [2, 3]
    store.append([append(4, winner=True), append(5)])
    assert store.winner("user/t").row == 4
    assert [row.row for row in store.rows(0, 10, winners_only=True)] == [3, 4]
    assert [row.row for row in store.rows(0, 10, winners_only=True, signals=True)] == [3, 4, 5]
    assert store.live_facts("operator/a") == 2


def test_a_tombstone_hides_what_is_below_it_in_the_same_commit(store):
    store.append([append(1, topic="service/web/spec", winner=True, version=1)])
    store.append([append(2, topic="service/webx/spec", winner=True, version=1)])
    store.append([append(9, topic="tombstone/service/web", winner=True, version=1)])
    assert [row.topic for row in store.rows(0, 9, winners_only=True)] == ["service/webx/spec", "tombstone/service/web"]


def test_a_part_of_a_chain_is_found_by_its_neighbours(store):
    store.append([append(n, topic="user/t" if n % 2 else "user/u") for n in range(1, 10)])
    found = store.chain("operator/a", 1, "user/t", after=1, before=9, limit=10)
    assert [row.row for row in found] == [3, 5, 7]


def test_signals_go_after_an_hour_and_evidence_stays(store):
    hour = 3600 * 1000
    for n in range(1, 31):
        budget = ("signal", "evidence", "log")[n % 3]
        store.append([append(n, budget=budget, arrived=n * 1000)])
    store.append([append(31, topic="user/f", budget="signal", winner=True, arrived=1000)])
    while store.trim(hour + 16_000, limit=4):
        pass
    left = [row.row for row in store.rows(0, 100)]
    assert [row for row in left if row % 3 == 0] == [row for row in range(16, 31) if row % 3 == 0]
    assert [row for row in left if row % 3 in (1, 2)] == [row for row in range(1, 32) if row % 3]
    assert store.trimmed == 15
    assert store.counts()["events"] == len(left)


def test_a_class_over_its_share_loses_its_oldest_and_no_other_class_does(tmp_path):
    store = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16, limit_bytes=100_000)
    for n in range(1, 101):
        store.append([append(n, budget="signal" if n % 2 else "evidence", size=700)])
    while store.trim(2000):
        pass
    left = [row.row for row in store.rows(0, 1000)]
    signals = [row for row in left if row % 2]
    assert len(signals) * 1000 <= 100_000 * BUDGETS["signal"][0] + 1000
    assert signals == list(range(signals[0], 101, 2))
    assert [row for row in left if row % 2 == 0] == list(range(2, 101, 2))
    totals = store._events, dict(store._sizes)
    store.close()
    again = SqliteStore(str(tmp_path / "s.db"), identity="b" * 16)
    assert (again._events, again._sizes) == totals
    assert again.identity == "a" * 16
    assert again.trimmed > 0
    again.close()


def test_what_ceases_to_be_a_retained_fact_is_trimmed_after_all(store):
    day = 24 * 3600 * 1000
    store.append([append(1, budget="evidence", winner=True, arrived=1000), append(2, budget="evidence", arrived=1000)])
    while store.trim(8 * day):
        pass
    assert [row.row for row in store.rows(0, 10)] == [1]
    store.append([append(3, budget="evidence", winner=True, arrived=8 * day)])
    store.trim(8 * day + 3_700_000)
    while store.trim(8 * day + 3_700_001):
        pass
    assert [row.row for row in store.rows(0, 10)] == [3]


def test_a_place_in_the_history_is_found_by_time(store):
    for n in range(1, 8):
        store.append([append(n, arrived=n * 100)])
    assert [store.row_at(ms) for ms in (0, 100, 101, 350, 700, 9999)] == [0, 0, 1, 3, 6, 7]


def test_soft_facts_are_winners_no_more_when_they_are_dead(store):
    one = append(1, winner=True)
    store.append([Append(one.signed, 1, "evidence", fact=True, winner=True, expires_ms=500)])
    assert store.expire(499) == 0
    assert store.expire(500) == 1
    assert store.winner("user/t") is None
    assert len(store.rows(0, 10)) == 1


def test_a_store_that_is_full_says_so_and_works_again_when_there_is_room(store):
    store.append([append(1)])
    pages = store._one("PRAGMA page_count")[0]
    store._do(f"PRAGMA max_page_count={pages}")
    with pytest.raises(FailedError) as full:
        _ = [store.append([append(n, size=3000)]) for n in range(2, 100)]
    assert full.value.code == "store.full"
    head = store.head
    assert len(store.rows(0, 1000)) == head
    store._do("PRAGMA max_page_count=100000")
    assert store.append([append(1000)]) == [head + 1]


def test_trimming_keeps_up_with_a_long_history(store):
    store.append([append(n, budget="signal", arrived=1000) for n in range(1, 20_001)])
    began = time.monotonic()
    turns = 0
    while store.trim(2 * 3600 * 1000):
        turns += 1
    assert turns <= 5
    assert store.rows(0, 10) == []
    assert time.monotonic() - began < 10
