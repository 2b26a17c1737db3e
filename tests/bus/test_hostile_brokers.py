"""Hostile brokers: one that is certified and lies harms itself only, and is found out (rules D1, D2, D3, E1, E4)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dsmt.bus.wire import frames as f
from dsmt.ports.bus import Level
from tests.bus.realm import Facts, TestRealm, scenario, until
from tests.bus.test_copying import at, held, linked, mesh


@pytest.mark.parametrize("lie_ms", [float("inf"), float("nan")])
def test_a_broker_that_tells_a_time_that_is_none_ends_no_other_process(
    lie_ms: float, network_kind: str, tmp_path: Any
) -> None:
    @scenario
    async def run(r: TestRealm) -> None:
        b1, b2 = await mesh(r, "b1", "b2")
        client = await r.client("operator/a", brokers=at(b2))
        asked = []
        handle = b2._handle

        def lie(session: Any, frame: Any, parts: tuple[bytes, ...]) -> None:
            if isinstance(frame, f.Time):
                asked.append(session.key)
                b2._send(session, f.TimeIs(sent=frame.sent, realm_ms=lie_ms))
            else:
                handle(session, frame, parts)

        for session in b2._sessions.all():
            for _ in range(3):
                b2._send(session, f.TimeIs(sent=1e14, realm_ms=lie_ms))
        await until(lambda: not client.attached and not linked(b1))
        b2._handle = lie
        await until(lambda: len(set(asked)) == 2)
        await until(lambda: len(asked) >= 4)
        assert not r.tasks[b1].done()
        assert not r.tasks[client].done()

    run(network_kind, tmp_path)
