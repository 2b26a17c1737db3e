"""P6, stage by stage: where the time of one event goes, from its maker through the broker into its reader's hands.

Run alone: `python -m benchmarks.p6_latency --stages`. The processes are those of P6; each begins by putting a stamp
(CLOCK_MONOTONIC) behind the functions that end a stage, so that what is shipped knows nothing of it. A stamp costs about a
microsecond. The time at which an event was made is in it, and is its name here. One that a stage has not seen is left out.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from benchmarks import p6_latency as p6
from benchmarks.bare_realm import play, serve
from benchmarks.rows import Row, median, percentile, row

MODULE: Final = "benchmarks.p6_stages"
PATH: Final = (
    ("publisher", "numbered and encoded"),
    ("publisher", "signed"),
    ("publisher", "handed to the wire"),
    ("broker", "received"),
    ("broker", "signature verified"),
    ("broker", "admitted"),
    ("store", "committed"),
    ("broker", "handed to the wire"),
    ("reader", "received"),
    ("reader", "verified"),
    ("reader", "in hand"),
)
"""Every stage, in order, named by its end; the first one begins when the event is made."""
FIRST_OF_BROKER, FIRST_OF_READER = 3, 8
LAST: Final = p6.EVENTS + p6.WARM_UP - 10
"""A process writes what it has after so many events; the last ones may meet its end."""


class Trace:
    """The stamps of one process, by event and stage."""

    def __init__(self, directory: Path, process: str, last: int) -> None:
        self._file, self._last = directory / f"stages-{process}", last
        self._stamps: dict[int, dict[int, int]] = {}
        self._event = 0
        self.came = 0
        """When the last message came in."""

    def stamp(self, event: int, stage: int, at: int = 0) -> None:
        """An event has ended a stage, now or at a time before; its first end counts."""
        self._event = event
        stamps = self._stamps.setdefault(event, {})
        stamps.setdefault(stage, at or time.monotonic_ns())
        if stage == self._last and len(self._stamps) == LAST:
            self._file.write_text(json.dumps(self._stamps))

    def next(self, stage: int) -> None:
        """The event that was stamped last has ended a stage, if it had ended the one before and not yet this."""
        stamps = self._stamps.get(self._event, {})
        if stage - 1 in stamps and stage not in stamps:
            self.stamp(self._event, stage)

    def parting(self, module: Any) -> None:
        """Note when each message comes into an end of a connection: its adapter parts it right after."""
        parted = module.parted

        def noted(body: bytes) -> Any:
            self.came = time.monotonic_ns()
            return parted(body)

        module.parted = noted


def _after(owner: Any, name: str, call: Callable[[Any, tuple[Any, ...]], None]) -> None:
    """Have something called after each call of a method, with its result and its arguments."""
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        call(result, arguments)
        return result

    setattr(owner, name, wrapped)


def _made(events: Iterable[Any]) -> list[int]:
    """When those of some events that are measured were made."""
    return [one.data["at"] for one in events if one.topic == p6.TOPIC]


# --- the processes -----------------------------------------------------------------------------------------------


async def _publisher(directory: Path) -> None:
    from dsmt.bus.rules.signer import EventSigner
    from dsmt.bus.zeromq.link import ZmqLink

    trace = Trace(directory, "publisher", 2)

    def said(_result: Any, arguments: tuple[Any, ...]) -> None:
        for event in _made([arguments[1]]):
            trace.stamp(event, 0)

    def signed(result: Any, _arguments: Any) -> None:
        for event in _made(result):
            trace.stamp(event, 1)

    _after(EventSigner, "say", said)
    _after(EventSigner, "sign", signed)
    _after(ZmqLink, "send", lambda _result, _arguments: trace.next(2))
    await p6.publish(directory)


async def _broker(directory: Path) -> None:
    from dsmt.bus.broker.ingest import Ingest
    from dsmt.bus.broker.outgoing import Outgoing
    from dsmt.bus.store.sqlite import SqliteStore
    from dsmt.bus.wire.frames import Deliver
    from dsmt.bus.zeromq import listener
    from dsmt.trust.store import TrustStore

    trace = Trace(directory, "broker", FIRST_OF_BROKER + 4)

    def verified(result: Any, _arguments: Any) -> None:
        for event in _made(signed.event for signed, error in result if error is None):
            trace.stamp(event, FIRST_OF_BROKER, trace.came)
            trace.stamp(event, FIRST_OF_BROKER + 1)

    def admitted(_result: Any, arguments: tuple[Any, ...]) -> None:
        for event in _made([arguments[1].event]):
            trace.stamp(event, FIRST_OF_BROKER + 2)

    def stored(_result: Any, arguments: tuple[Any, ...]) -> None:
        for event in _made(one.signed.event for one in arguments[1]):
            trace.stamp(event, FIRST_OF_BROKER + 3)

    def sent(_result: Any, arguments: tuple[Any, ...]) -> None:
        if isinstance(arguments[2], Deliver):
            trace.next(FIRST_OF_BROKER + 4)

    trace.parting(listener)
    _after(TrustStore, "open_part", verified)
    _after(Ingest, "_take", admitted)
    _after(SqliteStore, "append", stored)
    _after(Outgoing, "send", sent)
    await serve(directory)


async def _subscriber(directory: Path) -> None:
    from dsmt.bus.client.subscription import ClientSubscription
    from dsmt.bus.client.subscriptions import SubscriptionRegistry
    from dsmt.bus.zeromq import link
    from dsmt.ports.bus import Arrived

    trace = Trace(directory, "reader", FIRST_OF_READER + 2)

    def verified(result: Any, _arguments: Any) -> None:
        for event in _made(one.signed.event for one in result):
            trace.stamp(event, FIRST_OF_READER, trace.came)
            trace.stamp(event, FIRST_OF_READER + 1)

    original = ClientSubscription.__anext__

    async def taken(subscription: ClientSubscription) -> Any:
        batch = await original(subscription)
        for event in _made(one.signed.event for one in batch if isinstance(one, Arrived)):
            trace.stamp(event, FIRST_OF_READER + 2)
        return batch

    trace.parting(link)
    _after(SubscriptionRegistry, "_opened", verified)
    ClientSubscription.__anext__ = taken  # type: ignore[method-assign]
    await p6.subscribe(directory)


ROLES: Final = {"broker": _broker, "subscriber": _subscriber, "publisher": _publisher}


# --- the table ---------------------------------------------------------------------------------------------------


def run() -> list[Row]:
    """A row for each stage, and one for the whole way."""
    with tempfile.TemporaryDirectory(prefix="p6-") as directory:
        p6.of_ours(Path(directory), MODULE)
        ways = _ways(Path(directory))
    stages = [[way[at + 1] - way[at] for way in ways] for at in range(len(PATH))]
    rows = [_row(f"{who}: {stage}", took) for (who, stage), took in zip(PATH, stages, strict=True)]
    return [*rows, _row("from made to in hand", [way[-1] - way[0] for way in ways])]


def _ways(directory: Path) -> list[list[int]]:
    """For each event after the warm-up that every stage has seen, when it was made and ended each stage (ns)."""
    stamps: dict[int, dict[int, int]] = {}
    for file in directory.glob("stages-*"):
        for event, seen in json.loads(file.read_text()).items():
            stamps.setdefault(int(event), {}).update({int(stage): at for stage, at in seen.items()})
    ways = []
    for event in sorted(stamps)[p6.WARM_UP :]:
        with suppress(KeyError):
            ways.append([event, *[stamps[event][stage] for stage in range(len(PATH))]])
    if len(ways) < p6.EVENTS // 2:
        raise RuntimeError(f"only {len(ways)} of {p6.EVENTS} events were seen at every stage: has one moved in dsmt/bus?")
    return ways


def _row(size: str, took_ns: list[int]) -> Row:
    took = [one / 1000 for one in took_ns]
    note = f"p99 {percentile(0.99)(took):.0f}, of {len(took)}"
    return row("P6 stages", size, unit="us p50", ours=median(took), note=note)


if __name__ == "__main__":
    sys.exit(play(ROLES, run, sys.argv[1:]))
