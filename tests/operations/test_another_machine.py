"""No screen gives a former word for what is there now: a machine has the name of another one, or a generation is another."""

import pytest

from dsmt.cli import plan_screen
from dsmt.event.status import Shown, State
from dsmt.operations.read.ahead.planning import ApplyPlan, plan
from dsmt.operations.read.rows.instances import instances
from dsmt.operations.read.why.explaining import roots
from tests.controllers.build import Realm, key, web
from tests.controllers.files import read

from .sights import sight
from .test_instance_rows import row_of, running

DATA = "data: true\n"
ANOTHER = "its data is on {node}, which is another machine now, with another key"


@pytest.fixture
def realm() -> Realm:
    """Two databases, of which the machine of the first was removed, and another one has come under its name."""
    made = Realm()
    for name in ("n1", "n2", "n3"):
        made.node(name, key=f"key of {name}")
    made.apply(web(2, component=DATA))
    made.settle(seconds=1)
    node = made.after(100).slot().node or ""
    agent = key().agent(node)
    made.session(agent, "open")
    made.close(node)
    made.session(agent, "closed", how="peer")
    made.verdict(node, state="left")
    made.settle(seconds=1, obey=False)
    made.attach(node)
    made.attributes(node, key="another")
    made.settle(seconds=1, obey=False)
    return made


def planned(realm: Realm) -> ApplyPlan:
    return plan(sight(realm), read(web(2, component=DATA + "env: {A: b}\n")), by="alice", warnings=[])


def test_it_waits_and_what_the_former_machine_said_is_not_told_of_it(realm: Realm) -> None:
    row = instances(sight(realm))[0]
    assert (row.node, row.state, row.pid, row.stale, row.observed_at) == (
        realm.slot().node,
        Shown.WAITING,
        None,
        False,
        None,
    )
    assert row.reason is not None
    assert row.reason.message == ANOTHER.format(node=row.node)
    assert row.reason.next is not None
    assert row.reason.next.startswith(f"bring the former {row.node} back, or dsmt move web/app/0 --accept-data-loss")
    assert f"--to {row.node}" in row.reason.next, "another node may be none of its nodes"


def test_it_is_explained_by_what_the_new_machine_said_of_itself(realm: Realm) -> None:
    topics = [signed.event.topic for signed in roots(sight(realm), "web/app/0")]
    assert topics == [f"node/{realm.slot().node}/attributes", "service/web/slot/app/0"]


def test_a_plan_begins_nothing_there_and_says_why(realm: Realm) -> None:
    found = planned(realm)
    assert [one.instance for one in found.steps] == ["web/app/1"]
    assert found.min_ready == 0
    why = ANOTHER.format(node=realm.slot().node)
    assert [(one.instance, one.reason and one.reason.message) for one in found.unplaced] == [("web/app/0", why)]
    assert f"web/app/0 will not run: {why}" in plan_screen.screens([found], ["f"])


def test_a_plan_says_of_what_stays_on_a_dead_node_that_it_will_not_run(realm: Realm) -> None:
    node = realm.slot(1).node or ""
    realm.close(node)
    realm.verdict(node)
    found = planned(realm)
    assert found.steps == []
    assert [one.reason and one.reason.message for one in found.unplaced][1] == f"its data is on {node}, which is dead"


def test_a_plan_that_wants_it_no_more_removes_it_there_too(realm: Realm) -> None:
    fewer = read(web(0, component=DATA))
    for lost in (False, True):
        if lost:
            node = realm.slot(1).node or ""
            realm.close(node)
            realm.verdict(node)
        found = plan(sight(realm), fewer, by="alice", warnings=[])
        assert sorted((one.instance, one.action) for one in found.steps) == [
            ("web/app/0", "remove"),
            ("web/app/1", "remove"),
        ]
        assert found.unplaced == []


def test_what_the_former_machine_still_says_is_told(realm: Realm) -> None:
    realm.session(key().agent(realm.slot().node or ""), "open")
    assert instances(sight(realm))[0].state is Shown.RUNNING


def test_it_begins_there_with_no_data_once_that_is_accepted(realm: Realm) -> None:
    node = realm.slot().node or ""
    realm.control(key(), move=node, accept_data_loss=True)
    realm.settle(seconds=1)
    assert instances(sight(realm))[0].state is Shown.RUNNING
    assert [one.instance for one in planned(realm).steps] == ["web/app/0", "web/app/1"]


def test_the_health_of_a_generation_is_none_of_the_next_one() -> None:
    realm = running()
    realm.health(key(0), "n1", "ready")
    assert row_of(realm).health == "ready"
    realm.control(key(0), restart=1)
    realm.step()
    realm.status(key(0), "n1", State.RUNNING)
    assert row_of(realm).health == "none"
