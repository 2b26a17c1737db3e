"""What the store on SQLite lets go, what it keeps, and what it says of what has gone."""

from __future__ import annotations

import random
import time
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from dsmt.bus.store.database import Database
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.bus.store.tables import BUDGETS
from dsmt.bus.store.trimming import RECORDS
from dsmt.errors import FailedError
from dsmt.event.kinds.slot import Good
from dsmt.event.rowset import RowSet
from dsmt.event.rowtree import RowTree
from dsmt.ports.store import Append, Lost, Row
from tests.bus.stored import append, service, slot, trimmed


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
    counts = store.counts()
    assert (counts["events"], counts["first_row"], counts["first_ms"]) == (len(left), 1, 1000)


def test_where_nothing_is_old_no_row_is_read(store):
    store.append([append(n, budget="signal", arrived=n * 1000) for n in range(1, 31)])
    read = []
    store._db.connection.set_trace_callback(read.append)
    assert not store.trim(31_000)
    store._db.connection.set_trace_callback(None)
    assert not [statement for statement in read if "topic FROM events" in statement]


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


def test_who_has_given_what_it_owed_gives_its_oldest_next_however_far_another_had_to_be_read(tmp_path):
    store = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16, limit_bytes=100_000)

    def left_after(first, count, payer):
        for n in range(first, first + count):
            store.append([replace(append(n, source=f"node/{payer}", budget="evidence", size=700), payer=payer)])
        while store.trim(2000):
            pass
        return [row.row for row in store.rows(0, 1000)]

    left_after(1, 40, "a")
    left = left_after(41, 90, "b")
    assert 1 not in left, "both have given"
    assert left[0] < 41
    first = left[0]
    assert left_after(131, 10, "a")[0] > first, "the oldest of what is left of it, behind which the other one was read"
    assert [row.row for row in store.rows(130, 1000)] == list(range(131, 141))
    store.close()


def test_after_an_hour_who_is_over_its_share_gives_what_was_superseded_since_before_what_is_newer(tmp_path):
    store = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16, limit_bytes=100_000)

    def say(first, count, **changes):
        for n in range(first, first + count):
            store.append([append(n, budget="evidence", size=700, **changes)])

    def facts(first, count):
        for n in range(count):
            say(first + n, 1, topic=f"user/f{n}", winner=True)

    def left(now_ms):
        while store.trim(now_ms):
            pass
        return {row.row for row in store.rows(0, 1000)}

    facts(1, 40)
    say(41, 60)
    assert {*range(1, 41)} < left(2000), "a winner is nobody's to give"
    facts(101, 20)
    say(121, 40)
    assert {*range(1, 21)} < left(3000), "that was passed just now"
    left(3_700_000)
    before = left(3_700_001)
    say(161, 15)
    assert before - left(3_700_002) == {*range(1, 16)}
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


def test_the_winner_at_the_horizon_stays_and_goes_when_the_horizon_has_passed_its_successor(store):
    day = 24 * 3600 * 1000
    store.append([append(1, budget="evidence", winner=True, arrived=1000), append(2, budget="evidence", arrived=1000)])
    store.append([append(3, budget="evidence", winner=True, arrived=5 * day), append(4, budget="evidence", arrived=5 * day)])
    assert trimmed(store, 8 * day) == [1, 3, 4]
    assert trimmed(store, 13 * day) == [3]


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
    refused = Good(spec=named[1], revision=2)
    slots = [(1, slot(named[0], refuses=refused, desired="gone")), (1, slot(named[1], good=named[2], desired="gone"))]
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


def test_what_stands_behind_a_row_begins_behind_it_also_where_what_was_trimmed_ends_there(store):
    store.append([append(n, budget="signal" if n < 10 else "evidence", arrived=1000) for n in range(1, 13)])
    trimmed(store, 2 * 3600 * 1000)
    pieces = [one if isinstance(one, Row) else (one.first, one.last) for one in store.history(0, 100)]
    assert pieces[:2] == [(1, 8), (9, 9)]
    assert store.history(8, 100) == store.history(0, 100)[1:]
    assert store.history(9, 100) == store.history(0, 100)[2:]


def test_what_is_no_event_id_or_one_that_no_store_can_hold_names_no_spec(store):
    week = 7 * 24 * 3600 * 1000
    names = (f"operator/a#{1 << 63}-1", f"operator/a#1-{1 << 63}", "what a controller made up")
    service(store, 1, 2, slots=[(1, slot(one)) for one in names])
    assert store.blobs.missing("web", past=True) == []
    assert trimmed(store, 2 * week) == [2, 3, 4, 5]


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
    assert [again.trimmed_between("signal", row, row) for row in (1, 9, 10)] == [1, 1, 0]
    assert (again.trimmed_between("signal", 0, 1), again.trimmed_between("signal", 9, 12)) == (1, 1)
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


def test_trimming_keeps_up_with_a_long_history(store):
    store.append([append(n, budget="signal", arrived=1000) for n in range(1, 20_001)])
    began = time.process_time()
    turns = 0
    while store.trim(2 * 3600 * 1000):
        turns += 1
    assert turns <= 5
    assert store.rows(0, 10) == []
    assert time.process_time() - began < 10


def test_what_cannot_be_noted_as_trimmed_has_not_gone(store):
    store.append([append(n, budget="signal", arrived=n * 1000) for n in range(1, 31)])
    with (
        patch.object(store._trimmings, "went", side_effect=FailedError("store.full", "no room")),
        pytest.raises(FailedError),
    ):
        store.trim(10_000_000)
    assert [row.row for row in store.rows(0, 100)] == list(range(1, 31))
    assert (store.untold(), store.trimmed) == ([], 0)


def test_up_to_where_the_history_is_not_whole_goes_back_by_no_trimming_of_another_class(store):
    store.append([append(1, budget="log", arrived=1000), append(2, budget="signal", arrived=1000)])
    trimmer, (older, newer) = store._trimmer, [row.row for row in store.rows(0, 10)]
    candidates = {one.row: one for one in trimmer._candidates(0, 10)}
    trimmer._delete(candidates[newer].of, [candidates[newer]])
    trimmer._delete(candidates[older].of, [candidates[older]])
    assert (store.trimmed, store.meta.get("trimmed")) == (newer, str(newer).encode())
