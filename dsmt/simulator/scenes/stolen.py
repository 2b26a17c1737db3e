"""A stolen operator's key goes on where nobody hears of its end; then the sides meet, and nothing of that counts (J3).

Rule 1: the thief and the owner are on two sides of a partition. The owner signs anew what stands, and ends the key.
Rule 2: when they have met all brokers and controllers hold the same, and of what is void nothing wins where anything else
    is known. What was started by a void word runs until the owner has said again what is to run; but for what a slot keeps
    where that has failed in another one, which is kept as any earlier revision is (A18).
    In every seventh seed no controller is on the thief's side: then nobody says again what controllers might have written.
Rule 3: the broker that has taken the thief's words may have no room to displace them, and end before it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from dsmt.controllers.rollout import Governing
from dsmt.event.envelope import SignedEvent
from dsmt.event.fold import Fold
from dsmt.event.registry import is_fact
from dsmt.event.slots import SlotKey
from dsmt.simulator.fleet import SimFleet
from dsmt.simulator.kinds import scale, update
from dsmt.simulator.operator import SimOperator
from dsmt.simulator.play import Play
from dsmt.view import Fleet

FOUND_S: Final = 4.0
"""Until then who does not reach a broker any more is attached to the other one."""
SAME_S: Final = 5.0
"""How long after the sides met all may differ."""
LATE_S: Final = 1.0
"""What was said so long ago is with all."""
TOLD_S: Final = 20.0
"""How long the owner may take to end the key."""
LOOK_S: Final = 0.25
QUIET_S: Final = 8.0
"""Where no slot's generation rises for so long, nobody contends for any."""
CALM_S: Final = 80.0
"""Until then all is quiet: what nobody wants any more was given the time to end that anything is (`UNKNOWN_MS`), and a slot
whose fact follows a void word is decided about, for who decides waited as long for that word."""
VOID: Final = 65
"""What the thief applies has this number, or a greater one."""
ALONE, ALONE_AT = 7, 5
"""In which seeds the thief is on a side without any controller."""
EVIL: Final = "evil"
FEW: Final = "few"
Facts = dict[str, SignedEvent]


async def stolen(play: Play) -> None:
    """A thief types on one side of a partition; on the other one the owner rotates the key, ends it and goes on."""
    fleet, owner = play.fleet, play.fleet.operator
    slot, away = next(iter(fleet.wanted())), play.stream.choice(list(fleet.nodes))
    owner.hold(slot)
    owner.use(away, "excluded")
    owner.define(FEW, "n1")
    await play.settled(20.0, "before the key is stolen")
    thief = _parted(play)
    await asyncio.sleep(FOUND_S)
    seconds = play.between(6.0, 18.0)
    for act in play.stream.shuffled(_acts(play, thief, slot, away))[: 3 + play.stream.below(4)]:
        play.world.later(play.between(0.0, seconds), act)
    play.world.later(play.between(0.0, seconds), owner.rotate)
    for kind in (scale, update):
        if play.stream.chance(0.5):
            play.world.later(play.between(0.0, seconds), partial(play.faults.inflict, kind))
    await asyncio.sleep(seconds)
    await _acknowledged(play)
    await _meet(play, thief)
    await asyncio.sleep(SAME_S)
    play.wrong += of_one_mind(fleet) + displaced(fleet)
    await fleet.say_again()
    await play.settled(90.0, "after the owner has said again what is to be")
    owner.unhold(slot)  # no further slot gets what stands while that is stopped by hand in one (A18)
    await play.settled(CALM_S, "when nothing is held any more")
    play.wrong += await _void_runs(play) + await never_quiet(play) + of_one_mind(fleet) + displaced(fleet)


def _parted(play: Play) -> SimOperator:
    """Cut the realm in two. On the side of the second broker is somebody with the owner's key, or with one below it."""
    fleet = play.fleet
    brokers, nodes = ([one.host for one in some] for some in (fleet.brokers, fleet.nodes.values()))
    controllers = [one.host for one in fleet.controllers.values()]
    thief = SimOperator(play.world, "mallory", "10.0.2.2")
    if play.world.seed % ALONE == ALONE_AT:
        play.world.part([[*brokers[0::2], *controllers, *nodes[0::2]], [*brokers[1::2], *nodes[1::2], thief.host]])
    else:
        play.world.part([fleet.members[0::2], [*fleet.members[1::2], thief.host]])
    thief.identity = stolen_key = fleet.operator.identity
    if play.stream.chance(0.5):
        thief.identity = play.world.identity(f"{stolen_key.name}.x7", parent=stolen_key)
    thief.kept.start()
    return thief


def _acts(play: Play, thief: SimOperator, slot: str, away: str) -> list[Callable[[], None]]:
    """What the thief may do."""
    fleet = play.fleet
    other = play.stream.choice([name for name in fleet.nodes if name != away])
    service = slot.split("/", 1)[0]
    last = [name for name in fleet.specs if name != service][-1]

    def act(text: str, say: Callable[[], None]) -> Callable[[], None]:
        def done() -> None:
            play.faults.note(f"the thief: {text}")
            say()

        return done

    def apply(name: str, instances: int, revision: int) -> Callable[[], None]:
        spec = fleet.spec_of(name, instances=instances, revision=revision)
        return act(f"apply {name}, revision {revision}, {instances} instances", partial(thief.apply, spec))

    return [
        apply(EVIL, 2, VOID),
        apply(service, 3, VOID + 1),
        apply(service, 5, VOID + 2),
        apply(last, 2, VOID + 3),
        act(f"remove {last}", partial(thief.remove, last)),
        act(f"start {slot}", partial(thief.unhold, slot)),
        act(f"stop {last}/app/0", partial(thief.hold, f"{last}/app/0")),
        act(f"use {away}", partial(thief.use, away, "active")),
        act(f"drain {other}", partial(thief.use, other, "draining")),
        act(f"remove the node set {FEW}", partial(thief.undefine, FEW)),
        act("hold the brake", partial(thief.brake, held=True)),
    ]


async def _acknowledged(play: Play) -> None:
    """Wait until the owner was told that the key has ended."""
    owner = play.fleet.operator
    for _ in range(int(TOLD_S / LOOK_S)):  # a process tells the world nothing
        if owner.idle:
            return
        await asyncio.sleep(LOOK_S)
    play.wrong.append(f"J3: the key was not ended: {owner.refused}")


async def _meet(play: Play, thief: SimOperator) -> None:
    """The sides meet, and the thief goes on."""
    broker = play.fleet.brokers[1]
    has_room = play.stream.chance(0.7)
    broker.store.elections.has_room = has_room
    play.world.join()
    play.faults.note("the sides meet")
    excluded_s = play.fleet.will.excluded_s
    excluded_s.update(dict.fromkeys(excluded_s, play.now))  # until now the thief may have had it in use
    thief.apply(play.fleet.spec_of(EVIL, instances=3, revision=VOID + 4))
    if not has_room:
        await asyncio.sleep(play.between(0.5, 3.0))
        play.faults.note(f"{broker.name} had no room to displace anything, and is killed")
        broker.store.elections.has_room = True
        broker.kept.kill()


# --- what must hold --------------------------------------------------------------------------------------------------


def of_one_mind(fleet: SimFleet) -> list[str]:
    """12.3: all brokers hold the same believed facts, and controllers hold no others; but for those of the last moment."""
    first, *others = fleet.brokers
    held = _by_topic(fleet.winners(first.store))
    latest_ms = min(broker.now_ms for broker in fleet.brokers) - int(LATE_S * 1000)
    wrong = []
    for other in others:
        facts = _by_topic(fleet.winners(other.store))
        told = _unlike(held, facts, held.keys() | facts.keys(), latest_ms)
        wrong += [f"J3: on {said} {first.name} and {other.name} differ" for said in told]
    for name, controller in fleet.controllers.items():
        if controller.runner is not None:
            facts = _by_topic(controller.runner.view.winners())
            told = _unlike(held, facts, facts.keys(), latest_ms)
            wrong += [f"J3: on {said} {first.name} and controller {name} differ" for said in told]
    return wrong


def _unlike(some: Facts, others: Facts, topics: Iterable[str], latest_ms: int) -> list[str]:
    """The topics on which these are not the same, and what is there."""
    wrong = []
    for topic in sorted(topics):
        said = [facts[topic] for facts in (some, others) if topic in facts]
        is_late = any(signed.event.time_ms > latest_ms or signed.event.is_dead(latest_ms) for signed in said)
        if (len(said) == 1 or said[0].id != said[1].id) and not is_late:
            wrong.append(f"{topic} ({', '.join(str(signed.id) for signed in said)})")
    return wrong


def displaced(fleet: SimFleet) -> list[str]:
    """J3: in no store a void fact wins where anything else is known that is believed, and lives."""
    wrong = []
    for broker in fleet.brokers:
        fold, now_ms = Fold(), broker.now_ms
        stands = _by_topic(fleet.winners(broker.store))
        for _, signed in fleet.rows(broker.store):
            if is_fact(signed.event) and not fleet.disowns(broker.store, signed):
                fold.take(signed)
        for signed in fold:
            held = stands.get(signed.event.topic)
            if not signed.event.is_dead(now_ms) and (held is None or held.id != signed.id):
                wrong.append(f"J3: on {signed.event.topic} {signed.id} does not stand at {broker.name}")
    return wrong


def _by_topic(facts: Iterable[SignedEvent]) -> Facts:
    return {signed.event.topic: signed for signed in facts}


async def _void_runs(play: Play) -> list[str]:
    """The slots that run what the thief has applied, though they were given the time to change."""
    until, void = play.now + CALM_S, ["?"]
    while void and play.now < until:
        await asyncio.sleep(1.0)
        lives = [life for node in play.fleet.nodes.values() for life in node.host.lives if life.ended > play.now]
        begun = [life for life in lives if int(life.revision or 0) >= VOID]
        kept = _kept(play.fleet) if begun else ()
        void = sorted(f"{life.slot} in revision {life.revision}" for life in begun if life.slot not in kept)
    return [f"J3: {one} runs, which nobody has applied who is believed" for one in void]


def _kept(fleet: SimFleet) -> set[str]:
    """The slots that keep what they have, for what stands has failed in another one (A18)."""
    governing = Governing(Fleet(fleet.view(), fleet.world.now_ms, fleet.broker.name))
    governs = {slot: governing.of(SlotKey.named(slot)) for slot in fleet.wanted()}
    return {slot for slot, one in governs.items() if one is not None and one.kept is not None}


async def never_quiet(play: Play) -> list[str]:
    """The slots whose generations go on rising, though all is as it is to be."""
    until, risen = play.now + CALM_S, ["?"]
    while risen and play.now < until:
        before = _generations(play.fleet)
        await asyncio.sleep(QUIET_S)
        after = _generations(play.fleet)
        risen = sorted(topic for topic, version in after.items() if version > before.get(topic, 0))
    return [f"J3: the generation of {topic} goes on rising" for topic in risen]


def _generations(fleet: SimFleet) -> dict[str, int]:
    """By slot topic, the greatest generation that any broker has."""
    found: dict[str, int] = {}
    for broker in fleet.brokers:
        for _, signed in fleet.rows(broker.store):
            if signed.event.type == "dsmt.slot":
                found[signed.event.topic] = max(found.get(signed.event.topic, 0), signed.event.version or 0)
    return found
