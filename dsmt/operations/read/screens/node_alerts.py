"""Alerts of nodes: those that are out, not alive, or lack a program of dsmt's own, and those whose clock is off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from dsmt.event.hlc import FAR_MS
from dsmt.event.phrases import some
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.controller_rows import is_undecided
from dsmt.operations.read.rows.holding import is_to_leave
from dsmt.operations.read.rows.node_rows import NodeRow, clock, clock_offset_s, half_away
from dsmt.operations.read.rows.outside import Outside
from dsmt.operations.read.screens.alert import Alert, reasoned, yours
from dsmt.operations.words.times import off_by

START_AGAIN: Final = "dsmt up on its machine (dsmt node add, of an added host)"
"""How a node is had back. On a host that was added `dsmt up` would make another realm, in another home."""
_OUT: Final[Mapping[str, str]] = {
    "revoked": "node.revoked",
    "expired": "node.expired",
    "kept out": "node.kept_out",
    "twice": "node.twice",
}


def of_nodes(sight: Sight, nodes: Sequence[NodeRow]) -> list[Alert]:
    """Nodes that are out, not alive, or lack a program of dsmt's own, and those whose clock is off."""
    return (
        [_out(node.node, node.out) for node in nodes if node.out is not None]
        + [one for node in nodes if (one := away(sight, node) or _half(sight, node)) is not None]
        + _of_clocks([node for node in nodes if node.liveness in ("alive", "suspect")])
    )


def _out(node: str, out: Outside) -> Alert:
    """A node that is let in no more."""
    return yours(f"node/{node}", _OUT[out.why], out.message, out.next)


def away(sight: Sight, node: NodeRow) -> Alert | None:
    """The alert for a node that is not alive, with what helps; None for one that is alive, has left, or is kept out."""
    if node.out is not None or node.liveness not in ("dead", "suspect"):
        return None
    found = _away(sight, node)
    return _undecided(found) if found.who != "you" and is_undecided(sight) else found


def _away(sight: Sight, node: NodeRow) -> Alert:
    about, evidence = f"node/{node.node}", node.evidence or f"{node.node} is {node.liveness}"
    why = sight.brake.reason
    if why is not None and node.instances and not sight.brake.allows(node.node):
        said = f"{evidence}; {why.message}"
        return reasoned(about, why, said)
    if node.liveness == "dead" and not is_to_leave(sight, node.node):
        back = f"{START_AGAIN}; or dsmt node remove {node.node} --forget; look: dsmt why {about}"
        return yours(about, "node.lost", evidence, back)
    said = evidence if node.liveness == "dead" else f"{evidence}; whether it is dead is not decided yet"
    back = f"dsmt why {about}; to have it back: {START_AGAIN}"
    return Alert(target=about, code="node.lost", message=said, next=back, who="dsmt")


def _undecided(alert: Alert) -> Alert:
    """An alert of what a controller would act on, where none is alive."""
    said = f"{alert.message}; no controller is alive to act on it"
    return msgspec.structs.replace(alert, message=said, next="dsmt controllers", who="you")


def _half(sight: Sight, node: NodeRow) -> Alert | None:
    found = half_away(sight, node)
    if found is None:
        return None
    who, how, said = found
    next_ = f"{START_AGAIN} names a file that is damaged; else its log there says why it ends"
    if how == "silent":  # it hangs, and who keeps it did not end it, or hangs on the same disk
        elsewhere = f"to have what waits elsewhere: dsmt node drain {node.node}"
        next_ = f"see whether its disk answers, and look at its log there; {elsewhere}"
    return yours(f"node/{node.node}", f"node.{who}", said, next_)


def _of_clocks(living: Sequence[NodeRow]) -> list[Alert]:
    """Nodes whose clock is off; where those of most machines agree on another time than the realm's, that this is off."""
    whys = {node.node: why for node in living if (why := clock(node)) is not None}
    off = [node for node in living if node.node in whys]
    median_s = sorted(map(clock_offset_s, off))[len(off) // 2] if off else 0.0
    agree = [node for node in off if abs(clock_offset_s(node) - median_s) * 1000 <= FAR_MS]
    machines, told = len(_machines(agree)), list[Alert]()
    if machines >= 2 and 2 * machines > len(_machines(living)):
        told = [_of_realm_time([node.node for node in agree], median_s)]
        for node in agree:
            del whys[node.node]
    return told + [reasoned(f"node/{name}", why) for name, why in whys.items()]


def _machines(nodes: Iterable[NodeRow]) -> set[str]:
    """What machines these run on, each in one boot."""
    return {node.attributes["boot_id"] for node in nodes if node.attributes is not None}


def _of_realm_time(agree: Sequence[str], off_s: float) -> Alert:
    return yours(
        "realm",
        "realm.clock",
        f"the clocks of {some(agree)} agree, and are {off_by(off_s)}: it is realm time that is off",
        "set the clock where it comes from: that of the machines of dsmt brokers, on NATS that of its servers",
    )
