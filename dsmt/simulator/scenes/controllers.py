"""Controllers that are stopped, cut off, or of another mind: no slot moves back, and nothing that was made anew ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from dsmt.controllers.loop.ranking import rank
from dsmt.simulator.engine.handles import SimHandle, SimTimer, owner_of
from dsmt.simulator.engine.host import HostProcess
from dsmt.simulator.engine.trace import Trace
from dsmt.simulator.invariants import moved
from dsmt.simulator.kinds import SMALL, kill_controller, pause_controller
from dsmt.simulator.members import SimController, SimNode
from dsmt.simulator.play import Play

STOPPED_S: Final = 30.0
AWAY_S: Final = (8.0, 30.0)
TURNS: Final = 60
"""Callbacks of a controller after a node's death, up to which it may be stopped."""


async def stopped(play: Play) -> None:
    """The controller that acts first, or next, is stopped at any await of a repair, and resumed (12.6)."""
    controller, node = _first_of(play, play.stream.below(2))
    stop_at_an_await(play, controller)
    play.faults.note(f"kill node {node.name}; controller {controller.name} is to be stopped")
    play.faults.kill_node(node)
    await play.until(play.now + STOPPED_S)
    play.world.loop.trace = None
    await play.settled(1.0, "while the controller is stopped")
    before = play.fleet.named()
    if controller.kept.process is not None:
        play.faults.note(f"resume controller {controller.name}, which is {controller.kept.process.sim.state}")
        controller.kept.process.sim.resume()
    await play.until(play.now + 10)
    play.wrong += moved(before, play.fleet.named(), before, "12.6, after the stopped controller was resumed")
    await play.settled(5.0, "after the stopped controller was resumed")


def _first_of(play: Play, number: int) -> tuple[SimController, SimNode]:
    """The controller of that rank for some slot's service, and the node where the slot is."""
    fleet = play.fleet
    slot = play.stream.choice(sorted(fleet.named()))
    return _ranked(play, slot.split("/")[0])[number], fleet.nodes[fleet.named()[slot] or ""]


def _ranked(play: Play, service: str) -> list[SimController]:
    controllers = play.fleet.controllers
    names = sorted(controllers, key=lambda name: rank(f"service/{service}", name, list(controllers)))
    return [controllers[name] for name in names]


def stop_at_an_await(play: Play, controller: SimController) -> None:
    """Arrange for a SIGSTOP: after any of its callbacks from now on, or right after it has said something."""
    process, bus = controller.kept.process, controller.bus
    if process is None or bus is None:
        raise RuntimeError("the controller does not run")
    if play.stream.chance(0.5):
        play.world.loop.trace = StopAfter(process, 1 + play.stream.below(TURNS))
        return
    after = play.stream.below(12)

    def said() -> None:
        if after:
            play.world.loop.trace = StopAfter(process, after)
        else:
            process.sim.pause()

    when_it_speaks(controller, said)


def when_it_speaks(controller: SimController, call: Callable[[], None]) -> None:
    """Call this in the very turn in which a controller says a slot or a verdict."""
    bus = controller.bus
    if bus is None:
        raise RuntimeError("the controller does not run")

    def said(topic: str) -> None:
        if "/slot/" in topic or topic.endswith("/verdict"):
            bus.tap = None
            call()

    bus.tap = said


class StopAfter(Trace):
    """Stops a process after so many of its callbacks: each runs from one await to the next."""

    def __init__(self, process: HostProcess, count: int) -> None:
        super().__init__()
        self._process, self._left = process, count

    def ran(self, tick: int, handle: SimHandle | SimTimer) -> None:  # noqa: ARG002 - the count is all that matters
        """A callback is about to run."""
        if owner_of(handle) is self._process.sim:
            self._left -= 1
            if self._left == 0:
                self._process.sim.pause()


async def contended(play: Play) -> None:
    """Who moves slots is cut off as it says so, another one moves them elsewhere, and the first comes back (rule A3)."""
    fleet = play.fleet
    controller, node = _first_of(play, 0)
    loses_broker = play.stream.chance(0.3)

    def said() -> None:
        play.faults.note(f"controller {controller.name} is cut off{', the broker dies' if loses_broker else ''}")
        play.world.cut(controller.host)
        if loses_broker:
            fleet.broker.kept.kill()

    when_it_speaks(controller, said)
    play.faults.note(f"kill node {node.name}")
    play.faults.kill_node(node)
    await play.until(play.now + play.between(*AWAY_S))
    await play.settled(20.0, "while a controller is cut off")
    before = fleet.named()
    play.faults.note(f"controller {controller.name} is back")
    play.world.heal(controller.host)
    await play.until(play.now + 12)
    play.wrong += moved(before, fleet.named(), before, "12.6, after the controller that was cut off came back")
    await play.settled(10.0, "after the controller that was cut off came back")


async def buried(play: Play) -> None:
    """A service is removed and made anew while the controller that would bury it stands still."""
    fleet, operator = play.fleet, play.fleet.operator
    service = play.stream.choice(sorted(fleet.specs))
    instances = fleet.specs[service]["components"]["app"]["instances"]
    first = _ranked(play, service)[0]
    fleet.remove(service)
    await play.until(play.now + play.between(0.01, 0.4))
    away_s = play.between(*AWAY_S)
    play.faults.note(f"{service} is removed, controller {first.name} stands still for {away_s:.1f} s")
    play.faults.stall([first.kept.process], away_s)
    until = play.now + away_s
    operator.await_end(service)
    fleet.apply(service, instances=instances)
    await play.faults.run(SMALL, 1.0, away_s * play.between(0.2, 1.0))
    await play.until(until - 0.5)
    while not operator.idle:  # what ends may take its ten seconds, and ten more where its agent is killed meanwhile
        await play.until(play.now + 0.1)
    orders = [len(node.host.orders) for node in fleet.nodes.values()]
    await play.until(max(until, play.now) + 5)
    given = [order for node, known in zip(fleet.nodes.values(), orders, strict=True) for order in node.host.orders[known:]]
    play.wrong += [f"12.6, after a stopped controller came back, an instance was ended: {o}" for o in given if service in o]
    await play.settled(15.0, f"after {service} was made anew")


async def anew(play: Play) -> None:
    """Services are removed and made anew while the broker stands still, so that an end and a beginning come in one batch."""
    fleet = play.fleet
    for _ in range(4):
        service = play.stream.choice(sorted(fleet.specs))
        instances = fleet.specs[service]["components"]["app"]["instances"]
        fleet.remove(service)
        if play.stream.chance(0.5):
            fleet.operator.await_end(service)
        fleet.apply(service, instances=instances)
        play.faults.note(f"{service} is removed and made anew")
        for _ in range(6):
            await asyncio.sleep(play.between(0.05, 0.7))
            who = play.stream.choice([fleet.broker.kept, *(one.kept for one in fleet.controllers.values())])
            play.faults.stall([who.process], play.between(0.1, 1.5))
    play.faults.mend()
    await play.settled(25.0, "after services were made anew")


async def rulesets(play: Play) -> None:
    """Controllers of two rulesets, of contrary minds, come and go (12.9)."""
    fleet = play.fleet
    newer = play.stream.choice(list(fleet.controllers.values()))
    newer.ruleset += 1
    newer.kept.kill()
    await play.first()
    before = fleet.moves()
    await play.faults.run({kill_controller: 2, pause_controller: 1}, 3.0, play.seconds * 0.7 - play.now)
    play.faults.mend()
    await play.settled(15.0, "after controllers of two rulesets came and went")
    after = fleet.moves()
    play.wrong += [
        f"12.9: {slot} was moved {count - before.get(slot, 0)} times, and no node had died"
        for slot, count in after.items()
        if count > before.get(slot, 0)
    ]
