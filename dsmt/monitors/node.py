"""The node monitor: a node as seen from inside, as a fact; answers probes, and probes others (F4, J4).

Rule 1: attributes are said at each attachment, each `SAY_S`, and at once when something has changed by more than 5 %:
    a store that it attaches to may be blank, and without them nothing is placed here.
Rule 2: it looks each `LOOK_S`, from the first attachment on, where it learns realm time; what it says of its clock is the
    difference to that, anew when it has changed by more than `CLOCK_S`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from dsmt.event.kinds.node import DriverAttributes, NodeAttributes
from dsmt.event.records import to_data
from dsmt.monitors.probe import Prober, Responder
from dsmt.ports.bus import Bus, Draft
from dsmt.ports.clock import Clock
from dsmt.ports.datagrams import Datagrams
from dsmt.ports.entropy import Entropy
from dsmt.ports.machine import Machine, MachineReading
from dsmt.trust.keys import Key, verify
from dsmt.trust.probing import Answered

LOOK_S: Final = 5.0
SAY_S: Final = 30.0
SHARE: Final = 0.05
"""The change, as a share of the whole, that is said at once."""
CLOCK_S: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """What a monitor says of its node without looking."""

    node: str
    address: str
    version: str
    key: str
    """What tells that the node's data directory is the one that it was (`agents.node.data_key`)."""
    labels: Mapping[str, str]
    drivers: Mapping[str, DriverAttributes]
    pid: int | None = None


@dataclass(frozen=True, kw_only=True)
class MonitorSurroundings:
    """Everything a monitor touches. `key` is its own."""

    bus: Bus
    key: Key
    machine: Machine
    datagrams: Datagrams
    clock: Clock
    entropy: Entropy
    check: Callable[[int, bytes, bytes, bytes], bool] = verify


class NodeMonitor:
    """One node's monitor. `run` goes on until it is cancelled."""

    def __init__(self, config: MonitorConfig, deps: MonitorSurroundings) -> None:
        self._config = config
        self._deps = deps
        self._responder = Responder(
            config.node, deps.key, deps.clock, lambda: Answered(deps.bus.attachment, deps.bus.now_ms())
        )
        self._prober = Prober(
            config.node,
            bus=deps.bus,
            datagrams=deps.datagrams,
            clock=deps.clock,
            entropy=deps.entropy,
            check=deps.check,
        )
        self._port: int | None = None
        self._said: MachineReading | None = None
        self._said_pids: tuple[int | None, int | None] = (None, None)
        self._said_offset_s = 0.0
        self._due = 0.0

    async def run(self) -> None:
        """Look and say, answer and probe."""
        self._port = await self._responder.bind(self._deps.datagrams, self._config.address)
        self._deps.bus.on_attached(self._attached)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._prober.run())
                await self._look_on()
        finally:
            self._responder.close()

    def _attached(self) -> None:
        self._due = 0.0
        self._look()

    async def _look_on(self) -> None:
        await self._deps.bus.wait_attached()
        while True:
            self._look()
            await asyncio.sleep(LOOK_S)

    def _look(self) -> None:
        """Look once; say what is to be said."""
        now = self._deps.clock.boottime()
        seen = self._deps.machine.read()
        pids = (self._deps.machine.pid_of("spawner"), self._deps.machine.pid_of("container_manager"))
        offset_s = round((self._deps.clock.wall_ms() - self._deps.bus.now_ms()) / 1000, 3)
        same = pids == self._said_pids and abs(offset_s - self._said_offset_s) <= CLOCK_S
        if self._said is not None and now < self._due and same and not differs(self._said, seen):
            return
        self._said, self._said_pids, self._said_offset_s, self._due = seen, pids, offset_s, now + SAY_S
        topic = f"node/{self._config.node}/attributes"
        attributes = self._attributes(seen, pids, offset_s)
        self._deps.bus.emit(Draft(topic, to_data(attributes), subject=f"node/{self._config.node}"))
        self._deps.bus.heartbeat(f"node/{self._config.node}/monitor/heartbeat", SAY_S)

    def _attributes(self, seen: MachineReading, pids: tuple[int | None, int | None], offset_s: float) -> NodeAttributes:
        config, deps = self._config, self._deps
        return NodeAttributes(
            cpus=seen.cpus,
            memory_bytes=seen.memory_bytes,
            memory_free_bytes=seen.memory_free_bytes,
            disk_bytes=seen.disk_bytes,
            disk_free_bytes=seen.disk_free_bytes,
            load=seen.load,
            address=config.address,
            version=config.version,
            boot_id=deps.machine.boot_id,
            key=config.key,
            labels=dict(config.labels),
            drivers=dict(config.drivers),
            udp_port=self._port,
            clock_offset_s=offset_s,
            spawner_pid=pids[0],
            manager_pid=pids[1],
            monitor_pid=config.pid,
            attachments={deps.bus.source: deps.bus.attachment},
            emit_rate_s=SAY_S,
        )


def differs(said: MachineReading, seen: MachineReading) -> bool:
    """Whether something has changed by more than `SHARE` of the whole; load counts by processor."""
    return (
        (said.cpus, said.memory_bytes, said.disk_bytes) != (seen.cpus, seen.memory_bytes, seen.disk_bytes)
        or abs(said.memory_free_bytes - seen.memory_free_bytes) > SHARE * seen.memory_bytes
        or abs(said.disk_free_bytes - seen.disk_free_bytes) > SHARE * seen.disk_bytes
        or abs(said.load - seen.load) > max(0.5, SHARE * 10 * seen.cpus)
    )
