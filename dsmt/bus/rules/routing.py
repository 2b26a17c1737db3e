"""Routing: which subscription takes which row, and where each one stands.

Rule 1: a subscription is a cursor in the store. `live` means that it has everything up to the head and is given new
    rows as they are stored; otherwise it reads pages of the store from `after` on until it has caught up.
Rule 2: with `FACTS` it first reads the retained facts up to the head at its beginning (`began`), in the ranges of topics
    where its own stand and then what is addressed to it, and goes on from there like every other. It is complete when it
    has caught up for the first time, not before: a retained fact that was superseded while the pages were read comes
    after `began`.
Rule 3: a reader that conflates reads retained facts and signals only; what was superseded before it got there is skipped.
Rule 4: what a reader has not consumed counts against its credit; without credit it stops being live and later reads
    on from the store. No reader can block a publisher.
Rule 5: a reader's token is answered in the order of the stream, when it has everything: at once if it is live (A4). For
    `ASKS` looks after that no bookmark is sent to it but for what is new: it would be woken twice to learn the same.
Rule 6: who reads the history of few topics, all of signals that are evidence (commands), reads nothing else: what an agent
    costs that comes, or comes back, does not grow with what others have said.
    Who reads the history of any other part of the topics (`ranges`) and is far behind has the store look for that part, in
    stretches of `STRETCH` rows: what the answer to one question costs grows little with what others have said.
Rule 7: a broker that keeps a copy is not sent what is live and was brought by itself, or by another that sends it to it.
    What it reads as history it is sent whole: so nothing is missing where one of them was lost in between (E1).
Rule 8: what stands again, for what had displaced it is void (J3), stands in an older row than readers have: who conflates is
    sent it beside what is new, or reads on from there, also who was away then. But who takes signals is not sent back:
    it would get them twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from dsmt.bus.rules.interests import EVERYTHING, Interests, Range, behind, next_topic, ranges_of
from dsmt.event.registry import is_evidence
from dsmt.event.topic import check_pattern, matches
from dsmt.ports.store import Row

Owner = TypeVar("Owner")
ASKS: Final = 4
OVERLAP_MS: Final = 60_000
"""How far a cursor of another store is rewound (rule D3)."""
STRETCH: Final = 4096
"""In how many rows the store looks for what a reader takes."""
NEAR: Final = 256
"""Who is no further behind reads the page that others read: it has all of it then, though much is stored meanwhile."""
INDEXED: Final = 16
"""Of how many topics a reader may be for the store to look for them one by one."""


@dataclass(slots=True)
class Snapshot:
    """What is left to be read of retained facts: ranges of topics, and behind which row what is addressed to the reader."""

    ranges: list[Range]
    mail: int | None

    @property
    def is_done(self) -> bool:
        """Whether nothing is left."""
        return not self.ranges and self.mail is None

    def go_on_at(self, row: Row) -> None:
        """A row of what is read now is the next one to be sent."""
        if self.ranges:
            self.ranges[0] = (row.topic, self.ranges[0][1])
        else:
            self.mail = row.row - 1

    def go_on_behind(self, row: Row | None, following: str | None) -> None:
        """What is read now goes on behind a row, at the topic `following`; None: it has ended."""
        if self.ranges and row is not None and following is not None and following < self.ranges[0][1]:
            self.ranges[0] = (following, self.ranges[0][1])
        elif self.ranges:
            del self.ranges[0]
        else:
            self.mail = None if row is None else row.row


@dataclass(slots=True, eq=False)
class BrokerSubscription(Generic[Owner]):
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
    snapshot: Snapshot | None
    """What it still has to read of the retained facts up to `began`; None when it has them."""
    live: bool = False
    completed: bool = False
    told_trimmed: int = 0
    """Up to which row its reader was told that what it reads was trimmed."""
    asks: int = 0
    """For so many looks its reader, who was answered a token, is taken to ask again by itself (rule 5)."""
    token: int | None = None
    """What its reader asked to hear back as soon as it has everything; None when it waits for nothing (rule 5)."""
    copies: frozenset[str] | None = None
    """Not None: it is a broker's, which keeps a copy; what is live and was brought by these it has from themselves (E1)."""
    served: int = 0
    """When its last page was read, in pages."""
    evidence: tuple[str, ...] = ()
    """Its topics when all of them are of signals that are evidence: the store has an index of these (rule 6)."""
    ranges: tuple[Range, ...] = ()
    """Where its topics stand, when it reads history and takes not all of them (rule 6)."""
    _exact: frozenset[str] = frozenset()
    _subtrees: tuple[str, ...] = ()
    _others: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What is left, by the first level of what may be taken: in each row, and in that of "", are those that take any."""

    def __post_init__(self) -> None:
        plain = [pattern for pattern in self.patterns if "+" not in pattern]
        self._exact = frozenset(pattern for pattern in plain if not pattern.endswith("/"))
        self._subtrees = tuple("" if pattern == "/" else pattern for pattern in plain if pattern.endswith("/"))
        others = [(pattern.partition("/")[0], pattern) for pattern in self.patterns if "+" in pattern]
        firsts = dict.fromkeys(["", *(first for first, _ in others)])
        self._others = {one: tuple(pattern for first, pattern in others if first in (one, "+")) for one in firsts}
        if self.signals and self.name is None and len(self._exact) == len(self.patterns) <= INDEXED:
            self.evidence = self.patterns if all(map(is_evidence, self.patterns)) else ()
        facts_only = self.conflate and not self.signals  # the store has an index of these
        found = [] if facts_only or self.evidence else ranges_of(self.patterns)
        self.ranges = tuple(found) if EVERYTHING not in found and len(found) <= INDEXED else ()

    def stretch(self, head: int) -> int:
        """Up to which row the store looks for what it takes; 0 where it reads all rows (rule 6)."""
        return min(self.after + STRETCH, head) if self.ranges and head - self.after > NEAR else 0

    def takes(self, row: Row) -> bool:
        """Whether it takes a row."""
        if not self.signals and not row.fact:
            return False
        return self.takes_topic(row.topic) or (self.name is not None and self.name in row.to)

    def takes_topic(self, topic: str) -> bool:
        """Whether one of its patterns takes a topic."""
        if topic in self._exact or topic.startswith(self._subtrees):
            return True
        others = self._others.get(topic.partition("/")[0], self._others[""])
        return any(matches(pattern, topic) for pattern in others)

    def has(self, brought: str) -> bool:
        """Whether this subscriber reads that broker itself: live events that it brought need not be sent."""
        return self.copies is not None and brought in self.copies

    def following(self, topic: str) -> str | None:
        """Where retained facts that it may take go on behind a topic; None: there are none."""
        return behind(topic) if self.takes_topic(topic) else next_topic(self.patterns, topic)

    def consumed(self, count: int) -> None:
        """Its reader has taken so many bytes."""
        self.credit = min(self.most_credit, self.credit + count)


class Router(Generic[Owner]):
    """All subscriptions of a broker, who takes a topic, and who is behind."""

    def __init__(self) -> None:
        self._all: dict[tuple[int, int], BrokerSubscription[Owner]] = {}
        self._owned: dict[int, dict[int, BrokerSubscription[Owner]]] = {}
        self._interests: Interests[BrokerSubscription[Owner]] = Interests()
        self._inboxes: dict[str, dict[BrokerSubscription[Owner], None]] = {}
        self._behind: dict[BrokerSubscription[Owner], None] = {}
        self._copies: dict[BrokerSubscription[Owner], None] = {}
        """Those by which a copy is kept: asked for with each acknowledgement, so they are not looked for among all."""
        self._again = 2**63, -1
        """Behind which row something stands again, and when that came to stand at the latest (realm ms)."""

    def add(self, subscription: BrokerSubscription[Owner]) -> None:
        """Take in a subscription; it takes the place of one with the same number. Raises `InputError` for a bad pattern."""
        for pattern in subscription.patterns:
            check_pattern(pattern)
        self.remove(subscription.owner, subscription.id)
        self._all[id(subscription.owner), subscription.id] = subscription
        self._owned.setdefault(id(subscription.owner), {})[subscription.id] = subscription
        for pattern in dict.fromkeys(subscription.patterns):
            self._interests.add(subscription, pattern)
        if subscription.name is not None:
            self._inboxes.setdefault(subscription.name, {})[subscription] = None
        self._behind[subscription] = None
        if subscription.copies is not None:
            self._copies[subscription] = None

    def remove(self, owner: Owner, number: int | None = None) -> None:
        """Forget one subscription of an owner, or all."""
        owned = self._owned.get(id(owner), {})
        for one in [n for n in owned if number is None or n == number]:
            self._forget(self._all.pop((id(owner), one)))
            del owned[one]
        if not owned:
            self._owned.pop(id(owner), None)

    def _forget(self, subscription: BrokerSubscription[Owner]) -> None:
        for pattern in dict.fromkeys(subscription.patterns):
            self._interests.remove(subscription, pattern)
        if subscription.name is not None:
            inbox = self._inboxes[subscription.name]
            del inbox[subscription]
            if not inbox:
                del self._inboxes[subscription.name]
        self._behind.pop(subscription, None)
        self._copies.pop(subscription, None)

    def set_live(self, subscription: BrokerSubscription[Owner], *, live: bool) -> None:
        """A subscription has everything, or has it no more."""
        subscription.live = live
        if live:
            self._behind.pop(subscription, None)
        else:
            self._behind[subscription] = None

    def elected(self, rows: Iterable[Row], now_ms: int) -> list[BrokerSubscription[Owner]]:
        """These stand again: to whom that is to be told (rule 8)."""
        first = min(row.row for row in rows)
        self._again = min(first - 1, self._again[0]), now_ms
        return [one for one in self._all.values() if one.conflate]

    def go_back(self, subscription: BrokerSubscription[Owner]) -> None:
        """Who could not be told what stands again reads on from there (rule 8)."""
        if subscription.signals:
            return
        if subscription.snapshot is not None:
            mail = None if subscription.name is None else 0
            subscription.snapshot = Snapshot(ranges_of(subscription.patterns), mail)
        subscription.after = min(subscription.after, self._again[0])
        self.set_live(subscription, live=False)

    def place(self, row: int, time_ms: int, *, goes_back: bool) -> int:
        """From where a reader goes on that was away: it has read up to a row, and that at a time (rule 8)."""
        after, at_ms = self._again
        return min(row, after) if goes_back and time_ms <= at_ms else row

    def behind(self) -> list[BrokerSubscription[Owner]]:
        """Who is not live and has credit."""
        return [one for one in self._behind if one.credit > 0]

    def get(self, owner: Owner, number: int) -> BrokerSubscription[Owner] | None:
        """One subscription of an owner."""
        return self._owned.get(id(owner), {}).get(number)

    def all(self) -> Iterable[BrokerSubscription[Owner]]:
        """Every subscription, oldest first."""
        return list(self._all.values())

    def copying(self) -> list[Owner]:
        """Who keeps a copy, and is live."""
        return list(dict.fromkeys(one.owner for one in self._copies if one.live))

    def of(self, owner: Owner) -> list[BrokerSubscription[Owner]]:
        """All subscriptions of an owner, oldest first."""
        return list(self._owned.get(id(owner), {}).values())

    def readers(self, topic: str, to: Iterable[str], *, fact: bool, brought: str) -> list[BrokerSubscription[Owner]]:
        """The live subscriptions that take what is on a topic, addressed to some, and brought by a broker or by none."""
        takers = self._interests.takers(topic)
        for name in to:
            takers.update(self._inboxes.get(name, {}))
        return [one for one in takers if one.live and (fact or one.signals) and not (brought and one.has(brought))]
