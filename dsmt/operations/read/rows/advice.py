"""Advice: what a reason says to do, made to fit what is known here."""

from __future__ import annotations

import msgspec

from dsmt.controllers.pinning import is_there
from dsmt.event.reason import Reason
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.controller_rows import is_undecided
from dsmt.spec import nodeset
from dsmt.spec.records import ComponentSpec
from dsmt.view import SlotEntry, SlotKey


def advised(sight: Sight, key: SlotKey, why: Reason | None) -> Reason | None:
    """A reason of a slot, with what is to be done here."""
    if why is None:
        return None
    match why.code:
        case "place.empty_set":
            return _of_set(sight, key, why)
        case "rollout.rolled_back":
            return msgspec.structs.replace(why, next=logs_of_refused(key, sight.view.slot(key)))
        case "node.lost" if why.who == "dsmt" and is_undecided(sight):
            return msgspec.structs.replace(why, next="dsmt controllers", who="you")
        case "wait.pinned":
            return _of_pinned(sight, key, why)
    return why


def _of_pinned(sight: Sight, key: SlotKey, why: Reason) -> Reason:
    """Where its node takes nothing, or another machine has its name, that is the way: it may begin on that one, too."""
    node, home = shut_home(sight, key), sight.home_of(key)
    lossy = f"without its data: dsmt move {key} --accept-data-loss"
    if node is not None:
        return msgspec.structs.replace(why, next=f"dsmt node include {node}; {lossy}")
    if home is not None and not is_there(sight.fleet, home) and sight.fleet.state(home.node) == "alive":
        lossy = f"dsmt move {key} --accept-data-loss, which begins elsewhere; with --to {home.node} it begins on the new one"
        return msgspec.structs.replace(why, next=f"bring the former {home.node} back, or {lossy}")
    return why


def logs_of_refused(key: SlotKey, entry: SlotEntry) -> str:
    """What shows the last run of the revision that was rolled back, also once other runs have ended."""
    refused = None if entry.fact is None else entry.fact.record.refuses
    return f"dsmt logs {key} " + ("--previous" if refused is None else f"--revision r{refused.revision}")


def shut_home(sight: Sight, key: SlotKey) -> str | None:
    """The node that has the data of a slot and lives, and takes nothing because an operator says so."""
    home = sight.home_of(key)
    entry = None if home is None else sight.view.nodes.get(home.node)
    if home is None or entry is None or entry.mode == "active" or not is_there(sight.fleet, home):
        return None
    return home.node if sight.fleet.state(home.node) == "alive" else None


def foreseen(sight: Sight, spec: ComponentSpec, why: Reason | None) -> Reason | None:
    """A reason of an instance that is only planned, by its component's spec, with what is to be done here."""
    return why if why is None or why.code != "place.empty_set" else _of_nodes(sight, spec, why, "dsmt nodes")


def _of_set(sight: Sight, key: SlotKey, why: Reason) -> Reason:
    known = sight.governing.of(key)
    return why if known is None else _of_nodes(sight, known.component, why, f"dsmt why-not {key}")


def _of_nodes(sight: Sight, spec: ComponentSpec, why: Reason, look: str) -> Reason:
    """Where it advises to look at a node set that is an expression, or that there is not, what is there."""
    if spec.nodes in sight.view.nodesets:
        return why
    unknown = nodeset.unknown_names(nodeset.parse(spec.nodes), universe=sight.fleet.members, named=sight.view.nodesets)
    mend = f"there is no node or node set {' or '.join(unknown)}: correct `nodes`; " if unknown else ""
    return msgspec.structs.replace(why, next=f"{mend}dsmt nodeset list; {look}")
