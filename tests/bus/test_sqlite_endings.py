"""A store on SQLite keeps its id, or takes a new one, by how its process and its machine ended."""

from __future__ import annotations

import pytest

from dsmt.bus.store.sqlite import SqliteStore
from dsmt.ports.store import StoreFullError
from tests.bus.stored import append


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


def test_a_store_that_was_only_opened_again_in_the_boot_of_its_rows_still_takes_a_new_id_in_another(tmp_path):
    store = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16, boot="boot-1")
    store.append([append(1)])
    killed(store)
    again = reopened(tmp_path, "boot-1")
    assert again.identity == "a" * 16
    killed(again)
    assert reopened(tmp_path, "boot-2").identity == "b" * 16


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


def test_a_store_that_is_synced_from_now_on_keeps_its_id_when_its_machine_ends_though_it_was_not_before(tmp_path):
    store = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16, boot="boot-1")
    store.append([append(1)])
    killed(store)
    killed(reopened(tmp_path, "boot-1", synced=True))
    again = reopened(tmp_path, "boot-2", synced=True)
    assert again.identity == "a" * 16
    again.close()


def test_a_store_that_found_no_room_for_rows_has_not_lost_them(tmp_path):
    store = SqliteStore(str(tmp_path / "s.db"), identity="a" * 16, boot="boot-1")
    store.append([append(1)])
    pages = store._db.connection.execute("PRAGMA page_count").fetchone()[0]
    store._db.connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreFullError):
        store.append([append(n, size=5000) for n in range(2, 20)])
    killed(store)
    again = reopened(tmp_path, "boot-1")
    assert (again.identity, again.head) == ("a" * 16, 1)
    again.close()
