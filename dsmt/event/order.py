"""Fact order: which of two facts of one topic is the retained one, and what a tombstone hides (rules A1, A3, A6, E3).

Rule 1: owned (no version): the greater (incarnation, sequence) wins.
Rule 2: shared: the greater (epoch, version) wins, then the EARLIER time, then the lower source, then the lower incarnation
    and sequence. Among siblings of one version the stale writer is by nature the later one, so the first successor wins.
Rule 3: a tombstone hides every shared fact of its thing whose epoch is not after its own. No clock takes part: a late
    tombstone of an ended epoch changes nothing. What loses to a hidden fact is hidden with it, so no loser is ever kept.
Rule 4: the order is total: two events with one id (an equivocation) are ordered by their bytes. So the fold over it is
    a join: any order, any number of times, one state.
"""

from __future__ import annotations

from typing import Final

from dsmt.event.envelope import Event
from dsmt.event.payload import payload

MAX_STEP: Final = 2**20
"""How far above what is held the epoch and the version of a shared fact may be (A3)."""
Key = tuple[int, int, int, str, int, int]


def rank(event: Event) -> Key:
    """A key that is smaller for the fact that wins; equal only for events with one id."""
    if event.version is None or event.epoch is None:
        return (-event.incarnation, -event.sequence, 0, event.source, 0, 0)
    return (-event.epoch, -event.version, event.time, event.source, event.incarnation, event.sequence)


def newer(a: Event, b: Event) -> bool:
    """Whether fact `a` wins over fact `b` of the same topic."""
    above, below = rank(a), rank(b)
    return above < below or (above == below and a != b and payload(a) < payload(b))


def is_over(fact: Event, ended: int) -> bool:
    """Whether a fact is a shared one of an epoch that has ended, when `ended` is the last one of its thing that has."""
    return fact.epoch is not None and fact.epoch <= ended
