"""Topics, names and patterns: the grammar of names (docs/reference/topics.md).

Rule 1: a topic is 1 to 16 levels, at most 512 bytes, joined by `/`.
Rule 2: a level is 1 to 63 of `a-z 0-9 - . _`, but not `.` or `..`: names become names of files.
Rule 3: a pattern is a topic in which `+` may stand for one level; one that ends in `/` takes the subtree below it
    and not the topic itself; `/` alone takes everything.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from dsmt.errors import InputError

PATTERNS_MOST: Final = 256
"""So many patterns a subscription has at most."""
MAX_LEVELS: Final = 16
MAX_BYTES: Final = 512

_NAME: Final = r"(?!\.{1,2}(?:/|\Z))[a-z0-9._-]{1,63}"
_LEVEL: Final = re.compile(_NAME)
_TOPIC: Final = re.compile(rf"{_NAME}(?:/{_NAME}){{0,15}}")
_PATTERN: Final = re.compile(rf"(?:(?:{_NAME}|\+)/)*(?:{_NAME}|\+)?")


def is_level(text: str) -> bool:
    """Whether the text may be one level of a topic: a name."""
    return _LEVEL.fullmatch(text) is not None


def level_of(host: str) -> str:
    """The name of a host, without its domain, as a level; what is none where nothing of it can be one."""
    return re.sub(r"[^a-z0-9_-]", "-", host.split(".", 1)[0].lower())[:63].strip("-")


@lru_cache(maxsize=8192)
def is_topic(text: str) -> bool:
    """Whether the text is a topic."""
    return len(text) <= MAX_BYTES and _TOPIC.fullmatch(text) is not None


@lru_cache(maxsize=4096)
def check_pattern(pattern: str) -> str:
    """The pattern, or `InputError` that says what is wrong with it."""
    if pattern == "/":
        return pattern
    if not pattern or len(pattern) > MAX_BYTES or _PATTERN.fullmatch(pattern) is None:
        raise InputError(
            "topic.pattern",
            f"{pattern!r} is not a topic pattern: levels of a-z 0-9 - . _ joined by '/', '+' for one level",
            next="end it in '/' for a subtree, as in service/web/",
        )
    if pattern.rstrip("/").count("/") >= MAX_LEVELS:
        raise InputError("topic.pattern", f"{pattern!r} has more than {MAX_LEVELS} levels")
    return pattern


@lru_cache(maxsize=8192)
def _levels(pattern: str) -> tuple[list[str], bool]:
    """The levels of a pattern, and whether it takes what is below them."""
    subtree = pattern.endswith("/")
    return pattern[:-1].split("/") if subtree else pattern.split("/"), subtree


def matches(pattern: str, topic: str) -> bool:
    """Whether a pattern takes a topic."""
    if "+" not in pattern:
        if pattern.endswith("/"):
            return pattern == "/" or (topic.startswith(pattern) and len(topic) > len(pattern))
        return pattern == topic
    levels, subtree = _levels(pattern)
    told = topic.split("/")
    fits = len(told) > len(levels) if subtree else len(told) == len(levels)
    return fits and all(one in ("+", other) for one, other in zip(levels, told, strict=False))


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic that `narrow` takes is taken by `wide`: the order of grants."""
    if wide == "/":
        return True
    if narrow == "/":
        return False
    (above, wide_subtree), (below, narrow_subtree) = _levels(wide), _levels(narrow)
    if above[0] not in ("+", below[0]):
        return False
    if wide_subtree:
        if len(below) < len(above) + (0 if narrow_subtree else 1):
            return False
    elif narrow_subtree or len(above) != len(below):
        return False
    return all(a in ("+", b) for a, b in zip(above, below, strict=False))
