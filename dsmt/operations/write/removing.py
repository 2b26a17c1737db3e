"""Removing a service: its next revision says that it ends; controllers end what runs, and bury it (rule A6)."""

from __future__ import annotations

import msgspec

from dsmt.controllers.left_data import data_of
from dsmt.event.kinds.service import SpecFact
from dsmt.operations.read.sight import Sight, look
from dsmt.operations.words.targets import Target, no_service, slots_of
from dsmt.operations.write.applying import say_spec
from dsmt.operations.write.controlling import Done
from dsmt.ports.bus import Bus
from dsmt.spec.plain import to_plain
from dsmt.view import SlotKey


async def remove(bus: Bus, service: str, *, by: str, reason: str) -> Done:
    """End a service, also one of which slots are left alone. Raises `NotFoundError`."""
    sight = await look(bus, of=(service,))
    stood = _stood(sight, service)
    names = [str(key) for key in slots_of(sight.view, Target(service))]
    if stood.removed:
        return Done(action="remove", target=service, instances=[], unchanged=names)
    await say_spec(bus, sight, msgspec.structs.replace(stood, by=by, reason=reason, removed=True), service)
    data = {str(SlotKey(service, *place)): home.node for place, home in sorted(data_of(sight.fleet, service).items())}
    return Done(action="remove", target=service, instances=names, unchanged=[], data=data)


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
