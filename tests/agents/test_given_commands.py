"""Commands: each is executed once, in its generation and in time."""

import asyncio

import pytest

from dsmt.errors import FailedError
from dsmt.ports.processes import Exit
from tests.loops import in_virtual_time

from .memory_bus import Realm
from .sights import command
from .world import WEB, Site


@in_virtual_time
async def test_a_command_is_executed_once_and_only_in_its_generation() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.until("running")
    command(site, "RESTART", generation=9)
    await asyncio.sleep(5)
    assert len(site.machine.programs) == 1
    command(site, "RESTART")
    await site.realm.until(lambda: len(site.machine.programs) == 2)
    command(site, "RESTART")
    await asyncio.sleep(30)
    assert len(site.machine.programs) == 2
    assert site.statuses()[-1]["last_command"] == "c1"
    asked = next(s for s in site.realm.log if s.event.type == "dsmt.command" and s.event.data["generation"] == 1)
    terminated = next(s for s in site.realm.log if s.event.data.get("state") == "terminated")
    assert terminated.event.cause == (asked.id,)
    agent.kill()


@in_virtual_time
async def test_a_command_that_overtakes_the_slot_fact_of_its_generation_waits_for_it() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.until("running")
    agent.kill()
    site.assign(site.spec_of(), version=2)
    command(site, "RESTART", generation=2, ttl_ms=60_000)
    command(site, "STOP", "late", generation=3, ttl_ms=10_000)
    agent = site.start()
    await site.realm.until(lambda: len(site.machine.programs) == 2)
    assert site.statuses()[-1]["generation"] == 2
    await asyncio.sleep(30)
    site.assign(site.spec_of(), version=3)
    await site.realm.until(lambda: site.statuses()[-1]["generation"] == 3)
    await asyncio.sleep(30)
    assert site.states()[-1] == "running"
    assert site.statuses()[-1]["last_command"] == "c1"
    agent.kill()


@in_virtual_time
async def test_a_command_said_while_the_agent_was_away_is_executed_once_when_it_is_back() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.until("running")
    agent.kill()
    command(site, "RESTART", ttl_ms=60_000)
    await asyncio.sleep(30)
    agent = site.start()
    await site.realm.until(lambda: len(site.machine.programs) == 2)
    agent.kill()
    agent = site.start()
    await asyncio.sleep(30)
    assert len(site.machine.programs) == 2
    agent.kill()


@in_virtual_time
async def test_a_command_that_comes_after_its_time_is_not_executed_and_said_to_have_expired() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.until("running")
    agent.kill()
    command(site, "RESTART", ttl_ms=60_000)
    await asyncio.sleep(61)
    agent = site.start()
    await site.realm.until(lambda: site.statuses()[-1]["expired_command"] == "c1")
    await asyncio.sleep(30)
    assert len(site.machine.programs) == 1
    assert site.statuses()[-1]["last_command"] is None
    agent.kill()


@in_virtual_time
async def test_a_stop_by_command_holds_until_a_start() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.until("running")
    command(site, "STOP", "c1")
    await site.until("stopped")
    await asyncio.sleep(100)
    assert not site.machine.alive
    command(site, "START", "c2")
    await site.until("running")
    agent.kill()


@pytest.mark.parametrize("verb", ["START", "RETRY", "UPDATE", "RESTART", "APPCONFIG"])
@in_virtual_time
async def test_what_is_parked_is_tried_at_once_when_a_command_asks_for_that(verb: str) -> None:
    site = Site(Realm())
    site.place(WEB + "    restart: {park: {after: 2}}\n")
    site.machine.wrong = FailedError("start.cannot_exec", "not found", program="sleep", dir=".", error="not found")
    agent = site.start()
    await site.realm.until(lambda: bool(site.statuses()) and site.statuses()[-1]["parked"])
    site.machine.wrong = None
    command(site, verb)
    await site.until("running", 30.0)
    agent.kill()


@in_virtual_time
async def test_an_installation_that_fails_is_tried_again_as_its_own_spec_says() -> None:
    site = Site(Realm())
    site.machine.steps["prepare"] = Exit(4, None)
    site.place(WEB + "    install: prepare it\n    restart: {first: 5s, park: {after: 1}}\n")
    agent = site.start()
    await site.until("failed")
    began = asyncio.get_running_loop().time()
    await site.realm.until(lambda: site.statuses()[-1]["parked"], 10)
    assert 4 <= asyncio.get_running_loop().time() - began <= 6
    agent.kill()
