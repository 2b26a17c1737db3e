"""Whose word on an attachment counts, which brokers are lost, and what of a node's sources counts (rules F1, F2, F4)."""

from typing import Any

import msgspec
import pytest

from dsmt.event.kinds.broker import SessionFact
from dsmt.event.status import Layer, State
from dsmt.view import Fleet
from dsmt.view.liveness import NAMED_MOST, judged
from dsmt.view.sessions import SourceSessions, is_closed, is_open, word
from tests.controllers.build import Realm, key


class Told:
    """A broker's word."""

    def __init__(
        self,
        state: Any = "open",
        attachment: int = 1,
        since_ms: int = 5,
        *,
        how: Any = None,
        leaf: Any = msgspec.UNSET,
        instead_of: str = "",
    ) -> None:
        self.record = SessionFact(
            attachment=attachment,
            state=state,
            how=how,
            since_ms=since_ms,
            incarnation=1,
            pid=1,
            version="",
            address="",
            leaf=leaf,
            instead_of=instead_of,
        )


def fleet(realm: Realm, broker: str = "b1") -> Fleet:
    return Fleet(realm.view, realm.now_ms, broker)


NEWEST = [
    # the words of brokers on one source, and whose counts
    ({"b1": Told(attachment=1), "b2": Told(attachment=2)}, "b2"),
    ({"b1": Told(attachment=2, since_ms=1), "b2": Told(attachment=1, since_ms=9)}, "b1"),
    ({"b1": Told(since_ms=5), "b2": Told(since_ms=6)}, "b2"),
    ({"b2": Told(), "b1": Told()}, "b1"),
]


@pytest.mark.parametrize(("words", "newest"), NEWEST, ids=range(len(NEWEST)))
def test_the_greatest_attachment_decides_then_the_later_word_then_the_lower_broker(words: dict, newest: str) -> None:
    for order in (list(words), list(reversed(words))):
        sessions: SourceSessions[Told] = SourceSessions()
        for broker in order:
            sessions.put(broker, "node/n1", words[broker])
        attachments = sessions.of["node/n1"]
        assert attachments.newest == (newest, words[newest])
        assert attachments.attachment == words[newest].record.attachment
        assert (attachments.source, attachments.words) == ("node/n1", words)


def test_a_word_in_the_place_of_a_lost_broker_counts_for_nobody_here_and_takes_the_place_of_its_brokers_own() -> None:
    sessions: SourceSessions[Told] = SourceSessions()
    own, instead = Told(attachment=2), Told("silent", attachment=2, since_ms=9, instead_of="broker/b1")
    sessions.put("b1", "node/n1", own)
    sessions.put("b2", "node/n1", instead)
    assert sessions.of["node/n1"].newest == ("b1", own), "by b1's loss it is unknown, not silent"
    sessions.put("b2", "node/n1", Told(attachment=3))
    sessions.put("b2", "node/n1", instead)
    assert sessions.of["node/n1"].words == {"b1": own}


def test_a_word_that_is_taken_back_counts_no_more_and_with_the_last_one_the_source_is_unknown() -> None:
    sessions: SourceSessions[Told] = SourceSessions()
    older, newer = Told(attachment=1), Told(attachment=2)
    sessions.put("b1", "node/n1", older)
    sessions.put("b2", "node/n1", newer)
    assert sessions.put("b2", "node/n1", None).newest == ("b1", older)
    gone = sessions.put("b1", "node/n1", None)
    assert (gone.newest, gone.attachment, word(gone, {}), sessions.of) == (None, 0, None, {})
    assert sessions.put("b1", "node/n1", None).newest is None


LOST = [
    # what brokers say of the link to b9, who asks, and since when b9 is lost
    ({}, "b1", None),
    ({"b1": Told("open")}, "b1", None),
    ({"b1": Told("silent", since_ms=7)}, "b1", 7),
    ({"b1": Told("closed", since_ms=7)}, "broker/b1", 7),
    ({"b1": Told("open"), "b2": Told("closed", 9)}, "b1", None),
    ({"b2": Told("closed", since_ms=8)}, "b1", 8),
    ({"b2": Told("closed", since_ms=8), "b3": Told("open", 2)}, "b1", None),
    ({"b2": Told("open", 2), "b3": Told("closed", 3, since_ms=4)}, "", 4),
    ({"b9": Told("closed", 9)}, "b1", None),
    ({"b9": Told("open", 9), "b2": Told("closed", since_ms=8)}, "b1", 8),
    ({"b1": Told("closed")}, "b9", None),
]


@pytest.mark.parametrize(("words", "attached", "since"), LOST, ids=range(len(LOST)))
def test_a_broker_is_lost_by_the_word_of_the_one_that_is_asked_from_or_else_of_any_other(
    words: dict, attached: str, since: int | None
) -> None:
    sessions: SourceSessions[Told] = SourceSessions()
    for broker, told in words.items():
        sessions.put(broker, "broker/b9", told)
    assert sessions.lost(attached) == ({} if since is None else {"b9": since})


def leaf(state: Any, attachment: int = 1, since_ms: int = 5) -> Told:
    return Told(state, attachment, since_ms, leaf="read")


LINKS = [
    # which links are open, and which are not since when, as each broker says it; then who is lost for b1, and since when
    ({"b3": ["b1", "b2"], "b1": ["b3"], "b2": ["b3"]}, {"b1": {"b2": 7}, "b2": {"b1": 8}}, {}),
    ({"b3": ["b1"], "b1": ["b3"]}, {"b1": {"b2": 7}, "b3": {"b2": 9}}, {"b2": 9}),
    ({"b3": ["b2"], "b2": ["b3"]}, {"b1": {"b2": 7, "b3": 5}, "b2": {"b1": 8}, "b3": {"b1": 9}}, {"b2": 7, "b3": 5}),
    ({"b1": ["b2"], "b2": ["b1", "b3"], "b3": ["b2", "b4"], "b4": ["b3"]}, {"b1": {"b3": 4, "b4": 5}, "b2": {"b4": 6}}, {}),
    (
        {"b1": ["b2"], "b2": ["b1"], "b3": ["b4"], "b4": ["b3"]},
        {"b1": {"b3": 4, "b4": 5}, "b2": {"b3": 6}},
        {"b3": 6, "b4": 5},
    ),
    ({"b2": ["b3"], "b3": ["b2"]}, {"b1": {"b2": 3, "b3": 4}}, {"b2": 3, "b3": 4}),  # of each other they say it later
    ({}, {"b1": {"b2": 3, "b3": 4}, "b3": {"b2": 9}}, {"b2": 3, "b3": 4}),  # when b3's link to b2 ended it was lost itself
]


@pytest.mark.parametrize(("linked", "ended", "lost"), LINKS, ids=range(len(LINKS)))
def test_a_broker_is_lost_when_none_that_is_not_is_linked_to_it_either(linked: dict, ended: dict, lost: dict) -> None:
    words = [(by, whom, Told()) for by, all_ in linked.items() for whom in all_]
    words += [(by, whom, Told("silent", since_ms=since)) for by, all_ in ended.items() for whom, since in all_.items()]
    for order in (words, list(reversed(words))):
        sessions: SourceSessions[Told] = SourceSessions()
        for by, whom, told in order:
            sessions.put(by, f"broker/{whom}", told)
        assert sessions.lost("b1") == lost


def test_who_is_known_no_more_does_not_speak_for_a_broker() -> None:
    sessions: SourceSessions[Told] = SourceSessions()
    sessions.put("b1", "broker/b2", Told("silent", since_ms=7))
    sessions.put("gone", "broker/b2", Told())
    assert sessions.lost("b1") == {"b2": 7}


LEAVES = [
    # what brokers say of the link to the leaf, of b1's link to b2, of the leaf's links to b1 and b2, and who asks;
    # then to whom the leaf is linked, and who is lost since when
    ({"b1": leaf("open")}, Told(), {}, "b1", ("b1", {})),
    ({"b1": leaf("open")}, Told(), {}, "b2", ("b1", {})),
    ({"b1": leaf("closed", since_ms=7), "b2": leaf("open", 2)}, Told(), {}, "b1", ("b2", {})),
    ({"b1": leaf("open", 1), "b2": leaf("open", 2)}, Told(), {}, "b1", ("b2", {})),
    ({"b1": leaf("open", 2), "b2": leaf("open", 1)}, Told(), {}, "b1", ("b1", {})),
    ({"b1": leaf("closed", since_ms=7), "b2": leaf("silent", 2, 9)}, Told(), {}, "b1", ("", {"leaf": 9})),
    ({"b2": leaf("open", since_ms=3)}, Told("silent", since_ms=8), {}, "b1", ("", {"b2": 8, "leaf": 8})),
    ({"b2": leaf("closed", since_ms=9)}, Told("silent", since_ms=8), {}, "b1", ("", {"b2": 8, "leaf": 9})),
    ({"b1": leaf("open")}, Told("silent", since_ms=8), {"b1": Told()}, "leaf", ("b1", {"b2": 8})),
    ({"b1": leaf("open")}, Told(), {"b1": Told("silent", since_ms=6)}, "leaf", ("b1", {"b1": 6, "b2": 6})),
    (
        {"b1": leaf("open"), "b2": leaf("open")},
        Told("silent", since_ms=8),
        {"b1": Told("open", 2), "b2": Told("open", 1)},
        "leaf",
        ("b2", {"b2": 8}),
    ),
]


@pytest.mark.parametrize(("of_leaf", "of_b2", "by_leaf", "attached", "seen"), LEAVES, ids=range(len(LEAVES)))
def test_a_leaf_is_lost_when_nobody_that_is_not_is_linked_to_it_and_sees_what_its_upstream_sees(
    of_leaf: dict, of_b2: Told, by_leaf: dict, attached: str, seen: tuple[str, dict]
) -> None:
    sessions: SourceSessions[Told] = SourceSessions()
    links = [*((by, "leaf", told) for by, told in of_leaf.items()), ("b2", "b1", Told()), ("b1", "b2", of_b2)]
    for by, whom, told in (*links, *(("leaf", whom, told) for whom, told in by_leaf.items())):
        sessions.put(by, f"broker/{whom}", told)
    lost = sessions.lost(attached)
    assert (sessions.upstream("leaf", () if attached == "leaf" else lost), lost) == seen


def test_a_broker_of_which_nothing_is_said_any_more_is_not_lost() -> None:
    sessions: SourceSessions[Told] = SourceSessions()
    sessions.put("b1", "broker/b9", Told("closed"))
    sessions.put("b1", "broker/b9", None)
    assert (sessions.lost("b1"), sessions.brokers) == ({}, set())


def test_a_word_of_a_lost_broker_is_unknown_since_it_was_lost_or_since_the_word_if_that_is_later() -> None:
    sessions: SourceSessions[Told] = SourceSessions()
    told = Told("open", since_ms=5)
    said = sessions.put("b1", "node/n1", told)
    assert word(said, {}) == ("open", 5, "b1", told)
    assert word(said, {"b2": 9}) == ("open", 5, "b1", told)
    assert word(said, {"b1": 9}) == ("unknown", 9, "b1", told)
    assert word(said, {"b1": 3}) == ("unknown", 5, "b1", told)


@pytest.mark.parametrize(
    ("states", "opened", "closed"),
    [
        ([], False, True),
        ([("open", None)], True, False),
        ([("closed", "peer")], False, True),
        ([("closed", "timeout")], False, False),
        ([("closed", None)], False, False),
        ([("silent", None)], False, False),
        ([("silent", "peer")], False, False),
        ([("closed", "peer"), ("open", None)], True, False),
        ([("closed", "peer"), ("silent", None)], False, False),
        ([("closed", "peer"), ("closed", "peer")], False, True),
    ],
)
def test_a_node_is_open_when_one_source_is_and_closed_when_all_closed_themselves(
    states: list, opened: bool, closed: bool
) -> None:
    sessions: SourceSessions[Told] = SourceSessions()
    words = [word(sessions.put("b1", f"node/n{i}", Told(state, how=how)), {}) for i, (state, how) in enumerate(states)]
    assert (is_open(words), is_closed(words)) == (opened, closed)


# The fleet ------------------------------------------------------------------------------------------------------------


def sources(realm: Realm, node: str) -> list[str]:
    return ["/".join(one.held.signed.event.topic.split("/")[3:]) for one in fleet(realm).words(node)]


def test_what_counts_of_a_node_is_its_manager_first_then_its_monitor_and_the_agents_of_what_is_left_there() -> None:
    realm = Realm("n1")
    for index in range(3):
        realm.session(f"agent/n1/web/app/{index}", "closed", how="peer")
    assert sources(realm, "n1") == ["node/n1", "monitor/n1"]
    realm.status(key(0), "n1", State.INSTALLED, layer=Layer.CONTAINER)
    realm.status(key(1), "n1", State.GONE, layer=Layer.CONTAINER)
    realm.status(key(2), "n2", State.INSTALLED, layer=Layer.CONTAINER)
    assert sources(realm, "n1") == ["node/n1", "agent/n1/web/app/0", "monitor/n1"]
    realm.session("agent/n1/web/app/1", "open")
    assert sources(realm, "n1") == ["node/n1", "agent/n1/web/app/0", "agent/n1/web/app/1", "monitor/n1"]
    assert sources(realm, "n9") == []


@pytest.mark.parametrize("source", ["agent/n1/web/app/x", "agent/n1/web/app", "agent/n1/web/app/0/1"])
def test_an_agent_whose_name_is_of_no_slot_counts_only_while_it_is_open(source: str) -> None:
    realm = Realm("n1")
    realm.session(source, "closed", how="peer")
    assert sources(realm, "n1") == ["node/n1", "monitor/n1"]
    realm.session(source, "open")
    assert source in sources(realm, "n1")


def test_a_verdict_names_so_many_sources_agents_last_and_the_sum_of_the_others() -> None:
    realm = Realm("n1")
    for index in range(NAMED_MOST):
        realm.session(f"agent/n1/web/app/{index:03}", "open", attachment=3)
    named, others = judged(realm.view.nodes["n1"])
    assert (len(named), others) == (NAMED_MOST, 6)
    assert {"node/n1", "monitor/n1"} < set(named)
    assert list(named)[:2] == ["monitor/n1", "node/n1"]
    assert "agent/n1/web/app/126" not in named
    assert judged(Realm("n2").view.nodes["n2"]) == ({"monitor/n2": 1, "node/n2": 1}, 0)


def test_members_are_the_nodes_with_attributes_that_have_not_left() -> None:
    realm = Realm("n3", "n1", "n2", "n4")
    realm.session("node/n5", "open")
    realm.verdict("n2", state="left", road="operator")
    realm.verdict("n3")
    seen = fleet(realm)
    assert seen.members == ("n1", "n3", "n4")
    assert [seen.state(node) for node in ("n1", "n2", "n3", "n5")] == ["alive", "left", "dead", "alive"]
    assert seen.speaking == ("n1", "n4")
    assert seen.dead_after_ms == 5000
    assert fleet(Realm()).speaking == ()
    assert fleet(Realm("n1")).speaking == ("n1",)


def test_a_verdict_is_given_until_it_is_undone() -> None:
    realm = Realm("n1")
    said = realm.verdict("n1")
    assert fleet(realm).verdict("n1").signed == said
    assert fleet(realm).verdict("n9") is None
    realm.attach("n1")
    assert fleet(realm).verdict("n1") is None
    assert fleet(realm).state("n1") == "alive"
