"""Two processes of one name (rule A11): who takes the name back is another one, who was started anew is not."""

from __future__ import annotations

from dsmt.bus.rules.presence import EXCHANGE_WINDOW, EXCHANGES, Presence

NAME = "node/n1"


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
        self.presence.opened(
            NAME,
            attachment=self.incarnation,
            issued=1,
            incarnation=self.incarnation,
            claimed=claimed,
            pid=1,
            version="test",
            address="",
            now=self.now,
            now_ms=int(self.now * 1000),
        )
        return self.incarnation

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
        door.presence.opened(
            NAME,
            attachment=own,
            issued=1,
            incarnation=own,
            claimed=own,
            pid=1,
            version="test",
            address="",
            now=door.now,
            now_ms=0,
        )
    assert not door.contested


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
        door.now += EXCHANGE_WINDOW / 2
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
