"""An agent is killed while its program ends as it was asked to: that end is no failure, nor an end by itself (C12, A20)."""

import asyncio
import signal
from typing import Any

import pytest

from dsmt.ports.bus import Draft
from dsmt.ports.processes import Exit
from tests.loops import in_virtual_time

from .memory_bus import Realm
from .sights import CHECKED, served
from .world import Site

ENDS_WELL = CHECKED.replace("run: sleep", "run: stubborn") + "    restart: on_failure\n    update: {order: stop_first}\n"


def kill(site: Site) -> None:
    assert site.process is not None
    site.process.kill()


async def asked_to_end(site: Site) -> Any:
    """Wait until the program was told to end, and kill the agent in the grace that it has."""
    (program,) = site.machine.alive
    await site.realm.until(lambda: program.signals == [signal.SIGTERM])
    await asyncio.sleep(0.5)
    kill(site)
    return program


async def ends_as_asked(program: Any, *, watched: bool, site: Site) -> None:
    """It ends with 0, while the next agent is there or before."""
    if not watched:
        program.end(Exit(0, None))
    site.start()
    await asyncio.sleep(0.1)
    program.end(Exit(0, None))


@pytest.mark.parametrize("watched", [False, True])
@in_virtual_time
async def test_what_was_asked_to_end_has_neither_failed_nor_ended_well_where_its_agent_is_killed_meanwhile(
    watched: bool,
) -> None:
    site = Site(Realm())
    site.place(ENDS_WELL)
    site.start()
    await site.realm.until(lambda: site.health() == "ready")
    site.assign(site.spec_of(), version=2, desired="stopped")
    program = await asked_to_end(site)
    await ends_as_asked(program, watched=watched, site=site)
    await site.until("stopped")
    await asyncio.sleep(60)
    assert site.state() == "stopped"
    assert "failed" not in site.states()
    assert not site.record().finished
    assert site.record().good is None
    kill(site)


@pytest.mark.parametrize("watched", [False, True])
@in_virtual_time
async def test_what_was_to_follow_and_is_ended_has_not_failed_where_its_agent_is_killed_meanwhile(watched: bool) -> None:
    site = Site(Realm())
    site.start()
    old = await served(site)
    first = site.spec_of()
    site.checks.passed = False
    site.assign(site.spec(CHECKED.replace("run: sleep", "run: stubborn"), version=2), version=2)
    await site.realm.until(lambda: len(site.machine.alive) == 2)
    new = site.machine.alive[-1]
    site.checks.passed = True
    site.assign(first, version=3)
    await site.realm.until(lambda: new.signals == [signal.SIGTERM])
    await asyncio.sleep(0.5)
    kill(site)
    await ends_as_asked(new, watched=watched, site=site)
    await site.realm.until(lambda: site.endpoint()["ready"] and site.states()[-1] == "running")
    assert (site.machine.alive, "failed" in site.states()) == ([old], False)
    kill(site)


@pytest.mark.parametrize("how", ["dead", "rebooted", "asked", "ending"])
@in_virtual_time
async def test_what_an_earlier_agent_said_is_served_and_ended_with_it_is_withdrawn_at_once(how: str) -> None:
    site = Site(Realm())
    site.place(ENDS_WELL)
    site.start()
    await site.realm.until(lambda: site.endpoint() and site.endpoint()["ready"])
    (program,) = site.machine.alive
    if how in ("asked", "ending"):
        site.assign(site.spec_of(), version=2, restart=1)
        await asked_to_end(site)
        topic = site.slot.on("endpoint", site.node)
        assert site.bus is not None
        site.bus.emit(Draft(topic, site.realm.told(topic)[0]))  # as if its last word had come to nobody
    kill(site)
    site.checks.passed = False
    if how == "rebooted":
        site.machine.reboot()
    elif how != "ending":
        program.end(Exit(None, 9))
    site.start()
    await asyncio.sleep(1)
    assert not site.endpoint()["ready"]
    kill(site)


@pytest.mark.parametrize("watched", [False, True])
@in_virtual_time
async def test_what_is_not_live_begins_anew_where_its_agent_is_killed_while_it_ends(watched: bool) -> None:
    site = Site(Realm())
    site.place(ENDS_WELL)
    site.start()
    await site.realm.until(lambda: site.health() == "ready")
    site.checks.passed = False
    program = await asked_to_end(site)
    site.checks.passed = True
    failures = site.record().history.failures
    await ends_as_asked(program, watched=watched, site=site)
    await site.realm.until(lambda: len(site.machine.programs) == 2 and site.health() == "ready")
    assert site.record().history.failures == failures == 1
    assert not site.machine.copies
    kill(site)
