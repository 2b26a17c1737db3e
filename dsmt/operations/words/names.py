"""Names: in which order they are listed (a number in one counts as a number: n2 stands before n10), and which was meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from dsmt.spec.mistakes import nearest

_NUMBER: Final = re.compile("([0-9]+)")


def natural(name: str) -> tuple[list[str | int], str]:
    """What names are sorted by: texts and numbers take turns in it."""
    parts = _NUMBER.split(name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def in_order(names: Iterable[str]) -> list[str]:
    """Names as people would sort them."""
    return sorted(names, key=natural)


def meant(name: str, known: Iterable[str]) -> str:
    """`did you mean web? `, to stand before what else can be done about a name that is none; empty where none is like it."""
    close = nearest(name, known)
    return f"did you mean {close}? " if close else ""


def bare(kind: str, name: str, known: Iterable[str]) -> str | None:
    """`write b2, without broker/`, where a name of this kind has the kind before it, as alerts tell it; None elsewhere."""
    before, _, alone = name.partition("/")
    return f"write {alone}, without {kind}/" if before == kind and alone in known else None


def meant_whole(name: str, known: Iterable[str]) -> str:
    """As `meant`, where names have their kind before them: of `n1` that is `node/n1`."""
    whole = [one for one in in_order(known) if name and one.partition("/")[2] == name]
    return f"did you mean {' or '.join(whole)}? " if whole else meant(name, known)
