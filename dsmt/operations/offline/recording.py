"""Recording: the whole history of a realm as a CBOR sequence of its signed events (RFC 8742)."""

from __future__ import annotations

from dsmt.ports.bus import BusReader, Interest, Start
from dsmt.ports.listening import arrivals


async def record(bus: BusReader) -> bytes:
    """Every event that the broker holds, in the order of its store."""
    return b"".join(one.raw for one in await arrivals(bus, Interest(("/",), start=Start.HISTORY, since=0, follow=False)))
