"""Shapes: what the value of a key may look like, as plain data that readers, the schema and explain all walk.

A shape holds no behaviour. `reading.py` turns text of that shape into a plain value, `writing.py` back, `schema.py`
into JSON Schema and into the words `explain` shows.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

SingleKind = Literal[
    "name", "port_name", "text", "flag", "whole", "real", "duration", "size", "share", "percent", "command", "signal",
    "path", "directory", "sha256", "octal", "url", "image", "node_set", "cel", "address", "user", "status",
    "spread", "exit_or_signal", "reload", "env", "flag_or_size", "variable", "request_path", "header_value",
]  # fmt: skip
KeyKind = Literal["name", "port_name", "label", "variable", "header"]


class Single(msgspec.Struct, frozen=True, tag="scalar"):
    """One value; `low` and `high` bound numbers (durations in seconds), both inclusive."""

    kind: SingleKind
    low: float | None = None
    high: float | None = None


class Word(msgspec.Struct, frozen=True, tag="word"):
    """One of a few words; `built`: only these are, where not all of them are."""

    words: tuple[str, ...]
    built: tuple[str, ...] = ()


class WholeOr(msgspec.Struct, frozen=True, tag="whole_or"):
    """A whole number, or one word that becomes null in the record."""

    word: str
    low: int
    high: int


class Nested(msgspec.Struct, frozen=True, tag="nested"):
    """An object whose keys are the rows of `group`; a scalar stands for its key `short`, if there is one."""

    group: str
    short: str = ""


class ListOf(msgspec.Struct, frozen=True, tag="list"):
    """A list; with `lone`, a single value stands for a list of one."""

    item: Shape
    lone: bool = False


class MapOf(msgspec.Struct, frozen=True, tag="map"):
    """A map with free keys of one kind."""

    item: Shape
    keys: KeyKind


class Health(msgspec.Struct, frozen=True, tag="health"):
    """One check (group `check`), or `startup`, `readiness`, `liveness` by name (group `health`)."""


class Step(msgspec.Struct, frozen=True, tag="step"):
    """One pair `word: times`; `times` is 1 to `MOST_TIMES`."""

    words: tuple[str, ...]


Shape = Single | Word | WholeOr | Nested | ListOf | MapOf | Health | Step

LONGEST_DURATION_S: Final = 3650 * 86400.0
MOST_TIMES: Final = 1_000_000
MOST_WORDS: Final = 4096

NAME: Final = Single("name")
PORT_NAME: Final = Single("port_name")
TEXT: Final = Single("text")
FLAG: Final = Single("flag")
COMMAND: Final = Single("command")
PATH: Final = Single("path")
SIZE: Final = Single("size")
CEL: Final = Single("cel")
DURATION: Final = Single("duration", 0, LONGEST_DURATION_S)
SHARE: Final = Single("share", 1, 1_000_000)

NAME_PATTERN: Final = r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?"
PORT_NAME_PATTERN: Final = r"[a-z](?:[a-z0-9_-]{0,30}[a-z0-9])?"
PATH_PATTERN: Final = r"\A(?!/)(?!(?s:.*/)?\.\.(?:/|\Z))[^\x00]+\Z"
LAST_ID: Final = 2**32 - 2
"""The greatest uid: what is above is no user."""
USER_PATTERN: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}\$?|[0-9]{1,9}:[0-9]{1,9}"
KEY_PATTERNS: Final[dict[KeyKind, str]] = {
    "name": NAME_PATTERN,
    "port_name": PORT_NAME_PATTERN,
    "label": r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?",
    "variable": r"[A-Za-z_][A-Za-z0-9_]{0,255}",
    "header": r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}",
}
KEY_WORDS: Final[dict[KeyKind, str]] = {
    "name": "1-63 of a-z 0-9 - . _, a letter or digit at both ends",
    "port_name": "1-32 of a-z 0-9 - _, a letter first, a letter or digit last",
    "label": "1-63 of A-Z a-z 0-9 - . _ /, a letter or digit at both ends",
    "variable": "1-256 of A-Z a-z 0-9 _, no digit first",
    "header": "1-128 letters, digits and !#$%&'*+.^_`|~-",
}
"""The patterns in words, for who has mistyped a key."""


def suffix(shape: Shape) -> str:
    """Return what a record's field adds to the key's name: its unit."""
    if isinstance(shape, Single) and shape.kind in {"duration", "size"}:
        return "_s" if shape.kind == "duration" else "_bytes"
    return ""
