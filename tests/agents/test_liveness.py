"""Instances that are not live are restarted one at a time where they fail the same check; none waits that is alone."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from dsmt.agents.instance.taking_turns import LOOK_S, SETTLE_S, its_turn
from dsmt.agents.rules.taking_turns import Turn, start_s_of, turn
from dsmt.event.kinds.instance import Health
from dsmt.event.records import to_data
from dsmt.event.slots import SlotKey
from dsmt.ports.bus import Arrived, Complete, Cursor, Draft, Interest
from dsmt.spec.parsing import parse
from tests.loops import in_virtual_time

from .memory_bus import Bus, Realm
from .sights import CHECKED
from .world import WEB, Site, node_config

FIRST_MS = 1_700_000_000_000
STARTS_S = 30.0


def health(
    word: str = "unready", *, check: str = "http", failures: int = 3, since_s: float = 0.0, generation: int = 1
) -> Health:
    since_ms = FIRST_MS + round(since_s * 1000)
    return Health(health=word, generation=generation, check=check, evidence="", failures=failures, since_ms=since_ms)


GONE = health(check="none", failures=0, since_s=-STARTS_S - 0.001)


@pytest.mark.parametrize(
    ("siblings", "found"),
    [
        ({}, Turn(1, 1, 0)),
        ({"0": health("ready")}, Turn(1, 2, 0)),
        ({"0": health(), "4": health()}, Turn(3, 3, 1)),
        ({"10": health(), "1": health(), "2": health()}, Turn(3, 3, 1)),
        ({"0": health(check="tcp")}, Turn(1, 2, 0)),
        ({"4": health(check="none", failures=0)}, Turn(2, 2, 1)),
        ({"4": health(check="none", failures=0, since_s=-STARTS_S)}, Turn(2, 2, 1)),
        ({"4": GONE}, Turn(1, 1, 0)),
        ({"0": health(), "1": health("ready"), "3": GONE, "4": GONE}, Turn(2, 3, 1)),
    ],
)
def test_before_it_come_those_of_a_lower_index_and_whoever_is_being_started(
    siblings: dict[str, Health], found: Turn
) -> None:
    assert turn("2", "http", siblings, now_ms=FIRST_MS, start_s=STARTS_S) == found


def test_a_restart_takes_as_long_as_its_end_and_its_check_have_or_as_it_must_live() -> None:
    def component(text: str):
        return parse(f"service: s\ncomponents:\n  c:\n    run: x\n    ports: {{http: auto}}\n{text}", file="t")[
            0
        ].components["c"]

    assert start_s_of(component("    health: {startup: {tcp: {port: http}, deadline: 40s}}\n")) == 10 + 40
    assert start_s_of(component("    stop: {grace: 3s, delay: 2s}\n    update: {healthy_after: 7s}\n")) == 3 + 2 + 7
    asked = "    stop: {grace: 3s, delay: 2s, command: ./stop}\n    update: {healthy_after: 7s}\n"
    assert start_s_of(component(asked)) == 3 + 3 + 2 + 7


def three(realm: Realm, text: str = CHECKED) -> list[Site]:
    """Three instances of a component, each on a node of its own."""
    sites = [Site(realm, f"n{n}", SlotKey("web", "app", n)) for n in range(3)]
    spec = sites[0].spec(text)
    for site in sites:
        site.assign(spec)
        site.start()
    return sites


async def failing(realm: Realm, text: str = CHECKED, *, first: int = 0) -> list[Site]:
    """The same, which were ready, and whose checks fail now from one of them on."""
    sites = three(realm, text)
    await realm.until(lambda: all(site.health() == "ready" for site in sites))
    for site in sites[first:]:
        site.checks.passed = False
    return sites


def restarts(site: Site) -> int:
    return len(site.machine.programs) - 1


def reasons(site: Site) -> list[str]:
    told = site.realm.told(site.slot.on("health", site.node))
    return [one["reason"]["code"] for one in told if one.get("reason")]


async def end(sites: list[Site]) -> None:
    for site in sites:
        if site.process is not None:
            site.process.kill()


@in_virtual_time
async def test_of_three_that_fail_the_same_check_one_at_a_time_is_restarted_and_that_is_told() -> None:
    realm = Realm()
    sites = await failing(realm)
    await realm.until(lambda: restarts(sites[0]) == 1)
    assert [restarts(site) for site in sites] == [1, 0, 0]
    await realm.until(lambda: [reasons(site)[-1:] for site in sites[1:]] == [["health.braked"], ["health.braked"]])
    told = realm.told(sites[1].slot.on("health", "n1"))[-1]
    assert told["reason"]["message"] == "3 of 3 fail the same check; restarting one at a time"
    assert (sites[1].state(), sites[1].health()) == ("running", "unready")
    sites[0].checks.passed = True
    await realm.until(lambda: sites[0].health() == "ready")
    await realm.until(lambda: restarts(sites[1]) == 1, within=30)
    assert restarts(sites[2]) == 0
    sites[1].checks.passed = True
    await realm.until(lambda: restarts(sites[2]) == 1, within=30)
    assert [restarts(site) for site in sites] == [1, 1, 1]
    await end(sites)


OTHERWISE = CHECKED.replace("{http: {port: http, path: /}}", "{readiness: {http: {path: /r}}, liveness: {http: {path: /l}}}")


@pytest.mark.parametrize("fails", [["/r"], ["/r", "/l"]], ids=["only unready", "not live either"])
@in_virtual_time
async def test_who_is_only_unready_by_another_check_is_not_waited_for_by_what_is_not_live(fails: list[str]) -> None:
    realm = Realm()
    sites = three(realm, OTHERWISE)
    await realm.until(lambda: all(site.health() == "ready" for site in sites))
    for site, those in zip(sites, (fails, [], ["/r", "/l"]), strict=True):
        site.checks.failing = those
    await realm.until(lambda: restarts(sites[2]) == 1 or reasons(sites[2])[-1:] == ["health.braked"])
    assert restarts(sites[2]) == (fails == ["/r"])
    await end(sites)


@in_virtual_time
async def test_whose_check_passes_before_its_turn_is_not_restarted() -> None:
    realm = Realm()
    sites = await failing(realm, first=1)
    await realm.until(lambda: restarts(sites[1]) == 1 and reasons(sites[2])[-1] == "health.braked")
    told = realm.told(sites[2].slot.on("health", "n2"))[-1]
    assert told["reason"]["message"].startswith("2 of 3 fail the same check")
    for site in sites:
        site.checks.passed = True
    await realm.until(lambda: all(site.health() == "ready" for site in sites))
    assert [restarts(site) for site in sites] == [0, 1, 0]
    await end(sites)


@in_virtual_time
async def test_where_none_comes_up_again_each_is_restarted_when_those_before_it_could_have_been_started() -> None:
    realm = Realm()
    sites = await failing(realm)
    await realm.until(lambda: restarts(sites[0]) >= 1)
    await realm.until(lambda: restarts(sites[1]) >= 1, within=70 + 10)
    await asyncio.sleep(60)
    assert restarts(sites[2]) == 0, "two were before it"
    await realm.until(lambda: restarts(sites[2]) >= 1, within=20)
    await end(sites)


@in_virtual_time
async def test_who_fails_while_one_of_a_higher_index_that_failed_too_is_started_again_waits_for_it() -> None:
    realm = Realm()
    sites = await failing(realm, first=2)
    await realm.until(lambda: restarts(sites[2]) == 1, within=60)
    sites[0].checks.passed = False
    await realm.until(lambda: reasons(sites[0])[-1:] == ["health.braked"], within=50)
    assert restarts(sites[0]) == 0
    sites[2].checks.passed = True
    await realm.until(lambda: restarts(sites[0]) == 1, within=30)
    await end(sites)


FALLS_AGAIN = WEB + (
    "    health: {startup: {http: {port: http, path: /}, interval: 1s, deadline: 60s},"
    " liveness: {http: {port: http, path: /}, interval: 2s, failures: 1, timeout: 5s}}\n"
)


@in_virtual_time
async def test_who_is_tried_once_more_waits_on_where_another_is_restarted_meanwhile() -> None:
    realm = Realm()
    sites = await failing(realm, FALLS_AGAIN)
    await realm.until(lambda: restarts(sites[0]) == 1)
    sites[0].checks.passed = True
    await realm.until(lambda: sites[0].health() == "ready")
    sites[0].checks.passed = False
    await realm.until(lambda: restarts(sites[0]) == 2, within=4)
    await asyncio.sleep(15)
    assert (sites[0].health(), restarts(sites[1])) == ("unready", 0)
    sites[0].checks.passed = True
    await realm.until(lambda: restarts(sites[1]) == 1, within=15)
    assert (sites[0].health(), restarts(sites[2])) == ("ready", 0)
    await end(sites)


HANGS = WEB.replace("sleep forever", "stubborn") + (
    "    health: {startup: {http: {port: http, path: /}, deadline: 5s},"
    " liveness: {http: {port: http, path: /}, interval: 2s, failures: 1, timeout: 1s}}\n"
)


@pytest.mark.parametrize(
    ("stop", "ends_s"),
    [("", 10), ("    stop: {grace: 60s}\n", 60), ("    stop: {delay: 40s}\n", 50)],
)
@in_virtual_time
async def test_who_takes_its_time_to_end_is_waited_for_until_it_is_started_again(stop: str, ends_s: int) -> None:
    realm = Realm()
    sites = await failing(realm, HANGS + stop)
    for site, after in pairwise(sites):
        await realm.until(lambda site=site: restarts(site) == 1, within=ends_s + 10)
        assert (restarts(after), after.machine.alive[0].signals) == (0, [])
        site.checks.passed = True
        await realm.until(lambda site=site: site.health() == "ready")
    await end(sites)


@in_virtual_time
async def test_whoever_falls_again_is_waited_for_no_longer_than_its_first_start_might_have_taken() -> None:
    realm = Realm()
    sites = await failing(realm, FALLS_AGAIN)
    loop = asyncio.get_running_loop()
    await realm.until(lambda: reasons(sites[1])[-1:] == ["health.braked"])
    began = loop.time()
    sites[0].checks.passed = True
    await realm.until(lambda: sites[0].health() == "ready")
    sites[0].checks.passed = False
    await realm.until(lambda: restarts(sites[1]) == 1, within=100)
    assert 70 <= loop.time() - began <= 70 + LOOK_S + 7 + 1
    await end(sites)


@in_virtual_time
async def test_who_is_ended_while_its_check_fails_says_that_it_fails_no_more() -> None:
    realm = Realm()
    sites = await failing(realm, first=1)
    await realm.until(lambda: restarts(sites[1]) == 1, within=60)
    assert realm.told(sites[1].slot.on("health", "n1"))[-1]["failures"] == 0
    await end(sites)


@in_virtual_time
async def test_of_an_instance_on_two_nodes_its_newest_generation_counts() -> None:
    realm = Realm()
    site = Site(realm, "n9", SlotKey("web", "app", 1))
    for node, said in (("n2", health("ready", generation=2)), ("n1", health(generation=1))):
        bus = Bus(realm, f"agent/{node}/web/app/0")
        bus.emit(Draft(f"service/web/health/app/0/{node}", to_data(said)))
    config, waited = node_config("n9").for_agent(site.slot), list[Turn]()
    bus = Bus(realm, "agent/n9/web/app/1")
    await its_turn(config, bus, check="http", start_s=STARTS_S, try_s=1.0, waits=waited.append)
    assert waited == []


@pytest.mark.parametrize("away", [True, False])
@in_virtual_time
async def test_who_is_alone_or_cannot_look_is_restarted_at_once(away: bool) -> None:
    realm = Realm()
    sites = await failing(realm, first=0 if away else 2)
    last = sites[2]
    if away:
        realm.up.clear()
    checked = last.checks.count
    await realm.until(lambda: last.checks.count - checked == 6, within=60)
    await realm.until(lambda: restarts(last) == 1, within=0.5)
    realm.up.set()
    await end(sites)


class Slow(Bus):
    """Gives what its siblings say in parts, a second and a half apart, or nothing at all; `ends` says that it was all."""

    def __init__(self, realm: Realm, parts: int, *, ends: bool = True) -> None:
        super().__init__(realm, "agent/n9/web/app/5")
        self._parts, self._ends = parts, ends

    @asynccontextmanager
    async def subscribe(self, interest: Interest) -> Any:
        async def batches() -> Any:
            for n in range(self._parts):
                await asyncio.sleep(1.5)
                signed = self.seal(Draft(f"service/web/health/app/{n}/n{n}", to_data(health())))
                yield [Arrived(signed, 1, live=False)]
            if self._parts and self._ends:
                yield [Complete(Cursor("s", 1, 0), whole=True)]
            await asyncio.sleep(1e6)

        yield batches()


@pytest.mark.parametrize(("parts", "found"), [(0, []), (4, [Turn(5, 5, 4)])])
@in_virtual_time
async def test_a_broker_that_says_nothing_is_not_waited_for_and_one_that_is_slow_is(parts: int, found: list[Turn]) -> None:
    config, waited = node_config("n9").for_agent(SlotKey("web", "app", 5)), list[Turn]()
    bus, loop = Slow(Realm(), parts), asyncio.get_running_loop()
    began = loop.time()
    await its_turn(config, bus, check="http", start_s=STARTS_S, try_s=1.0, waits=waited.append)
    assert waited == found
    took = loop.time() - began
    assert took == LOOK_S if not parts else parts * STARTS_S < took <= (parts + 1) * (STARTS_S + LOOK_S)


@in_virtual_time
async def test_a_broker_that_falls_silent_before_it_has_told_all_is_not_waited_for() -> None:
    config, waited = node_config("n9").for_agent(SlotKey("web", "app", 5)), list[Turn]()
    bus, loop = Slow(Realm(), 2, ends=False), asyncio.get_running_loop()
    began = loop.time()
    await its_turn(config, bus, check="http", start_s=STARTS_S, try_s=1.0, waits=waited.append)
    assert waited == []
    assert loop.time() - began == 2 * 1.5 + LOOK_S


class Late(Bus):
    """Says of a sibling that it is ready, and a moment later that it is not."""

    def __init__(self, realm: Realm, index: str, after_s: float) -> None:
        super().__init__(realm, "agent/n9/web/app/5")
        self._topic, self._after_s = f"service/web/health/app/{index}/n0", after_s

    @asynccontextmanager
    async def subscribe(self, interest: Interest) -> Any:
        def said(health: Health) -> Arrived:
            return Arrived(self.seal(Draft(self._topic, to_data(health))), 1, live=False)

        async def batches() -> Any:
            yield [said(health("ready")), Complete(Cursor("s", 1, 0), whole=True)]
            await asyncio.sleep(self._after_s)
            yield [said(health())]
            await asyncio.sleep(self._after_s)
            yield [said(health("ready"))]
            await asyncio.sleep(1e6)

        yield batches()


@pytest.mark.parametrize(
    ("index", "after_s", "found"),
    [("0", SETTLE_S * 0.9, [Turn(2, 2, 1)]), ("0", SETTLE_S * 1.1, []), ("9", SETTLE_S * 0.9, [])],
    ids=["in time", "too late", "of a higher index"],
)
@in_virtual_time
async def test_who_turned_at_the_same_moment_is_heard_of_before_anybody_is_restarted(
    index: str, after_s: float, found: list[Turn]
) -> None:
    config, waited = node_config("n9").for_agent(SlotKey("web", "app", 5)), list[Turn]()
    bus, loop = Late(Realm(), index, after_s), asyncio.get_running_loop()
    began = loop.time()
    await its_turn(config, bus, check="http", start_s=STARTS_S, try_s=1.0, waits=waited.append)
    assert waited[:1] == found
    assert (loop.time() - began < 2 * SETTLE_S) == (not found)


@in_virtual_time
async def test_where_only_liveness_is_checked_what_is_not_live_is_served_no_more_while_it_waits() -> None:
    realm = Realm()
    check = "{http: {port: http, path: /}"
    sites = await failing(realm, WEB + f"    health: {{startup: {check}}}, liveness: {check}, interval: 1s}}}}\n")
    await realm.until(lambda: reasons(sites[2])[-1:] == ["health.braked"])
    endpoint = sites[2].endpoint()
    assert not endpoint["ready"]
    sites[2].checks.passed = True
    await realm.until(lambda: sites[2].health() == "ready" and sites[2].endpoint()["ready"])
    assert restarts(sites[2]) == 0
    await end(sites)
