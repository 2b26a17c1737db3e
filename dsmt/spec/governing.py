"""Governing: what an earlier revision of a component said otherwise of where and how many of its instances may be (A18).

A slot whose revision was refused goes back to an earlier one, and is governed by that. Readers hold the spec that stands
alone; so it brings along what earlier ones said otherwise, as far as anybody reads it but the nodes that run them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from dsmt.spec.plain import from_plain, to_plain
from dsmt.spec.records import ComponentSpec, ServiceSpec

Plain = Mapping[str, Any]
Otherwise = dict[str, dict[str, Any]]
"""By component, by field, what an earlier revision said otherwise."""

OF_NODES: Final = frozenset({
    "run", "image", "artifacts", "install", "configure", "uninstall", "install_timeout_s", "directory", "data_bytes", "env",
    "inherit_env", "secrets", "files", "logs", "reload",
})  # fmt: skip
"""What only the node reads that runs an instance: it has the spec that its slot names."""


def as_it_was(components: Mapping[str, Plain], otherwise: Mapping[str, Plain]) -> dict[str, dict[str, Any]]:
    """The components of an earlier spec, from those that stand and what it said otherwise."""
    return {name: {**components.get(name, {}), **otherwise.get(name, {})} for name in sorted({*components, *otherwise})}


def otherwise(was: Mapping[str, Plain], now: Mapping[str, Plain]) -> Otherwise:
    """What earlier components said otherwise than those that stand. Numbers of instances are those that stand."""
    found = {name: _differing(one, now.get(name, {})) for name, one in sorted(was.items())}
    return {name: differing for name, differing in found.items() if differing}


def _differing(was: Plain, now: Plain) -> dict[str, Any]:
    both_counted = was.get("instances") is not None and now.get("instances") is not None
    ignored = OF_NODES | {"instances"} if both_counted else OF_NODES
    return {field: said for field, said in was.items() if field not in ignored and (field not in now or now[field] != said)}


def governing(spec: ServiceSpec, otherwise: Mapping[str, Plain]) -> dict[str, ComponentSpec]:
    """The components that stand and that an earlier spec had otherwise, as it had them. Raises `BadSpecEventError`."""
    told = {name: one for name, one in otherwise.items() if name in spec.components}
    if not told:
        return {}
    plain = to_plain(msgspec.structs.replace(spec, components={name: spec.components[name] for name in told}))
    return from_plain({**plain, "components": as_it_was(plain["components"], told)}).components
