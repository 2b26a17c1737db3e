"""Fitting: `why-not`: what keeps an instance off each node, clause by clause, and what would help."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from dsmt.controllers.pending import waits_for, waits_for_home
from dsmt.controllers.pinning import is_there
from dsmt.controllers.placement import CLAUSES, Chooser, Misfit
from dsmt.errors import NotFoundError
from dsmt.event.phrases import another_certificate, size_in_words
from dsmt.event.reason import Reason
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.advice import advised
from dsmt.operations.read.rows.node_rows import find_node
from dsmt.operations.read.rows.outside import revoked
from dsmt.operations.words.names import in_order
from dsmt.operations.words.targets import Target, slots_of, still_there
from dsmt.view import SlotKey

_LOSES: Final = "--accept-data-loss"
_AMOUNTS: Final = ("memory", "cpu", "disk")
_STATE: Final = ("left", "dead", "suspect", "mode")


class Clause(msgspec.Struct, frozen=True, kw_only=True):
    """One clause: how many nodes fail it, how many fail nothing else, and which and why."""

    clause: str
    removes: int
    alone: int
    nodes: dict[str, str]


class Fitting(msgspec.Struct, frozen=True, kw_only=True):
    """Which nodes would take one more instance. `reason` is why the slot has no node that lives, if it waits for one.

    `on` is the node that lives and has it: what it takes there is taken. Of what each node is to have, `has` are those
    that have one, and what is told is of the others.
    """

    target: str
    on: str | None
    has: list[str] | None
    fits: list[str]
    nodes: int
    clauses: list[Clause]
    suggestions: list[str]
    reason: Reason | None


def why_not(sight: Sight, target: Target, node: str | None = None) -> Fitting:
    """What keeps an instance off the nodes, or off one. Raises `NotFoundError`."""
    keys = slots_of(sight.view, target) or [*_of_each_node(sight, target)]
    if not keys:
        still_there(sight.view, target)
        raise NotFoundError("target.empty", f"{target} has no instance", next=f"dsmt ps {target.service}")
    key = _without_place(sight, keys)
    spec = sight.spec_of(key)
    if spec is None:
        raise NotFoundError("component.unknown", f"no service file asks for {key}", next=f"dsmt get {key.service}")
    if node is not None:
        find_node(sight, node)
    on = _place(sight, key)
    allocations = sight.view.allocations.trial()
    if on is None:
        allocations.release(key)  # what it has on a dead node keeps nothing but others off
    chooser = Chooser(sight.fleet, key.service, spec, allocations=allocations)
    every = in_order(sight.fleet.members) if node is None else [node]
    places = _places(sight, key) if spec.each_node else frozenset()
    names = [name for name in every if name not in places]
    goes_on = spec.each_node and on is not None
    faults = {name: [*_tied(sight, key, name), *_faults(chooser, name)] for name in names}
    return Fitting(
        target=f"{key.service}/{key.component}" if goes_on and target.index is None else str(key),
        on=None if spec.each_node else on,
        has=[name for name in every if name in places] if spec.each_node else None,
        fits=[name for name, found in faults.items() if not found],
        nodes=len(every),
        clauses=_clauses(faults),
        suggestions=[] if goes_on and node is None else _suggestions(sight, chooser, faults, key),
        reason=advised(sight, key, waits_for(sight.governing, key)),
    )


def nowhere(sight: Sight, target: Target) -> Reason | None:
    """Why no node has one of what each node is to have; None where one has, or may have next."""
    for key in _of_each_node(sight, target):
        spec = sight.spec_of(key)
        chooser = None if spec is None or _places(sight, key) else Chooser(sight.fleet, key.service, spec)
        if chooser is not None and next(chooser.fitting(), None) is None:
            return chooser.reason(key)
    return None


def _of_each_node(sight: Sight, target: Target) -> Iterator[SlotKey]:
    """The first slot of each component of which each node is to have one, also where none has one yet."""
    entry = sight.view.services.get(target.service)
    for name in () if entry is None or entry.parsed is None else entry.parsed.components:
        key = SlotKey(target.service, name, 0)
        spec = sight.spec_of(key)
        if spec is not None and spec.each_node and target.takes(key):
            yield key


def _places(sight: Sight, key: SlotKey) -> frozenset[str]:
    """The nodes that have an instance of a slot's component."""
    slots = sight.view.services[key.service].slots
    of_component = (SlotKey(key.service, component, index) for component, index in slots if component == key.component)
    return frozenset(node for one in of_component if (node := _place(sight, one)) is not None)


def _place(sight: Sight, key: SlotKey) -> str | None:
    """The node of a slot: None where it has none, one that is dead, or one that is another machine now."""
    slot = sight.view.slot(key)
    node = slot.wanted_on
    if node is None or sight.fleet.is_lost(node) or waits_for_home(sight.governing, key) is not None:
        return None
    return node


def _without_place(sight: Sight, keys: list[SlotKey]) -> SlotKey:
    """The first slot that has no place; else the first."""
    return next((key for key in keys if _place(sight, key) is None), keys[0])


def _tied(sight: Sight, key: SlotKey, node: str) -> Iterator[Misfit]:
    """What keeps a slot that has data off every node but its home."""
    home = sight.home_of(key)
    if home is None:
        return
    if node != home.node:
        yield Misfit("data", f"its data is on {home.node}")
    elif not is_there(sight.fleet, home):
        yield Misfit("data", f"{node} is not the machine that has its data")


def _faults(chooser: Chooser, node: str) -> Iterator[Misfit]:
    """Every clause that a node fails, each once."""
    seen = set()
    for fault in chooser.faults(node):
        if fault.clause not in seen:
            seen.add(fault.clause)
            yield fault


def _clauses(faults: dict[str, list[Misfit]]) -> list[Clause]:
    found = []
    for clause in CLAUSES:
        failing = {node: f.says for node, each in faults.items() for f in each if f.clause == clause}
        if failing:
            alone = sum(len(faults[node]) == 1 for node in failing)
            found.append(Clause(clause=clause, removes=len(failing), alone=alone, nodes=failing))
    return found


def _suggestions(sight: Sight, chooser: Chooser, faults: dict[str, list[Misfit]], key: SlotKey) -> list[str]:
    """The smallest changes that would give it a place: for nodes that fail one clause only."""
    if any(not each for each in faults.values()):
        return []
    one = [(node, each[0].clause) for node, each in faults.items() if len(each) == 1]
    one.sort(key=lambda at: -_free(chooser, *at))  # the smallest change is the first
    said = (_suggestion(sight, chooser, node, clause, key) for node, clause in one)
    found = [*_home_again(sight, key), *(text for text in said if text is not None)]
    return sorted(dict.fromkeys(found), key=lambda text: _LOSES in text)


def _free(chooser: Chooser, node: str, clause: str) -> int:
    """How much a node has left of what a clause counts; 0 for a clause that counts nothing."""
    return getattr(chooser.allocations.node(node).free(), clause) if clause in _AMOUNTS else 0


def _home_again(sight: Sight, key: SlotKey) -> Iterator[str]:
    """That the node may come back that has its data and has left: no clause tells of that one."""
    home = sight.home_of(key)
    if home is not None and sight.fleet.state(home.node) == "left":
        yield f"bring {home.node} back: dsmt up, or add it again, on the machine that has the data"


def _suggestion(sight: Sight, chooser: Chooser, node: str, clause: str, key: SlotKey) -> str | None:  # noqa: C901, PLR0911 - a clause a line
    free, slot = chooser.allocations.node(node).free(), sight.view.slot(key)
    match clause:
        case "data" if chooser.component.each_node:
            own = slot.fact is not None and slot.fact.record.node == node
            return f"dsmt move {key} --accept-data-loss: it begins on {node} with no data" if own else None
        case "data":
            return f"dsmt move {key} --accept-data-loss: another node fits, and begins with no data"
        case "memory":
            return f"reserve.memory <= {size_in_words(free.memory)}: {node} fits"
        case "cpu":
            return f"reserve.cpu <= {free.cpu / 1000:g}: {node} fits"
        case "disk":
            return f"reserve.disk <= {size_in_words(free.disk)}: {node} fits"
        case "ports":
            taken = chooser.allocations.node(node).ports
            others = (f"{one.name}: auto" for one in chooser.component.ports if (one.protocol, one.port) in taken)
            return f"ports: {{{', '.join(others)}}}: {node} fits"
        case "mode":
            return f"dsmt node include {node}: {node} fits"
        case "nodes":
            return f"nodes: all_nodes: {node} fits"
        case "limits":
            return f"limits.enforce: best_effort: {node} fits"
        case _ if clause in _STATE:
            if revoked(sight, find_node(sight, node)) is not None:
                return f"another key for {node}, whose own was revoked: {another_certificate(f'node/{node}')}"
            return f"bring {node} back: it is {sight.fleet.state(node)}"
        case _:
            return None
