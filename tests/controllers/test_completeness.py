"""When a controller may publish, and when it may accuse."""

from dsmt.controllers.loop.completeness import Completeness
from dsmt.controllers.loop.ranking import live_controllers, rank, subject_of
from dsmt.event.kinds.controller import ControllerState
from dsmt.ports.bus import Cursor
from dsmt.view import Fleet

from .build import Realm

HERE = Cursor("s1", 7, 1_000)


def echoed(gate: Completeness, now: float, cursor: Cursor = HERE, *, whole: bool = True) -> None:
    """A token is sent, and comes back at once."""
    token = gate.token(now)
    assert token is not None
    gate.bookmark(cursor, token, whole=whole)


def test_nothing_may_be_published_before_a_bookmark_of_a_whole_broker() -> None:
    gate = Completeness(0.0)
    assert gate.cursor(0.0) is None
    echoed(gate, 1.0, whole=False)
    assert gate.cursor(1.0) is None
    echoed(gate, 1.5)
    assert gate.cursor(1.5) == HERE


def test_a_broker_that_is_not_whole_any_more_closes_the_gate() -> None:
    gate = Completeness(0.0)
    echoed(gate, 1.0)
    gate.bookmark(Cursor("s1", 8, 1_000), None, whole=False)
    assert gate.cursor(1.1) is None


def test_a_bookmark_without_a_token_says_nothing_of_its_age() -> None:
    gate = Completeness(0.0)
    gate.bookmark(HERE, None, whole=True)
    assert gate.cursor(0.0) is None


def test_a_view_is_current_for_one_second_after_the_token_was_sent_not_after_it_came_back() -> None:
    gate = Completeness(0.0)
    token = gate.token(5.0)
    gate.bookmark(HERE, token, whole=True)
    assert gate.cursor(6.0) == HERE
    assert gate.cursor(6.01) is None
    late = gate.token(6.01)
    gate.bookmark(HERE, late, whole=True)
    assert gate.cursor(7.02) is None


def test_a_token_that_was_never_sent_proves_nothing() -> None:
    gate = Completeness(0.0)
    token = gate.token(5.0)
    assert token is not None
    gate.bookmark(HERE, token + 1, whole=True)
    assert gate.cursor(5.0) is None


def test_of_several_tokens_the_newest_that_came_back_counts() -> None:
    gate = Completeness(0.0)
    first, second = gate.token(5.0), gate.token(5.5)
    assert (first, second) == (1, 2)
    gate.bookmark(HERE, second, whole=True)
    gate.bookmark(HERE, first, whole=True)
    assert gate.cursor(6.5) == HERE


def test_a_token_is_due_each_half_second_and_at_once_after_an_attachment() -> None:
    gate = Completeness(0.0)
    assert gate.token(0.0) == 1
    assert gate.token(0.4) is None
    assert gate.token(0.5) == 2
    gate.attached(0.6)
    assert gate.token(0.6) == 3


def test_what_was_folded_after_the_bookmark_waits_for_the_next() -> None:
    gate = Completeness(0.0)
    echoed(gate, 1.0)
    gate.folded()
    assert gate.cursor(1.0) is None
    gate.bookmark(Cursor("s1", 8, 1_000), None, whole=True)
    assert gate.cursor(1.2) == Cursor("s1", 8, 1_000)


def test_a_stall_closes_the_gate_and_begins_the_watch_anew() -> None:
    gate = Completeness(0.0)
    gate.beat(9.9, 10.0)
    echoed(gate, 10.0)
    assert gate.may_accuse(10.0, 5.0)
    assert gate.beat(10.6, 0.25) < 0.5
    assert gate.cursor(10.6) == HERE
    assert gate.beat(40.7, 0.25) > 29
    assert gate.cursor(40.7) is None
    assert not gate.may_accuse(45.6, 5.0)
    assert gate.may_accuse(45.7, 5.0)


def test_a_token_that_was_sent_before_a_stall_or_a_new_attachment_counts_for_nothing() -> None:
    gate = Completeness(0.0)
    token = gate.token(0.0)
    gate.beat(0.6)
    gate.bookmark(HERE, token, whole=True)
    assert gate.cursor(0.6) is None
    token = gate.token(0.6)
    gate.attached(0.7)
    gate.bookmark(HERE, token, whole=True)
    assert gate.cursor(0.7) is None


def test_a_new_attachment_begins_the_watch_anew_and_waits_for_its_echo() -> None:
    gate = Completeness(0.0)
    echoed(gate, 10.0)
    gate.attached(10.1)
    assert gate.cursor(10.1) is None
    assert not gate.may_accuse(15.0, 5.0)
    assert gate.may_accuse(15.1, 5.0)


def test_every_controller_has_one_rank_for_a_subject() -> None:
    names = ["c1", "c2", "c3"]
    assert sorted(rank("service/web", name, names) for name in names) == [0, 1, 2]
    first = {subject: min(names, key=lambda n: rank(subject, n, names)) for subject in (f"service/s{i}" for i in range(30))}
    assert set(first.values()) == set(names)
    each = {
        subject: "".join(sorted("12345", key=lambda n: rank(subject, n, "12345"))) for subject in ("service/web", "node/n1")
    }
    assert each == {"service/web": "42315", "node/n1": "21435"}, "controllers of another version rank them alike"


def test_a_controller_counts_itself_in_whether_it_was_heard_or_not() -> None:
    assert rank("service/web", "c1", []) == 0


def test_topics_are_ranked_by_what_they_are_about() -> None:
    assert subject_of("service/web/slot/app/0") == subject_of("tombstone/service/web") == "service/web"
    assert subject_of("node/n1/verdict") == "node/n1"


def test_a_controller_is_live_while_its_session_is_open() -> None:
    realm = Realm()
    for name, ruleset in (("c1", 1), ("c2", 2)):
        record = ControllerState(version="0.1", ruleset=ruleset, pid=None, decisions=0)
        realm.say(f"controller/{name}", f"controller/{name}/state", record)
        realm.attach("", sources=[f"controller/{name}"])
    assert live_controllers(Fleet(realm.view, realm.now_ms, "b1")) == {"c1": 1, "c2": 2}
    realm.session("controller/c2", "closed", how="peer")
    assert live_controllers(Fleet(realm.view, realm.now_ms, "b1")) == {"c1": 1}
