"""Durations, sizes, shares, signals: exact, with a unit, and answered helpfully."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.spec import quantities
from dsmt.spec.mistakes import WrongValueError
from dsmt.spec.records import Amount


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("10s", 10), ("5m", 300), ("1h30m", 5400), ("7d", 604800), ("1.5s", 1.5), ("1d1m1ms", 86460.001)],
)
def test_a_duration_is_read_to_the_millisecond(text, seconds):
    assert quantities.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10", "10s, 10m or 10ms"),
        ("10sec", "write 10s"),
        ("5 min", "write 5m"),
        ("1m1h", "largest first"),
        ("1s1s", "largest first"),
        ("0.1ms", "whole milliseconds"),
        ("-5s", "write it as"),
        ("", "write it as"),
        ("1w", "7d is a week"),
        ("9" * 50 + "s", "units are"),
    ],
)
def test_a_wrong_duration_is_refused_with_what_to_write(text, hint):
    with pytest.raises(WrongValueError) as caught:
        quantities.parse_duration(text)
    assert hint in caught.value.next


@given(st.integers(0, 10**13))
def test_a_formatted_duration_reads_back_exactly(milliseconds):
    assert quantities.parse_duration(quantities.format_duration(milliseconds / 1000)) == milliseconds / 1000


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 2**29),
        ("10GB", 10**10),
        ("1.5KiB", 1536),
        ("0", 0),
        ("1kB", 1000),
        ("2TiB", 2**41),
        ("1.2GiB", 1_288_490_189),
        ("0.3KiB", 308),
        ("1.0005kB", 1001),
    ],
)
def test_a_size_is_read_to_the_byte(text, size):
    assert quantities.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("512M", "MiB or MB?"),
        ("512m", "MiB or MB?"),
        ("10g", "GiB or GB?"),
        ("1KB", "write 1kB"),
        ("1mib", "write 1MiB"),
        ("1Ki", "write 1KiB"),
        ("1024", "1024KiB, 1024MiB"),
        ("5 MiB", "write 5MiB"),
        ("\t5MiB", "write 5MiB"),
        ("5\tMiB", "write 5MiB"),
        ("5MiB\n", "write 5MiB"),
        ("1EiB", "units are"),
        ("9999999999TiB", "below 2^63 bytes"),
        ("much", "write it as"),
    ],
)
def test_a_wrong_size_is_refused_with_what_to_write(text, hint):
    with pytest.raises(WrongValueError) as caught:
        quantities.parse_size(text)
    assert hint in caught.value.next


@given(st.integers(0, 2**63 - 1))
def test_a_formatted_size_reads_back_exactly(size):
    assert quantities.parse_size(quantities.format_size(size)) == size


@given(st.text(max_size=20))
def test_no_text_makes_a_reader_fail_in_another_way(text):
    for reader in (quantities.parse_duration, quantities.parse_size, quantities.parse_percent, quantities.parse_signal):
        try:
            reader(text)
        except WrongValueError as error:
            str(error)


@given(st.integers(1, 10_000), st.floats(0.01, 100))
def test_a_share_is_rounded_up_and_at_least_one(total, percent):
    count = Amount(percent=percent).of(total)
    assert 1 <= count <= total
    assert count - 1 < total * percent / 100 + 1e-6
    assert count >= total * percent / 100 - 1e-6


def test_a_share_of_a_round_number_is_not_lifted_by_the_floating_point():
    assert Amount(percent=7.0).of(100) == 7
    assert Amount(percent=25.0).of(4) == 1
    assert Amount(percent=25.0).of(5) == 2
    assert Amount(count=0).of(5) == 0


def test_a_signal_has_one_spelling():
    assert {quantities.parse_signal(text) for text in ("TERM", "SIGTERM", "term")} == {"SIGTERM"}


@pytest.mark.parametrize(
    ("text", "percent"),
    [("25%", 25), ("100%", 100), ("0.5%", 0.5), ("0.000001%", 1e-6), ("12.345678%", 12.345678), ("007%", 7)],
)
def test_a_share_is_a_percentage_above_0_and_at_most_100(text, percent):
    assert quantities.parse_percent(text) == percent


@pytest.mark.parametrize(
    ("percent", "text"),
    [(25.0, "25%"), (100.0, "100%"), (0.5, "0.5%"), (1e-6, "0.000001%"), (10.0, "10%"), (33.333333, "33.333333%")],
)
def test_a_share_is_written_as_shortly_as_can_be(percent, text):
    assert quantities.format_percent(percent) == text
    assert quantities.parse_percent(text) == percent


REFUSED = [
    *((quantities.parse_percent, text) for text in ("0%", "101%", "100.1%", "25", "-1%", "0.0000001%", "1000%", "x%", "")),
    *((quantities.parse_signal, text) for text in ("15", "SIG", "TERMINATE", "", "SIGSIGTERM")),
    *((quantities.parse_duration, text) for text in ("10", "1h1h", "1m1h", "0.1ms", "", "s")),
    *((quantities.parse_size, text) for text in ("1", "1M", "1 MiB", "", "00", "9223372036854775808kB")),
]


@pytest.mark.parametrize(("reader", "text"), REFUSED, ids=lambda one: getattr(one, "__name__", None))
def test_what_is_refused_is_repeated_and_what_to_write_is_said(reader, text):
    with pytest.raises(WrongValueError) as caught:
        reader(text)
    assert f"`{text}`" in caught.value.message
    assert caught.value.next


@pytest.mark.parametrize("reader", [quantities.parse_percent, quantities.parse_signal, quantities.parse_duration])
def test_of_a_long_text_the_beginning_is_repeated(reader):
    with pytest.raises(WrongValueError) as caught:
        reader("x" * 1000)
    assert "x" * 40 in caught.value.message
    assert "x" * 41 not in caught.value.message


def test_the_largest_size_is_the_last_below_2_to_the_63():
    assert quantities.parse_size("9007199254740991.9990234375KiB") == 2**63 - 1
    with pytest.raises(WrongValueError):
        quantities.parse_size("9007199254740992KiB")
