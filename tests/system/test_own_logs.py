"""Logs of dsmt's own processes, however long these run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CAP, LINES, SAID = 16 * 1024, 16, 500
SCRIPT = f"""
import os, sys
from dsmt import logs
from dsmt.system import fork
fork.LOG_CAP, logs.LINES = {CAP}, {LINES}

def main(directory):
    logs.to_stderr()
    for n in range({SAID}):
        if n == 300 and {{is_full}}:
            fork.os.open = lambda *_: fork.os.stat("/nowhere")
        logs.Logger(source="node/n1").info("not attached", n=n, reason="no broker answers at 127.0.0.1:4000")
    return 0

child = fork.fork(fork.Program("agent", main, sys.argv[1], sys.argv[1] + "/agent.json"), lambda: None)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]))
"""


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["n"] for line in path.read_text().splitlines()]


def said(directory: Path, *, is_full: bool = False) -> None:
    script = SCRIPT.replace("{is_full}", str(is_full))
    subprocess.run([sys.executable, "-c", script, str(directory)], timeout=60, check=True)


def test_a_process_that_says_the_same_for_weeks_keeps_the_last_of_it_and_no_more_than_so_much(tmp_path: Path) -> None:
    said(tmp_path)
    logs = tmp_path / "agent.log.1", tmp_path / "agent.log"
    assert {path.name for path in tmp_path.iterdir()} == {"agent.json", "agent.log", "agent.log.1"}
    assert max(path.stat().st_size for path in logs) < CAP + LINES * 200
    kept = [n for path in logs for n in numbers(path)]
    assert kept == list(range(kept[0], SAID)), "none is lost where one log follows the other"


def test_where_no_log_is_to_be_had_it_goes_on_in_the_one_that_it_has(tmp_path: Path) -> None:
    said(tmp_path, is_full=True)
    assert max(n for path in tmp_path.glob("agent.log*") for n in numbers(path)) == SAID - 1
