"""Which keys this version acts on: what is parsed but not built yet is refused at `apply`, never ignored.

Rule 1: a key that only repeats its default is never refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dsmt.spec import placeholders
from dsmt.spec.built import SUPPORTED, instead_of
from dsmt.spec.keys import GROUPS
from dsmt.spec.mistakes import WrongValueError
from dsmt.spec.plain import to_plain
from dsmt.spec.reading import Path
from dsmt.spec.records import ServiceSpec
from dsmt.spec.shapes import Health, ListOf, MapOf, Nested, Shape
from dsmt.spec.templates import templates
from dsmt.spec.writing import document


class Unbuilt(NamedTuple):
    """What a spec relies on and this version does not act on; `path` as the reader has it, `key`: it is the key itself."""

    path: Path
    message: str
    advice: str
    key: bool = False

    def __str__(self) -> str:
        named = [part for n, part in enumerate(self.path) if n < 3 or not part.isdigit()]  # no places in lists
        return f"{'.'.join(named)}: {self.message}"


def unsupported(spec: ServiceSpec) -> list[Unbuilt]:
    """Return everything that the spec relies on and this version does not act on; empty is good."""
    found = list(_group(document(spec), "service", ()))
    plain = to_plain(spec)
    for name, component in spec.components.items():
        here = ("components", name)
        limits = component.limits
        if component.user == "auto":
            found.append(Unbuilt((*here, "user"), "`auto` is not built yet", "write a user's name or a uid"))
        if limits.memory_bytes is not None and limits.enforce == "required":
            message = "only `enforce: best_effort` is built yet, as a limit of the address space"
            found.append(Unbuilt((*here, "limits", "memory"), message, "add `enforce: best_effort`"))
        if not SUPPORTED["placeholder.endpoints"]:
            message, advice = (
                "the placeholder `{endpoints...}` is not built yet",
                "give the other a fixed port and name that",
            )
            for path, template in templates(plain["components"][name]):
                if _names_endpoints(template):
                    found.append(Unbuilt((*here, *path), message, advice))
    return found


def _names_endpoints(template: str) -> bool:
    try:
        return any(name.startswith("endpoints.") for name in placeholders.names(template))
    except WrongValueError:
        return False


def _group(written: Mapping[str, Any], group: str, path: Path) -> Iterator[Unbuilt]:
    for name, value in written.items():
        here = (*path, name)
        row = f"{group}.{name}"
        built = SUPPORTED[row]
        if built is False:
            yield Unbuilt(here, "this key is not built yet", instead_of(row), key=True)
        elif isinstance(built, tuple) and value not in built and not isinstance(value, dict):
            only = [str(one).lower() if isinstance(one, bool) else str(one) for one in built]
            message = f"{value} is not built yet, only {' and '.join(only)}"
            yield Unbuilt(here, message, f"write {' or '.join(f'`{name}: {one}`' for one in only)}")
        else:
            yield from _value(value, GROUPS[group][name].shape, here)


def _value(value: Any, shape: Shape, path: Path) -> Iterator[Unbuilt]:
    match shape:
        case Nested(group, short):
            yield from _group(value if isinstance(value, dict) else {short: value}, group, path)
        case ListOf(item, _):
            for number, each in enumerate(value if isinstance(value, list) else [value]):
                yield from _value(each, item, (*path, str(number)))
        case MapOf(item, _):
            for name, each in value.items():
                yield from _value(each, item, (*path, name))
        case Health():
            group = "health" if value.keys() & GROUPS["health"].keys() else "check"
            yield from _group(value, group, path)
