"""A node whose key was rotated is the machine that it was."""

from __future__ import annotations

from dsmt.simulator.engine.run import run
from dsmt.simulator.fleet import Scale
from dsmt.simulator.play import Play
from dsmt.simulator.programs import Habits


def test_data_is_at_home_on_a_node_whose_key_was_rotated() -> None:
    async def main() -> None:
        play = Play(1, Scale(nodes=3, services=0, controllers=2, habits=Habits(life_s=1e9, stubborn=0.0)), 60.0)
        fleet = play.fleet
        await fleet.start()

        async def scaled(instances: int) -> str:
            fleet.apply("db", instances=instances, revision=1, more={"data": "true"})
            await play.until(play.now + 20)
            return fleet.named().get("db/app/0", "")

        node = fleet.nodes[await scaled(1)]
        node.identity = play.world.identity(f"node/{node.name}")
        node.monitor_identity = play.world.identity(f"monitor/{node.name}", parent=node.identity)
        node.manager.kill()
        node.monitor.kill()
        assert await scaled(0) == ""
        assert await scaled(1) == node.name
        assert fleet.amiss() == []
        play.world.power_off()
        await play.until(play.now + 1)

    run(main())
