"""What an operator says of a slot, after what was said before."""

import msgspec
import pytest

from dsmt.event.records import Hold, SlotControl
from dsmt.operations.controlling import following
from tests.controllers.build import Realm, key, web

HOLD = Hold(by="bob", at_ms=1, reason="")


def running() -> Realm:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(1))
    realm.settle(seconds=1)
    return realm.after(100)


def say(realm: Realm, **about: object) -> SlotControl:
    """Say something of the slot, as every command does; what was said."""
    will = msgspec.structs.replace(following(realm.view.slot(key())), **about)
    realm.say("operator/alice", "service/web/control/app/0", will)
    return will


def move(realm: Realm, to: str = "") -> SlotControl:
    return say(realm, move=to, move_number=following(realm.view.slot(key())).move_number + 1)


@pytest.mark.parametrize("word", [{"restart": 1}, {"hold": HOLD}, {"hold": None}])
def test_a_move_that_is_not_done_stands_whatever_else_is_said(word: dict[str, object]) -> None:
    realm = running()
    node = realm.slot().node
    move(realm)
    say(realm, **word)
    realm.settle(seconds=1)
    assert realm.slot().node != node
    assert realm.slot().restart == word.get("restart", 0)


def test_a_move_that_is_done_is_not_said_again() -> None:
    realm = running()
    move(realm)
    realm.settle(seconds=1)
    assert say(realm, restart=1) == SlotControl(restart=1, move=None, move_number=1)
    assert move(realm).move_number == 2


def test_numbers_go_on_from_what_is_done_where_the_former_will_was_lost() -> None:
    realm = running()
    move(realm)
    realm.settle(seconds=1)
    say(realm, restart=4)
    realm.settle(seconds=20)
    later = Realm()
    for _, event in realm.rows:
        if "/control/" not in event.event.topic:
            later.view.apply(event)
    assert following(later.view.slot(key())) == SlotControl(restart=4, move_number=1)
