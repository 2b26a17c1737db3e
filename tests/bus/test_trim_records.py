"""Records of what was trimmed: how many there are, and what a step costs, after any number of rows (rule B6)."""

from __future__ import annotations

import random
import sqlite3
from contextlib import nullcontext
from unittest.mock import patch

import pytest

from dsmt.bus.store import trimming
from dsmt.bus.store.tables import BUDGETS
from dsmt.bus.store.trimming import SCHEMA, Trimmings
from dsmt.event.rowset import RowSet

EVIDENCE, SIGNAL = 0, 1
STAYS = 0.001
"""How much of the evidence is a fact that nothing has superseded."""


class Said:
    """Trimmings of which a broker says each record at once."""

    def __init__(self) -> None:
        db = sqlite3.connect(":memory:", isolation_level=None)
        db.executescript(SCHEMA)
        self.do = lambda statement, values=(): db.execute(statement, values).fetchall()
        self.trimmings = Trimmings(self.do, tuple(BUDGETS), nullcontext)
        self.stream, self.head, self.stay, self.row = random.Random(1), 0, [], 1 << 60

    def say(self) -> None:
        for trim in self.trimmings.untold():
            self.row += 1
            self.trimmings.told(trim.number, self.row)

    def trim(self, runs: int) -> None:
        """Signals and evidence came in turn, and have gone, but for what stays; each class is noted as the trimmer does."""
        signals, evidence = [], []
        for _ in range(runs):
            many = self.stream.randint(1, 8)
            signals.append((self.head + 1, self.head + many))
            self.head += many + 1
            if self.stream.random() < STAYS:
                self.stay.append(self.head)
            else:
                evidence.append((self.head, self.head))
        self.trimmings._note(SIGNAL, RowSet(signals))
        self.trimmings._note(EVIDENCE, RowSet(evidence))
        self.say()

    def bytes(self) -> int:
        return self.do("SELECT sum(length(rows)) FROM trims")[0][0]

    def named(self) -> RowSet:
        return RowSet(run for (rows,) in self.do("SELECT rows FROM trims") for run in RowSet.read(bytes(rows)).runs)


@pytest.fixture
def small():
    """Records are as full after a minute as they would be after days."""
    with patch.multiple(trimming, RECORD_BYTES=512, ROOM_BYTES=128, STEP_BYTES=1024, RECORDS=16):
        yield


def test_what_records_say_grows_with_what_is_left_and_not_with_what_has_gone(small):
    said, sizes = Said(), []
    for _ in range(4):
        for _ in range(80):
            said.trim(40)
        sizes.append(said.bytes())
    assert sizes[3] < 1.5 * sizes[0], sizes
    assert len(said.named()) == said.head - len(said.stay), "all that has gone is named, and nothing else"
    assert said.named().runs[0] == (1, said.stay[0] - 1)


def test_a_step_reads_a_few_records_however_many_there_are(small):
    said = Said()
    for number in range(1, 200):  # of signals alone, which evidence that stays keeps apart: they cannot be put together
        rows = range(number * 4000, number * 4000 + 3000, 10)
        said.trimmings._note(SIGNAL, RowSet((row, row + said.stream.randint(0, 7)) for row in rows))
    said.say()
    with patch.object(trimming.RowSet, "read", side_effect=RowSet.read) as read:
        said.trimmings.untold()
        assert read.call_count == 0


def test_records_of_all_classes_are_put_together_a_few_at_a_time(small):
    said = Said()
    with patch.object(trimming.RowSet, "read", side_effect=RowSet.read) as read:
        for _ in range(60):
            before = read.call_count
            said.trim(40)
            assert sum(len(one.args[0]) for one in read.call_args_list[before:]) <= 5 * 1024 + 512
    assert said.do("SELECT count(*) FROM trims WHERE class = ?", (trimming.ALL,))[0][0]


def test_of_rows_whose_classes_were_put_together_each_class_has_gone_and_of_others_only_its_own(small):
    said = Said()
    for _ in range(60):
        said.trim(40)
    ((last,),) = said.do("SELECT max(last) FROM trims WHERE class = ?", (trimming.ALL,))
    assert last > 0
    assert said.trimmings.between(2, 1, last)
    assert not said.trimmings.between(2, last + 1, said.head)
    said.trimmings._note(SIGNAL, RowSet([(said.head + 1, said.head + 9)]))
    said.say()
    assert not said.trimmings.between(EVIDENCE, said.head + 1, said.head + 9)


def test_who_is_killed_while_records_are_put_together_has_what_they_say(small):
    said = Said()
    for _ in range(30):
        said.trim(40)
    whole = len(said.named())
    do = said.trimmings._do

    def killed(statement, values=()):
        if statement.startswith("DELETE FROM trims"):
            raise KeyboardInterrupt
        return do(statement, values)

    def go_on():
        while True:
            said.trim(40)

    with patch.object(said.trimmings, "_do", killed), pytest.raises(KeyboardInterrupt):
        go_on()
    assert len(said.named()) == said.head - len(said.stay) > whole
