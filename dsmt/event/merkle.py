"""Merkle trees over a burst of events: one signature for many, each verifiable alone (rule B8, RFC 9162 2.1).

Rule 1: leaf = SHA-256(0x00 || protected || payload), inner = SHA-256(0x01 || left || right).
Rule 2: an odd node is promoted to the next level, never duplicated.
Rule 3: what is signed is the root, SHA-256(0x02 || number of leaves, 8 bytes || top node): without the number, leaf 0
    of 6 and leaf 0 of 7 have one path, and a changed size would pass.
Rule 4: a path is (index, size, siblings from the leaf up).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import msgspec

from dsmt.errors import UnusableEventError

HASH_BYTES: Final = 32


class Path(msgspec.Struct, frozen=True):
    """The way from a leaf to the root: `index` of `size` leaves, and the siblings met on the way."""

    index: int
    size: int
    siblings: tuple[bytes, ...]


def leaf_hash(protected: bytes, payload: bytes) -> bytes:
    """The hash of one event: what chains link and trees are built of."""
    return sha256(b"\x00" + protected + payload).digest()


def inner(left: bytes, right: bytes) -> bytes:
    """The hash of two nodes of a tree that stand beside each other; of a tree of rows, too."""
    return sha256(b"\x01" + left + right).digest()


def _root(size: int, top: bytes) -> bytes:
    return sha256(b"\x02" + size.to_bytes(8, "big") + top).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The root of at least one leaf."""
    level = leaves
    while len(level) > 1:
        above = [sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            above.append(level[-1])
        level = above
    return _root(len(leaves), level[0])


def tree(leaves: Sequence[bytes]) -> tuple[bytes, list[Path]]:
    """The root of at least one leaf, and the path of each."""
    siblings: list[list[bytes]] = [[] for _ in leaves]
    level = list(leaves)
    members = [[i] for i in range(len(leaves))]
    while len(level) > 1:
        above, grouped = [], []
        for i in range(0, len(level) - 1, 2):
            for leaf in members[i]:
                siblings[leaf].append(level[i + 1])
            for leaf in members[i + 1]:
                siblings[leaf].append(level[i])
            above.append(inner(level[i], level[i + 1]))
            grouped.append(members[i] + members[i + 1])
        if len(level) % 2:
            above.append(level[-1])
            grouped.append(members[-1])
        level, members = above, grouped
    return _root(len(leaves), level[0]), [Path(i, len(leaves), tuple(s)) for i, s in enumerate(siblings)]


def steps(index: int, size: int) -> int:
    """How many siblings are met on the way from a leaf to the top."""
    met = 0
    while size > 1:
        met += index ^ 1 < size
        index, size = index >> 1, (size + 1) >> 1
    return met


def root_of(leaf: bytes, path: Path) -> bytes:
    """The root that a leaf and its path give. Raises `UnusableEventError` when the path cannot be one."""
    index, size, node = path.index, path.size, leaf
    if not 0 <= index < size:
        raise UnusableEventError("event.path", f"inclusion path names leaf {index} of {size}")
    rest = list(path.siblings)
    while size > 1:
        if index ^ 1 < size:
            if not rest:
                raise UnusableEventError("event.path", "inclusion path is too short")
            sibling = rest.pop(0)
            node = inner(sibling, node) if index & 1 else inner(node, sibling)
        index, size = index >> 1, (size + 1) >> 1
    if rest:
        raise UnusableEventError("event.path", "inclusion path is too long")
    return _root(path.size, node)
