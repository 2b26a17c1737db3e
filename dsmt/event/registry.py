"""The registry of topics: what may be said where, by whom, and how it is kept (docs/reference/topics.md).

Rule 1: a topic that no row takes cannot be published; the first row that takes it is its row.
Rule 2: grants, what is taken of an event (`taken`), fact order, time to live, budget, what a view folds and the sentence
    that people read follow from the row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import count
from typing import Final, NamedTuple

from dsmt.errors import UnusableEventError
from dsmt.event.envelope import Event
from dsmt.event.kinds import broker, controller, instance, joining, node, realm, service, slot, source
from dsmt.event.kinds.row import KindRow
from dsmt.event.records import from_data
from dsmt.event.topic import MAX_LEVELS, matches

TOPICS: Final[tuple[KindRow, ...]] = (
    *source.ROWS,
    *node.ROWS,
    *broker.ROWS,
    *controller.ROWS,
    *service.ROWS,
    *slot.ROWS,
    *instance.ROWS,
    *joining.ROWS,
    *realm.ROWS,
)


class Match(NamedTuple):
    """A topic's row and what its named levels are."""

    row: KindRow
    levels: Mapping[str, str]


def _compile(row: KindRow) -> re.Pattern[str]:
    def group(found: re.Match[str]) -> str:
        name = found[1]
        return f"(?P<{name[:-1]}>.+)" if name.endswith("/") else f"(?P<{name}>[^/]+)"

    return re.compile(re.sub(r"<([a-z]+/?)>", group, row.template))


def _by_first_level() -> Mapping[str, list[tuple[re.Pattern[str], KindRow]]]:
    found: dict[str, list[tuple[re.Pattern[str], KindRow]]] = {}
    for row in TOPICS:
        found.setdefault(row.template.split("/", 1)[0], []).append((_compile(row), row))
    return found


_ROWS: Final = _by_first_level()


def _find(topic: str) -> tuple[KindRow, re.Match[str]] | None:
    for pattern, row in _ROWS.get(topic.split("/", 1)[0], ()):
        found = pattern.fullmatch(topic)
        if found is not None:
            return row, found
    return None


@lru_cache(maxsize=65536)
def lookup(topic: str) -> Match | None:
    """The first row that takes the topic, with its levels, or None."""
    found = _find(topic)
    return None if found is None else Match(found[0], found[1].groupdict())


@lru_cache(maxsize=65536)
def row_of(topic: str) -> KindRow | None:
    """The first row that takes the topic, for who reads many topics and no levels; or None."""
    found = _find(topic)
    return None if found is None else found[0]


@lru_cache(maxsize=65536)
def owner_of(topic: str) -> str | None:
    """The one source that may write an owned topic; None for a shared topic or an unknown one."""
    match = lookup(topic)
    if match is None or match.row.owner is None:
        return None
    return re.sub(r"<([a-z]+)/?>", lambda found: match.levels[found[1]], match.row.owner)


def is_fact(event: Event) -> bool:
    """Whether the event is a fact: the latest value of its topic, retained."""
    row = row_of(event.topic)
    return row is not None and row.takes_as_fact(event.version)


def is_evidence(topic: str) -> bool:
    """Whether what is said on a topic is a signal that is kept as evidence."""
    match = lookup(topic)
    return match is not None and (match.row.kind, match.row.budget) == ("signal", "evidence")


def taken(event: Event) -> Match:
    """The row that takes an event: it is of its type and its record, and has a version only as a shared fact.

    Raises `UnusableEventError` where none does.
    """
    match = lookup(event.topic)
    if match is None:
        raise UnusableEventError("event.topic", f"there is no topic {event.topic} in the registry")
    row = match.row
    if event.type != row.event_type:
        raise UnusableEventError("event.schema", f"{event.topic} takes events of type {row.event_type}, not {event.type}")
    if (event.version is not None) != (row.shared and is_fact(event)):
        raise UnusableEventError("event.schema", f"a version stands on shared facts only, not on {event.topic}")
    if row.record is not None:
        from_data(row.record, event.data)
    return match


def as_pattern(template: str, levels: Mapping[str, str]) -> str:
    """A row's template as a topic pattern, with what is known filled in and `+` elsewhere."""
    filled = re.sub(r"<([a-z]+)/>$", lambda found: levels.get(found[1], ""), template)
    return re.sub(r"<([a-z]+)>", lambda found: levels.get(found[1], "+"), filled)


def can_match(pattern: str, template: str) -> bool:
    """Whether a topic pattern may take a topic of a row."""
    if pattern == "/":
        return True
    wanted, levels = pattern.rstrip("/").split("/"), template.removesuffix("/>").split("/")
    subtree = pattern.endswith("/")
    if template.endswith("/>"):  # its last level stands for one level or more
        levels += [levels[-1]] * (len(wanted) + subtree - len(levels))
    if not all(want in {"+", level} or level[0] == "<" for want, level in zip(wanted, levels, strict=False)):
        return False
    return len(levels) > len(wanted) if subtree else len(levels) == len(wanted)


def take_everything(patterns: Iterable[str]) -> bool:
    """Whether some pattern takes each topic that can be published on.

    Tried with names of which no pattern speaks: only what takes any name takes those.
    """
    known = tuple(patterns)
    spoken = {level for pattern in known for level in pattern.split("/")}
    name = next(name for name in (f"any{n}" for n in count()) if name not in spoken)
    return all(any(matches(pattern, topic) for pattern in known) for row in TOPICS for topic in _examples(row, name))


def _examples(row: KindRow, name: str) -> Iterator[str]:
    """A topic of the row for each number of levels that it may have, with this name at each open level."""
    levels = [name if level.startswith("<") else level for level in row.template.removesuffix("/>").split("/")]
    yield "/".join(levels)
    for more in range(1, MAX_LEVELS - len(levels) + 1) if row.template.endswith("/>") else ():
        yield "/".join([*levels, *[name] * more])


def unify(template: str, name: str) -> Mapping[str, str] | None:
    """The levels under which an owner template becomes a name, or None when it cannot."""
    levels: dict[str, str] = {}
    if template == "<source/>":
        return {"source": name}
    want, have = template.split("/"), name.split("/")
    if len(want) != len(have):
        return None
    for w, h in zip(want, have, strict=True):
        if w.startswith("<"):
            levels[w[1:-1]] = h
        elif w != h:
            return None
    return levels
