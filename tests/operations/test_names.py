"""Names: how they are sorted, and which one was meant."""

from __future__ import annotations

import pytest

from dsmt.operations.words.names import bare, in_order, meant


@pytest.mark.parametrize(
    "names",
    [
        ["n1", "n2", "n10"],
        ["1", "9", "10", "a"],
        ["a", "a1b", "a1b2", "a2", "b"],
        ["n01", "n1", "n1a"],
        ["10.0.0.5:2", "10.0.0.5:10", "10.0.0.10:1"],
    ],
)
def test_a_number_in_a_name_counts_as_a_number(names: list[str]) -> None:
    assert in_order(reversed(names)) == names
    assert in_order(names) == names


def test_a_name_with_its_kind_before_it_is_to_be_written_without() -> None:
    assert bare("broker", "broker/b2", ["b1", "b2"]) == "write b2, without broker/"
    assert [bare("broker", name, ["b1", "b2"]) for name in ("broker/b3", "node/b2", "b2", "")] == [None] * 4


def test_what_was_meant_stands_before_what_else_can_be_done() -> None:
    assert meant("wbe", ["web", "db"]) == "did you mean web? "
    assert meant("zzzz", ["web", "db"]) == ""
