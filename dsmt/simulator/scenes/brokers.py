"""Several brokers: some die, or cannot reach each other, and all that was acknowledged is with those that are left."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from dsmt.bus.broker.broker import Broker
from dsmt.ports.bus import Level
from dsmt.simulator.engine.host import Host
from dsmt.simulator.fleet import SimFleet
from dsmt.simulator.invariants import moved, verdicts
from dsmt.simulator.kinds import SMALL, kill_controller, kill_node, scale, update
from dsmt.simulator.members import SimBroker, SimNode
from dsmt.simulator.play import Play

SAME_S: Final = 5.0
"""How long after a partition all brokers may differ."""
OFFERED_S: Final = 15.0
"""Until then all who were attached to a lost broker have offered what they hold."""
NOTICED_S: Final = 10.0
"""Until then a broker that was cut off and died is known to be lost, and what it had given to one other is with all."""
CUT_S: Final = 60.0
"""How long a site's uplink is down."""
PARTED_S: Final = 15.0
"""How long after that nodes on its other side may still look alive: what is placed there by then waits for them (F1)."""
REPAIRED_S: Final = 10.0
"""How long what a node of a site ran may take to run on another one of it."""
FOUND_S: Final = 8.0
"""Until then who was attached to a broker that it does not reach any more is attached to another one, and called alive."""
LATE_S: Final = 1.0
"""What was published so long ago is with all."""


async def survivors(play: Play) -> None:
    """One or two of three brokers die at any instant and never come back; with one of them a node's machine (12.7).

    Some are cut off from other brokers, and not from their clients, in the moments before.
    """
    fleet = play.fleet
    victims = play.stream.shuffled(fleet.brokers)[: 1 + play.stream.below(2)]
    fleet.broker = next(one for one in fleet.brokers if one not in victims)
    dead: list[SimNode] = []
    again_s = 0.0
    for victim in victims:
        await asyncio.sleep(again_s + play.between(0.0, 6.0))
        if play.stream.chance(0.5):
            again_s = NOTICED_S
            others = play.stream.shuffled([other for other in fleet.brokers if other is not victim])
            cut = others[: 1 + play.stream.below(len(others))]
            victim.host.severed.update(other.host.name for other in cut)
            play.faults.note(f"{victim.name} is cut off from {', '.join(other.name for other in cut)}")
        for kind in play.stream.shuffled([scale, update, scale]):
            play.faults.inflict(kind)
            await asyncio.sleep(play.between(0.0, 0.7))
        name = _at(fleet, victim)
        if name is not None and play.stream.chance(0.7):
            play.faults.note(f"{name} dies with it")
            fleet.nodes[name].host.power_off()
            dead.append(fleet.nodes[name])
        play.faults.note(f"{victim.name} dies")
        if play.stream.chance(0.5):
            victim.host.power_off()
        victim.kept.stop()
    play.faults.inflict(kill_node)
    await asyncio.sleep(OFFERED_S)
    await fleet.say_again()  # what only one of the dead had acknowledged is lost with its disk
    await play.settled(45.0, "after brokers and a node died")
    for node in dead:
        node.boot()
    await play.faults.run(SMALL, 2.0, 6.0)
    await play.settled(60.0, "at the end")
    left = [one for one in fleet.brokers if one not in victims]
    play.wrong += safe(play, left) + same(fleet, left)


def _at(fleet: SimFleet, broker: SimBroker) -> str | None:
    """A node that runs something, and all of whose processes are attached to a broker."""
    sessions, owners = fleet.view().sessions, {node for node in fleet.named().values() if node is not None}
    for node in sorted(owners):
        known = [sessions.of.get(f"{role}/{node}") for role in ("node", "monitor")]
        if all(one is not None and one.newest is not None and one.newest[0] == broker.name for one in known):
            return node
    return None


async def parted(play: Play) -> None:
    """Three brokers cannot reach each other for a while, each with nodes and a controller (12.3, 12.7); two join first."""
    fleet = play.fleet
    ways = play.stream.choice(((0, 1, 2), (0, 1, 1), (0, 0, 1), (0, 1, 0)))
    hosts = [[host for n, host in enumerate(fleet.members) if ways[n % 3] == side] for side in range(max(ways) + 1)]
    play.faults.note(f"a partition: {ways}")
    play.world.part(hosts)
    seconds = play.between(5.0, 60.0)
    play.world.later(play.between(0.0, seconds), lambda: play.faults.inflict(scale))
    play.world.later(play.between(0.0, seconds), lambda: play.faults.inflict(kill_controller))
    await asyncio.sleep(seconds)
    if len(hosts) > 2:
        await _join_two(play, hosts)
    play.world.join()
    await asyncio.sleep(SAME_S)
    play.wrong += same(fleet, fleet.brokers)
    await play.settled(45.0, "after a partition")
    await asyncio.sleep(LATE_S)
    play.wrong += safe(play, fleet.brokers)


async def line(play: Play) -> None:
    """Two of three brokers, and all at their sites, do not reach each other for a while; the third reaches all (F1).

    In some runs that one is alone at its site, and nobody there can say that a node answers.
    """
    fleet, sites_in_all = play.fleet, play.stream.choice((2, 3))
    members: list[Host] = [one.host for one in fleet.controllers.values()] + [one.host for one in fleet.nodes.values()]
    sites = [[fleet.brokers[at].host, *members[at::sites_in_all]] for at in range(2)]
    one_side, other_side = play.stream.shuffled(sites)
    play.faults.note(
        f"{', '.join(host.name for host in one_side)} do not reach {', '.join(host.name for host in other_side)}"
    )
    for host in one_side:
        host.severed.update(other.name for other in other_side)
    await asyncio.sleep(FOUND_S)
    before, since_ms = fleet.named(), play.world.now_ms
    await asyncio.sleep(play.between(15.0, 30.0))
    play.wrong += [f"F1: all nodes live, and {one}" for one in verdicts(fleet, since_ms)]
    play.wrong += moved(before, fleet.named(), before, "F1, though all nodes live")
    for what in (scale, update, kill_node):
        play.faults.inflict(what)
        await asyncio.sleep(play.between(0.0, 4.0))
    await play.settled(45.0, "while two brokers do not reach each other")
    for host in one_side:
        host.severed.clear()
    play.world.join()
    await asyncio.sleep(SAME_S)
    play.wrong += same(fleet, fleet.brokers)
    await play.settled(30.0, "when all reach each other again")
    play.wrong += safe(play, fleet.brokers)


async def _join_two(play: Play, sides: list[list[Host]]) -> None:
    """Of three sides two reach each other again first, while much goes on. The operator stays on the first."""
    apart = play.stream.choice((0, 1, 2))
    joined = [host for side, hosts in enumerate(sides) if side != apart for host in hosts]
    play.faults.note(f"all but {apart} join")
    play.world.part([sides[0], joined] if apart == 0 else [joined, sides[apart]])
    for host in joined:
        play.world.heal(host)
    seconds = play.between(1.0, 30.0)
    for what in (scale, kill_controller, kill_node):
        play.world.later(play.between(0.0, seconds), partial(play.faults.inflict, what))
    await asyncio.sleep(seconds)


async def site(play: Play) -> None:
    """A site's uplink is down for a minute, or its upstream dies; meanwhile a node of the site dies (E5)."""
    fleet, leaf = play.fleet, play.fleet.leaf
    if leaf is None:
        raise RuntimeError("there is no site")
    await asyncio.sleep(play.between(1.0, 3.0))
    play.wrong += _at_home(fleet, leaf)
    how = play.stream.choice(("the uplink is cut", "the uplink is cut, and the upstream dies", "the upstream dies"))
    play.faults.note(how)
    above = _upstream(fleet, leaf)
    fleet.broker = next(one for one in fleet.brokers if one not in (above, leaf))
    if "cut" in how:
        others = [host for host in play.world.hosts.values() if host not in (*fleet.site, leaf.host)]
        play.world.part([others, [leaf.host, *fleet.site]])
    if "dies" in how:
        above.kept.stop()
    began = play.now
    await asyncio.sleep(play.between(PARTED_S, CUT_S - 2 * REPAIRED_S))
    play.faults.inflict(scale)
    inside = [one for one in fleet.nodes.values() if one.host in fleet.site]
    play.wrong += await _repaired(play, inside, inside if "cut" in how else list(fleet.nodes.values()))
    await play.until(began + CUT_S)
    play.world.join()
    left = [one for one in fleet.brokers if one.kept.wanted]
    await asyncio.sleep(SAME_S)
    play.wrong += same(fleet, left)
    await play.settled(45.0, "after the uplink is there again")
    await asyncio.sleep(LATE_S)
    play.wrong += safe(play, left) + _at_home(fleet, leaf)


def _at_home(fleet: SimFleet, leaf: SimBroker) -> list[str]:
    """E5: who belongs to the site is attached to its leaf, and nobody else is."""
    home = {host.name for host in fleet.site}
    wrong = []
    for source, known in sorted(fleet.view().sessions.of.items()):
        role, name, *_ = source.split("/")
        at, held = known.newest or ("", None)
        if held is not None and held.record.state == "open" and role != "broker" and (at == leaf.name) != (name in home):
            wrong.append(f"E5: {source} is attached to {at}")
    return wrong


def _upstream(fleet: SimFleet, leaf: SimBroker) -> SimBroker:
    found = fleet.view().sessions.upstream(leaf.name, ())
    return next(one for one in fleet.brokers if one.name == found)


async def _repaired(play: Play, nodes: list[SimNode], by: list[SimNode]) -> list[str]:
    """Kill one of some nodes: what it ran runs soon on another one of those that are in reach."""
    running = play.fleet.running()
    owners = {node.name: [slot for slot, on in running.items() if on == [node.name]] for node in nodes}
    victim = max(nodes, key=lambda node: len(owners[node.name]))
    play.faults.note(f"{victim.name} of the site dies, with {len(owners[victim.name])} instances")
    play.faults.kill_node(victim)
    began, here = play.now, {node.name for node in by if node is not victim}
    waits: list[str] = []
    while play.now < began + REPAIRED_S:
        await asyncio.sleep(0.25)
        running = play.fleet.running()
        waits = [
            slot for slot in owners[victim.name] if slot in play.fleet.wanted() and here.isdisjoint(running.get(slot, ()))
        ]
        if not waits:
            play.faults.note(f"repaired after {play.now - began:.1f} s")
            break
    play.faults.later(CUT_S, victim.start)
    return [f"E5: {slot} of {victim.name} runs nowhere in reach after {REPAIRED_S:.0f} s" for slot in waits]


async def returned(play: Play) -> None:
    """One of three brokers is away for long, or comes back with a new or an old disk, and is whole by itself (12.5).

    Before that its disk may be lost in the moment in which a node dies that is attached to it.
    """
    fleet = play.fleet
    away = play.stream.choice(fleet.brokers[1:])
    if play.stream.chance(0.5):
        await _lose_machine(play, away)
    old = away.copied()
    await asyncio.sleep(play.between(1.0, 4.0))
    away.kept.stop()
    for kind in (scale, update, scale):
        play.faults.inflict(kind)
        await asyncio.sleep(play.between(0.5, 4.0))
    await play.settled(30.0, "while a broker is away")
    how = play.stream.choice(("its disk", "a new disk", "an old disk"))
    play.faults.note(f"{away.name} comes back with {how}")
    if how == "a new disk":
        away.new_store(kept_birth=False)
    elif how == "an old disk":
        away.old_store(old)
    away.kept.start()
    await asyncio.sleep(SAME_S)
    play.wrong += same(fleet, fleet.brokers)
    if away.broker is None or not away.broker.whole:
        play.wrong.append(f"A4: {away.name} is not whole after {SAME_S:.0f} s")
    await play.settled(30.0, "after it came back")
    await asyncio.sleep(LATE_S)
    play.wrong += safe(play, fleet.brokers)


async def _lose_machine(play: Play, broker: SimBroker) -> None:
    """A machine dies that has a broker and a node; the broker is begun anew at once with nothing, the node later."""
    name = _at(play.fleet, broker)
    if name is None:
        return
    before = broker.broker
    play.faults.note(f"{name} dies with {broker.name}, which has lost its disk")
    play.fleet.nodes[name].host.power_off()
    broker.kept.stop()
    broker.new_store(kept_birth=False)
    await asyncio.sleep(play.between(0.2, 2.0))
    broker.kept.start()
    if play.stream.chance(0.5):
        await _filled(broker, before)
        play.faults.note(f"{broker.name} is killed as soon as it is filled")
        broker.kept.kill()
    await play.settled(30.0, "after a node died with the disk of its broker")
    play.fleet.nodes[name].boot()


async def _filled(broker: SimBroker, before: Broker | None) -> None:
    """Wait until the next process of a broker is whole, and has had no time to say anything."""
    for _ in range(2_000):
        if broker.broker not in (before, None) and broker.broker.whole:
            return
        await asyncio.sleep(0.01)


def same(fleet: SimFleet, brokers: list[SimBroker]) -> list[str]:
    """12.3: all hold the same events, but what was published in the last moment."""
    latest_ms = _latest_ms(brokers)
    held = {broker.name: fleet.held(broker.store) for broker in brokers}
    every = {signed.id for rows in held.values() for row, signed in rows if row.arrived_ms <= latest_ms}
    wrong = []
    for name, rows in held.items():
        missing = sorted(str(one) for one in every.difference(signed.id for _, signed in rows))
        if missing:
            wrong.append(f"E1: {name} lacks {len(missing)} events that others have: {', '.join(missing[:3])}")
    return wrong


def _latest_ms(brokers: list[SimBroker]) -> int:
    """Until when all of them must have what one of them has (realm ms)."""
    return min(broker.now_ms for broker in brokers) - int(LATE_S * 1000)


def safe(play: Play, survivors: list[SimBroker]) -> list[str]:
    """12.7: what was acknowledged as safe is with every broker that is left, but what is on its way in the last moment."""
    said, latest_ms = play.world.said or (), _latest_ms(survivors)
    acked = [(one.id, one.acked) for one in said if one.id is not None and one.acked is not None]
    promised = [identity for identity, ack in acked if ack.level is Level.SAFE and ack.cursor.time_ms <= latest_ms]
    held = {broker.name: {signed.id for _, signed in play.fleet.rows(broker.store)} for broker in survivors}
    return [
        f"12.7: {identity} was safe, and {name} does not have it"
        for identity in promised
        for name, ids in held.items()
        if identity not in ids
    ][:3]
