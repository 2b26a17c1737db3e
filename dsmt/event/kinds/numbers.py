"""Numbers of records: the range of each kind, so that what is out of it is refused before anybody reads it (A14).

Rule 1: a number that can be reckoned with has one of these types; one that is only compared and shown (an incarnation, a
    sequence, an exit code) may be any integer of 64 bits.
Rule 2: within its range, whatever sums, differences and texts are made of it can be made.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from dsmt.event.hlc import LAST_MS

LONGEST_S: Final = LAST_MS / 1000
GREATEST_COUNT: Final = 2**62

Ms = Annotated[int, Meta(ge=0, le=LAST_MS)]
"""A realm time: what RFC 3339 can write, from 1970 on."""
Seconds = Annotated[float, Meta(ge=0, le=LONGEST_S)]
"""A span."""
Offset = Annotated[float, Meta(ge=-LONGEST_S, le=LONGEST_S)]
"""A difference between two clocks."""
Count = Annotated[int, Meta(ge=0, le=GREATEST_COUNT)]
"""How many, how often, how many bytes, or the number of something: as wide as in frames, of which brokers tell."""
Port = Annotated[int, Meta(ge=1, le=65535)]
Load = Annotated[float, Meta(ge=0, le=1e6)]
Degrees = Annotated[float, Meta(ge=-360, le=360)]
"""Of a place on Earth."""
