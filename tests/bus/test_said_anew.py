"""What others bring back of a broker's own past, and how it says that anew (rule R8)."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.broker import recorder as recording
from dsmt.bus.broker.config import BrokerConfig
from dsmt.bus.broker.recorder import Elsewhere, Recorder
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.ports.store import Row, StoreFullError
from tests.bus.realm import Pen, TestClock, TestRealm, memory_network
from tests.bus.spoiled import Full

TOPIC = "broker/b1/session/operator/alice"
AHEAD_MS = 5_000


@pytest.fixture
def made(tmp_path: Any) -> Any:
    """The recorder of a broker that is whole, what it takes over, and a row of its past at a time."""
    r = TestRealm(memory_network(), tmp_path)
    identity, store = r.identity("broker/b1"), SqliteStore(":memory:", identity="a" * 16)
    trust, config = r.trust(), BrokerConfig(address="", born=True, pid=os.getpid(), version="test")
    trust.add_all([one.raw for one in identity.chain])
    elsewhere = Elsewhere(settled_ms=lambda: None, leaves=dict, is_linked=lambda: False)
    recorder = Recorder(config, identity, trust, store, TestClock(), elsewhere=elsewhere)
    recorder.is_whole = lambda: True  # type: ignore[method-assign]
    taken = list[Row]()
    recorder.sessions.taken_over = lambda row, *_, **__: taken.append(row)  # type: ignore[method-assign]
    began_ms = recorder.time.now_ms() + AHEAD_MS

    def past(number: int) -> Row:
        pen = Pen(identity, began_ms + number)
        signed = pen.write(TOPIC, {"state": "open"}, type="dsmt.session")
        return Row(number, 1, TOPIC, (), True, signed.key_id, signed.sealed, "broker/b2")

    def brings(*rows: Row) -> None:
        recorder.ingest.commit = lambda: list(rows)  # type: ignore[method-assign]
        recorder.sessions.stored = recorder.reporter.stored = lambda _: None  # type: ignore[method-assign]
        assert recorder.commit() == list(rows)

    yield SimpleNamespace(recorder=recorder, taken=taken, past=past, brings=brings)
    store.close()


@pytest.mark.parametrize("order", [(1, 2), (2, 1)], ids=["in order", "the last first"])
def test_of_what_is_brought_back_the_last_word_counts_and_is_followed_by_a_greater_incarnation(made, order) -> None:
    rows = {number: made.past(number) for number in order}
    for number in order:
        made.brings(rows[number])
    made.recorder.say_anew()
    assert made.taken == [rows[2]]
    assert made.recorder.words.chain.incarnation > rows[2].read().event.incarnation


def test_what_is_to_be_said_anew_waits_where_the_disk_has_no_room_for_the_incarnation(made, monkeypatch) -> None:
    next_incarnation = recording.next_incarnation

    made.brings(row := made.past(1))
    with monkeypatch.context() as patch:
        patch.setattr(recording, "next_incarnation", Full())
        with pytest.raises(StoreFullError):
            made.recorder.say_anew()
    assert recording.next_incarnation is next_incarnation
    made.recorder.say_anew()
    assert made.taken == [row]
    made.recorder.say_anew()
    assert made.taken == [row]
