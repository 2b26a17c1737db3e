"""Facts that an agent says again, what it trims, and what its events name as causes."""

import asyncio
from itertools import pairwise

import pytest

from dsmt.bus.rules.ended_keys import NAMESAKE
from dsmt.event.envelope import EventId
from dsmt.ports.bus import Complete, Cursor, Notice
from dsmt.ports.processes import Exit
from tests.loops import in_virtual_time

from .memory_bus import Realm
from .sights import CHECKED
from .world import WEB, Site


@in_virtual_time
async def test_facts_are_renewed_each_half_of_their_life_and_heartbeats_go_on() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.realm.until(site.good)
    said = len(site.statuses())
    await asyncio.sleep(12 * 3600 - 60)
    assert len(site.statuses()) == said
    await asyncio.sleep(180)
    assert len(site.statuses()) == said + 1
    assert site.bus.beats > 1000
    agent.kill()


@pytest.mark.parametrize(("store", "anew"), [("s", 0), ("another", 1)])
@in_virtual_time
async def test_what_an_agent_has_said_it_says_again_to_another_store_that_may_not_have_it(store: str, anew: int) -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.realm.until(site.good)
    said = len(site.statuses())
    for _ in range(2):  # the second time it is known there
        site.realm.tell(Complete(Cursor(store, 1, 0), whole=True))
        await asyncio.sleep(5)
    assert len(site.statuses()) == said + anew
    agent.kill()


@in_virtual_time
async def test_what_an_agent_has_said_it_says_again_where_another_key_of_its_node_has_ended() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.realm.until(site.good)
    said = len(site.statuses())
    site.realm.tell(Notice("dsmt.notice.trimmed", "nothing to this agent"))
    site.realm.tell(NAMESAKE)
    await asyncio.sleep(5)
    assert len(site.statuses()) == said + 1
    agent.kill()


@in_virtual_time
async def test_what_changes_more_often_than_an_agent_beats_is_renewed_and_its_output_trimmed() -> None:
    site = Site(Realm())
    site.place(CHECKED)
    agent = site.start()
    await site.realm.until(lambda: site.health() == "ready")
    topic = f"{site.slot.on('status', 'n1')}/application"
    for _ in range(25 * 180):
        site.checks.passed = not site.checks.passed
        await asyncio.sleep(20)
    last = [signed.event for signed in site.realm.log if signed.event.topic == topic][-1]
    assert last.data["state"] == "running"
    assert not last.is_dead(site.bus.now_ms())
    assert max(after - before for (before, _), (after, _) in pairwise(site.logs.trims)) < 40
    agent.kill()


@in_virtual_time
async def test_output_is_trimmed_as_often_as_it_is_written_and_an_idle_program_is_looked_at_with_a_beat_only() -> None:
    site = Site(Realm())
    site.place(WEB + "    logs: {size: 16KiB}\n")
    agent = site.start()
    await site.until("running")
    await asyncio.sleep(10)
    idle = len(site.logs.trims)
    for _ in range(90 * 10):  # 20 KiB/s
        site.logs.write("stdout", "x" * 2048)
        await asyncio.sleep(0.1)
    flooded = [end for _, end in site.logs.trims[idle:] if end > 0][1:]  # the first look tells no rate
    assert max(after - before for before, after in pairwise(flooded)) <= 16384 + 2 * 2048
    await asyncio.sleep(60)
    trims, beats = len(site.logs.trims), site.bus.beats
    await asyncio.sleep(600)
    assert len(site.logs.trims) - trims <= site.bus.beats - beats
    agent.kill()


@in_virtual_time
async def test_causes_are_ids_of_events_that_exist() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.realm.until(lambda: site.health() == "none")
    site.machine.alive[0].end(Exit(1, None))
    await site.realm.until(lambda: site.state() == "running" and "failed" in site.states())
    ids = {signed.id for signed in site.realm.log}
    for signed in site.realm.log:
        assert all(isinstance(cause, EventId) and cause in ids for cause in signed.event.cause)
    agent.kill()


@in_virtual_time
async def test_an_endpoint_is_renewed_before_it_dies_also_where_one_word_is_lost() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.realm.until(site.endpoint)
    topic = site.slot.on("endpoint", site.node)
    await asyncio.sleep(600)
    told = [signed.event.time_ms for signed in site.realm.log if signed.event.topic == topic]
    assert 2 * max(after - before for before, after in pairwise(told)) < 90_000
    assert 10 <= len(told) <= 22
    agent.kill()


@in_virtual_time
async def test_an_endpoint_is_told_also_while_realm_time_is_what_it_was_an_hour_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a NATS server was put back: for an hour nobody was told where an instance is reached."""
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.realm.until(site.endpoint)
    topic, now_ms, said = site.slot.on("endpoint", site.node), site.bus.now_ms, len(site.realm.log)
    monkeypatch.setattr(site.bus, "now_ms", lambda: now_ms() - 3_600_000)
    await asyncio.sleep(600)
    told = [signed.event for signed in site.realm.log[said:] if signed.event.topic == topic]
    assert told[0].time_ms < now_ms() - 3_600_000 - 600_000 + 45_000
    assert not told[-1].is_dead(site.bus.now_ms())
    agent.kill()
