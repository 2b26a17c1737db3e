"""Routing: which subscription takes which row, and where each one stands.

Rule 1: a subscription is a cursor in the store. `live` means that it has everything up to the head and is given new
    rows as they are stored; otherwise it reads pages of the store from `after` on until it has caught up.
Rule 2: with `FACTS` it first reads the retained facts up to the head at its beginning (`began`), then goes on from there
    like every other. It is complete when it has caught up for the first time, not before: a retained fact that was
    superseded while the pages were read comes after `began`.
Rule 3: a reader that conflates reads retained facts and signals only; what was superseded before it got there is skipped.
Rule 4: what a reader has not consumed counts against its credit; without credit it stops being live and later reads
    on from the store. No reader can block a publisher.
Rule 5: a reader's token is answered in the order of the stream, when it has everything: at once if it is live (A4).
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
    most_credit: int
    after: int
    began: int
    """The head of the store when it began: what is behind it is live."""
    snapshot: bool
    """Whether it is still reading retained facts up to `began`."""
    live: bool = False
    completed: bool = False
    told_trimmed: bool = False
    token: int | None = None
    """What its reader asked to hear back as soon as it has everything; None when it waits for nothing (rule 5)."""
    served: int = 0
    """When its last page was read, in pages."""
    _exact: frozenset[str] = frozenset()
    _subtrees: tuple[str, ...] = ()
    _others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        plain = [pattern for pattern in self.patterns if "+" not in pattern]
        self._exact = frozenset(pattern for pattern in plain if not pattern.endswith("/"))
        self._subtrees = tuple("" if pattern == "/" else pattern for pattern in plain if pattern.endswith("/"))
        self._others = tuple(pattern for pattern in self.patterns if "+" in pattern)

    def takes(self, row: Row) -> bool:
        """Whether it takes a row."""
        if not self.signals and not row.fact:
            return False
        topic = row.topic
        if topic in self._exact or topic.startswith(self._subtrees):
            return True
        for pattern in self._others:
            if matches(pattern, topic):
                return True
        return self.name is not None and self.name in row.to

    def consumed(self, count: int) -> None:
        """Its reader has taken so many bytes."""
        self.credit = min(self.most_credit, self.credit + count)

    @property
    def winners_only(self) -> bool:
        """Whether its next page holds retained facts only, of the facts."""
        return self.snapshot or self.conflate

    @property
    def signals_too(self) -> bool:
        """Whether its next page holds signals beside the retained facts."""
        return self.conflate and self.signals and not self.snapshot


class Router(Generic[Owner]):
    """All subscriptions of a broker, and who takes a topic."""

    def __init__(self) -> None:
        self._all: dict[tuple[int, int], Subscription[Owner]] = {}
        self._owned: dict[int, dict[int, Subscription[Owner]]] = {}
        self._forget()

    def _forget(self) -> None:
        self._readers = lru_cache(maxsize=16384)(self._find)

    def add(self, subscription: Subscription[Owner]) -> None:
        """Take in a subscription; it takes the place of one with the same number. Raises `InputError` for a bad pattern."""
        for pattern in subscription.patterns:
            check_pattern(pattern)
        self.remove(subscription.owner, subscription.id)
        self._all[id(subscription.owner), subscription.id] = subscription
        self._owned.setdefault(id(subscription.owner), {})[subscription.id] = subscription
        self._forget()

    def remove(self, owner: Owner, number: int | None = None) -> None:
        """Forget one subscription of an owner, or all."""
        owned = self._owned.get(id(owner), {})
        gone = [n for n in owned if number is None or n == number]
        for one in gone:
            del owned[one], self._all[id(owner), one]
        if not owned:
            self._owned.pop(id(owner), None)
        if gone:
            self._forget()

    def get(self, owner: Owner, number: int) -> Subscription[Owner] | None:
        """One subscription of an owner."""
        return self._owned.get(id(owner), {}).get(number)

    def all(self) -> Iterable[Subscription[Owner]]:
        """Every subscription, oldest first."""
        return list(self._all.values())

    def of(self, owner: Owner) -> list[Subscription[Owner]]:
        """All subscriptions of an owner, oldest first."""
        return list(self._owned.get(id(owner), {}).values())

    def readers(self, row: Row) -> list[Subscription[Owner]]:
        """The live subscriptions that take a row."""
        return [s for s in self._readers(row.topic, row.to, row.fact) if s.live]

    def _find(self, topic: str, to: tuple[str, ...], fact: bool) -> tuple[Subscription[Owner], ...]:
        probe = Row(0, 0, topic, to, fact, b"", b"")
        return tuple(s for s in self._all.values() if s.takes(probe))
