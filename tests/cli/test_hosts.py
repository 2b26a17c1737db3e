"""A line for each host: on a terminal it is drawn again in its place, elsewhere it is written once, at the end."""

import asyncio
import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from dsmt.cli import hosts
from dsmt.cli.brokers import added
from dsmt.cli.hosts import HostLines, _outcome
from dsmt.operations.remote.adding import HostOutcome
from dsmt.operations.remote.places import NodePlace


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_each_host_keeps_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    progress = HostLines(["web-1", "db"], silent=False)
    progress.tell("db", "connects")
    assert screen.getvalue() == "\r\x1b[Kweb-1  \n\r\x1b[Kdb     connects ...\n"
    screen.truncate(0)
    screen.seek(0)
    progress.done("web-1", "web-1 is alive")
    assert screen.getvalue() == "\x1b[2A\r\x1b[Kweb-1  web-1 is alive\n\r\x1b[Kdb     connects ...\n"


def test_what_a_host_says_steers_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    HostLines(["web-1"], silent=False).tell("web-1", "failed: \x1b]0;owned\x07\nand more")
    assert "\x1b]" not in screen.getvalue()
    assert screen.getvalue().count("\n") == 1


def test_elsewhere_a_line_comes_when_a_host_is_done_and_with_json_none(capsys: pytest.CaptureFixture[str]) -> None:
    progress = HostLines(["web-1", "db"], silent=False)
    progress.tell("db", "connects")
    progress.done("db", "db is alive")
    assert capsys.readouterr() == ("db     db is alive\n", "")
    silent = HostLines(["db"], silent=True)
    silent.tell("db", "connects")
    silent.done("db", "db is alive")
    assert capsys.readouterr() == ("", "")


def test_of_a_host_that_is_added_again_it_is_told_whether_it_was_brought_another_dsmt() -> None:
    one = HostOutcome(host="one", node="one", kept="systemd", took_s=3.0)
    assert _outcome(one) == "one is alive; systemd keeps it  (3.0 s)"
    again = "one is a node already and alive; it {}; systemd keeps it  (3.0 s)"
    assert _outcome(replace(one, already=True, brought=True)) == again.format("runs your dsmt now")
    assert _outcome(replace(one, already=True)) == again.format("had your dsmt before")


def test_a_broker_of_a_home_that_is_down_is_not_said_to_listen() -> None:
    assert added("b2", "10.0.0.1:4000", runs=True).startswith("broker b2 runs on this machine, and listens at 10.0.0.1:40")
    down = added("b2", "10.0.0.1:4000", runs=False)
    assert "b2 will listen at 10.0.0.1:4000; it does not run yet" in down
    assert down.endswith("next: dsmt up --detach")


@pytest.mark.parametrize(("roles", "silent_ms"), [(("broker", "node"), 1_700_000_000_000), (("broker",), None), ((), 1)])
def test_who_removes_a_host_is_told_what_goes_with_a_broker_that_others_did_not_hear(
    roles: tuple[Any, ...], silent_ms: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def removed(*_: object, **__: object) -> None:
        monkeypatch.setattr(hosts, "silent_since_ms", None)  # since when is asked before that

    async def silent_since(*_: object) -> int | None:
        return silent_ms

    monkeypatch.setattr("dsmt.operations.remote.places.place_of", lambda *_: ("one", NodePlace(host="one", roles=roles)))
    monkeypatch.setattr("dsmt.operations.remote.removing.remove", removed)
    monkeypatch.setattr(hosts, "silent_since_ms", silent_since)
    connection = SimpleNamespace(bus=None)
    ctx: Any = SimpleNamespace(home=lambda: None, json=False, act=lambda work: asyncio.run(work(connection)))
    hosts.clear(ctx, "one", yes=True, reason="")
    told = capsys.readouterr()
    assert told.out == "one  one is removed; nothing of dsmt is left there\n"
    assert ("warning: broker one: it was silent since" in told.err) == (bool(roles) and silent_ms is not None)
