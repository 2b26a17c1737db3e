"""What is said to NATS at once, as much as a server takes, and what is left of a page for who folds."""

from __future__ import annotations

from collections import deque

import pytest

from dsmt.bus.nats.sender import BATCH, BATCH_BYTES, _batch
from dsmt.bus.nats.streams import StreamMessage
from dsmt.bus.nats.subscription import _conflated
from dsmt.event.envelope import SignedEvent
from tests.bus.stored import append


def batches(*said: SignedEvent) -> list[list[int]]:
    """The sequences of each batch."""
    waiting, found = deque(said), list[list[int]]()
    while waiting:
        found.append([due.signed.event.sequence for due in _batch(waiting)])
    return found


@pytest.mark.parametrize(("size", "most"), [(100, BATCH), (60_000, BATCH_BYTES // 60_000), (BATCH_BYTES + 1, 1)])
def test_a_batch_holds_as_many_events_and_bytes_as_a_server_takes_and_one_event_in_any_case(size: int, most: int) -> None:
    found = batches(*(append(n, size=size).signed for n in range(1, 2 * most + 2)))
    assert [len(one) for one in found] == [most, most, 1]
    assert [n for one in found for n in one] == list(range(1, 2 * most + 2))


def test_what_is_judged_by_what_stands_before_it_is_in_no_batch_with_that() -> None:
    shared, other = append(1, topic="user/a", version=1), append(2, topic="user/b", version=1)
    again, signal = append(3, topic="user/a", version=2), append(4, topic="user/a")
    ends, after = append(5, topic="tombstone/service/web", version=1), append(6, topic="user/c")
    said = [one.signed for one in (shared, other, again, signal, ends, after)]
    assert batches(*said) == [[1, 2], [3], [4, 5], [6]]


def test_of_a_page_who_folds_takes_the_last_of_each_sources_facts_on_a_topic_and_every_signal() -> None:
    subjects = ["s.r.f.a", "s.r.n.a", "s.r.f.b", "s.r.n.a", "s.r.f.a", "s.r.o.a", "s.r.o.a", "s.r.s.a", "s.r.s.a"]
    page = [StreamMessage(subject, row, 0, b"") for row, subject in enumerate(subjects)]
    assert [one.row for one in _conflated(page)] == [1, 2, 3, 4, 6, 7, 8]
