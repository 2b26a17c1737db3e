"""Data key: what tells that a node's data directory is the one that it was (rule A17).

Rule 1: it is the id of the key that the node had when the directory was made, and stands in the directory: a node whose
    key is rotated has its data still. A machine that was made anew under a node's name has another key and no data.
Rule 2: all processes of a node that find none write the same one.
Rule 3: one that is damaged is none: the data is still here, and the node has mostly the key that it had.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from dsmt.errors import FailedError
from dsmt.ports.files import Files

NAME: Final = "KEY"
"""No service has a name in capitals."""


def data_key(data: Files, node_key: bytes) -> str:
    """The key of a node's data directory; `node_key` is the id of the node's key now."""
    kept = data.read(NAME)
    if kept is not None and _is_key(kept, len(node_key)):
        return kept.decode()
    with suppress(FailedError):  # on a full disk it is written at a later start
        data.write(NAME, node_key.hex().encode())
    return node_key.hex()


def _is_key(kept: bytes, size: int) -> bool:
    return len(kept) == 2 * size and all(digit in b"0123456789abcdef" for digit in kept)
