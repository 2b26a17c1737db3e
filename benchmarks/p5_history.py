"""P5: durable publishing, each event acknowledged after its commit, and replay of all of it by a reader who verifies it.

Run alone: `python -m benchmarks.p5_history`. Beside it JetStream with a file store, through nats-py, in the same rounds: as
many unacknowledged as ours. `synced`: each commit is on the disk before it is acknowledged (`sync_interval: always` there).
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.bare_realm import client, make_realm, play, process, serve, wait_for, write
from benchmarks.peers import UnavailableError, from_python
from benchmarks.rows import Row, row
from benchmarks.sizes import sized
from benchmarks.stream_peers import free_port, started

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


def _ours(directory: Path, events: int, *, synced: bool = False) -> tuple[float, float]:
    """Events a second that were acknowledged, and that were read again and verified."""
    make_realm(directory)
    with ExitStack() as stack:
        broker = stack.enter_context(process(MODULE, "broker", str(directory), *(["synced"] if synced else [])))
        wait_for(directory / "address", broker)
        publisher = stack.enter_context(process(MODULE, "publisher", str(directory), str(events)))
        published = events / float(wait_for(directory / "published", publisher, 300.0))
        reader = stack.enter_context(process(MODULE, "reader", str(directory), str(events)))
        return published, events / float(wait_for(directory / "replayed", reader, 300.0))


async def _publisher(directory: Path, events: str) -> None:
    from dsmt.ports.bus import Draft

    bus = client(directory, "publisher")
    running = asyncio.create_task(bus.run())
    await bus.wait_attached()
    gc.freeze()
    began, waiting = time.monotonic(), []
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
    began, seen = time.monotonic(), 0
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
    began = time.monotonic()
    answers = [await jetstream.publish_async("p5", BODY) for _ in range(int(events))]
    await asyncio.gather(*answers)
    write(directory / "published", str(time.monotonic() - began))
    pulled = await jetstream.pull_subscribe("p5", "all")
    began, seen = time.monotonic(), 0
    while seen < int(events):
        found = await pulled.fetch(min(1000, int(events) - seen), timeout=10)
        await asyncio.gather(*[one.ack() for one in found])
        seen += len(found)
    write(directory / "replayed", str(time.monotonic() - began))


def _theirs(directory: Path, events: int, *, synced: bool = False) -> tuple[float, float]:
    with ExitStack() as stack:
        port = free_port()
        settings = directory / "nats.conf"
        always = ", sync_interval: always" if synced else ""
        settings.write_text(f'listen: 127.0.0.1:{port}\njetstream: {{store_dir: "{directory}/js"{always}}}\n')
        address = started(stack, [from_python("nats-server"), "-c", str(settings)], port)
        asked = stack.enter_context(process(MODULE, "jetstream", str(directory), address, str(events)))
        published = events / float(wait_for(directory / "published", asked, 300.0))
        return published, events / float(wait_for(directory / "replayed", asked, 300.0))


ROLES: dict[str, Callable[..., Any]] = {
    "broker": serve,
    "publisher": _publisher,
    "reader": _reader,
    "jetstream": _jetstream,
}


def _round(measure: Callable[..., tuple[float, float]], events: int, *, synced: bool = False) -> tuple[float, float]:
    directory = Path(tempfile.mkdtemp(prefix="p5-"))
    try:
        return measure(directory, events, synced=synced)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run() -> list[Row]:
    """The rows of the table: both policies beside the peer, then replay by size."""
    rows: list[Row] = []
    missing = ""
    for synced in (False, True):
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(_round(_ours, SYNCED if synced else PEER_EVENTS, synced=synced))
            try:
                theirs.append(_round(_theirs, SYNCED if synced else PEER_EVENTS, synced=synced))
            except UnavailableError as error:
                missing = str(error)
        mine = statistics.median(one[0] for one in ours)
        peer = statistics.median(one[0] for one in theirs) if theirs else None
        size = f"durable, {'synced' if synced else 'not synced'}"
        rows.append(
            row(
                ID,
                size,
                unit="/s",
                ours=mine,
                peer=peer,
                peer_name="JetStream, unsigned, in clear",
                ratio=mine / peer if peer else None,
                bar=">= 1 x",
                holds=None if peer is None else mine >= peer,
                note=missing,
            )
        )
    before = 0.0
    for events in SIZES:
        published, replayed = _round(_ours, events)
        growth = f", {before / replayed:.2f} x the time an event of the size before" if before else ""
        before = replayed
        told = f"published {published:.0f}/s{growth}"
        holds = replayed >= REPLAY_BAR
        rows.append(
            row(ID, f"replay of {events}", unit="/s", ours=replayed, bar=f">= {REPLAY_BAR:.0f}/s", holds=holds, note=told)
        )
    return rows


if __name__ == "__main__":
    sys.exit(play(ROLES, run, sys.argv[1:]))
