"""Complete what a file says: defaults that depend on other keys, short forms written out, the record's own layout.

In and out are plain dicts named like the record's fields; anything may still be missing or wrong here, because this
runs before the checks across keys so that those see the same values as everybody later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from dsmt.spec import health
from dsmt.spec.records import JOB_FIELDS

DEFAULT_GRACE_S: Final = 10.0
GRACE_SHARE_OF_TERM: Final = 0.3
ESCALATION: Final = (("restart", 5), ("reinstall", 2), ("recreate", 2), ("move", 1))
DIGEST: Final = re.compile(r"[0-9a-f]{64}")

_RESERVE: Final = {"memory_bytes": 128 * 2**20, "cpu": 0.1, "disk_bytes": 0}


def complete_component(name: str, said: Mapping[str, Any], service_kind: str) -> dict[str, Any]:
    """Return a component as `ComponentSpec` has it, from what `Reader` gave."""
    kind = said["kind"] or service_kind
    ports = _ports(said["ports"], said["sockets"] or [])
    data = said["data"]
    said = {**said, "on_partition": said["on_partition"] or usual_partition(said)}
    out = {key: value for key, value in said.items() if key not in {"sockets", *JOB_FIELDS}}
    out.update(
        name=name,
        kind=kind,
        driver=said["driver"] or ("podman" if said["image"] else "process"),
        artifacts=[_artifact(artifact) for artifact in said["artifacts"]],
        data=has_data(said),
        data_bytes=None if isinstance(data, bool) else data,
        reserve=_reserve(said["reserve"], said["limits"]),
        ports=ports,
        health=health.completed(said["health"], ports[0]["name"] if ports else None),
        restart=_restart(said["restart"], kind, said["on_partition"]),
        stop={**said["stop"], "grace_s": _grace(said)},
        update={**said["update"], "order": said["update"]["order"] or _order(said, ports)},
        job={key: said[key] for key in JOB_FIELDS} if kind == "job" else None,
    )
    if out["job"] is not None and out["job"]["parallel"] is None:
        out["job"]["parallel"] = max(1, said["instances"] or 1)
    return out


def _artifact(said: Mapping[str, Any]) -> dict[str, Any]:
    """A depot name that is a digest says what must arrive."""
    named = (said["url"] or "").removeprefix("depot:")
    known = said["sha256"] is None and named != said["url"] and DIGEST.fullmatch(named)
    return {**said, "sha256": named if known else said["sha256"]}


def _ports(said: Mapping[str, Any], sockets: list[str]) -> list[dict[str, Any]]:
    return [{"name": name, **port, "held": port["held"] or name in sockets} for name, port in said.items()]


def _reserve(said: Mapping[str, Any], limits: Mapping[str, Any]) -> dict[str, Any]:
    out = {}
    for key, default in _RESERVE.items():
        limit = limits[key] if limits[key] is not None else default
        out[key] = said[key] if said[key] is not None else limit
    return out


def _grace(said: Mapping[str, Any]) -> float:
    grace_s, term_s = said["stop"]["grace_s"], said["term_s"]
    if grace_s is not None:
        return float(grace_s)
    if said["on_partition"] == "at_most_one":
        return float(min(DEFAULT_GRACE_S, term_s * GRACE_SHARE_OF_TERM))
    return DEFAULT_GRACE_S


def has_data(said: Mapping[str, Any]) -> bool:
    """Whether a component keeps data: `true`, or any size."""
    return said["data"] is True or (not isinstance(said["data"], bool) and said["data"] is not None)


def usual_partition(said: Mapping[str, Any]) -> str:
    """What a component is that does not say: one with data stays where its data is."""
    return "pinned" if has_data(said) else "at_least_one"


def _order(said: Mapping[str, Any], ports: list[dict[str, Any]]) -> str:
    alone = any(port["port"] is not None for port in ports) or has_data(said) or said["on_partition"] != "at_least_one"
    return "stop_first" if alone else "start_first"


def _restart(said: Mapping[str, Any], kind: str, on_partition: str) -> dict[str, Any]:
    steps = [{"action": a, "times": n} for a, n in ESCALATION if a != "move" or on_partition != "pinned"]
    escalate = steps if said["escalate"] is None else said["escalate"]
    return {**said, "when": said["when"] or ("on_failure" if kind == "job" else "always"), "escalate": escalate}
