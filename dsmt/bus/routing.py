"""Routing: which subscription takes which row, and where each one stands.

Rule 1: a subscription is a cursor in the store. `live` means that it has everything up to the head and is given new
    rows as they are stored; otherwise it reads pages of the store from `after` on until it has caught up.
Rule 2: with `FACTS` it first reads the retained facts up to the head at its beginning (`complete_at`), then goes on: an
    unconflated one with all rows from there, a conflated one with retained facts only. Both meet without a hole.
Rule 3: what a reader has not consumed counts against its credit; without credit it stops being live and later reads
    on from the store, where superseded facts are skipped if it conflates. No reader can block a publisher.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from dsmt.event.topic import check_pattern, matches
from dsmt.ports.store import Row

Owner = TypeVar("Owner")


@dataclass(slots=True, eq=False)
class Subscription(Generic[Owner]):
    """One reader's interest and place. `after` is the last row it has been given, or skipped."""

    owner: Owner
    id: int
    patterns: tuple[str, ...]
    name: str | None
    """The reader's own name, when events addressed to it are taken too."""
    conflate: bool
    signals: bool
    bookmarks: bool
    credit: int
    after: int
    complete_at: int
    snapshot: bool
    """Whether it is still reading retained facts up to `complete_at`."""
    live: bool = False
    completed: bool = False

    def takes(self, row: Row) -> bool:
        """Whether it takes a row."""
        if not self.signals and not row.fact:
            return False
        return any(matches(p, row.topic) for p in self.patterns) or (self.name is not None and self.name in row.to)

    @property
    def winners_only(self) -> bool:
        """Whether its next page holds retained facts only."""
        return self.snapshot or (self.conflate and not self.signals)


class Router(Generic[Owner]):
    """All subscriptions of a broker, and who takes a topic."""

    def __init__(self) -> None:
        self._all: dict[tuple[int, int], Subscription[Owner]] = {}
        self._forget()

    def _forget(self) -> None:
        self._readers = lru_cache(maxsize=16384)(self._find)

    def add(self, subscription: Subscription[Owner]) -> None:
        """Take in a subscription."""
        for pattern in subscription.patterns:
            check_pattern(pattern)
        self._all[id_of(subscription)] = subscription
        self._forget()

    def remove(self, owner: Owner, number: int | None = None) -> None:
        """Forget one subscription of an owner, or all."""
        gone = [k for k, s in self._all.items() if s.owner is owner and (number is None or s.id == number)]
        for key in gone:
            del self._all[key]
        if gone:
            self._forget()

    def get(self, owner: Owner, number: int) -> Subscription[Owner] | None:
        """One subscription of an owner."""
        return next((s for s in self._all.values() if s.owner is owner and s.id == number), None)

    def all(self) -> Iterable[Subscription[Owner]]:
        """Every subscription, oldest first."""
        return list(self._all.values())

    def of(self, owner: Owner) -> list[Subscription[Owner]]:
        """All subscriptions of an owner, oldest first."""
        return [s for s in self._all.values() if s.owner is owner]

    def readers(self, row: Row) -> tuple[Subscription[Owner], ...]:
        """The live subscriptions that take a row."""
        return tuple(s for s in self._readers(row.topic, row.to, row.fact) if s.live)

    def _find(self, topic: str, to: tuple[str, ...], fact: bool) -> tuple[Subscription[Owner], ...]:
        probe = Row(0, 0, topic, to, fact, b"", b"")
        return tuple(s for s in self._all.values() if s.takes(probe))


def id_of(subscription: Subscription[Owner]) -> tuple[int, int]:
    """A key for a subscription: where its owner is, and its number there."""
    return (id(subscription.owner), subscription.id)
