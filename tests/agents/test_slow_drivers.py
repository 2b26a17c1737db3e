"""Drivers whose preparations and starts take long."""

import asyncio

import pytest

from dsmt.ports.processes import Exit
from tests.loops import in_virtual_time

from .memory_bus import Realm
from .world import WEB, Site


@in_virtual_time
async def test_a_driver_that_can_run_nothing_here_says_why_and_is_asked_again() -> None:
    site = Site(Realm())
    site.machine.lacking = "no user namespaces: sysctl user.max_user_namespaces is 0"
    site.place()
    agent = site.start()
    await site.until("failed")
    reason = site.statuses()[-1]["reason"]
    said = f"the driver process cannot start it: {site.machine.lacking}"
    assert (reason["code"], reason["message"]) == ("start.driver", said)
    assert site.machine.programs == []
    site.machine.lacking = ""
    await site.until("running")
    agent.kill()


@in_virtual_time
async def test_what_is_prepared_for_and_not_wanted_any_more_is_let_go_and_never_started() -> None:
    site = Site(Realm())
    site.machine.preparing_s = 3600.0
    spec = site.spec()
    site.assign(spec)
    agent = site.start()
    await site.realm.until(lambda: site.machine.prepared)
    site.assign(spec, version=2, desired="stopped")
    await site.until("stopped", 10)
    assert site.machine.programs == []
    agent.kill()


@in_virtual_time
async def test_what_was_taken_over_is_started_again_without_being_prepared_anew() -> None:
    site = Site(Realm())
    site.place()
    first = site.start()
    await site.realm.until(lambda: site.health() == "none")
    first.kill()
    before = site.bus
    agent = site.start()
    await site.realm.until(lambda: site.bus is not before and site.bus is not None and site.bus.beats > 0)
    site.machine.alive[0].end(Exit(None, 9))
    await site.realm.until(lambda: len(site.machine.programs) == 2)
    assert len(site.machine.prepared) == 1
    agent.kill()


@pytest.mark.parametrize("desired", ["stopped", "gone"])
@pytest.mark.parametrize("dies", [False, True], ids=["the first start", "a start after a death"])
@in_virtual_time
async def test_what_is_not_wanted_any_more_while_it_is_being_started_is_ended_once_it_runs(desired: str, dies: bool) -> None:
    site = Site(Realm())
    spec = site.spec()
    site.machine.starting_s = 0.0 if dies else 5.0
    site.assign(spec)
    agent = site.start()
    if dies:
        await site.realm.until(lambda: site.health() == "none")
        site.machine.starting_s = 5.0
        site.machine.alive[0].end(Exit(None, 9))
    await site.realm.until(lambda: site.machine.starts > len(site.machine.programs))
    site.assign(spec, version=2, desired=desired)
    await site.until(desired, 10)
    await site.realm.until(lambda: site.machine.starts == len(site.machine.programs))
    assert site.machine.alive == []
    assert site.machine.copies == []
    assert [program.signals for program in site.machine.programs[1:]] in ([], [[15]])
    agent.kill()


@in_virtual_time
async def test_a_driver_whose_starts_take_long_never_has_two_programs_of_an_instance() -> None:
    site = Site(Realm())
    site.machine.starting_s = 3.0
    site.place()
    agent = site.start()
    for count in range(1, 5):
        await site.realm.until(lambda count=count: len(site.machine.programs) == count and site.health() == "none")
        site.assign(site.spec_of(), version=count + 1)
        site.machine.alive[0].end(Exit(1, None))
    await site.until("running")
    await site.realm.until(lambda: site.health() == "none")
    assert site.machine.copies == []
    agent.kill()


@in_virtual_time
async def test_a_step_is_prepared_for_as_a_program_is_and_a_driver_that_cannot_run_here_runs_none() -> None:
    site = Site(Realm())
    site.machine.steps["set-up"] = Exit(0, None)
    site.machine.lacking = "it is not installed"
    site.place(WEB + "    install: set-up\n")
    agent = site.start()
    await site.until("failed")
    assert site.statuses()[-1]["reason"]["message"] == "the driver process cannot start it: it is not installed"
    assert site.machine.programs == []
    site.machine.lacking = ""
    await site.until("running")
    assert [launch.argv[0] for launch in site.machine.prepared] == ["set-up", "sleep"]
    agent.kill()


@in_virtual_time
async def test_what_is_stopped_between_two_tries_has_stopped_when_nothing_is_left_of_the_last_one() -> None:
    site = Site(Realm())
    site.place(WEB + "    restart: {first: 60s}\n")
    agent = site.start()
    await site.until("running")
    (program,) = site.machine.alive
    swept = asyncio.Event()

    async def kill(*, deadline: float) -> tuple[int, ...]:
        assert deadline > 0
        await swept.wait()
        return ()

    program.kill = kill
    program.end(Exit(1, None))
    await site.until("failed")
    site.assign(site.spec_of(), version=2, desired="stopped")
    await asyncio.sleep(5)
    assert site.state() == "failed", "what it had forked still runs"
    swept.set()
    await site.until("stopped")
    agent.kill()
