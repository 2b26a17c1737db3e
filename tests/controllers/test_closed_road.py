"""The short road to a dead node: all of its sessions were closed; and what keeps it from being walked."""

import pytest

from dsmt.event.envelope import MAX_EVENT_BYTES
from dsmt.event.status import Layer, State
from dsmt.view import Fleet

from .build import Realm, key
from .roads import fleet, verdicts


def closed(realm: Realm, node: str) -> None:
    """A node's manager and monitor end, and nobody else."""
    for source in (f"node/{node}", f"monitor/{node}"):
        realm.session(source, "closed", how="peer")


def test_a_node_whose_sessions_were_all_closed_is_dead_300_ms_later() -> None:
    realm = fleet(3)
    realm.close("n1")
    closed_at = realm.now_ms
    assert verdicts(realm) == {}
    assert realm.decide().wake_ms == closed_at + 300
    realm.after(0.299)
    assert verdicts(realm) == {}
    realm.after(0.001)
    said = verdicts(realm)["n1"]
    assert (said.state, said.road, said.since_ms) == ("dead", "closed", closed_at)
    assert said.attachments == {"node/n1": 1, "monitor/n1": 1}


@pytest.mark.parametrize("last", ["node/n1", "monitor/n1"])
def test_the_300_ms_count_from_the_last_session_that_was_closed_whichever_that_is(last: str) -> None:
    realm = fleet(3)
    for source in sorted(("node/n1", "monitor/n1"), key=lambda source: source == last):
        realm.after(0.25).session(source, "closed", how="peer")
    closed_at = realm.now_ms
    assert verdicts(realm.after(0.299)) == {}
    assert verdicts(realm.after(0.001))["n1"].since_ms == closed_at


def test_closed_sessions_need_no_watching() -> None:
    realm = fleet(3)
    realm.close("n1")
    assert set(verdicts(realm.after(1), may_accuse=False)) == {"n1"}


def test_the_evidence_is_named_by_event_ids() -> None:
    realm = fleet(3)
    realm.close("n1")
    intent = realm.after(1).decide().intents[0]
    sessions = [held.newest[1].id for held in realm.view.nodes["n1"].sources.values()]
    assert set(intent.cause) == set(sessions)
    assert set(intent.record.evidence) == {str(session) for session in sessions}


@pytest.mark.parametrize("source", ["node/n1", "monitor/n1"])
def test_one_source_that_is_open_keeps_the_node_alive(source: str) -> None:
    realm = fleet(3)
    realm.close("n1")
    realm.attach("n1", sources=[source])
    assert verdicts(realm.after(600)) == {}


def test_an_agent_that_is_open_keeps_the_node_alive() -> None:
    realm = fleet(3)
    realm.attach("n1", sources=["agent/n1/web/app/0"])
    realm.session("node/n1", "closed", how="peer")
    realm.session("monitor/n1", "closed", how="peer")
    assert verdicts(realm.after(600)) == {}


def test_a_node_that_attaches_again_in_time_is_not_accused() -> None:
    realm = fleet(3)
    realm.close("n1")
    realm.after(0.2).attach("n1")
    assert verdicts(realm.after(1)) == {}


@pytest.mark.parametrize("how", ["timeout", "local"])
def test_sessions_that_the_broker_ended_are_no_evidence_of_death(how: str) -> None:
    realm = fleet(3)
    realm.close("n1", how=how)
    assert verdicts(realm.after(4.9)) == {}


def test_a_broker_that_died_did_not_close_anybody() -> None:
    realm = Realm(brokers=("b1", "b2"))
    for node in ("n1", "n2"):
        realm.node(node, broker="b2")
    realm.close("n1", broker="b2")
    realm.session("broker/b2", "closed", broker="b1")
    assert verdicts(realm.after(1)) == {}


def flushed(*names: str) -> Realm:
    """A middlebox forgets the connections of these of ten nodes."""
    realm = fleet(10)
    realm.after(60).close(*names)
    return realm


def test_a_firewall_flush_is_no_massacre() -> None:
    realm = flushed("n1", "n2", "n3", "n4", "n5")
    assert verdicts(realm.after(9.9)) == {}
    assert verdicts(realm.after(600)) == {}, "nobody has probed them"


def test_a_firewall_flush_at_one_broker_is_no_massacre_whoever_was_never_there() -> None:
    realm = Realm(brokers=("b1", "b2"))
    for number in range(11):
        realm.node(f"n{number}", broker="b2" if number == 0 else "b1")
    realm.after(60).close("n1", "n2", "n3", "n4", "n5")
    assert verdicts(realm.after(9.9)) == {}


def test_of_many_that_were_closed_at_once_those_are_dead_that_answer_no_probe() -> None:
    realm = flushed("n1", "n2", "n3")
    realm.after(9.5)
    for node, result in (("n1", "failed"), ("n2", "passed"), ("n3", "failed")):
        realm.probe(node, "n9", result)
    assert verdicts(realm) == {}, "they have time to attach anew"
    said = verdicts(realm.after(0.5))
    assert {node: record.road for node, record in said.items()} == {"n1": "silent", "n3": "silent"}
    assert verdicts(flushed("n1", "n2", "n3").after(60), may_accuse=False) == {}


def test_those_that_came_back_at_once_still_make_a_mass() -> None:
    realm = flushed("n1", "n2", "n3", "n4", "n5")
    realm.after(0.1).attach("n1")
    for node in ("n2", "n3", "n4"):
        realm.after(0.05).attach(node)
    assert verdicts(realm.after(60)) == {}


def test_the_last_of_a_mass_to_come_back_is_no_more_dead_than_the_others() -> None:
    realm = flushed("n1", "n2", "n3", "n4", "n5")
    realm.after(19)
    for node in ("n1", "n2", "n3", "n4"):
        realm.after(0.05).attach(node)
        assert verdicts(realm.after(0.3)) == {}


def test_those_that_came_back_and_were_closed_again_still_make_a_mass() -> None:
    realm = flushed("n1", "n2", "n3", "n4", "n5")
    realm.after(15)
    for node in ("n1", "n2", "n3", "n4"):
        realm.session(f"node/{node}", "open", attachment=realm.now_ms)
    realm.after(5).close("n1", "n2", "n3", "n4")
    assert verdicts(realm.after(0.3)) == {}


def test_those_of_a_mass_that_are_at_another_broker_by_now_still_make_one() -> None:
    realm = Realm(brokers=("b1", "b2"))
    for number in range(1, 11):
        realm.node(f"n{number}", broker="b1")
    realm.after(60).close("n1", "n2", "n3", "n4", "n5")
    for node in ("n1", "n2", "n3", "n4"):
        realm.after(0.02).attach(node, broker="b2")
    assert verdicts(realm.after(0.3)) == {}


def test_two_nodes_at_once_are_no_mass() -> None:
    realm = fleet(10)
    realm.close("n1", "n2")
    assert set(verdicts(realm.after(0.3))) == {"n1", "n2"}


def test_one_that_came_back_and_was_closed_again_at_once_counts_once() -> None:
    realm = fleet(10)
    realm.after(60).close("n1", "n2")
    realm.after(0.1).session("node/n2", "open", attachment=realm.now_ms)
    realm.after(0.1).close("n2")
    assert set(verdicts(realm.after(0.3))) == {"n1", "n2"}


def test_nodes_that_die_one_after_another_are_no_mass() -> None:
    realm = fleet(10)
    for node in ("n1", "n2", "n3", "n4"):
        realm.after(1.1).close(node)
    assert set(verdicts(realm.after(0.3))) == {"n1", "n2", "n3", "n4"}


def test_five_percent_of_a_large_realm_is_no_mass() -> None:
    realm = fleet(100)
    realm.close(*(f"n{i}" for i in range(1, 6)))
    assert len(verdicts(realm.after(0.3))) == 5


def test_nobody_is_accused_twice() -> None:
    realm = fleet(3)
    realm.close("n1")
    realm.after(1).step()
    assert verdicts(realm.after(100)) == {}


def test_a_node_that_died_again_gets_a_new_verdict() -> None:
    realm = fleet(3)
    realm.close("n1")
    realm.after(1).step()
    realm.attach("n1")
    realm.close("n1")
    assert verdicts(realm.after(1))["n1"].attachments["node/n1"] == 2


def test_an_agent_whose_container_is_gone_holds_no_death_up() -> None:
    realm = fleet(3)
    realm.attach("n1", sources=["agent/n1/web/app/0"])
    realm.status(key(), "n1", State.INSTALLED, layer=Layer.CONTAINER, generation=1)
    realm.session("agent/n1/web/app/0", "silent")
    closed(realm.after(60), "n1")
    assert verdicts(realm.after(1)) == {}
    realm.status(key(), "n1", State.GONE, layer=Layer.CONTAINER, generation=2)
    assert verdicts(realm)["n1"].road == "closed"


def test_what_is_left_of_the_session_of_an_agent_that_nobody_knows_holds_no_death_up() -> None:
    realm = fleet(3)
    realm.attach("n1", sources=["agent/n1/web/app/0"])
    realm.session("agent/n1/web/app/0", "silent")
    closed(realm, "n1")
    assert verdicts(realm.after(1))["n1"].road == "closed"


def test_a_silent_agent_of_a_container_that_is_there_asks_for_the_second_road() -> None:
    realm = fleet(3)
    realm.attach("n1", sources=["agent/n1/web/app/0"])
    realm.status(key(), "n1", State.INSTALLED, layer=Layer.CONTAINER, generation=1)
    realm.session("agent/n1/web/app/0", "silent")
    closed(realm, "n1")
    assert verdicts(realm.after(11)) == {}
    realm.probe("n1", "n2", "failed")
    assert verdicts(realm)["n1"].road == "silent"


def many(count: int) -> Realm:
    """A realm whose node n1 has so many agents; all of its sessions end."""
    realm, long = fleet(2), "x" * 60
    realm.attach("n1", sources=[f"agent/n1/{long}/{long}/{index}" for index in range(count)])
    realm.close("n1")
    return realm.after(1)


def test_the_verdict_on_a_node_of_thousands_of_agents_fits_into_an_event_and_stands() -> None:
    realm = many(2_000)
    (said,) = realm.step()
    assert len(realm.rows[-1][1].raw) < MAX_EVENT_BYTES / 2
    assert {"node/n1", "monitor/n1"} < set(said.record.attachments)
    assert Fleet(realm.view, realm.now_ms, "b1").state("n1") == "dead"
    assert verdicts(realm) == {}


@pytest.mark.parametrize("index", [0, 1_999, 2_000], ids=["a named one", "one of the others", "a new one"])
def test_any_of_thousands_of_agents_that_attaches_anew_undoes_the_verdict(index: int) -> None:
    realm = many(2_000)
    realm.step()
    realm.attach("n1", sources=[f"agent/n1/{'x' * 60}/{'x' * 60}/{index}"])
    assert Fleet(realm.view, realm.now_ms, "b1").state("n1") == "alive"
