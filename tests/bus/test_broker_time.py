"""A broker's realm time: pulled slowly, stepped by an operator's word alone, and kept over restarts (rule J4)."""

from __future__ import annotations

import time as wallclock
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.bus.broker import timekeeping
from dsmt.bus.broker.timekeeping import Timekeeper
from dsmt.bus.broker.wholeness import EARLY_S
from dsmt.bus.rules.broker_time import BrokerTime
from dsmt.event.hlc import FAR_MS, PULL
from dsmt.event.kinds.realm import ClockWord
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft, Start
from dsmt.ports.store import StoreFullError
from tests.bus.realm import TestClock, TestRealm, reading, scenario
from tests.waiting import until

DAY_MS = 24 * 3_600_000
START_MS = 1_700_000_000_000


def begun(**about: object) -> BrokerTime:
    return BrokerTime("boot", START_MS, 100.0, **about)  # type: ignore[arg-type]


looks = st.lists(st.tuples(st.floats(0.0, 60.0), st.integers(-40 * DAY_MS, 40 * DAY_MS)), max_size=40)


@given(looks)
def test_no_wall_clock_makes_it_go_back_stand_still_or_run_faster_than_one_percent(script: list[tuple[float, int]]) -> None:
    time, now, last = begun(), 100.0, START_MS
    for passed, wrong_ms in script:
        now += passed
        time.seen(START_MS + int((now - 100.0) * 1000) + wrong_ms, now)
        told = time.now_ms(now)
        assert passed * 1000 * (1 - PULL) - 2 <= told - last <= passed * 1000 * (1 + PULL) + 2
        last = told


def test_a_small_difference_is_made_up_for_at_one_percent() -> None:
    time = begun()
    time.seen(START_MS + 500, 100.0)
    assert time.now_ms(110.0) == START_MS + 10_000 + 100
    assert time.now_ms(150.0) == START_MS + 50_000 + 500
    assert time.now_ms(200.0) == START_MS + 100_000 + 500


@pytest.mark.parametrize("hours", [26, -26])
def test_a_wall_clock_that_is_far_off_is_told_and_not_followed_even_a_little(hours: int) -> None:
    time = begun()
    time.seen(START_MS + hours * 3_600_000, 100.0)
    assert time.is_far
    assert time.ahead_ms(START_MS + hours * 3_600_000, 100.0) == hours * 3_600_000
    assert time.now_ms(3_700.0) == START_MS + 3_600_000
    time.seen(START_MS + 3_600_000, 3_700.0)
    assert not time.is_far


def test_an_operators_word_steps_it_by_the_difference_that_it_names_and_by_no_other() -> None:
    time = begun()
    time.seen(START_MS + DAY_MS, 100.0)
    assert not time.accept(3600.0)
    assert time.accept(86_395.0)
    assert time.now_ms(100.0) == START_MS + DAY_MS
    assert not time.accept(86_395.0), "said again it takes nothing"
    assert time.now_ms(100.0) == START_MS + DAY_MS


def test_an_operators_word_for_a_clock_that_is_behind_makes_it_slower_until_it_is_there() -> None:
    time = begun()
    time.seen(START_MS - 300_000, 100.0)
    assert time.accept(-300.0)
    assert not time.is_far
    assert time.now_ms(1_100.0) == START_MS + 990_000
    time.seen(START_MS + 700_000, 1_100.0)
    again = BrokerTime("boot", START_MS + 800_000, 1_200.0, kept=time.kept)
    assert again.now_ms(2_200.0) == START_MS + 990_000 + 100_000 + 990_000
    again.seen(START_MS + 1_800_000 - DAY_MS, 2_200.0)
    assert again.is_far, "another difference is another word's"


def test_a_broker_that_is_started_again_in_one_boot_goes_on_with_its_time() -> None:
    before = begun()
    again = BrokerTime("boot", START_MS + DAY_MS, 200.0, kept=before.kept)
    assert again.now_ms(200.0) == START_MS + 100_000
    assert again.is_far
    rebooted = BrokerTime("another", START_MS + DAY_MS, 7.0, kept=before.kept)
    assert rebooted.now_ms(7.0) == START_MS + DAY_MS
    assert BrokerTime("", START_MS, 7.0, kept=BrokerTime("", 5, 1.0).kept).now_ms(7.0) == START_MS, "an unknown boot is none"


def test_after_a_boot_it_is_never_before_what_it_has_stored() -> None:
    time = BrokerTime("boot", 1_000, 5.0, last_ms=START_MS)
    assert time.now_ms(5.0) == START_MS
    assert time.is_far
    assert FAR_MS == 10_000


def test_it_goes_ahead_to_a_time_that_it_has_once_said_itself_and_never_back() -> None:
    time = begun()
    assert not time.was(START_MS - 1, 100.0)
    assert not time.was(START_MS, 100.0)
    assert time.was(START_MS + 1, 100.0)
    assert time.was(START_MS + 60_000, 110.0)
    assert time.now_ms(110.0) == START_MS + 60_000
    assert time.ahead_ms(START_MS + 10_000, 110.0) == -50_000, "its wall clock is behind now"
    assert time.is_far
    assert not time.was(START_MS + 59_000, 110.0)
    assert time.now_ms(111.0) == START_MS + 61_000


@pytest.mark.parametrize(("named_s", "taken"), [(50.0, True), (40.0, True), (60.0, True), (39.9, False), (60.1, False)])
def test_the_difference_that_is_named_may_be_off_by_as_much_as_a_clock_may_be(named_s: float, taken: bool) -> None:
    time = begun()
    time.seen(START_MS + 50_000, 100.0)
    assert time.accept(named_s) is taken
    assert time.ahead_ms(START_MS + 50_000, 100.0) == (0 if taken else 50_000)


def test_a_clock_that_is_off_by_just_what_counts_is_followed_and_by_more_it_is_not() -> None:
    time = begun()
    for off_ms in (FAR_MS, -FAR_MS):
        time.seen(START_MS + off_ms, 100.0)
        assert not time.is_far
        assert not time.accept(off_ms / 1000), "it needs no word"
    time.seen(START_MS + FAR_MS + 1, 100.0)
    assert time.is_far


def keeper_of(clock: Any, told: list[str], *, kept: bytes | None = None) -> Timekeeper:
    """A timekeeper of an empty store."""
    log: Any = SimpleNamespace(head=0, rows=lambda *_: [])
    meta: Any = SimpleNamespace(get=lambda _: kept, put=lambda *_: None)
    return Timekeeper("broker/b1", "boot", log, meta, clock, tell=told.append, certified_ms=(0, inf))


def stopped_at(now: float = 100.0, wall_ms: int = START_MS) -> Any:
    """A machine's clocks, which a test moves."""
    clock: Any = SimpleNamespace(now=now, ms=wall_ms)
    clock.boottime, clock.wall_ms = lambda: clock.now, lambda: clock.ms
    return clock


def test_by_how_much_the_clock_is_ahead_is_known_from_the_start() -> None:
    again = keeper_of(stopped_at(200.0, START_MS + DAY_MS), [], kept=begun().kept)
    assert again.ahead_s == (DAY_MS - 100_000) / 1000


@pytest.mark.parametrize("others", [1, 2, 3, 6])
@pytest.mark.parametrize("off_ms", [DAY_MS, -DAY_MS])
def test_a_clock_that_is_far_off_is_told_by_as_much_as_it_is_however_many_other_brokers_are_right(
    others: int, off_ms: int
) -> None:
    clock, told = stopped_at(), list[str]()
    keeper = keeper_of(clock, told)
    clock.ms += off_ms
    for _ in range(3):
        keeper.look([keeper.now_ms()] * others)
    assert keeper.ahead_s == off_ms / 1000
    side = "ahead of" if off_ms > 0 else "behind"
    assert told == [f"the clock of broker/b1's machine is 86400 s {side} realm time, and is not followed"]
    clock.ms -= off_ms
    keeper.look([keeper.now_ms()] * others)
    assert [said.endswith("right again") for said in told] == [False, True]
    assert keeper.now_ms() == START_MS


def test_a_clock_that_is_behind_and_right_by_an_operators_word_pulls_beside_another_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, told = stopped_at(), list[str]()
    keeper = keeper_of(clock, told)
    clock.ms -= 300_000
    keeper.look([keeper.now_ms()])
    monkeypatch.setattr(timekeeping, "accepted", lambda *_: keeper.ahead_s)
    assert keeper.obey([])
    for _ in range(1_000):
        clock.now, clock.ms = clock.now + 1, clock.ms + 1_000
        keeper.look([START_MS + round((clock.now - 100) * 1000)])
    assert keeper.now_ms() == START_MS + 990_000
    assert "goes slower" in told[-1]


@scenario
async def test_a_brokers_wall_clock_that_is_26_hours_ahead_for_a_while_ends_no_fact(r: TestRealm):
    clock = TestClock()
    broker = await r.broker(clock=clock)
    bob, node = await r.client("operator/bob"), await r.client("node/n1")
    async with reading(bob, "broker/+/notice", "broker/+/session/") as got:
        before = broker.now_ms() - clock.wall_ms()
        clock.offset_s = 26 * 3600.0
        await got.until(lambda g: [d for d in g.of("broker/b1/notice") if d["kind"] == "clock"])
        assert "93600 s ahead of realm time" in got.of("broker/b1/notice")[-1]["message"]
        broker._ingest.expire()
        late = await r.client("operator/late")
        async with reading(late, "broker/+/session/") as now:
            assert now.of("broker/b1/session/node/n1")[-1]["state"] == "open", "it is still there"
        clock.offset_s = 0.0
        await got.until(lambda g: len([d for d in g.of("broker/b1/notice") if d["kind"] == "clock"]) == 2)
        assert abs(broker.now_ms() - clock.wall_ms() - before) < 1_000
        assert abs(node.now_ms() - clock.wall_ms()) < 1_000


@scenario
async def test_an_operators_word_for_a_clock_that_is_behind_takes_nothing_back(r: TestRealm):
    clock = TestClock()
    broker = await r.broker(clock=clock)
    bob = await r.client("operator/bob")
    async with reading(bob, "broker/+/notice", start=Start.LIVE) as got:
        clock.offset_s = -300.0
        await got.until(lambda g: g.of("broker/b1/notice"))
        before_ms = broker.now_ms()
        await bob.publish(Draft("config/clock/b1", to_data(ClockWord(ahead_s=-300.0, by="bob", reason=""))))
        await got.until(lambda g: "slower" in g.of("broker/b1/notice")[-1]["message"])
        assert broker.now_ms() >= before_ms
        await bob.publish(Draft("user/t", {"heard": True}))


def test_an_operator_can_say_that_the_machine_is_right(network_kind, tmp_path) -> None:
    hours = 26.0

    @scenario
    async def run(r: TestRealm):
        clock = TestClock()
        days_ago = int(wallclock.time()) - 3 * 86_400
        broker = await r.broker(clock=clock, identity=r.identity("broker/b1", now_s=days_ago))
        bob = await r.client("operator/bob", identity=r.identity("operator/bob", now_s=days_ago), clock=clock)
        async with reading(bob, "broker/+/notice", start=Start.LIVE) as got:
            clock.offset_s = hours * 3600
            await got.until(lambda g: g.of("broker/b1/notice"))
            word = ClockWord(ahead_s=hours * 3600, by="bob", reason="it was set by hand")
            await bob.publish(Draft("config/clock/b1", to_data(word)))
            await until(lambda: abs(broker.now_ms() - clock.wall_ms()) < 1_000)
            await bob.publish(Draft("user/t", {"after": True}))
            again = await r.restarted(broker, clock=clock)
            assert abs(again.now_ms() - clock.wall_ms()) < 2_000

    run(network_kind, tmp_path)


def test_of_all_that_is_refused_for_its_time_the_latest_is_told_until_it_comes_no_more() -> None:
    clock: Any = SimpleNamespace(now=100.0, wall_ms=lambda: START_MS)
    clock.boottime = lambda: clock.now
    log: Any = SimpleNamespace(head=0, rows=lambda *_: [])
    meta: Any = SimpleNamespace(get=lambda _: None, put=lambda *_: None)
    told: list[str] = []
    keeper = Timekeeper("broker/b1", "boot", log, meta, clock, tell=told.append, certified_ms=(0, inf))
    for ahead_s in (600, 900, 300):
        keeper.early(START_MS + ahead_s * 1000)
    assert keeper.early_s == 900.0
    clock.now += EARLY_S - 1
    keeper.early(START_MS + 300_000)
    clock.now += EARLY_S
    assert keeper.early_s == 0.0
    keeper.early(START_MS + 500_000)
    assert keeper.early_s == 500.0 - 2 * EARLY_S + 1, "what was told before counts no more"
    assert told == []


def test_a_clock_that_an_operator_accepted_is_kept_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = SimpleNamespace(boottime=lambda: 100.0, ms=START_MS)
    clock.wall_ms = lambda: clock.ms
    log: Any = SimpleNamespace(head=0, rows=lambda *_: [])
    kept: list[Any] = []
    meta: Any = SimpleNamespace(get=lambda _: None, put=lambda _, what: kept.append(what))
    keeper = Timekeeper("broker/b1", "boot", log, meta, clock, tell=lambda _: None, certified_ms=(0, inf))
    clock.ms += DAY_MS
    monkeypatch.setattr(timekeeping, "accepted", lambda *_: DAY_MS / 1000)
    assert keeper.obey([])
    (word,) = kept
    assert BrokerTime("boot", START_MS, 100.0, kept=word).now_ms(100.0) == START_MS + DAY_MS

    keeper.keep()

    def full(*_: object) -> None:
        raise StoreFullError("store.full", "the disk has filled since the word was stored")

    meta.put = full
    clock.ms += DAY_MS
    assert keeper.obey([]), "it is obeyed"
    meta.put = lambda _, what: kept.append(what)
    keeper.keep()
    assert len(kept) == 3, "and kept with the next tick, though it was kept just before"


@pytest.mark.parametrize(
    ("stored_ms", "begins_ms"),
    [
        (None, START_MS),
        (START_MS - DAY_MS, START_MS - DAY_MS),
        (START_MS - 1, START_MS - 1),
        (START_MS + 1, START_MS + DAY_MS),
    ],
    ids=["nothing", "of long before", "of just before", "of after"],
)
def test_a_clock_at_which_its_certificate_has_ended_is_taken_unless_something_is_stored_of_before(
    stored_ms: int | None, begins_ms: int
) -> None:
    """A store that is empty tells nothing of the time: there the clock is right, and the certificate has ended."""
    rows = [] if stored_ms is None else [SimpleNamespace(arrived_ms=stored_ms)]
    log: Any = SimpleNamespace(head=len(rows), rows=lambda *_: rows)
    meta: Any = SimpleNamespace(get=lambda _: None)
    wall_ms = START_MS if stored_ms is None else START_MS + DAY_MS
    clock, certified_ms = stopped_at(wall_ms=wall_ms), (START_MS - 2 * DAY_MS, float(START_MS))
    keeper = Timekeeper("broker/b1", "boot", log, meta, clock, tell=lambda _: None, certified_ms=certified_ms)
    assert keeper.now_ms() == begins_ms
