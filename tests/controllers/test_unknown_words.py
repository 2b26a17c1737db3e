"""Of two facts one may be here before the other, for which it was said: then nothing is decided by what was before (A4)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from dsmt.controllers.pending import waits_for
from dsmt.controllers.rollout import Governing
from dsmt.controllers.unknown_words import UNKNOWN_MS
from dsmt.event.envelope import SignedEvent
from dsmt.event.hlc import rfc3339
from dsmt.event.kinds.realm import NodesetFact, Tombstone
from dsmt.event.kinds.slot import Hold
from dsmt.event.status import Layer, State
from dsmt.view import Fleet
from tests.controllers.build import Realm, key, web
from tests.controllers.repairs import kill


def started(instances: int = 2) -> Realm:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(instances))
    realm.settle(seconds=5)
    return realm


def behind(realm: Realm, lacks: SignedEvent) -> Realm:
    """What another reader knows, to whom all but one event has come."""
    other = Realm()
    for row, signed in realm.rows:
        if signed.id != lacks.id:
            other.rows.append((row, signed))
            other.view.apply(signed)
    other.now_ms = realm.now_ms
    return other


def stop(realm: Realm) -> SignedEvent:
    return realm.hold(key())


def start(realm: Realm) -> SignedEvent:
    realm.hold(key())
    realm.settle(seconds=1)
    return realm.control(key(), restart=1)


def held_after_a_restart(realm: Realm) -> SignedEvent:
    realm.control(key(), restart=1)
    realm.settle(seconds=1)
    return realm.control(key(), hold=Hold(by="alice", at_ms=realm.now_ms, reason="a test"), restart=1)


def moved(realm: Realm) -> SignedEvent:
    return realm.control(key(), move="n3" if realm.slot().node != "n3" else "n1")


WORDS: dict[str, Callable[[Realm], SignedEvent]] = {
    "revision": lambda realm: realm.apply(web(2, component="env: {A: b}")),
    "more": lambda realm: realm.apply(web(4)),
    "fewer": lambda realm: realm.apply(web(1)),
    "none": lambda realm: realm.apply(web(2), removed=True),
    "stop": stop,
    "start": start,
    "held after a restart": held_after_a_restart,
    "move": moved,
}


ON_NODES: dict[str, Callable[[Realm], SignedEvent]] = {
    "drain": lambda realm: realm.control_node(realm.slot().node or "", "draining"),
    "set": lambda realm: realm.say(
        "operator/alice",
        "nodeset/good",
        NodesetFact(expression=f"minus(all_nodes, {realm.slot().node})", by="alice"),
        version=2,
    ),
}


@pytest.mark.parametrize("word", ON_NODES)
def test_who_lacks_a_word_on_a_node_or_a_set_takes_nothing_back_that_was_decided_by_it(word: str) -> None:
    """Else it is to run again where it was stopped to leave, and is stopped again by who has the word; and so on."""
    realm = Realm("n1", "n2", "n3")
    realm.say("operator/alice", "nodeset/good", NodesetFact(expression="all_nodes", by="alice"), version=1)
    realm.apply(web(1, component="nodes: good\nupdate: {order: stop_first}"))
    realm.settle(seconds=5)
    realm.after(20)
    word_said = ON_NODES[word](realm)
    stopped = realm.step()
    assert [one.record.desired for one in stopped] == ["stopped"]
    for _ in range(3):
        assert [one.because for one in behind(realm, word_said).decide().intents] == []
        realm.obey()
        realm.after(0.5)
        realm.step()


@pytest.mark.parametrize("word", ["stop", "move"])
def test_an_old_word_on_a_node_that_asks_nothing_of_a_slot_ends_no_wait_for_a_fact_that_a_status_follows(
    word: str,
) -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(1))
    realm.settle(seconds=5)
    realm.node("n9")
    realm.control_node("n9", "excluded")
    realm.after(3600)
    WORDS[word](realm)
    (fact,) = realm.publish(realm.decide().intents)
    realm.obey()
    assert [one for one in behind(realm, fact).decide().intents if one.topic == fact.event.topic] == []


@pytest.mark.parametrize("word", WORDS)
def test_who_lacks_a_word_takes_nothing_back_that_was_decided_by_it(word: str) -> None:
    realm = started()
    said = WORDS[word](realm)
    decided = realm.step()
    assert decided
    for _ in range(3):
        other = behind(realm, said)
        assert [one.because for one in other.decide().intents] == []
        realm.obey()
        realm.after(0.5)
        realm.step()


def test_a_word_that_never_comes_is_not_waited_for_for_ever() -> None:
    realm = started()
    said = realm.apply(web(2, component="env: {A: b}"))
    assert len(realm.step()) == 1
    other = behind(realm, said)
    first = other.decide()
    assert first.intents == ()
    assert first.wake_ms is not None
    assert first.wake_ms <= realm.now_ms + UNKNOWN_MS
    told = waits_for(Governing(Fleet(other.view, other.now_ms, other.broker)), key())
    assert told is not None
    assert (told.code, f"{key()}" in told.message) == ("wait.word", True)
    assert told.message.endswith(f"before it comes, or {rfc3339(first.wake_ms)}")
    other.after(UNKNOWN_MS / 1000)
    assert {one.record.revision for one in other.decide().intents} == {1}


def test_by_which_words_it_was_decided_is_no_reason_to_say_a_fact_again() -> None:
    realm = started()
    realm.apply(web(2, head="labels: {a: b}\n"))
    realm.settle(seconds=5)
    before = realm.slot()
    assert (before.spec_version, before.control_version) == (2, 0)
    realm.control(key())
    assert realm.settle(seconds=5) == []
    assert realm.slot() == before


DECIDED: dict[str, Callable[[Realm], object]] = {
    "revision": lambda realm: realm.apply(web(2, component="env: {A: b}")),
    "drain": lambda realm: realm.control_node(realm.slot().node or "", "draining"),
    "move": moved,
    "restart": lambda realm: realm.control(key(), restart=1),
    "stop": stop,
}


def decided(realm: Realm) -> list[int]:
    """The slots of which something is decided now."""
    topics = [intent.topic.split("/") for intent in realm.decide().intents]
    return [int(topic[4]) for topic in topics if topic[2] == "slot"]


def said(realm: Realm, index: int = 0) -> SignedEvent:
    """What is decided of one slot is said, and no more."""
    (fact,) = realm.publish(intent for intent in realm.decide().intents if intent.topic == f"service/web/slot/app/{index}")
    return fact


@pytest.mark.parametrize("word", DECIDED)
def test_who_has_a_status_before_the_fact_that_it_follows_decides_nothing_of_the_slot(word: str) -> None:
    """Its own fact would have a greater generation, and so win against the one that it knows nothing of."""
    realm = started().after(20)
    DECIDED[word](realm)
    fact = said(realm)
    realm.obey()
    realm.status(key(), realm.slot().node or "", State.INSTALLED, layer=Layer.CONTAINER)
    other = behind(realm, fact)
    assert 0 not in decided(other)
    other.after(UNKNOWN_MS / 1000 - 1)
    assert 0 not in decided(other)
    other.after(2)
    assert 0 in decided(other), "a fact that never comes is not waited for"


def test_no_node_that_the_fact_does_not_name_tells_of_a_later_one() -> None:
    realm = started().after(20)
    node = realm.slot().node
    other = next(name for name in ("n1", "n2", "n3") if name != node)
    later = realm.generation() + 5
    realm.control_node(node or "", "draining")
    realm.status(key(), other, State.GONE, generation=later)
    assert 0 in decided(realm)
    realm.status(key(), other, State.GONE, generation=later, layer=Layer.CONTAINER)
    assert 0 in decided(realm)


def test_what_runs_after_a_rollback_is_not_taken_for_the_revision_that_was_rolled_back() -> None:
    """Else who lacks the fact of the rollback would take that revision for good, and give it to the next slot."""
    update = "update: {healthy_after: 1s, deadline: 10s, max_parallel: 1}"
    realm = Realm("n1", "n2")
    realm.apply(web(2, component=update))
    realm.settle(seconds=2)
    realm.apply(web(2, component=f"{update}\nenv: {{A: b}}"))
    (first,) = decided(realm)
    said(realm, first)
    node = realm.slot(first).node or ""
    realm.status(key(first), node, State.FAILED, parked=True, revision=2, taken_ms=realm.now_ms)
    realm.after(1)
    back = said(realm, first)
    assert realm.slot(first).refuses is not None
    realm.status(key(first), node, State.RUNNING, revision=1, taken_ms=realm.now_ms)
    realm.after(5)
    assert decided(behind(realm, back)) == []


@pytest.mark.parametrize("asked", ["hold", "apply", "death"])
def test_the_end_of_a_node_set_is_no_word_that_is_not_known(asked: str) -> None:
    realm = Realm("n1", "n2", "n3")
    realm.say("operator/alice", "nodeset/good", NodesetFact(expression="all_nodes", by="alice"))
    realm.after(1).apply(web(1))
    realm.settle(seconds=1)
    realm.after(1).say("operator/alice", "tombstone/nodeset/good", Tombstone(by="alice", reason=""))
    ASKED[asked](realm)
    assert decided(realm) == [0]


ASKED: dict[str, Callable[[Realm], object]] = {
    "hold": lambda realm: realm.hold(key()),
    "apply": lambda realm: realm.apply(web(1, component="env: {A: b}")),
    "death": lambda realm: kill(realm, realm.slot().node or ""),
    "removal": lambda realm: realm.apply(web(1), removed=True),
    "drain": lambda realm: realm.control_node(realm.slot().node or "", "draining"),
}


@pytest.mark.parametrize("liar", ["another node", "its agent"])
@pytest.mark.parametrize("claims", ["once, of a time that is to come", "again and again"])
@pytest.mark.parametrize("asked", ASKED)
def test_who_says_that_it_has_obeyed_a_later_fact_holds_up_nothing_for_long(liar: str, claims: str, asked: str) -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(1))
    realm.settle(seconds=1)
    realm.after(100)
    node = realm.slot().node or ""
    (other, _) = sorted({"n1", "n2", "n3"} - {node})
    at, layer = (node, Layer.APPLICATION) if liar == "its agent" else (other, Layer.CONTAINER)

    def claim(generation: int) -> None:
        ahead_ms = 10**9 if claims.startswith("once") else 0
        times = {"since_ms": realm.now_ms + ahead_ms, "taken_ms": realm.now_ms + ahead_ms}
        realm.status(key(), at, State.INSTALLED, layer=layer, generation=generation, alone=True, **times)

    claim(5)
    ASKED[asked](realm)
    waited = 0
    while not decided(realm):
        realm.after(10)
        waited += 10
        assert waited <= (0 if liar == "another node" else 60)
        if claims == "again and again":
            claim(5 + waited)


def test_a_removal_is_obeyed_in_time_where_an_agent_said_once_that_it_had_obeyed_a_later_fact() -> None:
    """Nothing else happens: the decision itself says when it is to be made again."""
    realm = Realm("n1", "n2")
    realm.apply(web(2))
    realm.settle(seconds=1)
    realm.after(100).status(key(0), realm.slot(0).node or "", State.RUNNING, generation=5, alone=True)
    realm.apply(web(2), removed=True)
    said = realm.settle(obey=False)
    assert [one.subject for one in said] == ["web/app/1"]
    realm.status(key(1), realm.slot(1).node or "", State.GONE)
    realm.settle(obey=False)
    wake_ms = realm.decide().wake_ms
    assert wake_ms is not None
    realm.now_ms = wake_ms
    assert [one.subject for one in realm.settle(obey=False)] == ["web/app/0"]


@pytest.mark.parametrize("instances", [1, "each_node"])
def test_a_lying_agent_holds_up_no_node_set_whatever_is_said_of_other_nodes(instances: int | str) -> None:
    realm = Realm("n1", "n2")
    realm.say("operator/alice", "nodeset/good", NodesetFact(expression="all_nodes", by="alice"))
    realm.apply(web(instances, component="nodes: good"))
    realm.settle(seconds=1)
    realm.after(100)
    node, generation = realm.slot(0).node or "", 5
    realm.say("operator/alice", "nodeset/good", NodesetFact(expression=f"minus(all_nodes, {node})", by="alice"))
    for _ in range(20):
        realm.status(key(0), node, State.RUNNING, layer=Layer.CONTAINER, generation=generation, alone=True)
        realm.control_node("n9", "excluded" if generation % 2 else "active")
        realm.attributes(node)
        realm.say("operator/alice", "nodeset/other", NodesetFact(expression="all_nodes", by=f"alice{generation}"))
        if realm.decide().intents:
            return
        realm.after(4)
        generation += 1
    pytest.fail("held up for ever")


def test_a_drain_that_the_fact_follows_ends_no_wait_for_a_later_one() -> None:
    """There was no place for it then; there is one now, and the other controller's move comes after the status."""
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle(seconds=1)
    realm.control_node("n1", "draining")
    realm.after(5).apply(web(1, component="env: {A: b}"))
    realm.settle(seconds=1)
    assert (realm.slot().node, realm.slot().revision) == ("n1", 2)
    realm.after(600).node("n2")
    assert decided(realm) == [0]
    realm.status(key(), "n1", State.GONE, generation=realm.generation() + 1)
    assert decided(realm) == []


def test_nothing_is_buried_while_a_slot_follows_a_spec_that_is_yet_to_come() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle(seconds=1)
    slot = realm.slot()
    realm.apply(web(1), removed=True)
    realm.step()
    realm.status(key(), "n1", State.GONE)
    assert realm.slot().desired == "gone"
    again = msgspec.structs.replace(slot, spec="operator/alice#1-99", revision=3, spec_version=3)
    realm.after(1).say("controller/c2", "service/web/slot/app/0", again)
    realm.after(30)
    assert realm.decide().intents == ()
