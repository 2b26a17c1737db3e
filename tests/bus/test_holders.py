"""What another broker had, and has handed on, by the words of all brokers on who is attached to them (rules D3, E1, E5)."""

from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.broker.lags import ALL
from dsmt.bus.broker.others.holders import LASTING_MS, Holders
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.kinds.realm import BROKERS
from dsmt.event.records import to_data
from dsmt.ports.realm import BrokerAddress
from dsmt.trust.keys import key_id_of

KEYS = {f"broker/b{n}": bytes([n]) * 32 for n in range(1, 5)}
NAMES = {key_id_of(key): name for name, key in KEYS.items()}
NOW_MS = 10 * LASTING_MS
B2 = BrokerAddress("", KEYS["broker/b2"])


def said(state: str = "open", since_ms: int = 0, *, attachment: int = 1, **about: Any) -> SessionFact:
    told: Any = {"state": state, "how": None, "pid": None, **about}
    return SessionFact(attachment=attachment, since_ms=since_ms, incarnation=1, version="", address="", **told)


def holders(words: dict[tuple[str, str], SessionFact], had: dict[str, int], *, leaf: str = "") -> Holders:
    """As b1 knows them: words by who says them and of whom, and the rows that each had: one more each ms of the first s."""
    topics = {f"broker/{by}/session/{of}": word for (by, of), word in words.items()}

    def winner(topic: str) -> Any:
        event = SimpleNamespace(data=to_data(topics[topic])) if topic in topics else None
        return None if event is None else SimpleNamespace(read=lambda: SimpleNamespace(event=event))

    made: Any = Holders(
        "broker/b1",
        SimpleNamespace(winner=winner, meta=None),  # type: ignore[arg-type]
        SimpleNamespace(sole_name=NAMES.get),  # type: ignore[arg-type]
        SimpleNamespace(),  # type: ignore[arg-type]
        SimpleNamespace(),  # type: ignore[arg-type]
        now_ms=lambda: NOW_MS,
    )
    made.words.rows.update({f"{BROKERS}b{n}": None for n in range(1, 5)})
    made.leaves = {leaf: KEYS[leaf]} if leaf else {}
    others = [BrokerAddress("", key) for name, key in KEYS.items() if name != "broker/b1"]
    made.readings = SimpleNamespace(
        names=[],
        known=others,
        whose=lambda store: KEYS[store],
        was_leaf=lambda _: False,
        read_ms=lambda public: NOW_MS if public != B2.public else 0,
    )
    made.lags = SimpleNamespace(had=lambda public, at_ms: had[NAMES[key_id_of(public)]] + (at_ms if at_ms < 1_000 else 0))
    return made


@pytest.mark.parametrize(
    ("own", "row"),
    [
        (said(since_ms=NOW_MS), 20),  # it was attached here since just then
        (said("closed", NOW_MS + 1), 20),  # it was attached here until later
        (said("closed", NOW_MS), 30),
        (said(since_ms=NOW_MS + 1), 30),
        (None, 30),
    ],
)
def test_who_was_not_attached_here_had_what_those_had_that_it_had_read_long_enough(
    own: SessionFact | None, row: int
) -> None:
    words = {("b3", "broker/b2"): said(since_ms=NOW_MS - LASTING_MS), ("b4", "broker/b2"): said(since_ms=NOW_MS - 1)}
    if own is not None:
        words["b1", "broker/b2"] = own
    known = holders(words, {"broker/b2": 20, "broker/b3": 30, "broker/b4": 40})
    assert known.had("broker/b2", NOW_MS) == row


def test_who_reads_another_no_more_had_not_what_that_had_unless_it_is_a_leaf_which_had_what_was_there_before() -> None:
    words = {("b3", "broker/b2"): said("closed", 7)}
    had = {"broker/b2": ALL, "broker/b3": 30, "broker/b4": 40}
    assert holders(words, had).had("broker/b2", NOW_MS) == ALL
    assert holders(words, had, leaf="broker/b2").had("broker/b2", NOW_MS) == 37


@pytest.mark.parametrize(
    ("word", "handed_ms"),
    [
        (said(leaf="read"), NOW_MS),
        (said("closed", 7, leaf="read"), 7),
        (said(leaf="behind"), None),
        (said(), None),
    ],
)
def test_a_leaf_has_handed_on_by_another_what_it_had_until_it_left_that(word: SessionFact, handed_ms: int | None) -> None:
    assert holders({("b3", "broker/b2"): word}, {}, leaf="broker/b2").handed_ms(B2) == handed_ms


@pytest.mark.parametrize("late", ["b2", "b3", ""])
def test_another_has_handed_on_by_one_what_it_had_where_each_has_read_the_other_long_enough(late: str) -> None:
    began_ms = {"b2": NOW_MS - LASTING_MS, "b3": NOW_MS - LASTING_MS, **({late: NOW_MS - LASTING_MS + 1} if late else {})}
    words = {("b3", "broker/b2"): said(since_ms=began_ms["b3"]), ("b2", "broker/b3"): said(since_ms=began_ms["b2"])}
    assert holders(words, {}).handed_ms(B2) == (None if late else NOW_MS)


def test_the_greatest_attachment_elsewhere_leaves_out_what_is_said_here() -> None:
    words = {("b1", "node/n1"): said(attachment=9), ("b2", "node/n1"): said(attachment=3)}
    assert holders(words, {}).attachment_of("node/n1") == 3
