"""A node whose clocks are off: what its monitor says of that, and its probes over timers that are a moment early."""

from __future__ import annotations

import asyncio

import pytest

from dsmt.errors import TransportError
from dsmt.ports.bus import Draft
from dsmt.simulator.engine.run import run
from tests.agents.memory_bus import Clock
from tests.loops import in_virtual_time
from tests.monitors import test_node
from tests.monitors.test_node import World

LEAST = ("cpus", "memory_bytes", "memory_free_bytes", "disk_bytes", "disk_free_bytes", "load")


def test_a_probe_that_is_due_a_moment_early_is_said_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said counts for two periods: said in each second one only, a silence would be no evidence now and then."""
    early, boottime = iter(0.001 * n for n in range(100_000)), Clock.boottime
    monkeypatch.setattr(Clock, "boottime", lambda clock: boottime(clock) - next(early) % 0.01)

    async def main() -> None:
        at = World()
        for node in ("n1", "n2"):
            at.start(node)
        await asyncio.sleep(1)
        at.network.deaf.add("10.0.0.2")
        at.silence("n2")
        await asyncio.sleep(41)
        assert len(at.probes("n2")) >= 20
        at.end()

    run(main())


def test_a_node_under_a_name_that_is_not_found_in_time_keeps_no_other_one_from_being_probed() -> None:
    """A node says itself under which address it is reached."""
    asked: list[str] = []

    async def main() -> None:
        at = World()

        async def found(to: str) -> str:
            asked.append(to)
            await asyncio.sleep(30 if to.startswith("10.0.0.2:") else 0)
            return to

        at.network.found = found  # type: ignore[method-assign]
        for node in ("n1", "n2", "n3"):
            at.start(node)
        await asyncio.sleep(1)
        for node in ("n2", "n3"):
            at.silence(node)
        await asyncio.sleep(1.5)
        assert [("n1", "passed") in at.probes(node) for node in ("n2", "n3")] == [False, True]
        await asyncio.sleep(1)
        assert ("n1", "failed") in at.probes("n2")
        at.end()

    run(main())
    assert any(to.startswith("10.0.0.2:") for to in asked)


@in_virtual_time
async def test_a_node_of_which_a_store_learns_only_now_where_it_answers_is_asked_there() -> None:
    """A broker that was begun anew names who is to probe before it holds all: else a living node would be told as dead."""
    at = World()
    for node in ("n1", "n2"):
        at.start(node)
    await asyncio.sleep(1)
    said = at.realm.facts.pop("node/n2/attributes")
    at.silence("n2")
    await asyncio.sleep(1.5)
    assert at.probes("n2") == [("n1", "failed")]
    at.realm.facts["node/n2/attributes"] = said
    await asyncio.sleep(2.5)
    assert at.probes("n2")[-1] == ("n1", "passed")
    at.end()


def test_a_clock_that_is_off_is_told_once_and_anew_when_it_is_off_by_another_second(monkeypatch: pytest.MonkeyPatch) -> None:
    off_ms = [5_000]

    class Off(Clock):
        def wall_ms(self) -> int:
            return super().wall_ms() + off_ms[0]

    monkeypatch.setattr(test_node, "Clock", Off)

    async def main() -> None:
        at = World()
        at.start("n1")
        await asyncio.sleep(29)
        assert [said["clock_offset_s"] for said in at.said("n1")] == [5.0]
        off_ms[0] = 3_500
        await asyncio.sleep(6)
        assert at.said("n1")[-1]["clock_offset_s"] == 3.5
        at.end()

    run(main())


@in_virtual_time
async def test_who_has_an_address_as_long_as_an_event_ends_nobody_who_probes_it() -> None:
    at = World()
    for node in ("n1", "n2"):
        at.start(node)
    await asyncio.sleep(1)

    async def found(to: str) -> str:
        if len(to) > 100:
            said = f"{to} is not found: encoding with 'idna' codec failed: label too long"
            raise TransportError("datagrams.unknown", said)
        return to

    at.network.found = found  # type: ignore[method-assign]
    long = {**dict.fromkeys(LEAST, 1), "address": "x" * 64_200, "version": "", "boot_id": "", "udp_port": 1}
    at.buses["n2"].emit(Draft("node/n2/attributes", long))
    at.silence("n2")
    await asyncio.sleep(5)
    assert {result for _, result in at.probes("n2")} == {"failed"}
    at.end()
