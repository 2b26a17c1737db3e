"""The store on SQLite: rows, winners, budgets; what it kept is there after a crash of its process."""

from __future__ import annotations

import gzip
import os
import random
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from dsmt.bus.adapters.database import Database
from dsmt.bus.adapters.sqlite import SCHEMA_VERSION, SqliteStore
from dsmt.bus.adapters.tables import BUDGETS, STEPS
from dsmt.bus.adapters.trimming import RECORDS
from dsmt.errors import FailedError
from dsmt.event.burst import Burst, Member, parts_of
from dsmt.event.envelope import Event, Link, SignedEvent
from dsmt.event.hlc import hlc
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good, Slot
from dsmt.event.rowset import RowSet
from dsmt.event.rowtree import RowTree
from dsmt.ports.store import Append, Lost, Row
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import Realm, TrustStore
from tests.controllers.signing import signed


def append(
    n: int,
    *,
    topic="user/t",
    source="operator/a",
    budget="signal",
    winner=False,
    version=None,
    epoch=1,
    arrived=1000,
    size=100,
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
        epoch=None if version is None else epoch,
        version=version,
    )
    signed = SignedEvent(event, os.urandom(size), os.urandom(32), b"k" * 16)
    return Append(signed, arrived, budget, fact=winner, winner=winner, expires_ms=None)


def burst(first, count=3, **changes):
    """Events that were signed together."""
    ones = [append(first + n, **changes).signed for n in range(count)]
    together = Burst(b"protected", os.urandom(64), b"".join(one.leaf for one in ones))
    members = [SignedEvent(one.event, Member(together, at, one.raw), one.leaf, one.key_id) for at, one in enumerate(ones)]
    return [Append(one, 1000, changes.get("budget", "signal"), fact=False, winner=False, expires_ms=None) for one in members]


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
    assert again.counts()["events"] == 14
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
    assert store.counts()["events"] == len(left)
    store.close()
    again = SqliteStore(str(tmp_path / "s.db"), identity="b" * 16)
    assert again.counts()["events"] == len(left)
    assert again.identity == "a" * 16
    assert again.trimmed > 0
    again.close()


def test_one_partys_evidence_does_not_evict_anothers(tmp_path):
    store = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16, limit_bytes=100_000)
    store.append([replace(append(1, source="node/n2", budget="evidence", size=700), payer="node/n2")])
    for n in range(2, 302):
        store.append([replace(append(n, source="agent/n1/a", budget="evidence", size=700), payer="node/n1")])
    while store.trim(2000):
        pass
    left = [row.row for row in store.rows(0, 1000)]
    assert left[0] == 1
    assert left[1:] == list(range(left[1], 302))
    assert 60 <= len(left) <= 71
    store.close()


def test_accounts_are_exact_whatever_becomes_of_the_rows(tmp_path):
    store = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16)

    def exact() -> bool:
        counted = store._db.one("SELECT count(*), coalesce(sum(size), 0) FROM events WHERE winner = 1")
        every = store._db.one("SELECT coalesce(sum(bytes), 0) FROM accounts")[0]
        return store.live() == tuple(counted) and every == store._db.one("SELECT coalesce(sum(size), 0) FROM events")[0]

    facts = [append(n, topic=f"user/t{n % 3}", budget="evidence", winner=True, size=50 * n) for n in range(1, 10)]
    for n, fact in enumerate(facts):
        store.append([replace(fact, payer=f"operator/{'ab'[n % 2]}", expires_ms=500 if n == 8 else None)])
        assert exact()
    assert store.live("operator/a")[0] + store.live("operator/b")[0] == 3
    assert store.expire(1000) == 1
    assert exact()
    while store.trim(8 * 24 * 3600 * 1000):
        pass
    assert exact()
    assert store.live()[0] == 2
    store.close()


def trimmed(store, now_ms, limit=5000):
    """Trim all there is to trim; the second pass begins an hour later."""
    for at in (now_ms, now_ms + 3_700_000, now_ms + 3_700_001):
        while store.trim(at, limit):
            pass
    return [row.row for row in store.rows(0, 100_000)]


def test_the_winner_at_the_horizon_stays_and_goes_when_the_horizon_has_passed_its_successor(store):
    day = 24 * 3600 * 1000
    store.append([append(1, budget="evidence", winner=True, arrived=1000), append(2, budget="evidence", arrived=1000)])
    store.append([append(3, budget="evidence", winner=True, arrived=5 * day), append(4, budget="evidence", arrived=5 * day)])
    assert trimmed(store, 8 * day) == [1, 3, 4]
    assert trimmed(store, 13 * day) == [3]


def service(store, *revisions, digest="", slots=()):
    """Store revisions of `web`, the last of which is its spec, and facts of its slots; the ids of the revisions."""
    specs = [
        signed(
            "operator/a",
            "service/web/spec",
            SpecFact(spec={"n": one, "digest": digest}, by="a", reason=""),
            version=one,
            sequence=one,
        )
        for one in revisions
    ]
    facts = [
        signed("controller/c", f"service/web/slot/app/{index}", slot, version=version, sequence=10 * version + index)
        for index, (version, slot) in enumerate(slots)
    ]
    for one in (*specs, *facts):
        store.append([Append(one, 1000, "evidence", fact=True, winner=True, expires_ms=None)])
    return [str(one.id) for one in specs]


def slot(spec, *, good=None, former=None, refused=0, desired="running"):
    last = None if good is None else Good(spec=good, revision=1)
    before = None if former is None else Good(spec=former, revision=1)
    return Slot(node="n1", spec=spec, revision=1, desired=desired, refused=refused, good=last, former=before)


def test_a_spec_that_a_slot_implements_or_would_go_back_to_stays_until_none_does(store):
    week = 7 * 24 * 3600 * 1000
    named = [f"operator/a#1700000000000-{one}" for one in range(1, 6)]
    slots = [(1, slot(named[1])), (1, slot(named[4], good=named[2])), (1, slot(named[0], desired="gone"))]
    assert service(store, 1, 2, 3, 4, 5, slots=slots) == named
    assert trimmed(store, 2 * week) == [2, 3, 5, 6, 7, 8]
    service(store, slots=[(2, slot(named[4])), (2, slot(named[4], good=named[4]))])
    assert trimmed(store, 4 * week) == [5, 8, 9, 10]


def test_a_spec_that_a_slot_which_is_gone_comes_back_with_stays(store):
    week = 7 * 24 * 3600 * 1000
    named = [f"operator/a#1700000000000-{one}" for one in range(1, 6)]
    slots = [(1, slot(named[0], refused=2, desired="gone")), (1, slot(named[1], good=named[2], desired="gone"))]
    service(store, 1, 2, 3, 4, 5, slots=slots)
    assert trimmed(store, 2 * week) == [1, 3, 5, 6, 7]


def test_a_spec_that_an_agent_may_yet_say_was_good_stays(store):
    week = 7 * 24 * 3600 * 1000
    named = [f"operator/a#1700000000000-{one}" for one in range(1, 4)]
    service(store, 1, 2, 3, slots=[(1, slot(named[2], former=named[0]))])
    assert trimmed(store, 2 * week) == [1, 3, 4]


def test_what_was_hidden_or_has_expired_stays_until_the_horizon_has_passed_that(store):
    day = 24 * 3600 * 1000
    store.append([append(1, budget="evidence", topic="service/web/spec", winner=True, version=1, arrived=1000)])
    soft = append(2, topic="user/soft", winner=True, arrived=1000)
    store.append([Append(soft.signed, 1000, "evidence", fact=True, winner=True, expires_ms=500)])
    store.append([append(9, budget="evidence", topic="tombstone/service/web", winner=True, version=1, arrived=5 * day)])
    store.expire(5 * day)
    assert trimmed(store, 8 * day) == [1, 2, 3]
    assert trimmed(store, 13 * day) == [3]


def head_of(store):
    """The head, from what there is in the store."""
    tree = RowTree()
    for piece in store.history(0, 100_000):
        if isinstance(piece, Row):
            leaf = store._db.one("SELECT leaf FROM events WHERE row = ?", (piece.row,))[0]
            tree.add(piece.arrived_ms, leaf)
        else:
            tree.add_node(piece.level, piece.hash)
    return tree.head


@pytest.mark.parametrize("seed", range(6))
def test_the_head_over_what_was_trimmed_is_the_head_of_all_rows(store, seed):
    rng, whole, gone = random.Random(seed), RowTree(), set()
    number = 0
    for turn in range(1, 16):
        for _ in range(rng.randrange(80)):
            number += 1
            one = append(
                number,
                topic=f"user/{rng.randrange(20)}",
                budget=rng.choice(["evidence", "signal", "log"]),
                winner=rng.random() < 0.3,
                arrived=turn * 600_000,
            )
            store.append([one])
            whole.add(one.arrived_ms, one.signed.leaf)
        store.trim(turn * 600_000, limit=rng.choice([7, 64, 5000]))
        for trim in store.untold():
            rows = RowSet.read(trim.rows)
            assert not gone & {row for first, last in rows.runs for row in range(first, last + 1)}, "said twice"
            gone |= {row for first, last in rows.runs for row in range(first, last + 1)}
            store.told(trim.number, 0)
        assert store.head_hash == whole.head == head_of(store)
        assert gone == set(range(1, number + 1)) - {row.row for row in store.rows(0, 100_000)}
    assert gone


def test_a_restarted_store_has_its_head_and_counts_on_though_its_last_rows_were_trimmed(tmp_path):
    path = str(tmp_path / "s.db")
    store = SqliteStore(path, identity="a" * 16)
    store.append([append(n, budget="signal", arrived=1000) for n in range(1, 50)])
    store.append([append(50, budget="evidence", arrived=1000), append(51, budget="signal", arrived=1000)])
    trimmed(store, 2 * 3600 * 1000)
    head = store.head_hash
    store.close()
    again = SqliteStore(path, identity="b" * 16)
    assert (again.head, again.head_hash) == (51, head)
    assert again.append([append(60)]) == [52]
    again.close()


def test_a_start_reads_only_the_rows_behind_the_kept_edge(tmp_path):
    path, asked = str(tmp_path / "s.db"), []
    store = SqliteStore(path, identity="a" * 16)
    store.append([append(n) for n in range(1, 3000)])
    store.trim(1)
    store.append([append(3000)])
    head = store.head_hash
    store.close()
    with patch.object(Database, "do", lambda self, *a, _do=Database.do: asked.append(found := _do(self, *a)) or found):
        again = SqliteStore(path, identity="a" * 16)
        assert again.head_hash == head
    assert max(map(len, asked)) < 100
    again.close()


def test_what_was_trimmed_is_told_until_a_record_says_it(tmp_path):
    path = str(tmp_path / "s.db")
    store = SqliteStore(path, identity="a" * 16)
    store.append([append(n, budget="signal", arrived=1000) for n in range(1, 10)])
    trimmed(store, 2 * 3600 * 1000)
    store.close()
    again = SqliteStore(path, identity="a" * 16)
    (trim,) = again.untold()
    assert (trim.budget, RowSet.read(trim.rows).runs) == ("signal", ((1, 9),))
    again.told(trim.number, 10)
    assert again.untold() == []
    assert (again.trimmed_between("signal", 3, 5), again.trimmed_between("evidence", 1, 9)) == (3, 0)
    again.close()


def test_a_store_that_takes_a_new_id_says_again_what_was_trimmed(tmp_path):
    path = str(tmp_path / "s.db")
    store = SqliteStore(path, identity="a" * 16, boot="one")
    store.append([append(n, budget="signal", arrived=1000) for n in range(1, 10)])
    trimmed(store, 2 * 3600 * 1000)
    store.told(store.untold()[0].number, 10)
    store._db.connection.close()  # as at a power cut: it is not closed in order
    again = SqliteStore(path, identity="b" * 16, boot="two")
    assert again.identity == "b" * 16
    assert [RowSet.read(trim.rows).runs for trim in again.untold()] == [((1, 9),)]
    again.close()


def test_many_trim_records_are_put_together_and_the_one_that_is_needed_is_not_trimmed(store):
    for turn in range(1, 400):
        store.append(
            [append(2 * turn, budget="signal", arrived=turn), append(2 * turn + 1, budget="evidence", arrived=turn)]
        )
        store.trim(3600 * 1000 + turn + 1)
        for trim in store.untold():
            (row,) = store.append([append(100_000 + trim.number, budget="evidence", arrived=turn)])
            store.told(trim.number, row)
    assert store._db.one("SELECT count(*) FROM trims")[0] <= RECORDS + 2
    assert store.trimmed_between("signal", 1, store.head) == 399
    left = trimmed(store, 9 * 24 * 3600 * 1000)
    assert {row for (row,) in store._db.do("SELECT record FROM trims WHERE record IS NOT NULL")} <= set(left)


def test_rows_that_are_gone_and_were_not_trimmed_are_lost_and_never_told_as_trimmed(store):
    store.append([append(n, budget=("evidence", "signal")[n % 2], arrived=1000) for n in range(1, 21)])
    trimmed(store, 2 * 3600 * 1000)
    store._db.do("DELETE FROM events WHERE row = 10")
    assert [piece for piece in store.history(0, 100) if isinstance(piece, Lost)] == [Lost(10, 10)]
    assert store.trimmed_between("evidence", 1, 20) == 0


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


def test_trimming_keeps_up_with_a_long_history(store):
    store.append([append(n, budget="signal", arrived=1000) for n in range(1, 20_001)])
    began = time.monotonic()
    turns = 0
    while store.trim(2 * 3600 * 1000):
        turns += 1
    assert turns <= 5
    assert store.rows(0, 10) == []
    assert time.monotonic() - began < 10


def reopened(tmp_path, boot: str, *, synced: bool = False, identity: str = "b" * 16) -> SqliteStore:
    return SqliteStore(str(tmp_path / "s.db"), identity=identity, boot=boot, synced=synced)


def killed(store: SqliteStore) -> None:
    """Its process dies: nothing is tidied up."""
    store._db.connection.close()


def test_a_store_that_was_closed_keeps_its_id_in_another_boot(tmp_path):
    store = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16, boot="boot-1")
    store.append([append(1)])
    store.close()
    again = reopened(tmp_path, "boot-2")
    assert (again.identity, again.head) == ("a" * 16, 1)
    again.close()
    assert reopened(tmp_path, "boot-3").identity == "a" * 16, "nothing was stored in the boot before"


def test_a_store_whose_process_was_killed_keeps_its_id_in_the_same_boot(tmp_path):
    store = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16, boot="boot-1")
    store.append([append(1)])
    killed(store)
    again = reopened(tmp_path, "boot-1")
    assert (again.identity, again.head) == ("a" * 16, 1)
    again.close()
    assert reopened(tmp_path, "boot-2").identity == "a" * 16


def test_a_store_that_its_machine_left_with_rows_not_on_the_disk_takes_a_new_id(tmp_path):
    store = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16, boot="boot-1")
    store.append([append(1)])
    killed(store)
    again = reopened(tmp_path, "boot-2")
    assert (again.identity, again.head) == ("b" * 16, 1)
    killed(again)
    third = reopened(tmp_path, "boot-3", identity="c" * 16)
    assert third.identity == "b" * 16, "nothing was stored since"
    third.append([append(2)])
    killed(third)
    assert reopened(tmp_path, "boot-4", identity="c" * 16).identity == "c" * 16


def test_that_rows_may_not_be_on_the_disk_is_there_before_the_first_of_them(tmp_path):
    store = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16, boot="boot-1")
    said = []
    store._db.connection.set_trace_callback(said.append)
    store.append([append(1)])
    store.append([append(2)])
    store._db.connection.set_trace_callback(None)
    words = [one.split()[0] + (" FULL" if "FULL" in one else "") for one in said]
    assert words[:3] == ["PRAGMA FULL", "INSERT", "PRAGMA"]
    assert "'unsynced'" in said[1]
    assert words.count("PRAGMA FULL") == 1, "once, not for each commit"
    store.close()


def test_a_synced_store_keeps_its_id_whatever_happens_to_its_machine(tmp_path):
    store = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16, boot="boot-1", synced=True)
    store.append([append(1)])
    killed(store)
    again = reopened(tmp_path, "boot-2", synced=True)
    assert again.identity == "a" * 16
    again.close()


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
    for statement in asked:
        plan = " ".join(str(one[3]) for one in store._db.do(f"EXPLAIN QUERY PLAN {statement}"))
        assert "USING INDEX" in plan, plan
        assert "TEMP B-TREE" not in plan, plan


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
