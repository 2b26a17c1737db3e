"""`export`: what becomes of the file where the history cannot be read to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dsmt.cli import export
from dsmt.cli.context import CliContext
from dsmt.cli.root import main
from dsmt.cli.verify import _show_history
from dsmt.errors import FailedError
from dsmt.operations.offline.history import Exported
from dsmt.operations.offline.verifying import HistoryHead

YESTERDAY = b"\x85aH of yesterday"


def test_an_export_that_fails_leaves_the_file_before_it_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(_ctx: CliContext, work: Callable[[Any], Awaitable[Any]]) -> Any:
        class Connection:
            bus = trust = None

        return asyncio.run(work(Connection()))  # type: ignore[arg-type]

    async def half(
        _bus: object, _trust: object, write: Callable[[bytes], object], _topics: object, *, since: None, beside: str
    ) -> None:
        assert beside == str(tmp_path), "what waits to be written takes no room elsewhere"
        write(b"half of it")
        raise FailedError("history.moving", "the store was trimmed while it was read", next="export it again")

    monkeypatch.setattr(CliContext, "ask", ask)
    monkeypatch.setattr(export, "write_history", half)
    file = tmp_path / "history.dsmt"
    file.write_bytes(YESTERDAY)
    assert main(["export", str(file)]) == FailedError.exit
    assert "the store was trimmed while it was read" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["history.dsmt"]
    assert file.read_bytes() == YESTERDAY


def test_the_verify_that_an_export_names_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my history.dsmt"

    def ask(_ctx: CliContext, _work: object) -> Exported:
        return Exported(1, 1, "broker/b1", "s")

    monkeypatch.setattr(CliContext, "ask", ask)
    assert main(["export", str(file)]) == 0
    assert f"dsmt verify '{file}'" in capsys.readouterr().out


def test_of_what_never_came_it_is_told_whose_numbers_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    """A source may number what it never said: the count is its own word."""
    never = {"agent/n1/web/app/0": 2**62, "node/n1": 1, "node/n2": 1, "node/n3": 1}
    head = HistoryHead(
        store="s", broker="broker/b1", rows=1, signed_at="then", trimmed=0, left_out=0, wanted=(), lost=0, heads=1,
        never_came=sum(never.values()), never_came_of=never, head_hash="", before=0, begins=None,
    )  # fmt: skip
    _show_history(head)
    by = "never reached the broker, as it says itself by that source's numbers"
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"  4611686018427387904 events of agent/n1/web/app/0 {by}",
        f"  1 event of node/n1 {by}",
        f"  1 event of node/n2 {by}",
        "  so did events of 1 other source",
    ]


@pytest.mark.parametrize("command", [["export"], ["trust", "export"]])
def test_what_is_no_export_is_not_replaced_by_one(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slip of completion would cost a service file, or the root key."""
    monkeypatch.setattr(CliContext, "ask", lambda *_: pytest.fail("nothing is to be read"))
    file = tmp_path / "root.key"
    file.write_bytes(b"a key")
    assert main([*command, str(file)]) == 2
    assert "it would be replaced" in capsys.readouterr().err
    assert file.read_bytes() == b"a key"


@pytest.mark.parametrize("command", ["verify", "replay"])
def test_a_device_without_an_end_is_read_no_further_than_its_beginning(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "/dev/zero"]) == 2
    assert "begins neither as a history nor as a recording" in capsys.readouterr().err
