"""Times as operators write and read them: RFC 3339, `10m`, `14:05`, "6 m ago"."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from dsmt.errors import InputError
from dsmt.event.envelope import EventId
from dsmt.event.hlc import LAST_MS, instant, rfc3339
from dsmt.event.kinds.row import DAY_MS
from dsmt.spec.mistakes import WrongValueError
from dsmt.spec.quantities import parse_duration

AHEAD_MS: Final = 60_000
"""How far this machine's clock may be ahead of realm time, when a time is typed."""
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")


def time_or_null(ms: int | None) -> str | None:
    """A realm time as JSON has it; what is not known stays null."""
    return None if ms is None else rfc3339(ms)


def milliseconds(text: str) -> int:
    """The realm time of what `rfc3339` wrote, or of any RFC 3339 time. Raises `ValueError` or OverflowError."""
    told = datetime.fromisoformat(text.removeprefix("before ").removeprefix("after "))
    return round((told if told.tzinfo else _zoned(told)).astimezone(UTC).timestamp() * 1000)


def off_by(ahead_s: float) -> str:
    """A clock's difference: `26 h ahead of realm time`, `3 m behind realm time`."""
    return f"{span(abs(ahead_s) * 1000)} {'ahead of' if ahead_s > 0 else 'behind'} realm time"


def span(ms: float) -> str:
    """A span as people read it: `0.4 s`, `8 s`, `6 m`, `5 h`, `2 d`."""
    seconds = max(0.0, ms / 1000)
    if seconds < 1:
        return f"{seconds:.1f} s"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size or (size == 60 and seconds >= 60):
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def moment(text: str, now_ms: int) -> int | EventId:
    """What `--since` and `--until` take: `10m`, `14:05`, RFC 3339 (realm ms), or an event id. Raises `InputError`.

    What is before 1970 is the beginning.
    """
    if "#" in text:
        return EventId.parse(text)
    return max(0, _moment(text, now_ms))


def beginning(since: str, now_ms: int) -> int | EventId:
    """What `--since` takes. Raises `InputError` also for what is still to come."""
    begin = moment(since, now_ms)
    if isinstance(begin, int) and begin > now_ms + AHEAD_MS:
        raise InputError("time.order", f"--since {since} is still to come", next="leave it out, or name an earlier time")
    return begin


def _moment(text: str, now_ms: int) -> int:
    try:
        return now_ms - round(parse_duration(text) * 1000)
    except WrongValueError:
        pass
    clock = _CLOCK.fullmatch(text)
    try:
        if clock is not None:
            hour, minute, second = (int(part or 0) for part in clock.groups())
            told = _here(now_ms).replace(tzinfo=None, hour=hour, minute=minute, second=second, microsecond=0)
            last = [round(_zoned(told - timedelta(days=before)).timestamp() * 1000) for before in (0, 1)]
            return next((ms for ms in last if ms <= now_ms), last[-1])
        return milliseconds(text)
    except (ValueError, OverflowError) as error:  # the latter: beyond the calendar's end in the time zone here
        forms = "write 10m, 14:05, an RFC 3339 time or an event id"
        raise InputError("time.form", f"{text!r} is not a time", next=forms) from error


def local(ms: int, *, milli: bool = False) -> str:
    """The time of day here: `03:12:34`, or `03:12:34.391`."""
    told = _here(ms).strftime("%H:%M:%S")
    return f"{told}.{ms % 1000:03d}" if milli else told


def zone(ms: int) -> str:
    """What the time zone here is called at a realm time."""
    return _here(ms).strftime("%Z")


def _here(ms: int) -> datetime:
    """A realm time in the time zone here; on the last day of the calendar some zones are beyond its end."""
    return _zoned(instant(min(ms, LAST_MS - DAY_MS)))


def _zoned(told: datetime) -> datetime:
    """A time in the time zone here, and one that names no zone as of it; in UTC where `TZ` is a day or more off.

    Raises OverflowError or `ValueError`, by the version of Python, for one that is beyond the calendar here.
    """
    try:
        return told.astimezone()
    except ValueError:
        if _is_zone_here():
            raise
        return told if told.tzinfo else told.replace(tzinfo=UTC)


def _is_zone_here() -> bool:
    """Whether the time zone here is less than a day off."""
    try:
        instant(DAY_MS).astimezone()
    except ValueError:
        return False
    return True
