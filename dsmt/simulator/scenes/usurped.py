"""A stolen controller's key speaks where nobody hears of its end; then the sides meet, and nothing of that stays (J3).

Rule 1: the thief and the owner are on two sides of a partition. The owner signs anew what stands, and ends the key.
Rule 2: when they have met, all is as the operator wants it, and all brokers and controllers hold the same. What other
    controllers have read of the thief they say again, or decide otherwise. In every second seed none is on its side.
Rule 3: who has heard the thief may end before that, and be started again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec

from dsmt.bus.broker.void import LEFT_MS
from dsmt.errors import DsmtError
from dsmt.event.envelope import TOMBSTONE, SignedEvent, thing_of
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.kinds.slot import Slot
from dsmt.event.records import from_data, to_data
from dsmt.event.slots import SlotKey
from dsmt.operations.connection import Connection
from dsmt.operations.read.realm.facts import retained
from dsmt.operations.write import revoking
from dsmt.operations.write.writing import say
from dsmt.ports.bus import Bus, Draft
from dsmt.programs.bus import running
from dsmt.simulator.engine.host import HostProcess
from dsmt.simulator.kinds import scale, update
from dsmt.simulator.members import KeptMember, SimController
from dsmt.simulator.play import Play
from dsmt.simulator.scenes.stolen import CALM_S, FOUND_S, displaced, never_quiet, of_one_mind

ALONE: Final = 2
"""In each so-manieth seed the thief is on a side without any other controller."""
AGAIN_S: Final = 0.5
TOLD_S: Final = 20.0
OVER_S: Final = LEFT_MS / 1000 + 8.0
"""How long after the sides met what nobody has said again may stand."""
KILLED, KILL_S = 0.15, 5.0
"""How many of them, and until when."""
Facts = Mapping[str, SignedEvent]


class Thief:
    """Somebody with a controller's key, at a machine of their own."""

    def __init__(self, play: Play, robbed: SimController) -> None:
        self._play, self._identity = play, robbed.identity
        self.host = play.world.host("mallory", "10.0.2.2")
        self._kept = KeptMember(self.host, "thief", self._main)
        self._wishes: asyncio.Queue[tuple[str, Callable[[Facts], list[Draft]]]] = asyncio.Queue()

    def start(self) -> None:
        """Attach."""
        self._kept.start()

    def says(self, text: str, drafts: Callable[[Facts], list[Draft]]) -> None:
        """Say something, as soon as all before it is said."""
        process = self._kept.process
        if process is not None:
            self._play.faults.note(f"the thief: {text}")
            self._play.world.loop.call_in(process.sim, self._wishes.put_nowait, (text, drafts))

    async def _main(self, process: HostProcess) -> None:
        bus = self._play.world.client(process, self._identity)
        async with running(bus):
            while True:
                _, drafts = await self._wishes.get()
                with suppress(DsmtError):
                    found = await retained(bus, "/", "what stands")
                    await say(bus, drafts({one.event.topic: one for one in found}))


async def usurped(play: Play) -> None:
    """A thief speaks as a controller on one side of a partition; on the other one its key ends."""
    fleet = play.fleet
    await play.settled(20.0, "before the key is stolen")
    robbed = list(fleet.controllers.values())[-1]
    robbed.kept.stop()
    thief = Thief(play, robbed)
    _part(play, thief)
    thief.start()
    await asyncio.sleep(FOUND_S)
    seconds = play.between(6.0, 18.0)
    for text, drafts in play.stream.shuffled(_acts(play))[: 3 + play.stream.below(4)]:
        play.world.later(play.between(0.0, seconds), thief.says, text, drafts)
    ended = asyncio.Event()
    play.world.later(play.between(0.0, seconds), _end, play, robbed, ended)
    for kind in (scale, update):
        if play.stream.chance(0.5):
            play.world.later(play.between(0.0, seconds), partial(play.faults.inflict, kind))
    await asyncio.sleep(seconds)
    async with asyncio.timeout(TOLD_S):
        await ended.wait()
    play.world.join()
    play.faults.note("the sides meet")
    for text, drafts in play.stream.shuffled(_acts(play))[:1]:
        thief.says(text, drafts)
    robbed.identity = play.world.identity(robbed.identity.name)
    play.world.later(play.between(0.0, 10.0), robbed.kept.start)
    _kill(play)
    await asyncio.sleep(OVER_S)
    play.wrong += of_one_mind(fleet) + displaced(fleet)
    await fleet.say_again()
    await play.settled(CALM_S, "after the owner has said again what is to be")
    play.wrong += await never_quiet(play) + of_one_mind(fleet) + displaced(fleet)


def _kill(play: Play) -> None:
    """While others may yet say it again, who has heard the thief may end: its broker, nodes and controllers."""
    fleet, stream = play.fleet, play.stream
    managers = [node.manager for node in fleet.nodes.values()]
    for kept in (fleet.brokers[1].kept, *managers, *(one.kept for one in fleet.controllers.values())):
        if stream.chance(KILLED):
            play.faults.note(f"{kept.host.name}: {kept.name} is to be killed")
            play.world.later(play.between(0.0, KILL_S), kept.kill)


def _part(play: Play, thief: Thief) -> None:
    """Cut the realm in two; the thief is at the second broker."""
    fleet = play.fleet
    brokers, nodes = ([one.host for one in some] for some in (fleet.brokers, fleet.nodes.values()))
    controllers = [one.host for one in fleet.controllers.values()][:-1]
    there = [] if play.world.seed % ALONE else controllers[1::2]
    here = [one for one in controllers if one not in there]
    play.world.part([[*brokers[0::2], *here, *nodes[0::2]], [*brokers[1::2], *there, *nodes[1::2], thief.host]])


def _acts(play: Play) -> list[tuple[str, Callable[[Facts], list[Draft]]]]:
    """What a controller's key can say."""
    fleet, stream = play.fleet, play.stream
    slots = stream.shuffled(list(fleet.wanted()))
    services = list(fleet.specs)
    node, other = stream.shuffled(list(fleet.nodes))[:2]
    return [
        (f"{slots[0]} is to be gone", partial(_slots, slots[:1], desired="gone")),
        (f"{slots[1]} is to stop", partial(_slots, slots[1:2], desired="stopped")),
        (f"{slots[2]} is to run on {node}", partial(_slots, slots[2:3], node=node)),
        (f"all slots are to run on {other}", partial(_slots, slots, node=other)),
        (f"{slots[3]} has been moved often", partial(_slots, slots[3:4], moves=1000, restart=1 << 40, above=1 << 19)),
        (f"{services[0]} has ended", partial(_buried, services[0])),
        (f"{services[-1]} has ended", partial(_buried, services[-1])),
        (f"{services[0]} has ended, and has slots again", partial(_anew, services[0])),
        (f"{services[0]} has one instance more", partial(_more, services[0])),
    ]


def _slots(names: list[str], facts: Facts, *, above: int = 0, **changes: Any) -> list[Draft]:
    """Other facts of slots."""
    said = []
    for name in names:
        held = facts.get(SlotKey.named(name).topic)
        if held is not None:
            record = msgspec.structs.replace(from_data(Slot, held.event.data), **changes)
            version = (held.event.version or 0) + 1 + above
            draft = Draft(held.event.topic, to_data(record), subject=name, to=held.event.to, replaces=held, version=version)
            said.append(draft)
    return said


def _buried(service: str, facts: Facts) -> list[Draft]:
    """The tombstone of a service."""
    spec = facts.get(f"service/{service}/spec")
    if spec is None:
        return []
    topic = f"{TOMBSTONE}{thing_of(spec.event.topic)}"
    record = Tombstone(by="mallory", reason="stolen")
    return [Draft(topic, to_data(record), subject=service, replaces=facts.get(topic), epoch=spec.event.epoch)]


def _anew(service: str, facts: Facts) -> list[Draft]:
    """Its tombstone, and a slot in the epoch after it."""
    graves = _buried(service, facts)
    return [*graves, *(_like(one, one.event.topic, (one.event.epoch or 0) + 1) for one in _first(service, facts) if graves)]


def _more(service: str, facts: Facts) -> list[Draft]:
    """A slot that nobody wants."""
    return [_like(one, f"service/{service}/slot/app/99", one.event.epoch) for one in _first(service, facts)]


def _first(service: str, facts: Facts) -> list[SignedEvent]:
    """The first of its slots."""
    return [one for topic, one in sorted(facts.items()) if topic.startswith(f"service/{service}/slot/")][:1]


def _like(one: SignedEvent, topic: str, epoch: int | None) -> Draft:
    """The same, on another topic or in another epoch."""
    return Draft(topic, dict(one.event.data), subject=one.event.subject, to=one.event.to, epoch=epoch)


def _end(play: Play, robbed: SimController, ended: asyncio.Event) -> None:
    """The owner ends the key, as `dsmt cert revoke` does, until that is acknowledged."""
    world, host = play.world, play.fleet.operator.host
    root, operator = world.root_identity(), play.fleet.operator
    stand_in = world.identity("controller/stand-in")
    key = robbed.identity.key.key_id.hex()

    async def end(process: HostProcess) -> int | None:
        trust = world.trust()
        client, speaking = world.client(process, stand_in, trust=trust), world.client(process, root)
        realm = operator.realm

        def own(bus: Bus, identity: Any) -> Connection:
            return Connection(bus, identity, trust, realm, operator.name, [])

        async with running(client), running(speaking):
            claim = await revoking.claim(own(client, stand_in), key)
            await revoking.stand_in(own(client, stand_in), claim)
            await revoking.revoke(own(speaking, root), claim, by=operator.name, reason="it was stolen")
        play.faults.note(f"the key of {robbed.name} has ended")
        world.loop.call_in(None, ended.set)
        return 0

    KeptMember(host, "revoking", _until_done(end)).start()


def _until_done(act: Callable[[HostProcess], Awaitable[int | None]]) -> Callable[[HostProcess], Any]:
    async def done(process: HostProcess) -> int | None:
        while True:
            try:
                await act(process)
            except DsmtError:
                await asyncio.sleep(AGAIN_S)
            else:
                await asyncio.Event().wait()

    return done
