"""What a trial of programs finds, before any that runs is ended for them (rule C18)."""

from __future__ import annotations

import time

import pytest

from dsmt.errors import FailedError, InputError
from dsmt.programs import container_manager, trial
from dsmt.programs.trial import check_begins


def lacks(_directory: str) -> int:
    raise InputError("config.missing", "it is missing")


def test_a_program_that_says_that_it_lacks_its_files_begins() -> None:
    check_begins("container_manager", container_manager.main)
    check_begins("broker", lacks)


def breaks(_directory: str) -> int:
    raise RuntimeError("broken build")


def waits(_directory: str) -> int:
    time.sleep(600)
    return 0


@pytest.mark.parametrize(
    ("program", "longest_s", "how"),
    [
        (breaks, 60, "with code 70: RuntimeError: broken build"),
        (lambda _directory: 0, 60, "with code 0"),
        (waits, 1, "by SIGALRM"),
    ],
    ids=["raises", "ends well", "hangs"],
)
def test_a_program_that_ends_otherwise_or_not_at_all_is_named(
    program: trial.Main, longest_s: int, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trial, "LONGEST_S", longest_s)
    with pytest.raises(FailedError) as told, capsys.disabled():
        check_begins("monitor", program)
    assert told.value.message == f"the program monitor ends as it begins, {how}"
