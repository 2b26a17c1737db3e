"""Whose acknowledgement waits for another broker, for how long, and what it says then (rule D1)."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from dsmt.bus.broker.copied import SAFE_S, Copied
from dsmt.bus.broker.session import Session
from dsmt.bus.rules.routing import Router
from dsmt.bus.wire.frames import Acked
from tests.bus.test_router import interest

ACKED = Acked(ranges=(), level="stored", copies=1, synced=False, store="s", row=0, time_ms=0)


class Linked:
    """Acknowledgements of one source, and the brokers that read all that is stored."""

    def __init__(self, *brokers: Session) -> None:
        self.brokers, self.source = list(brokers), session("operator/a")
        self.sent: list[tuple[int, str, int]] = []
        self.left = False
        self.copied = Copied(
            lambda _, frame: self.sent.append((frame.row, frame.level, frame.copies)),
            lambda: self.brokers,
            left=lambda: self.left,
        )

    def say(self, row: int, now: float = 0.0, *, counts: bool = True) -> None:
        self.copied.acknowledge(self.source, replace(ACKED, row=row), now, counts=counts)


def session(name: str) -> Session:
    peer: Any = name
    return Session(peer, b"", name=name)


def test_what_another_broker_holds_is_safe_and_says_how_many_hold_it() -> None:
    b2, b3 = session("broker/b2"), session("broker/b3")
    at = Linked(b2, b3)
    for row in (1, 2, 3):
        at.say(row)
    assert at.sent == []
    at.copied.stored(b2, 2)
    assert at.sent == [(1, "safe", 2), (2, "safe", 2)]
    at.copied.stored(b3, 3)
    assert at.sent[2:] == [(3, "safe", 2)]


def test_what_one_was_not_sent_from_here_it_is_not_said_to_hold() -> None:
    b2 = session("broker/b2")
    at = Linked(b2)
    at.say(1, counts=False)
    at.say(2)
    at.copied.stored(b2, 2)
    assert at.sent == [(1, "stored", 1), (2, "safe", 2)]


def test_one_that_is_a_broker_no_more_acknowledges_what_another_one_holds_and_nothing_else() -> None:
    b2 = session("broker/b2")
    at = Linked(b2)
    at.say(1)
    at.say(2)
    at.left = True
    at.copied.stored(b2, 1)
    at.copied.tick(SAFE_S)
    assert not at.copied.waits
    at.brokers.clear()
    at.say(3, now=SAFE_S)
    at.copied.tick(3 * SAFE_S)
    assert at.sent == [(1, "safe", 2)]


def test_one_that_is_a_broker_no_more_waits_for_another_one_that_begins_to_read_it_anew() -> None:
    """As all do that hear of others: who says that it is one no more would never hear that this stands."""
    b2 = session("broker/b2")
    at = Linked(b2)
    at.left = True
    at.say(1)
    at.brokers.clear()
    at.say(2)
    at.copied.tick(0.0)
    at.brokers.append(b2)
    at.copied.stored(b2, 2)
    assert at.sent == [(1, "safe", 2), (2, "safe", 2)]


def test_a_broker_that_says_again_what_it_held_before_holds_no_less() -> None:
    """As for a subscription from further back, when all are read again."""
    b2 = session("broker/b2")
    at = Linked(b2)
    at.copied.stored(b2, 5)
    at.copied.stored(b2, 1)
    assert b2.stored == 5
    at.say(6)
    at.copied.tick(SAFE_S)
    at.copied.stored(b2, 6)
    assert at.sent == [(6, "stored", 1)]
    at.copied.stored(b2, 2)
    at.say(7)
    assert at.sent == [(6, "stored", 1)], "it has caught up: it is waited for again"


def test_who_does_not_count_keeps_nobody_from_waiting_for_who_does() -> None:
    """A broker that was removed reads on, and says that it has everything; or one that counts is behind for a moment."""
    b2, b3 = session("broker/b2"), session("broker/b3")
    at = Linked(b2)
    for row in (1, 2):
        at.say(row)
    at.copied.stored(b3, 2)
    assert at.sent == []
    at.copied.stored(b2, 1)
    assert at.sent == [(1, "safe", 2)]
    at.brokers.append(b3)
    at.copied.tick(SAFE_S / 2)
    assert at.sent[1:] == [(2, "safe", 2)]


def test_who_has_kept_others_waiting_is_not_waited_for_until_it_has_caught_up() -> None:
    b2 = session("broker/b2")
    at = Linked(b2)
    at.say(1)
    at.copied.tick(SAFE_S / 2)
    assert at.sent == []
    at.copied.tick(SAFE_S)
    at.say(2, SAFE_S)
    assert at.sent == [(1, "stored", 1), (2, "stored", 1)]
    at.copied.stored(b2, 1)
    at.say(3, SAFE_S)
    assert at.copied.waits


def test_nobody_is_waited_for_who_is_linked_no_more() -> None:
    at = Linked(session("broker/b2"))
    at.say(1)
    at.brokers.clear()
    at.copied.tick(0.0)
    assert at.sent == [(1, "stored", 1)]


def test_who_keeps_a_copy_and_is_live_is_found_among_those_who_do_and_not_among_all() -> None:
    router, one, two = Router(), object(), object()
    first, second = (interest(owner, 1, "/", live=live, copies=frozenset()) for owner, live in ((one, True), (two, False)))
    for made in (interest(object(), 1, "user/a", live=True), second, first):
        router.add(made)
    router._all = {}
    assert router.copying() == [one]
    router.set_live(second, live=True)
    assert router.copying() == [two, one]


def test_who_stores_nothing_more_for_long_stands_still_until_it_does() -> None:
    b2, b3 = session("broker/b2"), session("broker/b3")
    at = Linked(b2, b3)
    at.copied.tick(0.0)
    for second in range(1, 12):
        at.copied.stored(b2, second)
        at.copied.tick(float(second))
    assert [at.copied.stands_still(one, 11.0) for one in (b2, b3, at.source)] == [False, True, False]
    at.copied.stored(b3, 1)
    at.copied.tick(11.1)
    assert not at.copied.stands_still(b3, 11.1)
