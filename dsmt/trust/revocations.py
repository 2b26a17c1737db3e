"""Revocations: facts on `trust/revoked/<key id in hex>/<who says so>` that end a key, each its source's own (rule J3).

Rule 1: each source says its own, so nobody's word can take the place of another's.
Rule 2: it has no time to live, and the root's keys are ended by nobody.
Rule 3: what is taken in here is a claim; what it ends is judged where certificates are (`store.TrustStore`), for those may
    come later. They only grow.
Rule 4: a key below the root ends so many others, and says so in so many bytes: everybody is told all of it, for good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Final

from dsmt.event.envelope import Event, SignedEvent
from dsmt.trust.grants import is_name, is_said_again

REVOKED: Final = "trust/revoked/"
KEY_ID_BYTES: Final = 16
ENDS_MOST: Final = 4096
"""How many keys one that is not the root's ends: as many as may be below it at once."""
LARGEST: Final = 1024
"""Bytes of its word of one."""


def topic_of(key_id: bytes, source: str) -> str:
    """Where a source says that a key has ended."""
    return f"{REVOKED}{key_id.hex()}/{source}"


def revoked_by(topic: str) -> bytes | None:
    """The id of the key that a fact on this topic ends; None for a topic that ends none."""
    if not topic.startswith(REVOKED):
        return None
    key, _, source = topic.removeprefix(REVOKED).partition("/")
    try:
        key_id = bytes.fromhex(key)
    except ValueError:
        return None
    return key_id if len(key_id) == KEY_ID_BYTES and is_name(source) else None


def is_void(signed: SignedEvent, is_revoked: Callable[[SignedEvent], bool]) -> bool:
    """Whether a shared fact is one of a revoked key that nobody says again: it stands for nobody.

    So it is with an operator's tombstone of a service, though controllers may write one: there may be none to say it again.
    """
    event = signed.event
    if event.version is None or not is_revoked(signed):
        return False
    return not is_said_again(event.topic) or (bool(event.ends) and event.source.startswith("operator/"))


def is_disowned(signed: SignedEvent, is_revoked: Callable[[SignedEvent], bool]) -> bool:
    """Whether a shared fact is one of a revoked key: somebody may yet say it again, and until then nobody believes it."""
    return signed.event.version is not None and is_revoked(signed)


class Revocations:
    """Who has revoked which keys, by the ids of both."""

    def __init__(self, roots: Collection[bytes]) -> None:
        self._roots = roots
        self._by: dict[bytes, frozenset[bytes]] = {}
        self._ends: Counter[bytes] = Counter()
        """How many keys each has revoked."""
        self._known = 0

    def __len__(self) -> int:
        return self._known

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Pairs of a revoked key and a key that has revoked it, in order."""
        return iter(sorted((key_id, by) for key_id, revokers in self._by.items() for by in revokers))

    def of(self, key_id: bytes) -> frozenset[bytes]:
        """The keys that have revoked a key."""
        return self._by.get(key_id, frozenset())

    def add(self, key_id: bytes, by: bytes) -> bool:
        """Take in that a key has revoked another; whether that is new."""
        if key_id in self._roots or by in self.of(key_id):
            return False
        self._by[key_id] = self.of(key_id) | {by}
        self._ends[by] += 1
        self._known += 1
        return True

    def has_room(self, key_id: bytes, by: bytes) -> bool:
        """Whether a key that is not the root's may revoke another beside those that it has (rule 4)."""
        return by in self.of(key_id) or self._ends[by] < ENDS_MOST

    @staticmethod
    def key_of(event: Event) -> bytes | None:
        """The key that an event ends; None for one that is no revocation (rule 2)."""
        return revoked_by(event.topic) if event.ttl is None else None
