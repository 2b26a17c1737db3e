"""Plan words: why each step of a plan is made, and why on that node; in the future tense, for nothing has happened yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from dsmt.controllers.placement import Chooser
from dsmt.spec.changes import Change
from dsmt.spec.crosscheck import looks_secret
from dsmt.spec.records import ComponentSpec
from dsmt.view import Fleet

HIDDEN = "(hidden)"
_NAMED_MOST = 3


def masked(change: Change) -> Change:
    """A change without what is probably a secret, at whatever depth it stands."""
    old, new = (_masked(change.key, value) for value in (change.old, change.new))
    return msgspec.structs.replace(change, old=old, new=new)


def _masked(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _masked(f"{key}.{name}" if key else name, one) for name, one in value.items()}
    if value in (None, "", [], False) or not looks_secret(key):
        return value
    return HIDDEN


class PlacementReasons:
    """Why a node is chosen, for the instances that one decision places: each counts for those after it."""

    def __init__(self, fleet: Fleet, service: str) -> None:
        self._fleet = fleet
        self._service = service
        self._fitting: dict[str, list[str]] = {}
        self._own: dict[str, Counter[str]] = {}

    def why(self, component: ComponentSpec, node: str) -> str:
        """Why this node takes the next instance of a component."""
        name = component.name
        if name not in self._fitting:
            chooser = Chooser(self._fleet, self._service, component)
            self._fitting[name] = list(chooser.fitting())
            self._own[name] = Counter(chooser.own)
        fitting, own = self._fitting[name], self._own[name]
        there = own[node]
        own[node] += 1
        if component.each_node:
            return "one will run on each node that fits"
        if len(fitting) < 2:
            return f"{node} is the only node that fits"
        few = f"it has no {name} yet" if there == 0 else f"it has {there} of {name}, and none that fits has fewer"
        return f"1 of {len(fitting)} that fit; {few if component.spread.by != 'none' else 'it has the most room'}"


def why_replaced(component: ComponentSpec, changes: Sequence[Change]) -> str:
    """Why an instance will be started anew, and in which order."""
    keys = [one.key for one in changes if one.component == component.name and one.action in ("restart", "reinstall")]
    named = ", ".join(keys[:_NAMED_MOST]) + (f" and {len(keys) - _NAMED_MOST} more" if len(keys) > _NAMED_MOST else "")
    verb = "changes" if len(keys) == 1 else "change"
    order = "the new one will start first" if component.overlaps else "the old one will stop first"
    return f"{named} {verb}; {order}" if keys else order


def promises(component: ComponentSpec, base: int, back_to: int | None) -> list[str]:
    """What will hold while a change of a revision, if any, is made, and beside a partition.

    `back_to` is what a change that fails goes back to; None where nothing was good yet.
    """
    update, told = component.update, []
    if base:
        stays = "it stays so, unless a revision before was good by then" if update.rollback else "the change will stop there"
        back = f"back to r{back_to}" if update.rollback and back_to is not None else stays
        ends = "" if component.overlaps else ", once the one before has had its time to end"
        told.append(f"{component.name}: if one is not ready within {update.deadline_s:g} s{ends}: {back}")
    beside = {
        "at_least_one": "a cut-off copy may run beside its replacement for as long as the cut lasts",
        "at_most_one": "never two at once, and none while nobody can be sure",
        "pinned": "it stays with its data, and waits for its node",
    }[component.on_partition]
    return [*told, f"{component.name}: {component.on_partition}: {beside}"]
