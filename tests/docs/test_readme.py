"""The README's first session is run as it stands: every command ends with 0, and says what the README shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dsmt.spec.built import SUPPORTED
from dsmt.spec.drivers import BUILT
from dsmt.spec.keys import JOB_KEYS

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


def masked(text: str) -> list[str]:
    """The lines of an output without what differs from run to run: numbers, random names, the width of columns.

    On a busy machine both controllers may have decided, and what the second one said then was refused.
    """
    text = re.sub(r"\.[0-9a-f]{8}\b", ".HEX", text)
    text = re.sub(r"\d+(\.\d+)?", "N", text).replace("N decisions of N controllers,", "N decision of N controller,")
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return [line for line in lines if not line.endswith("refused as stale: another controller's was first")]


@pytest.mark.parametrize(
    "wrong",
    [
        "3 instances: 3 waiting.   view 0.0 s old, from broker b1, no gaps",
        "3 instances: 3 running.   view 0.0 s old, from broker b1, 1 gap",
        "3 instances: 3 running.",
    ],
)
def test_a_line_that_says_something_else_is_another_line(wrong):
    shown = "3 instances: 3 running.   view 0.0 s old, from broker b1, no gaps"
    assert masked(shown) == masked("12 instances: 7 running. view 10.1 s old, from broker b2, no gaps\n\n")
    assert masked(shown) != masked(wrong)


def test_every_key_that_has_no_effect_yet_is_named() -> None:
    told = README.read_text().partition("These keys have no effect yet:")[2].partition("\n- ")[0]
    named = set(re.findall(r"`([a-z_.]+)", told))
    keys = {row for row, built in SUPPORTED.items() if built is False}
    below = {key for key in keys if key.split(".")[0] in ("barrier", "secret", "after", "near", "notify")}  # named by these
    jobs = {f"component.{key.name}" for key in JOB_KEYS}
    left = {key.removeprefix("component.").removeprefix("service.").removeprefix("check.") for key in keys - below - jobs}
    assert left - named == {"placeholder.endpoints"}
    assert "{endpoints...}" in told
    assert named - left == {"kind", "driver", "spread", "data", "on_partition", "process"}, "of these some values are built"
    assert BUILT == ("process",)


@pytest.mark.real
@pytest.mark.timeout(400)
def test_the_first_session_of_the_readme_runs_as_it_stands(tmp_path):
    steps = session()
    assert [command.split()[0:2] for command, _ in steps[:1]] == [["dsmt", "up"]]
    (tmp_path / "web.yaml").write_text(next(output for command, output in steps if command == "cat web.yaml"))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "DSMT_HOME": str(tmp_path / "home"), "NO_COLOR": "1"}
    try:
        for command, output in steps:
            argv = ["sh", "-c", command]
            done = subprocess.run(
                argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            if not command.startswith("cat"):
                said = done.stdout.replace(str(tmp_path / "home"), "~/.local/state/dsmt")
                assert masked(said) == masked(output), command
    finally:
        subprocess.run(["dsmt", "down"], env=environment, timeout=120, check=False, capture_output=True)
