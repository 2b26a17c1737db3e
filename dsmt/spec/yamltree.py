"""YAML 1.2 text to a tree whose every node knows its line and column, with all mistakes of syntax at once.

Rule 1: the tree is built from the parser's events; plain scalars are resolved by the core schema only (`resolve`).
Rule 2: a mistake of syntax is reported and, where its cause is plain (a value that needed quotes, a tab, a character that
        only looks like a space), repaired in memory so that the rest of the document is still read; where it is not, that
        document is given up.
Rule 3: documents are split at `---` before parsing, so one that is broken does not hide the others.
Rule 4: size, depth and what aliases unfold to are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from msgspec.structs import replace
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError

from dsmt.spec.mistakes import Mistake
from dsmt.spec.tree import BLANK, Mapping, Node, Scalar, Sequence, resolve

LARGEST_TEXT: Final = 1024 * 1024
_DEEPEST: Final = 40
_MOST_NODES: Final = 50_000
_LARGEST_DOCUMENT: Final = 128 * 1024  # twice what a spec event can carry
_MOST_REPAIRS: Final = 100
_REPAIR_WORK: Final = 1_000_000  # characters parsed again for repairs; a repair parses up to 7 times


_UNPRINTABLE: Final = re.compile(  # YAML 1.2, 5.1, without the byte order mark
    r"[^\t\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


_HALF: Final = re.compile("[\ud800-\udfff]")
"""A surrogate: an escape can name it, and no UTF-8 holds it."""
_BEYOND: Final = re.compile(r"\\U(?!000|0010)[0-9A-Fa-f]{8}")
_ODD_BLANK: Final = re.compile(f"^{BLANK}|{BLANK}$|(?<=[:,?-]){BLANK}|{BLANK}(?=#)")
"""One where a space would have meant something; inside a text it may be meant."""


class _OddBlankError(Exception):
    """A character that only looks like a space stands where a space was meant; line and column count from 0."""

    def __init__(self, line: int, column: int, character: str) -> None:
        super().__init__()
        self.line, self.column, self.character = line, column, character


class _GivenUpError(Exception):
    """A document cannot be read any further; the mistake says why."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__()
        self.mistake = mistake


def read_documents(text: str | bytes, *, file: str) -> tuple[list[Node], list[Mistake]]:
    """Return the root of every document that could be read, and every mistake of syntax."""
    decoded, mistakes = _decoded(text, file)
    roots: list[Node] = []
    if decoded is None:
        return roots, mistakes
    for first_line, part in _split(decoded):
        root = _read_one(part, first_line, file, mistakes)
        if root is not None and not (isinstance(root, Scalar) and resolve(root) is None):
            roots.append(root)
    return roots, mistakes


def _decoded(text: str | bytes, file: str) -> tuple[str | None, list[Mistake]]:
    if len(text) > LARGEST_TEXT:
        return None, [Mistake(file, 1, 1, f"the file is larger than {LARGEST_TEXT} bytes", "split it")]
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    mistakes = []
    lines = []
    for number, line in enumerate(raw.split(b"\n"), 1):
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            column = len(line[: error.start].decode("utf-8", "replace")) + 1
            mistakes.append(Mistake(file, number, column, "this is not UTF-8", "save the file as UTF-8"))
            lines.append(line.decode("utf-8", "replace"))
    return "\n".join(lines).removeprefix("\ufeff"), mistakes


def _split(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number of lines before it, text) of each document; `---` and `...` lines are never inside a value."""
    start, part = 0, list[str]()
    for number, line in enumerate(text.split("\n")):
        if re.match(r"(?:---|\.\.\.)(?:\s|$)", line):
            yield start, "\n".join(part)
            start, part = number, [("   " + line[3:]) if line.startswith("---") else ""]
        else:
            part.append(line)
    yield start, "\n".join(part)


def _cleaned(text: str, first_line: int, file: str, mistakes: list[Mistake]) -> list[str]:
    """The lines of a document, without what can be in none."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line.startswith("%"):
            message = "directives (`%`) are not used here"
            mistakes.append(Mistake(file, first_line + number + 1, 1, message, "remove the line"))
            lines[number] = ""
        odd = _UNPRINTABLE.search(line)
        if odd is not None:
            message = f"the character U+{ord(odd.group()):04X} is not allowed here"
            mistakes.append(Mistake(file, first_line + number + 1, odd.start() + 1, message, "remove it"))
            lines[number] = _UNPRINTABLE.sub("_", line)
    return lines


def _read_one(text: str, first_line: int, file: str, mistakes: list[Mistake]) -> Node | None:
    lines = _cleaned(text, first_line, file, mistakes)
    if len(text) > _LARGEST_DOCUMENT:
        message = f"the document is larger than {_LARGEST_DOCUMENT // 1024} KiB"
        mistakes.append(Mistake(file, first_line + 1, 1, message, "put large texts into an artifact"))
        return None
    repairs = min(_MOST_REPAIRS, _REPAIR_WORK // (7 * len(text) + 1))
    for left in range(repairs, -1, -1):
        try:
            return _Builder(file, first_line, mistakes).build("\n".join(lines))
        except _OddBlankError as error:
            mistakes.append(_blank(lines, error, first_line, file))
        except MarkedYAMLError as error:
            try:
                mistakes.append(_repair(lines, error, first_line, file) if left else _syntax(error, first_line, file))
            except _GivenUpError as given_up:
                mistakes.append(given_up.mistake)
                return None
        except YAMLError as error:
            mistakes.append(Mistake(file, first_line + 1, 1, f"this is not YAML: {str(error).splitlines()[0]}"))
            return None
        except _GivenUpError as error:
            mistakes.append(error.mistake)
            return None
    return None


_INNER_BRACE: Final = re.compile(r"^expected ',' or '[]}]', but got '\{'$")
_FLOW_VALUE: Final = re.compile(r": +|, *|\[ *")
_LONGEST_SHOWN: Final = 60
_ENTRY: Final = re.compile(r"(\s*(?:(?:- +)+(?:[\w.-]+: +)?|[\w.-]+: +))(\S.*?)\s*\r?")


def _repair(lines: list[str], error: MarkedYAMLError, first_line: int, file: str) -> Mistake:
    """Change the line an error is about so that parsing gets further, and return the mistake, or give up."""
    mark = error.problem_mark
    at = min(mark.line, len(lines) - 1) if mark is not None else 0
    line = lines[at]

    def reached(instead: str) -> int:
        return _error_line([*lines[:at], instead, *lines[at + 1 :]])

    if "\t" in line and "\\t" in str(error.problem):
        begins = not line.partition("\t")[0].strip()
        hint = "indent with spaces" if begins else "write spaces, or quote the value that holds it"
        mistake = Mistake(file, first_line + at + 1, line.index("\t") + 1, "a tab is not allowed here", hint)
        lines[at] = max((line.replace("\t", " " * width) for width in (2, 4, 8, 1, 6, 0)), key=reached)
        if reached(lines[at]) > at:
            return mistake
        raise _GivenUpError(mistake)
    if mark is not None and _INNER_BRACE.search(str(error.problem)):
        lines[at], mistake = _braced(line, mark.column, first_line + at + 1, file)
        if reached(lines[at]) > at:
            return mistake
        raise _GivenUpError(mistake)
    match = _ENTRY.fullmatch(line)
    if match is None or match[2][0] in "'\"|>#" or _is_flow(match[2]):
        raise _GivenUpError(_syntax(error, first_line, file))
    value = match[2]
    lines[at] = f"{match[1]}'{value.replace(chr(39), chr(39) * 2)}'"
    if reached(lines[at]) <= at:
        raise _GivenUpError(_syntax(error, first_line, file))
    what = "begins with `{`" if value[0] == "{" else "holds `: `" if ": " in value else f"begins with `{value[0]}`"
    quote = "'" if "'" not in value else '"'
    message = f"a value that {what} must be quoted"
    return Mistake(file, first_line + at + 1, len(match[1]) + 1, message, f"write {quote}{value[:60]}{quote}")


def _braced(line: str, at: int, number: int, file: str) -> tuple[str, Mistake]:
    """Quote the value of a flow map or list around the `{` at `at`; return the line, and the mistake."""
    begun = [found.end() for found in _FLOW_VALUE.finditer(line, 0, at)]
    begin, depth, end = begun[-1] if begun else at, 0, at
    while end < len(line) and not (depth == 0 and line[end] in ",]}"):
        depth += {"{": 1, "}": -1}.get(line[end], 0)
        end += 1
    value = line[begin:end].rstrip()
    quoted = f"'{value.replace(chr(39), chr(39) * 2)}'"
    message = "a value that holds `{` must be quoted here"
    mistake = Mistake(file, number, begin + 1, message, f"write {quoted}" if len(value) <= _LONGEST_SHOWN else "")
    return f"{line[:begin]}{quoted}{line[begin + len(value) :]}", mistake


def _blank(lines: list[str], error: _OddBlankError, first_line: int, file: str) -> Mistake:
    """Put a space where a character only looks like one, and return the mistake."""
    line, at = lines[error.line], error.column
    if not re.match(BLANK, line[at : at + 1]):  # an anchor stands before it
        at = line.index(error.character, at)
    lines[error.line] = f"{line[:at]} {line[at + 1 :]}"
    message = f"the character U+{ord(line[at]):04X} looks like a space here, and is none"
    return Mistake(file, first_line + error.line + 1, at + 1, message, "write a space, or quote the value")


def _is_flow(value: str) -> bool:
    """Whether a value is meant as a flow map or list, closed or not: then quotes around it are not what is missing."""
    closing = {"[": "]", "{": "}"}.get(value[0], "")
    return bool(closing) and (value.endswith(closing) or value.count(value[0]) > value.count(closing))


def _error_line(lines: list[str]) -> int:
    """Return the index of the line that stops the parser, or the number of lines when nothing does."""
    try:
        for _ in _events("\n".join(lines)):
            pass
    except MarkedYAMLError as error:
        return min(error.problem_mark.line, len(lines) - 1) if error.problem_mark is not None else 0
    except YAMLError:
        return 0
    return len(lines)


def _events(text: str) -> Iterator[Any]:
    """Parse to events; the library's types are not typed further than this. Raises `YAMLError`."""
    read = 0
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            read = event.end_mark.index
            yield event
    except (OverflowError, ValueError) as error:  # the library makes a character of whatever number an escape has
        found = _BEYOND.search(text, read)
        at = read if found is None else found.start()
        line, column = text.count("\n", 0, at), at - (text.rfind("\n", 0, at) + 1)
        said = "an escape is beyond the last character, \\U0010FFFF"
        raise MarkedYAMLError(problem=said, problem_mark=StringMark("", at, line, column, None, 0)) from error


def _syntax(error: MarkedYAMLError, first_line: int, file: str) -> Mistake:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    problem = str(error.problem or error.context or "this is not YAML").strip()
    hint = ""
    if problem.startswith("expected '<document start>'"):  # the parser shows what it found as Python does
        problem, hint = (
            "more follows where the document has ended",
            "begin with `service: NAME`, and write `key: value` in a line",
        )
    elif problem == "mapping values are not allowed here":
        problem, hint = "a key has no place here", "each key is indented like those beside it, with a space behind its colon"
    if error.context_mark is not None and error.context_mark.line != line:
        began = first_line + error.context_mark.line + 1
        hint = f"it began on line {began}: a quote, a bracket or the indentation is not closed"
    return Mistake(file, first_line + line + 1, column + 1, f"this is not YAML: {problem}", hint)


class _Builder:
    """Builds one tree from one document's events."""

    def __init__(self, file: str, first_line: int, mistakes: list[Mistake]) -> None:
        self._file = file
        self._first_line = first_line
        self._mistakes = mistakes
        self._found: list[Mistake] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._weight = 0

    def build(self, text: str) -> Node | None:
        """Return the root; mistakes are handed over only when the whole document was read."""
        self._stream = iter(_events(text))
        root = None
        for event in self._stream:
            if type(event).__name__.startswith(("Scalar", "Sequence", "Mapping", "Alias")) and root is None:
                root = self._node(event, 0)
        self._mistakes.extend(self._found)
        return root

    def _place(self, event: Any) -> tuple[int, int]:
        return self._first_line + event.start_mark.line + 1, event.start_mark.column + 1

    def _mistake(self, event: Any, message: str, suggestion: str = "") -> Mistake:
        line, column = self._place(event)
        return Mistake(self._file, line, column, message, suggestion)

    def _node(self, event: Any, depth: int) -> Node:
        kind = type(event).__name__
        before = self._weight
        self._weight += 1
        if depth > _DEEPEST or self._weight > _MOST_NODES:
            message = "the document is nested too deep or unfolds too far"
            raise _GivenUpError(self._mistake(event, message, "simplify it"))
        if kind == "AliasEvent":
            return self._alias(event)
        tag = event.tag
        if tag is not None and str(tag) != "!":
            message = "tags (`!...`) are not used here"
            self._found.append(self._mistake(event, message, "remove the tag, or quote the value"))
        if kind == "ScalarEvent":
            node: Node = self._scalar(event)
        elif kind == "SequenceStartEvent":
            node = self._sequence(event, depth)
        else:
            node = self._mapping(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node, self._weight - before
        return node

    def _alias(self, event: Any) -> Node:
        if event.anchor not in self._anchors:
            raise _GivenUpError(self._mistake(event, f"`*{event.anchor}` has no `&{event.anchor}` before it",
                                              "quote the value, or define the anchor first"))  # fmt: skip
        node, weight = self._anchors[event.anchor]
        self._weight += weight
        return node

    def _scalar(self, event: Any) -> Scalar:
        line, column = self._place(event)
        odd = _ODD_BLANK.search(event.value) if event.style is None else None
        if odd is not None and event.start_mark.line == event.end_mark.line:
            raise _OddBlankError(event.start_mark.line, event.start_mark.column + odd.start(), odd.group())
        half = _HALF.search(event.value)
        if half is not None:
            message = f"U+{ord(half.group()):04X} is half of a character, and no text can hold it"
            self._found.append(self._mistake(event, message, "write the character itself"))
        text = _HALF.sub("\ufffd", event.value)  # what is said further of it can be printed
        return Scalar(text, event.style is None and event.tag is None, line, column)

    def _sequence(self, event: Any, depth: int) -> Sequence:
        line, column = self._place(event)
        items = []
        for child in self._stream:
            if type(child).__name__ == "SequenceEndEvent":
                break
            items.append(self._node(child, depth + 1))
        return Sequence(tuple(items), line, column)

    def _mapping(self, event: Any, depth: int) -> Mapping:
        line, column = self._place(event)
        entries: dict[str, tuple[Scalar, Node]] = {}
        for child in self._stream:
            if type(child).__name__ == "MappingEndEvent":
                break
            key = self._node(child, depth + 1)
            value = self._node(next(self._stream), depth + 1)
            if isinstance(key, Scalar) and isinstance(value, Scalar) and value.plain and not value.text:
                value = replace(value, line=key.line, column=key.column)  # the library puts nothing where the next thing is
            if isinstance(key, Scalar) and key.plain and key.text == "<<":
                hint = "use `defaults:`, or an alias for a whole value"
                self._found.append(self._mistake(child, "merge keys (`<<`) are not in YAML 1.2", hint))
            elif not isinstance(key, Scalar):
                hint = "quote a value that begins with { or ["
                self._found.append(self._mistake(child, "a key must be a word", hint))
            elif key.text in entries:
                first = entries[key.text][0].line
                self._found.append(self._mistake(child, f"`{key.text}` is here twice", f"the first is on line {first}"))
            else:
                entries[key.text] = key, value
        return Mapping(tuple(entries.values()), line, column, bool(event.flow_style))
