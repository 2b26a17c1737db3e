"""The plan of one decision: what it has planned so far on top of what facts say, and what deciding a part of it brought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from dsmt.controllers.intents import Intent
from dsmt.view import View


class Plan:
    """What is planned so far: the only thing that a decision changes while it is made. The view stays as it is."""

    def __init__(self, view: View) -> None:
        self.allocations = view.allocations.trial()
        """What nodes have left once all that is planned is done."""
        self.endings: Counter[str] = Counter()
        """By node, how many of its orphans are ended."""


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
