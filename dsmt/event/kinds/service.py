"""Services: what operators want them to be, and what their instances say to each other."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from dsmt.event.envelope import Event
from dsmt.event.kinds.row import AGENT, DAY_MS, KindRow, fact
from dsmt.event.phrases import whose


class SpecFact(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator wants a service to be; its version is the revision. `removed` ends the service.

    `same` names those before it that said the same but for how many instances there are, by their events' ids, the newest
    first; what was good, or refused, in one of these was so in this one.
    `earlier` is what specs that slots may go back to said otherwise of where instances may be: by their event's id, by
    component, by field.
    """

    spec: dict[str, Any]
    by: str
    reason: str
    removed: bool = False
    same: tuple[str, ...] = ()
    earlier: dict[str, dict[str, dict[str, Any]]] = {}


def _spec(event: Event, said: SpecFact) -> str:
    verb = "is removed" if said.removed else f"is r{event.version}, applied"
    return f"{verb} by {whose(said.by, event.source, said.reason)}"


ROWS: Final[tuple[KindRow, ...]] = (
    fact("service/<service>/spec", "dsmt.service.spec", ("operator",), SpecFact, _spec, folded=True),
    KindRow(
        "service/<service>/barrier/<name>/arrived/<component>/<index>/<node>", "dsmt.barrier.arrived", "fact", AGENT,
        ttl_ms=DAY_MS,
    ),
    KindRow("service/<service>/barrier/<name>/released", "dsmt.barrier.released", "fact", ("controller",)),
    KindRow("app/<service>/<name/>", "dsmt.app", None, ("agent",), budget="signal"),
)  # fmt: skip
