"""Notices of `status`: the deaths of keepers, the brake, and what was judged of nodes."""

import pytest

from dsmt.cli import member_screens, screens
from dsmt.event.kinds.node import NodeVerdict
from dsmt.event.kinds.source import Heartbeat, KeeperReplaced
from dsmt.operations.read.realm.passing import KeeperDeath
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.rows.node_rows import node_rows
from dsmt.operations.read.screens.alert import Found
from dsmt.operations.read.screens.alerting import alerts
from dsmt.operations.read.screens.summaries import status
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import Realm as RealmName
from dsmt.trust.store import TrustStore
from tests.controllers.build import Realm, web
from tests.operations.sights import sight


def test_nobody_is_told_of_the_keeper_of_a_node_that_has_left() -> None:
    realm = Realm("n1", "n2")
    realm.verdict("n2", state="left")
    seen = sight(realm.after(60))
    for node in ("n1", "n2"):
        said = KeeperReplaced(directory="/h", died=7, pid=9)
        seen.passing.keepers[f"node/{node}"] = KeeperDeath(seen.now_ms - 40_000, seen.began_ms(f"node/{node}"), said)
    told = [(one.target, one.message) for one in alerts(seen, Found(node_rows(seen))) if one.code == "keeper.died"]
    assert told == [("node/n1", "its spawner, pid 7, had died; pid 9 took its place 40 s ago")]
    trust = TrustStore(RealmName(name="prod", roots=(bytes(32),)))
    shown = screens.status(status(seen, trust, []), seen)
    assert "nothing is left to do; look: dsmt tail node/n1/keeper" in shown


@pytest.mark.parametrize(
    ("began_ms_ago", "died_ms_ago", "later", "told"),
    [(400_000, 299_000, 0, 1), (400_000, 301_000, 0, 0), (1000, 2000, 0, 1), (2000, 1000, 1, 0)],
    ids=["it is told", "long ago", "its incarnation is ahead of its clock", "it has begun anew"],
)
def test_of_the_death_of_a_keeper_is_told_for_a_while_and_not_after_its_node_has_begun_anew(
    began_ms_ago: int, died_ms_ago: int, later: int, told: int
) -> None:
    seen = sight(Realm("n1").after(1000))
    incarnation = seen.now_ms - began_ms_ago
    heard = Heartbeat(incarnation=incarnation + later, sequence=9, lag_s=0.0, emit_rate_s=1.0)
    seen.passing.heard["node/n1"] = (seen.now_ms, heard)
    said = KeeperReplaced(directory="/h", died=7, pid=9)
    seen.passing.keepers["node/n1"] = KeeperDeath(seen.now_ms - died_ms_ago, incarnation, said)
    assert sum(one.code == "keeper.died" for one in alerts(seen, Found(node_rows(seen)))) == told


@pytest.mark.parametrize(
    ("pinned", "told"), [(True, "0 silent nodes with something to replace (1 is dead)"), (False, "1 silent node")]
)
def test_the_line_of_the_brake_counts_who_has_something_to_replace_and_who_is_dead(pinned: bool, told: str) -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(1, component="data: true" if pinned else "nodes: n1"))
    realm.settle(seconds=1)
    realm.verdict(realm.slot(0).node or "", road="silent")
    seen = sight(realm)
    trust = TrustStore(RealmName(name="test", roots=(SecretKey(bytes(32)).public,)))
    (line,) = [one for one in screens.status(status(seen, trust, []), seen).splitlines() if "  brake" in one]
    assert line == f"  brake     off    {told}, comes on above 2"


def test_of_a_silence_that_was_judged_a_while_ago_it_is_told_how_long_it_was_then() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle(seconds=1)
    known = realm.view.nodes["n1"].sources
    silent = NodeVerdict(
        state="dead", road="silent", attachments={name: one.attachment for name, one in known.items()},
        evidence=(), message="n1 has been silent for 5.0 s; no other node is left", since_ms=realm.now_ms,
    )  # fmt: skip
    realm.say("controller/c2", "node/n1/verdict", silent)
    seen = sight(realm.after(14))
    then = "n1 had been silent for 5.0 s when that was judged; no other node is left"
    (row,) = instances(seen)
    assert row.reason is not None
    assert then in row.reason.message
    assert then in member_screens.nodes(node_rows(seen), seen)
    assert any(then in one.message for one in alerts(seen, Found(node_rows(seen))))
