"""P11: how long a person waits for the command line: help, `ps`, the first event of `tail`, the first service after `up`.

Each command is a process of its own, timed from before its start until its end, or until what is told has come. Beside all
of them, in turn with them, `python3 -c pass` by the same interpreter.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.peers import UnavailableError, beside_python
from benchmarks.prepared_fleet import prepare, served
from benchmarks.progress import progress
from benchmarks.realm import SPEC
from benchmarks.rows import Row, compare, median, percentile, row
from benchmarks.sizes import sized
from benchmarks.stamps import Stamps, compile_program, now_ns
from benchmarks.usage import usage, used
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes.ending import down

ID: Final = "P11"
TIMES, STARTS, LOOKS = sized((20, 5, 5), (1, 1, 1))
NODES, EACH = sized(1000, 4), 5
"""The prepared fleet, and instances for each node."""
PATIENCE_S: Final = 60.0
FLOOR: Final = "python3 -c pass"
HELP, PS, TAIL = "dsmt --help", "dsmt ps", "dsmt tail, first event"
UP, PS_FLEET = "dsmt up --detach, dsmt apply: first service", f"dsmt ps, {NODES} nodes"
BARS_MS: Final[Mapping[str, float]] = {HELP: 60.0, PS: 150.0, TAIL: 200.0, UP: 2000.0, PS_FLEET: 1500.0}


class Samples:
    """Milliseconds that something took, and those of the floor in the same rounds."""

    def __init__(self) -> None:
        self.ours: list[float] = []
        self.floor: list[float] = []

    def take(self, ours: float, floor: float) -> None:
        self.ours.append(ours)
        self.floor.append(floor)


Timed = dict[str, Samples]
"""By what was timed."""


def run() -> list[Row]:
    samples: Timed = {name: Samples() for name in BARS_MS}
    notes: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="dsmt-p11-") as directory:
        _time_up(Path(directory), samples, notes)
        _time_small(Path(directory) / "small", samples)
        _time_fleet(Path(directory) / "fleet", samples, notes)
    return [_row(name, timed, notes.get(name, "")) for name, timed in samples.items()]


# --- one command -------------------------------------------------------------------------------------------------


def _command(home: Path, *words: str) -> float:
    """Milliseconds from before the start of `dsmt` to after its end. Raises `CalledProcessError`."""
    return _timed([beside_python("dsmt"), *words], home)


def _floor() -> float:
    return _timed([sys.executable, "-c", "pass"], Path())


def _timed(command: list[str], home: Path) -> float:
    began = time.monotonic()
    subprocess.run(command, env=_environment(home), capture_output=True, check=True, timeout=PATIENCE_S)
    return (time.monotonic() - began) * 1000


def _first_line(home: Path) -> float:
    """Milliseconds until `dsmt tail` has written its first event."""
    began = time.monotonic()
    command = [beside_python("dsmt"), "tail", "--json"]
    with subprocess.Popen(command, env=_environment(home), stdout=subprocess.PIPE) as started:
        try:
            line = started.stdout.readline() if started.stdout is not None else b""
            took = time.monotonic() - began
        finally:
            started.kill()
    if not line:
        raise RuntimeError("dsmt tail ended before it had told an event")
    return took * 1000


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "DSMT_HOME": str(home)}


# --- up ----------------------------------------------------------------------------------------------------------


@contextmanager
def _ended(home: Path) -> Iterator[None]:
    try:
        yield
    finally:
        if Home(home).exists:
            asyncio.run(down(Home(home)))


def _time_up(directory: Path, samples: Timed, notes: dict[str, str]) -> None:
    """From before `up` in an empty home until the `main` of the service's program."""
    try:
        program = compile_program(directory)
    except UnavailableError as error:
        notes[UP] = f"not measured: {error}"
        return
    returned = []
    for number in range(STARTS):
        home, file = directory / f"up{number}", directory / "bench.yaml"
        stamps = Stamps(directory / f"fifo{number}")
        file.write_text(SPEC.format(service="bench", run=f"{program} {stamps.path}", instances=1))
        with ExitStack() as stack:
            stack.callback(stamps.close)
            stack.enter_context(_ended(home))
            began = now_ns()
            returned.append(_command(home, "up", "--detach"))
            _command(home, "apply", str(file))
            samples[UP].take((stamps.next(PATIENCE_S).at_ns - began) / 1e6, _floor())
        progress(ID, number + 1, STARTS)
    notes[UP] = f"up alone {median(returned):.0f}"


# --- commands at a realm -----------------------------------------------------------------------------------------


def _time_small(home: Path, samples: Timed) -> None:
    """A realm of three nodes with a service of three instances."""
    file = home.with_suffix(".yaml")
    file.write_text(SPEC.format(service="bench", run="sleep infinity", instances=3))
    with _ended(home):
        _command(home, "up", "--detach", "--nodes", "3")
        _command(home, "apply", str(file), "--wait")
        timed: dict[str, Callable[[], float]] = {
            HELP: lambda: _command(home, "--help"),
            PS: lambda: _command(home, "ps"),
            TAIL: lambda: _first_line(home),
        }
        for measure in timed.values():
            measure()  # the first one may compile modules
        for _ in range(TIMES):
            floor = _floor()
            for name, measure in timed.items():
                samples[name].take(measure(), floor)


def _time_fleet(home: Path, samples: Timed, notes: dict[str, str]) -> None:
    """A broker alone, with the facts of a whole fleet."""
    facts = prepare(Home(home), NODES, EACH)
    with served(Home(home)) as broker:
        before, own_s = usage([broker]), _children_s()
        for _ in range(LOOKS):
            samples[PS_FLEET].take(_command(home, "ps"), _floor())
        own_ms = (_children_s() - own_s) / LOOKS * 1000
        broker_ms = used(before, usage([broker]), [broker])[0] / LOOKS * 1000
    notes[PS_FLEET] = (
        f"{NODES * EACH} instances, {facts} facts, each verified; ms of CPU: dsmt ps {own_ms:.0f}, broker {broker_ms:.0f}"
    )


def _children_s() -> float:
    """CPU seconds of all commands that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


# --- the table ---------------------------------------------------------------------------------------------------


def _row(name: str, timed: Samples, note: str) -> Row:
    ours, floor, bar = timed.ours, timed.floor, BARS_MS[name]
    if not ours:
        return row(ID, name, unit="ms", ours=None, bar=f"<= {bar:.0f} ms", note=note)
    ratio, spread = compare(ours, floor, median)
    told = f"p90 {percentile(0.9)(ours):.0f} of {len(ours)}"
    return row(
        ID,
        name,
        unit="ms",
        ours=median(ours),
        peer=median(floor),
        peer_name=FLOOR,
        ratio=ratio,
        spread=spread,
        bar=f"<= {bar:.0f} ms",
        holds=median(ours) <= bar,
        note=f"{told}; {note}" if note else told,
    )
