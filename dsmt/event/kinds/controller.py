"""Controllers: that they are there, and what their decisions rest on."""

from __future__ import annotations

from typing import Final

import msgspec

from dsmt.event.envelope import Event
from dsmt.event.kinds.numbers import Count, Ms
from dsmt.event.kinds.row import DAY_MS, KindRow, fact, signal


class ControllerState(msgspec.Struct, frozen=True, kw_only=True):
    """A controller, live while its session is open. `ruleset` is A10's number."""

    version: str
    ruleset: Count
    pid: Count | None
    decisions: Count


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs of one batch of decisions (H2): enough to fold and decide again, and compare."""

    store: str
    row: Count
    view_digest: bytes
    now_ms: Ms
    ruleset: Count
    broker: str
    may_accuse: bool
    produced: tuple[str, ...]


def _state(_: Event, said: ControllerState) -> str:
    return f"is up: version {said.version}, ruleset {said.ruleset}"


def _decision(_: Event, said: Decision) -> str:
    facts = "1 fact" if len(said.produced) == 1 else f"{len(said.produced)} facts"
    return f"decides {facts} at row {said.row} of {said.broker}"


ROWS: Final[tuple[KindRow, ...]] = (
    fact(
        "controller/<controller>/state", "dsmt.controller.state", "controller/<controller>", ControllerState, _state,
        ttl_ms=DAY_MS, folded=True,
    ),
    signal(
        "controller/<controller>/decision", "dsmt.decision", "controller/<controller>", Decision, _decision,
        budget="evidence",
    ),
)  # fmt: skip
