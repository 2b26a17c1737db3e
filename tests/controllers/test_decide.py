"""What holds of every decision: pure, deterministic, at rest when done, and the same however little is looked at."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsmt.controllers.decide import RULESET, decide
from dsmt.controllers.look import Look
from dsmt.controllers.loop.agenda import Agenda
from dsmt.controllers.pending import waits_for
from dsmt.controllers.rollout import Governing
from dsmt.event.kinds.realm import BrakeWord
from dsmt.view import Fleet

from .build import Realm, key, web
from .scenario import FullLife, Life, fingerprint, shown

GOLDEN = {
    1: "a900bd109925dddfcf465eb0f03298cef94dc891c5652289c22bedfd537c5739",
    2: "250849ea6e2f57a85dffeca3dc842125267336ff51f1ef381410164b7179ddd3",
    3: "e1ff4b119f4ea26da359a341190e11668dcf07beed4e9724d1a46f39e95928fb",
    4: "c60019cbdeb4d266ae76445aab9cc5b7634daeec2501a8373ff850445710332e",
    5: "0c77f217fa99b627490c152f8b731fef6e9a03456c9498a8bd906c9714a6665a",
    6: "c026cbcd9dca58a3038a43b1c308868735774b6ccd3bbac33eb732faf9b9ba95",
    7: "a9b929fe51e85c8aaa5fa8f534972b2ddd06d862550623c71a67bee23af4c94d",
    8: "a6d70ea81f180c3da4ae51e9fd4af07ec8b4f288620ef302f8cb62d5a180e581",
    9: "0f6e6b3f00ba07999b196fae398faca07cb0e570c37a914ae2f7d5f0a7cc3506",
    10: "0f6e6b3f00ba07999b196fae398faca07cb0e570c37a914ae2f7d5f0a7cc3506",
    11: "0f6e6b3f00ba07999b196fae398faca07cb0e570c37a914ae2f7d5f0a7cc3506",
    12: "0f6e6b3f00ba07999b196fae398faca07cb0e570c37a914ae2f7d5f0a7cc3506",
    13: "5a4fa0a88c20b377b56f8e6bcf1e0dd5324ecac37fd47c7fa57dc3f2fbccc470",
    14: "5a4fa0a88c20b377b56f8e6bcf1e0dd5324ecac37fd47c7fa57dc3f2fbccc470",
    15: "5a4fa0a88c20b377b56f8e6bcf1e0dd5324ecac37fd47c7fa57dc3f2fbccc470",
    16: "5a4fa0a88c20b377b56f8e6bcf1e0dd5324ecac37fd47c7fa57dc3f2fbccc470",
    17: "5a4fa0a88c20b377b56f8e6bcf1e0dd5324ecac37fd47c7fa57dc3f2fbccc470",
    18: "b51778b99b8685352c40143824f6310723e301119a2431b34e2a67d23bb1e52d",
    19: "b51778b99b8685352c40143824f6310723e301119a2431b34e2a67d23bb1e52d",
    20: "b51778b99b8685352c40143824f6310723e301119a2431b34e2a67d23bb1e52d",
    21: "834e18dd8e1073e2febebc32c5ee2e92758677d1637e8ba49d5cb12ef985c56a",
    22: "834e18dd8e1073e2febebc32c5ee2e92758677d1637e8ba49d5cb12ef985c56a",
    23: "98a4eb845100a7c68808340500890fc2a15dc173262e905a658ea5826988319a",
    24: "98a4eb845100a7c68808340500890fc2a15dc173262e905a658ea5826988319a",
    25: "98a4eb845100a7c68808340500890fc2a15dc173262e905a658ea5826988319a",
    26: "c3976d4062073054e00ab092b0b878e80a5ac0b53f3f2f2e9a5969c9a5b65b7d",
    27: "c3976d4062073054e00ab092b0b878e80a5ac0b53f3f2f2e9a5969c9a5b65b7d",
    28: "c3976d4062073054e00ab092b0b878e80a5ac0b53f3f2f2e9a5969c9a5b65b7d",
    29: "edbcebfdb1fb9c748effbe12728f8a7f500c9f0f48fac104944598a1c50f8767",
    30: "2ea87ddd1119b6066077eed230a92d008dbfeafb867c455d5d0632e61a37dbf2",
    31: "86dfd8a43cf1149587cbdd2e0829d7d6767c6f216e3ee6b2445ea9367b143bb1",
    32: "491fc9f50d1c7a85a76372044ac84cbaa60be38488cbf14300913940d5b35b20",
    33: "af2ecd176c41771fa173e8dfeaedeabcc64f273de93f3762b2ecb75402528e44",
    34: "5c1f674c4ee8b3c0a0f83d97472399bfc2d949c7b77ffa5e96240f8370cced58",
    35: "5c1f674c4ee8b3c0a0f83d97472399bfc2d949c7b77ffa5e96240f8370cced58",
    36: "5c1f674c4ee8b3c0a0f83d97472399bfc2d949c7b77ffa5e96240f8370cced58",
    37: "5c1f674c4ee8b3c0a0f83d97472399bfc2d949c7b77ffa5e96240f8370cced58",
    38: "5c1f674c4ee8b3c0a0f83d97472399bfc2d949c7b77ffa5e96240f8370cced58",
    39: "5c1f674c4ee8b3c0a0f83d97472399bfc2d949c7b77ffa5e96240f8370cced58",
    40: "5c1f674c4ee8b3c0a0f83d97472399bfc2d949c7b77ffa5e96240f8370cced58",
    41: "5c1f674c4ee8b3c0a0f83d97472399bfc2d949c7b77ffa5e96240f8370cced58",
    42: "6fd39d7ad64956093b8eb2b4ece2d4bb4034208194fe673c3225aa0ecfeba8dd",
    43: "6fd39d7ad64956093b8eb2b4ece2d4bb4034208194fe673c3225aa0ecfeba8dd",
    44: "6fd39d7ad64956093b8eb2b4ece2d4bb4034208194fe673c3225aa0ecfeba8dd",
}
"""By ruleset number, the fingerprint of what is decided. A change of decisions needs a new number: see `RULESET`."""

ROOT = Path(__file__).parents[2]


def test_decisions_change_only_with_the_ruleset_number() -> None:
    assert fingerprint(range(6)) == GOLDEN[RULESET], "decisions changed: raise RULESET, and add its fingerprint here"


@pytest.mark.parametrize("hashseed", ["0", "1", "4242"])
def test_decisions_do_not_depend_on_the_hash_seed(hashseed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.controllers.scenario"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hashseed, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == fingerprint(range(6))


@pytest.mark.parametrize("seed", range(12))
def test_deciding_changes_nothing_and_gives_the_same_twice(seed: int) -> None:
    life = Life(seed)
    for _ in range(40):
        life.happen()
        digest = life.realm.view.digest
        rooms = {n: dict(life.realm.view.allocations.node(n).slots) for n in life.names}
        decided = life.realm.decide()
        assert life.realm.view.digest == digest
        assert {n: dict(life.realm.view.allocations.node(n).slots) for n in life.names} == rooms
        assert shown(life.realm.decide().intents) == shown(decided.intents)
        life.decide(decided)


@pytest.mark.parametrize("seed", range(12))
def test_what_is_decided_is_at_rest_once_it_is_a_fact(seed: int) -> None:
    """A verdict is a fact before anything follows from it, and what is replaced lets go of the brake: some rounds."""
    life = Life(seed + 100)
    for _ in range(60):
        life.happen()
        for _ in range(4):
            life.realm.step()
        assert shown(life.realm.decide().intents) == []


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("kind", [Life, FullLife])
def test_looking_at_what_changed_finds_what_looking_at_everything_finds(seed: int, kind: type[Life]) -> None:
    life, agenda = kind(seed + 200), Agenda(again_ms=None)
    for step in range(80):
        what = life.happen()
        view, now_ms = life.realm.view, life.realm.now_ms
        for _ in range(3):
            look = agenda.look(view, view.take_dirty(), now_ms)
            some = decide(view, now_ms, may_accuse=True, broker="b1", look=look)
            every = decide(view, now_ms, may_accuse=True, broker="b1")
            assert shown(some.intents) == shown(every.intents), (seed, step, what, look)
            agenda.note(some)
            wake = every.wake_ms
            assert wake is None or (agenda.wake_ms is not None and agenda.wake_ms <= wake), (seed, step, what)
            if life.chance.random() < 0.2:
                for intent in some.intents:
                    agenda.ask(intent.topic.split("/")[1] if intent.topic.startswith("service") else "")
                    agenda.ask(intent.topic.split("/")[2] if intent.topic.startswith("tombstone") else "")
            else:
                life.decide(some)


@pytest.mark.parametrize("seed", range(8))
def test_any_order_of_the_same_facts_gives_the_same_decision(seed: int) -> None:
    life = Life(seed + 300)
    for _ in life.live(50):
        pass
    events = [event for _, event in life.realm.rows]
    life.chance.shuffle(events)
    other = Realm()
    other.now_ms = life.realm.now_ms
    for event in events:
        other.view.apply(event)
    assert shown(other.decide().intents) == shown(life.realm.decide().intents)


def test_two_controllers_with_one_view_say_the_same() -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(3))
    a, b = realm.decide().intents, decide(realm.view.copy(), realm.now_ms, may_accuse=False, broker="b1").intents
    assert len(a) == 3
    assert shown(a) == shown(b)


def test_a_wake_is_never_in_the_past() -> None:
    for seed in range(10):
        life = Life(seed + 400)
        for _ in range(60):
            life.happen()
            decided = life.realm.decide()
            life.decide(decided)
            assert decided.wake_ms is None or decided.wake_ms > life.realm.now_ms


def test_the_versions_of_what_is_decided_are_one_more_than_the_winners() -> None:
    life = Life(7)
    for _ in range(60):
        life.happen()
        decided = life.realm.decide()
        for intent in decided.intents:
            winner = life.realm.view.winner(intent.topic)
            assert intent.next_version > (0 if winner is None else winner.event.version or 0)
            assert (intent.replaces and intent.replaces.id) == (winner and winner.id)
        life.decide(decided)


def test_services_do_not_disturb_each_other() -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(2, service="web"))
    realm.apply(web(2, service="db"))
    realm.settle(seconds=1)
    realm.apply(web(2, service="db", component="env: {A: b}"))
    assert {i.subject.split("/")[0] for i in realm.step()} == {"db"}
    assert realm.view.slot(key(0)).fact.version == 1


def test_a_service_that_is_gone_keeps_none_behind_it_from_being_looked_at() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    assert [intent.topic for intent in realm.decide(look=Look({"gone": None, "web": None})).intents] == [
        "service/web/slot/app/0"
    ]


def test_what_a_slot_waits_for_is_told() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.settle(seconds=1)
    assert waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), key(0)) is None
    realm.close("n1")
    realm.verdict("n1")
    assert waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), key(0)).code == "place.no_match"
    realm.node("n2")
    assert waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), key(0)) is None
    brake = BrakeWord(held=True, released_ms=0, by="alice", reason="x")
    realm.say("operator/alice", "config/brake", brake)
    assert waits_for(Governing(Fleet(realm.view, realm.now_ms, realm.broker)), key(0)).code == "wait.brake"
