"""After `clock accept` realm time goes slower or steps: who hears of it goes along; who cannot begins anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from dsmt.bus.client.measuring import MEASURE_S
from dsmt.event.hlc import BOUND_MS, PULL
from dsmt.simulator.engine.run import run
from dsmt.simulator.fleet import Scale
from dsmt.simulator.play import Play
from dsmt.simulator.programs import Habits

pytestmark = pytest.mark.timeout(300)
FAR_S: Final = 300.0
PULLED_S: Final = 75.0
"""More than every bound that is a minute, and pulled back within three hours."""
NEW_S: Final = 50.0
"""Less than what certificates allow before they were issued."""
SCALE: Final = Scale(nodes=1, services=1, controllers=1, instances=(1, 1), skewed=0.0, habits=Habits(life_s=1e9))


def accepted(ahead_s: float, act: Callable[[Play, Counter[str]], Awaitable[None]]) -> None:
    """A realm whose broker's clock is so far ahead, which an operator accepts; then `act`, given the incarnations before."""

    async def main() -> None:
        play = Play(1, SCALE, 60.0)
        fleet, broker = play.fleet, play.fleet.broker
        play.world.said = None
        await fleet.start()
        await play.first()
        before = incarnations(play)
        broker.host.clock.offset_s = ahead_s
        await play.until(play.now + 10)
        fleet.operator.accept_clock("b1")
        await play.until(play.now + 2)
        assert fleet.operator.idle, fleet.operator.refused
        await act(play, before)
        assert not [*play.wrong, *play.world.crashes, *fleet.complaints]
        play.world.power_off()
        await play.until(play.now + 1)

    run(main())


def incarnations(play: Play) -> Counter[str]:
    """How many incarnations each source has begun."""
    started = [signed.event for _, signed in play.fleet.rows() if signed.event.type == "dsmt.source.started"]
    return Counter(event.source for event in started)


def ahead_s(play: Play) -> float:
    """By how much realm time, as an operator's process tells it, is ahead of what it was at first."""
    bus = play.fleet.operator.bus
    assert bus is not None
    return (bus.now_ms() - play.world.now_ms) / 1000


def test_nobody_begins_a_new_incarnation_while_realm_time_is_pulled_back_by_minutes() -> None:
    async def act(play: Play, before: Counter[str]) -> None:
        await play.until(play.now + PULLED_S / PULL + 2 * MEASURE_S)
        await play.settled(10.0, "after realm time was pulled")
        assert incarnations(play) == before
        assert abs(ahead_s(play) + PULLED_S) < 1

    accepted(-PULLED_S, act)


def test_a_step_ahead_is_taken_at_once_by_all() -> None:
    async def act(play: Play, before: Counter[str]) -> None:
        assert abs(ahead_s(play) - FAR_S) < 1, "at once, and not when it is measured next"
        await play.settled(10.0, "after realm time stepped")
        assert incarnations(play) == before

    accepted(FAR_S, act)


def test_who_was_away_for_longer_than_the_pull_may_be_followed_begins_a_new_incarnation_and_is_heard() -> None:
    async def act(play: Play, before: Counter[str]) -> None:
        node = play.fleet.nodes["n1"]
        play.world.cut(node.host)
        await play.until(play.now + BOUND_MS / 1000 / PULL + 200)
        play.world.heal(node.host)
        await play.settled(30.0, "after a node was away for long")
        await play.until(play.now + 10)
        begun = incarnations(play)
        assert begun["node/n1"] == before["node/n1"] + 1
        assert begun["controller/c1"] == before["controller/c1"]

    accepted(-FAR_S, act)


def test_a_broker_that_begins_anew_with_a_clock_that_is_behind_goes_ahead_to_its_own_former_word() -> None:
    async def act(play: Play, before: Counter[str]) -> None:
        broker = play.fleet.broker
        broker.kept.stop()
        broker.new_store(kept_birth=False)
        broker.host.clock.offset_s = -NEW_S
        broker.kept.start()
        await play.until(play.now + MEASURE_S + 20)
        assert abs(ahead_s(play) - FAR_S) < 5
        assert incarnations(play).keys() == before.keys(), "all begun anew, in the new store"

    accepted(FAR_S, act)
