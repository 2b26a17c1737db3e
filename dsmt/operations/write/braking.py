"""The brake, by hand: hold all replacing, or release it for what is silent now (rule F5)."""

from __future__ import annotations

import msgspec

from dsmt.event.kinds.realm import BrakeWord
from dsmt.operations.read.realm.sight import look
from dsmt.operations.read.rows.overruled import OverruledWord, overruled_words
from dsmt.operations.read.screens.summaries import BrakeSummary, brake
from dsmt.operations.write.writing import follow, say_word
from dsmt.ports.bus import Bus, BusReader

TOPIC = "config/brake"


class BrakeShown(BrakeSummary, frozen=True, kw_only=True):
    """The brake, and what operators have said of it at the same time on the other side of a partition (E2)."""

    overruled: list[OverruledWord]


async def show(bus: BusReader) -> BrakeShown:
    """How the brake stands."""
    sight = await look(bus)
    lost = await overruled_words(bus, sight, TOPIC, BrakeWord, lambda word: "hold" if word.held else "release")
    return BrakeShown(**msgspec.structs.asdict(brake(sight)), overruled=lost)


class BrakeHeld(BrakeSummary, frozen=True, kw_only=True):
    """The brake, and what a hold did to the one before: `kept` it, for it gave no reason of its own, or replaced it."""

    kept: bool = False
    replaced_by: str | None = None
    replaced_reason: str | None = None


async def hold(bus: Bus, *, by: str, reason: str) -> BrakeHeld:
    """Replace nothing until it is released. What is held already stays as it is, unless another reason is given."""
    before = brake(await look(bus))
    if before.held and reason in ("", before.reason):
        return _held(before, kept=True)
    after = await _say(bus, held=True, by=by, reason=reason)
    return _held(after, replaced_by=before.by, replaced_reason=before.reason) if before.held else _held(after)


def _held(
    stands: BrakeSummary, *, kept: bool = False, replaced_by: str | None = None, replaced_reason: str | None = None
) -> BrakeHeld:
    fields = msgspec.structs.asdict(stands)
    return BrakeHeld(**fields, kept=kept, replaced_by=replaced_by, replaced_reason=replaced_reason)


async def release(bus: Bus, *, by: str, reason: str) -> BrakeSummary:
    """Release the brake, and replace what is on silent nodes."""
    return await _say(bus, held=False, by=by, reason=reason)


async def _say(bus: Bus, *, held: bool, by: str, reason: str) -> BrakeSummary:
    sight = await look(bus)
    before = 0 if sight.view.brake is None else sight.view.brake.record.released_ms
    record = BrakeWord(held=held, released_ms=before if held else sight.now_ms, by=by, reason=reason)
    await say_word(bus, sight, [follow(sight.view, TOPIC, record, subject=TOPIC)])
    return brake(await look(bus))
