"""Instances: what `ps` shows, one row for each slot.

Rule 1: what is on its way for the first time is no problem; what has failed and is tried again is one, with the reason of
    the last failure, until it is ready. What is to be gone, and ends as it should, is none.
Rule 2: who asks for problems is shown, too, what may become one: an instance whose start-up check fails.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from dsmt.event.kinds.instance import Status
from dsmt.event.status import Shown
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.instance_row import ON_ITS_WAY, InstanceRow, row
from dsmt.operations.words.names import in_order
from dsmt.operations.words.targets import Target, slots_of, still_there
from dsmt.operations.words.times import milliseconds
from dsmt.view import SlotEntry, SlotKey
from dsmt.view.served import served

PLACING_MS: Final = 10_000
"""How long an instance may wait for its first word before that is a problem."""
_WELL: Final = frozenset({Shown.DONE, Shown.GONE})


def instances(
    sight: Sight,
    target: Target | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    problems: bool = False,
    everything: bool = False,
    ending: bool = False,
) -> list[InstanceRow]:
    """The rows, sorted by instance within each service.

    `problems` takes only those of rules 1 and 2; `everything` takes what has ended, and copies on other nodes, too; `ending`
    what is wanted no more, until it has ended.
    Raises `NotFoundError` for a target that is not there.
    """
    names = [target.service] if target is not None else in_order(sight.view.services)
    if target is not None and not slots_of(sight.view, target, gone=everything):
        still_there(sight.view, target)
    rows: list[InstanceRow] = []
    for name in names:
        entry = sight.view.services.get(name)
        wanted = {} if entry is None or entry.parsed is None else entry.parsed.labels
        if labels and any(wanted.get(key) != value for key, value in labels.items()):
            continue
        keys = slots_of(sight.view, target or Target(name), gone=everything)
        for key in keys:
            rows += _rows(sight, key, everything=everything)
        rows += _ending(sight, target or Target(name), keys) if ending and not everything else []
    return [row for row in rows if not problems or is_problem(sight, row) or row.startup_news]


def _ending(sight: Sight, target: Target, wanted: Collection[SlotKey]) -> list[InstanceRow]:
    """The rows of what is wanted no more, and of which something is left."""
    known = frozenset(wanted)
    slots = [key for key in slots_of(sight.view, target, gone=True) if key not in known]
    found = [row(sight, key, node) for key in slots for node in living_holders(sight, sight.view.slot(key))]
    return [one for one in found if one.state is not Shown.GONE]


def living_holders(sight: Sight, entry: SlotEntry) -> list[str]:
    """The nodes that may live and have anything left of a slot."""
    return [node for node in entry.holders if not sight.fleet.is_lost(node)]


def _rows(sight: Sight, key: SlotKey, *, everything: bool) -> list[InstanceRow]:
    entry = sight.view.slot(key)
    nodes: list[str | None]
    if entry.fact is not None:
        nodes = [entry.fact.record.node]
    else:
        nodes = [*living_holders(sight, entry)]
        if not nodes and sight.spec_of(key) is not None and is_wanted(sight, key):
            nodes = [None]
    if everything:
        nodes += [node for node in sorted(entry.instances) if node not in nodes]
    found = [row(sight, key, node) for node in nodes]
    return [one for one in found if everything or one.state is not Shown.GONE]


def is_ready(sight: Sight, row_: InstanceRow) -> bool:
    """Whether an instance counts as ready: healthy, or running where nothing is checked."""
    if row_.state is not Shown.RUNNING or row_.stale:
        return False
    entry, slot = sight.view.services.get(row_.service), sight.view.slot(row_.key)
    runs = None if slot.fact is None else slot.fact.record.spec
    spec = None if entry is None else entry.component_of(row_.component, runs)
    return row_.health == "ready" or (row_.health == "none" and (spec is None or spec.health is None))


def is_wanted(sight: Sight, key: SlotKey) -> bool:
    """Whether the spec that stands has a slot; of what cannot be read nobody can say that it has not."""
    entry = sight.view.services.get(key.service)
    if entry is None or entry.spec is None or entry.parsed is None:
        return f"service/{key.service}/spec" in sight.view.quarantined
    component = None if entry.spec.record.removed else entry.parsed.components.get(key.component)
    return component is not None and (component.instances is None or key.index < component.instances)


def serves(sight: Sight, row_: InstanceRow) -> bool:
    """Whether an instance is ready, or the copy before is served: elsewhere, or while it is on its way or has failed."""
    slot = sight.view.slot(row_.key)
    if is_ready(sight, row_) or row_.stale:
        return is_ready(sight, row_)
    found = served(sight.fleet, slot)
    is_unknown = row_.agentless or row_.state in (Shown.RUNNING, Shown.STOPPING)
    return found is not None and (found.node != row_.node or not is_unknown)


def application(sight: Sight, row_: InstanceRow) -> Status | None:
    """What is said of its program."""
    said = sight.view.slot(row_.key).application(row_.node)
    return None if said is None else said.record


def is_behind(sight: Sight, row_: InstanceRow) -> bool:
    """Whether the instance that runs is of an older generation than its slot."""
    said = application(sight, row_)
    return said is None or said.generation < row_.generation


def is_problem(sight: Sight, row_: InstanceRow) -> bool:
    """Whether an instance is not as it should be (rule 1)."""
    if row_.state in _WELL:
        return False
    if row_.reason is not None and row_.reason.who == "you":
        return True
    if row_.reason is None and _is_ending(sight, row_):
        return False
    return not is_ready(sight, row_) and not is_on_its_way(sight, row_)


def _is_ending(sight: Sight, row_: InstanceRow) -> bool:
    fact = sight.view.slot(row_.key).record
    return fact is not None and fact.desired == "gone"


def is_on_its_way(sight: Sight, row_: InstanceRow) -> bool:
    """Whether an instance is not ready yet, and nothing has gone wrong so far."""
    if row_.stale or row_.reason is not None:
        return False
    if row_.state is not Shown.WAITING:
        return row_.state in ON_ITS_WAY
    entry = sight.view.services.get(row_.service)
    told = [] if entry is None or entry.spec is None else [entry.spec.time_ms]
    told += [] if row_.since is None else [milliseconds(row_.since)]
    return bool(told) and sight.now_ms - max(told) < PLACING_MS
