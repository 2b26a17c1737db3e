"""Ranking: which controller acts first, so that the others stay quiet; a saving, never needed for correctness (A10).

Rule 1: a controller counts while its session is open; those below the highest ruleset of these only watch.
Rule 2: the others are ranked by rendezvous hash, for each service, and for each node on which there is a verdict.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from dsmt.view import Fleet


def live_controllers(fleet: Fleet) -> dict[str, int]:
    """The controllers whose sessions are open, and their ruleset numbers."""
    view = fleet.view
    found = {}
    for name, held in view.controllers.items():
        said = fleet.word_of(f"controller/{name}")
        if said is not None and (said.state == "open" or fleet.in_grace(said)):
            found[name] = held.record.ruleset
    return found


def subject_of(topic: str) -> str:
    """What a controller is ranked for: the service or the node that a topic is about."""
    kind, *rest = topic.removeprefix("tombstone/").split("/")
    return f"{kind}/{rest[0]}"


def rank(subject: str, controller: str, others: Iterable[str]) -> int:
    """How many controllers come before one."""
    own = _hash(subject, controller)
    return sum(_hash(subject, other) < own for other in others if other != controller)


def _hash(subject: str, controller: str) -> tuple[bytes, str]:
    return hashlib.blake2b(f"{subject}\0{controller}".encode(), digest_size=8).digest(), controller
