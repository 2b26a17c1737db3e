"""A reader that is told of the end of an operator's key while something else happens (rule J3, `resaying` rule 4)."""

from __future__ import annotations

from dsmt.controllers.offering import Offering
from dsmt.controllers.resaying import Resaying
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.service import SpecFact
from dsmt.ports.bus import Arrived, Bookmark, Complete, Cursor, Reattached

from .build import Realm, spec, web
from .test_runner import Hand

EVIL = "service/evil/spec"


class Told(Hand):
    """It has read a service, and one that `eve` has said where `has_read`; then it is told of the end of eve's key."""

    def __init__(self, *, has_read: bool) -> None:
        super().__init__()
        self.revocations, realm = 0, Realm("n1", "n2")
        resaying = Resaying("controller/c1", lambda one: one.event.source == "operator/eve", lambda: self.revocations)
        self.runner._resaying = resaying
        self.runner._offering = Offering(self.bus.offer, self.heard.append, resaying.is_void)
        self.runner._fold([Reattached("broker/b1", "s1")])
        realm.apply(web(2))
        self.give(*(signed for _, signed in realm.rows))
        self.evil: SignedEvent = realm.say("operator/eve", EVIL, SpecFact(spec=spec(web(1)), by="eve", reason=""))
        if has_read:
            self.give(self.evil)
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
