"""Which revision was good in a slot is known for as long as the slot is, and is one that everybody believes."""

from __future__ import annotations

import msgspec
import pytest

from dsmt.controllers.rollout import standing
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.realm import BrakeWord
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good
from dsmt.event.status import State
from dsmt.view import Fleet

from .build import Realm, key, spec, web
from .rollouts import refused

POLICY = "restart: {escalate: [restart: 3]}\n"
BAD = POLICY + "env: {A: b}\n"


def running(*nodes: str, component: str = "") -> Realm:
    """One instance, with revision 1 good in it; no fact says so yet."""
    realm = Realm(*nodes)
    realm.apply(web(1, component=component + POLICY))
    realm.settle(seconds=1)
    return realm.after(100)


def fails(realm: Realm) -> None:
    """The instance parks where it is."""
    for _ in range(5):
        realm.step()
    realm.status(key(0), realm.slot().node or "", State.FAILED, parked=True)
    realm.settle(seconds=1, obey=False)


@pytest.mark.parametrize("ahead", ["runs", "ready"])
def test_what_is_said_of_a_time_that_has_not_come_counts_from_the_word(ahead: str) -> None:
    """Else nothing would be good there, and each revision would wait for it without end."""
    realm = Realm("n1")
    realm.apply(web(1))
    realm.step()
    far_ms = realm.now_ms + 10**9
    realm.status(key(0), "n1", since_ms=far_ms if ahead == "runs" else realm.now_ms)
    realm.health(key(0), "n1", "ready", since_ms=far_ms if ahead == "ready" else realm.now_ms)
    realm.after(100)
    component = standing(Fleet(realm.view, realm.now_ms, realm.broker), key(0))
    assert component is not None
    assert component.is_good(component.slot(key(0)))


# --- for as long as the slot is ----------------------------------------------------------------------------------


def days(realm: Realm, node: str) -> None:
    """A node is dead for longer than anything lives that it said."""
    realm.close(node)
    for _ in range(26):
        realm.step()
        realm.step()
        realm.after(3600)
    assert realm.view.nodes[node].attributes is None
    assert not realm.view.slot(key(0)).instances


@pytest.mark.parametrize("braked", [False, True])
def test_what_was_good_is_known_though_its_node_was_dead_for_days_with_no_other_place(braked: bool) -> None:
    realm = running("n1")
    first = realm.slot().spec
    if braked:
        realm.say("operator/alice", "config/brake", BrakeWord(held=True, released_ms=0, by="alice", reason=""))
    days(realm, "n1")
    assert (realm.slot().node, realm.slot().spec) == ("n1", first)
    realm.say("operator/alice", "config/brake", BrakeWord(held=False, released_ms=realm.now_ms, by="alice", reason=""))
    realm.apply(web(1, component=BAD))
    assert realm.settle(seconds=1) == []
    realm.node("n2")
    fails(realm)
    assert (realm.slot().node, realm.slot().spec, refused(realm.slot())) == ("n2", first, 2)


@pytest.mark.parametrize(("instances", "component"), [(1, "data: true\n"), ("each_node", "")])
def test_what_was_good_where_it_must_stay_is_known_when_its_node_is_back(instances: int | str, component: str) -> None:
    realm = Realm("n1")
    realm.apply(web(instances, component=component + POLICY))
    realm.settle(seconds=1)
    first = realm.after(100).slot().spec
    days(realm, "n1")
    realm.apply(web(instances, component=component + BAD))
    realm.settle(seconds=1)
    realm.node("n1")
    fails(realm)
    assert (realm.slot().spec, refused(realm.slot())) == (first, 2)


def test_what_is_kept_of_a_slot_on_a_dead_node_is_said_once_and_changes_nothing_else() -> None:
    realm = running("n1")
    known = msgspec.structs.replace(realm.slot(), good=Good(spec=realm.slot().spec, revision=1))
    realm.close("n1")
    (verdict,) = realm.settle(seconds=1)
    assert verdict.topic == "node/n1/verdict", "it may be back at once"
    assert [realm.after(3600).step() for _ in range(17)] == [[]] * 17
    assert [intent.subject for intent in realm.after(3600).step()] == ["web/app/0"]
    assert realm.slot() == known
    assert [realm.after(3600).step() for _ in range(17)] == [[]] * 17
    realm.attach("n1")
    realm.settle(seconds=1)
    assert realm.slot() == known


def test_what_was_not_good_when_its_node_died_is_not_good_for_being_dead_for_long() -> None:
    realm = running("n1")
    first = Good(spec=realm.slot().spec, revision=1)
    realm.apply(web(1, component=POLICY + "update: {rollback: false}\n"))
    realm.step()
    realm.obey()
    realm.after(5)
    days(realm, "n1")
    assert (realm.slot().revision, realm.slot().good) == (2, first)


# --- believed by all ---------------------------------------------------------------------------------------------


def signed_anew(realm: Realm, **about: object) -> SignedEvent:
    """Another operator signs what stands anew, for the key of its signer is revoked."""
    held = realm.view.services["web"].spec
    data = {**held.signed.event.data, "same": [str(held.id), *held.record.same], **about}
    return realm.say("operator/bob", "service/web/spec", data, cause=(held.id,))


@pytest.mark.parametrize("agent_says", [False, True])
def test_a_held_slot_goes_back_to_what_another_operator_signed_anew(agent_says: bool) -> None:
    realm = running("n1")
    first = Good(spec=realm.slot().spec, revision=1)
    realm.hold(key(0))
    realm.settle(seconds=1)
    realm.after(100)
    anew = signed_anew(realm)
    realm.settle(seconds=1)
    if agent_says:
        realm.status(key(0), "n1", State.STOPPED, good=first)
    realm.after(100).apply(web(1, component=BAD))
    realm.settle(seconds=1)
    if agent_says:
        realm.status(key(0), "n1", State.STOPPED, good=first)
    realm.control(key(0))
    fails(realm)
    assert (realm.slot().spec, realm.slot().revision, refused(realm.slot())) == (str(anew.id), 2, 3)


@pytest.mark.parametrize("where", ["gone", "dead"])
def test_a_slot_that_is_nowhere_goes_back_to_what_another_operator_signed_anew_meanwhile(where: str) -> None:
    realm = running("n1")
    if where == "gone":
        realm.apply(web(0, component=POLICY))
    else:
        realm.close("n1")
    realm.settle(seconds=1)
    realm.after(100)
    anew = signed_anew(realm)
    realm.settle(seconds=1)
    assert realm.after(100).settle(seconds=1) == []
    realm.apply(web(1, component=BAD))
    realm.node("n2")
    fails(realm)
    assert (realm.slot().spec, refused(realm.slot())) == (str(anew.id), anew.event.version + 1)


@pytest.mark.parametrize("where", ["held", "gone"])
def test_what_a_slot_was_rolled_back_to_is_good_as_another_operator_signs_it_anew(where: str) -> None:
    realm = running("n1")
    first = realm.view.services["web"].spec
    realm.apply(web(1, component=BAD))
    fails(realm)
    if where == "held":
        realm.hold(key(0))
    else:
        realm.apply(web(0, component=BAD))
    realm.settle(seconds=1)
    assert (realm.slot().spec, refused(realm.slot())) == (str(first.id), 2)
    refusing, count = realm.view.services["web"].spec, 1 if where == "held" else 0
    anew = realm.say(
        "operator/bob",
        "service/web/spec",
        SpecFact(spec=spec(web(count, component=POLICY)), by="alice", reason="a test"),
        cause=(refusing.id, first.id),
    )
    realm.settle(seconds=1)
    realm.after(100).apply(web(1, component=POLICY + "env: {A: c}\n"))
    realm.control(key(0))
    fails(realm)
    assert (realm.slot().spec, refused(realm.slot())) == (str(anew.id), anew.event.version + 1)


def test_scaling_alone_says_nothing_of_slots_that_are_gone() -> None:
    realm = running("n1", "n2")
    for count in (0, 1, 2, 1, 0):
        realm.apply(web(count, component=POLICY))
        realm.settle(seconds=1)
        realm.after(60)
    generation = realm.generation(1)
    for count in (1, 0):
        realm.apply(web(count, component=POLICY))
        realm.settle(seconds=1)
    assert realm.generation(1) == generation


def test_what_was_good_before_what_stands_is_not_good_for_being_signed_anew() -> None:
    """Revision 2 is on its way when its signer is revoked: that it is signed anew makes nothing of it good."""
    realm = running("n1", component="update: {rollback: false}\n")
    first = Good(spec=realm.slot().spec, revision=1)
    realm.hold(key(0))
    realm.settle(seconds=1)
    realm.after(100).apply(web(1, component=BAD))
    realm.settle(seconds=1)
    signed_anew(realm)
    realm.settle(seconds=1)
    assert (realm.slot().revision, realm.slot().good) == (3, first)


def test_a_revision_that_is_yet_to_come_was_good_nowhere() -> None:
    """A node brings a slot fact back to a store that knows only an older revision."""
    realm = running("n1")
    fact = realm.slot()
    later = Good(spec="operator/alice#1-99", revision=5)
    told = msgspec.structs.replace(fact, spec=later.spec, revision=later.revision, good=later)
    realm.say("controller/c2", "service/web/slot/app/0", told)
    slot, component = realm.view.slot(key(0)), standing(Fleet(realm.view, realm.now_ms, realm.broker), key(0))
    assert component is not None
    assert slot is not None
    assert component.good(slot) is None
    assert not component.is_good(slot)
