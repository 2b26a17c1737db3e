"""When a broker says that its view is whole."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dsmt.bus.broker.reporter import BrokerReporter, Condition, Self
from dsmt.bus.broker.upkeep import Upkeep
from dsmt.bus.broker.wholeness import AFTER_S, EARLY_S, MOST_S, QUIET_S, STOOD_S, Wholeness
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.errors import FailedError
from dsmt.event.chain import SourceChain
from tests.bus.spoiled import Full

COUNTS = ("events", "facts", "bytes", "first_row", "first_ms")


@pytest.fixture
def store():
    made = SqliteStore(":memory:", identity="a" * 16)
    yield made
    made.close()


def unlinked(store, *, born, now):
    return Wholeness(store.meta, store.identity, born=born, now=now, is_linked=lambda: False)


def test_a_store_in_which_the_realm_was_born_is_whole_at_once(store):
    assert unlinked(store, born=True, now=100.0).at(100.0)


def test_any_other_waits_for_those_who_were_attached_lately(store):
    wholeness = unlinked(store, born=False, now=100.0)
    assert not wholeness.at(100.0 + AFTER_S - 0.01)
    assert wholeness.at(100.0 + AFTER_S)


def test_who_stood_still_waits_anew_for_what_the_others_have(store):
    wholeness = unlinked(store, born=False, now=100.0)
    assert wholeness.at(200.0)
    wholeness.awaits_others(200.0)
    assert not wholeness.at(200.0 + AFTER_S - 0.01)
    assert wholeness.at(200.0 + AFTER_S)


def test_who_was_linked_with_no_other_one_for_long_waits_anew_when_others_are_linked_again(store):
    """It was not still: it had gone on alone, as those on the other side of a cut."""
    linked = [True]
    wholeness = Wholeness(store.meta, store.identity, born=True, now=100.0, is_linked=lambda: linked[0])
    assert not wholeness.look(100.0, alone=False, full=False)
    linked[0] = False
    looks = [100.0 + n for n in range(1, int(STOOD_S) + 3)]
    assert [wholeness.look(now, alone=False, full=False) for now in looks] == [False] * len(looks)
    assert wholeness.at(looks[-1])
    linked[0] = True
    assert not wholeness.at(looks[-1])
    assert wholeness.look(looks[-1], alone=False, full=False)
    assert not wholeness.at(looks[-1])


@pytest.mark.parametrize("first", [False, True])
def test_that_it_has_become_whole_or_is_no_more_is_said_at_once(first):
    said, whole = [], [first]
    kept = SimpleNamespace(head=1, head_hash=b"", identity="s", counts=lambda: dict.fromkeys(COUNTS, 0))
    words = SimpleNamespace(say=lambda topic, record: said.append((topic, record)), chain=SourceChain(1))
    reporter = BrokerReporter(Self("broker/b1", 1, "v"), kept, words, 100.0, whole=lambda: whole[0])
    for now, is_whole in ((100.25, first), (100.5, not first), (100.75, not first)):
        whole[0] = is_whole
        reporter.tick(now, Condition(0.0, 0, 0, "", 0.0, 0.0))
    assert [record.whole for topic, record in said if topic == "broker/b1/stats"] == [first, not first]


def test_a_full_disk_on_which_it_cannot_be_noted_keeps_nothing_else_from_being_done():
    done = []

    def does(what):
        return lambda *_, **__: done.append(what)

    recorder = SimpleNamespace(
        wholeness=SimpleNamespace(note=Full()),
        time=SimpleNamespace(now_ms=lambda: 0, ahead_s=0.0, early_s=0.0, keep=does("time")),
        sessions=SimpleNamespace(tick=does("sessions")),
        reporter=SimpleNamespace(tick=does("reporter")),
        full=None,
        ingest=SimpleNamespace(holes=SimpleNamespace(overdue=does("overdue")), let_go=does("void"), expire=does("expire")),
        trim=does("trim"),
        say_anew=lambda: None,
        go_on=lambda: None,
        dropped=0,
    )
    sessions = SimpleNamespace(by_name={}, signers=(), ask=lambda _: (), forgive=does("forgive"))
    about = (sessions, [SimpleNamespace(forget=does("forget"))], SimpleNamespace(expire=does("depot")))
    upkeep = Upkeep(recorder, *about, SimpleNamespace(let_go=does("let go")))
    with pytest.raises(FailedError):
        upkeep.tick(100.0, "")
    assert {"sessions", "reporter", "overdue", "void", "expire", "trim", "depot", "let go"} <= set(done)


def test_what_is_to_be_trimmed_goes_on_with_the_next_look_and_no_time_is_kept_while_the_disk_is_full():
    trims, more, kept = [], [True, True, False, False], []
    nothing = SimpleNamespace(tick=lambda *_: None, step=lambda *_: None, expire=lambda *_: None, forget=lambda *_: None)
    recorder = SimpleNamespace(
        wholeness=SimpleNamespace(note=lambda _: None),
        time=SimpleNamespace(now_ms=lambda: 0, ahead_s=0.0, early_s=0.0, keep=lambda: kept.append(1)),
        sessions=nothing,
        reporter=nothing,
        full=None,
        ingest=SimpleNamespace(holes=SimpleNamespace(overdue=lambda: None), let_go=lambda: None, expire=lambda: None),
        trim=lambda: trims.append(now) or more[len(trims) - 1],
        say_anew=lambda: None,
        go_on=lambda: None,
        dropped=0,
    )
    sessions = SimpleNamespace(by_name={}, signers=(), ask=lambda _: (), forgive=lambda _: None)
    upkeep = Upkeep(recorder, sessions, [nothing], nothing, SimpleNamespace(let_go=lambda *_: None))
    upkeep.begin(0.0)
    for now in (59.75, 60.0, 60.25, 60.5, 60.75, 120.25, 120.5):
        upkeep.tick(now, "")
    assert trims == [60.0, 60.25, 60.5, 120.5]
    assert len(kept) == 7
    recorder.full = FailedError("store.full", "no room")
    upkeep.tick(121.0, "")
    assert len(kept) == 7


def test_it_waits_longer_while_facts_that_were_not_here_are_offered_but_not_for_ever(store):
    wholeness = unlinked(store, born=False, now=100.0)
    wholeness.refilled(100.0 + AFTER_S - 0.1)
    assert not wholeness.at(100.0 + AFTER_S + QUIET_S - 0.2)
    for tenth in range(300):
        wholeness.refilled(100.0 + tenth / 10)
        assert wholeness.at(100.0 + tenth / 10) == (tenth / 10 >= MOST_S)


def test_it_waits_without_end_while_what_was_decided_is_ahead_of_its_clock(store):
    wholeness = unlinked(store, born=False, now=100.0)
    for second in range(100):
        wholeness.early(100.0 + second)
        assert not wholeness.at(100.0 + second)
    assert not wholeness.at(199.0 + EARLY_S - 0.1)
    assert wholeness.at(199.0 + EARLY_S)
    wholeness.early(210.0)
    assert wholeness.at(210.0), "it was whole"


def test_what_is_offered_to_a_whole_store_changes_nothing(store):
    wholeness = unlinked(store, born=False, now=100.0)
    assert wholeness.at(106.0)
    wholeness.refilled(106.1)
    assert wholeness.at(106.2)


def test_a_store_is_whole_again_at_once_only_if_it_was_whole_before(store):
    first = unlinked(store, born=False, now=100.0)
    first.note(102.0)
    second = unlinked(store, born=False, now=103.0)
    assert not second.at(103.0), "its broker was stopped while it was refilled"
    second.note(109.0)
    assert unlinked(store, born=False, now=110.0).at(110.0)


def test_a_store_that_has_taken_another_id_is_not_whole_at_once(tmp_path):
    path = str(tmp_path / "s.db")
    store = SqliteStore(path, identity="a" * 16, boot="boot-1")
    unlinked(store, born=False, now=100.0).note(106.0)
    store._not_synced()
    store._db.connection.close()
    again = SqliteStore(path, identity="b" * 16, boot="boot-2")
    assert not unlinked(again, born=False, now=110.0).at(110.0)
    again.close()
