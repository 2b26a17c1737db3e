"""Removing a service: its next revision says that it ends; controllers end what runs, and bury it (rule A6).

What it left in data directories goes when an operator says so of a service that was buried (`purge`, rule A23).
"""

from __future__ import annotations

import msgspec

from dsmt.controllers.left_data import data_of
from dsmt.errors import FailedError
from dsmt.event.envelope import TOMBSTONE
from dsmt.event.kinds.realm import PURGES, PurgeWord, Tombstone
from dsmt.event.kinds.service import SpecFact
from dsmt.event.records import to_data
from dsmt.operations.read.realm.facts import stands
from dsmt.operations.read.realm.sight import Sight, look_at
from dsmt.operations.words.targets import Target, no_service, slots_of
from dsmt.operations.write.applying import say_spec
from dsmt.operations.write.controlling import Done
from dsmt.operations.write.writing import say
from dsmt.ports.bus import Bus, Draft
from dsmt.spec.plain import to_plain
from dsmt.view import SlotKey


async def remove(bus: Bus, service: str, *, by: str, reason: str) -> Done:
    """End a service, also one of which slots are left alone. Raises `NotFoundError`."""
    sight = await look_at(bus, service)
    stood = _stood(sight, service)
    names = [str(key) for key in slots_of(sight.view, Target(service))]
    if stood.removed:
        return Done(action="remove", target=service, instances=[], unchanged=names)
    await say_spec(bus, sight, msgspec.structs.replace(stood, by=by, reason=reason, removed=True), service)
    return Done(action="remove", target=service, instances=names, unchanged=[], data=known_data(sight, service))


async def purge(bus: Bus, service: str, *, by: str, reason: str) -> Done:
    """Have all nodes delete what a service left that was removed, and nobody wait for it; what is known of it by now.

    Raises `NotFoundError` for one that was never removed, `FailedError` for one that is there again, or has not ended.
    """
    sight = await look_at(bus, service)
    grave = sight.view.winner(f"{TOMBSTONE}service/{service}")
    if grave is None or not is_buried(sight, service):
        _stood(sight, service)
        said = f"{service} is there, or has not ended yet: its data is kept"
        raise FailedError("purge.stands", said, next=f"dsmt remove {service} --purge")
    topic, epoch = f"{PURGES}{service}", grave.event.epoch or 0
    word = PurgeWord(epoch=epoch, by=by, reason=reason)
    drafts = [
        Draft(topic, to_data(word), subject=topic, replaces=await stands(bus, topic)),
        Draft(grave.event.topic, to_data(Tombstone(by=by, reason=reason)), subject=grave.event.subject, replaces=grave),
    ]
    await say(bus, drafts)
    return Done(action="purge", target=service, instances=[], unchanged=[], data=known_data(sight, service))


def is_buried(sight: Sight, service: str) -> bool:
    """Whether a service was removed, and nothing of it is to run; what is told of it by who is away stays."""
    entry = sight.view.services.get(service)
    stands = service in sight.unsaid or (entry is not None and entry.spec is not None)
    return not stands and sight.view.winner(f"{TOMBSTONE}service/{service}") is not None


def known_data(sight: Sight, service: str) -> dict[str, str]:
    """By instance, the node on which its data is, as far as facts tell."""
    return {str(SlotKey(service, *place)): home.node for place, home in sorted(data_of(sight.fleet, service).items())}


def epoch_of(sight: Sight, service: str) -> int:
    """The epoch of a service that its removal ends. Raises `NotFoundError` for one that is not there."""
    _stood(sight, service)
    return sight.view.epoch(f"service/{service}/spec")


def _stood(sight: Sight, service: str) -> SpecFact:
    """What was applied of a service last; a stand-in for what nobody believes any more."""
    left = sight.unsaid.get(service)
    if left is not None:
        return _stand_in(service, left)
    entry = sight.view.services.get(service)
    if entry is None or entry.spec is None:
        raise no_service(sight.view, service)
    return entry.spec.record


def _stand_in(service: str, left: list[SlotKey]) -> SpecFact:
    """What is said to end slots whose spec nobody believes: nothing of it is ever run."""
    from dsmt.spec.parsing import parse  # noqa: PLC0415 - the parser of YAML is slow to import

    components = "".join(f"\n  {name}: {{run: 'true'}}" for name in sorted({key.component for key in left}))
    (spec,) = parse(f"service: {service}\ncomponents:{components}\n", file=service)
    return SpecFact(spec=to_plain(spec), by="", reason="")
