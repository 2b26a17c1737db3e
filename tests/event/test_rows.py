"""The tree over rows, and sets of rows: their bytes are read strictly (rules B6, J3)."""

import zlib
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.errors import UnusableEventError
from dsmt.event import rowset
from dsmt.event.rowset import RowSet
from dsmt.event.rowtree import MAX_LEVEL, Node, RowTree, joined, row_hash

rows = st.sets(st.integers(1, 400), max_size=80)
LAST = 2**62
"""The last row that any store may have."""


def refused(raw):
    """The code by which bytes are refused, with a sentence."""
    with pytest.raises(UnusableEventError) as caught:
        RowSet.read(raw)
    assert caught.value.message, "a refusal is a sentence"
    return caught.value.code


def runs_of(numbers):
    """The runs of a set of numbers, by looking at each: (first, last), ascending, with a hole before each."""
    firsts = sorted(number for number in numbers if number - 1 not in numbers)
    lasts = sorted(number for number in numbers if number + 1 not in numbers)
    return tuple(zip(firsts, lasts, strict=True))


@given(rows, st.integers(1, 400), st.integers(1, 400))
def test_a_set_of_rows_is_what_was_written_and_counts_exactly(numbers, one, other):
    read = RowSet.read(RowSet.of(numbers).dump())
    first, last = min(one, other), max(one, other)
    assert (len(read), read.runs) == (len(numbers), runs_of(numbers))
    assert read.within(first, last) == sum(first <= number <= last for number in numbers)


@given(rows, rows)
def test_sets_of_rows_are_put_together_and_taken_from_each_other(some, others):
    one, other = RowSet.of(some), RowSet.of(others)
    assert ((one | other).runs, (one - other).runs) == (runs_of(some | others), runs_of(some - others))


def test_how_many_lie_between_two_is_told_without_looking_at_each_run():
    looked = []

    class Counted(tuple):
        __slots__ = ()

        def __getitem__(self, place):
            looked.append(place)
            return super().__getitem__(place)

    read = RowSet.of(range(1, 20_001, 2))
    read.runs = Counted(read.runs)
    assert read.within(5, 19_995) == 9_996
    assert len(looked) <= 4


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
        lambda raw: b"x" + raw,
    ],
    ids=[
        "one byte more",
        "said twice",
        "one byte less",
        "half a run",
        "within a number",
        "beyond every store",
        "nothing",
        "not deflated",
    ],
)
def test_a_set_of_rows_with_bytes_more_or_less_is_unusable(spoilt):
    assert refused(spoilt(RowSet.of([1, 2, 5]).dump())) == "event.schema"


def test_a_set_of_too_many_runs_is_unusable(monkeypatch):
    monkeypatch.setattr("dsmt.event.rowset.MAX_RUNS", 2)
    assert RowSet.read(RowSet.of([1, 3]).dump()).runs == ((1, 1), (3, 3))
    assert refused(RowSet.of([1, 3, 5]).dump()) == "event.schema"


def test_a_set_that_inflates_beyond_its_bound_is_unusable(monkeypatch):
    raw = RowSet.of(range(1, 101, 2)).dump()
    monkeypatch.setattr(rowset, "_MAX_BYTES", 100)
    assert RowSet.read(raw) is not None
    monkeypatch.setattr(rowset, "_MAX_BYTES", 99)
    assert refused(raw) == "event.schema"


BYTES = {
    "nothing": ([], b""),
    "the first row": ([(1, 1)], b"\0\0"),
    "two runs": ([(3, 4), (6, 6)], b"\2\1\1\0"),
    "seven bits and more": ([(128, 255), (384, 512)], b"\x7f\x7f\x80\x01\x80\x01"),
    "the last row": ([(LAST, LAST)], b"\xff" * 8 + b"\x3f\0"),
    "all rows": ([(1, LAST)], b"\0" + b"\xff" * 8 + b"\x3f"),
}


@pytest.mark.parametrize(("runs", "plain"), BYTES.values(), ids=BYTES)
def test_a_set_s_bytes_are_what_is_left_out_and_the_length_less_one_of_each_run(runs, plain):
    assert zlib.decompress(RowSet(runs).dump()) == plain
    assert RowSet.read(zlib.compress(plain)).runs == tuple(runs)


BEYOND = {
    "a row after the last": b"\xff" * 8 + b"\x3f\1",
    "a run after the last": b"\xff" * 8 + b"\x3f\0\0\0",
    "a number of more than ten bytes": b"\x80" * 10 + b"\0\0",
    "a first that is beyond": b"\x80" * 8 + b"\x40\0",
}


@pytest.mark.parametrize("plain", BEYOND.values(), ids=BEYOND)
def test_a_set_that_goes_beyond_every_store_is_unusable(plain):
    assert refused(zlib.compress(plain)) == "event.schema"


OTHERWISE = {
    "a padded nought": b"\x80\0\0",
    "a padded length": b"\2\x81\0",
    "padded to ten bytes": b"\2" + b"\x80" * 8 + b"\0",
    "padded in a later run": b"\2\1\x81\0\0",
    "runs that touch": b"\2\1\0\0",
}


@pytest.mark.parametrize("plain", OTHERWISE.values(), ids=OTHERWISE)
def test_a_set_that_is_encoded_in_another_way_than_its_one_is_unusable(plain):
    assert refused(zlib.compress(plain)) == "event.schema"


@given(st.binary(max_size=12))
def test_bytes_that_are_read_are_those_that_are_written(plain):
    try:
        read = RowSet.read(zlib.compress(plain))
    except UnusableEventError:
        return
    assert zlib.decompress(read.dump()) == plain


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)).map(lambda run: (run[0], sum(run)))))
def test_runs_that_overlap_touch_or_are_out_of_order_become_runs_that_do_not(runs):
    numbers = {number for first, last in runs for number in range(first, last + 1)}
    assert RowSet(runs).runs == runs_of(numbers)


@given(rows, rows)
def test_two_sets_together_are_their_union(one, other):
    assert (RowSet.of(one) | RowSet.of(other)).runs == runs_of(one | other)


@given(rows, st.integers(1, 60))
def test_the_parts_of_a_set_are_all_of_it_in_order_and_none_is_longer_than_asked_but_a_single_run(numbers, limit):
    parts = list(RowSet.of(numbers).parts(limit))
    assert [run for part in parts for run in part.runs] == list(runs_of(numbers))
    assert all(len(part.dump()) <= limit or len(part.runs) < 2 for part in parts)


def test_a_set_within_the_limit_is_one_part():
    whole = RowSet.of(range(1, 101, 2))
    assert [part.runs for part in whole.parts(len(whole.dump()))] == [whole.runs]
    assert len(list(whole.parts(len(whole.dump()) - 1))) > 1


# The tree -------------------------------------------------------------------------------------------------------------


def hashes(count):
    """The hash of each row by rule 1; row i arrived at i * 10."""
    return [
        sha256(b"\0" + row.to_bytes(8, "big") + (row * 10).to_bytes(8, "big") + bytes([row]) * 32).digest()
        for row in range(1, count + 1)
    ]


def over(hashed):
    """The node over 2^k rows by rule 2."""
    if len(hashed) == 1:
        return hashed[0]
    half = len(hashed) // 2
    return sha256(b"\1" + over(hashed[:half]) + over(hashed[half:])).digest()


def peaks(hashed):
    """The fewest nodes over all rows, largest first, each (first row, level, hash): the ones of the number of rows."""
    found, at = [], 0
    for level in range(len(hashed).bit_length(), -1, -1):
        if len(hashed) >> level & 1:
            found.append(Node(at + 1, level, over(hashed[at : at + 2**level])))
            at += 2**level
    return found


def tree_of(count):
    tree = RowTree()
    for row in range(1, count + 1):
        tree.add(row * 10, bytes([row]) * 32)
    return tree


@pytest.mark.parametrize("count", [*range(18), 31, 32, 33])
def test_a_head_is_the_hash_of_the_number_of_rows_and_the_peaks_over_them(count):
    expected = sha256(b"\2" + count.to_bytes(8, "big") + b"".join(node.hash for node in peaks(hashes(count)))).digest()
    tree = tree_of(count)
    assert (tree.rows, tree.head) == (count, expected)
    by_nodes = RowTree()
    for node in peaks(hashes(count)):
        assert by_nodes.rows == node.first - 1
        by_nodes.add_node(node.level, node.hash)
    assert (by_nodes.rows, by_nodes.head) == (count, expected), "a node's hash is enough for what stands under it"


@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("behind", range(3))
def test_a_node_among_rows_makes_the_same_head_as_the_rows_under_it(level, behind):
    before, under, count = behind * 2**level, 2**level, 24 + behind
    tree = tree_of(before)
    tree.add_node(level, over(hashes(before + under)[before:]))
    for row in range(before + under + 1, count + 1):
        tree.add(row * 10, bytes([row]) * 32)
    assert tree.head == tree_of(count).head


@pytest.mark.parametrize("count", range(18))
def test_a_tree_that_was_written_goes_on_where_it_stood(count):
    tree = RowTree.restored(tree_of(count).dump())
    assert (tree.rows, tree.head) == (count, tree_of(count).head)
    tree.add((count + 1) * 10, bytes([count + 1]) * 32)
    assert tree.head == tree_of(count + 1).head


def test_a_row_s_hash_covers_its_number_its_arrival_and_its_event():
    assert row_hash(2, 20, bytes([2]) * 32) == hashes(2)[1]
    assert len({row_hash(row, at, leaf) for row in (1, 2) for at in (1, 2) for leaf in (b"a", b"b")}) == 8


@pytest.mark.parametrize("level", range(4))
def test_siblings_join_to_their_parent_from_either_side(level):
    hashed, size = hashes(64), 2**level
    for first in range(1, 65, size):
        node = Node(first, level, over(hashed[first - 1 : first - 1 + size]))
        assert node.last == first + size - 1
        assert node.is_left == ((first - 1) % (2 * size) == 0)
        assert node.sibling == (first + size if node.is_left else first - size)
        other = Node(node.sibling, level, over(hashed[node.sibling - 1 : node.sibling - 1 + size]))
        assert (other.sibling, other.is_left) == (first, not node.is_left)
        low = min(first, other.first)
        parent = Node(low, level + 1, over(hashed[low - 1 : low - 1 + 2 * size]))
        assert joined(node, other) == joined(other, node) == parent


def test_the_largest_node_there_is_is_taken():
    tree = RowTree()
    tree.add_node(MAX_LEVEL, b"x" * 32)
    assert tree.rows == LAST


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
