"""What is checked by something else than its own agent, and generations that come meanwhile."""

import asyncio
from typing import Any

import pytest

from dsmt.ports.check import Result
from tests.loops import in_virtual_time

from .memory_bus import Realm
from .sights import CHECKED, served
from .world import WEB, Site

OTHERWISE = CHECKED.replace("path: /", "path: /nothere").replace("    run:", "    update: {healthy_after: 2s}\n    run:")


def healths(site: Site, generation: int) -> list[str]:
    """What was said of its health in a generation."""
    return [one["health"] for one in site.realm.told(site.slot.on("health", site.node)) if one["generation"] == generation]


@pytest.mark.parametrize("killed", [False, True], ids=["", "its agent is killed meanwhile"])
@in_virtual_time
async def test_what_is_checked_by_something_else_is_served_and_ready_only_when_that_has_passed(killed: bool) -> None:
    site = Site(Realm())
    agent = site.start()
    program = await served(site)
    good = site.spec_of().id
    await asyncio.sleep(20)
    site.checks.passed = False
    site.assign(site.spec(OTHERWISE, version=2), version=2)
    await site.realm.until(lambda: healths(site, 2))
    if killed:
        agent.kill()
        agent = site.start()
    await asyncio.sleep(3)
    assert site.endpoint()["ready"], "it goes on as it is, until readiness says otherwise"
    site.checks.passed = True
    await site.realm.until(lambda: site.health() == "ready")
    assert {*healths(site, 2)[:-1]} == {"unready"}
    assert site.endpoint()["generation"] == 2
    assert site.machine.programs == [program]
    assert all(one["ready"] for one in site.realm.told(site.slot.on("endpoint", site.node))), "it was never withdrawn"
    assert site.statuses()[-1]["good"]["spec"] == str(good)
    agent.kill()


@pytest.mark.parametrize("killed", [False, True], ids=["", "its agent is killed meanwhile"])
@in_virtual_time
async def test_a_check_that_never_passes_makes_nothing_ready_or_good_and_restarts_nothing_before_a_start_may_take_so_long(
    killed: bool,
) -> None:
    site = Site(Realm())
    agent = site.start()
    program = await served(site)
    good = site.spec_of().id
    await asyncio.sleep(20)
    site.checks.passed = False
    site.assign(site.spec(OTHERWISE, version=2), version=2)
    await site.realm.until(lambda: not site.endpoint()["ready"], 30)
    if killed:
        agent.kill()
        agent = site.start()
    await asyncio.sleep(50)
    assert healths(site, 2)
    assert {*healths(site, 2)} == {"unready"}
    assert site.machine.programs == [program], "liveness waits for as long as a start may take"
    assert site.statuses()[-1]["good"]["spec"] == str(good)
    site.assign(site.spec(CHECKED, version=3), version=3)
    site.checks.passed = True
    await site.realm.until(lambda: site.health() == "ready")
    assert site.endpoint()["ready"]
    assert site.machine.programs == [program]
    agent.kill()


@in_virtual_time
async def test_a_generation_that_came_while_no_agent_lived_is_ready_when_its_own_check_has_passed() -> None:
    site = Site(Realm())
    agent = site.start()
    program = await served(site)
    await asyncio.sleep(20)
    agent.kill()
    site.checks.passed = False
    site.assign(site.spec(OTHERWISE, version=2), version=2)
    agent = site.start()
    await site.realm.until(lambda: site.statuses()[-1]["generation"] == 2)
    await asyncio.sleep(3)
    assert "ready" not in healths(site, 2)
    assert site.endpoint()["ready"]
    site.checks.passed = True
    await site.realm.until(lambda: site.endpoint()["generation"] == 2 and site.health() == "ready")
    assert site.machine.programs == [program]
    agent.kill()


@in_virtual_time
async def test_an_update_of_what_is_checked_by_something_else_starts_beside_it_all_the_same() -> None:
    site = Site(Realm())
    agent = site.start()
    old = await served(site)
    await asyncio.sleep(20)
    site.checks.passed = False
    site.assign(site.spec(OTHERWISE, version=2), version=2)
    await site.realm.until(lambda: healths(site, 2))
    site.assign(site.spec(OTHERWISE.replace("run: sleep", "run: doze"), version=3), version=3)
    await site.realm.until(lambda: len(site.machine.alive) == 2)
    assert site.machine.alive[0] == old
    assert site.endpoint()["ready"]
    agent.kill()


STARTED = WEB + (
    "    health: {startup: {http: {port: http, path: /s}, deadline: 5m}, readiness: {http: {port: http, path: /r}},"
    " liveness: {http: {port: http, path: /l}, interval: 2s, failures: 1}}\n"
)


@in_virtual_time
async def test_what_had_started_and_was_not_ready_yet_is_checked_on_as_before_by_the_agent_that_follows() -> None:
    """It was checked by nothing else: liveness waits for nothing."""
    site = Site(Realm())
    passes = {"/s": True, "/r": False, "/l": True}

    async def run(check: Any, **_: Any) -> Result:
        passed = passes[check.how.path]
        return Result(passed, "200" if passed else "503", 0.0)

    site.checks.run = run  # type: ignore[method-assign]
    site.place(STARTED)
    agent = site.start()
    await site.until("running")
    agent.kill()
    passes["/l"] = False
    agent = site.start()
    await site.realm.until(lambda: len(site.machine.programs) == 2, 60.0)
    agent.kill()
