"""Whose output is shown: of what runs, of what has ended, of two programs that run side by side."""

import asyncio
from pathlib import Path
from typing import Any

from dsmt.event.reason import failed
from dsmt.ports.processes import Exit
from tests.loops import in_virtual_time

from .memory_bus import Realm
from .sights import CHECKED, DOZES, command, served
from .world import WEB, Site

TOPIC = "service/web/log/app/0/n1/stdout"


async def asked(site: Site, name: str, **about: Any) -> list[str]:
    """The same, once it has."""
    command(site, "LOGS", name, lines=9, stream="stdout", **about)
    await site.realm.until(lambda: any(told["command"] == name for told in site.realm.told(TOPIC)))
    return [line for told in site.realm.told(TOPIC) if told["command"] == name for line in told["lines"]]


@in_virtual_time
async def test_where_nothing_runs_the_last_run_that_has_ended_is_the_one_that_failed_last() -> None:
    site = Site(Realm())
    site.place(WEB + "    restart: {escalate: [{restart: 1}], park: {after: 1, retry: 1h}}\n")
    agent = site.start()
    await site.until("running")
    assert await asked(site, "l0", previous=True) == [], "none has ended"
    site.logs.write("stdout", "one\n")
    site.machine.alive[0].end(Exit(7, None))
    await site.realm.until(lambda: len(site.machine.programs) == 2)
    assert await asked(site, "l1", previous=True) == ["one"]
    site.logs.write("stdout", "two\n")
    site.machine.alive[0].end(Exit(7, None))
    await site.realm.until(lambda: site.statuses()[-1]["parked"])
    assert await asked(site, "l2", previous=True) == ["two"]
    assert await asked(site, "l3") == ["two"], "and there is nothing else to show"
    agent.kill()
    agent = site.start()
    assert await asked(site, "l4", previous=True) == ["two"], "who follows an agent knows it"
    agent.kill()


@in_virtual_time
async def test_a_run_that_could_not_be_begun_is_not_the_last_that_has_ended() -> None:
    site = Site(Realm())
    site.place(WEB + "    restart: {first: 60s}\n")
    agent = site.start()
    await site.until("running")
    site.logs.write("stdout", "one\n")
    site.machine.wrong = failed("start.cannot_exec", program="serve", dir="/", error="no such file")
    site.machine.alive[0].end(Exit(7, None))
    await site.realm.until(lambda: (site.statuses()[-1]["reason"] or {}).get("code") == "start.cannot_exec")
    assert await asked(site, "l1", previous=True) == ["one"]
    agent.kill()


@in_virtual_time
async def test_what_is_tried_beside_the_copy_before_has_logs_of_its_own_and_is_shown_by_its_revision() -> None:
    site = Site(Realm())
    agent = site.start()
    old = await served(site)
    good, site.checks.passed = site.spec_of(), False
    site.logs.write("stdout", "good\n")
    site.assign(site.spec(DOZES, version=2), version=2)
    await site.realm.until(lambda: len(site.machine.alive) == 2)
    new = site.machine.alive[1]
    assert {Path(one.launch.stdout).name for one in (old, new)} == {"stdout.log", "stdout-2.log"}
    site.logs.write("stdout-2", "bad\n")
    site.logs.write("stdout", "goes on\n")
    assert await asked(site, "l1", generation=2) == ["bad"], "the newer of two"
    assert await asked(site, "l2", generation=2, revision=1) == ["good", "goes on"]
    new.end(Exit(1, None))
    await site.realm.until(lambda: len(site.machine.programs) == 3)
    assert await asked(site, "l3", generation=2, previous=True) == ["bad"]
    agent.kill()
    agent = site.start()
    site.assign(good, version=3)
    await site.realm.until(lambda: site.machine.alive == [old] and site.statuses()[-1]["state"] == "running")
    assert await asked(site, "l4", generation=3) == ["good", "goes on"]
    assert await asked(site, "l5", generation=3, previous=True) == [], "its second try wrote nothing"
    old.end(Exit(1, None))
    await site.realm.until(lambda: len(site.machine.programs) == 4)
    assert await asked(site, "l6", generation=3, previous=True) == ["good", "goes on"]
    assert await asked(site, "l7", generation=3, revision=1) == [], "the one that runs"
    agent.kill()


@in_virtual_time
async def test_what_runs_on_under_another_revision_is_shown_by_that_one() -> None:
    site = Site(Realm())
    site.place()
    agent = site.start()
    await site.until("running")
    site.logs.write("stdout", "one\n")
    site.assign(site.spec(WEB + "    restart: {cap: 7s}\n", version=2), version=2)
    await site.realm.until(lambda: site.statuses()[-1]["revision"] == 2)
    assert len(site.machine.programs) == 1
    assert await asked(site, "l1", generation=2, revision=2) == ["one"]
    assert await asked(site, "l2", generation=2, revision=1) == []
    agent.kill()


@in_virtual_time
async def test_what_is_being_ended_as_failed_counts_as_ended() -> None:
    """Its reason names what shows it before it has ended."""
    site = Site(Realm())
    site.checks.passed = False
    site.place(CHECKED + "    stop: {grace: 30s}\n")
    agent = site.start()
    await site.realm.until(lambda: len(site.machine.alive) == 1)
    site.logs.write("stdout", "slow\n")
    await site.realm.until(lambda: "failed" in site.states(), 200)
    assert site.statuses()[-1]["reason"]["next"] == "dsmt logs web/app/0 --previous"
    assert await asked(site, "l1", previous=True) == ["slow"]
    agent.kill()


@in_virtual_time
async def test_who_follows_is_sent_what_both_of_two_copies_write_each_under_its_own_log() -> None:
    site = Site(Realm())
    agent = site.start()
    await served(site)
    site.checks.passed = False
    site.logs.write("stdout", "one\n")
    command(site, "LOGS", "l1", stream="stdout", follow_s=50)
    await asyncio.sleep(1)
    site.assign(site.spec(DOZES, version=2), version=2)
    await site.realm.until(lambda: len(site.machine.alive) == 2)
    site.logs.write("stdout-2", "bad\n")
    await asyncio.sleep(1)
    site.logs.write("stdout", "two\n")
    await asyncio.sleep(1)
    told = {log: [line for one in site.realm.told(log) for line in one["lines"]] for log in (TOPIC, f"{TOPIC}-2")}
    assert told == {TOPIC: ["one", "two"], f"{TOPIC}-2": ["bad"]}
    agent.kill()
