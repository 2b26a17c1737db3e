"""The random streams are the same everywhere and shaped as they say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.simulator.engine.rng import Stream, derive


def test_splitmix64_gives_the_published_numbers() -> None:
    stream = Stream(1234567)
    assert [stream.word() for _ in range(5)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_a_derived_seed_is_the_same_in_every_version() -> None:
    assert derive(1, "node-7", "latency") == 0x742CFD6C2DB2832E


@given(st.integers(), st.lists(st.text() | st.integers(), max_size=3), st.lists(st.text() | st.integers(), max_size=3))
def test_different_names_give_different_seeds(seed: int, a: list[str | int], b: list[str | int]) -> None:
    same = [(type(x), x) for x in a] == [(type(x), x) for x in b]
    assert (derive(seed, *a) == derive(seed, *b)) == same


def test_what_is_drawn_from_a_stream_does_not_shift_the_streams_named_under_it() -> None:
    drawn, fresh = Stream(1, "net"), Stream(1, "net")
    drawn.bytes(100)
    assert drawn.stream("a").word() == fresh.stream("a").word()
    assert fresh.stream("a").word() != fresh.stream("b").word()


@given(st.integers(), st.integers(min_value=1, max_value=1 << 64))
def test_below_stays_below(seed: int, n: int) -> None:
    stream = Stream(seed)
    assert all(0 <= stream.below(n) < n for _ in range(10))


@pytest.mark.parametrize("n", [0, -1, (1 << 64) + 1])
def test_below_refuses_what_it_cannot_draw(n: int) -> None:
    with pytest.raises(ValueError, match="below"):
        Stream(1).below(n)


def test_the_distributions_have_their_mean_and_range() -> None:
    stream, n = Stream(42), 50_000
    uniform = [stream.uniform(2, 6) for _ in range(n)]
    exponential = [stream.exponential(3) for _ in range(n)]
    assert min(uniform) >= 2
    assert max(uniform) < 6
    assert math.isclose(sum(uniform) / n, 4, rel_tol=0.02)
    assert min(exponential) >= 0
    assert math.isclose(sum(exponential) / n, 3, rel_tol=0.03)
    assert math.isclose(sum(stream.chance(0.3) for _ in range(n)) / n, 0.3, rel_tol=0.03)
    counts = [0] * 7
    for _ in range(n):
        counts[stream.below(7)] += 1
    assert all(math.isclose(count, n / 7, rel_tol=0.05) for count in counts)


def test_chance_is_certain_at_the_ends_and_always_one_draw() -> None:
    stream, other = Stream(5), Stream(5)
    assert [stream.chance(p) for p in (0.0, 1.0, -1.0, 2.0)] == [False, True, False, True]
    for _ in range(4):
        other.word()
    assert stream.word() == other.word()


@given(st.integers(min_value=0, max_value=40))
def test_bytes_has_the_length_asked_for(n: int) -> None:
    assert len(Stream(1).bytes(n)) == n


@given(st.integers(), st.lists(st.integers(), min_size=1))
def test_choice_and_shuffled_keep_to_the_items(seed: int, items: list[int]) -> None:
    stream = Stream(seed)
    assert stream.choice(items) in items
    assert sorted(stream.shuffled(items)) == sorted(items)


def test_shuffled_reaches_every_order_about_equally_often() -> None:
    stream, counts = Stream(9), dict[tuple[int, ...], int]()
    for _ in range(6000):
        order = tuple(stream.shuffled((1, 2, 3)))
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert all(800 < count < 1200 for count in counts.values())


def test_a_set_has_no_order_and_is_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        Stream(1).choice({1, 2})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="set"):
        Stream(1).shuffled({1, 2})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty"):
        Stream(1).choice([])
