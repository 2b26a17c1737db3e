"""A hostile node with a good certificate harms nobody: others are acknowledged within twice their time (rule D2)."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dsmt.ports.bus import Draft
from dsmt.trust.identity import dump
from tests.bus.realm import TestRealm
from tests.bus.test_kills import KilledBroker, run

LONGEST_S = 300
"""For 2,120 acknowledgements, on a machine where one may take a tenth of a second."""

pytestmark = [pytest.mark.real, pytest.mark.timeout(LONGEST_S)]

WAYS = {
    "flood": "operator/mallory",
    "overflow": "operator/mallory",
    "parts": "node/n1",
    "unread": "operator/mallory",
    "certificates": "node/n1",
    "giants": "node/n1",
    "subscriptions": "operator/mallory",
    "blobs": "operator/mallory",
    "bombs": "node/n1",
}
SAMPLES = 200
SLICE = 20
"""How many in a row of each kind: what else strains the machine, and changes, strains both alike."""
FLOOR_S = 0.010
"""What the machine's own unrest is allowed beside twice the time."""
FLOOR_P99_S = 0.100
ATTEMPTS = 3
"""How often it is measured while something else may strain the machine; who harms others does so each time."""
GROWTH = 64 * 1024 * 1024
"""How much a broker may grow for one session: `docs/reference/bounds.md`."""


@contextmanager
def process(way: str, r: TestRealm, directory: Path) -> Iterator[int]:
    """Its pid, once it is at work."""
    broker = r.brokers[0]
    keys = (broker.public.hex(), r.root.public.hex())
    command = [sys.executable, "-m", "tests.bus.hostile", way, str(directory), broker.address, *keys]
    started = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == b"attached\n"
        yield started.pid
    finally:
        started.kill()
        started.wait()
        if started.stdout is not None:
            started.stdout.close()


async def delays(client, count: int) -> list[float]:
    """How long each acknowledgement took; seconds."""
    found = []
    for number in range(count):
        began = time.monotonic()
        await asyncio.wait_for(client.publish(Draft("user/alice", {"n": number})), 20)
        found.append(time.monotonic() - began)
        await asyncio.sleep(0.003)
    return found


def summary(found: list[float]) -> tuple[float, float]:
    """Median and p99."""
    return statistics.median(found), statistics.quantiles(found, n=100)[98]


async def compared(client, attacker: int, spinning: tuple[int, ...]) -> tuple[tuple[float, float], tuple[float, float]]:
    """With the attack, and with the same strain on the machine and none on the broker; by turns."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for number in range(2 * SAMPLES // SLICE):
        attacked = number % 2 == 0
        for pid in (attacker, *spinning):
            os.kill(pid, signal.SIGCONT if (pid == attacker) == attacked else signal.SIGSTOP)
        await delays(client, 2)  # what was under way as it was stopped
        found[attacked] += await delays(client, SLICE)
    return summary(found[True]), summary(found[False])


def is_in_time(attacked: tuple[float, float], otherwise: tuple[float, float]) -> bool:
    """Within twice the time that it takes otherwise; or within the floor, whatever that is."""
    return attacked[0] <= max(2 * otherwise[0], FLOOR_S) and attacked[1] <= max(2 * otherwise[1], FLOOR_P99_S)


def peak(broker: KilledBroker) -> int:
    """The most memory that the broker's process ever had."""
    assert broker.process is not None
    status = Path(f"/proc/{broker.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.mark.parametrize("way", WAYS)
def test_a_hostile_session_neither_delays_others_nor_grows_the_broker(tmp_path, way):
    async def scene(r: TestRealm, broker: KilledBroker) -> None:
        (tmp_path / way).write_bytes(dump(r.identity(WAYS[way])))
        alice = await r.client("operator/alice")
        before = peak(broker)
        await delays(alice, SAMPLES)  # what is done the first time takes longer
        for _ in range(ATTEMPTS):
            with process(way, r, tmp_path) as attacker:
                attacked = summary(await delays(alice, SAMPLES))
                said = f"{attacked[0] * 1e3:.2f} ms, p99 {attacked[1] * 1e3:.1f} ms"
                if in_time := is_in_time(attacked, (0.0, 0.0)):
                    break
                with process("spin", r, tmp_path) as one, process("spin", r, tmp_path) as other:
                    attacked, strained = await compared(alice, attacker, (one, other))
            said = f"{attacked[0] * 1e3:.2f} ms, p99 {attacked[1] * 1e3:.1f} ms"
            said += f"; without it {strained[0] * 1e3:.2f} ms, p99 {strained[1] * 1e3:.1f} ms"
            if in_time := is_in_time(attacked, strained):
                break
        grown = peak(broker) - before
        sys.stdout.write(f"{way}: {said}, grown {grown >> 20} MiB\n")
        assert in_time, said
        assert grown <= GROWTH

    run(tmp_path, scene, seconds=LONGEST_S - 20)
