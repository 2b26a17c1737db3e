"""Fuzzing with atheris: `python -m tests.fuzz TARGET SECONDS`; what breaks a rule is kept in the corpus of its target."""

from __future__ import annotations

import sys
import tempfile
from hashlib import sha256
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dsmt"]):
    from tests.fuzz.targets import CORPUS, TARGETS, WAYS, edited, seeds


def main(target: str, seconds: str) -> None:
    """Fuzz one target for so long."""
    known, holds = seeds(target), TARGETS[target]

    def one_of(data: bytes) -> None:
        """The bytes as they are, and as changes of what is known: a parser in C tells of no way through it."""
        holds(data)
        pieces = [data[at : at + 4] for at in range(1, len(data) - 3, 4)][:8]
        changes = [(WAYS[how % 4], int.from_bytes(place), value) for how, *place, value in pieces]
        if changes:
            keeping(edited(known[data[0] % len(known)], changes))

    def keeping(data: bytes) -> None:
        try:
            holds(data)
        except BaseException:
            (CORPUS / target).mkdir(exist_ok=True)
            (CORPUS / target / sha256(data).hexdigest()[:16]).write_bytes(data)
            raise

    with tempfile.TemporaryDirectory() as directory:
        for number, one in enumerate(known):
            (Path(directory) / str(number)).write_bytes(one)
        found = f"-artifact_prefix={CORPUS / target}/"
        sys.stdout.write(f"{target}: {seconds} s\n")
        atheris.Setup([sys.argv[0], directory, found, f"-max_total_time={seconds}", "-max_len=4096"], one_of)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
