"""The tree over a store's rows: one head that commits a broker to each of them, and to their order (rule J3).

Rule 1: a row's hash covers its number, its time of arrival and its event's leaf (B8): SHA-256(0x00 || row || arrived ||
    leaf). The signature is not among it: it is checked for itself, and may be wrapped anew.
Rule 2: rows are the leaves of a Merkle tree, row 1 first. A node of level k stands over 2^k rows and begins behind a
    multiple of them: SHA-256(0x01 || left || right).
Rule 3: the head of n rows is SHA-256(0x02 || n || the peaks, largest first): the fewest nodes that stand over all n.
Rule 4: what stands under a node need not be there: its hash is enough. So what was trimmed costs one hash for each whole
    node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

import msgspec

from dsmt.event.merkle import inner

MAX_LEVEL: Final = 62
_HASH_BYTES: Final = 32


class Node(msgspec.Struct, frozen=True):
    """A node over rows that are not there: it begins at row `first` and stands over 2^level of them."""

    first: int
    level: int
    hash: bytes

    @property
    def last(self) -> int:
        """The last row under it."""
        return self.first + (1 << self.level) - 1

    @property
    def is_left(self) -> bool:
        """Whether it is the left child of its parent."""
        return not ((self.first - 1) >> self.level) & 1

    @property
    def sibling(self) -> int:
        """The row at which its sibling begins."""
        return self.first + (1 << self.level) if self.is_left else self.first - (1 << self.level)


def row_hash(row: int, arrived_ms: int, leaf: bytes) -> bytes:
    """Rule 1."""
    return sha256(b"\0" + row.to_bytes(8, "big") + arrived_ms.to_bytes(8, "big") + leaf).digest()


def joined(one: Node, other: Node) -> Node:
    """The parent of two siblings."""
    left, right = (one, other) if one.is_left else (other, one)
    return Node(left.first, left.level + 1, inner(left.hash, right.hash))


class RowTree:
    """The right edge of a tree: its peaks, to which rows are added."""

    def __init__(self, rows: int = 0, peaks: Sequence[tuple[int, bytes]] = ()) -> None:
        self.rows = rows
        """How many rows it stands over: the number of the last one."""
        self._peaks = list(peaks)
        """(level, hash), largest first."""

    def add(self, arrived_ms: int, leaf: bytes) -> None:
        """Add the next row."""
        self.add_all(((arrived_ms, leaf),))

    def add_all(self, rows: Iterable[tuple[int, bytes]]) -> None:
        """Add the next rows, each by its time of arrival in ms and its leaf."""
        peaks, row = self._peaks, self.rows
        for arrived_ms, leaf in rows:
            row += 1
            hashed, level = row_hash(row, arrived_ms, leaf), 0
            while peaks and peaks[-1][0] == level:
                hashed = sha256(b"\x01" + peaks.pop()[1] + hashed).digest()
                level += 1
            peaks.append((level, hashed))
        self.rows = row

    def add_node(self, level: int, hashed: bytes) -> None:
        """Add the next 2^level rows by their node's hash. Raises `ValueError` where no such node begins."""
        if not 0 <= level <= MAX_LEVEL or self.rows & ((1 << level) - 1):
            raise ValueError(f"no node of level {level} begins behind row {self.rows}")
        self.rows += 1 << level
        while self._peaks and self._peaks[-1][0] == level:
            hashed = inner(self._peaks.pop()[1], hashed)
            level += 1
        self._peaks.append((level, hashed))

    @property
    def peaks(self) -> list[Node]:
        """The fewest nodes that stand over all of its rows, in their order."""
        nodes: list[Node] = []
        for level, hashed in self._peaks:
            nodes.append(Node(nodes[-1].last + 1 if nodes else 1, level, hashed))
        return nodes

    @property
    def head(self) -> bytes:
        """Rule 3."""
        return sha256(b"\x02" + self.rows.to_bytes(8, "big") + b"".join(hashed for _, hashed in self._peaks)).digest()

    def dump(self) -> bytes:
        """The edge as bytes, for `restored`."""
        return self.rows.to_bytes(8, "big") + b"".join(bytes([level]) + hashed for level, hashed in self._peaks)

    @classmethod
    def restored(cls, kept: bytes) -> RowTree:
        """What `dump` wrote."""
        size = 1 + _HASH_BYTES
        peaks = [(kept[at], kept[at + 1 : at + size]) for at in range(8, len(kept), size)]
        return cls(int.from_bytes(kept[:8], "big"), peaks)

    def copy(self) -> RowTree:
        """Another one that stands where this one does."""
        return RowTree(self.rows, self._peaks)
