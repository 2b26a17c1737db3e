"""P7: one event to N live subscribers, each with a connection, a key and a certificate of its own.

Run alone: `python -m benchmarks.p7_fan_out`. The subscribers live in a few processes, for a thousand would have the memory
of a thousand interpreters; each checks every event itself. The next event is published when all have had the one before,
20 ms later. Beside it, in the same run, as many connections to a bare relay that neither signs nor verifies nor stores.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.bare_realm import client, client_of, identity, make_realm, play, process, serve, wait_for, write
from benchmarks.bare_relay import BareLink, serve_bare
from benchmarks.prepared_fleet import prepare, served
from benchmarks.progress import progress
from benchmarks.rows import Row, Statistic, compare, median, percentile, row
from benchmarks.sizes import sized
from benchmarks.usage import usage, used
from dsmt.operations.local.home.home import Home

ID: Final = "P7"
MODULE: Final = "benchmarks.p7_fan_out"
SIZES: Final = sized((30, 100, 300, 1000), (2, 4), (1000, 3000, 6000))
BARS_MS: Final = {30: 8.0, 1000: 80.0, 6000: 400.0}
"""Until the last one has it."""
PROCESSES: Final = sized(4, 2, 24)
"""A process may have 1,023 sockets of ZeroMQ, and each connection has three."""
EVENTS, WARM_UP = sized((50, 5), (4, 1))
OPERATORS: Final = sized(8, 2, 24)
"""Of how many the subscribers are: below one, 4,096 may attach at once."""
AT_ONCE: Final = 20
"""How many connections of a process are made at once."""
PAUSE_S: Final = 0.02
PATIENCE_S: Final = sized(180.0, 180.0, 1800.0)
TOPIC, BACK = "user/p7", "user/p7-back"
PEER: Final = "bare ROUTER with CURVE, unsigned"
FIGURES: Final[dict[str, Statistic]] = {"median": median, "p95": percentile(0.95), "last": max}

FLEETS: Final = sized((10, 100, 1000), (10,), (1000, 11_500))
EACH: Final = 5
"""Nodes whose facts the store holds that is asked for one topic, and instances of each."""
ASKED, TOPICS = sized((100, 10), (4, 2))
ONE_BAR_MS: Final = 2.0

Latencies = list[dict[str, float]]
"""Of each event, in order: `FIGURES` over all subscribers, in milliseconds."""


class Round(NamedTuple):
    """One run, and the milliseconds of CPU that the broker and all subscribers used for each event until the next."""

    events: Latencies
    broker_ms: float
    readers_ms: float


# --- one run -----------------------------------------------------------------------------------------------------


def _ours(directory: Path, count: int) -> Round:
    make_realm(directory, OPERATORS)
    return _measured(directory, count, "broker", "")


def _bare(directory: Path, count: int) -> Round:
    return _measured(directory, count, "relay", "bare-")


def _measured(directory: Path, count: int, role: str, kind: str) -> Round:
    shares = [count // PROCESSES + (number < count % PROCESSES) for number in range(PROCESSES)]
    with ExitStack() as stack:
        broker = stack.enter_context(process(MODULE, role, str(directory)))
        wait_for(directory / "address", broker)
        told = [(str(number), str(share)) for number, share in enumerate(shares)]
        readers = [stack.enter_context(process(MODULE, f"{kind}readers", str(directory), *one)) for one in told]
        for number, reader in enumerate(readers):
            wait_for(directory / f"subscribed-{number}", reader, PATIENCE_S)
        all_readers = [reader.pid for reader in readers]
        before = usage([broker.pid, *all_readers])
        stack.enter_context(process(MODULE, f"{kind}publisher", str(directory)))
        files = [directory / f"latencies-{number}" for number in range(PROCESSES)]
        found = [json.loads(wait_for(*one, PATIENCE_S)) for one in zip(files, readers, strict=True)]
        after = usage([broker.pid, *all_readers])
    spent = [used(before, after, pids)[0] / (EVENTS + WARM_UP) * 1000 for pids in ([broker.pid], all_readers)]
    return Round(_by_event(found, count), *spent)


def _by_event(found: list[dict[str, list[float]]], count: int) -> Latencies:
    """What all processes have seen of each event, without the warm-up. Raises `RuntimeError` when somebody missed one."""
    events = []
    for event in sorted(found[0], key=int)[WARM_UP:]:
        took = [each for one in found for each in one[event]]
        if len(took) != count:
            raise RuntimeError(f"{len(took)} of {count} subscribers had an event")
        events.append({name: of(took) for name, of in FIGURES.items()})
    return events


class _Seen:
    """What the subscribers of one process have had. `all_had` is called when all of them have had an event."""

    def __init__(self, directory: Path, number: str, count: int, all_had: Callable[[], None]) -> None:
        self._file, self._count, self._all_had = directory / f"latencies-{number}", count, all_had
        self._took: defaultdict[int, list[float]] = defaultdict(list)

    def had(self, event: int) -> None:
        took = self._took[event]
        took.append((time.monotonic_ns() - event) / 1e6)
        if len(took) == self._count:
            if len(self._took) == EVENTS + WARM_UP:
                write(self._file, json.dumps(self._took))
            self._all_had()


# --- ours --------------------------------------------------------------------------------------------------------


async def _readers(directory: Path, number: str, count: str) -> None:
    from dsmt.bus.zeromq.network import ZmqNetwork
    from dsmt.ports.bus import Draft
    from dsmt.trust.identity import delegate
    from dsmt.trust.keys import SecretKey

    above = [identity(directory, f"operator/subscriber-{one}") for one in range(OPERATORS)]
    network, now_s = ZmqNetwork(), int(time.time())
    clients: list[Any] = []
    seen = _Seen(directory, number, int(count), lambda: clients[0].emit(Draft(BACK, {})))
    tasks = []
    while len(clients) < int(count):
        begun = []
        for at in range(len(clients), min(len(clients) + AT_ONCE, int(count))):
            key, own_above = SecretKey(os.urandom(32)), above[(int(number) + at) % OPERATORS]
            name = f"{own_above.name}.{number}-{at}"
            own = delegate(name, own_above, key=key, now_s=now_s, serial=os.urandom(16))
            clients.append(client_of(directory, own, network))
            begun.append(asyncio.Event())
            tasks += [asyncio.create_task(clients[-1].run()), asyncio.create_task(_follow(clients[-1], seen, begun[-1]))]
        for one in begun:
            await one.wait()
    gc.freeze()
    write(directory / f"subscribed-{number}", "yes")
    await asyncio.gather(*tasks)


async def _follow(bus: Any, seen: _Seen, begun: asyncio.Event) -> None:
    from dsmt.ports.bus import Arrived, Complete, Interest, Start

    await bus.wait_attached()
    async with bus.subscribe(Interest((TOPIC,), start=Start.LIVE)) as deliveries:
        async for batch in deliveries:
            for one in batch:
                if isinstance(one, Arrived):
                    seen.had(one.signed.event.data["at"])
                elif isinstance(one, Complete):
                    begun.set()


async def _publisher(directory: Path) -> None:
    from dsmt.ports.bus import Arrived, Complete, Draft, Interest, Start

    bus = client(directory, "publisher")
    running = asyncio.create_task(bus.run())
    await bus.wait_attached()
    gc.freeze()
    async with bus.subscribe(Interest((BACK,), start=Start.LIVE)) as answers:
        missing = 0
        async for batch in answers:
            missing -= sum(isinstance(one, Arrived) for one in batch)
            if missing <= 0 and any(isinstance(one, Arrived | Complete) for one in batch):
                missing = PROCESSES
                await asyncio.sleep(PAUSE_S)
                bus.emit(Draft(TOPIC, {"load": [0.25, 0.5, 0.75], "text": "x" * 60, "at": time.monotonic_ns()}))
    await running


# --- the floor ---------------------------------------------------------------------------------------------------


async def _bare_readers(directory: Path, number: str, count: str) -> None:
    links: list[BareLink] = []
    seen = _Seen(directory, number, int(count), lambda: links[0].publish(b"b", b"back"))
    begun: list[asyncio.Event] = []
    for at in range(int(count)):
        begun.append(asyncio.Event())
        links.append(BareLink(directory, lambda body, at=at: seen.had(int(body[:20])) if body else begun[at].set()))
        links[-1].subscribe(b"e")
        if at % AT_ONCE == 0 or at == int(count) - 1:
            await begun[-1].wait()
    for one in begun:
        await one.wait()
    gc.freeze()
    write(directory / f"subscribed-{number}", "yes")
    await asyncio.Event().wait()


async def _bare_publisher(directory: Path) -> None:
    answered = asyncio.Semaphore(0)
    link = BareLink(directory, lambda _body: answered.release())
    link.subscribe(b"b")
    await answered.acquire()
    gc.freeze()
    while True:
        await asyncio.sleep(PAUSE_S)
        link.publish(b"e", b"%020d" % time.monotonic_ns() + b"x" * 280)
        for _ in range(PROCESSES):
            await answered.acquire()


# --- one topic ---------------------------------------------------------------------------------------------------


async def _one_topic(home: Home) -> list[float]:
    """Milliseconds from asking for one topic until its fact is in hand, verified, and the subscription complete."""
    from dsmt.operations.connection import reading
    from dsmt.ports.bus import Arrived, Interest

    took = []
    async with reading(home.operator(), home.realm(), patience_s=PATIENCE_S) as connection:
        for number in range(TOPICS + ASKED):
            interest = Interest((f"node/n{number % TOPICS}/attributes",), follow=False)
            began, found = time.monotonic(), 0
            async with connection.bus.subscribe(interest) as deliveries:
                async for batch in deliveries:
                    found += sum(isinstance(one, Arrived) for one in batch)
            took.append((time.monotonic() - began) * 1000)
            if found != 1:
                raise RuntimeError(f"{found} facts came on one topic")
    return took[TOPICS:]  # whose certificates come with the first asking


def _one_topic_row(nodes: int) -> Row:
    with tempfile.TemporaryDirectory(prefix="p7-") as directory:
        home = Home(Path(directory))
        facts = prepare(home, nodes, EACH)
        with served(home):
            took = asyncio.run(_one_topic(home))
    figure = median(took)
    return row(
        ID,
        f"one topic of {facts} facts",
        unit="ms",
        ours=figure,
        bar=f"< {ONE_BAR_MS:g} ms",
        holds=figure < ONE_BAR_MS,
        note=f"median of {len(took)}, p95 {percentile(0.95)(took):.3g}",
    )


# --- the table ---------------------------------------------------------------------------------------------------

ROLES: Final[dict[str, Callable[..., Coroutine[Any, Any, None]]]] = {
    "broker": serve,
    "readers": _readers,
    "publisher": _publisher,
    "relay": serve_bare,
    "bare-readers": _bare_readers,
    "bare-publisher": _bare_publisher,
}


def run() -> list[Row]:
    """The rows of the table: for each size both, one after the other; then one topic, by what the store holds."""
    rows: list[Row] = []
    before: tuple[int, float, float] | None = None
    for done, count in enumerate(SIZES):
        ours, bare = _round(_ours, count), _round(_bare, count)
        last = median([one["last"] for one in ours.events]), median([one["last"] for one in bare.events])
        more_told = (
            f"; ms of CPU an event: broker {ours.broker_ms:.3g} (bare {bare.broker_ms:.3g}), "
            f"subscribers {ours.readers_ms:.3g} ({bare.readers_ms:.3g})"
        )
        if before is not None:
            more = count / before[0]
            mine, theirs = last[0] / before[1] / more, last[1] / before[2] / more
            more_told += f"; a subscriber costs {mine:.2f} times what it did at {before[0]} (bare {theirs:.2f})"
        before = (count, *last)
        rows += [_row(name, count, ours.events, bare.events, more_told if name == "last" else "") for name in FIGURES]
        progress(ID, done + 1, len(SIZES))
    return rows + [_one_topic_row(nodes) for nodes in FLEETS]


def _round(measure: Callable[[Path, int], Round], count: int) -> Round:
    with tempfile.TemporaryDirectory(prefix="p7-") as directory:
        return measure(Path(directory), count)


def _row(name: str, count: int, ours: Latencies, bare: Latencies, more_told: str) -> Row:
    mine, theirs = [one[name] for one in ours], [one[name] for one in bare]
    ratio, spread = compare(mine, theirs, median)
    bar = BARS_MS.get(count) if name == "last" else None
    figure = median(mine)
    return row(
        ID,
        f"{count} subscribers, {name}",
        unit="ms",
        ours=figure,
        peer=median(theirs),
        peer_name=PEER,
        ratio=ratio,
        spread=spread,
        bar=None if bar is None else f"< {bar:g} ms",
        holds=None if bar is None else figure < bar,
        note=f"median of {len(mine)} events, least {min(mine):.3g}, most {max(mine):.3g}{more_told}",
    )


if __name__ == "__main__":
    sys.exit(play(ROLES, run, sys.argv[1:]))
