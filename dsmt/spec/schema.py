"""The table of keys as JSON Schema (2020-12), as the words of `dsmt explain KEY`, and as a table for the docs."""

from __future__ import annotations

from typing import Any, Final

from dsmt.spec.built import SUPPORTED
from dsmt.spec.keys import GROUPS, KEYS, NEIGHBOURS, SpecKey
from dsmt.spec.mistakes import WrongValueError, nearest
from dsmt.spec.shapes import (
    KEY_PATTERNS,
    LAST_ID,
    MOST_TIMES,
    NAME_PATTERN,
    PORT_NAME_PATTERN,
    USER_PATTERN,
    Health,
    ListOf,
    MapOf,
    Nested,
    Shape,
    Single,
    Step,
    WholeOr,
    Word,
)
from dsmt.spec.words import PLACES

_DURATION: Final = {"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d))+$"}
_ZERO: Final = {"minimum": 0, "maximum": 0}
_SIZE: Final = {"type": ["string", "integer"], "pattern": r"^(0|\d+(\.\d+)?([KMGT]iB|[kMGT]B))$"} | _ZERO
_COMMAND: Final = {"type": ["string", "array"], "items": {"type": ["string", "number"]}, "minLength": 1, "minItems": 1}
_SCALARS: Final[dict[str, dict[str, Any]]] = {
    "name": {"type": "string", "pattern": f"^{NAME_PATTERN}$"},
    "port_name": {"type": "string", "pattern": f"^{PORT_NAME_PATTERN}$"},
    "text": {"type": "string"}, "flag": {"type": "boolean"}, "whole": {"type": "integer"}, "real": {"type": "number"},
    "duration": _DURATION, "size": _SIZE,
    "share": {"type": ["integer", "string"], "pattern": r"^\d{1,3}(\.\d+)?%$"},
    "percent": {"type": "string", "pattern": r"^\d{1,3}(\.\d+)?%$"},
    "command": _COMMAND, "reload": _COMMAND, "signal": {"type": "string", "pattern": "^[A-Za-z0-9]+$"},
    "path": {"type": "string", "minLength": 1}, "directory": {"type": "string", "minLength": 1},
    "sha256": {"type": "string", "pattern": "^([Ss][Hh][Aa]256:)?[0-9a-fA-F]{64}$"},
    "octal": {"type": "string", "pattern": "^(0o)?0?[0-7]{3,4}$"}, "url": {"type": "string", "minLength": 1},
    "image": {"type": "string", "minLength": 1}, "node_set": {"type": "string", "minLength": 1},
    "cel": {"type": "string", "minLength": 1}, "address": {"type": "string", "minLength": 1},
    "user": {"type": ["string", "integer"], "pattern": f"^({USER_PATTERN})$", "minimum": 0, "maximum": LAST_ID},
    "status": {"type": ["string", "integer"], "minimum": 100, "maximum": 599},
    "spread": {"type": "string", "pattern": "^(node|none|label:.+)$"},
    "exit_or_signal": {"type": ["string", "integer"], "pattern": "^signal:[A-Za-z0-9]+$", "minimum": 0, "maximum": 255},
    "env": {"type": ["string", "number", "null", "object"], "properties": {"file": {"type": "string"}},
            "required": ["file"], "additionalProperties": False},
    "flag_or_size": {**_SIZE, "type": ["boolean", "string", "integer"]},
    "variable": {"type": "string", "pattern": f"^{KEY_PATTERNS['variable']}$"},
    "request_path": {"type": "string", "pattern": "^/"}, "header_value": {"type": "string", "pattern": r"^[^\r\n]*$"},
}  # fmt: skip
_CALLED: Final = {
    "duration": "duration (500ms, 10s, 1h30m)", "size": "size (512MiB, 10GB)", "share": "count or share (2, 25%)",
    "command": "command (a line without a shell, or a list)", "flag": "true or false", "whole": "whole number",
    "real": "number", "octal": "quoted octal", "node_set": "node set", "cel": "CEL", "sha256": "64 hex digits",
    "url": "path, https: or depot:", "flag_or_size": "true, false or size", "user": "name or uid",
    "env": "text, number, null or {file: PATH}", "exit_or_signal": "exit code or signal:NAME",
    "reload": "signal or command", "port_name": "name of a port", "image": "OCI reference",
    "status": "status codes (200-399)", "spread": "node, label:KEY or none", "percent": "share (25%)",
    "request_path": "path, which begins with /", "header_value": "text without a line break",
}  # fmt: skip


def json_schema() -> dict[str, Any]:
    """Return the schema of one document of a service file; it is a little wider than `parse`.

    It is narrower in one thing: a mode as `0o644` without quotes, which is a number there.
    """
    groups = {group: _object(group) for group in GROUPS}
    root = groups.pop("service")
    schema = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": schema, "title": "dsmt service file", **root, "$defs": groups}


def _object(group: str) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for key in GROUPS[group].values():
        about = {"description": key.text} | ({} if key.default is None else {"default": key.default})
        properties[key.name] = {**_shape(key.shape), **about}
        if key.alias:
            properties[key.alias] = {**properties[key.name], "deprecated": True}
    return {
        "type": "object",
        "properties": properties,
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
        "required": [key.name for key in GROUPS[group].values() if key.required],
    }


def _shape(shape: Shape) -> dict[str, Any]:
    match shape:
        case Single(kind, low, high):
            bounds = {"minimum": low, "maximum": high} if kind in {"whole", "real", "share"} else {}
            return _SCALARS[kind] | {name: bound for name, bound in bounds.items() if bound is not None}
        case Word(words):
            return {"enum": list(words)}
        case WholeOr(word, low, high):
            return {"anyOf": [{"const": word}, {"type": "integer", "minimum": low, "maximum": high}]}
        case Nested(group, short):
            ref = {"$ref": f"#/$defs/{group}"}
            return {"anyOf": [_shape(GROUPS[group][short].shape), ref]} if short else ref
        case ListOf(item, lone):
            items = {"type": "array", "items": _shape(item)}
            return {"anyOf": [_shape(item), items]} if lone else items
        case MapOf(item, keys):
            names = {"pattern": f"^(?:{KEY_PATTERNS[keys]})$"}
            return {"type": "object", "propertyNames": names, "additionalProperties": _shape(item)}
        case Step(words):
            times = {"type": "integer", "minimum": 1, "maximum": MOST_TIMES}
            pair = {"type": "object", "maxProperties": 1, "minProperties": 1}
            return pair | {"propertyNames": {"enum": list(words)}, "additionalProperties": times}
        case Health():
            return {"anyOf": [{"$ref": "#/$defs/health"}, {"$ref": "#/$defs/check"}]}


def type_of(shape: Shape) -> str:
    """Return the type of a key in a few words."""
    match shape:
        case Single(kind):
            return _CALLED.get(kind, kind)
        case Word(words):
            return ", ".join(words)
        case WholeOr(word, low, high):
            return f"{low}..{high} or {word}"
        case Nested(group, short):
            keys = ", ".join(GROUPS[group]) if group != "component" else "keys of a component"
            return f"{type_of(GROUPS[group][short].shape)}; or a map of {keys}" if short else f"map of {keys}"
        case ListOf(item, lone):
            return f"{type_of(item)}; or a list of them" if lone else f"list of {type_of(item)}"
        case MapOf(item, keys):
            return f"map of {keys.replace('_', ' ')} to {type_of(item)}"
        case Step(words):
            return f"single pairs, action: times; actions {', '.join(words)}"
        case Health():
            return "one check; or a map of startup, readiness, liveness"


def default_of(key: SpecKey) -> str:
    """Return the default of a key as it is shown."""
    if key.required:
        return "required"
    if key.note or key.default is None:
        return key.note or "none"
    if isinstance(key.default, bool):
        return "true" if key.default else "false"
    if isinstance(key.default, list):
        return f"[{', '.join(map(str, key.default))}]"
    return str(key.default) if key.default != "" else '""'


def path_of(key: SpecKey) -> str:
    """Return the dotted path of a key as `explain` and the docs show it (`stop.grace`, `ports.NAME.bind`)."""
    place = "" if key.group == "component" else PLACES[key.group]
    return f"{place}.{key.name}" if place else key.name


def explain(key: str) -> str:
    """Return what there is to know about a key (`stop.grace`, `health.http.path`, `ports.NAME.bind`).

    A plain last part (`grace`) is enough; all keys of that name are shown. Raises `WrongValueError` for none.
    """
    wanted = [part for part in key.strip().split(".") if part]
    plain = len(wanted) == 1
    if wanted[:1] in (["component"], ["components"], ["service"]) and len(wanted) > 1:
        wanted = wanted[2:] if wanted[0] == "components" and len(wanted) > 2 else wanted[1:]
    found = [] if plain else [each for each in KEYS if _is(wanted, each, exactly=True)]
    found = found or [each for each in KEYS if _is(wanted, each, exactly=False) or (plain and each.alias == wanted[0])]
    if not found:
        ours = NEIGHBOURS.get(".".join(wanted).replace("-", "_").lower())
        if ours is not None:
            raise WrongValueError(f"there is no key `{key[:60]}`: here it is `{ours}`", f"dsmt explain {ours.split('`')[0]}")
        close = nearest(".".join(wanted), {path_of(each) for each in KEYS}) or nearest(key, {k.name for k in KEYS})
        hint = f"did you mean `{close}`?" if close else "`dsmt explain` lists every key"
        raise WrongValueError(f"there is no key `{key[:60]}`", hint)
    return "\n\n".join(_paragraph(each) for each in found)


def overview() -> str:
    """Return every key with its one line."""
    width = max(len(path_of(each)) for each in KEYS)
    return "\n".join(f"{path_of(each):<{width}}  {each.text}" for each in KEYS)


def _is(wanted: list[str], key: SpecKey, *, exactly: bool) -> bool:
    path = path_of(key).split(".")
    tail = path if exactly else path[-len(wanted) :]
    return len(wanted) == len(tail) and all(p in (w, "NAME") for w, p in zip(wanted, tail, strict=True))


def _paragraph(key: SpecKey) -> str:
    lines = [path_of(key), f"  {key.text}", f"  type     {type_of(key.shape)}", f"  default  {default_of(key)}"]
    if key.alias:
        lines.append(f"  alias    {key.alias}")
    built = SUPPORTED[f"{key.group}.{key.name}"]
    if built is False:
        lines.append("  built    not yet; `apply` refuses it")
    elif isinstance(built, tuple) and key.name != "data":
        lines.append(f"  built    only {', '.join(map(str, built))} yet")
    return "\n".join(lines)


def reference() -> str:
    """Return every key as one Markdown table for the documentation."""
    lines = ["| key | type | default | one line |", "|---|---|---|---|"]
    for key in KEYS:
        cells = (f"`{path_of(key)}`", type_of(key.shape), f"`{default_of(key)}`", key.text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


_EXAMPLE: Final = """\
# A service file. Every key: dsmt explain KEY. Check it: dsmt plan FILE.
service: web
description: three copies of a small web server
owner: team-web
labels:
  tier: front

components:
  app:
    # {port.http} is filled in on the node; no shell runs the command.
    run: python3 -m http.server {port.http} --bind {address}
    ports:
      http: auto
    instances: 3
    env:
      LOG: info
    health:
      http:
        port: http
        path: /
    stop:
      grace: 5s
    update:
      max_parallel: 1
      healthy_after: 2s
"""


def example() -> str:
    """Return a service file to begin with; it parses, and everything in it is built."""
    return _EXAMPLE
