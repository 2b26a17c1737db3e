"""The screen of `why`: one sentence that answers, then the events that it follows from, as a tree.

Rule 1: a cause stands below what it caused; several causes of one event stand side by side, counted and indented where
    they have causes themselves.
Rule 2: an event is shown once, also where events name each other in a circle; where it is a cause again, one line names
    it. Of many such lines the first are shown, and the others counted.
Rule 3: what repeats in a row (a program that fails again and again) is shown once, and then counted; `--events` shows all.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from dsmt.cli.printing import fitted, one_line
from dsmt.event.phrases import counted, speaker
from dsmt.operations.read.why.explaining import CauseLink, Explained
from dsmt.operations.words.times import local, milliseconds

_INDENT: Final = 2
_DEEPEST: Final = 40
"""Causes of causes stand no further in than this."""
_TIME: Final = 14
_AGAIN_MOST: Final = 200
"""Of causes that were shown before, so many are named again."""
_LONGEST_LOOP: Final = 6


def screen(found: Explained, *, events: bool, width: int | None = None) -> list[str]:
    """An explanation as people read it, in `width` columns."""
    tree = _Tree(found, events=events, width=width)
    lines = [*tree.wrapped(one_line(found.says), 0), "", *tree.lines()]
    if found.complete:
        lines.append("  nothing earlier is named as a cause.")
    lines += [f"  {one} is named as a cause, but {_lack(found, one)}." for one in found.missing]
    if found.cut:
        causes = counted(len(found.cut), "earlier cause")
        verb = "is" if len(found.cut) == 1 else "are"
        lines.append(f"  {causes} {verb} not shown: --depth ends here; a greater --depth shows more.")
    lines += [line for link in found.overruled for line in tree.overruled(link)]
    signers = {speaker(link.event["source"]) for link in found.chain}
    bad = sum(not link.event["verified"] for link in found.chain)
    verified = f"{bad} NOT VERIFIED" if bad else "all verified"
    gap = "no gap" if found.complete else "not complete"
    return [*lines, "", f"{counted(len(found.chain), 'event')}, {counted(len(signers), 'signer')}, {verified}, {gap}."]


def _lack(found: Explained, one: str) -> str:
    """Why a cause is not shown."""
    if one not in found.disowned:
        return "is not in the history"
    return f"a key of {one.partition('#')[0]} was revoked, and nobody believes what it signed"


class _Tree:
    def __init__(self, found: Explained, *, events: bool, width: int | None) -> None:
        self._links = {name(link): link for link in found.chain}
        self._events, self._width = events, width
        self._shown: set[str] = set()
        self._tops = _tops(self._links)
        self._named = {one: _in_order(self._links, link.because) for one, link in self._links.items()}

    def overruled(self, link: CauseLink) -> list[str]:
        """A word that does not stand, and what to do about it."""
        at = local(milliseconds(link.event["time"]), milli=True)
        lost = "overruled by what was said on the other side of a partition"
        said = self.wrapped(f"{at}  {one_line(link.says)}: {lost}; repeat this one if you still want it", _INDENT)
        return [f"{' ' * _INDENT}{one}" for one in said]

    def lines(self) -> list[str]:
        """All of it. Whoever signs an event says what caused it, and so how deep this goes: what is left waits here."""
        lines: list[str] = []
        left, again = self._beside(self._tops, _INDENT), 0
        while left:
            head, begin, indent = left.pop()
            again += begin in self._shown
            if begin in self._shown and again > _AGAIN_MOST and not self._events:
                continue
            chain, causes = self._chain(begin, indent)
            lines += [*head, *chain]
            left += self._beside(causes, indent)
        more = 0 if self._events else again - _AGAIN_MOST
        return [
            *lines,
            *([f"  and {counted(more, 'more cause')} that stand above: --events names each"] if more > 0 else ()),
        ]

    def _beside(self, names: Sequence[str], indent: int) -> list[tuple[list[str], str, int]]:
        """Events side by side, the last one first: what stands above each, its name and its indent."""
        plain = len(names) == 1 or not any(self._causes(self._links[one]) for one in names)
        inner = indent if plain else min(indent + _INDENT, _DEEPEST)
        heads = [[] if plain else [f"{' ' * indent}{number} of {len(names)}:"] for number in range(1, len(names) + 1)]
        return [(head, one, inner) for head, one in zip(heads, names, strict=True)][::-1]

    def _chain(self, begin: str, indent: int) -> tuple[list[str], list[str]]:
        """One event, and what led to it as long as that is one thing; then the causes that stand side by side."""
        if begin in self._shown:
            return [self._again(begin, indent)], []
        straight = self._straight(begin)
        lines: list[str] = []
        for item in _folded(straight, whole=self._events):
            if isinstance(item, _Repeated):
                lines += item.lines(indent)
                continue
            lines += [f"{' ' * indent}because"] if lines else []
            lines += self._event(item, indent)
        causes = self._causes(straight[-1])
        if len(causes) == 1:
            return [*lines, self._again(causes[0], indent)], []
        if causes:
            lines.append(f"{' ' * indent}because of all {len(causes)} of these")
        return lines, causes

    def _straight(self, begin: str) -> list[CauseLink]:
        """From an event on as long as each has one cause, which was not shown yet."""
        found = [self._links[begin]]
        self._shown.add(begin)
        while len(causes := self._causes(found[-1])) == 1 and causes[0] not in self._shown:
            found.append(self._links[causes[0]])
            self._shown.add(causes[0])
        return found

    def _causes(self, link: CauseLink) -> list[str]:
        return self._named[name(link)]

    def _again(self, one: str, indent: int) -> str:
        link = self._links[one]
        return fitted(f"{' ' * indent}because, as above: {_time(link)}  {one_line(link.says)}", self._width)

    def _event(self, link: CauseLink, indent: int) -> list[str]:
        pad = " " * (indent + _TIME)
        text = self.wrapped(one_line(link.says), indent + _TIME)
        signed = f"signed {link.event['source']}"
        word = "verified" if link.event["verified"] else "NOT VERIFIED"
        lines = [f"{' ' * indent}{_time(link)}  {text[0]}", *(f"{pad}{one}" for one in text[1:])]
        lines.append(f"{pad}{signed:<40} #{link.event['id'].rsplit('-', 1)[1]:<6} {word}")
        return [*lines, f"{pad}{name(link)}  {link.event['topic']}"] if self._events else lines

    def wrapped(self, text: str, taken: int) -> list[str]:
        """A text in lines, when there is a width to keep."""
        if self._width is None:
            return [text]
        return textwrap.wrap(text, max(20, self._width - taken), break_on_hyphens=False) or [""]


def _in_order(links: Mapping[str, CauseLink], names: Iterable[str]) -> list[str]:
    """Those of some events that are shown, the newest first."""
    named = set(names)
    return [one for one in links if one in named]


def _tops(links: Mapping[str, CauseLink]) -> list[str]:
    """The events with which it begins: what no other is caused by, and one of those that name each other in a circle."""
    caused = {one for link in links.values() for one in link.because}
    tops, reached = list[str](), set[str]()
    for top in sorted(links, key=lambda one: one in caused):
        if top in reached:
            continue
        tops.append(top)
        todo = [top]
        while todo:
            one = todo.pop()
            if one in links and one not in reached:
                reached.add(one)
                todo += links[one].because
    return tops


class _Repeated:
    """So many of the same again: what a loop is folded into."""

    def __init__(self, times: int, oldest: CauseLink) -> None:
        self._times, self._oldest = times, oldest

    def lines(self, indent: int) -> list[str]:
        """Its one line."""
        times = "once more" if self._times == 1 else f"{self._times} more times"
        return [f"{' ' * indent}and the same {times}, back to {_time(self._oldest)}"]


def _folded(links: Sequence[CauseLink], *, whole: bool) -> list[CauseLink | _Repeated]:
    """The events with each loop once, and how often it was gone through (rule 3)."""
    found: list[CauseLink | _Repeated] = []
    at = 0
    while at < len(links):
        period, rounds = (0, 1) if whole else _loop([_kind(link) for link in links[at:]])
        if rounds == 1:
            found.append(links[at])
            at += 1
            continue
        found += [*links[at : at + period], _Repeated(rounds - 1, links[at + period * rounds - 1])]
        at += period * rounds
    return found


def _loop(kinds: Sequence[Any]) -> tuple[int, int]:
    """The shortest loop that begins here: how many events it has, and how often it is gone through."""
    for period in range(1, _LONGEST_LOOP + 1):
        first, rounds = kinds[:period], 1
        while len(first) == period and kinds[period * rounds : period * (rounds + 1)] == first:
            rounds += 1
        if rounds > 1:
            return period, rounds
    return 0, 1


def _kind(link: CauseLink) -> tuple[Any, ...]:
    """What makes two events say the same, but for times and numbers."""
    data = link.event["data"]
    why = data.get("reason")
    code = why.get("code") if isinstance(why, dict) else why
    return link.event["topic"], link.event["type"], data.get("state"), data.get("node"), code


def _time(link: CauseLink) -> str:
    return local(milliseconds(link.event["time"]), milli=True)


def name(link: CauseLink) -> str:
    """The id of a link's event."""
    return f"{link.event['source']}#{link.event['id']}"
