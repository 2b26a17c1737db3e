"""What differs between two specs of a service, key by key, and what each difference asks of running instances.

`install_key` and `run_key` say the same by content, for agents: an instance whose `install_key` differs is installed
anew, one whose `run_key` differs is restarted, any other difference is taken over while it runs. What placeholders
expand to (labels, revision) is no part of either. Small files that come or go ask for an installation anew: one that went
would stay there, and nobody but what was unpacked knows what had been in its place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from dsmt.spec.records import ComponentSpec, ServiceSpec
from dsmt.spec.writing import document

Action = Literal["none", "restart", "reinstall", "rescale"]

ASKS: Final[Mapping[Action, frozenset[str]]] = {
    "reinstall": frozenset({"artifact", "install", "driver", "image", "user", "files"}),
    "restart": frozenset({
        "run", "configure", "directory", "data", "env", "inherit_env", "secrets", "limits", "ports",
        "kind", "pre", "post", "timeout",
    }),
    "rescale": frozenset({
        "instances", "nodes", "requires", "rank", "spread", "apart", "near", "reserve", "on_partition", "parallel",
    }),
    "none": frozenset({
        "after", "fence", "health", "install_timeout", "logs", "lost_after", "reload", "restart", "stop", "term",
        "uninstall", "update",
    }),
}  # fmt: skip
"""What a change asks for, and of which keys: each key stands in one of these sets, which a test sees to."""
_FIELDS: Final = {"artifact": "artifacts"}


class Change(msgspec.Struct, frozen=True):
    """One difference, in the operator's spelling.

    `component` is empty for a key of the service; `key` is dotted (`artifact.sha256`, `env.LOG`) and empty when a whole
    component came (`old` null) or went (`new` null). A key that is not there is null; a variable that is null,
    which takes an inherited one away, is the word `null`.
    """

    component: str
    key: str
    old: Any
    new: Any
    action: Action


def changes(old: ServiceSpec | None, new: ServiceSpec) -> list[Change]:
    """Return what differs, service keys first, then by component and key; empty when nothing does."""
    before = document(old, complete=True) if old is not None else {"components": {}}
    after = document(new, complete=True)
    was, now = before.pop("components"), after.pop("components")
    found = [Change("", key, a, b, "none") for key, a, b in _differences(before, after)] if old is not None else []
    for name in sorted({*was, *now}):
        if name not in was or name not in now:
            found.append(Change(name, "", was.get(name), now.get(name), "rescale"))
            continue
        same_content = old is not None and install_key(old.components[name]) == install_key(new.components[name])
        for key, a, b in _differences(was[name], now[name]):
            same_names = key == "files" and _names(a) == _names(b)
            found.append(Change(name, key, a, b, "restart" if same_names else _action(key, same_content)))
    return found


def _differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted key, old, new) of the leaves that differ; lists are compared whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            a, b = (_there(one[name], key) if name in one else None for one in (old, new))
            yield from _differences(a, b, f"{key}.{name}" if key else name)
    elif old != new:
        yield key, old, new


def _there(value: Any, key: str) -> Any:
    return "null" if value is None and key == "env" else value


def _action(key: str, same_content: bool) -> Action:
    first = key.split(".", maxsplit=1)[0]
    asked: Action = next((action for action, keys in ASKS.items() if first in keys), "none")
    return "none" if asked == "reinstall" and same_content else asked


def install_key(component: ComponentSpec) -> str:
    """Return the SHA-256 (hex) of what must be installed anew when it changes; an artifact counts by its content."""
    plain = _plain(component)
    for artifact in plain["artifacts"]:
        if artifact["sha256"] is not None:
            del artifact["url"]
    values = {key: plain[_FIELDS.get(key, key)] for key in sorted(ASKS["reinstall"] - {"files"})}
    names = _names(plain["files"])
    return _digest(values | {"files": names} if names else values)


def run_key(component: ComponentSpec) -> str:
    """Return the SHA-256 (hex) of what needs a restart when it changes; a new installation is part of it."""
    plain = _plain(component)
    plain.update(plain["job"] or {})
    values = {key: plain[field] for key in ASKS["restart"] for field in (key, f"{key}_s") if field in plain}
    return _digest({**values, **{key: plain[key] for key in ("data_bytes", "files")}, "install": install_key(component)})


def _names(files: list[dict[str, Any]] | None) -> list[str]:
    return sorted({one["to"] for one in files or ()})


def _plain(component: ComponentSpec) -> dict[str, Any]:
    return dict(msgspec.to_builtins(component))


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
