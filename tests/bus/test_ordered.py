"""What one subscription delivers, whatever comes, in any order, and is answered, late or not at all (rules B1, B4)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmt.bus.rules.follower import Closing, MissingPart
from dsmt.bus.rules.ordered import Ordered
from dsmt.ports.bus import Arrived, Bookmark, Complete, Cursor, Delivery, Notice
from tests.bus.test_reader import chain

Place = tuple[str, int, int]
"""Topic, incarnation and number."""


def place(one: Arrived) -> Place:
    event = one.signed.event
    return event.topic, event.incarnation, event.chain.number


class Reader:
    """A subscription, what it was given, and what it has delivered; its timers fire in time."""

    def __init__(self, declares: dict[int, tuple[int, int]]) -> None:
        lines = [(incarnation, topic) for incarnation in (1, 2) for topic in ("user/a", "user/b")]
        made = {one: chain(9, incarnation=one[0], topic=one[1], declares=declares) for one in lines}
        self.runs = made
        self.every = [one for run in made.values() for one in run]
        self.ordered, self.now = Ordered(follows=True), 0.0
        self.out: list[Delivery] = []
        self.asked: list[MissingPart] = []
        self.came: list[Place] = []
        self.tokens = 0

    def passes(self, seconds: float) -> None:
        self.now += seconds
        while self.ordered.deadline is not None and self.ordered.deadline <= self.now:
            self.out += self.ordered.timer(self.now)

    def event(self, one: Arrived) -> None:
        self.came.append(place(one))
        self.out += self.ordered.event(one, self.now)
        self.asked += self.ordered.wanted()

    def answered(self, wanted: MissingPart, there: list[Arrived], word: str) -> None:
        self.asked.remove(wanted)
        self.came += map(place, there)
        closing = Closing(wanted.source, wanted.incarnation, wanted.topic, wanted.before, word)
        self.out += self.ordered.repaired(closing, there, self.now)
        self.asked += self.ordered.wanted()

    def moves(self) -> None:
        self.ordered.again()
        self.asked = self.ordered.wanted()

    def marked(self) -> None:
        self.tokens += 1
        self.out += self.ordered.mark(Bookmark(Cursor("s", 1, 1), whole=True, token=self.tokens))

    def step(self, data: Any) -> None:
        self.passes(data.draw(st.sampled_from([0.0, 0.05, 0.3])))
        act = data.draw(st.sampled_from(["event"] * 6 + ["answer", "move", "mark"]))
        if act == "event":
            self.event(data.draw(st.sampled_from(self.every)))
        elif act == "move":
            self.moves()
        elif act == "mark":
            self.marked()
        elif self.asked:
            wanted = data.draw(st.sampled_from(self.asked))
            run = self.runs[wanted.incarnation, wanted.topic]
            there = [one for one in run if wanted.after < one.signed.event.sequence < wanted.before]
            some = [one for one in there if data.draw(st.booleans())]
            self.answered(wanted, some, data.draw(st.sampled_from(["lost", "trimmed", "more"])))

    def ends(self) -> None:
        """All is answered in the end."""
        self.passes(1.0)
        while self.asked:
            self.answered(self.asked[0], [], "lost")
        assert self.ordered.deadline is None


def told(out: list[Delivery]) -> tuple[list[Place], list[Place], set[Place]]:
    """What was told to be missing, what was closed, and what is open in the end."""
    gaps: list[Place] = []
    closed: list[Place] = []
    left: set[Place] = set()
    for one in out:
        if isinstance(one, Notice):
            low, high = (one.fields.get(ends, one.fields.get("number")) for ends in ("from", "to"))
            places = [(one.fields["topic"], one.fields["incarnation"], number) for number in range(low, high + 1)]
            word = one.type.removeprefix("dsmt.notice.")
            assert word in ("gap", "filled", "lost", "trimmed", "declared")
            if word == "gap":
                gaps += places
                left.update(places)
            else:
                closed += places if word != "filled" else []
                left.difference_update(places)
    return gaps, closed, left


@given(st.sampled_from([{}, {7: (2, 4)}, {6: (4, 5)}]), st.integers(5, 50), st.data())
def test_whatever_comes_each_event_is_delivered_once_and_each_gap_is_told_and_closed_once(declares, steps, data):
    reader = Reader(declares)
    for _ in range(steps):
        reader.step(data)
    reader.ends()
    delivered = [place(one) for one in reader.out if isinstance(one, Arrived)]
    assert sorted(delivered) == sorted(set(reader.came)), "all that came, once"
    gaps, closed, left = told(reader.out)
    assert not left
    assert len(gaps) == len(set(gaps))
    assert len(closed) == len(set(closed))
    for line in {one[:2] for one in reader.came}:
        numbers = [one[2] for one in reader.came if one[:2] == line]
        behind = {(*line, number) for number in range(numbers[0], max(numbers) + 1)}
        assert behind <= {*delivered, *closed}, "of what is behind the baseline nothing is missing without a word"
    assert [one.token for one in reader.out if isinstance(one, Bookmark)] == [*range(1, reader.tokens + 1)]


def mark(row: int, token: int | None = None, *, whole: bool = True) -> Bookmark:
    return Bookmark(Cursor("s", row, row), whole=whole, token=token)


COMPLETE = Complete(Cursor("s", 0, 0), whole=True)


@pytest.mark.parametrize(
    ("came", "waited"),
    [
        ([mark(1)], [mark(1)]),
        ([mark(1), mark(2, whole=False), mark(3)], [mark(3)]),
        ([mark(1, 5), mark(2), mark(3, whole=False)], [mark(3, 5, whole=False)]),
        ([mark(1), mark(2, 5)], [mark(2, 5)]),
        ([mark(1, 5), mark(2, 6)], [mark(1, 5), mark(2, 6)]),
        ([COMPLETE, mark(1), mark(2)], [COMPLETE, mark(2)]),
        ([mark(1), COMPLETE], [mark(1), COMPLETE]),
    ],
)
def test_marks_wait_for_what_is_held_back_and_the_last_stands_for_those_before_it_with_their_token(
    came: list[Complete | Bookmark], waited: list[Delivery]
) -> None:
    first, _, third = chain(3)
    ordered = Ordered(follows=True)
    assert [*ordered.event(first, 0.0), *ordered.mark(came[0])] == [first, came[0]], "nothing is held back"
    assert ordered.event(third, 0.0) == []
    assert [one for each in came for one in ordered.mark(each)] == []
    assert ordered.deadline is not None
    told = ordered.timer(ordered.deadline)
    assert told[-len(waited) - 1 :] == [third, *waited]


def test_a_mark_waits_for_all_that_is_held_back_before_it_and_not_for_the_first_of_that_alone() -> None:
    ordered, (first, _, third), (other, _, last) = Ordered(follows=True), chain(3), chain(3, topic="user/b")
    for one in (first, third):
        ordered.event(one, 0.0)
    for one in (other, last):
        ordered.event(one, 0.1)
    assert ordered.mark(mark(1)) == []
    assert ordered.deadline is not None
    told = ordered.timer(ordered.deadline)
    assert (third in told, last in told, mark(1) in told) == (True, False, False)
    assert ordered.timer(ordered.deadline)[-2:] == [last, mark(1)]


def test_what_came_only_because_it_is_addressed_here_is_delivered_once_by_its_id() -> None:
    ordered = Ordered(follows=True)
    one, two, *_ = chain(2)
    assert [ordered.mail(each) for each in (one, two, one)] == [[one], [two], []]
