"""Interests: which subscriptions take a topic, found level by level; and in which ranges of topics its facts stand.

Rule 1: what a row costs grows with the levels of its topic and with who takes it, not with who is there.
Rule 2: the ranges of some patterns hold every topic that they take, do not overlap, and may hold others.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final, Generic, TypeVar

Who = TypeVar("Who", bound=Hashable)
Range = tuple[str, str]
"""Topics from the first, it included, up to the second, it not."""
EVERYTHING: Final[Range] = ("", "{")
"""A topic begins with a-z, 0-9, `-`, `.` or `_`, all of which stand before `{`."""


class _Level(Generic[Who]):
    """What follows some levels: who takes the topic that ends here, who takes all below, and the next levels."""

    __slots__ = ("below", "here", "next")

    def __init__(self) -> None:
        self.here: dict[Who, None] = {}
        self.below: dict[Who, None] = {}
        self.next: dict[str, _Level[Who]] = {}

    def is_empty(self) -> bool:
        return not (self.here or self.below or self.next)


class Interests(Generic[Who]):
    """Patterns of topics (`event.topic`, rule 3), and whose they are."""

    def __init__(self) -> None:
        self._root: _Level[Who] = _Level()

    def add(self, who: Who, pattern: str) -> None:
        """Take in a pattern."""
        level = self._root
        for name in _levels(pattern):
            level = level.next.setdefault(name, _Level())
        (level.below if pattern.endswith("/") else level.here)[who] = None

    def remove(self, who: Who, pattern: str) -> None:
        """Forget a pattern that was taken in."""
        way = [self._root]
        names = _levels(pattern)
        for name in names:
            way.append(way[-1].next[name])
        del (way[-1].below if pattern.endswith("/") else way[-1].here)[who]
        for name, above, level in zip(reversed(names), way[-2::-1], way[:0:-1], strict=True):
            if not level.is_empty():
                break
            del above.next[name]

    def takers(self, topic: str) -> dict[Who, None]:
        """Who takes a topic, each once."""
        found: dict[Who, None] = {}
        reached = [self._root]
        for name in topic.split("/"):
            following: list[_Level[Who]] = []
            for level in reached:
                found.update(level.below)
                following += [level.next[one] for one in (name, "+") if one in level.next]
            if not following:
                return found
            reached = following
        for level in reached:
            found.update(level.here)
        return found


def _levels(pattern: str) -> list[str]:
    bare = pattern.rstrip("/")
    return bare.split("/") if bare else []


def ranges_of(patterns: Iterable[str]) -> list[Range]:
    """The ranges in which the topics of some patterns stand (rule 2)."""
    merged: list[Range] = []
    for low, high in sorted(map(_range, patterns)):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged


def _range(pattern: str) -> Range:
    prefix = pattern.partition("+")[0]
    if prefix in {"", "/"}:
        return EVERYTHING
    if prefix.endswith("/"):
        return prefix, f"{prefix[:-1]}0"  # what follows `/`
    return pattern, behind(pattern)


def next_topic(patterns: Iterable[str], topic: str) -> str | None:
    """The first topic after this one that a pattern may take; None if there is none.

    So what lies between two parts of what a pattern with `+` takes is passed over, not read.
    """
    found = [max(one, behind(topic)) for pattern in patterns if (one := _next(pattern, topic)) is not None]
    return min(found, default=None)


def _next(pattern: str, topic: str) -> str | None:
    wanted, told = _levels(pattern), topic.split("/")
    for place, (level, here) in enumerate(zip(wanted, told, strict=False)):
        if level in ("+", here):
            continue
        mine = here if place == len(told) - 1 else f"{here}/"  # some levels begin with what stands before `/`
        theirs = level if place == len(wanted) - 1 and not pattern.endswith("/") else f"{level}/"
        if mine < theirs:
            return "/".join((*told[:place], level))
        free = [one for one in range(place) if wanted[one] == "+"]
        return "/".join((*told[: free[-1]], f"{told[free[-1]]}0")) if free else None  # what follows `/`
    return behind(topic)


def behind(topic: str) -> str:
    """The first text behind a topic."""
    return f"{topic}\0"
