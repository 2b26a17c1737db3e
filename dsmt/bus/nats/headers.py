"""The headers of a message: what who published it has written above it, and behind that what a server has.

Rule 1: who publishes writes there what it likes, also what is no text, or no header. It fails nobody who reads.
Rule 2: of a name the last one counts. Where what somebody wrote ends within a line, the first header that a server adds
    belongs to that line, and one that looks like it may stand before. So what a server says in that place is believed
    where its name stands there once only, and as a name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

STATUS: Final = "Status"
NO_RESPONDERS: Final = "503"
"""The status of an answer that says that nobody is there to answer."""
DESCRIPTION: Final = "Description"
_SOURCE: Final = "Nats-Stream-Source"
_SIZE: Final = "Nats-Msg-Size"
_STATUS: Final = re.compile(rb"NATS/1\.0 +([0-9]{3}) ?(.*)", re.DOTALL)
_ROW: Final = re.compile(r"\S+ ([0-9]{1,18})( .*)?")
_NUMBER: Final = re.compile(r"[0-9]{1,18}")


class Headers(dict[str, str]):
    """Those of one message by name; `size` is what all of them take, also those that stand there more than once."""

    size = 0


def headers_of(block: bytes) -> Headers:
    """What stands in a block of headers."""
    first, *lines = block.split(b"\r\n")
    status, found = _STATUS.fullmatch(first), Headers()
    found.size = len(block)
    if status is not None:
        found |= {STATUS: status[1].decode(), DESCRIPTION: status[2].decode(errors="replace")}
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon:
            found[name.decode(errors="replace")] = value.strip().decode(errors="replace")
    for added in (_SOURCE, _SIZE):
        if block.count(added.encode()) != 1:
            found.pop(added, None)
    return found


def row_in_source(headers: Mapping[str, str]) -> int:
    """Where the message of a stream that takes over from another one stands in that; 0 where nobody can tell (rule 2)."""
    found = _ROW.fullmatch(headers.get(_SOURCE, ""))
    return 0 if found is None else int(found[1])


def size_of(headers: Mapping[str, str], unknown: int) -> int:
    """How much a message says of which its headers are given alone."""
    found = headers.get(_SIZE, "")
    return int(found) if _NUMBER.fullmatch(found) else unknown
