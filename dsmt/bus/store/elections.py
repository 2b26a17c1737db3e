"""Elections: which stored fact stands on a topic where nobody believes any more what stands there (rule J3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from dsmt.bus.store.database import Database
from dsmt.bus.store.named import Find
from dsmt.ports.store import Row

_ROLES: Final = ("controller", "issuer", "operator")
"""Who says shared facts: rows of others are not looked at, of which there are many more."""
_BEATEN: Final = (
    "SELECT row, topic FROM events WHERE source > ? AND source < ? AND fact = 1 AND winner = 0 AND epoch IS NOT NULL"
)
_STANDING: Final = "winner = 1 AND epoch IS NOT NULL AND source > ? AND source < ?"
_SIGNERS: Final = "SELECT DISTINCT key_id FROM events WHERE winner = 1 AND epoch IS NOT NULL AND source > ? AND source < ?"
_AT_ONCE: Final = 500
"""How many rows are fetched by one question."""


class Elections:
    """Of one store, whose `head` is its last row."""

    def __init__(self, db: Database, find: Find, head: Callable[[], int]) -> None:
        self._db, self._find, self._head = db, find, head

    def standing(self, role: str, signed_by: Callable[[bytes], bool]) -> list[Row]:
        """The shared facts that stand of all sources of a role, signed by keys of which something is so."""
        keys = list(filter(signed_by, self.signers(role)))
        marks = ",".join("?" * len(keys))
        return self._find(f"{_STANDING} AND key_id IN ({marks})", (*_sources(role), *keys)) if keys else []

    def signers(self, role: str) -> list[bytes]:
        """The keys that have signed the shared facts that stand of all sources of a role: each of these is looked at."""
        return [key_id for (key_id,) in self._db.do(_SIGNERS, _sources(role))]

    def beaten(self, topics: frozenset[str]) -> list[Row]:
        """The shared facts on some topics, and below them, that are stored and do not stand.

        All that these roles have said is looked through once, however many topics these are: no index has what is beaten.
        """
        found = [
            row
            for role in _ROLES
            for row, topic in self._db.do(_BEATEN, _sources(role))
            if topic in topics or not topics.isdisjoint(_above(topic))
        ]
        parts = (found[first : first + _AT_ONCE] for first in range(0, len(found), _AT_ONCE))
        return [one for part in parts for one in self._find(f"row IN ({','.join('?' * len(part))})", part)]

    def elect(self, rows: Sequence[Row]) -> None:
        """Let each of these stand on its topic, in one commit. Raises `FailedError`."""
        if not rows:
            return
        with self._db.transaction() as db:
            for one in rows:
                db.execute(
                    "UPDATE events SET winner = 0, ended = ? WHERE topic = ? AND winner = 1", (self._head(), one.topic)
                )
                db.execute("UPDATE events SET winner = 1, ended = NULL WHERE row = ?", (one.row,))


def _sources(role: str) -> tuple[str, str]:
    """Between which names those of a role are."""
    return f"{role}/", f"{role}0"


def _above(topic: str) -> Iterator[str]:
    """The topics that a topic is below."""
    end = topic.find("/")
    while end > 0:
        yield topic[:end]
        end = topic.find("/", end + 1)
