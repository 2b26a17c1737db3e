"""A program that has ended and is not to be run again: it stays so until something else is wanted (A20)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dsmt.agents.rules.container import RECORD
from dsmt.agents.rules.record import dump_record, remembered
from dsmt.event.kinds.slot import Ended
from dsmt.ports.processes import Exit
from dsmt.simulator.engine.run import run

from .memory_bus import Realm
from .sights import FAILS, command
from .world import WEB, Site

NEVER = WEB + "    restart: never\n"
ON_FAILURE = WEB + "    restart: on_failure\n"


def on_site(test: Callable[[Site], Awaitable[None]]) -> None:
    """Run a test in virtual time on a site of its own, whose agent is ended with it."""

    async def main() -> None:
        site = Site(Realm())
        try:
            await test(site)
        finally:
            if site.process is not None:
                site.process.kill()

    run(main())


async def ended(site: Site, text: str, code: int = 0) -> None:
    """It has run once, and ended."""
    site.place(text)
    site.start()
    await site.until("running")
    site.machine.alive[0].end(Exit(code, None))
    await site.until("failed")


@pytest.mark.parametrize(("text", "code"), [(NEVER, 0), (NEVER, 3), (ON_FAILURE, 0)])
@pytest.mark.parametrize("away", [False, True])
def test_what_has_ended_stays_so_in_a_generation_that_asks_for_nothing_new(text: str, code: int, away: bool) -> None:
    async def test(site: Site) -> None:
        await ended(site, text, code)
        assert site.process is not None
        if away:
            site.process.kill()
        site.assign(site.spec(text.replace("components:", "labels: {a: b}\ncomponents:"), version=2), version=2)
        if away:
            site.start()
        await site.realm.until(lambda: site.statuses()[-1]["generation"] == 2)
        await asyncio.sleep(60)
        last = site.statuses()[-1]
        assert len(site.machine.programs) == 1
        assert (last["state"], last["revision"], last["reason"]["next"]) == ("failed", 2, "dsmt retry web/app/0")
        assert last["last_exit"]["code"] == code

    on_site(test)


@pytest.mark.parametrize("text", [NEVER, ON_FAILURE])
def test_what_ended_while_nobody_heard_it_is_said_at_once_by_the_next_agent(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own agent had said so to nobody, and is dead."""

    async def test(site: Site) -> None:
        site.place(text)
        site.start()
        await site.until("running")
        assert site.process is not None
        with monkeypatch.context() as away:
            away.setattr(site.realm, "publish", lambda _: None)
            site.machine.alive[0].end(Exit(0, None))
            await asyncio.sleep(1)
            assert site.record().finished
            site.process.kill()
        assert site.state() == "running"
        site.start()
        await site.until("failed", within=1.0)
        assert site.statuses()[-1]["last_exit"]["code"] == 0
        assert len(site.machine.programs) == 1

    on_site(test)


def test_what_ends_with_0_after_a_failure_is_not_run_again() -> None:
    async def test(site: Site) -> None:
        await ended(site, ON_FAILURE, code=1)
        await site.until("running")
        site.machine.alive[0].end(Exit(0, None))
        await site.until("failed")
        await asyncio.sleep(60)
        assert (len(site.machine.programs), site.state()) == (2, "failed")

    on_site(test)


def test_what_has_ended_while_nobody_saw_how_stays_so_too() -> None:
    async def test(site: Site) -> None:
        site.place(NEVER)
        site.start()
        await site.until("running")
        assert site.process is not None
        site.process.kill()
        site.machine.alive[0].end(Exit(None, None))
        site.start()
        await site.until("failed")
        site.assign(site.spec(NEVER.replace("components:", "labels: {a: b}\ncomponents:"), version=2), version=2)
        await site.realm.until(lambda: site.statuses()[-1]["generation"] == 2)
        await asyncio.sleep(60)
        assert (len(site.machine.programs), site.state()) == (1, "failed")

    on_site(test)


CHECK = "    health: {http: {port: http, path: /}}\n"


@pytest.mark.parametrize(
    ("healthy_s", "code", "check", "was_good"),
    [(1, 0, "", True), (1, 3, "", True), (100, 0, "", True), (100, 3, "", False), (100, 0, CHECK, True)],
)
def test_what_asks_for_nothing_new_is_good_where_what_has_ended_was(
    healthy_s: int, code: int, check: str, was_good: bool
) -> None:
    text = NEVER + check + f"    update: {{healthy_after: {healthy_s}s}}\n"

    async def test(site: Site) -> None:
        site.place(text)
        site.start()
        await site.until("running")
        await asyncio.sleep(10)
        site.machine.alive[0].end(Exit(code, None))
        await site.until("failed")
        for version in (2, 3):
            other = text.replace("components:", f"labels: {{a: b{version}}}\ncomponents:")
            fact = site.assign(site.spec(other, version=version), version=version)
            await site.realm.until(lambda version=version: site.statuses()[-1]["generation"] == version)
            good = site.statuses()[-1].get("good")
            named = fact.event.data["spec"]
            assert good == ({"spec": named, "revision": version} if was_good else None)

    on_site(test)


@pytest.mark.parametrize(("code", "left"), [(0, 0), (3, 1)])
def test_the_copy_before_ends_when_what_follows_it_has_run_and_ended_well_before_it_was_ready(code: int, left: int) -> None:
    async def test(site: Site) -> None:
        site.place(NEVER)
        site.start()
        await site.until("running")
        await asyncio.sleep(20)
        site.assign(site.spec(NEVER.replace("forever", "shortly"), version=2), version=2)
        await site.realm.until(lambda: len(site.machine.alive) == 2)
        site.machine.alive[1].end(Exit(code, None))
        await asyncio.sleep(60)
        assert (len(site.machine.programs), len(site.machine.alive), site.state()) == (2, left, "failed")

    on_site(test)


def test_the_copy_before_ends_when_what_follows_it_ends_well_while_readers_follow_to_it() -> None:
    async def test(site: Site) -> None:
        site.place(NEVER)
        site.start()
        await site.until("running")
        await asyncio.sleep(20)
        site.assign(site.spec(NEVER.replace("forever", "shortly"), version=2), version=2)
        await site.realm.until(lambda: len(site.machine.alive) == 2)
        await asyncio.sleep(10.3)
        assert (site.endpoint()["generation"], len(site.machine.alive)) == (2, 2)
        site.machine.alive[1].end(Exit(3, None))
        await asyncio.sleep(60)
        assert (site.machine.alive, site.state()) == ([], "failed")

    on_site(test)


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize(
    ("about", "code", "good"),
    [
        ("restart: never", 0, True),
        ("restart: on_failure", 0, True),
        ("restart: never", 3, False),
        ("restart: never\n    health: {tcp: {port: http}}", 0, False),
    ],
)
def test_what_was_to_end_and_has_ended_well_is_good_however_soon(about: str, code: int, good: bool, away: bool) -> None:
    async def test(site: Site) -> None:
        site.place(f"{WEB}    {about}\n")
        site.start()
        await site.until("instantiated" if "health" in about else "running")
        assert site.process is not None
        if away:
            site.process.kill()
        site.machine.alive[0].end(Exit(code, None))
        if away:
            site.start()
        await site.until("failed")
        said = site.statuses()[-1].get("good")
        assert (said is not None and said["revision"] == 1) is good

    on_site(test)


def restarted(site: Site) -> None:
    site.assign(site.spec_of(), version=2, restart=1)


def changed(site: Site) -> None:
    site.assign(site.spec(ON_FAILURE.replace("forever", "longer"), version=2), version=2)


def to_run_always(site: Site) -> None:
    site.assign(site.spec(WEB, version=2), version=2)


def retried(site: Site) -> None:
    command(site, "RETRY")


@pytest.mark.parametrize("asked", [restarted, changed, to_run_always, retried])
def test_it_runs_again_when_something_else_is_asked_for(asked: Callable[[Site], None]) -> None:
    async def test(site: Site) -> None:
        await ended(site, ON_FAILURE)
        asked(site)
        await site.until("running")
        assert len(site.machine.programs) == 2

    on_site(test)


def test_it_runs_again_when_it_was_stopped_and_is_started() -> None:
    async def test(site: Site) -> None:
        await ended(site, ON_FAILURE)
        site.assign(site.spec_of(), version=2, desired="stopped")
        await site.realm.until(lambda: site.statuses()[-1]["generation"] == 2)
        site.assign(site.spec_of(), version=3)
        await site.until("running")

    on_site(test)


def test_what_could_not_be_installed_is_tried_in_the_next_generation() -> None:
    async def test(site: Site) -> None:
        site.machine.steps["prepare"] = Exit(1, None)
        site.place(NEVER + "    install: prepare it\n")
        site.start()
        await site.until("failed")
        await asyncio.sleep(60)
        assert site.state() == "failed"
        site.machine.steps["prepare"] = Exit(0, None)
        site.assign(site.spec_of(), version=2)
        await site.until("running")

    on_site(test)


@pytest.mark.parametrize("how", ["is taken down and up", "is cleared away", "reboots"])
@pytest.mark.parametrize(("text", "code"), [(ON_FAILURE, 0), (NEVER, 0), (NEVER, 3)])
def test_what_has_ended_well_stays_so_when_its_node(how: str, text: str, code: int) -> None:
    async def test(site: Site) -> None:
        await ended(site, text, code)
        assert site.process is not None
        assert site.last is not None
        site.process.call_soon(site.last.shutdown)
        await site.process.wait()
        assert site.state() == "failed"
        if how == "is cleared away":
            kept = remembered(site.record())
            files = site.files.below(site.slot.directory)
            for name in files.names(""):
                files.remove(name)
            if kept is not None:
                files.write(RECORD, dump_record(kept))
        elif how == "reboots":
            site.machine.boot = "another"
        site.assign(site.spec_of())
        site.start()
        await asyncio.sleep(60)
        is_tried_anew = code == 3 and how != "is taken down and up"
        assert len(site.machine.programs) == (2 if is_tried_anew else 1)
        assert site.state() == ("running" if is_tried_anew else "failed")
        if how == "is cleared away" and code == 0:
            last = site.statuses()[-1]
            assert (last["state"], last["last_exit"]["code"], last["good"]["revision"]) == ("failed", 0, 1)

    on_site(test)


def test_what_is_parked_is_so_when_its_agent_was_told_to_end() -> None:
    async def test(site: Site) -> None:
        site.machine.steps["false"] = Exit(1, None)
        site.place(FAILS)
        site.start()
        await site.realm.until(lambda: bool(site.statuses()) and site.statuses()[-1]["parked"])
        assert site.process is not None
        assert site.last is not None
        site.process.call_soon(site.last.shutdown)
        await site.process.wait()
        site.start()
        await asyncio.sleep(5)
        assert (site.state(), site.statuses()[-1]["parked"]) == ("failed", True)

    on_site(test)


def test_what_was_to_be_tried_again_is_stopped_when_its_agent_was_told_to_end() -> None:
    async def test(site: Site) -> None:
        await ended(site, WEB + "    restart: {first: 60s, cap: 60s}\n", 3)
        assert site.process is not None
        assert site.last is not None
        site.process.call_soon(site.last.shutdown)
        await site.process.wait()
        assert site.state() == "stopped"

    on_site(test)


def test_what_has_ended_well_elsewhere_is_not_run_again_until_that_is_asked_for() -> None:
    async def test(site: Site) -> None:
        site.assign(site.spec(ON_FAILURE), version=1, ended=Ended(at_ms=5, ran_s=2.0))
        site.start()
        await site.until("failed")
        await asyncio.sleep(60)
        last = site.statuses()[-1]
        assert not site.machine.programs
        assert (last["last_exit"]["code"], last["last_exit"]["at_ms"], last["good"]["revision"]) == (0, 5, 1)
        assert (last["generation"], last["next_try_ms"], last["reason"]["next"]) == (1, None, "dsmt retry web/app/0")
        command(site, "RETRY")
        await site.until("running")

    on_site(test)


def test_what_runs_is_judged_by_the_restart_policy_of_the_generation_that_took_it_over() -> None:
    async def test(site: Site) -> None:
        site.place(WEB)
        site.start()
        await site.realm.until(lambda: site.health() == "none")
        (program,) = site.machine.alive
        site.assign(site.spec(NEVER, version=2), version=2)
        await site.realm.until(lambda: site.statuses()[-1]["generation"] == 2)
        assert site.machine.alive == [program]
        program.end(Exit(1, None))
        await site.until("failed")
        await asyncio.sleep(60)
        assert len(site.machine.programs) == 1

    on_site(test)


def test_a_program_that_was_to_end_and_ended_well_while_no_agent_lived_is_not_run_again() -> None:
    async def test(site: Site) -> None:
        site.place(ON_FAILURE)
        site.start()
        await site.until("running")
        assert site.process is not None
        site.process.kill()
        site.machine.alive[0].end(Exit(0, None))
        site.start()
        await site.until("failed")
        await asyncio.sleep(60)
        assert len(site.machine.programs) == 1

    on_site(test)


@pytest.mark.parametrize("moment", range(1, 12))
def test_what_has_ended_well_elsewhere_is_said_here_though_its_agent_is_killed_at_any_write(moment: int) -> None:
    async def test(site: Site) -> None:
        site.start()
        site.machine.moment.left = moment
        site.assign(site.spec(NEVER), version=1, ended=Ended(at_ms=5, ran_s=2.0))
        for _ in range(40):
            await asyncio.sleep(0.05)
            if not site.process.alive:
                site.machine.moment.left = 0
                site.start()
        await asyncio.sleep(60)
        assert (site.state(), len(site.machine.programs)) == ("failed", 0)

    on_site(test)
