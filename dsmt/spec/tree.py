"""The tree of a service file: nodes that know their line and column, and what a plain scalar means in YAML 1.2."""

from __future__ import annotations

import re
from typing import Final

import msgspec

BLANK: Final = "[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000\ufeff]"
"""A character that only looks like a space."""


class Scalar(msgspec.Struct, frozen=True):
    """A single value as written; `plain` is false when it was quoted or a block (`|`, `>`)."""

    text: str
    plain: bool
    line: int
    column: int


class Sequence(msgspec.Struct, frozen=True):
    """A list."""

    items: tuple[Node, ...]
    line: int
    column: int


class Mapping(msgspec.Struct, frozen=True):
    """A map without duplicate keys, in the order of the file."""

    entries: tuple[tuple[Scalar, Node], ...]
    line: int
    column: int
    flow: bool = False

    def get(self, name: str) -> Node | None:
        """Return the value of a key, or None."""
        return next((value for key, value in self.entries if key.text == name), None)


Node = Scalar | Sequence | Mapping

_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_NUMBERS: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_LONGEST_NUMBER: Final = 40


def resolve(node: Scalar) -> bool | int | float | str | None:
    """Return what a scalar is under the YAML 1.2 core schema (10.3.2)."""
    text = node.text
    if not node.plain or len(text) > _LONGEST_NUMBER:
        return text
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_NUMBERS.fullmatch(text):
        return float(text.lower().replace(".", ""))
    return text
