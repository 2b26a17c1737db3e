"""Which slot fact a node obeys, in whatever order facts and tombstones come."""

from itertools import permutations

from dsmt.agents.greatest import Greatest
from dsmt.event.envelope import SignedEvent
from dsmt.event.records import Slot, Tombstone
from tests.controllers.build import START_MS, signed


def fact(version: int, at_ms: int) -> SignedEvent:
    record = Slot(node="n1", spec="controller/c1@1:1", revision=1, desired="running")
    return signed("controller/c1", "service/web/slot/app/0", record, version=version, time_ms=START_MS + at_ms)


def tombstone(at_ms: int) -> SignedEvent:
    record = Tombstone(by="alice", reason="")
    return signed("operator/alice", "tombstone/service/web", record, version=1, time_ms=START_MS + at_ms)


def taken(*events: SignedEvent) -> Greatest:
    known = Greatest()
    for one in events:
        known.bury(one) if one.event.buries else known.take(one)
    return known


def test_what_comes_after_a_tombstone_is_held_in_every_order() -> None:
    old, older, grave, new, newest = fact(9, 1), fact(7, 2), tombstone(5), fact(1, 8), fact(2, 9)
    for order in permutations((old, older, grave, new, newest)):
        known = taken(*order)
        assert (known.held, known.buried) == (newest, False)


def test_what_a_tombstone_hid_is_held_as_buried_until_something_else_comes() -> None:
    known = taken(fact(9, 1))
    assert known.bury(tombstone(5))
    assert (known.held, known.buried) == (fact(9, 1), True)
    assert not known.bury(tombstone(6))
    assert not known.take(fact(10, 4))
    assert known.take(fact(1, 8))
    assert not known.buried


def test_a_tombstone_changes_nothing_of_what_came_after_it() -> None:
    known = taken(fact(3, 8))
    assert not known.bury(tombstone(5))
    assert not known.buried
    assert not Greatest().bury(tombstone(5))
