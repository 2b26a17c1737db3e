"""Fuzzing with atheris: `python -m tests.fuzz TARGET SECONDS`; what breaks a rule is kept in the corpus of its target."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dsmt"]):
    from tests.fuzz.targets import CORPUS, TARGETS, seeds


def main(target: str, seconds: str) -> None:
    """Fuzz one target for so long."""
    with tempfile.TemporaryDirectory() as directory:
        for number, one in enumerate(seeds(target)):
            (Path(directory) / str(number)).write_bytes(one)
        found = f"-artifact_prefix={CORPUS / target}/"
        sys.stdout.write(f"{target}: {seconds} s\n")
        atheris.Setup([sys.argv[0], directory, found, f"-max_total_time={seconds}", "-max_len=4096"], TARGETS[target])
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
