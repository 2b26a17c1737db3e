"""Somebody who says things all the time from a place in a lab, and what was acknowledged to them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dsmt.event.codec import decode
from dsmt.event.envelope import Event
from dsmt.operations.offline.history import read
from tests.real.test_adding import Operator

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Telling:
    """What is written down of what was acknowledged: the id of an event and its level, a line each."""

    file: Path

    @property
    def levels(self) -> dict[str, str]:
        """The level of each, by id; not of a line that is only begun."""
        lines = self.file.read_text().splitlines(keepends=True)
        found = [line.split() for line in lines if line.endswith("\n")]
        return dict(found)

    def __len__(self) -> int:
        return len(self.levels)


@contextmanager
def telling(operator: Operator, address: str, within: Sequence[str] = ()) -> Iterator[Telling]:
    """A program that says one thing after the other, first to the broker at an address; `within` is where it runs."""
    lab = operator.lab
    told = Telling(lab.directory / f"told-{address.replace(':', '-')}")
    argv = [*(within or lab.within), sys.executable, "-m", "tests.real.teller", str(operator.home), address]
    with told.file.open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, cwd=ROOT, env={**lab.environment, "PYTHONPATH": str(ROOT)})
        try:
            operator.until(lambda: len(told) > 20, f"it is acknowledged at {address}")
            yield told
        finally:
            process.kill()
            process.wait()


def exported(operator: Operator, address: str, *, verified: bool = True) -> dict[str, Event]:
    """All that a broker has stored, by id."""
    file = operator.lab.directory / address.replace(":", "-")
    operator.run("export", str(file), "--bus", f"dsmt://{address}")
    assert not verified or operator.run("verify", str(file), "--json").json["ok"]
    found = [decode(parts[2]) for letter, parts in read(file.read_bytes()) if letter == "R"]
    return {str(signed.id): signed.event for signed in found}


def stored_ms(operator: Operator, address: str) -> dict[str, int]:
    """When a broker has stored what it exported last, by id."""
    file = operator.lab.directory / address.replace(":", "-")
    return {str(decode(parts[2]).id): parts[1] for letter, parts in read(file.read_bytes()) if letter == "R"}


def said_ms(event: Event) -> int:
    """When an event was signed."""
    return event.time >> 16
