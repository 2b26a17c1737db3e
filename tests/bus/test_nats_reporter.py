"""What a gate says of its server goes on when a stream did not answer, or was not there: as while one is made anew."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.nats import reporter
from dsmt.bus.nats.reporter import NatsReporter
from dsmt.bus.nats.streams import Head
from dsmt.bus.rules.session_words import HEARTBEAT_S, STATS_S
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import RefusedError, TransportError
from dsmt.ports.bus import Draft
from dsmt.ports.realm import About
from dsmt.together import end_all
from tests.loops import in_virtual_time

WRONG = RefusedError("nats.stream", "NATS has no stream"), TransportError("nats.stream", "it does not answer")


@in_virtual_time
async def test_it_is_said_when_the_streams_are_there_and_again_and_at_once_when_the_disk_is_full() -> None:
    loop, begins, wrong, full = asyncio.get_running_loop(), asyncio.Event(), list(WRONG), list[str]()
    said: list[tuple[float, Draft]] = []

    async def held() -> None:
        pass

    async def head(_link: object, stream: str) -> Head:
        if wrong:
            raise wrong.pop()
        return Head("store", 1, 7, 1, 0, {subjects.history: 5, subjects.facts: 3}[stream], 10, 0)

    subjects = Subjects("test")
    bus: Any = SimpleNamespace(
        source="broker/b1", subjects=subjects, held=held, emit=lambda draft: said.append((loop.time(), draft))
    )
    clock: Any = SimpleNamespace(boottime=loop.time)
    told = NatsReporter(bus, clock, About(7, "v"), sessions=lambda: 2, full=lambda: "".join(full))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reporter, "head", head)
        task = asyncio.create_task(told.run(begins))
        await asyncio.sleep(STATS_S)
        assert said == [], "nobody is let in yet"
        begins.set()
        began = loop.time()
        await asyncio.sleep(2 * HEARTBEAT_S + STATS_S + 1)
        assert [round(at - began - 2 * HEARTBEAT_S) for at, _ in said] == [0, STATS_S]
        full.append("/disk")
        await asyncio.sleep(2 * HEARTBEAT_S)
        await end_all(task)
    assert [draft.data.get("full") for _, draft in said] == [None, None, "/disk"]
    assert {(draft.data["events"], draft.data["facts"], draft.data["disk_bytes"]) for _, draft in said} == {(5, 3, 20)}
