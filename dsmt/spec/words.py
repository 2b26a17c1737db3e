"""What to say to a key that is not ours: a neighbour's (`keys.NEIGHBOURS`), a hyphen, a wrong place, a typing mistake."""

from __future__ import annotations

import re
from typing import Final

from dsmt.spec.built import instead_of, is_unbuilt
from dsmt.spec.health import KINDS
from dsmt.spec.keys import GROUPS, KEYS, NEIGHBOURS
from dsmt.spec.mistakes import nearest

PLACES: Final = {
    "service": "", "component": "components.NAME", "artifact": "artifact", "secret": "secrets.NAME", "file": "files",
    "logs": "logs", "spread": "spread", "near": "near", "reserve": "reserve", "limits": "limits",
    "port": "ports.NAME", "check": "health", **{kind: f"health.{kind}" for kind in KINDS if kind in GROUPS},
    "health": "health", "restart": "restart", "park": "restart.park", "stop": "stop", "after": "after",
    "update": "update", "barrier": "barriers.NAME",
}  # fmt: skip


def unknown_key(name: str, group: str, *, placeholder: bool = False) -> tuple[str, str]:
    """Return (message, suggestion) for a key that a group does not have."""
    shown = name[:60]
    known = GROUPS[group]
    if placeholder:
        return f"`{{{shown}}}` without quotes is a map in YAML", f"quote it: '{{{shown}}}'"
    message = f"there is no key `{shown}`" + (f" in `{PLACES[group]}`" if PLACES[group] else "")
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()
    if snake in known:
        return message, f"here it is `{snake}`"
    ours = NEIGHBOURS.get(f"{PLACES[group]}.{snake}", NEIGHBOURS.get(snake))
    if ours is not None and _fits(ours, group):
        key = known.get(ours)
        unbuilt = f", which is not built yet; {instead_of(f'{group}.{ours}')}" if key is not None and is_unbuilt(key) else ""
        return message, f"here it is `{_relative(ours, group)}`{unbuilt}"
    close = nearest(snake, known)
    if close:
        return message, f"did you mean `{close}`?"
    elsewhere = [key for key in KEYS if key.name == snake and key.group != group]
    if elsewhere and snake not in {"to", "from", "by", "after", "min", "max"}:
        place = PLACES[elsewhere[0].group]
        return message, f"`{snake}` belongs under `{place}`" if place else f"`{snake}` belongs to the top level"
    meant = NEIGHBOURS.get(nearest(snake, NEIGHBOURS), "")
    if meant in known:
        return message, f"here it is `{meant}`"
    if ours is not None and group in {"service", "component"}:
        place = "at the top level" if ours in GROUPS["service"] else "under components.NAME"
        return message, f"here it is `{ours}`, {place}"
    return message, f"keys here: {', '.join(known)}" if len(known) < 12 else "`dsmt explain` lists every key"


def _fits(ours: str, group: str) -> bool:
    """Whether the word is of this place: it begins with a key of the group."""
    return re.split("[.`]", _relative(ours, group), maxsplit=1)[0] in GROUPS[group]


def _relative(ours: str, group: str) -> str:
    return ours.removeprefix(f"{PLACES[group]}.")
