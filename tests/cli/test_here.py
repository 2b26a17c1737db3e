"""`--local`: what is printed on a machine that is cut off, and with which codes it ends."""

import json
from pathlib import Path
from typing import Any

import pytest

from dsmt.agents.rules.container import HELD
from dsmt.cli.root import main
from dsmt.operations.local.here import acts
from dsmt.operations.local.home.home import Home
from tests.operations.here import container, cut_off

WRONG, MISSING, DENIED, FAILED = 2, 5, 4, 1


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("DSMT_HOME", str(tmp_path))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(acts, "AGENT_S", 0.1)
    return cut_off(tmp_path)


@pytest.fixture
def typed(home: Home, capsys: pytest.CaptureFixture[str]) -> Any:
    """Types a command with --local; what it printed on both streams."""

    def run(line: str, code: int = 0) -> tuple[str, str]:
        assert main([*line.split(), "--local"]) == code
        told = capsys.readouterr()
        assert "internal error" not in told.err
        return told.out, told.err

    return run


def test_ps_says_what_is_here_who_is_dead_and_what_is_not_known(typed: Any, home: Home) -> None:
    out, _ = typed("ps")
    header, row, below, dead, advice, last = out.splitlines()
    assert header.split() == ["INSTANCE", "STATE", "HEALTH", "NODE", "PID", "PORTS", "RESTARTS", "SINCE"]
    assert row.split()[:5] == ["web/app/0", "stopped", "-", "n1", "-"]
    assert below.strip().startswith("no agent of it lives")
    assert dead == "n1: no spawner and no manager and no monitor lives"
    assert advice == "nothing here starts them again: dsmt up, or systemctl start what keeps this node"
    assert last.startswith(f"1 instance: 1 stopped.   this machine alone, by {home.root} at ")
    assert last.endswith("nothing is known here of others, and of what they decide")


def test_status_says_whom_of_dsmt_it_lacks_and_which_brokers_take_a_connection(typed: Any) -> None:
    out, _ = typed("status")
    assert "  n1        spawner DEAD, manager DEAD, monitor DEAD" in out.splitlines()
    assert "  brokers   0 of 1 that are known here take a connection; not 127.0.0.1:1" in out.splitlines()


def test_what_only_others_know_is_null_and_never_absent(typed: Any) -> None:
    whole = json.loads(typed("status --json")[0])
    assert (whole["realm"], whole["state"], whole["brokers"]) == ("main", None, None)
    assert [(one["service"], one["wanted"], one["held"]) for one in whole["services"]] == [("web", None, 0)]
    service = json.loads(typed("status web --json")[0])
    assert (service["target"], service["events"], len(service["instances"])) == ("web", [], 1)


def test_logs_are_read_from_their_files(typed: Any) -> None:
    assert typed("logs web/app/0 -n 2")[0] == "two\nthree\n"
    assert typed("logs web")[0] == "web/app/0 | one\nweb/app/0 | two\nweb/app/0 | three\n"
    lines = [json.loads(line) for line in typed("logs web --json --previous")[0].splitlines()]
    assert [(line["line"], line["node"], line["stream"], line["time"]) for line in lines[:1]] == [
        ("one", "n1", "stdout", None)
    ]
    assert "nothing is known of such a run" in typed("logs web --revision r9")[1]


def test_a_stop_is_told_with_how_it_ends_and_shown(typed: Any, home: Home) -> None:
    out, _ = typed("stop web --reason smoke")
    assert out == "web/app/0: stopped on n1 until dsmt start web, or dsmt start web --local here\n"
    assert (container(home) / HELD).exists()
    assert f"held by {acts.user()} on n1 with --local" in typed("ps")[0]
    assert typed("stop web")[0] == f'web/app/0: nothing to do: stopped by {acts.user()}: "smoke"\n'
    assert "it may run again, and nobody starts it" in typed("start web", FAILED)[1]
    assert typed("start web")[0] == "web/app/0: nothing to do: it was not stopped on this machine\n"


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("ps web/app/9", MISSING, "there is nothing of web/app/9 on n1"),
        ("stop nothing", MISSING, "there is nothing of nothing on n1"),
        ("start web --reason x", WRONG, "--reason cannot be combined with --local"),
        ("status --exit-code", WRONG, "--exit-code cannot be combined with --local"),
        ("logs web --since 10m", WRONG, "--local cannot be combined with --since"),
    ],
)
def test_what_is_not_there_or_cannot_be_is_told(typed: Any, line: str, code: int, said: str) -> None:
    assert said in typed(line, code)[1]


def test_problems_and_labels_choose_among_what_is_here(typed: Any) -> None:
    assert len(json.loads(typed("ps --problems --json")[0])) == 1
    assert json.loads(typed("ps -l tier=front --json")[0]) == []
