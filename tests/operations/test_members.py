"""Members: what is said of those that are away, or whose certificates have ended."""

import msgspec
import pytest

from dsmt.cli import member_screens
from dsmt.event.kinds.controller import ControllerState
from dsmt.event.kinds.realm import BrokerWord, Revoked
from dsmt.operations.read.rows.broker_rows import broker_rows, with_ended
from dsmt.operations.read.rows.controller_rows import controller_rows
from dsmt.operations.read.rows.node_rows import node_rows, node_shown
from dsmt.operations.read.screens.alert import Found
from dsmt.operations.read.screens.alerting import alerts
from dsmt.operations.read.why.explaining import roots
from dsmt.ports.realm import BrokerAddress
from tests.controllers.build import Realm
from tests.operations.sights import sight
from tests.operations.test_alerts import stats

KEY = "ab" * 16


def away() -> Realm:
    """A realm whose node n2 was closed."""
    realm = Realm("n1", "n2")
    realm.say("operator/alice", f"trust/revoked/{KEY}/operator/alice", Revoked(by="alice", name="node/n2", reason="stolen"))
    realm.close("n2")
    realm.after(0.3).step()
    return realm


def test_a_node_whose_key_was_revoked_is_said_to_be_away_for_that() -> None:
    seen = sight(away())
    (told,) = [node for node in node_rows(seen) if node.node == "n2"]
    assert told.liveness == "dead"
    assert told.evidence is not None
    assert told.evidence.startswith('its key was revoked by alice: "stolen"')
    assert "dsmt cert rotate node/n2" in told.evidence
    (alert,) = alerts(seen, Found(node_rows(seen)))
    assert (alert.next, alert.who) == (
        "dsmt cert rotate node/n2; on a host: dsmt node add it again, or dsmt join TOKEN, there",
        "you",
    )
    assert [signed.event.type for signed in roots(seen, "node/n2")] == ["dsmt.trust.revoked", "dsmt.node.verdict"]


def test_a_node_that_came_back_with_another_key_and_died_later_died_of_something_else() -> None:
    realm = away()
    realm.after(60).attach("n2", number=realm.now_ms + 60_000)
    realm.probe("n2", "n1", "failed")
    assert {(node.liveness, node.evidence) for node in node_rows(sight(realm))} == {("alive", None)}
    realm.after(60).close("n2")
    realm.after(0.3).step()
    (told,) = [node for node in node_rows(sight(realm)) if node.node == "n2"]
    assert told.evidence is not None
    assert "connections from n2 closed" in told.evidence


def test_a_controller_that_went_with_the_machine_of_its_node_counts_no_more() -> None:
    realm = Realm("n1", "n2")
    state = ControllerState(version="1", ruleset=1, pid=7, decisions=0)
    for name in ("c1", "n1", "n2"):
        realm.say(f"controller/{name}", f"controller/{name}/state", state)
        realm.session(f"controller/{name}", state="closed" if name == "n2" else "open")
    assert [one.controller for one in controller_rows(sight(realm))] == ["c1", "n1", "n2"]
    for name in ("n1", "n2"):
        realm.verdict(name, state="left")
    assert [(one.controller, one.alive) for one in controller_rows(sight(realm))] == [("c1", True), ("n1", True)]


def test_a_node_that_has_left_has_no_processes_and_no_mode() -> None:
    realm = Realm("n1", "n2")
    realm.attributes("n1", spawner_pid=11, manager_pid=12, monitor_pid=13)
    realm.control_node("n1", "draining")
    realm.close("n1")
    realm.verdict("n1", state="left")
    seen = sight(realm)
    shown = node_shown(seen, "n1")
    assert (shown.liveness, shown.mode, shown.mode_by, shown.pid, shown.processes) == ("left", None, None, None, [])
    assert shown.attributes is not None
    assert not [name for name in shown.attributes if name.endswith("_pid")]
    said = member_screens.node_shown(shown, seen)
    assert said.startswith("n1   left\n")
    assert "PID" not in said


@pytest.mark.parametrize(("removed", "anew", "listed"), [(False, False, {"b2"}), (True, False, set()), (True, True, {None})])
def test_a_broker_that_was_removed_from_another_home_is_none_though_this_home_names_it_still(
    removed: bool, anew: bool, listed: set[str | None]
) -> None:
    """The address of it may be another one's, with another key, of which nothing is said yet."""
    own, far = BrokerAddress("10.0.0.1:1", bytes(32)), BrokerAddress("10.0.0.2:1", bytes([2] * 32))
    realm = Realm("n1")
    seen = sight(realm)
    for name, at in (("b1", own), ("b2", far)):
        word = BrokerWord(address=at.address, public=at.public, by="bob", removed=removed and at == far)
        seen.passing.take(realm.say("operator/bob", f"config/broker/{name}", word).event)
    known = [own, BrokerAddress(far.address, bytes([3] * 32)) if anew else far]
    assert {one.broker for one in broker_rows(seen, known) if one.address == far.address} == listed


def test_a_leaf_that_has_been_cut_off_for_minutes_is_shown_though_no_home_names_it() -> None:
    """Homes name no leaf (E5), and what it said of itself is not asked for any more."""
    own, far = BrokerAddress("10.0.0.1:1", bytes(32)), BrokerAddress("10.0.0.2:1", bytes([2] * 32))
    seen = sight(Realm("n1"))
    seen.passing.stats["b1"] = (seen.now_ms, stats())
    for name, at in (("b1", own), ("site", far)):
        word = BrokerWord(address=at.address, public=at.public, by="bob", leaf=at == far)
        seen.passing.take(Realm("n1").say("operator/bob", f"config/broker/{name}", word).event)
    found = {one.broker: one for one in broker_rows(seen, [own])}
    site = found["site"]
    assert (found.keys(), site.address, site.alive, site.leaf, site.upstream) == (
        {"b1", "site"},
        far.address,
        False,
        True,
        None,
    )
    assert "it is a leaf, linked to no other broker now" in member_screens.brokers(list(found.values()), seen)
    told = next(one for one in alerts(seen, Found(brokers=list(found.values()))) if one.target == "broker/site")
    assert told.message.startswith("it is a leaf, and linked to no other broker: its site is cut off")
    assert told.next == "see to the uplink of its site, and to its machine"
    linked = [msgspec.structs.replace(one, upstream="b1" if one.leaf else None) for one in found.values()]
    told = next(one for one in alerts(seen, Found(brokers=linked)) if one.target == "broker/site")
    assert told.message.startswith("it is not alive")


def test_of_a_controller_that_is_not_alive_the_screen_says_what_to_do() -> None:
    realm = Realm("n1")
    for name in ("c1", "c2"):
        realm.controller(name)
    realm.session("controller/c2", "closed", how="peer")
    seen = sight(realm)
    told = member_screens.controllers(controller_rows(seen), seen)
    assert told.count("next: ") == 1
    assert "next: dsmt up where it was; or dsmt controller remove c2" in told
    told = member_screens.controllers(controller_rows(seen), seen, {"controller/c2"})
    assert "its certificate has ended; next: dsmt cert rotate controller/c2; on an added host" in told
    assert "dsmt up" not in told, "it would not be let in"


def test_of_a_broker_whose_certificate_has_ended_the_screen_says_that_and_what_to_do() -> None:
    seen = sight(Realm("n1"))
    for name in ("b1", "b2"):
        seen.passing.stats[name] = (seen.now_ms, stats())
    told = member_screens.brokers(with_ended(broker_rows(seen, []), {"broker/b2"}), seen)
    assert told.count("its certificate has ended") == 1
    assert "its certificate has ended; next: dsmt cert rotate broker/b2" in told.partition("\nb2 ")[2]
