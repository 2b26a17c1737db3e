"""A spec as an operator would write it: the inverse of reading, by the same table of keys.

`document` leaves out what is the default; `dsmt/spec/yamltext.py` writes it down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from dsmt.spec import health
from dsmt.spec.commands import join_command
from dsmt.spec.completing import complete_component, usual_partition
from dsmt.spec.keys import GROUPS, JOB_KEYS, SpecKey
from dsmt.spec.plain import to_plain
from dsmt.spec.quantities import format_duration, format_percent, format_size
from dsmt.spec.reading import Reader
from dsmt.spec.records import ServiceSpec
from dsmt.spec.shapes import Health, ListOf, MapOf, Nested, Shape, Single, Step, WholeOr

_ABSENT: Final = object()
_COMPUTED: Final = {  # keys whose default depends on other keys; below a component
    ("kind",), ("driver",), ("on_partition",), ("reserve", "memory_bytes"), ("reserve", "cpu"), ("reserve", "disk_bytes"),
    ("restart", "when"), ("restart", "escalate"), ("stop", "grace_s"), ("update", "order"), ("parallel",),
}  # fmt: skip


def document(spec: ServiceSpec, *, complete: bool = False) -> dict[str, Any]:
    """Return what a file would hold, as plain values in the operator's spelling; `complete` keeps the defaults."""
    plain = to_plain(spec)
    plain["components"] = {name: _said(component) for name, component in plain["components"].items()}
    if not complete:
        for name, said in plain["components"].items():
            _drop_computed(said, name, spec.kind)
    return _group(plain, "service", complete)


def _said(component: dict[str, Any]) -> dict[str, Any]:
    """Return a component's record as `Reader` would have given it, with everything said."""
    job = component.pop("job")
    said: dict[str, Any] = {**component, **(job or {key.field: None for key in JOB_KEYS})}
    said["sockets"] = []
    said["ports"] = {port["name"]: {k: v for k, v in port.items() if k != "name"} for port in component["ports"]}
    size = said.pop("data_bytes")
    said["data"] = size if size is not None else component["data"]
    said["health"] = health.said_of(component["health"])
    return said


def _drop_computed(said: dict[str, Any], name: str, service_kind: str) -> None:
    """Set to None what completing would fill in with the same value, and shorten the health checks."""
    before = {path: _at(said, path) for path in _COMPUTED}
    for path in _COMPUTED:
        _at(said, path[:-1])[path[-1]] = None
    usual = {
        ("kind",): service_kind,
        ("driver",): "podman" if said["image"] else "process",
        ("on_partition",): usual_partition(said),
    }
    for path, value in usual.items():
        said[path[0]] = before[path] if before[path] != value else None
    computed = complete_component(name, {**said, "health": None}, service_kind)
    computed = {**computed, **(computed["job"] or {"parallel": None})}
    for path, value in before.items():
        if path not in usual and _at(computed, path) != value:
            _at(said, path[:-1])[path[-1]] = value
    said["health"] = health.shortest(said["health"], next(iter(said["ports"]), None))


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        values = values[key]
    return values


def _group(values: Mapping[str, Any], group: str, complete: bool) -> dict[str, Any]:
    out = {}
    for name, key in GROUPS[group].items():
        written = _key(key, values.get(key.field), complete)
        if written is not _ABSENT:
            out[name] = written
    return out


def _key(key: SpecKey, value: Any, complete: bool) -> Any:
    if not complete and not key.required and value == _default(key):
        return _ABSENT
    if value is None:
        return key.shape.word if isinstance(key.shape, WholeOr) else _ABSENT
    return _value(key.shape, value, complete)


def _default(key: SpecKey) -> Any:
    value = Reader("").default(key, ())
    return list(value) if isinstance(value, tuple) else value


def _value(shape: Shape, value: Any, complete: bool) -> Any:
    match shape:
        case Single(kind):
            return _SCALARS.get(kind, _same)(value)
        case Nested(group, short):
            written = _group(value, group, complete)
            return written[short] if short and not complete and set(written) == {short} else written
        case ListOf(item, lone):
            items = [_value(item, each, complete) for each in value]
            return items[0] if lone and len(items) == 1 else items
        case MapOf(item, _):
            return {name: _map_item(item, each, complete) for name, each in value.items()}
        case Step():
            return {value["action"]: value["times"]}
        case Health():
            return _group(value["every"], "check", complete) if "every" in value else _group(value, "health", complete)
    return value


def _map_item(item: Shape, value: Any, complete: bool) -> Any:
    """Write one item of a map; an object of defaults only is written as the word of its short form."""
    written = _value(item, value, complete)
    if isinstance(item, Nested) and item.short and written == {}:
        return GROUPS[item.group][item.short].default
    return written


def _same(value: Any) -> Any:
    return value


def _share(value: Mapping[str, Any]) -> Any:
    return value["count"] if value["percent"] is None else format_percent(value["percent"])


def _command(argv: list[str]) -> Any:
    line = join_command(tuple(argv))
    return line if line == " ".join(argv) and "\n" not in line else list(argv)


def _reload(value: Mapping[str, Any]) -> Any:
    return _command(value["command"]) if value["signal"] is None else _signal(value["signal"])


def _signal(name: str) -> str:
    return name.removeprefix("SIG")


def _status(ranges: list[list[int]]) -> str:
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)


def _flag_or_size(value: bool | int) -> Any:
    return value if isinstance(value, bool) else format_size(value)


_SCALARS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "duration": format_duration, "size": format_size, "percent": format_percent, "share": _share, "signal": _signal,
    "command": _command, "reload": _reload, "status": _status, "flag_or_size": _flag_or_size,
}  # fmt: skip
