"""Growth: what a member of a fleet hears and asks for does not grow with the fleet. Counted at two sizes."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from dsmt.bus.broker.fan_out import TREES, FanOut
from dsmt.simulator.engine.run import run
from dsmt.simulator.fleet import Scale
from dsmt.simulator.play import Play
from dsmt.simulator.programs import Habits

EACH = 2
"""Instances for each node."""
REST_S = 40.0
"""Long enough for everything that is said each half minute."""


def heard(nodes: int, patched: pytest.MonkeyPatch) -> Counter[str]:
    """By role, how many rows went to its members, and (`... rows`) how many were looked at for them."""
    found: Counter[str] = Counter()
    push, page, subscribe = FanOut._push, FanOut._page, FanOut.subscribe

    def pushed(self, subscription, parcels):
        sent = push(self, subscription, parcels)
        found[subscription.owner.name.split("/")[0]] += sent
        return sent

    def paged(self, subscription):
        read, more = page(self, subscription)
        found[f"{subscription.owner.name.split('/')[0]} rows"] += read
        return read, more

    def asked(self, session, frame):
        found[f"{session.name.split('/')[0]} patterns"] += len(frame.patterns)
        subscribe(self, session, frame)

    async def play() -> None:
        scale = Scale(nodes, 1, 1, (nodes * EACH, nodes * EACH), skewed=0.0, habits=Habits(life_s=1e9))
        playing = Play(1, scale)
        await playing.fleet.start()
        await playing.first()
        assert not playing.wrong
        await playing.until(playing.now + REST_S)
        playing.world.power_off()
        await asyncio.sleep(0.01)

    with patched.context() as at:
        at.setattr(FanOut, "_push", pushed)
        at.setattr(FanOut, "_page", paged)
        at.setattr(FanOut, "subscribe", asked)
        run(play())
    return found


def test_what_a_monitor_a_manager_and_an_agent_hear_does_not_grow_with_the_fleet(monkeypatch):
    small, large = 4, 16
    few, many = heard(small, monkeypatch), heard(large, monkeypatch)
    for role in ("monitor", "node", "agent"):
        for what in ("", " rows", " patterns"):
            each = few[role + what] / small, many[role + what] / large
            pages = 3 * TREES if what == " rows" and role == "node" else 0  # one for each part that its patterns take
            assert each[1] <= max(1.5 * each[0] + 2, pages), (
                f"{role}{what}: {each[0]:.1f} in a fleet of {small}, {each[1]:.1f} of {large}"
            )
    assert many["monitor"] == 0, "a monitor hears of nobody while all are heard"
