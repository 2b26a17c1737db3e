"""Measuring realm time: by what the leader of a stream says its clock is (rule J4)."""

from __future__ import annotations

from dsmt.bus.nats.link import NatsLink
from dsmt.bus.nats.streams import head
from dsmt.bus.rules.realm_time import ROUND_TRIPS, Sample, offset_of
from dsmt.ports.clock import Clock


async def measured(link: NatsLink, stream: str, clock: Clock) -> float:
    """How far it is from the boot-time clock, in ms. Raises `RefusedError` where there is no stream, `TransportError`."""
    samples: list[Sample] = []
    while len(samples) < ROUND_TRIPS:
        sent = clock.boottime()
        at = await head(link, stream)
        samples.append(Sample(sent, clock.boottime(), at.now_ms))
    return offset_of(samples)
