"""Clocks: a broker's wall clock that is far from realm time, and an operator's word that it is right (rule J4)."""

from __future__ import annotations

import msgspec

from dsmt.errors import RefusedError
from dsmt.event.hlc import FAR_MS, PULL
from dsmt.event.kinds.realm import ClockWord
from dsmt.event.records import to_data
from dsmt.operations.read.realm.facts import stands
from dsmt.operations.read.realm.sight import Sight, look
from dsmt.operations.read.rows.certificates import in_use
from dsmt.operations.read.rows.running_out import running_out
from dsmt.operations.write.brokers import announced, unknown
from dsmt.operations.write.writing import say
from dsmt.ports.bus import Bus, BusReader, Draft
from dsmt.trust.store import TrustStore


class AcceptedClock(msgspec.Struct, frozen=True, kw_only=True):
    """What was accepted: by how much the broker's machine was ahead of realm time.

    Realm time never goes back: where it was ahead itself, it goes slower, and is there in `there_in_s` seconds.
    """

    broker: str
    ahead_s: float
    there_in_s: float = 0.0


class Jump(msgspec.Struct, frozen=True, kw_only=True):
    """Where realm time would be, whose certificates would have ended then that have not yet, and what else runs out."""

    ahead_s: float
    to_ms: int
    ended: list[str]
    runs_out: list[str]


async def foreseen(bus: BusReader, trust: TrustStore, broker: str) -> Jump:
    """What accepting a clock would do to realm time, and to certificates that are known here. Raises as `accept`."""
    sight = await look(bus, passing=True)
    ahead_s, now_ms = await _ahead_s(bus, sight, broker), bus.now_ms()
    to_ms = now_ms + int(max(0.0, ahead_s) * 1000)
    ending = [
        name
        for name, one in sorted(in_use(trust, now_ms // 1000).items())
        if now_ms // 1000 <= one.not_after < to_ms // 1000 and not trust.is_revoked(one.key_id, one.subject)
    ]
    return Jump(ahead_s=ahead_s, to_ms=to_ms, ended=ending, runs_out=running_out(sight, to_ms))


async def accept(bus: Bus, broker: str, *, by: str, reason: str) -> AcceptedClock:
    """Have a broker take its machine's clock for realm time. Raises `NotFoundError`, `RefusedError` of one that is near."""
    ahead_s = await _ahead_s(bus, await look(bus, passing=True), broker)
    topic = f"config/clock/{broker}"
    word = ClockWord(ahead_s=ahead_s, by=by, reason=reason)
    await say(bus, [Draft(topic, to_data(word), subject=topic, replaces=await stands(bus, topic))])
    return AcceptedClock(broker=broker, ahead_s=ahead_s, there_in_s=max(0.0, -ahead_s / PULL))


async def _ahead_s(bus: BusReader, sight: Sight, broker: str) -> float:
    """By how much a broker says that its machine is ahead of realm time.

    To a broker whose clock was accepted what others say of theirs is too old: each of these is asked itself.
    """
    told = sight.passing.stats.get(broker)
    if told is None:
        known = await announced(bus)
        at = known.get(broker)
        if at is None:
            raise unknown(broker, {*sight.passing.stats, *known})
        said = f"what {broker} says of its clock does not come to {bus.broker}: it is away, or realm time is another there"
        asks = f"dsmt clock accept {broker} --bus dsmt://{at.address} asks it itself"
        raise RefusedError("clock.unheard", said, next=asks)
    ahead_s = told[1].clock_ahead_s
    if abs(ahead_s) * 1000 <= FAR_MS:
        said = f"the clock of {broker}'s machine is within {FAR_MS // 1000} s of realm time, and is followed anyway"
        raise RefusedError("clock.near", said, next="leave it as it is; dsmt brokers shows when it is off")
    return ahead_s
