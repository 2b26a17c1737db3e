"""The plan of one decision: what it is made on, what it has planned on top of that, and what each part of it brings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from dsmt.controllers.brake import Brake
from dsmt.controllers.intents import Intent
from dsmt.event.envelope import EventId
from dsmt.event.kinds.slot import Good
from dsmt.event.reason import Reason
from dsmt.view import Fleet, SlotKey


class Plan:
    """The fleet and its brake, and what is planned on top of them: all that a decision changes while it is made."""

    def __init__(self, fleet: Fleet, brake: Brake) -> None:
        self.fleet, self.brake = fleet, brake
        self.allocations = fleet.view.allocations.trial()
        """What nodes have left once all that is planned is done."""
        self.endings: Counter[str] = Counter()
        """By node, how many of its orphans are ended."""


Kind = Literal["place", "adopt", "lost", "keep", "move", "moved", "hold", "release", "restart", "renew", "rollback"]


class ProposedAction(msgspec.Struct, frozen=True):
    """What is wanted for one slot, why, and from when (realm ms). `forced` moves count as moves."""

    key: SlotKey
    kind: Kind
    cause: tuple[EventId, ...]
    because: str
    gated: bool = False
    at_ms: int = 0
    target: str | None = None
    avoid: frozenset[str] = frozenset()
    reason: Reason | None = None
    forced: bool = False
    tied: bool = False
    """It goes to its target or nowhere."""
    back_to: Good | None = None
    """What to go back to, if it is refused where it stands."""


class Outcome(msgspec.Struct, frozen=True):
    """What deciding something brought: what to publish, and when (realm ms), or at what, to look again."""

    intents: tuple[Intent, ...] = ()
    wakes: tuple[int, ...] = ()
    look_at_all: bool = False
    """Any event of the service needs a look at all of it."""
    no_place: bool = False
    """It waits for nodes to change."""

    @staticmethod
    def look_again(*at_ms: int) -> Outcome:
        """To look at all of the service again at these times, and at any event of it before."""
        return Outcome(wakes=at_ms, look_at_all=True)

    @staticmethod
    def merged(outcomes: Iterable[Outcome]) -> Outcome:
        """All of them as one, in their order."""
        parts = list(outcomes)
        if len(parts) <= 1:  # most slots are as they should be, and most others want one thing
            return parts[0] if parts else NOTHING
        return Outcome(
            tuple(intent for part in parts for intent in part.intents),
            tuple(wake for part in parts for wake in part.wakes),
            any(part.look_at_all for part in parts),
            any(part.no_place for part in parts),
        )


NOTHING: Final = Outcome()
NO_PLACE: Final = Outcome(no_place=True)
"""It waits for nodes to change."""
LOOK_AT_ALL: Final = Outcome(look_at_all=True)
"""Any event of the service may concern it."""
