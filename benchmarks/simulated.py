"""A simulated fleet that does what it should, for P10 and P14: one broker, one controller, health checks for most."""

from __future__ import annotations

import asyncio
import time
from math import inf
from typing import Final

from benchmarks.sizes import sized
from dsmt.simulator.fleet import Scale
from dsmt.simulator.play import Play
from dsmt.simulator.programs import Habits

EACH: Final = 5
"""Instances for each node."""
PATIENCE_S: Final = sized(300.0, 300.0, 3000.0)
"""CPU seconds after which a fleet that has not settled is given up."""
_SERVICE: Final = sized(50, 5)
"""Instances of a service."""


async def started(nodes: int) -> tuple[Play, float]:
    """A fleet of so many nodes once all runs as it should, and the CPU seconds that it took: infinite when given up.

    All services are applied with one command, as a directory of files is.
    """
    began = time.process_time()
    services = max(1, nodes * EACH // _SERVICE)
    instances = nodes * EACH // services
    habits = Habits(life_s=1e9)
    play = Play(1, Scale(nodes, 0, 1, (instances, instances), skewed=0.0, heartbeat_s=1.0, habits=habits))
    play.world.said = None
    await play.fleet.start()
    numbers = range(1, services + 1)
    play.fleet.operator.apply(*(play.fleet.declare(f"s{number}", instances=instances) for number in numbers))
    while time.process_time() - began < PATIENCE_S:
        await asyncio.sleep(0.1)
        if sum(map(len, play.fleet.running().values())) >= services * instances and not play.fleet.amiss():
            return play, time.process_time() - began
    return play, inf


async def ended(play: Play) -> None:
    """No process of it is left."""
    play.world.power_off()
    await asyncio.sleep(0.01)
