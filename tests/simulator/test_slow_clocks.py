"""A machine whose clock is seconds slow: what its agents say before they hear realm time is said by it all the same (J4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from dsmt.event.kinds.instance import Health, Status
from dsmt.event.records import from_data
from dsmt.simulator.engine.run import run
from dsmt.simulator.fleet import Scale
from dsmt.simulator.play import Play
from dsmt.simulator.programs import Habits

pytestmark = pytest.mark.timeout(120)
SCALE: Final = Scale(nodes=1, services=2, controllers=1, instances=(2, 2), skewed=0.0, habits=Habits(life_s=1e9))
CLOSE_S: Final = 0.2


def told_since(play: Play) -> Iterator[tuple[float, float, str]]:
    """What is said of programs: when they began to run or were ready, when it was said (the simulator's seconds), where."""
    start_ms = play.world.now_ms - play.now * 1000
    for _, signed in play.fleet.rows():
        event = signed.event
        if event.type == "dsmt.status":
            status = from_data(Status, event.data)
            told = [status.since_ms, status.taken_ms, status.last_exit and status.last_exit.at_ms]
        elif event.type == "dsmt.health":
            told = [from_data(Health, event.data).since_ms]
        else:
            continue
        for ms in told:
            if ms is not None:
                yield (ms - start_ms) / 1000, (event.time_ms - start_ms) / 1000, event.topic


@pytest.mark.parametrize("slow_s", [6.0, 9.0, 86_400.0, -7.0])
def test_nothing_is_said_to_have_been_so_before_it_was(slow_s: float) -> None:
    async def main() -> None:
        play = Play(1, SCALE, 60.0)
        node = play.fleet.nodes["n1"]
        node.host.clock.offset_s = -slow_s
        await play.fleet.start()
        await play.first()
        for away_s in (0.0, 2.0, 8.0):
            play.world.cut(node.host)
            node.host.power_off()
            await play.until(play.now + 3)
            down = play.now
            node.boot()
            await play.until(play.now + away_s)
            play.world.heal(node.host)
            await play.settled(40.0, "after its machine was started anew")
            await play.until(play.now + 30)
            lives = [life.began for life in node.host.lives if life.began >= down]
            assert len(lives) == 4, "all have been started, attached or not"
            assert any(down <= at for at, _, topic in told_since(play) if topic.endswith("/application"))
            for at, said, topic in told_since(play):
                assert -CLOSE_S < at < said + CLOSE_S, topic
                assert at <= down - 3 + CLOSE_S or at >= down - CLOSE_S, (
                    f"{topic}: nothing ran from {down - 3} to {down}: {at}"
                )
        assert not [*play.wrong, *play.world.crashes, *play.fleet.complaints]
        play.world.power_off()
        await play.until(play.now + 1)

    run(main())
