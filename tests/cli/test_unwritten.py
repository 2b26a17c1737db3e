"""What was asked for is done, and the answer cannot be written: that is said, and what to do then."""

import errno
import io
import sys
from pathlib import Path
from typing import Any

import pytest

from dsmt.operations.write.controlling import Done
from dsmt.operations.write.tokens import Created
from tests.cli.in_process import NO, Run


class Full(io.StringIO):
    """An output that takes nothing."""

    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_who_changes_something_and_cannot_be_answered_hears_that_it_is_done(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stop(*_: Any, **__: Any) -> Done:
        return Done(action="stop", target="web", instances=["web/app/0"], unchanged=[])

    monkeypatch.setattr("dsmt.operations.write.controlling.stop", stop)
    monkeypatch.setattr("dsmt.cli.root._close_pipe", lambda: None)
    monkeypatch.setattr(sys, "stdout", Full())
    unwritten = "the output cannot be written: no space left on device"
    told = f"dsmt: what was asked for is done, but {unwritten}. Next:"
    assert run("stop", "web", home=made) == (NO, f"{told} dsmt status web\n")
    assert run("version", home=made) == (NO, f"dsmt: {unwritten}. Next: write it elsewhere\n")
    assert run("down", home=made) == (NO, f"{told.removesuffix('. Next:')}\n")


def test_who_makes_a_token_and_cannot_be_shown_its_line_is_told_how_to_end_it(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token was left open for an hour, and nobody had it."""

    async def create(*_: Any, **__: Any) -> Created:
        return Created(token="0123456789abcdef", line="dsmt1x", expires=None, brokers=[], warnings=[])

    monkeypatch.setattr("dsmt.operations.write.tokens.create", create)
    monkeypatch.setattr("dsmt.cli.root._close_pipe", lambda: None)
    monkeypatch.setattr(sys, "stdout", Full())
    code, told = run("token", "create", home=made)
    assert code == NO
    assert "what was asked for is done, but" in told
    assert told.endswith("Next: dsmt token revoke 01234567, for its line is shown once; then make another\n")
