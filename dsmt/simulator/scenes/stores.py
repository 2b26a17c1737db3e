"""Brokers whose disks are lost, old, or cut short: nothing stops, nothing resurrects, and no reader is told half of it."""

from __future__ import annotations

import asyncio
from typing import Final

from dsmt.controllers.loop.offering import BEHIND
from dsmt.event.hlc import BOUND_MS
from dsmt.simulator.invariants import moved, stopped
from dsmt.simulator.kinds import SMALL, WORDS, hold_brake, kill_broker, kill_controller, restart
from dsmt.simulator.play import Play
from dsmt.view.liveness import RETURN_MS

DOWN_S: Final = (0.1, 8.0)


async def empty(play: Play) -> None:
    """The broker loses its disk with all that is on it (12.4); in some runs its next clock is behind."""
    await _blank(play, kept_birth=False)


async def blank(play: Play) -> None:
    """The broker loses its store alone; its directory, with the realm's birth record, is there (12.4).

    In some runs it then loses it once more, in the moment in which a node dies: nobody but slot facts tells of that (R4).
    """
    await _blank(play, kept_birth=True)
    if play.stream.chance(0.3):
        node, broker = play.some(1.0)[0], play.fleet.broker
        play.faults.note(f"{node.name} loses its power, and the broker its store")
        node.host.power_off()
        broker.kept.stop()
        broker.new_store(kept_birth=True)
        broker.kept.start()
        await play.settled(RETURN_MS / 1000 + 30.0, "after a node died with the only store")


async def _blank(play: Play, *, kept_birth: bool) -> None:
    fleet, broker = play.fleet, play.fleet.broker
    await _say_something(play)
    small = play.world.background(play.faults.run(SMALL, 3.0, play.seconds * 0.75 - play.now), "small faults")
    before, orders = fleet.named(), [len(node.host.orders) for node in fleet.nodes.values()]
    play.faults.note(f"the broker's {'store' if kept_birth else 'disk'} is lost")
    broker.kept.stop()
    broker.new_store(kept_birth=kept_birth)
    await asyncio.sleep(play.between(*DOWN_S))
    if not kept_birth and play.stream.chance(0.5):
        behind_s = play.between(12.0, 30.0)
        play.faults.note(f"the broker's next clock is {behind_s:.0f} s behind")
        broker.host.clock.offset_s = -behind_s
    broker.kept.start()
    await play.until(play.seconds * 0.75 + 0.5)
    await small
    await play.settled(play.seconds - play.now, "after the broker's disk was lost")
    if broker.host.clock.offset_s <= -BOUND_MS / 1000:  # then controllers are right to complain of it
        fleet.complaints[:] = [one for one in fleet.complaints if BEHIND not in one]
    given = [order for node, known in zip(fleet.nodes.values(), orders, strict=True) for order in node.host.orders[known:]]
    play.wrong += stopped(given)
    play.wrong += moved(before, fleet.named(), before, "12.4, after the broker's disk was lost")


async def _say_something(play: Play) -> None:
    """Words that last: slots are held, a node is excluded, a service is removed and has ended."""
    fleet, operator = play.fleet, play.fleet.operator
    for slot in play.stream.shuffled(sorted(fleet.named()))[:2]:
        operator.hold(slot)
    operator.use(play.stream.choice(sorted(fleet.nodes)), "excluded")
    gone = play.stream.choice(sorted(fleet.specs))
    fleet.remove(gone)
    operator.await_end(gone)
    play.faults.note(f"{gone} is removed")
    await play.settled(20.0, "after an operator's words")
    await asyncio.sleep(play.between(0.5, 4.0))


async def old(play: Play) -> None:
    """The broker finds an old copy of its store (12.5): nothing of what was ended since then comes back.

    In some runs the copy is of a store that was closed in order: it has its id.
    """
    fleet, broker = play.fleet, play.fleet.broker
    for slot in play.stream.shuffled(sorted(fleet.named()))[:2]:
        fleet.operator.hold(slot)
    await play.settled(20.0, "before the copy")
    copy = broker.copied(closed=play.stream.chance(0.5))
    play.faults.note("the store is copied")
    words = {kind: weight for kind, weight in WORDS.items() if kind not in (hold_brake, restart)}
    await play.faults.run({**SMALL, **words}, 1.5, play.seconds * 0.5 - play.now)
    play.faults.mend()
    await play.settled(40.0, "before the old copy came back")  # rollouts of seven slots, each said when the last had ended
    play.faults.note("the broker's machine comes back with the old copy")
    broker.cut_power(copy)
    await asyncio.sleep(play.between(*DOWN_S))
    broker.boot()
    await play.until(play.now + 8)
    await play.settled(20.0, "12.5, after an old copy of the store came back")


async def power(play: Play) -> None:
    """The broker's machine loses its power, and the store what was not synced; rows are numbered again from there."""
    fleet, broker = play.fleet, play.fleet.broker
    for _ in range(2):
        await play.faults.run(SMALL, 1.0, play.between(0.5, 4.0))
        copy, lost_s = broker.copied(), play.between(0.05, 3.0)
        for kind in play.stream.shuffled(list(WORDS))[:3]:
            if kind not in (hold_brake, restart):
                play.faults.inflict(kind)
        await asyncio.sleep(lost_s)
        rows = broker.store.head - copy.head
        play.faults.note(f"the broker's machine loses its power and its last {rows} rows, {lost_s:.1f} s")
        broker.cut_power(copy)
        play.world.later(play.between(0.5, 5.0), broker.boot)
        if play.stream.chance(0.5):
            play.world.later(play.between(0.5, 3.0), lambda: play.faults.inflict(kill_controller))
        await asyncio.sleep(6)
    await play.faults.run(SMALL, 1.0, 10)
    await fleet.say_again()
    await play.settled(25.0, "after the broker's machine lost its power")
    await play.faults.run({kill_broker: 1}, 1.0, 3.0)
    await play.settled(15.0, "at the end")
