"""Which spawner a node's managers know: of one that died with its manager the next one says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dsmt.ports.processes import ProcessIdentity
from dsmt.programs.known_spawner import KNOWN, KnownSpawner
from dsmt.system.procfs import boot, identity_of
from dsmt.system.records import read_record, record_path, write_record

Told = list[tuple[int, int]]


def known(directory: Path, told: Told) -> KnownSpawner:
    return KnownSpawner(directory, lambda dead, now: told.append((dead.pid, now.pid)))


def living(directory: Path) -> ProcessIdentity:
    """A spawner that lives: this process."""
    own = identity_of(os.getpid())
    assert own is not None
    write_record(record_path(str(directory), "spawner"), own)
    return own


@pytest.mark.parametrize(("of_boot", "says"), [("this", True), ("another", False)])
def test_who_comes_after_a_manager_says_of_the_spawner_that_it_knew_that_it_died(
    tmp_path: Path, of_boot: str, says: bool
) -> None:
    own, told = living(tmp_path), list[tuple[int, int]]()
    gone = ProcessIdentity(pid=own.pid, started=own.started - 1, boot=boot() if of_boot == "this" else of_boot)
    write_record(record_path(str(tmp_path), KNOWN), gone)
    for _ in range(2):
        known(tmp_path, told).attached()
    assert told == ([(gone.pid, own.pid)] if says else []), "once"
    assert read_record(record_path(str(tmp_path), KNOWN)) == own


def test_of_what_lives_or_has_ended_in_order_or_was_told_already_nothing_is_said(tmp_path: Path) -> None:
    own, told = living(tmp_path), list[tuple[int, int]]()
    manager = known(tmp_path, told)
    manager.attached()
    manager.attached()
    assert told == []
    gone = ProcessIdentity(pid=own.pid, started=own.started - 1, boot=boot())
    manager.replaced(gone, own)
    known(tmp_path, told).attached()
    assert told == [(gone.pid, own.pid)]
    write_record(record_path(str(tmp_path), KNOWN), gone)
    manager.forget()
    known(tmp_path, told).attached()
    assert len(told) == 1
