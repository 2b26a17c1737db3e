"""Elections: which stored fact stands on a topic where nobody believes any more what stands there (rule J3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from dsmt.bus.store.database import Database
from dsmt.ports.store import Row

_ROLES: Final = ("controller", "operator")
"""Who says shared facts: rows of others are not looked at, of which there are many more."""
Find = Callable[[str, Sequence[Any]], list[Row]]
"""Gives the rows of a store for which a condition on its columns holds."""


class Elections:
    """Of one store, whose `head` is its last row."""

    def __init__(self, db: Database, find: Find, head: Callable[[], int]) -> None:
        self._db, self._find, self._head = db, find, head

    def standing(self, role: str) -> list[Row]:
        """The shared facts that stand of all sources of a role."""
        return self._find("winner = 1 AND epoch IS NOT NULL AND source > ? AND source < ?", (f"{role}/", f"{role}0"))

    def beaten(self, topic: str) -> list[Row]:
        """The shared facts on a topic, and below it, that are stored and do not stand."""
        said = "source > ? AND source < ? AND fact = 1 AND winner = 0 AND epoch IS NOT NULL"
        where = f"{said} AND (topic = ? OR topic > ? AND topic < ?)"
        return [
            one for role in _ROLES for one in self._find(where, (f"{role}/", f"{role}0", topic, f"{topic}/", f"{topic}0"))
        ]

    def elect(self, rows: Sequence[Row]) -> None:
        """Let each of these stand on its topic, in one commit. Raises `FailedError`."""
        with self._db.transaction() as db:
            for one in rows:
                db.execute(
                    "UPDATE events SET winner = 0, ended = ? WHERE topic = ? AND winner = 1", (self._head(), one.topic)
                )
                db.execute("UPDATE events SET winner = 1, ended = NULL WHERE row = ?", (one.row,))
