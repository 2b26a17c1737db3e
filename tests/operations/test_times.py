"""Times as operators write and read them."""

from datetime import UTC, datetime

import pytest

from dsmt.errors import InputError
from dsmt.event.envelope import EventId
from dsmt.operations.words.times import milliseconds, moment, off_by, rfc3339, span

NOW = 1_700_000_000_123


def test_a_time_is_written_in_utc_with_milliseconds_and_read_back() -> None:
    assert rfc3339(NOW) == "2023-11-14T22:13:20.123Z"
    assert milliseconds("2023-11-14T22:13:20.123Z") == NOW
    assert rfc3339(None) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10m", NOW - 600_000), ("1h30m", NOW - 5_400_000), ("2023-11-14T22:13:20Z", NOW - 123)],
)
def test_since_takes_spans_and_rfc_3339(text: str, expected: int) -> None:
    assert moment(text, NOW) == expected


def test_since_takes_an_event_id() -> None:
    assert moment("controller/c1#17-42", NOW) == EventId("controller/c1", 17, 42)


def test_a_time_of_day_is_the_last_one_that_was() -> None:
    found = moment("14:05", NOW)
    assert isinstance(found, int)
    here = datetime.fromtimestamp(found / 1000, UTC).astimezone()
    assert (here.hour, here.minute) == (14, 5)
    assert 0 <= NOW - found < 86_400_000


@pytest.mark.parametrize("text", ["", "yesterday", "25:00", "10", "a#b"])
def test_what_is_no_time_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(InputError) as caught:
        moment(text, NOW)
    assert caught.value.next


@pytest.mark.parametrize(
    ("ms", "text"),
    [(400, "0.4 s"), (8_000, "8 s"), (90_000, "1 m"), (366_000, "6 m"), (7_200_000, "2 h"), (172_800_000, "2 d")],
)
def test_a_span_is_read_in_its_largest_unit(ms: int, text: str) -> None:
    assert span(ms) == text


def test_a_difference_says_which_way() -> None:
    assert off_by(93_600.0).endswith("ahead of realm time")
    assert off_by(-3.0) == "3 s behind realm time"
