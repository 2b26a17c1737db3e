"""Durations, sizes, cores, shares, signals: text in, numbers out, and back to the shortest text.

Every reader raises `WrongValueError` with a suggestion; nothing is guessed. Durations are float seconds,
sizes are int bytes (a part of a byte counts as one), percentages are floats above 0 and at most 100.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Final

from dsmt.spec.mistakes import WrongValueError

_DURATION_UNITS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION_WORDS: Final = {
    "sec": "s", "secs": "s", "second": "s", "seconds": "s", "min": "m", "mins": "m", "minute": "m",
    "minutes": "m", "hour": "h", "hours": "h", "hr": "h", "day": "d", "days": "d", "msec": "ms",
    "w": "d (7d is a week)", "S": "s", "M": "m", "H": "h", "D": "d",
}  # fmt: skip
_SIZE_UNITS: Final = {
    "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_NUMBER_AND_WORD: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_LONGEST_TEXT: Final = 40
_LARGEST_SIZE: Final = 2**63 - 1

SIGNALS: Final = frozenset({
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
})  # fmt: skip


def parse_duration(text: str) -> float:
    """Return the seconds of `500ms`, `10s`, `1h30m`, `7d`; a unit is required, the largest comes first."""
    parts = _PART.findall(text) if len(text) <= _LONGEST_TEXT else []
    if not parts or "".join(n + u for n, u in parts) != text:
        raise WrongValueError(f"`{text[:_LONGEST_TEXT]}` is not a duration", _duration_hint(text))
    order = [list(_DURATION_UNITS).index(unit) for _, unit in parts]
    if order != sorted(set(order)):
        raise WrongValueError(f"`{text}` repeats or mixes up its units", "write the largest first, as in 1h30m")
    total_ms = sum((Fraction(number) * _DURATION_UNITS[unit] for number, unit in parts), Fraction(0))
    if total_ms.denominator != 1:
        raise WrongValueError(f"`{text}` is finer than a millisecond", "write whole milliseconds")
    return float(total_ms / 1000)


def _duration_hint(text: str) -> str:
    match = _NUMBER_AND_WORD.fullmatch(text.strip())
    if match is None:
        return "write it as 500ms, 10s, 5m, 1h30m or 7d"
    number, word = match.groups()
    if not word:
        return f"a unit is missing: {number}s, {number}m or {number}ms?"
    return f"write {number}{_DURATION_WORDS[word]}" if word in _DURATION_WORDS else "units are ms, s, m, h, d"


def format_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` reads back as the same number of milliseconds."""
    rest = round(seconds * 1000)
    out = []
    for unit, size in _DURATION_UNITS.items():
        count, rest = divmod(rest, size)
        if count:
            out.append(f"{count}{unit}")
    return "".join(out) or "0s"


def parse_size(text: str) -> int:
    """Return the bytes of `512MiB` or `1.2GiB`, rounded up; only zero needs no unit, and `512M` is refused."""
    if text == "0":
        return 0
    match = _NUMBER_AND_WORD.fullmatch(text.strip()) if len(text) <= _LONGEST_TEXT else None
    if match is None:
        raise WrongValueError(f"`{text[:_LONGEST_TEXT]}` is not a size", "write it as 512MiB or 10GB")
    number, unit = match.groups()
    if unit not in _SIZE_UNITS or f"{number}{unit}" != text:
        raise WrongValueError(f"`{text}` has no unit that means one thing", _size_hint(number, unit))
    size = math.ceil(Fraction(number) * _SIZE_UNITS[unit])
    if size > _LARGEST_SIZE:
        raise WrongValueError(f"`{text}` is too large", "below 2^63 bytes, which is 8388608TiB")
    return size


def _size_hint(number: str, unit: str) -> str:
    if not unit:
        return f"{number}KiB, {number}MiB or {number}GiB?"
    if unit in _SIZE_UNITS:
        return f"write {number}{unit}"
    letter = unit[0].upper()
    if letter not in "KMGT" or unit[1:].lower() not in {"", "b", "i", "ib"}:
        return "units are KiB MiB GiB TiB and kB MB GB TB"
    decimal = "kB" if letter == "K" else f"{letter}B"
    if unit[1:].lower() in {"i", "ib"}:
        return f"write {number}{letter}iB"
    if unit[1:].lower() == "b":
        return f"write {number}{decimal}"
    return f"{letter}iB or {decimal}?"


def format_size(size_bytes: int) -> str:
    """Return the shortest text that `parse_size` reads back exactly."""
    if size_bytes == 0:
        return "0"
    for unit, size in sorted(_SIZE_UNITS.items(), key=lambda item: (-item[1], item[0])):
        if size_bytes % size == 0:
            return f"{size_bytes // size}{unit}"
    kib = Fraction(size_bytes, 2**10)
    return f"{_decimal(kib)}KiB"


def _decimal(number: Fraction) -> str:
    """Write a fraction over a power of two as an exact decimal number."""
    whole, rest = divmod(number, 1)
    digits = []
    while rest:
        digit, rest = divmod(rest * 10, 1)
        digits.append(str(digit))
    return f"{whole}.{''.join(digits)}" if digits else str(whole)


def parse_percent(text: str) -> float:
    """Return the number of `25%`, above 0 and at most 100."""
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)%", text)
    if match is None or not 0 < float(match[1]) <= 100:
        raise WrongValueError(f"`{text[:_LONGEST_TEXT]}` is not a share", "write a percentage, as in 25%")
    return float(match[1])


def format_percent(percent: float) -> str:
    """Return the text `parse_percent` reads back."""
    return f"{percent:.6f}".rstrip("0").rstrip(".") + "%"


def parse_signal(text: str) -> str:
    """Return the full name (`SIGTERM`) of `TERM`, `SIGTERM` or `sigterm`."""
    name = text.upper().removeprefix("SIG")
    if name not in SIGNALS:
        raise WrongValueError(f"`{text[:_LONGEST_TEXT]}` is not a signal", "name one: TERM, INT, HUP, USR1 ...")
    return f"SIG{name}"
