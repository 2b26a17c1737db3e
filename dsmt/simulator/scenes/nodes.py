"""Nodes that die, fall silent, stand still, or lose their links: who lives is said to, and only the dead are replaced."""

from __future__ import annotations

from typing import Final

from dsmt.controllers.brake import brake
from dsmt.controllers.evidence import MASS_LEAST
from dsmt.simulator.invariants import moved, verdicts
from dsmt.simulator.kinds import SMALL, STALL_S, STORM, stall_some
from dsmt.simulator.play import Play
from dsmt.view import Fleet

STORM_S: Final = 70.0
"""Seconds between two faults of the storm, times nodes."""
SILENT: Final = 0.3
KILLED: Final = 0.2
ALIVE_S: Final = 5.0
"""How soon a node that stood still is alive again."""


async def storm(play: Play) -> None:
    """Everything goes wrong for most of the time, then nothing more."""
    await play.faults.run(STORM, STORM_S / len(play.fleet.nodes), play.seconds * 0.6 - play.now)
    play.faults.mend()
    await play.settled(play.seconds * 0.85 - play.now, "after the storm")
    await play.faults.run(SMALL, 2.0, play.seconds * 0.9 - play.now)
    await play.settled(play.seconds - play.now, "at the end")


async def silent(play: Play) -> None:
    """Many nodes lose their power at once (12.8)."""
    fleet = play.fleet
    lost = play.some(SILENT)
    slots, before = play.named_on(lost), fleet.named()
    play.faults.note(f"{len(lost)} nodes lose their power: {', '.join(node.name for node in lost)}")
    for node in lost:
        node.host.power_off()
    await play.until(play.seconds * 0.7)
    play.wrong += moved(before, fleet.named(), slots, f"12.8, while {len(lost)} nodes are silent")
    if not brake(Fleet(fleet.view(), play.world.now_ms, "b1")).on:
        play.wrong.append(f"12.8: {len(lost)} nodes are silent, and the brake is off")
    for node in lost:
        play.world.later(play.between(0, 3), node.boot)
    await play.settled(play.seconds - play.now, "after the nodes came back")


async def killed(play: Play) -> None:
    """Many nodes die at once, and it can be seen (12.8)."""
    lost = play.some(KILLED)
    play.faults.note(f"{len(lost)} nodes are killed: {', '.join(node.name for node in lost)}")
    for node in lost:
        play.faults.kill_node(node)
    await play.settled(30.0, f"12.8, after {len(lost)} nodes were killed")
    if brake(Fleet(play.fleet.view(), play.world.now_ms, "b1")).on:
        play.wrong.append(f"12.8: {len(lost)} nodes were killed, and the brake is on")
    await play.until(play.seconds * 0.7)
    for node in lost:
        node.start()
    await play.faults.run(SMALL, 2.0, play.seconds * 0.1)
    await play.settled(play.seconds - play.now, "after the nodes came back")


async def stalled(play: Play) -> None:
    """All of a node's processes stand still for 4 to 30 s, and go on; then any set of processes does."""
    fleet = play.fleet
    for _ in range(2):
        node, seconds = play.faults.node(), play.between(*STALL_S)
        play.faults.note(f"{node.name} stands still for {seconds:.1f} s")
        play.faults.stall_node(node, seconds)
        await play.until(play.now + seconds + ALIVE_S)
        said = Fleet(fleet.view(), play.world.now_ms, "b1").state(node.name)
        if said != "alive":
            play.wrong.append(f"O1: {node.name} stood still for {seconds:.1f} s, and {ALIVE_S:.0f} s later it is {said}")
        await play.settled(10.0, f"after {node.name} stood still")
    play.faults.inflict(stall_some)
    await play.until(play.now + STALL_S[1])
    play.faults.mend()
    await play.settled(20.0, "after any set of processes stood still")


async def middlebox(play: Play) -> None:
    """A middlebox ends all links of half of the nodes, and lets none be made for a while; all answer probes (rule F2).

    They are so many that closed sessions are no evidence, also of a small fleet.
    """
    fleet = play.fleet
    struck = play.stream.shuffled(list(fleet.nodes.values()))[: max(MASS_LEAST + 1, len(fleet.nodes) // 2)]
    before, seconds = fleet.named(), play.between(0.2, 25.0)
    play.faults.note(f"a middlebox ends the links of {', '.join(node.name for node in struck)} for {seconds:.1f} s")
    since_ms = play.world.now_ms
    play.faults.middlebox(struck, seconds)
    await play.until(play.now + seconds + 5)
    play.wrong += [f"F2: all nodes live, and {one}" for one in verdicts(fleet, since_ms)]
    play.wrong += moved(before, fleet.named(), before, "F2, though all nodes live")
    await play.settled(15.0, "after the middlebox")
