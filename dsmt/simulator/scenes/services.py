"""What an operator says: it is so in the end; a fix is tried, and a command is executed once, in time or not at all."""

from __future__ import annotations

from typing import Final

from dsmt.simulator.kinds import (
    SMALL,
    WORDS,
    kill_broker,
    kill_controller,
    pause_agent,
    pause_controller,
    stall_node,
)
from dsmt.simulator.play import Play

PARKS: Final[dict[str, str]] = {
    "restart": "{first: 100ms, factor: 1, park: {after: 3}, escalate: [{restart: 2}, {reinstall: 1}]}",
    "update": "{healthy_after: 1s, deadline: 60s}",
}
FAILING: Final[dict[str, str]] = {"install": "./install fails", **PARKS}
WORKING: Final[dict[str, str]] = {"install": "./install", **PARKS}
COMMAND_S: Final = 60.0
"""How long a command is meant to be executed (rule A7)."""


async def words(play: Play) -> None:
    """An operator says much, while processes die."""
    kinds = {**SMALL, **WORDS, kill_broker: 1, kill_controller: 1, pause_controller: 1}
    await play.faults.run(kinds, 1.2, play.seconds * 0.6 - play.now)
    play.faults.mend()
    await play.settled(play.seconds - play.now, "after an operator's words")


def running(play: Play, prefix: str, revision: int) -> list[str]:
    """The slots below a prefix whose program of a revision lives, one for each program."""
    lives = [life for node in play.fleet.nodes.values() for life in node.host.lives if life.slot.startswith(prefix)]
    return sorted(life.slot for life in lives if life.revision == str(revision) and life.ended > play.now)


async def parked(play: Play) -> None:
    """A service fails until it is parked, perhaps after a revision that worked, and a fix comes."""
    fleet, revision = play.fleet, 1
    worked_once = play.stream.chance(0.5)
    if worked_once:
        fleet.apply("fix", instances=2, revision=revision, more=WORKING)
        await play.settled(15.0, "after its first revision")
        revision += 1
    for _ in range(1 + play.stream.below(2)):
        fleet.apply("fix", instances=2, revision=revision, more=FAILING)
        play.faults.note(f"fix r{revision} cannot be installed")
        await play.until(play.now + play.between(0.5, 8.0))
        revision += 1
    if play.stream.chance(0.3):
        play.faults.inflict(play.stream.choice([kill_controller, stall_node, pause_agent]))
    fleet.apply("fix", instances=2, revision=revision, more=WORKING)
    play.faults.note(f"fix r{revision} works")
    await play.until(play.now + 2)
    play.faults.mend()
    await play.settled(15.0, "O2, after the fix")
    deadline = play.now + 15.0
    while (newest := running(play, "fix/", revision)) != ["fix/app/0", "fix/app/1"] and play.now < deadline:
        await play.until(play.now + 0.5)
    if newest != ["fix/app/0", "fix/app/1"]:
        play.wrong.append(f"O2: r{revision} is the fix, and it runs as {newest}")


async def commands(play: Play) -> None:
    """A command that is said while its agent is away is executed when it is back, within its time; a late one is not."""
    fleet = play.fleet
    fleet.apply("park", instances=1, more=FAILING)
    await play.until(play.now + 10)
    node = fleet.nodes[fleet.named()["park/app/0"] or ""]
    node.host.mended = True
    agent = next(one for one in node.running if one.name.startswith("agent:") and "park" in one.name)
    late = play.stream.chance(0.5)
    away_s = COMMAND_S + play.between(5.0, 20.0) if late else play.between(0.5, 8.0)
    if late or play.stream.chance(0.3):
        play.faults.stall([agent, *([node.manager.process] if late else [])], away_s)  # who would end an agent that hangs
    else:
        play.faults.stall([node.manager.process], away_s)
        agent.sim.kill()
    play.faults.note(f"the agent of park/app/0 is away for {away_s:.1f} s, and told to try again meanwhile")
    until = play.now + away_s
    await play.until(play.now + play.between(0.0, min(away_s * 0.2, 3.0)))
    fleet.operator.retry("park/app/0")
    await play.until(until + (3.0 if late else 8.0))
    lives = [life for life in node.host.lives if life.slot == "park/app/0"]
    if late and lives:
        play.wrong.append(f"A7: a command was executed {away_s:.0f} s after it was said")
    if not late and not lives:
        play.wrong.append(f"A7: a command that was said while its agent was away for {away_s:.1f} s was not executed")
    if late:
        fleet.operator.retry("park/app/0")
    await play.settled(15.0, "after the command")
