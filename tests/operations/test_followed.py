"""What a verification follows: how much it keeps of each event."""

from __future__ import annotations

import os
import tracemalloc

from dsmt.event.envelope import ChainLink, Event, SignedEvent
from dsmt.event.hlc import hlc
from dsmt.operations.offline.followed import Followed

KEPT_BYTES = 400
"""Of each event: 0.16 GB of 400,000."""


def read_apart(number: int, leaf: bytes, previous: bytes) -> SignedEvent:
    """An event of which nothing is shared with another one, as each is that was read from a file."""
    slot = "web/app"
    source, topic = f"agent/n1/{slot}/0", f"service/{slot}/status"
    event = Event(
        source=source,
        incarnation=int("1800000000000"),
        sequence=number,
        chain=ChainLink(number, bytes(bytearray(previous))),
        type="dsmt.status",
        topic=topic,
        subject=topic,
        time=hlc(number),
        data={},
    )
    return SignedEvent(event, b"", leaf, bytes(bytearray(b"k" * 16)))


def test_of_each_event_hashes_and_numbers_are_kept_and_names_once():
    followed, previous, count = Followed(), bytes(32), 3000
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1, count + 1):
            leaf = os.urandom(32)
            assert followed.add(read_apart(number, leaf, previous), number)
            previous = leaf
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / count < KEPT_BYTES
    assert (followed.events, followed.chains(), followed.equivocations) == (count, [], [])


def test_an_event_that_links_to_another_one_than_stands_before_it_is_told():
    followed, first = Followed(), os.urandom(32)
    followed.add(read_apart(1, first, bytes(32)), 1)
    followed.add(read_apart(2, os.urandom(32), os.urandom(32)), 2)
    assert followed.chains() == []
    assert [one.message for one in followed.equivocations] == ["it does not link to #1 of service/web/app/status"]
