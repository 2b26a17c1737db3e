"""The README's first session is run as it stands: every command ends with 0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def session() -> list[tuple[str, str]]:
    """The commands of the session, each with what the README shows of its output."""
    found: list[tuple[str, str]] = []
    for line in README.read_text().splitlines():
        if line.startswith("    $ "):
            found.append((line.removeprefix("    $ "), ""))
        elif line.startswith("    ") and found:
            command, output = found[-1]
            found[-1] = (command, f"{output}{line.removeprefix('    ')}\n")
        elif line and found:
            break
    return found


@pytest.mark.real
@pytest.mark.timeout(120)
def test_the_first_session_of_the_readme_runs_as_it_stands(tmp_path):
    steps = session()
    assert [command.split()[0:2] for command, _ in steps[:1]] == [["dsmt", "up"]]
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<h1>hello</h1>\n")
    (tmp_path / "web.yaml").write_text(next(output for command, output in steps if command == "cat web.yaml"))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "DSMT_HOME": str(tmp_path / "home"), "NO_COLOR": "1"}
    try:
        for command, output in steps:
            done = subprocess.run(
                ["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            if output and not command.startswith("cat"):
                assert done.stdout.split()[:1] == output.split()[:1], command
    finally:
        subprocess.run(["dsmt", "down"], env=environment, timeout=60, check=False, capture_output=True)
