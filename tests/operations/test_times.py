"""Times as operators write and read them."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from dsmt.errors import InputError
from dsmt.event.envelope import EventId
from dsmt.event.hlc import LAST_MS, rfc3339
from dsmt.operations.words.times import AHEAD_MS, beginning, local, milliseconds, moment, off_by, span, time_or_null, zone

NOW = 1_700_000_000_123


def test_a_time_is_written_in_utc_with_milliseconds_and_read_back() -> None:
    assert rfc3339(NOW) == "2023-11-14T22:13:20.123Z"
    assert milliseconds("2023-11-14T22:13:20.123Z") == NOW
    assert time_or_null(None) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", NOW - 600_000),
        ("1h30m", NOW - 5_400_000),
        ("2023-11-14T22:13:20Z", NOW - 123),
        ("9999999999999d", 0),
        ("1960-01-01T00:00:00Z", 0),
    ],
)
def test_since_takes_spans_and_rfc_3339(text: str, expected: int) -> None:
    assert moment(text, NOW) == expected


@pytest.fixture(params=["UTC", "<+14>-14", "<-12>12"])
def somewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's clock is told in a zone of the calendar's edges."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("somewhere")
@pytest.mark.parametrize("ms", [-(2**63), -1, LAST_MS, LAST_MS + 1, 2**48, 2**63 - 1])
def test_what_is_outside_of_the_calendar_has_a_text_that_is_read_back_as_its_end(ms: int) -> None:
    assert milliseconds(rfc3339(ms) or "") == (0 if ms < 0 else LAST_MS)
    assert len(local(ms, milli=True)) == len("03:12:34.391")
    assert zone(ms)


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
def test_a_time_that_is_over_the_edge_of_the_calendar_here_is_no_time(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "<-12>12")
        time.tzset()
        with pytest.raises(InputError, match="is not a time"):
            moment(text, NOW)
    time.tzset()


def test_since_takes_an_event_id() -> None:
    assert moment("controller/c1#17-42", NOW) == EventId("controller/c1", 17, 42)


def test_what_is_read_begins_no_later_than_now_but_for_what_the_clock_here_may_be_ahead() -> None:
    assert beginning(rfc3339(NOW + AHEAD_MS) or "", NOW) == NOW + AHEAD_MS
    assert beginning("controller/c1#17-42", NOW) == EventId("controller/c1", 17, 42)
    with pytest.raises(InputError, match="is still to come"):
        beginning(rfc3339(NOW + AHEAD_MS + 1) or "", NOW)


def test_a_time_of_day_is_the_last_one_that_was() -> None:
    found = moment("14:05", NOW)
    assert isinstance(found, int)
    here = datetime.fromtimestamp(found / 1000, UTC).astimezone()
    assert (here.hour, here.minute) == (14, 5)
    assert 0 <= NOW - found < 86_400_000
    now = NOW - NOW % 1000
    assert moment(local(now), now) == now
    assert moment(local(now + 1000), now) == now + 1000 - 86_400_000


@pytest.mark.parametrize(
    ("now", "text", "expected"),
    [
        ("2026-11-01T10:00:00-05:00", "00:30", "2026-11-01T00:30:00-04:00"),
        ("2026-11-01T10:00:00-05:00", "10:30", "2026-10-31T10:30:00-04:00"),
        ("2026-03-08T10:00:00-04:00", "01:30", "2026-03-08T01:30:00-05:00"),
        ("2026-03-08T10:00:00-04:00", "09:30", "2026-03-08T09:30:00-04:00"),
    ],
)
def test_a_time_of_day_is_one_of_the_clock_as_it_was_then(
    monkeypatch: pytest.MonkeyPatch, now: str, text: str, expected: str
) -> None:
    """On a day on which it was put on or back, and on the day before."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
        time.tzset()
        found = rfc3339(moment(text, milliseconds(now)))  # type: ignore[arg-type]
    time.tzset()
    assert found == rfc3339(milliseconds(expected))


@pytest.mark.parametrize("text", ["", "yesterday", "25:00", "10", "a#b"])
def test_what_is_no_time_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(InputError) as caught:
        moment(text, NOW)
    assert caught.value.next
    assert caught.value.code == ("event.id" if "#" in text else "time.form")


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (-3_000, "0.0 s"),
        (400, "0.4 s"),
        (1_000, "1 s"),
        (8_000, "8 s"),
        (59_999, "59 s"),
        (60_000, "1 m"),
        (90_000, "1 m"),
        (366_000, "6 m"),
        (7_200_000, "2 h"),
        (172_800_000, "2 d"),
    ],
)
def test_a_span_is_read_in_its_largest_unit(ms: int, text: str) -> None:
    assert span(ms) == text


def test_a_difference_says_which_way() -> None:
    assert off_by(93_600.0) == "26 h ahead of realm time"
    assert off_by(0.5) == "0.5 s ahead of realm time"
    assert off_by(-119.99) == "1 m behind realm time"


def test_a_zone_that_is_a_day_off_or_more_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        for off in ("UTC+99", "UTC+24", "UTC-24"):
            monkeypatch.setenv("TZ", off)
            time.tzset()
            assert (local(NOW), zone(NOW)) == ("22:13:20", "UTC")
            assert moment("14:05", NOW) == milliseconds("2023-11-14T14:05:00Z")
            assert moment("2023-11-14T14:05", NOW) == milliseconds("2023-11-14T14:05:00Z")
    finally:
        monkeypatch.undo()
        time.tzset()
