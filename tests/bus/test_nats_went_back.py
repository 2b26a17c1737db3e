"""The servers' clock is put back: who was begun before that, and what it had said (J4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dsmt.bus.nats import guard, opener
from dsmt.bus.nats.streams import StreamMessage
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import FailedError
from dsmt.event.hlc import BOUND_MS
from dsmt.ports.bus import Draft
from tests.bus.contract.engines import NatsEngine
from tests.bus.idle import run_alone
from tests.bus.on_nats import on_nats
from tests.bus.realm import reading
from tests.bus.servers_clock import ServersClock

HOUR_MS = 3_600_000
NOW_MS = 1_800_000_000_000


@pytest.mark.real
@pytest.mark.xdist_group("nats")
def test_who_was_begun_while_the_clock_was_ahead_fails_and_the_next_one_is_believed(tmp_path, monkeypatch) -> None:
    """Until that time came nobody believed it, nor who was begun in its place, and all was said to be well."""

    async def within(e: NatsEngine) -> None:
        clock = ServersClock(monkeypatch, HOUR_MS, "operator/alice")
        before, bob = await e.bus("operator/alice"), await e.bus("operator/bob")
        await before.publish(Draft("user/t", {"n": 1}))
        clock.ahead_ms = 0
        with pytest.raises(FailedError, match="realm time went back to before this process was begun"):
            await asyncio.wait_for(e._made.tasks.pop(before), 20)
        monkeypatch.setattr(opener, "BOUND_MS", 2 * HOUR_MS)  # as what was stored while the clock was ahead
        alice = await e.bus("operator/alice")
        assert abs(alice._said.signer.incarnation - bob.now_ms()) < BOUND_MS
        async with reading(bob, "user/") as got:
            await alice.publish(Draft("user/t", {"n": 2}))
            await got.until(lambda g: {"n": 2} in g.of("user/t"))

    on_nats(within)(tmp_path)


AHEAD, EARLIER, SINCE, NEXT = (NOW_MS + HOUR_MS, 7), (NOW_MS - HOUR_MS, 3), (NOW_MS + 5_000, 1), (NOW_MS + 5_000, 2)
Said = tuple[tuple[int, int], int, int]
"""The number of an event, when it was said, and when it was stored."""
WENT_BACK: list[Said] = [
    (EARLIER, NOW_MS - HOUR_MS, NOW_MS - HOUR_MS),
    (AHEAD, NOW_MS + HOUR_MS, NOW_MS + HOUR_MS),
    (SINCE, NOW_MS + 6_000, NOW_MS + 6_000),
]


def guarded(monkeypatch: pytest.MonkeyPatch, history: list[Said]) -> tuple[guard.NatsGuard, list[bytes]]:
    """A gate's guard over what was stored on a subject, and what it puts there."""
    stored = [StreamMessage("x", row, at_ms, str(number).encode()) for row, (number, _, at_ms) in enumerate(history, 1)]
    read = {one.raw: (number, said_ms) for one, (number, said_ms, _) in zip(stored, history, strict=True)}
    put: list[bytes] = []

    async def all_of(*_: object) -> AsyncIterator[StreamMessage]:
        for one in stored:
            yield one

    async def reads(_link: object, one: StreamMessage) -> tuple[tuple[int, int], int]:
        return read[one.raw]

    async def publish(publication: Any) -> None:
        put.append(publication.payload)

    async def held() -> Any:
        return SimpleNamespace(publish=publish)

    bus: Any = SimpleNamespace(source="broker/s0", held=held, on_attached=lambda _: None, now_ms=lambda: NOW_MS + 7_000)
    made = guard.NatsGuard(bus, cast(Any, SimpleNamespace(subjects=Subjects("test"), beside=None)))
    monkeypatch.setattr(guard, "all_of", all_of)
    made._read = reads  # type: ignore[method-assign]
    return made, put


@pytest.mark.parametrize(
    ("history", "again"),
    [
        (WENT_BACK, None),
        ([*WENT_BACK, (EARLIER, NOW_MS - HOUR_MS, NOW_MS + 8_000)], SINCE),
        ([*WENT_BACK[:2], (EARLIER, NOW_MS - HOUR_MS, NOW_MS + 8_000)], AHEAD),
        ([WENT_BACK[0], WENT_BACK[2], (EARLIER, NOW_MS - HOUR_MS, NOW_MS + 8_000)], SINCE),
        ([(NEXT, NOW_MS + 6_000, NOW_MS + 6_000), (SINCE, NOW_MS + 7_000, NOW_MS + 7_000)], NEXT),
    ],
    ids=["said since", "and overwritten", "overwritten, nothing said since", "of no clock that went back", "in disorder"],
)
def test_what_was_said_before_the_clock_went_back_does_not_take_the_place_of_what_is_said_since(
    history: list[Said], again: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put there again it would be believed by nobody, for it is ahead now, and hide who is attached."""
    made, put = guarded(monkeypatch, history)

    async def within() -> None:
        link = await made._bus.held()
        assert await made._put_right(link, "x", str(history[-1][0]).encode())

    run_alone(within())
    assert put == ([] if again is None else [str(again).encode()])


def test_what_is_said_since_is_doubted_no_more_than_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    history: list[Said] = [WENT_BACK[1], WENT_BACK[2], (NEXT, NOW_MS + 7_000, NOW_MS + 7_000)]
    made, _ = guarded(monkeypatch, history)
    made._newest["x"] = AHEAD

    async def within() -> None:
        for number, _, _ in history[1:]:
            await made._heard(cast(Any, SimpleNamespace(subject="x", data=str(number).encode())))

    run_alone(within())
    assert made._newest["x"] == NEXT
    assert not made._doubted
