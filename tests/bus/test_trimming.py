"""What trimming takes, and which of its records it lets go of (rule B6, H3)."""

from __future__ import annotations

import sqlite3
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dsmt.bus.broker.fan_out import FanOut
from dsmt.bus.broker.lags import ALL
from dsmt.bus.store.trimming import RECORDS, SCHEMA, Candidate, Trimmings, oldest_first


def row(number, *, ended=None, size=10, payer="node/n1", of=0):
    return Candidate(number, of, ended, size, 0, b"leaf", payer, "user/t")


def taken(rows, **about):
    values = {"due": {}, "old": 0, "horizon": 0, "stays": lambda _: False} | about
    return [one.row for one in oldest_first(rows, 0, **values).taken]


def test_a_fact_goes_only_when_what_superseded_it_stands_before_the_horizon():
    rows = [row(1, ended=4), row(2, ended=9), row(3), row(4), row(5, ended=5)]
    assert taken(rows, due={"node/n1": 1000}) == [1, 5]


def test_what_was_superseded_before_an_earlier_horizon_goes_as_soon_as_it_is_looked_at():
    rows = [row(1, ended=40), row(2, ended=2), row(3, ended=3)]
    assert taken(rows, due={"node/n1": 10}, horizon=50) == [1]
    assert taken(rows, due={"node/n1": 10}) == [2]


def test_a_payer_gives_what_it_has_to_and_nobody_else_gives_in_its_place():
    rows = [row(1, ended=1, payer="node/n2"), row(2, ended=2), row(3, ended=3), row(4, ended=4)]
    chosen = oldest_first(rows, 0, due={"node/n1": 15}, old=0, horizon=0, stays=lambda _: False)
    assert [one.row for one in chosen.taken] == [2, 3]
    assert (chosen.place, chosen.paid, chosen.stopped) == (3, {"node/n1": 3}, True)


def test_what_is_too_old_goes_whoever_pays_and_pinned_rows_and_those_of_other_classes_stay():
    rows = [row(1, ended=1, payer="node/n2"), row(2, ended=2), row(3, ended=3, of=1), row(4, ended=4)]
    assert taken(rows, old=3, stays=lambda one: one.row == 2) == [1]


def test_the_rows_of_records_that_were_put_together_are_kept_no_longer():
    db = sqlite3.connect(":memory:")
    db.executescript(SCHEMA)
    trimmings = Trimmings(lambda statement, values=(): db.execute(statement, values).fetchall(), ["signal"], nullcontext)
    for number in range(1, RECORDS + 2):
        trimmings.went(0, [row(number, ended=number)])
        for trim in trimmings.untold():
            trimmings.told(trim.number, 10_000 + number)
    assert len(trimmings.pins) == RECORDS + 1
    (together,) = trimmings.untold()
    assert (together.first, together.last) == (1, RECORDS // 2 + 1)
    kept = {record for (record,) in db.execute("SELECT record FROM trims WHERE record IS NOT NULL")}
    assert trimmings.pins == kept == {10_000 + number for number in range(RECORDS // 2 + 2, RECORDS + 2)}


def test_that_history_was_trimmed_is_told_once_however_many_pages_are_read_and_again_when_it_could_not_be() -> None:
    told: list[Any] = []
    takes = [False]

    def send(_session: Any, frame: Any, _parts: Any) -> bool:
        told.append(frame)
        return takes[0]

    nothing: Any = None
    store: Any = SimpleNamespace(trimmed=40)
    fan_out = FanOut(store, nothing, send=send, now_ms=lambda: 0, whole=lambda: True, had=lambda *_: ALL)
    reader: Any = SimpleNamespace(owner=None, id=1, conflate=False, told_trimmed=0, after=0, copies=None)
    for takes[0], after in ((False, 0), (True, 0), (True, 10), (True, 20)):
        reader.after = after
        fan_out._tell_trimmed(reader)
    assert [frame.fields for frame in told] == [{"from": 1, "to": 40}] * 2


@pytest.mark.parametrize(("after", "fields"), [(39, [{"from": 40, "to": 40}]), (40, [])])
def test_who_lacks_the_last_row_that_was_trimmed_is_told_and_who_has_read_it_is_not(after: int, fields: list[Any]) -> None:
    told: list[Any] = []
    store, nothing = cast("Any", SimpleNamespace(trimmed=40)), cast("Any", None)
    fan_out = FanOut(
        store, nothing, send=lambda *one: not told.append(one[1]), now_ms=lambda: 0, whole=lambda: True, had=lambda *_: ALL
    )
    reader: Any = SimpleNamespace(owner=None, id=1, conflate=False, told_trimmed=0, after=after, copies=None)
    fan_out._tell_trimmed(reader)
    assert [frame.fields for frame in told] == fields
