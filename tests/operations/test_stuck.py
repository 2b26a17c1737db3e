"""What is killed and does not die, as while its disk does not answer: it is told, whatever it is to end for."""

from __future__ import annotations

import msgspec
import pytest

from dsmt.cli import screens
from dsmt.event.reason import reason
from dsmt.event.status import Layer, Shown, State
from dsmt.operations.read.rows.holding import left_on
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.rows.node_rows import node_rows
from dsmt.operations.read.rows.outside import Outside
from dsmt.operations.read.screens.alert import Alert, Found
from dsmt.operations.read.screens.alerting import alerts
from dsmt.operations.read.screens.summaries import services
from dsmt.operations.read.waits.waiting import progress
from dsmt.operations.words.targets import Target
from tests.controllers.build import Realm, key, web
from tests.operations.sights import sight

SAID = "pid 77 does not die (state D)"


def stuck(realm: Realm, node: str) -> None:
    """The agent of web/app/0 on a node has killed its program, which does not die."""
    why = reason("stop.stuck", pid=77, state="D", node=node)
    realm.status(key(0), node, State.TERMINATED, reason=why)


def told(realm: Realm) -> list[Alert]:
    """What `status` tells of its services."""
    seen = sight(realm)
    return [one for one in alerts(seen, Found(services=services(seen))) if one.code != "controllers.none"]


def test_of_what_an_operator_has_stopped_it_is_told_that_it_does_not_die() -> None:
    """All was said to be well, and who waited for its end was told who had stopped it."""
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle(seconds=1)
    realm.hold(key(0))
    realm.settle(obey=False)
    assert told(realm) == []
    stuck(realm, "n1")
    seen = sight(realm)
    (row,) = instances(seen, Target("web"))
    assert row.held is not None
    (alert,) = told(realm)
    assert (alert.target, alert.code, alert.who, alert.message) == ("web/app/0", "stop.stuck", "you", SAID)
    (below,) = [one for one in screens.ps([row], seen).split("\n") if "stop.stuck" in one]
    assert below.strip() == f"stop.stuck: {SAID}"
    assert "held by alice" in screens.ps([row], seen)
    assert f"stop.stuck: {SAID}" in screens.services(services(seen), seen)
    assert progress(seen, [row], lambda _: False).endswith(f"web/app/0 stopping: {SAID}")
    realm.status(key(0), "n1", State.STOPPED)
    assert told(realm) == []


def test_a_drain_says_of_what_does_not_die_that_it_does_not_and_not_that_it_stays_to_be_served() -> None:
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.settle(seconds=1)
    node = realm.after(100).slot().node or ""
    realm.control_node(node, "draining")
    realm.settle(obey=False)
    assert (there := realm.slot().node) not in (None, node)
    realm.session(source := f"agent/{node}/web/app/0", "silent")
    realm.after(40)
    (left,) = left_on(sight(realm), node)
    quiet = "its agent has been silent for 40 s while its node was heard: how it is now is not known"
    assert left.because == f"it is waiting on {there} now; what is left here does not end: {quiet}; dsmt node show {node}"
    realm.session(source, "open")
    assert "its copy stays until" in left_on(sight(realm), node)[0].because
    stuck(realm, node)
    (left,) = left_on(sight(realm), node)
    assert left.because == f"it is waiting on {there} now; what is left here does not end: {SAID}; look at {node}'s storage"


def test_so_it_says_of_what_is_wanted_no_more_and_has_an_agent_that_is_not_heard() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle(seconds=1)
    realm.apply(web(0))
    realm.control_node("n1", "draining")
    realm.settle(obey=False)
    (left,) = left_on(sight(realm), "n1")
    assert left.because == "it is wanted nowhere now; what is left here is being ended, and is running"
    realm.session("agent/n1/web/app/0", "silent")
    realm.after(40)
    (left,) = left_on(sight(realm), "n1")
    quiet = "its agent has been silent for 40 s while its node was heard: how it is now is not known"
    assert left.because == f"it is wanted nowhere now; what is left here does not end: {quiet}; dsmt node show n1"


@pytest.mark.parametrize(
    ("component", "ends"),
    [("", "dsmt node show n1; to have it elsewhere: dsmt move web/app/0"), ("data: true\n", "dsmt node show n1")],
)
def test_of_an_agent_that_does_not_come_back_on_a_node_that_lives_it_is_told_what_helps(component: str, ends: str) -> None:
    """Its manager has killed it after 30 s, and it does not die: it was told that this goes on by itself."""
    realm = Realm("n1")
    realm.apply(web(1, component=component))
    realm.settle(seconds=1)
    source = "agent/n1/web/app/0"
    realm.attach("n1", sources=["node/n1", source])
    realm.session(source, "silent")
    realm.after(91)
    (row,) = instances(sight(realm), Target("web"))
    assert row.reason is not None
    assert (row.state, row.reason.code, row.reason.who) == (Shown.LOST, "node.stale", "you")
    assert row.reason.next.endswith(f"does not answer: {ends}")
    for program in ("node/n1", "monitor/n1"):
        realm.session(program, "silent")
    (row,) = instances(sight(realm), Target("web"))
    assert row.reason is not None
    assert (row.reason.code, row.reason.who) == ("node.stale", "world")


@pytest.mark.parametrize("is_apart", [False, True], ids=["of it", "but that its broker is lost"])
def test_of_what_a_silent_manager_told_last_it_is_told_though_nothing_is_known_of_its_agent(*, is_apart: bool) -> None:
    realm, agent = Realm("n1", brokers=("b1", "b2")), "agent/n1/web/app/0"
    realm.apply(web(1))
    realm.settle(seconds=1)
    realm.after(1)
    realm.status(key(0), "n1", State.INSTALLING, generation=9, layer=Layer.CONTAINER)
    assert agent not in realm.view.sessions.of
    realm.session("node/n1", "silent")
    if is_apart:
        realm.attach("n1", sources=[agent], broker="b2")
        realm.session("broker/b2", "silent", broker="b1")
    realm.after(91)
    (row,) = instances(sight(realm), Target("web"))
    assert row.reason is not None
    assert (row.state, row.reason.code, row.reason.who) == (Shown.LOST, "node.stale", "world")


def test_a_node_that_says_to_have_what_is_to_end_and_does_not_end_it_is_told_after_a_minute() -> None:
    """A stolen node's key makes it up: who applied the service waited for it for good, and no screen showed it."""
    realm = Realm("n1", "n2")
    realm.apply(web(1))
    realm.settle(seconds=1)
    for layer in (Layer.CONTAINER, Layer.AGENT):
        realm.status(key(3), "n2", State.RUNNING, layer=layer, orphan=True)
    realm.settle(obey=False)
    assert told(realm.after(59)) == []
    (alert,) = told(realm.after(2))
    assert (alert.target, alert.code, alert.who) == ("node/n2", "node.lingers", "you")
    assert alert.message == "n2 says to have web/app/3, which is to end there"
    out = Outside(why="revoked", key=None, since=None, message="its key was revoked", next="", may_run=[])
    seen = sight(realm)
    found = [msgspec.structs.replace(one, out=out) for one in node_rows(seen)]
    assert "node.lingers" not in {one.code for one in alerts(seen, Found(nodes=found))}
    realm.status(key(3), "n2", State.TERMINATED, alone=True)
    assert told(realm) == [], "it says that it is ending"
    realm.status(key(3), "n2", State.GONE)
    assert told(realm) == []
