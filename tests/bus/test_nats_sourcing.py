"""A leader of stream F that hears nothing of stream H steps down; nobody else is asked to."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from dsmt.bus.adapters import nats_sourcing
from dsmt.bus.adapters.nats_sourcing import LOOKS, SILENT_NS, keep_sourced
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import TransportError
from dsmt.logs import Logger

REALM = Subjects("r")
MOST = 6
DOWN = f"STREAM.LEADER.STEPDOWN.{REALM.facts}"


class Servers:
    """What the servers answer: F's leader, when it heard of H, H's leader. Both a bus that is not attached and its link."""

    def __init__(self, *, leader: str = "b1", active: int = -1, history: str = "b2", away: int = 0) -> None:
        self.answers = {REALM.facts: (leader, active), REALM.history: (history, 0)}
        self.away, self.looks, self.asked, self.enough = away, 0, list[int](), asyncio.Event()

    async def connect(self) -> Servers:
        return self

    async def close(self) -> None:
        pass

    async def api(self, name: str) -> dict[str, Any]:
        if name == DOWN:
            self.asked.append(self.looks)
            return {}
        leader, active = self.answers[name.removeprefix("STREAM.INFO.")]
        self.looks += name.endswith(REALM.facts)
        if self.looks == MOST:
            self.enough.set()
        if self.looks == self.away:
            raise TransportError("nats.silent", "it does not answer")
        return {"cluster": {"leader": leader} if leader else {}, "sources": [{"active": active}]}


def asked(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """After which looks a leader was asked to step down, of the first six."""
    monkeypatch.setattr(nats_sourcing, "LOOK_S", 0.0)

    async def main() -> None:
        bus: Any = servers
        keeping = asyncio.create_task(keep_sourced(bus, REALM, "b1", Logger(gate="broker/b1")))
        await servers.enough.wait()
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping

    asyncio.run(asyncio.wait_for(main(), 10))
    return [look for look in servers.asked if look < MOST]


def test_a_leader_that_never_heard_of_the_history_or_not_for_long_steps_down_each_time(monkeypatch) -> None:
    assert asked(Servers(), monkeypatch) == [LOOKS, 2 * LOOKS]
    assert asked(Servers(active=SILENT_NS + 1), monkeypatch) == [LOOKS, 2 * LOOKS]


@pytest.mark.parametrize("well", [Servers(active=0), Servers(active=SILENT_NS), Servers(leader="b2"), Servers(history="")])
def test_one_that_hears_of_it_another_servers_and_one_without_a_history_to_hear_of_stay(monkeypatch, well: Servers) -> None:
    assert asked(well, monkeypatch) == []


def test_one_look_that_nobody_answers_begins_the_count_anew(monkeypatch) -> None:
    assert asked(Servers(away=LOOKS), monkeypatch) == [2 * LOOKS]
