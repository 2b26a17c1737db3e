"""What controllers have said, and no decision names, is told of a history, and nothing that an honest one may leave open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf

import pytest
from msgspec.structs import replace

from dsmt.controllers.replay import Rows
from dsmt.event.envelope import SignedEvent
from dsmt.event.slots import SlotKey
from dsmt.operations.offline.undecided import SOON_MS, undecided
from tests.controllers.scenario import Life

LATER_MS = 10 * SOON_MS
History = list[tuple[int, SignedEvent]]


def numbered(rows: Sequence[tuple[int, SignedEvent]]) -> History:
    """As sources chain their topics: the numbers of each begin with 1."""
    found, numbers = [], Counter[tuple[str, str]]()
    for row, signed in rows:
        event = signed.event
        numbers[event.source, event.topic] += 1
        chain = event.chain._replace(number=numbers[event.source, event.topic])
        found.append((row, replace(signed, event=replace(event, chain=chain))))
    return found


def lived(seed: int, *, thief: str = "", steps: int = 30) -> tuple[History, SignedEvent | None]:
    """A history, and what a thief of a controller's key said in its middle, who decides nothing."""
    life, said = Life(seed), None
    for n, _ in enumerate(life.live(2 * steps)):
        keys = placed(life)
        if thief and n >= steps and said is None and keys:
            said = claim(life, thief, keys[0])
    return numbered(life.realm.rows), said


def placed(life: Life) -> list[SlotKey]:
    known = life.keys()
    return [key for key in known if life.realm.view.slot(key).fact is not None]


def claim(life: Life, thief: str, key: SlotKey) -> SignedEvent:
    topic = key.topic
    winner = life.realm.view.winner(topic)
    assert winner is not None
    return life.realm.say(f"controller/{thief}", topic, {**winner.event.data, "moves": 77})


def told(rows: History, *, ended: str = "", until_ms: int = 0) -> list[str]:
    """The ids of what is told; the keys of the source `ended` were revoked."""
    last_ms = rows[-1][1].event.time_ms
    found = undecided(Rows(rows), lambda one: 1 if one.event.source == ended else inf, until_ms or last_ms + LATER_MS)
    return [str(one.id) for one in found]


@pytest.mark.parametrize("seed", range(4))
def test_of_honest_controllers_nothing_is_told_wherever_the_file_begins_and_ends(seed: int) -> None:
    rows, _ = lived(seed)
    ends = [n for n, (_, signed) in enumerate(rows, 1) if signed.event.type == "dsmt.decision"]
    assert len(ends) > 5
    for first in range(0, len(rows), 7):
        assert told(rows[first:]) == []
    for end in ends:
        assert told(rows[:end]) == []


@pytest.mark.parametrize("thief", ["c1", "c9"])
def test_what_a_stolen_key_says_beside_decisions_or_without_any_is_told(thief: str) -> None:
    rows, said = lived(1, thief=thief)
    assert said is not None
    assert told(rows) == [str(said.id)]


def test_what_is_as_young_as_a_decision_that_is_still_to_come_is_not_told() -> None:
    rows, said = lived(1, thief="c9")
    assert said is not None
    at = said.event.time_ms
    assert told(rows, until_ms=at + SOON_MS - 1) == []
    assert told(rows, until_ms=at + SOON_MS + 1) == [str(said.id)]


def test_where_the_decision_was_trimmed_nothing_is_told() -> None:
    rows, _ = lived(2)
    decisions = [n for n, (_, signed) in enumerate(rows) if signed.event.type == "dsmt.decision"]
    for n in decisions[1:-1]:
        assert told([*rows[:n], *rows[n + 1 :]]) == []
    early = decisions[len(decisions) // 2]
    kept = [one for n, one in enumerate(rows) if n >= early or one[1].event.type != "dsmt.decision"]
    assert told(kept) == []


def test_what_a_revoked_key_had_said_is_said_again_and_that_is_no_decision() -> None:
    life = Life(1)
    for _ in life.live(30):
        pass
    key = placed(life)[0]
    said = claim(life, "c9", key)
    life.realm.say("controller/stand-in", key.topic, said.event.data)
    rows = numbered(life.realm.rows)
    again = str(rows[-1][1].id)
    assert again in told(rows)
    assert again not in told(rows, ended="controller/c9")
