"""P5: durable publishing, each event acknowledged after its commit, and replay of all of it by a reader who verifies it.

Run alone: `python -m benchmarks.p5_history`. Beside it JetStream with a file store, through nats-py, in the same rounds: as
many unacknowledged as ours. `synced`: each commit is on the disk before it is acknowledged (`sync_interval: always` there).
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bare_realm import client, make_realm, play, process, serve, wait_for, write
from benchmarks.peers import UnavailableError, from_python
from benchmarks.rows import Row, compare, row
from benchmarks.sizes import sized
from benchmarks.stream_peers import free_port, launched
from benchmarks.usage import usage, used

ID = "P5"
MODULE = "benchmarks.p5_history"
SIZES = sized((10_000, 30_000, 100_000, 300_000), (500, 1000))
SYNCED = sized(10_000, 300)
PEER_EVENTS = sized(20_000, 600)
ROUNDS = sized(3, 1)
FLYING, BURST = 4096, 256
REPLAY_BAR = 80_000.0
DATA = {"load": [0.25, 0.5, 0.75], "text": "x" * 60}
BODY = b"x" * 300


class Round(NamedTuple):
    """Events a second that were acknowledged, and that were read again; and the microseconds of CPU for each, by process."""

    published: float
    replayed: float
    publishing_us: dict[str, float]
    replaying_us: dict[str, float]


def _ours(directory: Path, events: int, *, synced: bool = False) -> Round:
    make_realm(directory)
    with ExitStack() as stack:
        broker = stack.enter_context(process(MODULE, "broker", str(directory), *(["synced"] if synced else [])))
        wait_for(directory / "address", broker)
        publisher = stack.enter_context(process(MODULE, "publisher", str(directory), str(events)))
        published = _timed(directory, "published", {"broker": broker, "publisher": publisher}, events)
        reader = stack.enter_context(process(MODULE, "reader", str(directory), str(events)))
        replayed = _timed(directory, "replayed", {"broker": broker, "reader": reader}, events)
    return Round(published[0], replayed[0], published[1], replayed[1])


def _timed(
    directory: Path, name: str, both: dict[str, subprocess.Popen[bytes]], events: int
) -> tuple[float, dict[str, float]]:
    """How many a second the second of two processes says it did, from when it says that it begins; and CPU for each."""
    asked = list(both.values())[1]
    wait_for(directory / f"{name}-begins", asked)
    before = usage([one.pid for one in both.values()])
    write(directory / f"{name}-go", "go")
    seconds = float(wait_for(directory / name, asked, 300.0))
    after = usage([one.pid for one in both.values()])
    return events / seconds, {who: used(before, after, [one.pid])[0] / events * 1e6 for who, one in both.items()}


async def _begun(directory: Path, name: str) -> float:
    """Say that it begins, and wait until the CPU time before that was read; the time."""
    write(directory / f"{name}-begins", "yes")
    while not (directory / f"{name}-go").exists():  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(0.01)
    return time.monotonic()


async def _publisher(directory: Path, events: str) -> None:
    from dsmt.ports.bus import Draft

    bus = client(directory, "publisher")
    running = asyncio.create_task(bus.run())
    await bus.wait_attached()
    gc.freeze()
    began, waiting = await _begun(directory, "published"), []
    for at in range(0, int(events), BURST):
        together = [bus.emit(Draft("user/p5", {**DATA, "n": n})) for n in range(at, min(at + BURST, int(events)))]
        bus.flush()
        waiting.append(together)
        if len(waiting) * BURST >= FLYING:
            for one in waiting.pop(0):
                await one.acknowledged()
    for some in waiting:
        for one in some:
            await one.acknowledged()
    write(directory / "published", str(time.monotonic() - began))
    await running


async def _reader(directory: Path, events: str) -> None:
    from dsmt.ports.bus import Arrived, Interest, Start

    bus = client(directory, "subscriber")
    running = asyncio.create_task(bus.run())
    await bus.wait_attached()
    gc.freeze()
    began, seen = await _begun(directory, "replayed"), 0
    async with bus.subscribe(Interest(("user/p5",), start=Start.HISTORY)) as deliveries:
        async for batch in deliveries:
            seen += sum(isinstance(one, Arrived) for one in batch)
            if seen >= int(events):
                break
    write(directory / "replayed", str(time.monotonic() - began))
    await running


async def _stream(address: str) -> Any:
    import nats
    from nats.js.api import StreamConfig

    connection = await nats.connect(f"nats://{address}")
    jetstream = connection.jetstream(publish_async_max_pending=FLYING)
    await jetstream.add_stream(StreamConfig(name="p5", subjects=["p5"]))
    return jetstream


async def _jetstream(directory: Path, address: str, events: str) -> None:
    jetstream = await _stream(address)
    began = await _begun(directory, "published")
    answers = [await jetstream.publish_async("p5", BODY) for _ in range(int(events))]
    await asyncio.gather(*answers)
    write(directory / "published", str(time.monotonic() - began))
    pulled = await jetstream.pull_subscribe("p5", "all")
    began, seen = await _begun(directory, "replayed"), 0
    while seen < int(events):
        found = await pulled.fetch(min(1000, int(events) - seen), timeout=10)
        await asyncio.gather(*[one.ack() for one in found])
        seen += len(found)
    write(directory / "replayed", str(time.monotonic() - began))


def _theirs(directory: Path, events: int, *, synced: bool = False) -> Round:
    with ExitStack() as stack:
        port = free_port()
        settings = directory / "nats.conf"
        always = ", sync_interval: always" if synced else ""
        settings.write_text(f'listen: 127.0.0.1:{port}\njetstream: {{store_dir: "{directory}/js"{always}}}\n')
        server = launched(stack, [from_python("nats-server"), "-c", str(settings)], port)
        client = stack.enter_context(process(MODULE, "jetstream", str(directory), f"127.0.0.1:{port}", str(events)))
        published = _timed(directory, "published", {"server": server, "client": client}, events)
        replayed = _timed(directory, "replayed", {"server": server, "client": client}, events)
    return Round(published[0], replayed[0], published[1], replayed[1])


ROLES: dict[str, Callable[..., Any]] = {
    "broker": serve,
    "publisher": _publisher,
    "reader": _reader,
    "jetstream": _jetstream,
}


def _round(measure: Callable[..., Round], events: int, *, synced: bool = False) -> Round:
    directory = Path(tempfile.mkdtemp(prefix="p5-"))
    try:
        return measure(directory, events, synced=synced)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run() -> list[Row]:
    """The rows of the table: both policies beside the peer, with the replay of what was not synced; then replay by size."""
    rows: list[Row] = []
    for synced in (False, True):
        events = SYNCED if synced else PEER_EVENTS
        ours: list[Round] = []
        theirs: list[Round] = []
        missing = ""
        for _ in range(ROUNDS):
            ours.append(_round(_ours, events, synced=synced))
            try:
                theirs.append(_round(_theirs, events, synced=synced))
            except UnavailableError as error:
                missing = str(error)
        rows.append(_row(f"durable, {'synced' if synced else 'not synced'}", "published", ours, theirs, missing))
        if not synced:
            rows.append(_row(f"replay of {events}", "replayed", ours, theirs, missing))
    before = 0.0
    for events in SIZES:
        found = _round(_ours, events)
        growth = f", {before / found.replayed:.2f} x the time an event of the size before" if before else ""
        before = found.replayed
        told = f"us of CPU an event: {_told(found.replaying_us)}; published {found.published:.0f}/s{growth}"
        holds = found.replayed >= REPLAY_BAR
        rows.append(
            row(ID, f"replay of {events}", unit="/s", ours=before, bar=f">= {REPLAY_BAR:.0f}/s", holds=holds, note=told)
        )
    return rows


def _row(size: str, figure: str, ours: list[Round], theirs: list[Round], missing: str) -> Row:
    """Both sides' rate, and the least CPU that an event took in each process; of publishing its ratio is the bar."""
    rates = [[getattr(one, figure) for one in rounds] for rounds in (ours, theirs)]
    spent = "publishing_us" if figure == "published" else "replaying_us"
    least = [min((getattr(one, spent) for one in rounds), key=_sum, default={}) for rounds in (ours, theirs)]
    ratio, spread = compare(*rates, statistics.median) if theirs else (None, "")
    has_bar = figure == "published"
    return row(
        ID,
        size,
        unit="/s",
        ours=statistics.median(rates[0]),
        peer=statistics.median(rates[1]) if theirs else None,
        peer_name="JetStream, unsigned, in clear",
        ratio=ratio,
        spread=spread,
        bar=">= 1 x" if has_bar else None,
        holds=ratio >= 1 if has_bar and ratio is not None else None,
        note=missing or f"us of CPU an event: {_told(least[0])} (JetStream: {_told(least[1])})",
    )


def _sum(us: dict[str, float]) -> float:
    return sum(us.values())


def _told(us: dict[str, float]) -> str:
    return ", ".join(f"{who} {spent:.0f}" for who, spent in us.items())


if __name__ == "__main__":
    sys.exit(play(ROLES, run, sys.argv[1:]))
