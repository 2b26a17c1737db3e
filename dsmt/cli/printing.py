"""Printing: JSON documents, tables of plain text, colour that only repeats what a word says.

Rule 1: what others wrote never steers a terminal: all that is printed goes through `Escaping`, which shows control
    characters as they are written in source code. Newlines and tabs pass it; in cells and sentences `one_line` shows them.
Rule 2: a screen is a list of lines that `page` puts together: a newline in what others wrote makes no line of its own.
Rule 3: JSON has escapes of its own: `encoded` writes by them what would steer a terminal, or is no text. As a service
    file it is UTF-8 where it goes to a program.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TextIO

import msgspec

from dsmt.errors import FailedError

_COLOURS: Final = {
    **dict.fromkeys(("running", "ready", "ok", "alive", "yes"), "32"),
    **dict.fromkeys(("installing", "starting", "stopping", "draining", "unready", "suspect", "waiting"), "33"),
    **dict.fromkeys(("held", "stopped", "removing", "excluded", "drained", "rolled_back"), "33"),
    **dict.fromkeys(("backoff", "parked", "lost", "failed", "dead", "DEAD", "no"), "31"),
    **dict.fromkeys(("DOWN", "DEGRADED", "down", "degraded", "refused"), "31"),
}
_SEVERITIES: Final = {"bad": "31", "warning": "33", "good": "32"}
UNWRITTEN: Final = "output.unwritten"
_COLOUR: Final = "\ud800"
"""Begins a colour of ours: a lone surrogate, which no text of others can hold, since none can be encoded."""
_PAINT: Final = re.compile("\ud800[0-9]*m")
_FILL: Final = "\udfff"
"""Stands before a character that takes two columns, where columns are counted: a lone surrogate, too."""
_WIDE: Final = re.compile(
    "[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\U0001f300-\U0001faff\U00020000-\U0003fffd]"
)
_SHOWN: Final = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))},
    **{code: f"\\u{code:04x}" for code in (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))},
    0x0D: "\\r",
}
"""Control characters, and those that end a line or turn the direction in which it is read."""
_IN_TEXT: Final = {code: shown for code, shown in _SHOWN.items() if chr(code) not in "\n\t"} | {0xD800: "\x1b["}
_IN_LINE: Final = _SHOWN | {0x0A: "\\n", 0x09: "\\t"}
_LEFT_IN_JSON: Final = re.compile(f"[{''.join(chr(code) for code in _SHOWN if code >= 0x7F)}]")
"""What steers a terminal of that which JSON itself leaves as it is."""
_NO_TEXT: Final = re.compile("[\ud800-\udfff]")


@contextmanager
def _told() -> Iterator[None]:
    """Say what keeps output from being written; a closed pipe is another matter."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise FailedError(UNWRITTEN, f"the output cannot be written: {said}", next="write it elsewhere") from error


class Escaping:
    """A stream of text that shows control characters instead of sending them."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text, newlines and tabs as they are. Raises `FailedError` when it cannot be written."""
        return self.send(text.translate(_IN_TEXT))

    def send(self, text: str) -> int:
        """Write a text as it is. Raises `FailedError` when it cannot be written."""
        with _told():
            return self.stream.write(text)

    def flush(self) -> None:
        """Have all written. Raises `FailedError` when it cannot be."""
        with _told():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def one_line(text: str) -> str:
    """A text as part of a line: newlines and all other control characters are shown, not sent."""
    return text.translate(_IN_LINE)


def warn(warnings: Iterable[str]) -> None:
    """Write each warning on a line of standard error."""
    for one in warnings:
        sys.stderr.write(f"warning: {one_line(one)}\n")


def page(lines: Iterable[str]) -> str:
    """A screen of lines, each of which stays one."""
    return "\n".join(map(one_line, lines))


def send(stream: Any, text: str) -> None:
    """Write a text of ours as it is, at once."""
    _send(stream, text)
    stream.flush()


def _send(stream: Any, text: str) -> None:
    (stream.send if isinstance(stream, Escaping) else stream.write)(text)


def send_bytes(content: bytes) -> None:
    """Write bytes to standard output. Raises `FailedError` when they cannot be written."""
    with _told():
        sys.stdout.buffer.write(content)


def columns(stream: Any = None) -> int | None:
    """The columns of a terminal, 80 when it does not tell; None for a pipe, where no line has an end."""
    stream = sys.stdout if stream is None else stream
    return shutil.get_terminal_size((80, 24)).columns if stream.isatty() else None


def show(text: str) -> None:
    """Print a screen; on a terminal what is too wide for it goes on below, further in."""
    print(folded(text, columns()))


def folded(text: str, width: int | None) -> str:
    """A screen in a width: a line that is too long is broken at spaces, and goes on two columns further in."""
    if width is None:
        return text
    return "\n".join(part for line in text.split("\n") for part in _folded(line, width))


def _folded(line: str, width: int) -> list[str]:
    filled = _filled(line)
    if len(_PAINT.sub("", filled)) <= width:
        return [line]
    text = filled.lstrip()
    indent = " " * (len(filled) - len(text))
    further = f"{indent}  "
    parts = textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )
    return [part.replace(_FILL, "") for part in parts]


def fitted(text: str, width: int | None) -> str:
    """A text of at most `width` columns: what is cut off shows as `...`."""
    if width is None or columns_of(text) <= width:
        return text
    return f"{_filled(text)[: max(0, width - 3)].replace(_FILL, '')}..."


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return len(_filled(text))


def _filled(text: str) -> str:
    """A text that has as many characters as columns."""
    return text if text.isascii() else _WIDE.sub(rf"{_FILL}\g<0>", text)


def for_programs() -> None:
    """Have what is not shown on a terminal be UTF-8 from now on, as who reads JSON or a service file expects it."""
    stream = sys.stdout.stream if isinstance(sys.stdout, Escaping) else sys.stdout
    if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8" and not stream.isatty():
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def document(value: Any) -> None:
    """Print one JSON document."""
    for_programs()
    _send(sys.stdout, msgspec.json.format(encoded(value), indent=2) + "\n")


def line(value: Any) -> None:
    """Print one JSON object on a line of its own."""
    for_programs()
    _send(sys.stdout, encoded(value) + "\n")


def encoded(value: Any) -> str:
    """A value as JSON that steers no terminal (rule 3)."""
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # an argument, or a name of a file, that is no text: it is shown as on a screen
        text = json.dumps(msgspec.to_builtins(value), ensure_ascii=False)
        text = _NO_TEXT.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text)
    return _LEFT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def coloured() -> bool:
    """Whether standard output is a terminal that wants colour."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def table(header: Sequence[str], rows: Sequence[tuple[Sequence[str], Sequence[str]]], *, right: Sequence[str] = ()) -> str:
    """A table as text: each row with the lines that stand below it, indented. Columns in `right` are set to the right."""
    rows = [([one_line(cell) for cell in cells], [one_line(one) for one in below]) for cells, below in rows]
    widths = [max(len(str(cells[i])) for cells in (header, *(row for row, _ in rows))) for i in range(len(header))]
    colour = coloured()

    def laid(cells: Sequence[str], *, paint: bool) -> str:
        parts = []
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            text = cell.rjust(width) if header[i] in right else cell.ljust(width)
            parts.append(_in_colour(text, _COLOURS.get(cell)) if paint else text)
        return "  ".join(parts).rstrip()

    lines = [laid(header, paint=False)]
    for row, below in rows:
        lines.append(laid(row, paint=colour))
        lines += [f"  {one}" for one in below]
    return "\n".join(lines)


def painted(text: str, severity: str) -> str:
    """A text in the colour of how bad it is (`bad`, `warning`, `good`), on a terminal."""
    return _in_colour(text, _SEVERITIES.get(severity)) if coloured() else text


def word(text: str) -> str:
    """A word in the colour that it has, on a terminal."""
    return _in_colour(text, _COLOURS.get(text)) if coloured() else text


def _in_colour(text: str, code: str | None) -> str:
    return text if code is None else f"{_COLOUR}{code}m{text}{_COLOUR}0m"
