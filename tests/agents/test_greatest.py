"""Which slot fact a node obeys, in whatever order facts and tombstones come."""

from itertools import permutations

from dsmt.agents.rules.register import Register
from dsmt.event.envelope import SignedEvent
from dsmt.event.fold import Fold
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.kinds.slot import Slot
from tests.controllers.signing import START_MS, signed

SLOT = "service/web/slot/app/0"


def fact(version: int, at_ms: int, epoch: int = 1) -> SignedEvent:
    record = Slot(node="n1", spec="controller/c1@1:1", revision=1, desired="running")
    return signed("controller/c1", SLOT, record, version=version, epoch=epoch, time_ms=START_MS + at_ms)


def brief(version: int, at_ms: int, ttl_ms: int) -> SignedEvent:
    record = Slot(node="n1", spec="controller/c1@1:1", revision=1, desired="running")
    return signed("controller/c1", SLOT, record, version=version, epoch=1, time_ms=START_MS + at_ms, ttl=ttl_ms)


def tombstone(at_ms: int, epoch: int = 1) -> SignedEvent:
    record = Tombstone(by="alice", reason="")
    return signed("operator/alice", "tombstone/service/web", record, version=1, epoch=epoch, time_ms=START_MS + at_ms)


def taken(*events: SignedEvent) -> Register:
    known = Register(SLOT)
    for one in events:
        known.bury(one) if one.event.ends else known.take(one)
    return known


def test_what_is_of_the_epoch_after_a_tombstone_is_held_in_every_order() -> None:
    old, older, grave, new, newest = fact(9, 1), fact(7, 2), tombstone(5), fact(1, 8, 2), fact(2, 3, 2)
    for order in permutations((old, older, grave, new, newest)):
        known = taken(*order)
        assert (known.held, known.buried) == (newest, False)


def test_what_a_tombstone_hid_is_held_as_buried_until_something_of_the_next_epoch_comes() -> None:
    known = taken(fact(9, 1), tombstone(5))
    assert (known.held, known.buried) == (fact(9, 1), True)
    assert not known.take(fact(10, 40))
    assert known.take(fact(1, 8, 2))
    assert not known.buried


def test_a_late_tombstone_changes_nothing_of_what_came_after_it() -> None:
    known = taken(fact(3, 8, 2), tombstone(500))
    assert not known.buried
    assert not taken(tombstone(5)).buried


def test_what_was_hidden_once_never_begins_again_though_nobody_holds_it_any_more() -> None:
    fold = Fold()
    Register(SLOT, fold).bury(tombstone(5))
    assert not Register(SLOT, fold).take(fact(9, 9))
    assert Register(SLOT, fold).held is None


def test_what_a_void_tombstone_hid_is_buried_no_more_and_what_was_hidden_before_it_stays_so() -> None:
    grave = tombstone(5, epoch=2)
    known = taken(fact(9, 4, 2), grave)
    known.exhume(lambda _: False)
    assert known.buried
    known.exhume(lambda one: one is grave)
    assert (known.held, known.buried) == (fact(9, 4, 2), False)
    assert known.take(fact(10, 6, 2))
    fold = Fold()
    Register(SLOT, fold).bury(grave)
    Register(SLOT, fold).exhume(lambda one: one is grave)
    assert not Register(SLOT, fold).take(fact(9, 9)), "it is of the epoch before"


def test_a_fact_whose_time_is_over_is_none_for_all_who_share_its_fold() -> None:
    fold = Fold()
    known, other = Register(SLOT, fold), Register("service/web/slot/app/1", fold)
    known.expire(START_MS)
    assert known.take(brief(1, 0, 1000))
    assert (Register(SLOT, fold).held, other.held) == (known.held, None)
    known.expire(START_MS + 500)
    assert known.held is not None
    known.expire(START_MS + 5000)
    assert known.held is Register(SLOT, fold).held is None


def test_what_another_has_taken_meanwhile_stays_when_the_one_before_it_is_over() -> None:
    fold = Fold()
    known, other = Register(SLOT, fold), Register(SLOT, fold)
    known.take(brief(1, 0, 1000))
    assert other.take(fact(2, 1))
    known.expire(START_MS + 5000)
    assert (known.held, Register(SLOT, fold).held) == (None, fact(2, 1))
