"""Two brokers that cannot reach each other: a node's manager hears at one of them, the agent of its slot at the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dsmt.agents.node.telling import Telling
from dsmt.simulator.engine.run import run
from dsmt.simulator.fleet import Scale, SimFleet
from dsmt.simulator.play import Play
from dsmt.simulator.programs import Habits

SCALE = Scale(nodes=4, services=0, controllers=4, brokers=2, habits=Habits(life_s=1e9, stubborn=0))
DEADLINE_S = 120.0
"""Past that of a copy that is `previous`: that the new one is ready is not heard either (A8)."""


def stop(fleet: SimFleet, slot: str) -> None:
    fleet.operator.hold(slot)


def move(fleet: SimFleet, slot: str) -> None:
    fleet.operator.move(slot, None)


def remove(fleet: SimFleet, slot: str) -> None:
    fleet.remove(slot.partition("/")[0])


def between(fleet: SimFleet) -> tuple[str, str]:
    """A slot whose node's manager is at the operator's broker, and its agent at the other; and that node."""
    sessions = fleet.view().sessions.of

    def broker(source: str) -> str:
        found = sessions[source].newest
        assert found is not None
        return f"broker/{found[0]}"

    return next(
        (slot, node)
        for slot, node in sorted(fleet.named().items())
        if node is not None
        and broker(f"node/{node}") == fleet.operator.bus.broker
        and broker(f"agent/{node}/{slot}") != fleet.operator.bus.broker
    )


def runs_on(seed: int, said: Callable[[SimFleet, str], None], after_s: float) -> bool:
    """Whether what was told to end runs on where it was, so long after that was said."""

    async def main() -> bool:
        play = Play(seed, SCALE)
        fleet = play.fleet
        await fleet.start()
        fleet.apply("web", instances=6)
        await play.until(play.now + 20)
        slot, node = between(fleet)
        one, other = fleet.brokers
        one.host.severed.add(other.host.name)
        await play.until(play.now + 15)
        said(fleet, slot)
        await play.until(play.now + after_s)
        found = node in (fleet.running().get(slot) or ())
        play.world.power_off()
        await play.until(play.now + 1)
        return found

    return run(main())


ENDINGS = [(stop, 2, 5.0), (remove, 3, 5.0), (move, 29, DEADLINE_S)]
"""What is said, a seed that has such a slot, and when that is over at the latest."""


@pytest.mark.parametrize(("said", "seed", "after_s"), ENDINGS)
def test_what_is_to_end_ends_though_its_agent_hears_of_it_by_no_broker(
    said: Callable[[SimFleet, str], None], seed: int, after_s: float
) -> None:
    assert not runs_on(seed, said, after_s)


@pytest.mark.parametrize(("said", "seed", "after_s"), ENDINGS)
def test_a_manager_that_keeps_to_itself_what_it_hears_is_caught(
    said: Callable[[SimFleet, str], None], seed: int, after_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Telling, "soon", lambda _: None)
    assert runs_on(seed, said, after_s)
