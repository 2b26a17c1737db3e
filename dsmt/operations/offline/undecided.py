"""Undecided: what controllers said for all, and no decision of theirs names (rule H2).

Rule 1: a controller that publishes what it decided says a decision right behind it, which names it. What no decision of
    its source names nobody has decided from anything that was said.
Rule 2: what a revoked key had said is said again with the same content, and that is no decision (J3).
Rule 3: this is told only where the decision would be in the file: those of its source before and behind the fact follow each
    other; or there is none behind it, though the file goes on for `SOON_MS`, and nothing of then has been trimmed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from math import inf
from typing import Final

from dsmt.controllers.replay import RevokedAt, Rows
from dsmt.event.envelope import SignedEvent
from dsmt.event.registry import is_fact

DECISION: Final = "dsmt.decision"
SOON_MS: Final = 10_000
"""Within this time a decision is stored behind what it names."""


def undecided(rows: Rows, ended: RevokedAt, until_ms: int) -> list[SignedEvent]:
    """The facts of controllers that no decision names, in order.

    `ended` tells which keys were revoked, and `until_ms` up to when the file goes on.
    """
    return _Undecided(rows, until_ms).found(ended)


class _Undecided:
    def __init__(self, rows: Rows, until_ms: int) -> None:
        self._rows, self._until_ms = rows.needed, until_ms - SOON_MS
        self._named: set[tuple[str, str]] = set()
        """By source, the ids that its decisions name."""
        self._decisions: defaultdict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        """By source and incarnation, the sequence of each decision, and its number among them."""
        self._begins: float = inf
        """The first row that holds a decision: evidence of then has not been trimmed."""
        for row, signed in self._rows:
            event = signed.event
            if event.type == DECISION:
                self._named.update((event.source, one) for one in event.data.get("produced", ()))
                self._decisions[event.source, event.incarnation].append((event.sequence, event.chain.number))
                self._begins = min(self._begins, row)
        for said in self._decisions.values():
            said.sort()
        numbers = rows.numbers
        behind = (n for n in range(len(numbers) - 1, 0, -1) if numbers[n] != numbers[n - 1] + 1)
        self._absent = next((numbers[n] - 1 for n in behind), 0)
        """The last row that is not in the file, of those behind its first one."""

    def found(self, ended: RevokedAt) -> list[SignedEvent]:
        void: defaultdict[str, list[object]] = defaultdict(list)
        found = []
        for row, signed in self._rows:
            event = signed.event
            if not is_fact(event) or event.version is None or not event.source.startswith("controller/"):
                continue
            is_named = (event.source, str(signed.id)) in self._named
            if not is_named and event.data not in void[event.topic] and self._would_be_there(row, signed):
                found.append(signed)
            if ended(signed) < inf:
                void[event.topic].append(event.data)
        return found

    def _would_be_there(self, row: int, signed: SignedEvent) -> bool:
        """Whether the file would hold the decision that names it (rule 3)."""
        event = signed.event
        said = self._decisions.get((event.source, event.incarnation), [])
        at = bisect_right(said, (event.sequence, 0))
        if at < len(said):
            return said[at][1] == (said[at - 1][1] + 1 if at else 1)
        return event.time_ms < self._until_ms and (row > self._absent or row > self._begins)
