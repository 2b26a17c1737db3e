"""A reader that is told of the end of an operator's key while something else happens (rule J3, `resaying` rule 4)."""

from __future__ import annotations

from dsmt.controllers.loop.echoes import ECHO_S
from dsmt.controllers.loop.offering import Offering
from dsmt.controllers.loop.resaying import LEFT_S, Resaying
from dsmt.controllers.unknown_words import UNKNOWN_MS
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.kinds.service import SpecFact
from dsmt.ports.bus import Arrived, Bookmark, Complete, Cursor, Reattached
from dsmt.view import View

from .build import Realm, spec, web
from .hand import Hand

EVIL, GRAVE = "service/evil/spec", "tombstone/service/old"


class Told(Hand):
    """It has read a service, and one that `eve` has said where `has_read`; then it is told of the end of eve's key."""

    def __init__(self, *, has_read: bool) -> None:
        super().__init__()
        self.revocations, realm = 0, Realm("n1", "n2")
        resaying = Resaying("controller/c1", lambda one: one.event.source.endswith("/eve"), lambda: self.revocations)
        self.runner._resaying = resaying
        self.runner._offering = Offering(self.bus.offer, self.heard.append, resaying.is_void, resaying.is_disowned)
        self.runner._fold([Reattached("broker/b1", "s1")])
        realm.apply(web(2))
        self.give(*(signed for _, signed in realm.rows))
        self.grave = realm.say("controller/eve", GRAVE, Tombstone(by="eve", reason=""))
        self.void = realm.say("operator/eve", "tombstone/service/older", Tombstone(by="eve", reason=""))
        self.evil: SignedEvent = realm.say("operator/eve", EVIL, SpecFact(spec=spec(web(1)), by="eve", reason=""))
        if has_read:
            self.give(self.grave, self.void, self.evil)
        assert self.runner._fold([Complete(Cursor("s1", 100, 0), whole=True)])
        self.revocations = 1


def test_what_had_been_checked_before_and_waited_to_be_read_is_not_kept() -> None:
    hand = Told(has_read=False)
    mark = Bookmark(Cursor("s1", 101, 0), whole=True)
    assert hand.runner._fold([mark])
    assert not hand.runner._fold([Arrived(hand.evil, 101, live=True), mark])
    assert hand.runner.view.winner(EVIL) is None


def test_who_is_told_at_another_store_brings_it_what_was_held_and_is_not_void_and_knows_where_it_is() -> None:
    hand = Told(has_read=True)
    assert hand.runner._fold([Reattached("broker/b2", "s2")])
    offered = {signed.event.topic for signed in hand.bus.offered}
    assert "service/web/spec" in offered
    assert EVIL not in offered
    assert hand.runner._broker == "broker/b2"


def test_who_begins_anew_says_again_what_it_does_not_read_again_until_somebody_has() -> None:
    """A controller's tombstone of a service: at its own broker it would hide that for good. An operator's is void."""
    hand = Told(has_read=True)
    assert not hand.runner._fold([Bookmark(Cursor("s1", 101, 0), whole=True)])
    assert hand.runner.view.winner(GRAVE) is None
    resaying, now = hand.runner._resaying, hand.clock.now

    def due(view: View, at: float) -> list[str]:
        return [one.topic for one in resaying.due(view, at, waits=lambda _topic: 0.0, besides=())]

    assert due(View(), now) == [GRAVE]
    assert due(View(), now + 1) == []
    assert due(View(), now + ECHO_S) == [GRAVE], "what was refused, or lost, is said once more"
    said, realm = View(), Realm()
    realm.view.apply(hand.grave)
    said.apply(realm.say("controller/c2", GRAVE, Tombstone(by="eve", reason="")))
    assert due(said, now + 2 * ECHO_S) == []
    again = Told(has_read=True)
    assert not again.runner._fold([Bookmark(Cursor("s1", 101, 0), whole=True)])
    resaying = again.runner._resaying
    assert due(View(), now + LEFT_S) == []


def test_who_had_nothing_left_to_say_says_again_what_had_waited_to_be_read() -> None:
    hand = Told(has_read=False)
    mark, resaying = Bookmark(Cursor("s1", 101, 0), whole=True), hand.runner._resaying
    assert hand.runner._fold([mark])
    assert resaying.due(hand.runner.view, hand.clock.now, waits=lambda _topic: 0.0, besides=()) == []
    waited = [Arrived(one, 101, live=True) for one in (hand.grave, hand.evil)]
    assert not hand.runner._fold([*waited, mark])
    due = resaying.due(View(), hand.clock.now, waits=lambda _topic: 0.0, besides=())
    assert [one.topic for one in due] == [GRAVE]


def test_slots_of_a_void_revision_get_the_one_that_stands_when_the_later_word_was_waited_for() -> None:
    """Who folds anew sees that they follow a later spec than is known, which may be on its way (A4)."""
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.settle()
    before, stood = realm.view.winner("service/web/spec"), realm.view.copy()
    void = realm.say(
        "operator/eve", "service/web/spec", SpecFact(spec=spec(web(1, component="env: {A: b}")), by="eve", reason="")
    )
    realm.settle()
    assert realm.slot(0).revision == 2
    held, realm.view = [one for one in realm.view.winners() if one != void], stood
    for one in held:
        realm.view.apply(one)
    assert realm.view.winner("service/web/spec") == before
    realm.after(UNKNOWN_MS / 1000 - 2).settle()
    assert realm.slot(0).revision == 2
    realm.after(2).settle()
    assert realm.slot(0).revision == 1
