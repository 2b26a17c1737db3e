"""Which keys are built, and what to write without those that are not.

Rule 1: every key of the table of keys has a row in `SUPPORTED`: True, False, or the values that are built.
Rule 2: no hint of a mistake names what is not built: who follows it would be refused again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dsmt.spec.keys import GROUPS, KEYS, SpecKey
from dsmt.spec.shapes import Nested

_NOT_BUILT: Final = frozenset({
    "service.barriers", "service.expires", "service.keep_revisions",
    "component.image", "component.secrets", "component.requires", "component.rank",
    "component.apart", "component.near", "component.lost_after", "component.term", "component.fence",
    "component.sockets", "component.reload", "component.after",
    "component.retries", "component.abort_on", "component.success_on", "component.checkpoint_exit_code",
    "component.timeout", "component.pre", "component.post", "component.parallel", "component.keep",
    "logs.rate", "artifact.signature", "secret.secret", "secret.file", "secret.to",
    "spread.strict", "near.to", "near.within", "near.ideal", "near.penalty",
    "limits.cpu", "limits.disk", "port.held", "check.notify", "notify.watchdog",
    "after.component", "after.state", "after.barrier", "after.restart_with", "update.canary",
    "barrier.min", "barrier.max", "barrier.percent", "barrier.timeout", "barrier.knee", "barrier.late",
    "barrier.throttle",
})  # fmt: skip
_BUILT_VALUES: Final[Mapping[str, tuple[object, ...]]] = {
    "component.data": (True, False),
    "spread.by": ("node", "none"),
}

SUPPORTED: Final[Mapping[str, bool | tuple[object, ...]]] = {
    row: False if row in _NOT_BUILT else _BUILT_VALUES.get(row) or getattr(key.shape, "built", ()) or True
    for row, key in ((f"{key.group}.{key.name}", key) for key in KEYS)
} | {"placeholder.endpoints": False}


_INSTEAD: Final[Mapping[str, str]] = {
    "component.image": "name a program: `run`, and `artifact` for its files",
    "component.secrets": "use `env: {NAME: {file: PATH}}`, which is read on the node",
    "component.requires": "use `nodes` with the names of nodes or a node set",
    "component.after": "remove it: what fails before the others are there is started again",
    "logs.rate": "remove it: `size` and `keep` bound the disk",
    "limits.cpu": "remove it: `reserve.cpu` is what placement counts",
    "limits.disk": "remove it: `reserve.disk` is what placement counts",
    "check.notify": "take http, tcp or exec",
}
"""What to do without a key that is not built, where there is something better than to remove it."""


def instead_of(row: str) -> str:
    """What to do without a key that is not built."""
    return _INSTEAD.get(row, "remove it")


def unbuilt_at(path: tuple[str, ...]) -> tuple[tuple[str, ...], SpecKey] | None:
    """The key that is not built at or around a path of a file, and its path; None where all are built."""
    group, begin = ("component", 2) if path[:1] == ("components",) else ("service", 0)
    for end, name in enumerate(path[begin:], begin + 1):
        key = GROUPS[group].get(name)
        if key is None:
            break
        if is_unbuilt(key):
            return path[:end], key
        if not isinstance(key.shape, Nested):
            break
        group = key.shape.group
    return None


def is_unbuilt(key: SpecKey) -> bool:
    """Whether nothing acts on a key, whatever its value."""
    return SUPPORTED[f"{key.group}.{key.name}"] is False


def hint_of(key: SpecKey) -> str:
    """What to do about a mistake in a key that is not built: to mend it would not help."""
    return f"`{key.name}` is not built yet; {instead_of(f'{key.group}.{key.name}')}"
