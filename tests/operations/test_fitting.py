"""Why nodes do not take an instance: of what each node is to have."""

import pytest

from dsmt.cli.why import why_not_lines
from dsmt.event.kinds.realm import NodesetFact
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.screens.summaries import services
from dsmt.operations.read.why.fitting import why_not
from dsmt.operations.words.targets import Target
from tests.controllers.build import Realm, web

from .sights import sight


def test_of_what_each_node_is_to_have_it_is_told_which_have_it_and_what_keeps_it_off_the_others() -> None:
    realm = Realm("n1", "n2", "n3")
    realm.say("operator/alice", "nodeset/edge", NodesetFact(expression="minus(n1, n1)", by="alice"))
    realm.apply(web("each_node", component="nodes: edge\nports: {http: 8080}"))
    realm.settle()
    assert [(row.reason.code, row.reason.next) for row in services(sight(realm)) if row.reason] == [
        ("place.empty_set", "dsmt nodeset show edge")
    ]
    found = why_not(sight(realm), Target("web"))
    assert (found.target, found.has, found.fits, found.nodes) == ("web/app/0", [], [], 3)
    assert [(one.clause, one.removes) for one in found.clauses] == [("nodes", 3)]
    realm.say("operator/alice", "nodeset/edge", NodesetFact(expression="union(n1, n2)", by="alice"))
    realm.settle()
    found = why_not(sight(realm), Target("web"))
    assert (found.target, found.on, found.has, found.fits, found.nodes) == ("web/app", None, ["n1", "n2"], [], 3)
    assert ([(one.clause, one.removes) for one in found.clauses], found.suggestions) == ([("nodes", 1)], [])
    assert why_not_lines(found)[0] == "web/app: one on each node that fits: on 2 of 3 nodes: n1, n2"
    there, elsewhere = (why_not(sight(realm), Target("web"), node) for node in ("n1", "n3"))
    assert (there.has, there.nodes, there.clauses) == (["n1"], 1, [])
    assert (elsewhere.has, elsewhere.suggestions) == ([], ["nodes: all_nodes: n3 fits"])


def test_what_has_a_place_is_said_to_have_one_before_anything_on_another_like_it() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.settle()
    node = realm.slot(0).node
    told = why_not_lines(why_not(sight(realm), Target("web")))
    assert told[:2] == [f"web/app/0 has a place: it is on {node}", "for one more like it 2 of 2 nodes fit: n1, n2"]


def scaled_to_none() -> tuple[Realm, str]:
    """A realm in which nothing runs of a service whose data is on the named node."""
    realm = Realm("n1", "n2")
    realm.apply(web(1, component="data: true"))
    realm.settle(seconds=1)
    home = realm.slot(0).node or ""
    realm.apply(web(0, component="data: true"))
    realm.settle(seconds=1)
    return realm, home


@pytest.mark.parametrize("mode", ["draining", "excluded"])
def test_where_the_home_of_data_takes_nothing_by_an_operators_word_that_word_is_undone_first(mode: str) -> None:
    realm, home = scaled_to_none()
    realm.control_node(home, mode)
    realm.apply(web(1, component="data: true"))
    realm.settle(seconds=1)
    (row,) = instances(sight(realm))
    why = row.reason
    assert why is not None
    assert why.message == f"its data is on {home}, which does not take it: {home} is {mode}"
    assert why.next == f"dsmt node include {home}; without its data: dsmt move web/app/0 --accept-data-loss"
    assert [one.partition(":")[0] for one in why_not(sight(realm), Target("web")).suggestions] == [
        f"dsmt node include {home}",
        "dsmt move web/app/0 --accept-data-loss",
    ]


def test_where_the_home_of_data_has_left_it_may_come_back() -> None:
    realm, home = scaled_to_none()
    realm.close(home)
    realm.verdict(home, state="left")
    realm.apply(web(1, component="data: true"))
    realm.settle(seconds=1)
    assert why_not(sight(realm), Target("web")).suggestions == [
        f"bring {home} back: dsmt up, or add it again, on the machine that has the data",
        "dsmt move web/app/0 --accept-data-loss: another node fits, and begins with no data",
    ]


def test_what_was_on_a_node_that_is_dead_does_not_keep_itself_off_it() -> None:
    realm = Realm("n1", "n2")
    wants = "nodes: n1\nports: {http: 8080}\nreserve: {memory: 5GiB}"
    realm.apply(web(1, component=wants))
    realm.settle()
    assert [one.clause for one in why_not(sight(realm), Target("web"), "n1").clauses] == ["ports", "memory"], (
        "one more like it"
    )
    realm.close("n1")
    realm.verdict("n1")
    found = why_not(sight(realm), Target("web"))
    assert [(one.clause, one.nodes) for one in found.clauses if "n1" in one.nodes] == [("dead", {"n1": "n1 is dead"})]
    assert found.suggestions == ["bring n1 back: it is dead", "nodes: all_nodes: n2 fits"]


def test_where_only_ports_are_taken_those_are_to_be_others() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(2, component="ports: {http: 8080}"))
    realm.settle()
    realm.apply(web(1, service="other", component="ports: {admin: 9090, http: 8080}"))
    realm.settle()
    assert why_not(sight(realm), Target("other")).suggestions == [
        "ports: {http: auto}: n1 fits",
        "ports: {http: auto}: n2 fits",
    ]
