"""Who has attached, as presence is told of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


def attached(name: str = "node/n1", *, attachment: int = 1, issued: int = 1, key: str = "", **about: Any) -> Any:
    """A session (`presence.Attached`), with a certificate of this issue time and key."""
    known = {"incarnation": 1, "claimed": 0, "follows": None, "pid": 1, "version": "v", "address": "a", "payer": ""}
    certificate = SimpleNamespace(issued=issued, key_id=bytes.fromhex(key))
    return SimpleNamespace(name=name, attachment=attachment, certificate=certificate, **(known | about))
