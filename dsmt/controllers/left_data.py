"""Left data: where the data of a service's slots is, also of one that was removed (rule A19).

Rule 1: what was removed and is applied again has its data where its tombstone says, on nodes that are still of the realm.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from dsmt.errors import UnusableEventError
from dsmt.event.kinds.realm import LeftData, Tombstone
from dsmt.event.kinds.slot import DataHome
from dsmt.event.records import from_data
from dsmt.view import Fleet

DATA_MOST: Final = 250
"""So many homes fit into one event, whatever their names are."""


def data_left(fleet: Fleet, service: str) -> dict[tuple[str, int], DataHome]:
    """By component and index, where the data of a service is that was removed (rule 1)."""
    buried = fleet.view.winner(f"tombstone/service/{service}")
    if buried is None:
        return {}
    with suppress(UnusableEventError):
        told = from_data(Tombstone, buried.event.data).data
        return {(one.component, one.index): one.home for one in told if _is_member(fleet, one.home.node)}
    return {}


def data_of(fleet: Fleet, service: str) -> dict[tuple[str, int], DataHome]:
    """By component and index, where the data of a service is: by the facts of its slots, else by the tombstone before."""
    entry = fleet.view.services.get(service)
    facts = [] if entry is None else [(place, slot.fact) for place, slot in entry.slots.items() if slot.fact is not None]
    said = {place: fact.record.home for place, fact in facts if fact.record.home is not None}
    return {**data_left(fleet, service), **said}


def left_by(fleet: Fleet, service: str) -> tuple[LeftData, ...]:
    """The same, as a tombstone says it: what was there last comes first, and what the tombstone before has named last."""
    entry = fleet.view.services.get(service)

    def age(place: tuple[str, int]) -> tuple[int, int]:
        slot = None if entry is None else entry.slots.get(place)
        own = None if slot is None or slot.fact is None or slot.fact.record.home is None else slot.fact
        return (0, 0) if own is None else (-own.record.last_revision, -own.time_ms)

    homes = data_of(fleet, service)
    last = sorted(homes, key=lambda place: (age(place), place))[:DATA_MOST]
    return tuple(LeftData(component=place[0], index=place[1], home=homes[place]) for place in last)


def _is_member(fleet: Fleet, node: str) -> bool:
    return fleet.state(node) != "left"  # of one that nothing is known of yet nothing follows (R4)
