"""Which keys this version acts on: what is parsed but not built yet is refused at `apply`, never ignored.

Rule 1: every key of the table of keys has a row in `SUPPORTED`: True, False, or the values that are built.
Rule 2: a key that only repeats its default is never refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from dsmt.spec import placeholders
from dsmt.spec.keys import GROUPS, KEYS
from dsmt.spec.mistakes import WrongValueError
from dsmt.spec.plain import to_plain
from dsmt.spec.records import ServiceSpec
from dsmt.spec.shapes import Health, ListOf, MapOf, Nested, Shape
from dsmt.spec.templates import templates
from dsmt.spec.writing import document

_NOT_BUILT: Final = frozenset({
    "service.barriers", "service.expires", "service.keep_revisions",
    "component.image", "component.secrets", "component.requires", "component.rank",
    "component.apart", "component.near", "component.lost_after", "component.term", "component.fence",
    "component.sockets", "component.reload", "component.after",
    "component.retries", "component.abort_on", "component.success_on", "component.checkpoint_exit_code",
    "component.timeout", "component.pre", "component.post", "component.parallel", "component.keep",
    "artifact.signature", "secret.secret", "secret.file", "secret.to",
    "spread.strict", "near.to", "near.within", "near.ideal", "near.penalty",
    "limits.cpu", "limits.disk", "port.held", "check.notify", "notify.watchdog",
    "after.component", "after.state", "after.barrier", "after.restart_with", "update.canary",
    "barrier.min", "barrier.max", "barrier.percent", "barrier.timeout", "barrier.knee", "barrier.late",
    "barrier.throttle",
})  # fmt: skip
_BUILT_VALUES: Final[Mapping[str, tuple[object, ...]]] = {
    "service.kind": ("service",),
    "component.kind": ("service",),
    "component.driver": ("process",),
    "component.data": (True, False),
    "component.on_partition": ("at_least_one", "pinned"),
    "spread.by": ("node", "none"),
}

SUPPORTED: Final[Mapping[str, bool | tuple[object, ...]]] = {
    row: False if row in _NOT_BUILT else _BUILT_VALUES.get(row, True) for row in (f"{key.group}.{key.name}" for key in KEYS)
} | {"placeholder.endpoints": False}


def unsupported(spec: ServiceSpec) -> list[str]:
    """Return one sentence for each key that the spec relies on and this version does not act on; empty is good."""
    found = list(_group(document(spec), "service", ""))
    plain = to_plain(spec)
    for name, component in spec.components.items():
        limits = component.limits
        if component.user == "auto":
            found.append(f"components.{name}.user: `auto` is not built yet, only a name or a uid")
        if limits.memory_bytes is not None and limits.enforce == "required":
            place = f"components.{name}.limits.memory"
            found.append(f"{place}: only `enforce: best_effort` is built yet, as a limit of the address space")
        if not SUPPORTED["placeholder.endpoints"] and any(
            _names_endpoints(template) for _, template in templates(plain["components"][name])
        ):
            found.append(f"components.{name}: the placeholder `{{endpoints...}}` is not built yet")
    return found


def _names_endpoints(template: str) -> bool:
    try:
        return any(name.startswith("endpoints.") for name in placeholders.names(template))
    except WrongValueError:
        return False


def _group(written: Mapping[str, Any], group: str, place: str) -> Iterator[str]:
    for name, value in written.items():
        here = f"{place}{name}"
        built = SUPPORTED[f"{group}.{name}"]
        if built is False:
            yield f"{here}: this key is not built yet"
        elif isinstance(built, tuple) and value not in built and not isinstance(value, dict):
            yield f"{here}: {value} is not built yet, only {' and '.join(map(str, built))}"
        else:
            yield from _value(value, GROUPS[group][name].shape, here)


def _value(value: Any, shape: Shape, place: str) -> Iterator[str]:
    match shape:
        case Nested(group, short):
            yield from _group(value if isinstance(value, dict) else {short: value}, group, f"{place}.")
        case ListOf(item, _):
            for each in value if isinstance(value, list) else [value]:
                yield from _value(each, item, place)
        case MapOf(item, _):
            for name, each in value.items():
                yield from _value(each, item, f"{place}.{name}")
        case Health():
            group = "health" if value.keys() & GROUPS["health"].keys() else "check"
            yield from _group(value, group, f"{place}.")
