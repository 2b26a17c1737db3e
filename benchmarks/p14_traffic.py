"""P14: what a realm's stream carries, by its size: at rest, and while a tenth of its nodes is replaced.

Nodes, controller and broker are the real programs in virtual time (`simulated.py`), so the counts are those of life, and no
machine's speed is in them. Counted are the events that the broker stores, and the bytes of all messages on all of its links,
both ways, before ZeroMQ, CURVE and TCP wrap them. A tenth of the nodes is killed at once; it is repaired when all slots run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from benchmarks.rows import Row, row
from benchmarks.simulated import EACH, ended, started
from benchmarks.sizes import sized
from dsmt.bus.memory.network import MemoryLink, MemoryListener
from dsmt.simulator.engine.forks import each_way
from dsmt.simulator.engine.run import run as simulate
from dsmt.simulator.play import Play

SIZES: Final = sized((30, 100, 300, 1000), (3, 10))
REST_S: Final = sized(60.0, 5.0)
"""Simulated seconds for which a fleet at rest is looked at: all that is said each half minute is said twice."""
REPAIR_S: Final = 120.0
"""How long a repair may take (simulated s)."""
KIB: Final = 1024


@dataclass(slots=True)
class Wire:
    """What has crossed all links so far."""

    messages: int = 0
    size: int = 0


@dataclass(slots=True)
class Carried:
    """What was carried within some seconds. `seconds` is infinite when what was waited for did not come."""

    seconds: float
    events: int = 0
    messages: int = 0
    size: int = 0


def run() -> list[Row]:
    """All sizes; what a node carries at rest beside that in the next smaller fleet, and what replacing an instance takes."""
    rows: list[Row] = []
    before = (0, Carried(inf))
    for nodes, (rest, repair) in zip(SIZES, each_way(SIZES, _carried), strict=True):
        grown = "" if before[1].seconds == inf else f"a node carries {_grown(*before, nodes, rest):.2g} times as many bytes"
        rows += _rows("P14 at rest", nodes, rest, grown)
        replaced = _dying(nodes) * EACH
        rows += _rows(
            "P14 a tenth dies", nodes, repair, f"{repair.events / replaced:.0f} events for each of {replaced} instances"
        )
        before = nodes, rest
    return rows


def _rows(what: str, nodes: int, carried: Carried, note: str) -> list[Row]:
    of, seconds = f"{nodes} nodes, {nodes * EACH} instances", carried.seconds
    if seconds == inf:
        return [row(what, of, unit="events/s", ours=None, note="it was given up")]
    said = f"{carried.messages / seconds:.0f} messages/s over {seconds:.1f} s"
    return [
        row(what, of, unit="events/s", ours=carried.events / seconds, note=f"{said}; {note}" if note else said),
        row(what, of, unit="KiB/s", ours=carried.size / KIB / seconds),
    ]


def _grown(fewer: int, before: Carried, nodes: int, now: Carried) -> float:
    return (now.size / now.seconds / nodes) / (before.size / before.seconds / fewer)


def _dying(nodes: int) -> int:
    return max(1, nodes // 10)


def _carried(which: Callable[[], int]) -> tuple[Carried, Carried]:
    nodes = which()
    with _counted() as wire:
        return simulate(_measured(nodes, wire), collect_every=None)


async def _measured(nodes: int, wire: Wire) -> tuple[Carried, Carried]:
    """At rest, and under repair."""
    play, settled_s = await started(nodes)
    rest = repair = Carried(inf)
    if settled_s < inf:
        await asyncio.sleep(2.0)
        rest = await _while(play, wire, asyncio.sleep(REST_S))
        repair = await _while(play, wire, _repaired(play, _dying(nodes)))
    await ended(play)
    return rest, repair


async def _while(play: Play, wire: Wire, what: Awaitable[None]) -> Carried:
    """What is carried until something is done."""
    store, began = play.fleet.broker.store, play.now
    head, messages, size = store.head, wire.messages, wire.size
    try:
        await what
    except TimeoutError:
        return Carried(inf)
    return Carried(play.now - began, store.head - head, wire.messages - messages, wire.size - size)


async def _repaired(play: Play, nodes: int) -> None:
    """So many nodes lose all their processes at once; wait until what ran there runs elsewhere."""
    for node in list(play.fleet.nodes.values())[:nodes]:
        play.faults.kill_node(node)
    amiss = await play.fleet.until_settled(REPAIR_S)
    if amiss:
        raise TimeoutError(amiss[0])


@contextmanager
def _counted() -> Iterator[Wire]:
    """Every message counts as it is sent."""
    wire = Wire()
    at_broker, at_client = MemoryListener.send, MemoryLink.send

    def counted(message: tuple[bytes, ...]) -> None:
        wire.messages += 1
        wire.size += sum(map(len, message))

    def to_client(self: MemoryListener, peer: Any, message: Any) -> bool:
        counted(message)
        return at_broker(self, peer, message)

    def to_broker(self: MemoryLink, message: Any) -> bool:
        counted(message)
        return at_client(self, message)

    MemoryListener.send, MemoryLink.send = to_client, to_broker  # type: ignore[method-assign]
    try:
        yield wire
    finally:
        MemoryListener.send, MemoryLink.send = at_broker, at_client  # type: ignore[method-assign]
