"""Recording: the whole history of a realm as a CBOR sequence of its signed events (RFC 8742)."""

from __future__ import annotations

from dsmt.ports.bus import Arrived, BusReader, Interest, Start


async def record(bus: BusReader) -> bytes:
    """Every event that the broker holds, in the order of its store."""
    raws: list[bytes] = []
    async with bus.subscribe(Interest(("/",), start=Start.HISTORY, since=0, follow=False)) as deliveries:
        async for batch in deliveries:
            raws += [delivery.signed.raw for delivery in batch if isinstance(delivery, Arrived)]
    return b"".join(raws)
