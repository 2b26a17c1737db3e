"""Node sets: named expressions over the nodes of the realm, as facts.

Rule 1: a set that is removed ends in a tombstone (rule A6).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from dsmt.errors import InputError, NotFoundError
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.realm import NodesetFact
from dsmt.event.phrases import cut, some, whose
from dsmt.event.records import from_data, to_data
from dsmt.event.topic import is_level
from dsmt.operations.read.realm.sight import Sight, look
from dsmt.operations.read.rows.overruled import OverruledWord, overruled_words
from dsmt.operations.words.targets import is_service
from dsmt.operations.write.writing import bury, follow, say, say_word
from dsmt.ports.bus import Bus, BusReader
from dsmt.spec import nodeset, placeholders
from dsmt.spec.mistakes import nearest
from dsmt.spec.reading import Path
from dsmt.spec.records import ComponentSpec, ServiceSpec
from dsmt.spec.templates import templates
from dsmt.view import SlotKey

CYCLE_MOST: Final = 240
"""Characters of a cycle that are told of each set in it."""


class NodeSet(msgspec.Struct, frozen=True, kw_only=True):
    """A named set: its expression, the nodes that it selects now, names in it that are nothing now, who uses it."""

    name: str
    expression: str
    nodes: list[str]
    unknown: list[str]
    used_by: list[str]
    cycle: str | None = None
    """How it leads back to itself: operators have defined sets at the same time. It selects nothing then."""
    by: str
    at: str | None
    reason: str = ""
    hides: str | None = None
    """The node of the same name, which nobody can name by itself while the set is there."""
    overruled: list[OverruledWord] = []
    """Expressions that were given to it at the same time on the other side of a partition (E2); `show` tells of them."""


def every(sight: Sight) -> list[NodeSet]:
    """All named sets, sorted."""
    topics = sorted(signed.event.topic for signed in sight.view.winners() if signed.event.topic.startswith("nodeset/"))
    names = [topic.removeprefix("nodeset/") for topic in topics]
    return [one(sight, name) for name in names if name in sight.view.nodesets]


def one(sight: Sight, name: str) -> NodeSet:
    """One set, by its name. Raises `NotFoundError`."""
    signed = sight.view.winner(f"nodeset/{name}")
    if signed is None or name not in sight.view.nodesets:
        raise NotFoundError("nodeset.unknown", f"there is no node set {name}", next=_instead(sight, name))
    fact = from_data(NodesetFact, signed.event.data)
    expression = sight.view.nodesets[name]
    try:
        nodes, cycle = select(sight, nodeset.NamedNodes(name)), None
    except nodeset.NodeSetError as error:
        nodes, cycle = (), cut(error.message, CYCLE_MOST)
    return NodeSet(
        name=name,
        expression=fact.expression,
        nodes=list(nodes),
        cycle=cycle,
        unknown=list(_unknown(sight, expression)),
        used_by=users(sight, name),
        by=whose(fact.by, signed.event.source),
        at=rfc3339(signed.event.time_ms),
        reason=fact.reason,
        hides=name if name in sight.fleet.members else None,
    )


async def show(bus: BusReader, name: str) -> NodeSet:
    """One set, with what was overruled. Raises `NotFoundError`."""
    sight = await look(bus)
    found = one(sight, name)
    lost = await overruled_words(bus, sight, f"nodeset/{name}", NodesetFact, lambda fact: fact.expression)
    return msgspec.structs.replace(found, overruled=lost)


def _instead(sight: Sight, name: str) -> str:
    """What to do about a name that no named set has."""
    if name in (nodeset.ALL_NODES, nodeset.FAILED):
        return f"{name} is given, and no named set: dsmt nodes shows its nodes"
    if name in sight.fleet.members:
        return f"{name} is a node: dsmt node show {name}"
    return f"{name} is a service: dsmt status {name}" if is_service(sight.view, name) else "dsmt nodeset list"


def select(
    sight: Sight, expression: nodeset.Expression, *, named: Mapping[str, nodeset.Expression] | None = None
) -> tuple[str, ...]:
    """The nodes that an expression selects now, or would with these sets. Raises `NodeSetError` for a cycle.

    `failed` are the dead ones.
    """
    named = sight.view.nodesets if named is None else named
    dead = frozenset(node for node in sight.fleet.members if sight.fleet.state(node) == "dead")
    return nodeset.evaluate(expression, universe=sight.fleet.members, failed=dead, named=named)


def _unknown(sight: Sight, expression: nodeset.Expression) -> tuple[str, ...]:
    """Names in an expression that are neither a node nor a set now."""
    return nodeset.unknown_names(expression, universe=sight.fleet.members, named=sight.view.nodesets)


def nodes_of(sight: Sight, asked: Iterable[str]) -> list[str]:
    """The nodes that are asked for by their names, those of sets or expressions, sorted.

    Raises `NotFoundError` for a name that is neither, `NodeSetError` for what is no expression.
    """
    found: set[str] = set()
    for expression in map(nodeset.parse, asked):
        check_known(sight, expression)
        found |= set(select(sight, expression))
    return sorted(found)


def check_known(sight: Sight, expression: nodeset.Expression) -> None:
    """Raise `NotFoundError` for a name in an expression that is neither a node nor a set now."""
    unknown = _unknown(sight, expression)
    if unknown:
        said = f"there is no node or node set {' or '.join(unknown)}"
        meant = nearest(unknown[0], {*sight.fleet.members, *sight.view.nodesets, nodeset.ALL_NODES, nodeset.FAILED})
        asked = f"did you mean {meant}? " if meant else ""
        raise NotFoundError("node.unknown", said, next=f"{asked}dsmt nodes; dsmt nodeset list")


def nowhere(sight: Sight, component: str, spec: ComponentSpec) -> list[str]:
    """The warning that the nodes of a component are none now, if they are none though each name is known."""
    wanted = nodeset.parse(spec.nodes)
    if _unknown(sight, wanted):
        return []
    try:
        if select(sight, wanted):
            return []
    except nodeset.NodeSetError as error:
        return [f"components.{component}.nodes: {error.message}"]
    stays = "" if spec.each_node else "; what runs stays where it is"
    return [f"components.{component}.nodes: {spec.nodes} selects no node now: nothing of it is placed until it does{stays}"]


def users(sight: Sight, name: str) -> list[str]:
    """The components and sets that name a set."""
    found = [f"nodeset/{other}" for other, e in sorted(sight.view.nodesets.items()) if name in nodeset.mentioned(e)]
    for service, entry in sorted(sight.view.services.items()):
        for component, spec in sorted((entry.parsed.components if entry.parsed is not None else {}).items()):
            governs = entry.component(component) or spec
            if any(name in nodeset.mentioned(nodeset.parse(one.nodes)) for one in (spec, governs)):
                found.append(f"{service}/{component}")
    return found


def unknown_names(sight: Sight, spec: ServiceSpec) -> list[tuple[str, str]]:
    """(component, sentence) for each component whose `nodes` names what is neither a set nor a node now."""
    found = []
    for name, component in sorted(spec.components.items()):
        wanted = nodeset.parse(component.nodes)
        names = _unknown(sight, wanted)
        if names:
            said = f"components.{name}.nodes: there is no node or node set named {' or '.join(names)} now"
            found.append((name, f"{said}; see dsmt nodeset list and dsmt nodes"))
    return found


def staying(sight: Sight, spec: ServiceSpec) -> list[tuple[str, str]]:
    """(component, sentence) for each component of which something stays with its data where its `nodes` does not have it."""
    found = list[tuple[str, str]]()
    entry = sight.view.services.get(spec.service)
    if entry is None:
        return found
    for name, component in sorted(spec.components.items()):
        try:
            nodes = select(sight, nodeset.parse(component.nodes))
        except nodeset.NodeSetError:  # which is told of the set
            continue
        keys = [SlotKey(spec.service, *at) for at in sorted(entry.slots) if at[0] == name]
        homes = {key: home.node for key in keys if (home := sight.home_of(key)) is not None}
        away = [f"{key} on {node}" for key, node in homes.items() if node not in nodes]
        if away and nodes and component.on_partition == "pinned":
            stay = "stays" if len(away) == 1 else "stay"
            advice = "dsmt move TARGET --accept-data-loss begins elsewhere without that"
            found.append((name, f"components.{name}.nodes: {some(away)} {stay}, for the data is there; {advice}"))
    return found


def unlabelled(sight: Sight, spec: ServiceSpec) -> list[tuple[Path, str, str]]:
    """(path, component, sentence) for the first use of each label that no node has on which a component may be."""
    found = []
    for name, component in sorted(spec.components.items()):
        try:
            nodes = select(sight, nodeset.parse(component.nodes))
        except nodeset.NodeSetError:  # which is told of the set
            continue
        known = {key for node in nodes for key in _labels(sight, node)}
        missing = dict[str, Path]()
        for path, template in templates(to_data(component)):
            for one in placeholders.names(template):
                key = one.removeprefix(placeholders.NODE_LABEL)
                if key != one and key not in known:
                    missing.setdefault(key, path)
        for key, path in missing.items() if nodes else ():
            said = f"components.{name}.{path[0]}: no node on which it may be has a label {key} now"
            found.append((path, name, f"{said}: it fails where it is started; see dsmt node show"))
    return found


def _labels(sight: Sight, node: str) -> Iterable[str]:
    told = sight.view.nodes[node].attributes
    return () if told is None else told.record.labels


async def define(bus: Bus, name: str, expression: str, *, by: str, reason: str = "") -> NodeSet:
    """Name an expression. Raises `InputError`, `NodeSetError` for one that is wrong or leads back to itself."""
    if name in nodeset.RESERVED:
        raise InputError("nodeset.name", f"{name!r} is a reserved word", next="choose another name")
    if not is_level(name):
        said, meant = f"{name!r} is not a name for a set", nodeset.as_lower_case(name)
        raise InputError("nodeset.name", said, next=f"names are 1-63 of a-z 0-9 - . _{meant}")
    parsed = nodeset.parse(expression)
    sight = await look(bus)
    if name in sight.fleet.members and name not in sight.view.nodesets:
        said = f"{name} is a node, and a set of that name would hide it; nothing was done"
        raise InputError("nodeset.name", said, next="choose another name")
    select(sight, nodeset.NamedNodes(name), named={**sight.view.nodesets, name: parsed})
    record = NodesetFact(expression=nodeset.format_expression(parsed), by=by, reason=reason)
    await say_word(bus, sight, [follow(sight.view, f"nodeset/{name}", record, subject=f"nodeset/{name}")])
    return one(await look(bus), name)


async def forget(bus: Bus, name: str, *, by: str, used: bool, reason: str = "") -> NodeSet:
    """Remove a named set; with `used` also one that is used. Raises `NotFoundError`, `InputError`."""
    sight = await look(bus)
    found = one(sight, name)
    if found.used_by and not used:
        named = ", ".join(found.used_by)
        raise InputError("nodeset.used", f"{name} is used by {named}", next=f"dsmt nodeset remove {name} --yes")
    await say(bus, [bury(sight.view, f"nodeset/{name}", by=by, reason=reason)])
    return found
