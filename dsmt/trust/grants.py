"""Grants: which topics a name may publish and read, derived from the registry of topics.

Rule 1: a source may publish the owned topics that name it, and the shared ones that name its role.
Rule 2: a node's grant also holds what it may delegate: its monitor's and its agents' topics.
Rule 3: a grant is a list of patterns; a delegated one must be covered by its parent's (`subset`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dsmt.event.registry import TOPICS, as_pattern, unify
from dsmt.event.topic import covers, matches

DEPTHS: Final = {"root": 3, "issuer": 2, "node": 1}
"""How many further delegations a role's certificate allows (DESIGN.md 5)."""
QUOTAS: Final = {"agent": 64, "monitor": 1_000, "node": 100_000}
"""Live facts a certificate may hold; any other role: `DEFAULT_QUOTA`."""
DEFAULT_QUOTA: Final = 1_000_000


def publish_patterns(name: str) -> tuple[str, ...]:
    """What a name may publish."""
    role = name.split("/", 1)[0]
    patterns = {*_own(name)}
    for row in TOPICS:
        if role in row.roles:
            patterns.add(as_pattern(row.template, _agent(name)))
    if role == "node":
        node = name.split("/", 1)[1]
        patterns |= {*_own(f"monitor/{node}"), *publish_patterns(f"agent/{node}/+/+/+")}
    return _smallest(patterns)


def read_patterns(name: str) -> tuple[str, ...]:
    """What a name may read: agents and monitors what concerns them, all others everything in the realm."""
    role, _, rest = name.partition("/")
    if role == "agent":
        service = rest.split("/")[1]
        return ("broker/", "config/", f"node/{rest.split('/')[0]}/", f"service/{service}/", f"app/{service}/")
    if role == "monitor":
        return ("broker/", "config/", "node/")
    return ("/",)


def may(patterns: Iterable[str], topic: str) -> bool:
    """Whether one of the patterns takes the topic."""
    return any(pattern == topic or matches(pattern, topic) for pattern in patterns)


def subset(narrow: Iterable[str], wide: Iterable[str]) -> bool:
    """Whether each pattern of one grant is covered by one of another."""
    above = tuple(wide)
    return all(any(covers(a, pattern) for a in above) for pattern in narrow)


def _own(name: str) -> set[str]:
    found = set()
    for row in TOPICS:
        levels = None if row.owner is None else unify(row.owner, name)
        if levels is not None:
            found.add(as_pattern(row.template, levels))
    return found


def _agent(name: str) -> dict[str, str]:
    parts = name.split("/")
    return {"service": parts[2]} if parts[0] == "agent" else {}


def _smallest(patterns: set[str]) -> tuple[str, ...]:
    return tuple(sorted(p for p in patterns if not any(q != p and covers(q, p) for q in patterns)))
