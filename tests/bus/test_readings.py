"""Readings: how far a broker has read the others, and what it may say of what they have by that (E1, E5, B2)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.broker.others.other import STILL_S, Other
from dsmt.bus.broker.others.readings import LAG_MS, MOST_MS, Readings
from dsmt.bus.broker.withheld import GIVEN_MS
from dsmt.ports.bus import Cursor
from dsmt.ports.realm import BrokerAddress

NOW = 600_000
B1, B2 = (BrokerAddress(f"127.0.0.1:{n}", f"b{n}".encode()) for n in (1, 2))


def readings(*others: Other, now_s: float = 100.0) -> Readings:
    """As one that has read these, now."""
    clock: Any = SimpleNamespace(boottime=lambda: now_s)
    found = Readings(clock, lambda: NOW)
    found.others.update((other.address.public, other) for other in others)
    return found


def read(address: BrokerAddress, until_ms: int = NOW, **about: Any) -> Other:
    return Other(address, place=Cursor("store", 7, until_ms), complete=True, **about)


def test_who_gives_nothing_more_is_read_to_its_end_no_more() -> None:
    assert readings(read(B1, moved_at=100.0 - STILL_S)).has_read(B1.public)
    assert not readings(read(B1, moved_at=99.0 - STILL_S)).has_read(B1.public)
    assert not readings(read(B2, moved_at=100.0)).has_read(B1.public)


@pytest.mark.parametrize(
    ("other", "attached", "keeps_up"),
    [
        (Other(B1), False, True),
        (Other(B1), True, False),
        (read(B1, NOW - LAG_MS), True, True),
        (read(B1, NOW - LAG_MS - 1), True, False),
        (Other(B1, place=Cursor("store", 7, NOW), caught_up=True), True, False),
        (Other(BrokerAddress("127.0.0.1:1", b"b1", leaf=True)), True, True),
    ],
    ids=["it is away", "it reads this one and is not read", "read", "behind", "it is read anew", "a leaf"],
)
def test_what_the_others_have_is_here_when_each_that_is_there_was_read(other: Other, attached: bool, keeps_up: bool) -> None:
    assert readings(other).keeps_up(lambda public: attached and public == B1.public) is keeps_up


@pytest.mark.parametrize(
    ("others", "settled_ms"),
    [
        ([], None),
        ([read(B1), read(B2)], NOW - GIVEN_MS),
        ([read(B1), read(B2, NOW - 9)], NOW - 9 - GIVEN_MS),
        ([read(B1, NOW + 9)], NOW - GIVEN_MS),
        ([read(B1), Other(B2)], NOW - MOST_MS),
    ],
    ids=["alone", "all were read", "one is behind", "ahead of realm time here", "one cannot be read"],
)
def test_what_was_missed_is_waited_for_until_all_were_read_and_no_longer_than_a_minute(
    others: list[Other], settled_ms: int | None
) -> None:
    assert readings(*others).settled_ms() == settled_ms
