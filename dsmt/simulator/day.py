"""A day of ordinary use in virtual time, and what each process keeps of it: memory, descriptors, certificates, disk.

Rule 1: a process's memory is what its tasks reach: objects of Python, with their sizes, but no code, nothing that only
    the simulation has. What several processes share here is counted in each, as it would be on machines of their own.
Rule 2: it is flat when the last quarter of the day has no more than the second: what a realm knows by then is what it is.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, Final, NamedTuple

from dsmt.event.codec import decode_part, read
from dsmt.simulator import kinds
from dsmt.simulator.engine.handles import SimTask
from dsmt.simulator.engine.host import Host, HostProcess
from dsmt.simulator.engine.run import run
from dsmt.simulator.faults import Kind
from dsmt.simulator.fleet import Scale
from dsmt.simulator.play import Play
from dsmt.simulator.stores import SimStore
from dsmt.simulator.world import TappedClient
from dsmt.trust.certificate import SignedCertificate

HOUR_S: Final = 3600.0
STORE_BYTES: Final = 8 * 1024 * 1024
"""What the store may have: little enough that it is full long before the day is half over."""
SCALE: Final = Scale(nodes=4, services=2, controllers=2, instances=(2, 3), heartbeat_s=15.0, store_bytes=STORE_BYTES)
EACH_S: Final = 60.0
"""How often something is said or goes wrong."""
USE: Final[Mapping[Kind, int]] = {
    **{kind: weight for kind, weight in kinds.WORDS.items() if kind is not kinds.hold_brake},
    **kinds.SMALL,
}
COMMAND_S: Final = 300.0
"""How often the operator's process is another one, as each command of a terminal is."""
BROKER_S: Final = 2 * HOUR_S
POWER_S: Final = 5 * HOUR_S
GROWTH: Final = 1.1
NOISE: Final = {"bytes": 64 * 1024, "descriptors": 2, "certificates": 2, "disk": 256 * 1024}
"""How much more is no growth, beside a tenth."""


class Holdings(NamedTuple):
    """What a process or a machine holds: bytes, open sockets, certificates, and bytes on its disk."""

    bytes: int
    descriptors: int
    certificates: int
    disk: int


class Scales:
    """Weighs what can be reached from something."""

    def __init__(self, play: Play) -> None:
        modules = [module for module in sys.modules.values() if isinstance(module, ModuleType)]
        caches = (play.world.reader, play.world.reader.decode, decode_part, read)
        self._outside = {id(one) for one in (*caches, *modules, *(vars(module) for module in modules))}

    def weigh(self, roots: Iterable[object]) -> tuple[int, int]:
        """The bytes of all that these reach, and how many certificates are among it."""
        seen, waiting, size, certificates = set(self._outside), list(roots), 0, 0
        while waiting:
            one = waiting.pop()
            if id(one) in seen or not _counts(one):
                continue
            seen.add(id(one))
            size += sys.getsizeof(one)
            certificates += isinstance(one, SignedCertificate)
            waiting += gc.get_referents(one)
        return size, certificates


def _counts(one: object) -> bool:
    if isinstance(one, (type, ModuleType)):
        return False
    return not type(one).__module__.startswith("dsmt.simulator") or isinstance(one, (SimTask, TappedClient, SimStore))


def held(play: Play) -> Iterator[tuple[str, Holdings]]:
    """What each process that runs now holds, by its machine and name, and each machine."""
    scales = Scales(play)
    for host in play.world.hosts.values():
        for process in host.processes.values():
            yield _name(process), Holdings(*_weighed(scales, process), 0)
        yield host.name, Holdings(0, 0, 0, _disk(play, host))


def _name(process: HostProcess) -> str:
    return f"{process.host.name} {'agents' if process.name.startswith('agent:') else process.name}"


def _weighed(scales: Scales, process: HostProcess) -> tuple[int, int, int]:
    size, certificates = scales.weigh(process.sim.tasks.values())
    return size, sum(not one.closed for one in process.opened), certificates


def _disk(play: Play, host: Host) -> int:
    """The bytes of a machine's files, without programs' logs, and of its store."""
    total = sum(len(content) for path, content in host.disk.files() if "/logs/" not in path)
    if host is play.fleet.broker.host:
        total += play.fleet.broker.store.counts()["bytes"]
    return total


async def day(hours: float, seed: int, *, looks: int = 24) -> list[str]:
    """Use a fleet for so many hours, and look so often at what is held; prints that; what grew, and what broke."""
    play = Play(seed, SCALE, hours * HOUR_S)
    play.world.said = None
    await play.fleet.start()
    await play.first()
    found: dict[str, list[tuple[float, Holdings]]] = defaultdict(list)
    using = play.world.background(_use(play), "use")
    for look in range(1, looks + 1):
        await play.until(play.seconds * look / looks)
        for name, one in held(play):
            found[name].append((look / looks, one))
        broker = found[f"{play.fleet.broker.name} broker"][-1][1]
        rows, kept = play.fleet.broker.store.head, found[play.fleet.broker.name][-1][1].disk
        _say(
            f"{play.now / HOUR_S:.1f} h: {rows} rows; the broker has {_sized(broker.bytes)} "
            f"with {broker.certificates} certificates, and {_sized(kept)} on its disk"
        )
    using.cancel()
    play.faults.mend()
    await play.settled(60.0, "after a day")
    wrong = [*play.wrong, *play.world.crashes, *play.fleet.complaints]
    play.world.power_off()
    await asyncio.sleep(0.01)
    return wrong + [sentence for name in sorted(found) for sentence in _grown(name, found[name])]


async def _use(play: Play) -> None:
    async def again(seconds: float, kind: Kind) -> None:
        while True:
            await asyncio.sleep(seconds)
            play.faults.inflict(kind)

    async with asyncio.TaskGroup() as group:
        group.create_task(play.faults.run(USE, EACH_S, play.seconds))
        group.create_task(again(COMMAND_S, lambda faults: faults.kill(faults.fleet.operator.kept)))
        group.create_task(again(BROKER_S, kinds.kill_broker))
        group.create_task(again(POWER_S, kinds.power_off))


def _grown(name: str, found: list[tuple[float, Holdings]]) -> list[str]:
    """What of one grew between the second quarter and the last; says both."""
    early = [one for at, one in found if 0.25 < at <= 0.5]
    late = [one for at, one in found if at > 0.75]
    if not early or not late:
        return []
    wrong, said = [], []
    for what, noise in NOISE.items():
        before, after = (statistics.median(getattr(one, what) for one in part) for part in (early, late))
        if before or after:
            said.append(f"{what} {_said(what, before)} -> {_said(what, after)}")
        if after > before * GROWTH + noise:
            wrong.append(f"{name}: {what} grew from {before:.0f} to {after:.0f}")
    if said:
        _say(f"  {name}: {', '.join(said)}")
    return wrong


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _said(what: str, number: float) -> str:
    return _sized(number) if what in ("bytes", "disk") else f"{number:.0f}"


def _sized(number: float) -> str:
    return f"{number / 1024:.0f} KiB"


def main(argv: list[str] | None = None) -> int:
    """Play the day; 0 when all is flat and as the operator was told."""
    parser = argparse.ArgumentParser(prog="python -m dsmt.simulator.day", description="A day of use in virtual time.")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=1)
    told: Any = parser.parse_args(argv)
    wrong = run(day(told.hours, told.seed))
    for sentence in wrong:
        _say(f"WRONG: {sentence}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
