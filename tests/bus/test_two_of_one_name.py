"""Two processes of one name (rule A11): who takes the name back is another one, who was started anew is not."""

from __future__ import annotations

from typing import Any

from dsmt.bus.rules.presence import EXCHANGE_WINDOW, EXCHANGES, FORGET_AFTER, RENEW_AFTER, Presence
from dsmt.event.kinds.broker import SessionFact
from tests.bus.attached import attached

NAME = "node/n1"
ONE_INCARNATION: dict[str, Any] = {"key": "ab", "incarnation": 7, "claimed": 7}


class Door:
    """A broker's presence, at which processes attach under one name while an earlier attachment is open."""

    def __init__(self) -> None:
        self.presence = Presence(0.0)
        self.now = 0.0
        self.incarnation = 0

    def attach(self, claimed: int) -> int:
        """Attach with the incarnation that a process says it has; the one that it is given."""
        self.now += 1.0
        self.incarnation = max(claimed, self.incarnation + 1)
        own = self.incarnation
        who = attached(NAME, attachment=own, key="ab", incarnation=own, claimed=claimed)
        self.presence.opened(who, self.now, int(self.now * 1000))
        return own

    @property
    def contested(self) -> bool:
        return self.presence.contested(NAME, 1)


def test_a_process_that_is_killed_and_started_often_is_not_two_even_when_nobody_heard_of_its_deaths() -> None:
    door = Door()
    for start in range(1, 20):
        door.attach(start * 1000)
    assert not door.contested


def test_a_process_that_attaches_again_is_not_two() -> None:
    door = Door()
    own = door.attach(1000)
    for _ in range(20):
        door.presence.opened(attached(NAME, attachment=own, incarnation=own, claimed=own), door.now, 0)
    assert not door.contested


def test_two_that_were_copied_while_they_ran_are_two_by_what_they_know_of_their_attachments() -> None:
    known = {"one": 1, "copy": 1}
    door = Door()
    door.presence.opened(attached(NAME, follows=0, **ONE_INCARNATION), 1.0, 1)
    turns = 0
    while not door.presence.contested(NAME, 1):
        who, turns = ("copy", "one")[turns % 2], turns + 1
        door.presence.opened(attached(NAME, attachment=1 + turns, follows=known[who], **ONE_INCARNATION), 1.0, 1)
        known[who] = 1 + turns
    assert turns == EXCHANGES + 1, "the first that comes knows of the last attachment, as who attaches again does"


def test_two_that_take_the_name_from_each_other_are_kept_out_at_the_third_turn() -> None:
    door = Door()
    one, other = door.attach(1000), door.attach(2000)
    turns = 0
    while not door.contested:
        one, other = other, door.attach(one)
        turns += 1
        assert turns <= EXCHANGES
    assert turns == EXCHANGES


def test_turns_that_are_far_apart_are_forgiven() -> None:
    door = Door()
    one, other = door.attach(1000), door.attach(2000)
    for _ in range(20):
        door.now += EXCHANGE_WINDOW / 2 - 1.0  # and one more second to attach
        one, other = other, door.attach(one)
    assert not door.contested


def test_processes_that_end_before_the_next_one_comes_take_no_turns() -> None:
    door = Door()
    one, other = door.attach(1000), door.attach(2000)
    for _ in range(20):
        door.presence.closed(NAME, door.incarnation, "peer", door.now, 0)
        one, other = other, door.attach(one)
    assert not door.contested


def test_turns_count_also_late_in_a_broker_s_life() -> None:
    door = Door()
    door.now = 100 * EXCHANGE_WINDOW
    one, other = door.attach(1000), door.attach(2000)
    for _ in range(EXCHANGES):
        one, other = other, door.attach(one)
    assert door.contested


def contest() -> Door:
    """Two processes have taken turns, and the last one was sent away."""
    door = Door()
    one, other = door.attach(1000), door.attach(2000)
    while not door.contested:
        one, other = other, door.attach(one)
    return door


def kept_out(record: SessionFact | None) -> str | None:
    return None if record is None else record.kept_out or None


def newer(door: Door) -> SessionFact:
    """The true one attaches with a newer certificate."""
    own = door.incarnation + 1
    return door.presence.opened(attached(NAME, attachment=own, issued=2, key="cd", incarnation=own), door.now, 0)


def test_what_is_said_of_who_is_kept_out_names_the_key_until_a_newer_certificate_attaches() -> None:
    door = contest()
    door.now += 1.0
    assert kept_out(door.presence.closed(NAME, door.incarnation, "peer", door.now, 0)) == "ab"
    assert kept_out(newer(door)) is None
    assert kept_out(door.presence.closed(NAME, door.incarnation + 1, "peer", door.now, 0)) is None
    assert door.contested, "the former certificate is not let in, whatever became of the newer one"


def test_a_broker_that_was_restarted_keeps_both_out_until_a_newer_certificate_attaches() -> None:
    door = contest()
    record = door.presence.closed(NAME, door.incarnation, "peer", door.now, 0)
    assert record is not None
    door.presence = Presence(door.now)
    assert door.presence.restore(NAME, record, door.now, 0) is None, "a close of before is no silence here"
    assert (door.contested, door.presence.contested(NAME, 2)) == (True, False)
    assert kept_out(door.presence.record_of(NAME)) == "ab"
    door.presence.refused(NAME, door.now + 60.0)
    ((_, said),) = door.presence.tick(door.now + RENEW_AFTER + 1.0, 0, RENEW_AFTER)
    assert said == record


def test_when_the_key_is_revoked_that_is_said_no_more() -> None:
    door = contest()
    door.presence.closed(NAME, door.incarnation, "peer", door.now, 0)
    assert door.presence.settle(lambda _key, _source: False) == []
    ((source, record),) = door.presence.settle(lambda key, source: (source, key.hex()) == (NAME, "ab"))
    assert (source, record.state, kept_out(record)) == (NAME, "closed", None)
    assert not door.contested


def test_of_who_has_attached_with_another_key_before_the_former_is_revoked_nothing_is_said_for_that() -> None:
    door = contest()
    door.presence.closed(NAME, door.incarnation, "peer", door.now, 0)
    newer(door)
    assert door.presence.settle(lambda _key, _source: True) == []
    assert not door.contested


def test_who_is_kept_out_and_comes_again_keeps_no_dead_one_of_a_newer_certificate_alive() -> None:
    door = contest()
    door.presence.closed(NAME, door.incarnation, "peer", door.now, 0)
    newer(door)
    door.presence.tick(door.now, 0, door.now)
    door.presence.refused(NAME, door.now + 4.0)
    ((_, said),) = door.presence.tick(door.now + 5.0, 5000, 5.0)
    assert said.state == "silent"


def test_turns_of_before_do_not_count_once_the_key_is_revoked() -> None:
    door = contest()
    door.presence.settle(lambda _key, _source: True)
    one, other = door.attach(9000), door.attach(9500)
    for _ in range(EXCHANGES - 1):
        one, other = other, door.attach(one)
    assert not door.contested
    door.attach(one)
    assert door.contested


def test_it_is_said_again_before_its_fact_dies_for_as_long_as_somebody_comes() -> None:
    door = contest()
    door.presence.closed(NAME, door.incarnation, "peer", door.now, 0)
    said, began = [], door.now
    while door.now < began + 3 * FORGET_AFTER:
        door.now += RENEW_AFTER / 4
        if door.now < began + FORGET_AFTER:
            door.presence.refused(NAME, door.now)
        said += [(door.now - began, kept_out(record)) for _, record in door.presence.tick(door.now, 0, RENEW_AFTER / 4)]
    assert [key for _, key in said] == ["ab"] * len(said)
    assert FORGET_AFTER > said[0][0] > RENEW_AFTER
    assert said[-1][0] < 2 * FORGET_AFTER
    assert door.presence.record_of(NAME) is None
