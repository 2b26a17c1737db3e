"""The clocks and the entropy of the machine."""

import asyncio
import time

from dsmt.ports.clock import Clock
from dsmt.ports.entropy import Entropy
from dsmt.system.clock import BootTimeLoop, LinuxClock
from dsmt.system.entropy import SystemEntropy


def test_the_clock_reads_boot_time_and_wall_time():
    clock: Clock = LinuxClock()
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= clock.boottime() <= time.clock_gettime(time.CLOCK_BOOTTIME)
    before = time.time() * 1000
    assert before - 1 <= clock.wall_ms() <= time.time() * 1000


def test_the_event_loop_runs_on_the_boot_time_clock():
    async def main():
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(0.01)
        assert before <= now <= time.clock_gettime(time.CLOCK_BOOTTIME) - 0.01

    with asyncio.Runner(loop_factory=BootTimeLoop) as runner:
        runner.run(main())


def test_entropy_differs_each_time_and_keeps_its_range():
    entropy: Entropy = SystemEntropy()
    assert len({entropy.bytes(32) for _ in range(100)}) == 100
    drawn = [entropy.uniform(2.0, 3.0) for _ in range(100)]
    assert all(2.0 <= number < 3.0 for number in drawn)
    assert len(set(drawn)) > 90
