"""What has ended well is not run again where a later revision was tried after it, and refused (A20)."""

from __future__ import annotations

import asyncio

import pytest

from dsmt.event.kinds.slot import Ended, Good
from dsmt.ports.processes import Exit

from .sights import command
from .test_ended_programs import NEVER, ended, on_site
from .world import Site

ALONE = NEVER + "    update: {order: stop_first}\n"


async def refused(site: Site, fails: str) -> None:
    """Another revision fails, and is gone back from."""
    first = site.spec_of()
    if fails == "install":
        site.machine.steps["prepare"] = Exit(1, None)
        second = site.spec(NEVER + "    install: prepare it\n", version=2)
    else:
        second = site.spec(NEVER.replace("forever", "longer"), version=2)
    site.assign(second, version=2)
    await site.realm.until(lambda: site.statuses()[-1]["generation"] == 2)
    if fails == "program":
        await site.until("running")
        site.machine.alive[0].end(Exit(1, None))
    await site.until("failed")
    site.assign(first, version=3, refuses=Good(spec=str(second.id), revision=2))
    await site.realm.until(lambda: site.statuses()[-1]["generation"] == 3)


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("fails", ["install", "program"])
def test_what_had_ended_well_before_what_was_refused_stays_ended(fails: str, away: bool) -> None:
    async def test(site: Site) -> None:
        await ended(site, NEVER)
        last = site.statuses()[-1]["last_exit"]
        ran = len(site.machine.programs) + 1  # of the other one, or its installation
        await refused(site, fails)
        if away:
            assert site.process is not None
            site.process.kill()
            site.start()
        await site.realm.until(lambda: site.statuses()[-1]["state"] == "failed")
        said = site.statuses()[-1]
        assert len(site.machine.programs) == ran
        assert (said["last_exit"]["code"], said["last_exit"]["at_ms"], said["revision"]) == (0, last["at_ms"], 1)
        assert said["good"]["revision"] == 1

    on_site(test)


@pytest.mark.parametrize("asked", ["restart", "retry"])
def test_it_runs_again_when_that_is_asked_for_and_what_becomes_of_it_then_is_what_counts(asked: str) -> None:
    async def test(site: Site) -> None:
        await ended(site, NEVER)
        first = site.spec_of()
        await refused(site, "program")
        ran = len(site.machine.programs)
        refuses = Good(spec="operator/x#1-2", revision=2)
        if asked == "restart":
            site.assign(first, version=4, restart=1, refuses=refuses)
        else:
            command(site, "RETRY", generation=3)
        await site.until("running")
        assert len(site.machine.programs) == ran + 1
        site.machine.alive[0].end(Exit(1, None))
        await site.until("failed")
        site.assign(first, version=5, restart=int(asked == "restart"), refuses=refuses, moves=1)
        await site.realm.until(lambda: site.statuses()[-1]["generation"] == 5)
        assert site.statuses()[-1]["last_exit"]["code"] == 1

    on_site(test)


@pytest.mark.parametrize("told", [False, True], ids=["", "which its slot's fact says"])
def test_how_it_ended_long_before_says_nothing_of_a_run_that_was_begun_since_and_was_interrupted(told: bool) -> None:
    """The first revision has ended; it is applied again after another one, runs, and the next one is tried meanwhile.

    A controller that knows how the program had ended in the first cannot tell that it is the same one.
    """

    async def test(site: Site) -> None:
        await ended(site, ALONE)
        last = site.statuses()[-1]["last_exit"]
        other = site.spec(ALONE.replace("forever", "a while"), version=2)
        site.assign(other, version=2)
        await site.until("running")
        site.machine.alive[-1].end(Exit(1, None))
        await site.until("failed")
        await asyncio.sleep(60)
        again = site.spec(ALONE, version=3)
        site.assign(again, version=3)
        await site.realm.until(lambda: site.statuses()[-1]["generation"] == 3 and site.state() == "running")
        await asyncio.sleep(60)
        worse = site.spec(ALONE.replace("forever", "never"), version=4)
        site.assign(worse, version=4)
        await site.realm.until(lambda: site.statuses()[-1]["generation"] == 4 and site.state() == "running")
        site.machine.alive[-1].end(Exit(1, None))
        await site.until("failed")
        ran = len(site.machine.programs)
        before = Ended(at_ms=last["at_ms"], ran_s=last["ran_s"]) if told else None
        site.assign(again, version=5, refuses=Good(spec=str(worse.id), revision=4), ended=before)
        await site.realm.until(lambda: site.statuses()[-1]["generation"] == 5 and site.state() == "running")
        assert len(site.machine.programs) == ran + 1

    on_site(test)
