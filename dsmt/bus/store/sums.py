"""Sums: by which a store on SQLite knows what it wrote from what its disk gives back (rule B11).

Rule 1: each row of events, of bursts and of small values has the CRC-32 of all that never changes in it. What changes, and
    what stands in an index, SQLite's own check finds.
Rule 2: what does not have its sum is given to nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final
from zlib import crc32

from dsmt.errors import FailedError

_ABOUT: Final = "\0".join(["%s"] * 15)
"""The columns of an event's row beside its blobs."""
NEXT: Final = "start its broker anew: it sets the store aside, and takes over what is sound in it"


def sum_of(*values: Any) -> int:
    """The sum of values of a row, in the order of their columns."""
    found = 0
    for value in values:
        kept = value if isinstance(value, bytes) else str(value).encode()
        found = crc32(kept, crc32(b"%d:" % len(kept), found))
    return found


def of_event(values: Iterable[Any]) -> int:
    """The sum of an event's row: its columns, blobs first."""
    key_id, leaf, body, *about = values
    return crc32(body, crc32(leaf, crc32(key_id, crc32((_ABOUT % tuple(about)).encode()))))


def is_event(found: Sequence[Any]) -> bool:
    """Whether an event's row has the sum that stands behind it."""
    try:
        return bool(of_event(found[:-1]) == found[-1])
    except TypeError:  # a blob is none any more
        return False


def damaged(path: str, what: str) -> FailedError:
    """The error of a damaged store; its field `what` says what is wrong with it."""
    return FailedError("store.damaged", f"the store {path} is damaged: {what}", next=NEXT, what=what)
