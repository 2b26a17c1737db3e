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


def register(fold: Fold | None = None, topic: str = SLOT, *, void: tuple[SignedEvent, ...] = ()) -> Register:
    return Register(topic, lambda one: one in void, fold)


def taken(*events: SignedEvent, void: tuple[SignedEvent, ...] = ()) -> Register:
    known = register(void=void)
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
    register(fold).bury(tombstone(5))
    assert not register(fold).take(fact(9, 9))
    assert register(fold).held is None


def test_what_a_void_tombstone_hid_is_buried_no_more_and_what_was_hidden_before_it_stays_so() -> None:
    grave = tombstone(5, epoch=2)
    known = taken(fact(9, 4, 2), grave)
    known.exhume()
    assert known.buried
    known = taken(fact(9, 4, 2), grave, void=(grave,))
    assert known.buried
    known.exhume()
    assert (known.held, known.buried) == (fact(9, 4, 2), False)
    assert not known.take(fact(8, 3, 2)), "what is held orders what comes, as before"
    assert known.take(fact(10, 6, 2))
    fold = Fold()
    register(fold).bury(grave)
    register(fold, void=(grave,)).exhume()
    assert not register(fold).take(fact(9, 9)), "it is of the epoch before"


def test_a_fact_whose_time_is_over_is_none_for_all_who_share_its_fold() -> None:
    fold = Fold()
    known, other = register(fold), register(fold, "service/web/slot/app/1")
    known.expire(START_MS)
    assert known.take(brief(1, 0, 1000))
    assert (register(fold).held, other.held) == (known.held, None)
    known.expire(START_MS + 500)
    assert known.held is not None
    known.expire(START_MS + 5000)
    assert known.held is register(fold).held is None


def test_what_another_has_taken_meanwhile_stays_when_the_one_before_it_is_over() -> None:
    fold = Fold()
    known, other = register(fold), register(fold)
    known.take(brief(1, 0, 1000))
    assert other.take(fact(2, 1))
    known.expire(START_MS + 5000)
    assert (known.held, register(fold).held) == (None, fact(2, 1))


def test_what_is_held_by_the_word_of_a_key_that_has_ended_holds_against_nobody_and_wins_over_nobody() -> None:
    thief, owner = fact(9, 4), fact(2, 1)
    for order in permutations((thief, owner)):
        known = taken(*order, void=(thief,))
        assert (known.held, known.is_disowned) == (owner, False)
    known = taken(thief, void=(thief,))
    assert (known.held, known.is_disowned, known.buried) == (thief, True, False)


def test_what_nobody_has_said_again_orders_nothing_until_another_fact_comes() -> None:
    thief = fact(9, 4)
    known = taken(thief, void=(thief,))
    known.abandon()
    assert (known.held, known.buried) == (thief, True)
    assert known.take(fact(2, 1))
    assert (known.held, known.buried) == (fact(2, 1), False)


def test_what_an_agent_has_heard_gives_way_to_what_is_newer_and_believed_and_what_nobody_believes_to_any_that_is() -> None:
    old, new = fact(1, 1), fact(2, 2)
    assert [register().is_news(*pair) for pair in ((new, old), (old, new))] == [True, False]
    assert register(void=(new,)).is_news(old, new), "the thief's word is later"
    assert not register(void=(new,)).is_news(new, old)
    assert [register(void=(old, new)).is_news(*pair) for pair in ((new, old), (old, new))] == [True, False]
