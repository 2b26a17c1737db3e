"""The tree over rows, and sets of rows: their bytes are read strictly (rules B6, J3)."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.errors import UnusableEventError
from dsmt.event.rowset import RowSet
from dsmt.event.rowtree import RowTree, row_hash

rows = st.sets(st.integers(1, 400), max_size=80)


@given(rows, st.integers(1, 400), st.integers(1, 400))
def test_a_set_of_rows_is_what_was_written_and_counts_exactly(numbers, one, other):
    read = RowSet.read(RowSet.of(numbers).dump())
    first, last = min(one, other), max(one, other)
    assert (len(read), read.runs) == (len(numbers), RowSet.of(numbers).runs)
    assert read.within(first, last) == sum(first <= number <= last for number in numbers)


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda raw: raw + b"\0",
        lambda raw: raw + raw,
        lambda raw: raw[:-1],
        lambda _: zlib.compress(b"\x01"),
        lambda _: zlib.compress(b"\x80"),
        lambda _: zlib.compress(b"\xff" * 8 + b"\x7f\0"),
        lambda _: b"",
    ],
    ids=["one byte more", "said twice", "one byte less", "half a run", "within a number", "beyond every store", "nothing"],
)
def test_a_set_of_rows_with_bytes_more_or_less_is_unusable(spoilt):
    with pytest.raises(UnusableEventError):
        RowSet.read(spoilt(RowSet.of([1, 2, 5]).dump()))


def test_a_set_of_too_many_runs_is_unusable(monkeypatch):
    monkeypatch.setattr("dsmt.event.rowset.MAX_RUNS", 2)
    assert RowSet.read(RowSet.of([1, 3]).dump()).runs == ((1, 1), (3, 3))
    with pytest.raises(UnusableEventError):
        RowSet.read(RowSet.of([1, 3, 5]).dump())


def test_a_copy_of_a_tree_stays_where_it_was_when_rows_are_added_to_either():
    tree = RowTree()
    for number in range(3):
        tree.add(number, b"leaf")
    before, copy = tree.head, tree.copy()
    tree.add(3, b"leaf")
    assert copy.head == before
    after = tree.head
    copy.add(9, b"another")
    assert tree.head == after != copy.head


@pytest.mark.parametrize(("behind", "level"), [(1, 1), (2, 2), (3, 1), (0, 63), (0, -1)])
def test_a_node_is_added_only_where_one_of_its_level_begins(behind, level):
    tree = RowTree()
    for number in range(behind):
        tree.add(number, b"leaf")
    before = tree.head
    with pytest.raises(ValueError, match="no node of level"):
        tree.add_node(level, row_hash(1, 0, b"leaf"))
    assert (tree.rows, tree.head) == (behind, before)
