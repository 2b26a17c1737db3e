"""Endpoints: where the instances of a target can be reached now (rule A9)."""

from __future__ import annotations

import msgspec

from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.words.names import in_order
from dsmt.operations.words.targets import Target, slots_of, still_there
from dsmt.view.served import served


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """One instance that is ready, and where."""

    instance: str
    node: str
    address: str
    ports: dict[str, int]
    generation: int


def endpoints(sight: Sight, target: Target | None = None) -> list[Reached]:
    """Where a target's instances, or all, are reached, sorted; those that are not are left out. Raises `NotFoundError`."""
    found = []
    if target is not None and not slots_of(sight.view, target):
        still_there(sight.view, target)
    targets = [target] if target is not None else [Target(name) for name in in_order(sight.view.services)]
    for key in (key for one in targets for key in slots_of(sight.view, one)):
        one = served(sight.fleet, sight.view.slot(key))
        if one is not None:
            said = one.endpoint
            found.append(
                Reached(instance=str(key), node=one.node, address=said.address, ports=said.ports, generation=said.generation)
            )
    return found
