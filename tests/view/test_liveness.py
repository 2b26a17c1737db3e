"""Whose word counts on an attachment, and who is alive by it."""

import pytest

from dsmt.view import Fleet
from dsmt.view.liveness import UNHEARD_AFTER_MS, dead_after_ms
from dsmt.view.sessions import word
from tests.controllers.build import Realm


def liveness(realm: Realm, node: str) -> str:
    return Fleet(realm.view, realm.now_ms, realm.broker).state(node)


def links(realm: Realm, broker: str, state: str, *, by: str = "b1") -> None:
    realm.session(f"broker/{broker}", state, broker=by)


def test_the_greatest_attachment_decides_whoever_wrote_it() -> None:
    realm = Realm(brokers=("b1", "b2"))
    realm.session("node/n1", "open", broker="b2", attachment=2)
    realm.after(5)
    realm.session("node/n1", "closed", broker="b1", attachment=1)
    said = word(realm.view.sessions.of["node/n1"], {})
    assert (said.state, said.broker) == ("open", "b2")


def test_a_word_counts_only_while_its_broker_is_alive() -> None:
    realm = Realm(brokers=("b1", "b2"))
    realm.node("n1", broker="b2")
    links(realm, "b2", "open")
    assert liveness(realm, "n1") == "alive"
    realm.after(1)
    links(realm, "b2", "closed")
    assert word(realm.view.sessions.of["node/n1"], realm.view.sessions.lost("b1")).state == "unknown"


def test_the_sessions_of_a_lost_broker_are_suspect_only_after_the_grace() -> None:
    realm = Realm(brokers=("b1", "b2"))
    realm.node("n1", broker="b2")
    links(realm, "b2", "closed")
    realm.after(9.9)
    assert liveness(realm, "n1") == "alive"
    realm.after(0.1)
    assert liveness(realm, "n1") == "suspect"
    realm.attach("n1", broker="b1")
    assert liveness(realm, "n1") == "alive"


def test_each_side_of_a_partition_trusts_the_broker_it_is_attached_to() -> None:
    realm = Realm(brokers=("b1", "b2"))
    links(realm, "b2", "closed", by="b1")
    links(realm, "b1", "closed", by="b2")
    assert set(realm.view.sessions.lost("b1")) == {"b2"}
    assert set(realm.view.sessions.lost("broker/b1")) == {"b2"}
    assert set(realm.view.sessions.lost("b2")) == {"b1"}


def test_a_leaf_is_lost_when_none_that_lives_is_linked_to_it() -> None:
    """Two brokers may have granted the same number; and one to which it was linked before says `closed` for good."""
    realm = Realm(brokers=("b1", "b2", "leaf"))
    links(realm, "b1", "open", by="b2")
    links(realm, "b2", "open", by="b1")
    realm.session("broker/leaf", "open", broker="b1", attachment=1, leaf="read")
    realm.session("broker/leaf", "closed", broker="b2", attachment=1, leaf="behind")
    assert [set(realm.view.sessions.lost(at)) for at in ("b1", "b2", "")] == [set(), set(), set()]
    assert realm.view.sessions.upstream("leaf", ()) == "b1"
    links(realm, "b1", "closed", by="b2")
    assert set(realm.view.sessions.lost("b2")) == {"b1", "leaf"}
    realm.session("broker/leaf", "open", broker="b2", attachment=2, leaf="behind")
    assert set(realm.view.sessions.lost("b2")) == {"b1"}
    realm.session("broker/leaf", "closed", broker="b2", attachment=2, leaf="read")
    assert set(realm.view.sessions.lost("b2")) == {"b1", "leaf"}


def test_who_is_at_a_leaf_sees_what_its_upstream_sees_and_nothing_else_without_one() -> None:
    realm = Realm(brokers=("b1", "b2", "b3", "leaf"))
    for one, by in (("b1", "b2"), ("b2", "b1"), ("b1", "b3"), ("b2", "b3")):
        links(realm, one, "open", by=by)
    links(realm, "b3", "closed", by="b1")
    links(realm, "b3", "closed", by="b2")
    realm.session("broker/leaf", "open", broker="b1", leaf="read")
    links(realm, "b2", "closed", by="leaf")  # it was the upstream before
    links(realm, "b1", "open", by="leaf")
    assert set(realm.view.sessions.lost("leaf")) == {"b3"}
    realm.after(1)
    links(realm, "b1", "silent", by="leaf")
    assert realm.view.sessions.lost("leaf") == dict.fromkeys(("b1", "b2", "b3"), realm.now_ms)


def test_at_a_leaf_that_has_said_nothing_yet_the_newest_word_of_any_other_broker_decides() -> None:
    realm = Realm(brokers=("b1", "b2", "leaf"))
    links(realm, "b1", "open", by="b2")
    links(realm, "b2", "closed", by="b1")
    realm.session("broker/leaf", "open", broker="b1", leaf="read")
    assert set(realm.view.sessions.lost("leaf")) == {"b2"}


def test_a_broker_on_which_nobody_says_anything_is_alive() -> None:
    realm = Realm(brokers=("b1", "b2"))
    realm.node("n1", broker="b2")
    assert not realm.view.sessions.lost("b1")
    assert liveness(realm, "n1") == "alive"


def test_a_node_of_which_nothing_is_known_is_suspect_and_not_dead() -> None:
    assert liveness(Realm(), "n9") == "suspect"


def test_one_open_source_keeps_the_node_alive() -> None:
    realm = Realm("n1")
    realm.session("node/n1", "closed", how="peer")
    assert liveness(realm, "n1") == "alive"
    realm.session("monitor/n1", "closed", how="peer")
    assert liveness(realm, "n1") == "suspect"


def test_a_verdict_holds_until_a_greater_attachment_of_any_source() -> None:
    realm = Realm("n1")
    realm.close("n1")
    realm.verdict("n1")
    assert liveness(realm, "n1") == "dead"
    realm.session("node/n1", "open")
    assert liveness(realm, "n1") == "dead"
    realm.attach("n1", sources=["monitor/n1"])
    assert liveness(realm, "n1") == "alive"


def test_a_source_that_attached_for_the_first_time_after_the_verdict_undoes_it() -> None:
    realm = Realm("n1")
    realm.close("n1")
    realm.verdict("n1")
    realm.attach("n1", sources=["agent/n1/web/app/0"])
    assert liveness(realm, "n1") == "alive"


def test_a_verdict_that_names_nobody_is_undone_by_the_manager_whatever_it_says_of_all_others() -> None:
    realm = Realm("n1")
    told = {"state": "dead", "road": "closed", "attachments": {}, "evidence": [], "message": "", "since_ms": 1}
    realm.say("controller/eve", "node/n1/verdict", told | {"others": 2**62})
    assert liveness(realm, "n1") == "alive"


@pytest.mark.parametrize(("word", "hangs"), [("silent", True), ("closed", False)])
def test_an_agent_hangs_that_is_silent_for_long_while_its_node_is_heard(word: str, hangs: bool) -> None:
    agent = "agent/n1/web/app/0"
    realm = Realm("n1")
    realm.attach("n1", sources=[agent])
    realm.after(60).session(agent, word)

    def fleet() -> Fleet:
        return Fleet(realm.view, realm.now_ms, realm.broker)

    realm.after(5).attach("n1", sources=["monitor/n1"])  # its node was heard all the time
    realm.after(4.999)
    assert (fleet().hangs(agent, UNHEARD_AFTER_MS), fleet().is_unheard(agent)) == (False, False)
    realm.after(0.001)
    assert (fleet().hangs(agent, UNHEARD_AFTER_MS), fleet().is_unheard(agent)) == (hangs, True)
    assert not fleet().hangs(agent, UNHEARD_AFTER_MS + 1)
    realm.silence("n1")
    assert not fleet().hangs(agent, 0), "a node that is silent as a whole says nothing of its agents"


@pytest.mark.parametrize(("nodes", "ms"), [(0, 5000), (3, 5000), (17, 5000), (100, 8000), (1000, 12000), (10_000, 16000)])
def test_larger_realms_wait_longer(nodes: int, ms: int) -> None:
    assert dead_after_ms(nodes) == ms
