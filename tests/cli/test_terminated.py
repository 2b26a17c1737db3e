"""SIGTERM, as `timeout` and shutdowns send it, is an interrupt: what was begun is cleared away, and the exit code is 130."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

COMMAND = """
import asyncio, sys
import dsmt.cli.root

async def works():
    try:
        print("begun", flush=True)
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        print("cleared away", flush=True)

def run(_):
    try:
        asyncio.run(works())
    except KeyboardInterrupt:
        return 130

dsmt.cli.root.main = run
from dsmt.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("interrupts", ["default_int_handler", "SIG_IGN"])
def test_a_command_that_is_terminated_clears_away_what_it_has_begun(interrupts: str) -> None:
    arguments = [sys.executable, "-c", f"import signal; signal.signal(signal.SIGINT, signal.{interrupts})\n{COMMAND}"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
        try:
            assert command.stdout is not None
            assert command.stdout.readline() == "begun\n"
            command.send_signal(signal.SIGTERM)
            assert command.communicate(timeout=90) == ("cleared away\n", "")
            assert command.returncode == 130
        finally:
            command.kill()
