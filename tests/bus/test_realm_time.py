"""Realm time is measured once, then slewed, and never goes back (rule J4)."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from dsmt.bus.client.measuring import MEASURE_S, MeasuredTime
from dsmt.bus.rules.broker_time import BrokerTime
from dsmt.bus.rules.realm_time import SLEW, STEP_MS, RealmTime, Sample, offset_of
from dsmt.event.hlc import BOUND_MS, PULL

moves = st.lists(st.tuples(st.floats(0, 1000), st.one_of(st.none(), st.integers(-20_000, 20_000))), max_size=60)


@given(moves)
def test_it_never_goes_back_once_it_was_measured(script):
    clock, now = RealmTime(0.0), 100.0
    clock.measured(1_000_000.0, now)
    last = clock.now_ms(now)
    for elapsed, error in script:
        now += elapsed
        if error is not None:
            clock.measured(1_000_000.0 + error, now)
        assert clock.now_ms(now) >= last
        last = clock.now_ms(now)


@given(st.floats(-STEP_MS + 1, STEP_MS - 1), st.floats(1, 10_000))
def test_a_later_measurement_is_approached_at_the_slew_rate(error, elapsed):
    clock = RealmTime(0.0)
    clock.measured(0.0, 100.0)
    clock.now_ms(100.0)
    clock.measured(error, 100.0)
    moved = clock.now_ms(100.0 + elapsed) - (100.0 + elapsed) * 1000
    reach = elapsed * 1000 * SLEW
    expected = max(-reach, min(reach, error))
    assert abs(moved - expected) <= 1.5


def test_it_stays_with_a_broker_that_is_pulled_back_for_hours_though_its_own_clock_is_fast_and_links_are_lost():
    broker, client, now, behind_s, away_s, fast = BrokerTime("boot", 10**12, 0.0), RealmTime(0.0), 0.0, 300.0, 600.0, 1.0005
    client.measured(10.0**12, now)
    broker.seen(10**12 - int(behind_s * 1000), now)
    assert broker.accept(-behind_s)
    pulled = int(behind_s / PULL / 60)
    for minute in range(pulled + 5):
        now += away_s if minute % 30 == 0 and minute < pulled // 2 else MEASURE_S
        assert 0 <= client.now_ms(now * fast) - broker.now_ms(now) < BOUND_MS - 1000, f"after {now:.0f} s"
        client.measured(broker.now_ms(now) - now * fast * 1000, now * fast)
    assert abs(client.now_ms(now * fast) - (10**12 + (now - behind_s) * 1000)) < 100


def test_a_little_later_or_earlier_is_approached_whatever_time_it_is():
    for error in (5_000.0, -5_000.0, float(STEP_MS)):
        clock = RealmTime(0.0)
        clock.measured(1.0e12, 100.0)
        clock.measured(1.0e12 + error, 100.0)
        assert clock.now_ms(100.0) == 10**12 + 100_000
        assert clock.now_ms(100.0) == 10**12 + 100_000, "no time has passed"
        step = 10_000 * (SLEW if error > 0 else -SLEW)
        assert abs(clock.now_ms(110.0) - (10**12 + 110_000 + step)) <= 1


def test_the_first_measurement_is_taken_even_if_the_wall_clock_was_ahead():
    clock = RealmTime(3_600_000.0)
    assert clock.now_ms(10.0) == 3_610_000
    clock.measured(0.0, 10.0)
    assert clock.now_ms(10.0) == 10_000


def test_a_jump_forward_of_more_than_ten_seconds_is_taken_at_once_and_back_never():
    clock = RealmTime(0.0)
    clock.measured(0.0, 1.0)
    clock.measured(STEP_MS + 1.0, 1.0)
    assert clock.now_ms(1.0) == 1000 + STEP_MS + 1
    clock.measured(-1_000_000.0, 1.0)
    assert clock.now_ms(2.0) >= 1000 + STEP_MS + 1


def test_the_shortest_round_trip_counts():
    samples = [Sample(1.0, 2.0, 5_000.0), Sample(3.0, 3.1, 4_050.0), Sample(5.0, 6.0, 9_000.0)]
    assert offset_of(samples) == 4_050.0 - 3_050.0


def test_it_is_measured_anew_when_the_last_measurement_or_question_is_old() -> None:
    clock = SimpleNamespace(now=100.0)
    time = MeasuredTime(SimpleNamespace(boottime=lambda: clock.now, wall_ms=lambda: 0))
    time.measured(0.0)
    found = []
    for at in (100.0, 159.9, 160.0, 219.9, 220.0):
        clock.now = at
        found.append(time.is_due)
        if time.is_due:
            time.ask()
    assert found == [False, False, True, False, True]


def test_an_answer_to_an_earlier_question_counts_for_none_that_is_asked_since() -> None:
    clock = SimpleNamespace(now=100.0)
    time = MeasuredTime(SimpleNamespace(boottime=lambda: clock.now, wall_ms=lambda: 0))
    time.measured(0.0)
    before, clock.now = time.ask(), 110.0
    asked = time.ask()
    for _ in range(5):
        time.answered(before, 5_000_000.0)
    assert time.now_ms() == 110_000, "realm time may have stepped meanwhile"
    for _ in range(5):
        time.answered(asked, 5_000_000.0)
    assert time.now_ms() == 5_000_000
