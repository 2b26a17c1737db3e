"""The screens of node sets, as they are printed."""

from dsmt.cli import nodeset
from dsmt.event.kinds.realm import NodesetFact
from dsmt.operations.write.nodesets import CYCLE_MOST, NodeSet, every
from tests.cli.screens import check
from tests.controllers.build import Realm
from tests.operations.sights import sight


def test_node_sets_are_shown_with_what_they_select_and_what_is_odd() -> None:
    when, long = "2026-01-01T00:00:00.000Z", "minus(union(all_nodes, label(zone=eu-central-1)), union(failed, old, n4))"
    good = NodeSet(
        name="good", expression=long, nodes=[f"n{i}" for i in range(1, 16)], unknown=["old"], used_by=["web/app", "db/pg"],
        by="alice", at=when, reason="the other rack is\x1b[31m being moved", hides=None,
    )  # fmt: skip
    n4 = NodeSet(name="n4", expression="n5", nodes=[], unknown=[], used_by=[], by="bob", at=when, hides="n4")
    round_ = NodeSet(
        name="a", expression="minus(all_nodes, b)", nodes=[], unknown=[], used_by=["nodeset/b"], by="bob", at=when,
        cycle="the named sets form a cycle: a -> b -> a",
    )  # fmt: skip
    check("nodesets_cycle", nodeset.listed([round_]))
    check("nodeset_cycle", nodeset.screen(round_))
    check("nodesets", nodeset.listed([good, n4]))
    check("nodesets_none", nodeset.listed([]))
    check("nodeset", nodeset.screen(good))
    check("nodeset_hides", nodeset.screen(n4))


def test_of_however_many_sets_that_form_one_cycle_the_whole_of_it_is_not_told_of_each() -> None:
    realm, most = Realm("n1"), 300
    for number in range(most):
        fact = NodesetFact(expression=f"s{(number + 1) % most}", by="alice", reason="")
        realm.say("operator/alice", f"nodeset/s{number}", fact)
    found = every(sight(realm))
    assert [one.nodes for one in found] == [[]] * most
    assert {len(one.cycle or "") for one in found} == {CYCLE_MOST}
