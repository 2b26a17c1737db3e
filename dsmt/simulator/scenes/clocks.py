"""Clocks that step: realm time does not follow, nobody is taken for silent, and what is asked for is done."""

from __future__ import annotations

import asyncio
from typing import Final

from dsmt.simulator.invariants import moved, verdicts
from dsmt.simulator.kinds import SMALL, kill_broker, scale, update
from dsmt.simulator.play import Play

STEPS_S: Final = (26 * 3600.0, 26 * 3600.0, -3600.0, 40.0, -40.0)
AHEAD_MS: Final = 10_000
"""How far realm time may be from the truth."""


async def clock(play: Play) -> None:
    """The broker's wall clock steps for a while, and perhaps it starts anew meanwhile (rule J4)."""
    fleet, broker = play.fleet, play.fleet.broker
    step, seconds = play.stream.choice(STEPS_S), play.between(2.0, 15.0)
    before, since_ms = fleet.named(), play.world.now_ms
    play.faults.note(f"the broker's clock steps by {step:.0f} s for {seconds:.1f} s")
    broker.host.clock.offset_s = step
    if play.stream.chance(0.7):
        play.world.later(play.between(0.0, seconds), lambda: play.faults.inflict(kill_broker))
    await asyncio.sleep(seconds)
    broker.host.clock.offset_s = 0.0
    await asyncio.sleep(6)
    play.wrong += [f"J4: a clock stepped, and {one}" for one in verdicts(fleet, since_ms)]
    play.wrong += moved(before, fleet.named(), before, "J4, though only a clock stepped")
    for kind in (scale, update, scale):
        play.faults.inflict(kind)
    await play.settled(25.0, "after the broker's clock stepped")
    await play.faults.run(SMALL, 2.0, 5.0)
    await play.settled(25.0, "at the end")
    bus = fleet.operator.bus
    off_ms = 0 if bus is None else bus.now_ms() - play.world.now_ms
    if abs(off_ms) > AHEAD_MS:
        play.wrong.append(f"J4: realm time is {off_ms / 1000:.0f} s from the truth")
