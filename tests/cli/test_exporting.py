"""`export`: what becomes of the file where the history cannot be read to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dsmt.cli import export
from dsmt.cli.command import CliContext
from dsmt.cli.root import main
from dsmt.errors import FailedError


def test_an_export_that_fails_leaves_the_file_before_it_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(_ctx: CliContext, work: Callable[[Any], Awaitable[Any]]) -> Any:
        class Connection:
            bus = trust = None

        return asyncio.run(work(Connection()))  # type: ignore[arg-type]

    async def half(_bus: object, _trust: object, write: Callable[[bytes], object], _topics: object) -> None:
        write(b"half of it")
        raise FailedError("history.moving", "the store was trimmed while it was read", next="export it again")

    monkeypatch.setattr(CliContext, "ask", ask)
    monkeypatch.setattr(export, "write_history", half)
    file = tmp_path / "history.dsmt"
    file.write_bytes(b"of yesterday")
    assert main(["export", str(file)]) == FailedError.exit
    assert "the store was trimmed while it was read" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["history.dsmt"]
    assert file.read_bytes() == b"of yesterday"
