"""The long road to a dead node: it is silent and answers no probe; and what keeps it from being walked."""

import pytest

from dsmt.controllers.node_failure import MAX_EVIDENCE
from dsmt.trust import probing
from dsmt.view import Fleet

from .build import Realm, web
from .roads import fleet, verdicts
from .signing import START_MS, HashSigner


def silent(realm: Realm, node: str = "n1", *, witness: str | None = "n2") -> Realm:
    """A node falls silent; 3 s later its broker says so, and a probe fails."""
    since = realm.now_ms
    realm.after(3)
    for source in sorted(realm.view.nodes[node].sources):
        realm.session(source, "silent", since_ms=since)
    if witness is not None:
        realm.probe(node, witness, "failed")
    return realm


def test_a_silent_node_is_suspected_before_it_is_dead() -> None:
    realm = silent(fleet(3))
    assert Fleet(realm.view, realm.now_ms, "b1").state("n1") == "suspect"
    assert realm.decide().wake_ms == realm.now_ms + 2_000
    assert verdicts(realm.after(1.9)) == {}
    said = verdicts(realm.after(0.1))["n1"]
    assert (said.road, said.since_ms) == ("silent", realm.now_ms - 5_000)


def test_a_silent_node_whose_connections_then_end_is_dead_by_the_probes_made_before() -> None:
    realm = silent(fleet(3))
    since = realm.now_ms - 3_000
    realm.after(1.3)
    for source in ("node/n1", "monitor/n1"):
        realm.session(source, "closed", how="timeout", since_ms=since)
    said = verdicts(realm.after(0.7))["n1"]
    assert (said.road, said.since_ms) == ("silent", since)


def test_silence_counts_only_for_those_who_watched() -> None:
    realm = silent(fleet(3)).after(3)
    assert verdicts(realm, may_accuse=False) == {}
    assert set(verdicts(realm)) == {"n1"}


def test_silence_alone_is_not_enough_while_another_node_lives() -> None:
    realm = silent(fleet(3), witness=None).after(60)
    assert verdicts(realm) == {}
    failed = realm.probe("n1", "n3", "failed")
    assert str(failed.id) in verdicts(realm)["n1"].evidence


def test_silence_is_enough_when_no_other_node_is_left() -> None:
    realm = silent(fleet(1), witness=None)
    assert set(verdicts(realm.after(2))) == {"n1"}


def test_a_probe_that_passed_since_then_acquits() -> None:
    realm = silent(fleet(3)).after(2)
    realm.probe("n1", "n2", "failed")
    realm.probe("n1", "n3", "passed")
    assert verdicts(realm) == {}
    realm.probe("n1", "n3", "failed")
    assert set(verdicts(realm)) == {"n1"}


def test_what_passed_is_evidence_for_two_periods_and_so_is_what_failed() -> None:
    realm = silent(fleet(3), witness=None).after(2)
    realm.probe("n1", "n3", "passed")
    realm.after(1).probe("n1", "n2", "failed")
    assert verdicts(realm.after(2.9)) == {}
    assert realm.decide().wake_ms == realm.now_ms + 100
    assert set(verdicts(realm.after(0.1))) == {"n1"}
    assert verdicts(realm.after(1)) == {}, "what failed is too old by now"


def test_a_probe_of_an_old_silence_counts_for_two_of_its_longer_periods_and_no_longer() -> None:
    for every_s in (60.0, 1e9):
        realm = silent(fleet(3), witness=None).after(600)
        realm.probe("n1", "n3", "failed", every_s=every_s)
        assert set(verdicts(realm.after(119))) == {"n1"}
        assert verdicts(realm.after(1)) == {}


@pytest.mark.parametrize(
    "forged",
    [
        {"answer": b""},
        {"answer": b"rubbish"},
        {"nonce": b"another nonce..."},
        {
            "answer": probing.answer(
                probing.request(b"n" * 16), HashSigner(), b"q" * 32, "n1", probing.Answered(1, START_MS * 2)
            )
        },
    ],
    ids=["none", "rubbish", "to another nonce", "by another key"],
)
def test_a_passed_without_the_nodes_own_answer_vetoes_nothing(forged: dict[str, bytes]) -> None:
    realm = silent(fleet(3)).after(2)
    realm.probe("n1", "n3", "passed", **forged)
    realm.probe("n1", "n2", "failed")
    assert set(verdicts(realm)) == {"n1"}


@pytest.mark.parametrize("every_s", [1.0, 60.0])
def test_an_answer_of_before_the_silence_that_is_brought_again_acquits_nobody(every_s: float) -> None:
    realm = fleet(3)
    old = realm.probe("n1", "n3", "passed").event.data
    silent(realm.after(60)).after(2)
    realm.probe("n1", "n3", "passed", nonce=old["nonce"], answer=old["answer"], every_s=every_s)
    assert set(verdicts(realm)) == {"n1"}


def test_an_answer_that_is_brought_again_later_acquits_for_no_longer_than_the_first_time() -> None:
    realm = silent(fleet(3), witness=None)
    said = realm.probe("n1", "n3", "passed").event.data
    realm.after(3).probe("n1", "n3", "passed", nonce=said["nonce"], answer=said["answer"])
    realm.probe("n1", "n2", "failed")
    assert verdicts(realm.after(0.9)) == {}
    assert set(verdicts(realm.after(0.1))) == {"n1"}


def test_a_probe_that_failed_before_the_silence_is_no_evidence() -> None:
    realm = fleet(3)
    realm.probe("n1", "n2", "failed")
    assert verdicts(silent(realm.after(1), witness=None).after(60)) == {}


def test_a_probe_that_passed_before_the_silence_does_not_acquit() -> None:
    realm = fleet(3)
    realm.probe("n1", "n3", "passed")
    assert set(verdicts(silent(realm.after(1)).after(2))) == {"n1"}


def test_a_node_cannot_witness_against_or_for_itself() -> None:
    realm = silent(fleet(3), witness="n1").after(10)
    assert verdicts(realm) == {}


def test_a_witness_that_is_itself_silent_does_not_count() -> None:
    realm = fleet(3)
    silent(realm, "n1", witness="n2")
    realm.silence("n2")
    realm.after(3).probe("n1", "n2", "failed")
    assert verdicts(realm) == {}
    realm.probe("n1", "n3", "failed")
    assert set(verdicts(realm)) == {"n1"}


def test_a_node_that_speaks_again_is_not_accused() -> None:
    realm = silent(fleet(3))
    realm.session("monitor/n1", "open")
    assert verdicts(realm.after(60)) == {}


def test_a_node_of_which_one_source_is_heard_is_not_accused_though_its_manager_is_silent_and_probes_fail() -> None:
    realm = fleet(3)
    realm.session("node/n1", "silent")
    realm.after(60).probe("n1", "n2", "failed")
    assert verdicts(realm) == {}


def test_nodes_of_a_lost_broker_are_accused_only_after_the_grace_and_a_failed_probe() -> None:
    realm = Realm(brokers=("b1", "b2"))
    realm.node("n1", broker="b2")
    realm.node("n2", broker="b1")
    realm.session("broker/b2", "closed", broker="b1")
    realm.after(8).probe("n1", "n2", "failed")
    assert verdicts(realm.after(1.9)) == {}
    assert realm.decide().wake_ms == realm.now_ms + 100
    assert verdicts(realm.after(0.1))["n1"].road == "silent"


def test_larger_realms_wait_longer() -> None:
    realm = silent(fleet(100))
    realm.after(2).probe("n1", "n2", "failed")
    assert verdicts(realm.after(2.9)) == {}
    assert set(verdicts(realm.after(0.1))) == {"n1"}


def test_of_more_evidence_than_a_verdict_names_it_names_the_manager_s_session_and_the_probes() -> None:
    realm = fleet(3)
    realm.apply(web(20, component="nodes: n1\n"))
    realm.settle(seconds=1)
    realm.attach("n1", sources=[f"agent/n1/web/app/{index}" for index in range(20)])
    realm = silent(realm, witness=None)
    failed = realm.probe("n1", "n2", "failed")
    evidence = verdicts(realm.after(3))["n1"].evidence
    manager = realm.view.winner("broker/b1/session/node/n1")
    assert manager is not None
    assert (evidence[0], evidence[-1], len(evidence)) == (str(manager.id), str(failed.id), 1 + MAX_EVIDENCE)
