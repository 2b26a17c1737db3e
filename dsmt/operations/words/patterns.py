"""Patterns of topics, as an operator types them: one that no topic can have is told at once, not waited on."""

from __future__ import annotations

from typing import Final

from dsmt.errors import InputError
from dsmt.event.registry import TOPICS, can_match
from dsmt.event.topic import check_pattern

_FIRST: Final = sorted({row.template.split("/")[0] for row in TOPICS})


def some_topic(pattern: str) -> str:
    """The pattern, or `InputError` with the one that was probably meant when it takes no topic that there can be."""
    if _taken(check_pattern(pattern)):
        return pattern
    first = pattern.split("/", maxsplit=1)[0]
    meant = [f"{pattern}/", *([] if first in _FIRST else [f"service/{first}/"])]
    for one in filter(_taken, meant):
        raise InputError("topic.none", f"no topic can match {pattern}", next=f"did you mean {one}?")
    raise InputError("topic.none", f"no topic can match {pattern}", next=f"topics begin with {', '.join(_FIRST)}")


def _taken(pattern: str) -> bool:
    return any(can_match(pattern, row.template) for row in TOPICS)
