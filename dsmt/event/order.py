"""Fact order: which of two facts of one topic is the retained one (SEMANTICS A1, A3; E3).

Rule 1: owned (no version): the greater (incarnation, sequence) wins.
Rule 2: shared: the greater version wins, then the EARLIER time, then the lower source, then the lower incarnation and
    sequence. Among siblings of one version the stale writer is by nature the later one, so the first successor wins.
Rule 3: a tombstone hides every shared fact below its subtree whose time is not after its own. Of two tombstones of
    one subtree the LATER wins, whatever their versions: it hides all that the other does, and nothing comes back.
Rule 4: the order is total: two events with one id (an equivocation) are ordered by their bytes. So the fold over it is
    a join: any order, any number of times, one state.
"""

from __future__ import annotations

from dsmt.event.codec import payload
from dsmt.event.envelope import Event

Key = tuple[int, int, int, str, int, int]


def rank(event: Event) -> Key:
    """A key that is smaller for the fact that wins; equal only for events with one id."""
    if event.version is None:
        return (0, -event.incarnation, -event.sequence, event.source, 0, 0)
    if event.buries:
        return (-event.time, -event.version, 0, event.source, event.incarnation, event.sequence)
    return (-event.version, event.time, 0, event.source, event.incarnation, event.sequence)


def newer(a: Event, b: Event) -> bool:
    """Whether fact `a` wins over fact `b` of the same topic."""
    above, below = rank(a), rank(b)
    return above < below or (above == below and a != b and payload(a) < payload(b))


def hides(tombstone: Event, fact: Event) -> bool:
    """Whether a tombstone ends a shared fact; an event that is no tombstone ends nothing."""
    subtree = tombstone.buries
    return subtree != "" and fact.version is not None and fact.topic.startswith(subtree) and fact.time <= tombstone.time
