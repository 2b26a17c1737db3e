"""`tail` and its words: from when on it reads, and what it says where nothing is found."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dsmt.cli import stream
from dsmt.cli.stream import _Printer, _timed
from dsmt.errors import InputError
from dsmt.event.hlc import rfc3339
from dsmt.operations.read.realm.tailing import TailQuery
from dsmt.operations.words.times import AHEAD_MS
from dsmt.ports.bus import Arrived, Notice
from tests.cli.in_process import Run

NOW_MS = 1_800_000_000_000
ASKED = TailQuery()


def test_a_time_that_is_a_little_ahead_is_taken_and_one_that_is_still_to_come_is_not() -> None:
    found = _timed(ASKED, rfc3339(NOW_MS + AHEAD_MS), None, NOW_MS)
    assert (found.since, found.until_ms) == (NOW_MS + AHEAD_MS, None)
    with pytest.raises(InputError, match="is still to come"):
        _timed(ASKED, rfc3339(NOW_MS + AHEAD_MS + 1), None, NOW_MS)
    found = _timed(ASKED, rfc3339(NOW_MS), rfc3339(NOW_MS), NOW_MS)
    assert (found.since, found.until_ms) == (NOW_MS, NOW_MS)
    with pytest.raises(InputError, match="is before"):
        _timed(ASKED, rfc3339(NOW_MS), rfc3339(NOW_MS - 1), NOW_MS)


def test_what_ends_at_a_time_that_has_passed_is_not_followed_and_so_told_where_it_is_nothing() -> None:
    assert not _timed(ASKED, None, rfc3339(NOW_MS), NOW_MS).follow
    assert _timed(ASKED, None, rfc3339(NOW_MS + 1), NOW_MS).follow


@pytest.mark.parametrize(
    ("follow", "last", "told"), [(False, 5, True), (False, None, True), (False, 0, False), (True, 5, False)]
)
def test_that_nothing_was_found_is_told_to_who_asked_for_something(
    follow: bool, last: int | None, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody: Any = None
    wanted: Any = SimpleNamespace(follow=follow, last=last)
    _Printer(nobody, nobody, wanted, wide=False, raw=False).end()
    assert capsys.readouterr().err == ("-- nothing in the history is what was asked for\n" if told else "")


def test_who_is_ended_while_it_records_has_kept_what_proves_all_that_it_has_written(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(stream.exporting, "keep", lambda *_: done.append("certificates"))
    monkeypatch.setattr(stream, "send_bytes", lambda raw: done.append(raw.decode()))
    ctx: Any = SimpleNamespace(home=lambda: None, json=False)
    connection: Any = SimpleNamespace(trust=None)
    printer = _Printer(ctx, connection, cast(Any, None), wide=False, raw=True)
    for key_id, raw in ((b"a", b"1"), (b"a", b"2"), (b"b", b"3")):
        signed: Any = SimpleNamespace(key_id=key_id, raw=raw)
        printer.batch([Arrived(signed, row=1, live=True)])
    assert done == ["certificates", "1", "2", "certificates", "3"]


@pytest.mark.usefixtures("utc")
def test_what_is_not_believed_is_told_once_for_each_reason_and_then_counted(capsys: pytest.CaptureFixture[str]) -> None:
    now_ms = [NOW_MS]
    ctx: Any = SimpleNamespace(json=False)
    connection: Any = SimpleNamespace(bus=SimpleNamespace(now_ms=lambda: now_ms[0]))
    printer = _Printer(ctx, connection, ASKED, wide=False, raw=False)
    c1, n1 = (Notice("dsmt.notice.badsignature", f"{who} was revoked", {}) for who in ("controller/c1", "node/n1"))
    for after_s, batch, told in (
        (0, [c1, c1, n1, c1], ["00.000 X controller/c1 was revoked; not shown", "00.000 X node/n1 was revoked; not shown"]),
        (9, [c1], []),
        (10, [c1, n1], ["10.000 X controller/c1 was revoked; 4 more events not shown",
                        "10.000 X node/n1 was revoked; 1 more event not shown"]),
        (11, [n1], []),
        (12, None, ["12.000 X node/n1 was revoked; 1 more event not shown"]),
    ):  # fmt: skip
        now_ms[0] = NOW_MS + after_s * 1000
        printer.keep() if batch is None else printer.batch(batch)
        assert [line.removeprefix("08:00:") for line in capsys.readouterr().out.splitlines()] == told


@pytest.mark.parametrize("arguments", [["tail"], ["tail", "--json"], ["tail", "--raw"], ["logs", "web", "-f"]], ids=" ".join)
def test_who_follows_ends_with_the_pipe_though_nothing_more_is_written(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    reads, writes = os.pipe()
    ended: list[str] = []

    async def forever(*_: Any) -> AsyncIterator[list[Any]]:
        try:
            os.close(reads)  # as `head -1` does, when it has its line
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
            yield []
        finally:
            ended.append("in order")

    monkeypatch.setattr(stream, "follow_events", forever)
    monkeypatch.setattr("dsmt.operations.write.asking_logs.logs", forever)
    with os.fdopen(writes, "w") as out:
        monkeypatch.setattr("sys.stdout", out)
        assert run(*arguments, home=made) == (0, "")
    assert ended == ["in order"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("c1", "no source has the name c1; did you mean '*/c1'?"),
        ("node", "no source has the name node; did you mean 'node/*'?"),
        ("nodes/", "no source has the name nodes/; did you mean 'node/*'?"),
        ("nodes/n1", "no source has the name nodes/n1; did you mean 'node/n1'?"),
        ("x/n1", "no source has the name x/n1; --json shows each event's"),
        *((known, "") for known in ("node/n1", "*", "*/c1", "root", "agent/n1/+", "[bc]*/x", "operator/root*")),
    ],
)
def test_of_a_source_that_can_be_none_it_is_told_which_was_meant(source: str, said: str) -> None:
    assert stream._no_source(source) == said
