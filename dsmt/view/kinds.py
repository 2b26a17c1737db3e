"""Kinds: which facts the view folds, told from the levels of a topic (docs/reference/topics.md); all else passes by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from dsmt.event import records as r

PATTERNS: Final = (
    "node/+/attributes", "node/+/probe/+", "node/+/verdict", "node/+/control", "broker/+/session/",
    "controller/+/state", "nodeset/+", "config/brake", "tombstone/", "trust/revoked/", "service/+/spec",
    "service/+/control/", "service/+/slot/", "service/+/status/", "service/+/health/", "service/+/endpoint/",
)  # fmt: skip
"""What to subscribe to for a whole view: exactly the topics that `kind_of` takes."""


class Kind(NamedTuple):
    """A kind of fact: its record, and how many levels its topics have (`more`: or more than that)."""

    name: str
    record: type[msgspec.Struct]
    levels: int
    more: bool = False


_KINDS: Final[Mapping[str, Kind]] = {
    f"{kind.name.split('.', 1)[0]}/{kind.name.split('.', 1)[1]}": kind
    for kind in (
        Kind("node.attributes", r.NodeAttributes, 3),
        Kind("node.probe", r.Probe, 4),
        Kind("node.verdict", r.NodeVerdict, 3),
        Kind("node.control", r.NodeControl, 3),
        Kind("broker.session", r.Session, 4, more=True),
        Kind("controller.state", r.ControllerState, 3),
        Kind("service.spec", r.SpecFact, 3),
        Kind("service.control", r.SlotControl, 5),
        Kind("service.slot", r.Slot, 5),
        Kind("service.status", r.Status, 7),
        Kind("service.health", r.Health, 6),
        Kind("service.endpoint", r.Endpoint, 6),
    )
}
_NODESET: Final = Kind("nodeset", r.NodesetFact, 2)
_BRAKE: Final = Kind("brake", r.Brake, 2)
_TOMBSTONE: Final = Kind("tombstone", r.Tombstone, 3)
_REVOKED: Final = Kind("revoked", r.Revoked, 3, more=True)
"""Says nothing to decisions; who holds it brings it to a store that has lost it (R5)."""


def kind_of(topic: str, levels: list[str]) -> Kind | None:
    """The kind of the facts on a topic, or None for one that the view does not fold."""
    first = levels[0]
    if first == "tombstone":
        kind: Kind | None = _TOMBSTONE
    elif first == "trust":
        kind = _REVOKED if levels[1:2] == ["revoked"] else None
    elif len(levels) == 2:
        kind = _NODESET if first == "nodeset" else _BRAKE if topic == "config/brake" else None
    else:
        kind = _KINDS.get(f"{first}/{levels[2]}") if len(levels) > 2 else None
    if kind is None or (len(levels) != kind.levels and not (kind.more and len(levels) > kind.levels)):
        return None
    return kind
