"""The store on SQLite: rows, winners and bursts; stores of earlier and later forms are taken over or refused by name."""

from __future__ import annotations

import gzip
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from dsmt.bus.store.sqlite import EDGE_ROWS, SCHEMA_VERSION, SqliteStore
from dsmt.bus.store.tables import STEPS
from dsmt.errors import FailedError
from dsmt.event.burst import parts_of
from dsmt.ports.store import Append
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import Realm, TrustStore
from tests.bus.stored import append, burst


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
    anew = append(10, topic="service/web/control/app/0", winner=True, version=1, epoch=2)
    store.append([append(9, topic="tombstone/service/web", winner=True, version=1), anew])
    assert [row.topic for row in store.rows(0, 9, winners_only=True)] == [
        "service/webx/spec",
        "tombstone/service/web",
        "service/web/control/app/0",
    ]


def test_a_store_of_another_version_is_refused_by_name(tmp_path):
    path = str(tmp_path / "old.db")
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE events (row INTEGER PRIMARY KEY)")
    old.close()
    with pytest.raises(FailedError, match=r"old\.db was made by another version of dsmt") as told:
        SqliteStore(path, identity="a" * 16)
    assert told.value.code == "store.version"


def test_a_store_that_found_no_room_when_it_was_made_is_made_when_there_is_room(tmp_path):
    class Small(SqliteStore):
        def _open(self, path):
            db = super()._open(path)
            db.execute(f"PRAGMA max_page_count={pages}")
            return db

    for pages in range(1, 100):
        path = str(tmp_path / f"{pages}.db")
        with suppress(FailedError):
            Small(path, identity="a" * 16).close()
            break
        store = SqliteStore(path, identity="b" * 16)
        assert store.append([append(1)]) == [1]
        store.close()
    assert pages > 20, "a store needs more room than this"


STORES = Path(__file__).parent / "stores"
"""Stores of earlier forms, made by the code of then from the same twelve events, of which the fourth was trimmed."""
HEAD = "22ba97ef2f43e61ab267f885361aa70c97ca673ad4cb52bb6551fc0367eb33d2"


@pytest.mark.parametrize("form", sorted(STEPS))
def test_a_store_of_an_earlier_form_is_taken_over_with_all_that_it_holds(tmp_path, form):
    path = tmp_path / "old.db"
    path.write_bytes(gzip.decompress((STORES / f"form{form}.db.gz").read_bytes()))
    store = SqliteStore(str(path), identity="b" * 16)
    assert (store.identity, store.head, store.head_hash.hex()) == ("a" * 16, 12, HEAD)
    rows = store.rows(0, 100)
    assert [row.row for row in rows] == [1, 2, 3, *range(5, 13)]
    assert [row.read().event.data["n"] for row in rows] == [1, 2, 3, 100, 101, 102, 103, 110, 111, 112, 113]
    assert [row.row for row in store.rows(0, 100, winners_only=True)] == [1, 2, 3]
    ((key_id, raw),) = store.certificates.all()
    trust = TrustStore(Realm(name="test", roots=(SecretKey(bytes(range(32))).public,)))
    trust.add(raw)
    assert [trust.open(row.raw).id for row in rows] == [row.read().id for row in rows]
    assert [store.certificates.has_signed(key_id, f"operator/{one}") for one in "ab"] == [True, False]
    assert store.meta.get("incarnation") == b"1700000000000"
    assert store.blobs.so_far(b"d" * 32, 0) == b"chunk"
    assert [(trim.first, trim.last) for trim in store.untold()] == [(4, 4)]
    together = burst(4)
    store.append(together)
    store.close()
    again = SqliteStore(str(path), identity="b" * 16)
    assert [row.raw for row in again.rows(12, 10)] == [one.signed.raw for one in together]
    assert (again.counts()["events"], again.counts()["facts"]) == (14, 3)
    assert again.live() == again._db.one("SELECT sum(live_facts), sum(live_bytes) FROM accounts")
    again._db.do("DELETE FROM events WHERE key_id <> ?", (b"k" * 16,))
    assert not again.certificates.has_signed(key_id, "operator/a")
    again.close()


def test_there_is_a_store_of_each_form_that_can_be_taken_over_up_to_the_one_before():
    assert sorted(STEPS) == [int(path.name[4:-6]) for path in sorted(STORES.glob("form*.db.gz"))]
    assert max(STEPS) == SCHEMA_VERSION - 1


def test_a_store_of_a_later_version_is_refused_and_stays_as_it_is(tmp_path):
    path = tmp_path / "later.db"
    store = SqliteStore(str(path), identity="a" * 16)
    store._db.do(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    store.close()
    before = path.read_bytes()
    with pytest.raises(FailedError, match=f"by a later version of dsmt: form {SCHEMA_VERSION + 1}, not") as told:
        SqliteStore(str(path), identity="b" * 16)
    assert told.value.code == "store.version"
    assert told.value.next.startswith("start that version")
    assert path.read_bytes() == before


def test_a_part_of_a_chain_is_found_by_its_neighbours(store):
    store.append([append(n, topic="user/t" if n % 2 else "user/u") for n in range(1, 10)])
    found = store.chain("operator/a", 1, "user/t", after=1, before=9, limit=10)
    assert [row.row for row in found] == [3, 5, 7]


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
    pages = store._db.one("PRAGMA page_count")[0]
    store._db.do(f"PRAGMA max_page_count={pages}")
    with pytest.raises(FailedError) as full:
        _ = [store.append([append(n, size=3000)]) for n in range(2, 100)]
    assert full.value.code == "store.full"
    head = store.head
    assert len(store.rows(0, 1000)) == head
    store._db.do("PRAGMA max_page_count=100000")
    assert store.append([append(1000)]) == [head + 1]


def test_facts_of_a_range_of_topics_and_those_for_somebody_are_found_by_an_index(store):
    told = [("a/x", ()), ("b/1", ("node/n1",)), ("b/2", ("node/n2", "node/n1")), ("b/3", ("node/n2",)), ("c", ())]
    for n, (topic, to) in enumerate(told, 1):
        one = append(n, topic=topic, winner=True)
        store.append([replace(one, signed=replace(one.signed, event=replace(one.signed.event, to=to)))])
    store.append([append(9, topic="b/0")])
    assert [row.topic for row in store.facts("b/", "b0", 10)] == ["b/1", "b/2", "b/3"]
    assert [row.topic for row in store.facts("b/2", "z", 2)] == ["b/2", "b/3"]
    assert [row.topic for row in store.mail("node/n1", 0, 10)] == ["b/1", "b/2"]
    assert [row.topic for row in store.mail("node/n1", 2, 10)] == ["b/2"]
    assert [row.topic for row in store.mail("node/n2", 0, 1)] == ["b/2"]
    asked = []
    store._db.connection.set_trace_callback(asked.append)
    store.facts("b/", "b0", 10)
    store.mail("node/n1", 0, 10)
    store._db.connection.set_trace_callback(None)
    assert len(asked) == 3
    for statement, index in zip(asked, ("winners", "mail", "shared_mail"), strict=True):
        plan = " ".join(str(one[3]) for one in store._db.do(f"EXPLAIN QUERY PLAN {statement}"))
        assert f"USING INDEX {index} (" in plan, "not one of all retained facts"
        assert "TEMP B-TREE" not in plan


# Bursts ---------------------------------------------------------------------------------------------------------------


def bursts_in(store):
    return store._db.one("SELECT count(*) FROM bursts")[0]


def test_what_was_signed_together_is_kept_once_and_each_of_it_comes_back_alone_or_as_it_came(tmp_path):
    store = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16)
    first, second = burst(1), burst(4)
    store.append([append(9), *first, *second, burst(10)[1]])
    store.close()
    store = SqliteStore(str(tmp_path / "s.db"), identity="b" * 16)
    assert [row.raw for row in store.rows(1, 6)] == [one.signed.raw for one in (*first, *second)]
    parts = [parts_of(one.signed.sealed for one in some) for some in (first, second)]
    assert parts_of(row.sealed for row in store.rows(1, 6)) == [part for (part,) in parts]
    assert bursts_in(store) == 2, "one that stands apart is kept alone"
    store.close()


def test_a_burst_goes_with_the_last_of_its_rows(store):
    store.append([*burst(1), *burst(4, budget="log")])
    assert store.trim(1000 + 2 * 3600 * 1000) is False
    assert [row.row for row in store.rows(0, 10)] == [4, 5, 6]
    assert bursts_in(store) == 1
    store.trim(1000 + 8 * 24 * 3600 * 1000)
    assert bursts_in(store) == 0


def test_all_bursts_of_which_the_last_rows_go_at_once_go_with_them(store):
    store.append([*burst(1), append(4), *burst(5), *burst(8, budget="log"), *burst(11)])
    store.trim(1000 + 2 * 3600 * 1000)
    assert [row.row for row in store.rows(0, 20)] == [8, 9, 10]
    assert bursts_in(store) == 1


def test_a_burst_whose_first_rows_went_before_goes_all_the_same(store):
    first, *others = burst(1)
    store.append([first, *(replace(one, budget="log") for one in others)])
    store.trim(1000 + 2 * 3600 * 1000)
    assert [row.row for row in store.rows(0, 10)] == [2, 3]
    assert [row.raw for row in store.rows(0, 10)] == [one.signed.raw for one in others]
    store.trim(1000 + 8 * 24 * 3600 * 1000)
    assert bursts_in(store) == 0


def test_a_store_that_lacks_what_proves_a_row_says_so(tmp_path):
    store = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16)
    store.append(burst(1))
    store._db.do("DELETE FROM bursts")
    store.close()
    store = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16)
    with pytest.raises(FailedError, match="lacks what proves row 1") as told:
        store.rows(0, 10)
    assert told.value.code == "store.damaged"
    store.close()


def test_the_edge_of_the_tree_is_kept_now_and_then_and_what_came_after_it_is_looked_at_when_it_is_opened(tmp_path):
    path = str(tmp_path / "s.db")
    store = SqliteStore(path, identity="a" * 16)
    store.append([append(n) for n in range(1, EDGE_ROWS)])
    assert store.meta.get("tree") is None
    store.append([append(n) for n in range(EDGE_ROWS, EDGE_ROWS + 3)])
    head = store.head_hash
    store._db.do("UPDATE events SET leaf = ? WHERE row = 2", (bytes(32),))
    store.close()
    store = SqliteStore(path, identity="a" * 16)
    assert (store.head, store.head_hash) == (EDGE_ROWS + 2, head)
    store._db.do("DELETE FROM meta WHERE name = 'tree'")
    store.close()
    with pytest.raises(FailedError, match="row 2 is not what was written"):
        SqliteStore(path, identity="a" * 16)


def test_services_are_those_of_which_anything_stands(store):
    topics = ("node/n1/control", "service/web/spec", "service/web/slot/app/0", "service/db/spec", "user/t")
    store.append([append(n, topic=topic, winner=True) for n, topic in enumerate(topics, 1)])
    assert list(store.blobs.services()) == ["db", "web"]
