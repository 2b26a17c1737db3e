"""`make connections`: twelve minutes of a thousand live sources at one broker, each with its own certificate and connection.

Each says one signed signal a second, and one reader verifies all of them. None is dropped, none has to attach anew, nothing
that was acknowledged is missing at the reader, and the broker's memory is flat. The sources live in a few processes: a
thousand interpreters would have the machine's memory.

Rule 1: memory is flat once each connection's queues have been walked through. libzmq keeps two blocks of 256 messages of 64
    bytes for each direction of a connection, 64 KiB in all, and a page of them costs memory when a message first lies there
    (its `message_pipe_granularity`; `yqueue_t` keeps one spare block). Until then a connection may add that, and no more.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.bare_realm import client_of, process, serve, wait_for, write
from benchmarks.usage import memory, usage, used
from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.ports.bus import Arrived, Complete, Draft, Interest, Start, Subscription
from dsmt.trust.identity import dump, load, root_issued
from dsmt.trust.keys import SecretKey

MODULE: Final = "tests.operate.connections"
PROCESSES: Final = 4
AT_ONCE: Final = 20
"""How many connections of a process are made at once."""
EACH_S: Final = 1.0
SAMPLE_S: Final = 15.0
CALM_S: Final = 60.0
WALKED: Final = 2 * 256
QUEUES: Final = 2 * WALKED * 64
"""How many messages walk through a connection's queues, and how many bytes the queues of both directions are then."""
PATIENCE_S: Final = 180.0
NOISE: Final = 4 * 1024 * 1024
"""Bytes."""


def make_sources(directory: Path, count: int) -> None:
    """A realm with so many operators, each certified by its root."""
    root, now = SecretKey(os.urandom(32)), int(time.time())
    names = ("broker/b1", "operator/reader", *(f"operator/s{number}" for number in range(count)))
    for name in names:
        made = root_issued(name, root, key=SecretKey(os.urandom(32)), now_s=now, serial=os.urandom(16))
        (directory / name.replace("/", "-")).write_bytes(dump(made))
    (directory / "root").write_bytes(root.public)


class Source:
    """One that says a signal each second, and what came of it."""

    def __init__(self, bus: Any, name: str, offset_s: float) -> None:
        self.bus, self.name, self.offset_s = bus, name, offset_s
        self.acknowledged, self.longest_s = 0, 0.0

    async def speak(self, until: float) -> None:
        """Speak until a time (monotonic), one signal after the other."""
        due = time.monotonic() + self.offset_s
        while due < until:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            began = time.monotonic()
            await self.bus.publish(Draft(f"user/{self.name}", {"text": "x" * 60}))
            self.acknowledged += 1
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            due += EACH_S


async def _sources(directory: Path, number: str, first: str, count: str, seconds: str) -> None:
    network = ZmqNetwork()
    sources: list[Source] = []
    tasks = []
    names = [f"s{at}" for at in range(int(first), int(first) + int(count))]
    for at in range(0, len(names), AT_ONCE):
        for name in names[at : at + AT_ONCE]:
            own = load((directory / f"operator-{name}").read_bytes(), where=name)
            sources.append(Source(client_of(directory, own, network), name, len(sources) / len(names) * EACH_S))
            tasks.append(asyncio.create_task(sources[-1].bus.run()))
        for one in sources[at:]:
            await one.bus.wait_attached()
    gc.freeze()
    before = [one.bus.attachment for one in sources]
    write(directory / f"attached-{number}", "yes")
    await asyncio.to_thread(_until_there, directory / "begin")
    until = time.monotonic() + float(seconds)
    await asyncio.gather(*(one.speak(until) for one in sources))
    told = {
        "acknowledged": sum(one.acknowledged for one in sources),
        "longest_s": max(one.longest_s for one in sources),
        "again": sum(one.bus.attachment != was for one, was in zip(sources, before, strict=True)),
        "detached": sum(not one.bus.attached for one in sources),
    }
    write(directory / f"said-{number}", json.dumps(told))
    await asyncio.gather(*tasks)


def _until_there(path: Path) -> None:
    while not path.exists():
        time.sleep(0.02)


async def _reader(directory: Path) -> None:
    own = load((directory / "operator-reader").read_bytes(), where="reader")
    bus = client_of(directory, own, ZmqNetwork())
    running = asyncio.create_task(bus.run())
    await bus.wait_attached()
    gc.freeze()
    async with bus.subscribe(Interest(("user/",), start=Start.LIVE)) as deliveries:
        heard = Heard(directory)
        counting, telling = asyncio.create_task(heard.count(deliveries)), asyncio.create_task(heard.tell())
        await asyncio.wait({running, counting, telling}, return_when=asyncio.FIRST_COMPLETED)


class Heard:
    """How many events a reader has, told in a file each half second."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._number = directory, 0

    async def count(self, deliveries: Subscription) -> None:
        """Count what comes; and say when all is read that was there."""
        async for batch in deliveries:
            self._number += sum(isinstance(one, Arrived) for one in batch)
            if any(isinstance(one, Complete) for one in batch):
                write(self._directory / "reading", "yes")

    async def tell(self) -> None:
        """Write it down."""
        while True:
            write(self._directory / "heard", str(self._number))
            await asyncio.sleep(0.5)


def play(count: int, seconds: float) -> list[str]:
    """What is wrong after so many sources have spoken for so long; the figures are printed."""
    shares = [count // PROCESSES + (number < count % PROCESSES) for number in range(PROCESSES)]
    with tempfile.TemporaryDirectory(prefix="connections-") as name, ExitStack() as stack:
        directory = Path(name)
        make_sources(directory, count)
        broker = stack.enter_context(process(MODULE, "broker", name))
        wait_for(directory / "address", broker)
        reader = stack.enter_context(process(MODULE, "reader", name))
        wait_for(directory / "reading", reader)
        sources = []
        for number, share in enumerate(shares):
            told = (name, str(number), str(sum(shares[:number])), str(share), str(seconds))
            sources.append(stack.enter_context(process(MODULE, "sources", *told)))
        for number, one in enumerate(sources):
            wait_for(directory / f"attached-{number}", one, PATIENCE_S)
        pids = {"broker": [broker.pid], "reader": [reader.pid], "sources": [one.pid for one in sources]}
        everybody = [pid for some in pids.values() for pid in some]
        before, began = usage(everybody), time.monotonic()
        (directory / "begin").touch()
        held = _watch(broker.pid, began, seconds)
        said = [json.loads(wait_for(directory / f"said-{n}", one, PATIENCE_S)) for n, one in enumerate(sources)]
        took, after = time.monotonic() - began, usage(everybody)
        heard = _heard(directory, sum(one["acknowledged"] for one in said))
    for what, some in pids.items():
        spent = used(before, after, some)[0]
        print(f"{what}: {spent / took:.1%} of a core, {spent / max(1, heard) * 1e6:.0f} us an event", flush=True)
    return _wrong(said, heard, held, count)


def _watch(broker: int, began: float, seconds: float) -> list[tuple[float, int]]:
    """The broker's memory, each so often: when, and bytes."""
    held = []
    while (at := time.monotonic() - began) < seconds:
        held.append((at, memory([broker]).rss))
        print(f"{at:.0f} s: broker {held[-1][1] / 2**20:.1f} MiB", flush=True)
        time.sleep(min(SAMPLE_S, max(0.0, seconds - at)))
    return held


def _heard(directory: Path, acknowledged: int) -> int:
    """What the reader has, once that is all, or after a while."""
    deadline = time.monotonic() + 20
    while True:
        heard = int((directory / "heard").read_text())
        if heard >= acknowledged or time.monotonic() > deadline:
            return heard
        time.sleep(0.1)


def _wrong(said: list[dict[str, Any]], heard: int, held: list[tuple[float, int]], count: int) -> list[str]:
    acknowledged, again = (sum(one[key] for one in said) for key in ("acknowledged", "again"))
    longest_s = max(one["longest_s"] for one in said)
    print(f"{count} sources: {acknowledged} acknowledged, the longest wait {longest_s * 1000:.0f} ms; {heard} read")
    wrong = [f"{again} sources had to attach anew"] if again else []
    wrong += [f"{heard} of {acknowledged} events were read"] if heard < acknowledged else []
    return wrong + grown(held, count)


def grown(held: list[tuple[float, int]], count: int) -> list[str]:
    """What of a broker's memory, looked at so often (seconds, bytes), is not as rule 1 says."""
    calm, walked = ([bytes_ for at, bytes_ in held if at >= since] for since in (CALM_S, WALKED * EACH_S))
    wrong = []
    for some, may, when in (
        (calm, count * QUEUES, "after a minute"),
        (walked, 0, "once its queues were walked through"),
    ):
        if some and max(some) > some[0] + may + NOISE:
            wrong.append(f"{when} the broker's memory grew from {some[0]} to {max(some)} bytes")
    return wrong


ROLES: Final[dict[str, Callable[..., Coroutine[Any, Any, None]]]] = {
    "broker": serve,
    "sources": _sources,
    "reader": _reader,
}


def main() -> int:
    """Play one role in a directory, or all; 0 when nothing is wrong."""
    if sys.argv[1:2] and sys.argv[1] in ROLES:
        role, directory, *rest = sys.argv[1:]
        asyncio.run(ROLES[role](Path(directory), *rest))
        return 0
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=12.0)
    told = parser.parse_args()
    wrong = play(told.count, told.minutes * 60)
    for sentence in wrong:
        print(f"WRONG: {sentence}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
