"""Stores that were set aside as damaged: which are, and how many of them stay on the disk."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dsmt.bus.store.sums import damaged
from dsmt.errors import FailedError
from dsmt.programs import damage
from dsmt.programs.damage import KEPT, open_sound, remains, set_aside


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


def open_files() -> list[str]:
    found = []
    for one in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of this list itself
            found.append(str(one.readlink()))
    return found


def test_a_store_that_another_broker_made_is_set_aside_and_nobody_has_it_open_any_more(tmp_path: Path) -> None:
    open_sound(tmp_path, "broker/b1", synced=False).close()
    for number, broker in enumerate(("broker/b1", "broker/b2", "broker/b2")):
        store = open_sound(tmp_path, broker, synced=False)
        aside = [path.name for path in tmp_path.glob("store.damaged-*.db.new")]
        assert len(aside) == min(number, 1)
        assert all("it-is-the-store-of-broker-b1" in name for name in aside)
        assert not [path for path in open_files() if path.startswith(str(tmp_path)) and "damaged" in path]
        store.close()


def test_a_store_that_is_in_use_is_not_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_store(*_: Any, **__: Any) -> Any:
        raise FailedError("store.locked", "the store is in use by another process")

    open_sound(tmp_path, "broker/b1", synced=False).close()
    monkeypatch.setattr(damage, "open_store", open_store)
    with pytest.raises(FailedError, match="in use by another process"):
        open_sound(tmp_path, "broker/b1", synced=False)
    assert not list(tmp_path.glob("store.damaged-*"))


def test_the_log_of_a_store_is_set_aside_before_it_so_that_no_new_one_is_made_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, rename = list[str](), Path.rename
    monkeypatch.setattr(Path, "rename", lambda path, to: (moved.append(path.name), rename(path, to))[1])
    for end in ("", "-wal"):
        (tmp_path / f"store.db{end}").write_bytes(b"damaged")
    set_aside(tmp_path, damaged("it", "row 40"))
    assert moved == ["store.db-wal", "store.db"]


def test_a_disk_that_does_not_let_it_be_said_that_all_was_taken_over_ends_no_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken over once more at the next start."""

    def full(path: Path, _to: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    open_sound(tmp_path, "broker/b1", synced=False).close()
    set_aside(tmp_path, damaged(str(tmp_path / "store.db"), "row 40"))
    monkeypatch.setattr(Path, "rename", full)
    for one in remains(tmp_path):
        one.taken()
    monkeypatch.undo()
    assert len(remains(tmp_path)) == 1
    remains(tmp_path)[0].taken()
    assert remains(tmp_path) == ()
