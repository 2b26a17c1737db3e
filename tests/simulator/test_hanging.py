"""An agent that stands still, with a real broker that says so and a real manager that hears it."""

from __future__ import annotations

from dsmt.simulator.engine.run import run
from dsmt.simulator.fleet import Scale
from dsmt.simulator.play import Play


def test_an_agent_that_hangs_is_ended_and_what_it_kept_is_kept_by_its_successor() -> None:
    async def main() -> None:
        play = Play(1, Scale(nodes=3, services=0, controllers=2), 200.0)
        await play.fleet.start()
        play.fleet.apply("web", instances=1)
        await play.until(play.now + 10)
        node = play.fleet.nodes[play.fleet.named()["web/app/0"] or ""]
        agent = next(one for one in node.running if one.name.startswith("agent:"))
        (before,) = [life for life in node.host.lives if life.slot == "web/app/0"]
        play.faults.stall([agent], 150.0)
        await play.until(play.now + 25)
        assert agent.sim.alive
        await play.until(play.now + 20)
        assert not agent.sim.alive
        assert [life for life in node.host.lives if life.slot == "web/app/0"] == [before]
        node.host.programs[before.pid].crash()
        await play.until(play.now + 10)
        assert len([life for life in node.host.lives if life.slot == "web/app/0"]) == 2
        play.world.power_off()
        await play.until(play.now + 1)

    run(main())
