"""A program begins though neither its record nor its log can be written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys
from dsmt.system import fork

def main(directory):
    open(directory + "/begun", "w").close()
    return 0

fork.open_log = lambda *_: os.open("/dev/full", os.O_WRONLY)
child = fork.fork(fork.Program("agent", main, sys.argv[1], "/dev/full/agent.json"), lambda: None)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]))
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_who_has_no_room_for_a_record_nor_for_saying_so_begins_all_the_same(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], timeout=60, check=True)
    assert (tmp_path / "begun").exists()
