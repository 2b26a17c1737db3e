"""A stop by hand on the node itself: it lasts whatever comes, is told to all, and ends by a word about it alone (A24)."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dsmt.agents.rules.container import HELD, POKE
from dsmt.agents.rules.held_here import DAMAGED, dump_held, is_lifted, load_held
from dsmt.event.kinds.instance import HeldHere
from dsmt.event.kinds.slot import Hold, Previous, SlotControl
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft
from dsmt.ports.processes import Exit
from dsmt.simulator.engine.run import run

from .memory_bus import Realm
from .world import WEB, Site

STOP = HeldHere(id="aa", by="alice", at_ms=1_700_000_000_000, reason="disk smokes")


def play(scenario: Callable[[Site], Awaitable[None]]) -> None:
    async def main() -> None:
        site = Site(Realm())
        await scenario(site)
        if site.process is not None and site.process.alive:
            site.process.kill()

    run(main())


def hold(site: Site, held: HeldHere = STOP) -> None:
    site.files.below(site.slot.directory).write(HELD, dump_held(held))


def poke(site: Site) -> None:
    """What a command line does after it has changed the file."""
    assert site.process is not None
    site.process.send_signal(POKE)


def will(site: Site, version: int = 1, **about: object) -> None:
    told = SlotControl(by="op", **about)  # type: ignore[arg-type]
    site.spec_bus.emit(Draft(site.slot.control_topic, to_data(told), version=version))


def file_of(site: Site) -> bytes | None:
    return site.files.below(site.slot.directory).read(HELD)


async def held(site: Site, text: str = WEB) -> None:
    """It ran, and was stopped on its node."""
    site.place(text)
    site.start()
    await site.until("running")
    hold(site)
    poke(site)
    await site.until("stopped")


def test_it_is_stopped_and_told_who_did_it() -> None:
    async def main(site: Site) -> None:
        await held(site)
        told = site.statuses()[-1]
        assert not site.machine.alive
        assert told["held_here"] == to_data(STOP)
        assert (told["reason"]["code"], told["reason"]["who"]) == ("hold.local", "you")
        said = "stopped on n1 by alice at 2023-11-14T22:13:20.000Z, with --local: disk smokes"
        assert (told["reason"]["message"], told["reason"]["next"]) == (said, "dsmt start web/app/0")

    play(main)


@pytest.mark.parametrize("how", ["killed", "rebooted", "without a broker"])
def test_no_next_agent_starts_it(how: str) -> None:
    async def main(site: Site) -> None:
        await held(site)
        assert site.process is not None
        site.process.kill()
        if how == "rebooted":
            site.machine.boot = "another"
        if how == "without a broker":
            site.realm.up.clear()
        said = len(site.realm.log)
        site.start()
        await asyncio.sleep(300)
        assert len(site.machine.programs) == 1
        statuses = [s.event.data for s in site.realm.log[said:] if s.event.type == "dsmt.status"]
        assert statuses, "what was said last is said again"
        assert all(told["held_here"] == to_data(STOP) for told in statuses)

    play(main)


def test_no_fact_of_a_controller_starts_it() -> None:
    async def main(site: Site) -> None:
        await held(site)
        site.assign(site.spec_of(), version=2, restart=7)
        site.assign(site.spec(WEB.replace("forever", "for ever"), version=2), version=3)
        will(site, restart=7)
        await site.realm.until(lambda: site.statuses()[-1]["generation"] == 3)
        await asyncio.sleep(60)
        told = site.statuses()[-1]
        assert len(site.machine.programs) == 1
        assert (told["state"], told["held_here"]["id"], told["reason"]["code"]) == ("stopped", "aa", "hold.local")

    play(main)


def test_a_copy_that_is_kept_until_another_one_is_ready_is_stopped_too() -> None:
    async def main(site: Site) -> None:
        site.place(WEB)
        site.start()
        await site.until("running")
        site.assign(site.spec_of(), version=2, node="n2", previous=Previous(node="n1", generation=1, deadline_ms=2**47))
        hold(site)
        poke(site)
        await site.until("stopped")

    play(main)


def test_an_operators_word_that_names_it_starts_it_and_is_the_cause() -> None:
    async def main(site: Site) -> None:
        await held(site)
        will(site, lifts="another")
        await asyncio.sleep(30)
        assert not site.machine.alive
        assert file_of(site) is not None
        will(site, version=2, lifts="aa")
        await site.until("running")
        word = next(s for s in reversed(site.realm.log) if s.event.type == "dsmt.slot.control")
        runs = next(s for s in reversed(site.realm.log) if s.event.data.get("state") == "running")
        assert runs.event.cause == (word.id,)
        assert (runs.event.data["held_here"], runs.event.data["reason"]) == (None, None)
        assert file_of(site) is None

    play(main)


def test_a_word_that_came_while_nobody_was_there_counts() -> None:
    async def main(site: Site) -> None:
        await held(site)
        assert site.process is not None
        site.process.kill()
        will(site, lifts="aa")
        site.start()
        await site.until("running")

    play(main)


def test_a_word_about_an_earlier_stop_ends_no_later_one() -> None:
    async def main(site: Site) -> None:
        await held(site)
        will(site, lifts="aa")
        await site.until("running")
        hold(site, HeldHere(id="bb", by="bob", at_ms=1, reason=""))
        poke(site)
        await site.until("stopped")
        assert site.process is not None
        site.process.kill()
        site.start()
        await asyncio.sleep(60)
        assert not site.machine.alive

    play(main)


def test_it_is_started_on_its_node_where_its_file_is_removed() -> None:
    async def main(site: Site) -> None:
        await held(site)
        site.files.below(site.slot.directory).remove(HELD)
        poke(site)
        await site.until("running")
        assert site.statuses()[-1]["held_here"] is None

    play(main)


def test_what_is_parked_is_held_and_tried_no_more() -> None:
    async def main(site: Site) -> None:
        site.machine.steps["set"] = Exit(1, None)
        site.place(WEB + "    install: set it\n")
        site.start()
        await site.until("failed")
        hold(site)
        poke(site)
        await site.until("stopped")
        tried = len(site.statuses())
        await asyncio.sleep(300)
        assert len(site.statuses()) == tried

    play(main)


def test_what_has_ended_by_itself_has_still_ended_while_it_is_held_and_when_it_is_let_go() -> None:
    """It was said to be stopped for good, and a drain ran it a second time."""

    async def main(site: Site) -> None:
        site.place(WEB + "    restart: never\n")
        site.start()
        await site.until("running")
        await asyncio.sleep(60)
        site.machine.alive[0].end(Exit(0, None))
        await site.until("failed")
        hold(site)
        poke(site)
        await site.realm.until(lambda: site.statuses()[-1].get("held_here") is not None, 5)
        told = site.statuses()[-1]
        assert (told["state"], told["reason"]["code"], told["held_here"]["id"]) == ("failed", "run.exited", "aa")
        site.files.below(site.slot.directory).remove(HELD)
        poke(site)
        await site.realm.until(lambda: site.statuses()[-1].get("held_here") is None, 5)
        told = site.statuses()[-1]
        assert (told["state"], told["reason"]["code"]) == ("failed", "run.exited")
        await asyncio.sleep(600)
        assert not site.machine.alive

    play(main)


def test_an_installation_that_is_under_way_is_let_go() -> None:
    async def main(site: Site) -> None:
        site.machine.preparing_s = 1000.0
        site.place(WEB)
        site.start()
        await site.realm.until(lambda: site.machine.prepared)
        hold(site)
        poke(site)
        await site.realm.until(lambda: site.state() == "stopped", 5)
        await asyncio.sleep(2000)
        assert not site.machine.programs

    play(main)


def test_what_a_controller_stopped_as_well_stays_stopped_when_it_is_let_go_here() -> None:
    async def main(site: Site) -> None:
        await held(site)
        site.assign(site.spec_of(), version=2, desired="stopped")
        await site.realm.until(lambda: site.statuses()[-1]["generation"] == 2)
        will(site, hold=Hold(by="op", at_ms=1, reason=""), lifts="aa")
        await site.realm.until(lambda: site.statuses()[-1]["held_here"] is None)
        await asyncio.sleep(60)
        assert not site.machine.alive

    play(main)


def test_what_leaves_its_node_is_gone_and_so_is_the_stop() -> None:
    async def main(site: Site) -> None:
        await held(site)
        site.assign(site.spec_of(), version=2, node="n2")
        await site.until("gone")

    play(main)


def test_a_damaged_file_holds_and_may_be_lifted() -> None:
    assert load_held(None) is None
    assert load_held(b"{") is DAMAGED
    assert load_held(dump_held(STOP)) == STOP
    assert is_lifted(DAMAGED, SlotControl(lifts="damaged"))
    assert not is_lifted(STOP, SlotControl())
    assert not is_lifted(STOP, None)
