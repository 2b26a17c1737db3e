"""Read a tree by the table of keys: plain values named like the record's fields, and every mistake with its place.

Rule 1: reading never stops at a mistake; a value that cannot be read is replaced by its default and its path is kept
        in `bad`, so that later checks do not draw conclusions from it.
Rule 2: a default is read like a value of the file; `marks` holds the places of the values that the file itself said, `names`
        those of their keys.
Rule 3: paths are the operator's keys: `("components", "app", "stop", "grace")`.
Rule 4: a mistake in a value names its key.
"""

from __future__ import annotations

import re
from typing import Any, Final

from msgspec.structs import replace

from dsmt.spec.built import hint_of, is_unbuilt, unbuilt_at
from dsmt.spec.commands import checked_argv
from dsmt.spec.health import ROLES
from dsmt.spec.keys import GROUPS, SpecKey
from dsmt.spec.mistakes import Mistake, WrongValueError, nearest
from dsmt.spec.scalars import READERS, show, whole
from dsmt.spec.shapes import (
    KEY_PATTERNS,
    KEY_WORDS,
    MOST_TIMES,
    Health,
    KeyKind,
    ListOf,
    MapOf,
    Nested,
    Shape,
    Single,
    Step,
    WholeOr,
    Word,
)
from dsmt.spec.tree import Mapping, Node, Scalar, Sequence, resolve
from dsmt.spec.words import unknown_key

Path = tuple[str, ...]
_ENV: Final = "env"
_NO_LIST: Final = {"node_set": "write one expression, as in union(n1, n2)", "status": "write it as 200-299 or 200,204"}
_MAPPING: Final = re.compile(r"(?:[\d.]+:)?\d+:(\d+)(?:/(tcp|udp))?")


class _BadError(Exception):
    """The value here could not be read; the mistake is already noted."""


_DEFAULTS: Final[dict[tuple[str, str], tuple[SpecKey, Any]]] = {}
"""By group and name, each key of the table whose default was read, and what it is: a file has most of them many times."""


class Reader:
    """Reads one document; `mistakes`, `marks`, `names`, `bad` and `unbuilt` (what was told to be so) grow as it goes."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.mistakes: list[Mistake] = []
        self.marks: dict[Path, Node] = {}
        self.names: dict[Path, Node] = {}
        self.bad: set[Path] = set()
        self.unbuilt: set[Path] = set()

    def mistake(self, node: Node, message: str, suggestion: str = "") -> None:
        """Note a mistake at a node."""
        self.mistakes.append(Mistake(self.file, node.line, node.column, message, suggestion))

    def mistake_at(self, path: Path, message: str, suggestion: str) -> None:
        """Note a mistake at a path; that a key there is not built is what to know first."""
        unbuilt = unbuilt_at(path)
        if unbuilt is not None:
            at, key = unbuilt
            self.unbuilt.add(at)
            suggestion = hint_of(key)
        self.mistake(self.mark(path), message, suggestion)

    def trusted(self, *paths: Path) -> bool:
        """Return whether nothing at, above or below these paths was unreadable."""
        return not any(bad[: len(path)] == path[: len(bad)] for path in paths for bad in self.bad)

    def mark(self, path: Path) -> Node:
        """Return the node of a path in the file, or of the nearest thing around it that is there; something is."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks[path]

    def group(self, node: Mapping, group: str, path: Path) -> dict[str, Any]:
        """Read an object by the rows of a group; all its fields are in the result, defaults filled in."""
        rows = GROUPS[group]
        aliases = {key.alias: key for key in rows.values() if key.alias}
        found: dict[str, tuple[Scalar, Node]] = {}
        for name, value in node.entries:
            key = rows.get(name.text) or aliases.get(name.text)
            if name.text.startswith("x-"):
                continue
            if key is None:
                self.mistake(name, *unknown_key(name.text, group, placeholder=_looks_like_placeholder(node)))
            elif key.name in found:
                self.mistake(name, f"`{name.text}` means `{key.name}`, which is here already", "keep one of them")
            else:
                found[key.name] = name, value
        return {key.field: self._field(key, found.get(key.name), node, path) for key in rows.values()}

    def _field(self, key: SpecKey, entry: tuple[Scalar, Node] | None, around: Node, path: Path) -> Any:
        here = (*path, key.name)
        if entry is not None:
            name, value = entry
            self.marks[here], self.names[here] = value, name
            before = len(self.mistakes)
            try:
                return self._present(name, value, key, here)
            except _BadError:
                self.bad.add(here)
            finally:
                if is_unbuilt(key) and len(self.mistakes) > before:
                    self.unbuilt.add(here)
                    self.mistakes[before:] = [replace(one, suggestion=hint_of(key)) for one in self.mistakes[before:]]
        elif key.required:
            self.mistake(around, f"`{key.name}` is missing", key.text)
            self.bad.add(here)
        return self.default(key, here)

    def _present(self, name: Scalar, value: Node, key: SpecKey, path: Path) -> Any:
        if isinstance(value, Scalar) and value.plain and resolve(value) is None:
            hint = "write `{}` for its defaults" if isinstance(key.shape, Nested) else "write one, or remove the line"
            hint = "write one" if key.required else hint
            self.mistake(name, f"`{key.name}` has no value", hint)
            raise _BadError
        return self._value(value, key.shape, path)

    def default(self, key: SpecKey, path: Path) -> Any:
        """Return the default of a key as if it stood in the file (None when it has none)."""
        if key.default is None:
            return None
        read = _DEFAULTS.get((key.group, key.name))
        if read is None or read[0] is not key:
            value = Reader(self.file)._value(_node_of(key.default), key.shape, path)  # noqa: SLF001 - one of us, without our marks
            read = _DEFAULTS[key.group, key.name] = key, value
        return _apart(read[1])

    def _value(self, node: Node, shape: Shape, path: Path) -> Any:
        try:
            match shape:
                case Single():
                    return self._single(node, shape, path)
                case Word(words, built):
                    return self._word(node, words, built)
                case WholeOr(word, low, high):
                    scalar = self._scalar(node)
                    return None if scalar.text == word else self._whole_or(scalar, word, low, high)
                case Nested(group, short):
                    return self._nested(node, group, short, path)
                case ListOf(item, lone):
                    return self._list(node, item, path, lone=lone)
                case MapOf(item, keys):
                    return self._map(node, item, keys, path)
                case Step(words):
                    return self._step(node, words)
                case Health():
                    return self._health(node, path)
        except WrongValueError as error:
            said = key_of(path)
            self.mistake(node, f"{said}: {error.message}" if said else error.message, error.next)
            raise _BadError from error

    def _single(self, node: Node, shape: Single, path: Path) -> Any:
        if shape.kind in {"command", "reload"} and isinstance(node, Sequence):
            return self._argv(node, shape, path)
        if shape.kind == _ENV and isinstance(node, Mapping):
            return self._env_file(node)
        return READERS[shape.kind](self._scalar(node, shape.kind), shape)

    def _scalar(self, node: Node, kind: str = "") -> Scalar:
        if isinstance(node, Scalar):
            return node
        if isinstance(node, Mapping) and _looks_like_placeholder(node):
            text = "{" + node.entries[0][0].text + "}"
            raise WrongValueError(f"`{text}` without quotes is a map in YAML", f"quote it: '{text}'")
        what = "a map" if isinstance(node, Mapping) else "a list"
        wanted = {"": "value", "env": "text or number"}.get(kind, kind.replace("_", " "))
        if isinstance(node, Sequence) and kind in _NO_LIST:
            raise WrongValueError(f"{what} cannot be here", _NO_LIST[kind])
        raise WrongValueError(f"{what} cannot be here", f"a single {wanted} is expected")

    def _argv(self, node: Sequence, shape: Single, path: Path) -> Any:
        items = Sequence(tuple(_word_of(item) for item in node.items), node.line, node.column)
        words = self._list(items, Single("text"), path, lone=False)
        if len(words) < len(items.items):
            raise _BadError
        argv = checked_argv(words)
        return {"signal": None, "command": argv} if shape.kind == "reload" else argv

    def _env_file(self, node: Mapping) -> dict[str, str]:
        names = [name.text for name, _ in node.entries]
        if _looks_like_placeholder(node):
            self._scalar(node)
        if names == ["secret"]:
            raise WrongValueError("a secret by name does not belong in `env`", "use {file: PATH}, which is read on the node")
        if names != ["file"]:
            raise WrongValueError("a map here can only be {file: PATH}", "a text, a number or {file: PATH}")
        return {"file": self._value(node.entries[0][1], Single("text"), ())}

    def _word(self, node: Node, words: tuple[str, ...], built: tuple[str, ...] = ()) -> str:
        scalar = self._scalar(node)
        if scalar.text in words:
            return scalar.text
        meant = built or words
        close = nearest(scalar.text.lower().replace("-", "_"), meant)
        hint = f"did you mean {close}?" if close else f"{'one of' if len(meant) > 1 else 'write'} {', '.join(meant)}"
        if scalar.text == "false" and "no" in words:
            hint = "write no"
        raise WrongValueError(f"`{show(scalar)}` cannot be here", hint)

    def _whole_or(self, scalar: Scalar, word: str, low: int, high: int) -> int:
        mapping = _MAPPING.fullmatch(scalar.text) if word == "auto" else None
        if mapping is not None:
            inside = f"{{port: {mapping[1]}, protocol: udp}}" if mapping[2] == "udp" else mapping[1]
            raise WrongValueError(f"`{show(scalar)}` maps one port to another, which is not done here", f"write {inside}")
        if scalar.plain and isinstance(resolve(scalar), str):
            close = nearest(scalar.text.lower().replace("-", "_"), [word])
            raise WrongValueError(f"`{show(scalar)}` is not a number", f"did you mean {word}?" if close else f"or {word}")
        return whole(scalar, low, high)

    def _nested(self, node: Node, group: str, short: str, path: Path) -> dict[str, Any]:
        if isinstance(node, Mapping) and not _looks_like_placeholder(node):
            return self.group(node, group, path)
        if short and isinstance(node, Scalar):
            node = Mapping(((Scalar(short, True, node.line, node.column), node),), node.line, node.column)
            return self.group(node, group, path)
        if isinstance(node, Mapping):
            self._scalar(node)
        keys = "as in `run: ./server`" if group == "component" else f"its keys are {', '.join(GROUPS[group])}"
        raise WrongValueError("a map is expected here", keys)

    def _list(self, node: Node, item: Shape, path: Path, *, lone: bool) -> list[Any]:
        if not isinstance(node, Sequence):
            if not lone:
                raise WrongValueError("a list is expected here", "begin each item with `- `")
            node = Sequence((node,), node.line, node.column)
        out = []
        for index, child in enumerate(node.items):
            here = (*path, str(index))
            self.marks[here] = child
            try:
                out.append(self._value(child, item, here))
            except _BadError:
                self.bad.add(here)
        return out

    def _map(self, node: Node, item: Shape, keys: KeyKind, path: Path) -> dict[str, Any]:
        if not isinstance(node, Mapping):
            example = "as in `http: 8080`, one in a line" if keys == "port_name" else "write `name: value`, one in a line"
            raise WrongValueError("a map is expected here", example)
        out = {}
        for name, child in node.entries:
            here = (*path, name.text)
            self.marks[here], self.names[here] = child, name
            try:
                out[name.text] = self._entry(name, child, item, keys, here)
            except _BadError:
                self.bad.add(here)
        return out

    def _entry(self, name: Scalar, child: Node, item: Shape, keys: KeyKind, path: Path) -> Any:
        if not re.fullmatch(KEY_PATTERNS[keys], name.text):
            self.mistake(name, f"`{show(name)}` is not a {_called(keys)}", f"allowed are {KEY_WORDS[keys]}")
            raise _BadError
        return self._value(child, item, path)

    def _step(self, node: Node, words: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(node, Mapping) or len(node.entries) != 1:
            raise WrongValueError("each step is one pair `action: times`", f"actions are {', '.join(words)}")
        name, times = node.entries[0]
        return {"action": self._word(name, words), "times": whole(self._scalar(times), 1, MOST_TIMES)}

    def _health(self, node: Node, path: Path) -> dict[str, Any]:
        """Read the long form by its roles, the short one under the key `every`."""
        if not isinstance(node, Mapping):
            raise WrongValueError("a map is expected here", "health: {http: {port: http, path: /}}")
        names = {name.text for name, _ in node.entries}
        if not names & set(ROLES):
            return {"every": self.group(node, "check", path)}
        for name, _ in node.entries:
            if name.text in GROUPS["check"]:
                message = f"`{name.text}` cannot stand beside startup, readiness, liveness"
                self.mistake(name, message, "put it under one of them")
                self.bad.add(path)
        entries = tuple(entry for entry in node.entries if entry[0].text not in GROUPS["check"])
        return self.group(Mapping(entries, node.line, node.column), "health", path)


def key_of(path: Path) -> str:
    """The key of a path as it stands in a component, dotted, without the places in lists: `limits.memory`."""
    around = {"components": 2, "defaults": 1}.get(path[0], 0) if path else 0
    return ".".join(part for part in path[around:] or path if not part.isdigit())


def _word_of(item: Node) -> Node:
    """An item of a command, of which a number is a word as it is written."""
    if isinstance(item, Scalar) and type(resolve(item)) in {int, float}:
        return Scalar(item.text, False, item.line, item.column)
    return item


def _called(keys: KeyKind) -> str:
    return {"port_name": "port name", "label": "label", "variable": "variable name"}.get(keys, f"{keys} to use here")


def _looks_like_placeholder(node: Mapping) -> bool:
    """Whether this is what YAML makes of an unquoted `{port.http}`."""
    if not node.flow or len(node.entries) != 1:
        return False
    name, value = node.entries[0]
    return isinstance(value, Scalar) and value.plain and not value.text and bool(re.fullmatch(r"[a-z][\w.-]*", name.text))


def _node_of(value: Any) -> Node:
    """Return the node that a value of the table would be in a file."""
    if isinstance(value, dict):
        return Mapping(tuple((Scalar(k, True, 0, 0), _node_of(v)) for k, v in value.items()), 0, 0)
    if isinstance(value, list):
        return Sequence(tuple(_node_of(item) for item in value), 0, 0)
    if isinstance(value, str):
        return Scalar(value, False, 0, 0)
    return Scalar(str(value), True, 0, 0)  # YAML reads `True` and `False`, too


def _apart(value: Any) -> Any:
    """The same value, which may be changed."""
    if isinstance(value, dict):
        return {name: _apart(each) for name, each in value.items()}
    return [_apart(each) for each in value] if isinstance(value, list) else value
