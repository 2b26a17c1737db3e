"""Printing: JSON documents, tables of plain text, colour that only repeats what a word says."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec

_COLOURS: Final = {
    **dict.fromkeys(("running", "ready", "ok", "alive", "yes"), "32"),
    **dict.fromkeys(("installing", "starting", "stopping", "draining", "unready", "suspect", "waiting"), "33"),
    **dict.fromkeys(("backoff", "parked", "lost", "failed", "dead", "DEAD", "DOWN", "DEGRADED", "no"), "31"),
}


def document(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def line(value: Any) -> None:
    """Print one JSON object on a line of its own."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def coloured() -> bool:
    """Whether standard output is a terminal that wants colour."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def table(header: Sequence[str], rows: Sequence[tuple[Sequence[str], Sequence[str]]], *, right: Sequence[str] = ()) -> str:
    """A table as text: each row with the lines that stand below it, indented. Columns in `right` are set to the right."""
    widths = [max(len(str(cells[i])) for cells in (header, *(row for row, _ in rows))) for i in range(len(header))]
    colour = coloured()

    def laid(cells: Sequence[str], *, paint: bool) -> str:
        parts = []
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            text = cell.rjust(width) if header[i] in right else cell.ljust(width)
            parts.append(_painted(text, cell) if paint else text)
        return "  ".join(parts).rstrip()

    lines = [laid(header, paint=False)]
    for row, below in rows:
        lines.append(laid(row, paint=colour))
        lines += [f"  {one}" for one in below]
    return "\n".join(lines)


def word(text: str) -> str:
    """A word in the colour that it has, on a terminal."""
    return _painted(text, text) if coloured() else text


def _painted(text: str, cell: str) -> str:
    code = _COLOURS.get(cell)
    return f"\x1b[{code}m{text}\x1b[0m" if code else text


def counted(number: int, thing: str) -> str:
    """`1 node`, `3 nodes`, `2 processes`."""
    plural = "es" if thing.endswith("s") else "s"
    return f"{number} {thing}{'' if number == 1 else plural}"
