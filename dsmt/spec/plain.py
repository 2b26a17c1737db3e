"""A spec as plain values, for the signed spec event, and back.

`to_plain` gives only str, int, float, bool, None, list and dict with str keys, so that any codec can carry it.
`from_plain` reads what anybody may have sent: it returns a valid spec or raises `BadSpecEventError`, nothing else.
Fields that a later version added are ignored.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dsmt.event.records import to_data
from dsmt.spec import nodeset
from dsmt.spec.health import port_of
from dsmt.spec.mistakes import BadSpecEventError
from dsmt.spec.records import ComponentSpec, ServiceSpec


def to_plain(spec: ServiceSpec) -> dict[str, Any]:
    """Return the spec as plain values; defaults are written out, so a later version cannot change their meaning."""
    return to_data(spec)


def from_plain(plain: Any) -> ServiceSpec:
    """Return the spec of what an event holds; raise `BadSpecEventError` when it is none."""
    spec = shaped(plain)
    for name, component in spec.components.items():
        _check(name, component)
    return spec


def shaped(plain: Any) -> ServiceSpec:
    """The same where only types are right, as of a file with mistakes: to look further in it, and for nothing else."""
    try:
        return msgspec.convert(plain, ServiceSpec, strict=True)
    except (msgspec.ValidationError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadSpecEventError(str(error)[:500]) from error


def _check(name: str, component: ComponentSpec) -> None:
    """Check what types alone do not: what other modules rely on when they read a component."""
    if component.name != name:
        raise BadSpecEventError(f"component `{name[:63]}` says that its name is `{component.name}`")
    if component.run is None and component.image is None:
        raise BadSpecEventError(f"component `{name}` has neither `run` nor `image`")
    if (component.job is not None) != (component.kind == "job"):
        raise BadSpecEventError(f"component `{name}`: `job` does not agree with its kind, {component.kind}")
    ports = {port.name for port in component.ports}
    if len(ports) != len(component.ports):
        raise BadSpecEventError(f"component `{name}` names a port twice")
    for check in component.health.checks() if component.health is not None else ():
        if port_of(check.how) not in {None, *ports}:
            raise BadSpecEventError(f"a check of component `{name}` names a port that is not there")
    try:
        nodeset.parse(component.nodes)
    except nodeset.NodeSetError as error:
        raise BadSpecEventError(f"nodes of component `{name}`: {error.message}") from error
