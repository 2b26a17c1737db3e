"""Log lines of dsmt's own processes."""

from __future__ import annotations

import json
import sys
from datetime import datetime

import pytest

from dsmt.logs import Logger, to_stderr


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Logger, "enabled", False)


def test_a_line_is_one_object_with_what_is_bound_and_said_and_when(capsys: pytest.CaptureFixture[str]) -> None:
    to_stderr()
    Logger(broker="b1").error("cannot store", reason="disk\nfull", of=b"x")
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert datetime.fromisoformat(said.pop("timestamp")).utcoffset() is not None
    assert said == {"broker": "b1", "reason": "disk\nfull", "of": "b'x'", "event": "cannot store", "level": "error"}


def test_nothing_is_written_before_it_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    Logger().warning("quiet")
    assert capsys.readouterr().err == ""


def test_a_full_disk_takes_no_line_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_text: str) -> int:
        raise OSError(28, "No space left on device")

    to_stderr()
    monkeypatch.setattr(sys.stderr, "write", full)
    Logger().info("lost")
