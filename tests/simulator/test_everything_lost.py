"""The broker's disk is lost, and with it all controllers, or what lives for minutes only: what was ended begins anew."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from dsmt.simulator.engine.run import run
from dsmt.simulator.fleet import Scale, SimFleet
from dsmt.simulator.play import Play
from dsmt.simulator.programs import Habits

KEYS: Final[dict[str, Any]] = {"update": "{healthy_after: 2s, deadline: 60s}"}


def lived(act: Callable[[Play, SimFleet], Awaitable[None]], nodes: int) -> None:
    async def main() -> None:
        play = Play(1, Scale(nodes=nodes, services=0, controllers=2, habits=Habits(life_s=1e9, stubborn=0.0)), 120.0)
        await play.fleet.start()
        await act(play, play.fleet)
        play.world.power_off()
        await play.until(play.now + 1)

    run(main())


async def lose(play: Play, *, controllers: bool) -> None:
    """The machine of the broker, and that of all `controllers`, is replaced by one with nothing on its disk."""
    fleet = play.fleet
    lost = [fleet.broker, *(fleet.controllers.values() if controllers else ())]
    for one in lost:
        one.kept.stop()
    fleet.broker.new_store(kept_birth=False)
    await play.until(play.now + 2)
    for one in lost:
        one.kept.start()
    await play.until(play.now + 15)


@pytest.mark.parametrize("how", ["scaled to 0", "removed"])
def test_a_service_that_was_ended_runs_when_it_is_applied_to_a_realm_that_remembers_nothing(how: str) -> None:
    async def act(play: Play, fleet: SimFleet) -> None:
        fleet.apply("x", instances=3, revision=1, more=KEYS)
        await play.until(play.now + 15)
        if how == "removed":
            fleet.remove("x")
        else:
            fleet.apply("x", instances=0, revision=1, more=KEYS)
        await play.until(play.now + 20)
        assert not fleet.running()
        await lose(play, controllers=True)
        assert not fleet.running(), "it is not wanted, and comes back by nothing"
        fleet.apply("x", instances=3, revision=1, more=KEYS)
        await play.until(play.now + 30)
        assert len(fleet.running()) == 3
        assert fleet.amiss() == []

    lived(act, nodes=3)


def test_a_node_whose_orphan_was_ended_takes_the_slot_from_a_store_that_has_lost_that_fact() -> None:
    async def act(play: Play, fleet: SimFleet) -> None:
        more = KEYS | {"instances": "each_node"}
        fleet.apply("x", instances=1, revision=1, more=more)
        await play.until(play.now + 15)
        assert len(fleet.running()) == 4
        fleet.operator.use("n2", "excluded")
        await play.until(play.now + 3)
        fleet.remove("x")
        fleet.apply("x", instances=1, revision=2, more=more)
        await play.until(play.now + 10)
        assert len(fleet.running()) == 3, "its copy was an orphan, and was ended"
        await lose(play, controllers=False)
        fleet.operator.use("n2", "active")
        await play.until(play.now + 20)
        assert len(fleet.running()) == 4

    lived(act, nodes=4)
