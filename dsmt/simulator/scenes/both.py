"""Two operators type at the same time, one on each side of a partition: when the sides meet, what stands is done (E2).

Rule 1: each says what anybody may say, mostly of the same few services, slots and nodes.
Rule 2: when the sides have met all brokers and controllers hold the same, and the fleet becomes what the facts say that
    stand, whoever has said them: no instance runs nowhere, or twice, or on a node that is drained.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, cast

from dsmt.operations.write.node_control import Mode
from dsmt.simulator.fleet import SimFleet
from dsmt.simulator.operator import SimOperator
from dsmt.simulator.play import Play
from dsmt.simulator.scenes.stolen import FOUND_S, SAME_S, never_quiet, of_one_mind
from dsmt.simulator.will import slots_of
from dsmt.spec.plain import to_plain

WORDS: Final = 10
"""How many words each says at most."""
FIRST: Final = 40
"""The first of the revisions that each applies, which are told by them."""
ANSWERED_S: Final = 20.0
"""How long each may take to have said all."""
SETTLED_S: Final = 90.0
"""A slot whose fact follows a word that is overruled waits for that (`UNKNOWN_MS`) before it gets what stands."""
Acts = list[tuple[str, Callable[[], None]]]


async def both(play: Play) -> None:
    """Each side is told something, of the same services and nodes; then they meet."""
    fleet, other = play.fleet, _parted(play)
    await asyncio.sleep(FOUND_S)
    seconds = play.between(6.0, 40.0)
    for number, operator in enumerate((fleet.operator, other)):
        for word in range(1 + play.stream.below(WORDS)):
            play.world.later(play.between(0.0, seconds), _word(play, operator, FIRST * (1 + number) + word))
    await asyncio.sleep(seconds)
    play.world.join()
    play.faults.note("the sides meet")
    await asyncio.sleep(SAME_S)
    play.wrong += of_one_mind(fleet)
    await _said(play, other)
    await asyncio.sleep(1.0)  # until it is with all
    heed(fleet)
    play.faults.note(f"there stand {fleet.will.modes}, stopped {sorted(fleet.will.held)}")
    await play.settled(SETTLED_S, "after the sides met")
    play.wrong += await never_quiet(play) + of_one_mind(fleet)


def _parted(play: Play) -> SimOperator:
    """Cut the realm in two; who types on the side of the second broker."""
    fleet, other = play.fleet, SimOperator(play.world, "bob", "10.0.2.2")
    play.world.part([fleet.members[0::2], [*fleet.members[1::2], other.host]])
    other.kept.start()
    return other


def _word(play: Play, operator: SimOperator, revision: int) -> Callable[[], None]:
    """Something that an operator says."""
    text, say = play.stream.choice(_of_a_service(play, operator, revision) + _of_a_node(play, operator))

    def done() -> None:
        play.faults.note(f"{operator.name}: {text}")
        say()

    return done


def _of_a_service(play: Play, operator: SimOperator, revision: int) -> Acts:
    fleet, stream = play.fleet, play.stream
    service, node, instances = stream.choice(list(fleet.specs)), stream.choice(_few(fleet)), 1 + stream.below(5)
    slot, spec = f"{service}/app/{stream.below(3)}", fleet.spec_of(service, instances=instances, revision=revision)
    was = fleet.specs[service]
    scaled = {**was, "components": {"app": {**was["components"]["app"], "instances": instances}}}

    def anew() -> None:
        operator.remove(service)
        operator.apply(spec)

    return [
        (f"apply {service}, revision {revision}, {instances} instances", partial(operator.apply, spec)),
        (f"scale {service} to {instances}", partial(operator.apply, scaled)),
        (f"make {service} anew, {instances} instances", anew),
        (f"stop {slot}", partial(operator.hold, slot)),
        (f"stop {slot}", partial(operator.hold, slot)),
        (f"start {slot}", partial(operator.unhold, slot)),
        (f"move {slot} to {node}", partial(operator.move, slot, node)),
        (f"move {slot}", partial(operator.move, slot, None)),
        (f"restart {slot}", partial(operator.restart, slot)),
    ]


def _of_a_node(play: Play, operator: SimOperator) -> Acts:
    node = play.stream.choice(_few(play.fleet))
    modes: tuple[Mode, ...] = ("draining", "draining", "excluded", "active")
    return [(f"{node} is {mode}", partial(operator.use, node, mode)) for mode in modes]


def _few(fleet: SimFleet) -> list[str]:
    """The nodes that are spoken of: two more take instances, whatever is said of these."""
    return list(fleet.nodes)[:-2]


async def _said(play: Play, other: SimOperator) -> None:
    """Wait until both have said all."""
    until = play.now + ANSWERED_S
    while not (play.fleet.operator.idle and other.idle):
        if play.now > until:
            play.wrong += [f"E2: {one.name} could not say all: {one.refused}" for one in (play.fleet.operator, other)]
            return
        await asyncio.sleep(0.25)


def heed(fleet: SimFleet) -> None:
    """Take what stands for what is to be."""
    view, will = fleet.view(), fleet.will
    will.specs = {name: to_plain(entry.parsed) for name, entry in view.services.items() if entry.parsed is not None}
    will.either.clear()
    will.held.clear()
    for name, spec in will.specs.items():
        for slot in slots_of(name, spec):
            _, component, index = slot.split("/")
            entry = view.services[name].slots.get((component, int(index)))
            will.held.update([slot] if entry is not None and entry.hold is not None else [])
    will.modes = {name: cast("Mode", entry.mode) for name, entry in view.nodes.items()}
    will.excluded_s = {name: fleet.world.loop.time() for name, mode in will.modes.items() if mode == "excluded"}
