"""Where a slot's instance is reached now (rule A9)."""

import pytest

from dsmt.event.kinds.instance import Endpoint
from dsmt.event.kinds.slot import Previous, Slot
from dsmt.view import Fleet
from dsmt.view.served import served
from tests.controllers.build import Realm, key

SERVED = [
    # the slot's node, the one that keeps its copy and its generation; who says that it is ready, and in which generation;
    # who is dead; and by whom it is served
    ("n1", None, 1, {"n1": 1}, (), "n1"),
    ("n1", None, 1, {}, (), None),
    ("n1", None, 1, {"n1": -1}, (), None),
    ("n1", None, 1, {"n2": 1}, (), None),
    ("n1", None, 1, {"n1": 2}, (), None),
    ("n1", None, 2, {"n1": 1}, (), "n1"),
    ("n1", None, 1, {"n1": 1}, ("n1",), None),
    ("n1", "n2", 2, {"n2": 1}, (), "n2"),
    ("n1", "n2", 2, {"n1": 2, "n2": 1}, (), "n1"),
    ("n2", "n1", 2, {"n1": 1, "n2": 2}, (), "n2"),
    ("n1", "n2", 2, {"n1": 2, "n2": 1}, ("n1",), "n2"),
    ("n1", "n2", 2, {"n1": -2, "n2": 1}, (), "n2"),
    (None, None, 0, {"n1": 3}, (), "n1"),
    (None, None, 0, {"n1": 3, "n2": 4, "n3": 2}, (), "n2"),
]


@pytest.mark.parametrize("case", SERVED, ids=str)
def test_of_what_is_ready_where_the_slot_was_given_the_greatest_generation_is_reached(case: tuple) -> None:
    node, keeps, generation, ready, dead, by = case
    realm = Realm("n1", "n2", "n3")
    for _ in range(generation):
        previous = None if keeps is None else Previous(node=keeps, generation=1, deadline_ms=0)
        slot = Slot(node=node, spec="operator/alice#1-1", revision=1, desired="running", previous=previous)
        realm.say("controller/c1", "service/web/slot/app/0", slot)
    for at, told in ready.items():
        endpoint = Endpoint(address=f"of {at}", ports={}, generation=abs(told), ready=told > 0)
        realm.say(f"agent/{at}/web/app/0", f"service/web/endpoint/app/0/{at}", endpoint)
    for gone in dead:
        realm.verdict(gone)
    entry = realm.view.slot(key(0))
    found = None if entry is None else served(Fleet(realm.view, realm.now_ms, "b1"), entry)
    assert (None if found is None else (found.node, found.endpoint.address)) == (by and (by, f"of {by}"))


def test_what_a_node_serves_that_has_left_is_not_reached_and_what_is_only_suspect_is() -> None:
    realm = Realm("n1")
    endpoint = Endpoint(address="a", ports={}, generation=1, ready=True)
    realm.say("agent/n1/web/app/0", "service/web/endpoint/app/0/n1", endpoint)

    def reached() -> bool:
        return served(Fleet(realm.view, realm.now_ms, "b1"), realm.view.slot(key(0))) is not None

    realm.close("n1")
    assert reached()
    realm.verdict("n1", state="left", road="operator")
    assert not reached()


def test_what_an_agent_says_that_hangs_or_has_ended_is_not_reached_and_one_of_a_silent_node_is() -> None:
    realm = Realm("n1")
    agent = "agent/n1/web/app/0"
    realm.say(agent, "service/web/endpoint/app/0/n1", Endpoint(address="a", ports={}, generation=1, ready=True))
    realm.attach("n1", sources=["node/n1", agent])

    def reached() -> bool:
        return served(Fleet(realm.view, realm.now_ms, "b1"), realm.view.slot(key(0))) is not None

    realm.session(agent, "silent")
    assert reached()
    realm.after(10)
    assert not reached()
    realm.silence("n1")
    assert reached()
    realm.after(30)
    realm.attach("n1")
    assert reached()  # its agents may be a little later than its manager
    realm.after(10)
    assert not reached()
    realm.attach("n1", sources=[agent])
    assert reached()
    realm.session(agent, "closed", how="peer")
    realm.after(9)
    assert reached()  # one that was killed is followed by another one at once
    realm.after(1)
    assert not reached(), "none can be started: nobody sees whether the program runs"
