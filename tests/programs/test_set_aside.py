"""Stores that were set aside as damaged: how many of them stay on the disk."""

from __future__ import annotations

from pathlib import Path

from dsmt.bus.store.sums import damaged
from dsmt.programs.damage import KEPT, set_aside


def test_of_the_stores_that_were_set_aside_the_newest_stay_and_of_the_others_nothing(tmp_path: Path) -> None:
    names = [f"store.damaged-2020010{n}T000000000000Z-row-{n}.db" for n in range(1, KEPT + 2)]
    for name in names:
        for end in ("", "-wal"):
            (tmp_path / (name + end)).write_bytes(b"damaged")
    for end in ("", "-wal"):
        (tmp_path / f"store.db{end}").write_bytes(b"damaged now")
    set_aside(tmp_path, damaged("of a home that is called `this is damaged: y`", "row 40"))
    left = sorted(path.name for path in tmp_path.iterdir())
    new = [name for name in left if name not in {one + end for one in names for end in ("", "-wal")}]
    assert [name.partition("Z-")[2] for name in new] == ["row-40.db.new", "row-40.db.new-wal"]
    assert left == sorted([*new, *(name + end for name in names[-(KEPT - 1) :] for end in ("", "-wal"))])
