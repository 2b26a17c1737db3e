"""From the text of a service file to validated specs, or one `SpecErrors` with every mistake in it.

The steps: tree (yamltree), `defaults` laid under each component, values by the table of keys (reading), what depends
on other keys (completing), checks across keys (crosscheck), records (plain).
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import Any, Final

import msgspec

from dsmt.spec.completing import complete_component
from dsmt.spec.crosscheck import check_service, warn_service
from dsmt.spec.mistakes import BadSpecEventError, Mistake, SpecErrors
from dsmt.spec.plain import from_plain, shaped
from dsmt.spec.reading import Path, Reader
from dsmt.spec.records import ServiceSpec
from dsmt.spec.tree import Mapping, Node, Scalar
from dsmt.spec.yamltree import read_documents

_REPLACED_WHOLE: Final = frozenset({"health", "artifact"})


class Places(msgspec.Struct, frozen=True):
    """Where a service's keys and values stand, as (line, column); paths are those of the reader.

    `unbuilt`: keys of which a mistake has told already that they are not built.
    """

    keys: dict[Path, tuple[int, int]]
    values: dict[Path, tuple[int, int]]
    unbuilt: frozenset[Path] = frozenset()

    def of(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """The place of a value, or of its key; of the nearest thing around it when it is not in the file."""
        for end in range(len(path), 0, -1):
            found = self.keys.get(path[:end]) if key else self.values.get(path[:end])
            if found is not None:
                return found
        return self.keys.get(("service",), (1, 1))


class Parsed(msgspec.Struct, frozen=True):
    """The services of a file, and what may be meant but is worth a look."""

    specs: tuple[ServiceSpec, ...]
    warnings: tuple[Mistake, ...]
    places: tuple[Places, ...]


def parse(text: str | bytes, *, file: str) -> list[ServiceSpec]:
    """Return the services of a file in its order; raise `SpecErrors` with all mistakes, sorted by line."""
    return list(read(text, file=file).specs)


def read(text: str | bytes, *, file: str) -> Parsed:
    """Like `parse`, with the warnings (`env.DB_PASSWORD looks like a secret`) beside the services."""
    parsed, mistakes = read_as_far(text, file=file)
    if mistakes:
        raise SpecErrors(mistakes)
    return parsed


def read_as_far(text: str | bytes, *, file: str) -> tuple[Parsed, list[Mistake]]:
    """What of a file can be read, with defaults where a value is wrong, and all mistakes: whoever checks it finds more."""
    roots, mistakes = read_documents(text, file=file)
    specs: list[ServiceSpec] = []
    warnings: list[Mistake] = []
    places: list[Places] = []
    names: dict[str, int] = {}
    for root in roots:
        reader = Reader(file)
        plain = _document(reader, root)
        if plain is not None:
            check_service(reader, plain)
            warnings.extend(warn_service(reader, plain))
            _once(reader, plain["service"], root, names)
            with suppress(BadSpecEventError) if reader.mistakes else nullcontext():
                specs.append(shaped(plain) if reader.mistakes else from_plain(plain))
                places.append(Places(_places(reader.names), _places(reader.marks), frozenset(reader.unbuilt)))
        mistakes.extend(reader.mistakes)
    if not roots and not mistakes:
        mistakes.append(Mistake(file, 1, 1, "there is no service here", "begin with `service: NAME`"))
    return Parsed(tuple(specs), tuple(sorted(set(warnings))), tuple(places)), mistakes


def _places(nodes: dict[Path, Node]) -> dict[Path, tuple[int, int]]:
    return {path: (node.line, node.column) for path, node in nodes.items()}


def _document(reader: Reader, root: Node) -> dict[str, Any] | None:
    if not isinstance(root, Mapping):
        reader.mistake(root, "a service is a map", "begin with `service: NAME`")
        return None
    defaults = root.get("defaults")
    if isinstance(defaults, Mapping):
        root = _with_defaults(root, defaults)
    service = reader.group(root, "service", ())
    del service["defaults"]
    components = service["components"] or {}
    if not components and reader.trusted(("components",)):
        reader.mistake(reader.mark(("components",)), "`components` is empty", "name at least one")
    service["components"] = {name: complete_component(name, said, service["kind"]) for name, said in components.items()}
    return service


def _once(reader: Reader, name: str | None, root: Node, names: dict[str, int]) -> None:
    if name is not None and names.setdefault(name, root.line) != root.line:
        message = f"the service `{name}` is here twice"
        reader.mistake(reader.mark(("service",)), message, f"the first is on line {names[name]}")


def _with_defaults(root: Mapping, defaults: Mapping) -> Mapping:
    """Return the root with `defaults` laid under each component; every node keeps its own place."""
    entries: list[tuple[Scalar, Node]] = []
    for key, value in root.entries:
        if key.text == "components" and isinstance(value, Mapping):
            laid = tuple((name, _laid(defaults, c) if isinstance(c, Mapping) else c) for name, c in value.entries)
            entries.append((key, Mapping(laid, value.line, value.column)))
        else:
            entries.append((key, value))
    return Mapping(tuple(entries), root.line, root.column)


def _laid(under: Mapping, own: Mapping) -> Mapping:
    """Merge two maps key by key, `own` winning; `health` and `artifact` are replaced whole, as lists are."""
    entries = {key.text: (key, value) for key, value in under.entries}
    for key, value in own.entries:
        below = entries.get(key.text)
        if below is not None and isinstance(below[1], Mapping) and isinstance(value, Mapping):
            value = value if key.text in _REPLACED_WHOLE else _laid(below[1], value)  # noqa: PLW2901 - the merged one
        entries[key.text] = key, value
    return Mapping(tuple(entries.values()), own.line, own.column)
