"""Probes over clocks and timers that are a moment early."""

from __future__ import annotations

import asyncio

import pytest

from tests.agents.memory_bus import Clock
from tests.agents.world import in_virtual_time
from tests.monitors.test_node import World


def test_a_probe_that_is_due_a_moment_early_is_said_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said counts for two periods: said in each second one only, a silence would be no evidence now and then."""
    early, boottime = iter(0.001 * n for n in range(100_000)), Clock.boottime
    monkeypatch.setattr(Clock, "boottime", lambda clock: boottime(clock) - next(early) % 0.01)

    async def main() -> None:
        at = World()
        for node in ("n1", "n2"):
            at.start(node)
        await asyncio.sleep(1)
        at.network.deaf.add("10.0.0.2")
        at.silence("n2")
        await asyncio.sleep(41)
        assert len(at.probes("n2")) >= 20
        at.end()

    in_virtual_time(main)
