"""What a verb that is not there was probably meant to be: misspelt, of another group, or another tool's word for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dsmt.cli import COMMANDS, HIDDEN, Entry, Group
from dsmt.spec.mistakes import nearest

_SHOW: Final = ("show", "status")
_END: Final = ("remove", "revoke")
ELSEWHERE: Final[Mapping[str, tuple[str, ...]]] = {
    "list": ("list", "ps"), "ls": ("list", "ps"), "instances": ("ps",), "ports": ("endpoints",),
    "describe": _SHOW, "info": _SHOW, "inspect": _SHOW, "status": _SHOW, "health": _SHOW,
    "top": ("nodes",), "hosts": ("nodes",), "members": ("nodes",), "servers": ("nodes",),
    "delete": _END, "rm": _END, "destroy": _END, "undeploy": _END, "purge": _END,
    "create": ("apply", "add"), "deploy": ("apply",), "run": ("apply",), "update": ("apply",), "edit": ("apply",),
    "validate": ("plan",), "check": ("plan",), "lint": ("plan",), "revisions": ("history",), "rollout": ("history",),
    "undo": ("rollback",), "revert": ("rollback",), "reload": ("restart",), "kill": ("stop",), "shutdown": ("down",),
    "disable": ("exclude", "stop"), "enable": ("include", "start"), "cordon": ("exclude", "node exclude"),
    "uncordon": ("include", "node include"), "undrain": ("include", "node include"), "relocate": ("move",),
    "events": ("tail",), "watch": ("tail",), "subscribe": ("tail",), "journal": ("logs",),
}  # fmt: skip
"""What systemctl, kubectl, docker, nomad and supervisorctl call it: of our words for it the first counts that is there."""


def meant(path: str, verb: str, table: Mapping[str, Entry | Group]) -> str:
    """The command line that a wrong verb behind `path` (`dsmt`, `dsmt node`) probably stands for; empty for none."""
    for other in ELSEWHERE.get(verb, ()):
        if other in table:
            return f"{path} {other}"
        if other == "list" and f"{path.removeprefix('dsmt ')}s" in COMMANDS:
            return f"{path}s"
        if " " in other:
            return f"dsmt {other}"
    if near := nearest(verb, set(table) - HIDDEN):
        return f"{path} {near}"
    groups = {name: entry for name, entry in table.items() if isinstance(entry, Group) and name not in HIDDEN}
    below = [f"{path} {name} {verb}" for name, entry in groups.items() if verb in entry.commands]
    return below[0] if len(below) == 1 else ""
