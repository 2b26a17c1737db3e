"""The independent reader of our events: pycose, in an environment of its own."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def pycose_python():
    """The interpreter of `.venv-pycose`, which is made when it is missing; parallel workers wait for one another."""
    home = ROOT / ".venv-pycose"
    home.mkdir(exist_ok=True)
    python, ready = home / "bin" / "python", home / "ready"
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            for command in (
                [sys.executable, "-m", "venv", str(home)],
                [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pycose", "cbor2<6"],
            ):
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
                assert done.returncode == 0, f"{' '.join(command)} failed: {done.stderr[-2000:]}"
            ready.touch()
    return python
