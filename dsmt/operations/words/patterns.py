"""Patterns of topics, as an operator types them: one that no topic can have is told at once, not waited on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dsmt.errors import InputError
from dsmt.event.registry import TOPICS, can_match
from dsmt.event.topic import check_pattern
from dsmt.spec.mistakes import nearest

_FIRST: Final = sorted({row.template.split("/")[0] for row in TOPICS})


def some_topic(pattern: str) -> str:
    """The pattern, or `InputError` with the one that was probably meant when it takes no topic that there can be."""
    if _taken(check_pattern(pattern)):
        return pattern
    for one in filter(_taken, _meant(pattern)):
        raise InputError("topic.none", f"no topic can match {pattern}", next=f"did you mean {one}?")
    raise InputError("topic.none", f"no topic can match {pattern}", next=f"topics begin with {', '.join(_FIRST)}")


def _meant(pattern: str) -> Iterator[str]:
    """What may have been meant, the likeliest first: with a slash, without, a subtree above it, another first level."""
    first, *rest = pattern.rstrip("/").split("/")
    if first in _FIRST:
        levels = [first, *rest]
        yield f"{'/'.join(levels)}/"
        yield "/".join(levels)
        yield from (f"{'/'.join(levels[:count])}/" for count in range(len(levels) - 1, 0, -1))
        return
    near = first.removesuffix("s") if first.removesuffix("s") in _FIRST else nearest(first, _FIRST)
    if near and rest:
        yield from _meant("/".join((near, *rest)) + "/" * pattern.endswith("/"))
    yield f"service/{first}/"


def _taken(pattern: str) -> bool:
    return any(can_match(pattern, row.template) for row in TOPICS)
