"""A broker's inward side, batch by batch: what is remembered between commits, and what must not be (rules A3, B2, R5)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from dsmt.bus.broker import holes
from dsmt.bus.broker.ingest import Ingest
from dsmt.bus.broker.words import Words
from dsmt.bus.store.sqlite import SqliteStore
from dsmt.errors import FailedError, UnusableEventError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.instance import Endpoint, Status
from dsmt.event.kinds.slot import Slot
from dsmt.event.records import to_data
from dsmt.event.status import Layer, State
from dsmt.ports.store import ROW_BYTES
from dsmt.trust.identity import Identity, root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.revocations import topic_of
from dsmt.trust.store import Realm, TrustStore
from tests.bus.realm import Pen
from tests.bus.spoiled import Full

ROOT = SecretKey(bytes(range(32)))
GRAVE = {"by": "alice", "reason": "over"}
ENDED = Status(
    state=State.STOPPED, layer=Layer.APPLICATION, node="n1", generation=5, attempt=1, since_ms=0, emit_rate_s=30.0
)


class Inward:
    """An ingest on a store in memory, and the identities that it knows."""

    def __init__(self, store: SqliteStore) -> None:
        self.store, self.trust = store, TrustStore(Realm(name="test", roots=(ROOT.public,)))
        self.now_ms = int(time.time() * 1000)
        broker, now_ms = self.identity("broker/b1"), self.now_ms
        self.settled_ms: int | None = None
        self.ingest = Ingest(
            broker,
            self.trust,
            store,
            Words(broker, now_ms, lambda: self.now_ms),
            now_ms=lambda: self.now_ms,
            settled_ms=lambda: self.settled_ms,
        )

    def identity(self, name: str) -> Identity:
        number = len(self.trust.certificates()) + 1
        key = SecretKey(bytes([number]) * 32)
        made = root_issued(name, ROOT, key=key, now_s=self.now_ms // 1000, serial=bytes([number]) * 16)
        self.trust.add_all([one.raw for one in made.chain])
        return made

    def take(self, session: str, *signed: SignedEvent, again: bool = False) -> list[str]:
        """What is refused, by code; the rest is pending."""
        outcome = self.ingest.offered(session, [one.raw for one in signed], again=again)
        return [one.error.code for one in outcome.refused]

    def told(self) -> list[dict[str, Any]]:
        """What the broker tells of the stream."""
        self.ingest.commit()
        rows = self.store.rows(0, 10_000)
        return [row.read().event.data for row in rows if row.topic == "broker/b1/notice"]


@pytest.fixture
def inward() -> Iterator[Inward]:
    store = SqliteStore(":memory:", identity="a" * 16)
    yield Inward(store)
    store.close()


def test_what_came_and_could_not_be_stored_is_missing_again(inward, monkeypatch):
    pen = Pen(inward.identity("operator/alice"), 7)
    first, second = pen.write("user/t", {}), pen.write("user/t", {})
    assert inward.take("operator/alice", first, second) == []

    with monkeypatch.context() as patch:
        patch.setattr(inward.store, "append", Full())
        with pytest.raises(FailedError):
            inward.ingest.commit()
    assert inward.take("operator/alice", second) == []
    assert inward.ingest.holes.wanted("operator/alice") == (7, ((1, 1),))
    assert len(inward.ingest.commit()) == 1


def test_a_fact_that_found_no_room_stands_when_it_is_said_again(inward, monkeypatch):
    fact = Pen(inward.identity("operator/alice"), 7).write("user/f", {}, version=1)

    with monkeypatch.context() as patch:
        patch.setattr(inward.store, "append", Full())
        assert inward.take("operator/alice", fact) == []
        with pytest.raises(FailedError):
            inward.ingest.commit()
    assert inward.take("operator/alice", fact) == []
    inward.ingest.commit()
    assert inward.store.winner("user/f").read().id == fact.id


def test_who_has_no_room_for_facts_may_still_end_a_key(inward, monkeypatch):
    alice, bob = inward.identity("operator/alice"), inward.identity("operator/bob")
    root = root_issued("root", ROOT, key=ROOT, now_s=inward.now_ms // 1000, serial=bytes(16))
    inward.trust.add_all([one.raw for one in root.chain])

    def over(*_: object) -> None:
        raise UnusableEventError("quota", "it has as many live facts as its certificate allows")

    monkeypatch.setattr(inward.ingest._accounts, "charge", over)
    assert inward.take("operator/alice", Pen(alice, 7).write("user/f", {}, version=1)) == ["quota"]
    word = Pen(root, 7).write(topic_of(bob.key.key_id, "root"), {"by": "root"})
    assert inward.take("root", word) == []
    inward.ingest.commit()
    assert inward.store.winner(word.event.topic) is not None


def test_who_has_no_room_for_facts_may_still_end_a_service_that_is_there_and_none_that_it_makes_up(inward, monkeypatch):
    """A controller buried what never was, in 64 KiB each, until half of the store was full: nobody else's facts had room."""
    alice, eve = Pen(inward.identity("operator/alice"), 7), Pen(inward.identity("controller/eve"), 7)
    spec = alice.write("service/web/spec", {"spec": {}, "by": "alice", "reason": ""}, version=1)
    assert inward.take("operator/alice", spec) == []
    inward.ingest.commit()

    def over(*_: object) -> None:
        raise UnusableEventError("quota", "it has as many live facts as its certificate allows")

    monkeypatch.setattr(inward.ingest._accounts, "charge", over)
    graves = [eve.write(f"tombstone/service/{name}", GRAVE, version=1) for name in ("web", "made-up")]
    assert [inward.take("controller/eve", one) for one in graves] == [[], ["quota"]]
    assert inward.take("operator/alice", alice.write("tombstone/nodeset/good", GRAVE, version=1)) == []


def test_who_takes_the_place_of_anothers_fact_is_charged_for_all_of_it(inward):
    alice, bob = inward.identity("operator/alice"), inward.identity("operator/bob")
    first = Pen(alice, 7).write("user/f", {}, version=1)
    assert inward.take("operator/alice", first) == []
    inward.ingest.commit()
    second = Pen(bob, 7).write("user/f", {}, version=2, replaces=first.id)
    assert inward.take("operator/bob", second) == []
    charged = inward.ingest._accounts._live["operator/bob"]
    assert charged == (1, second.size + ROW_BYTES)


def test_what_another_has_brought_back_is_not_stored_again_when_its_source_says_it(inward):
    pen = Pen(inward.identity("operator/alice"), 7)
    first, second = pen.write("user/t", {}), pen.write("user/f", {}, version=1)
    assert inward.take("operator/alice", first) == []
    assert inward.take("operator/bob", second, again=True) == []
    assert len(inward.ingest.commit()) == 2
    assert inward.take("operator/alice", second) == []
    assert inward.ingest.commit() == []


@pytest.mark.parametrize("by_a_broker", [True, False], ids=["by a broker", "by who keeps it"])
def test_what_another_has_brought_is_known_though_its_source_has_left_while_something_of_it_is_missing(inward, by_a_broker):
    """Where the broker that took it is killed before its source has heard that, the source says it again here."""
    pen, state = Pen(inward.identity("controller/c1"), 7), {"version": "x", "ruleset": 1, "pid": None, "decisions": 0}
    first, _, third, fourth = (pen.write("controller/c1/state", state | {"decisions": n}) for n in range(4))
    assert inward.take("controller/c1", first, third) == []
    if by_a_broker:
        assert inward.ingest.brought("broker/b2", fourth) == 0
    else:
        assert inward.take("node/n1", fourth, again=True) == []
    inward.ingest.commit()
    inward.ingest.forget_source("controller/c1")
    assert inward.take("controller/c1", fourth) == []
    assert inward.ingest.commit() == [], "it is stored once"


def test_only_a_winner_that_was_not_here_refills_the_store(inward):
    pen = Pen(inward.identity("operator/alice"), 7)
    older, newer = pen.write("user/f", {}, version=1), pen.write("user/f", {}, version=2)
    assert inward.ingest.offered("operator/bob", [newer.raw], again=True).refilled
    assert not inward.ingest.offered("operator/bob", [older.raw], again=True).refilled
    inward.ingest.commit()
    assert not inward.ingest.offered("operator/bob", [newer.raw], again=True).refilled


def test_a_broker_takes_nothing_that_it_has_said_itself_and_that_is_no_fault_of_who_offers_it(inward):
    said = {"attachment": 1, "state": "open", "how": None, "since_ms": 1, "incarnation": 1, "pid": None}
    said |= {"version": "1", "address": ""}
    own = Pen(inward.identity("broker/b1"), 7).write("broker/b1/session/node/n1", said)
    assert inward.take("controller/c1", own, again=True) == ["own"]
    assert inward.ingest.dropped == 0


def test_what_was_ended_in_the_same_batch_is_not_there_for_what_comes_after_it(inward):
    pen, spec = Pen(inward.identity("operator/alice"), 7), {"spec": {}, "by": "alice", "reason": ""}
    first = pen.write("service/web/spec", spec, version=1, epoch=1)
    grave = pen.write("tombstone/service/web", GRAVE, version=1, epoch=1)
    late = pen.write("service/web/spec", spec, version=2, epoch=1)
    assert [inward.take("operator/alice", one) for one in (first, grave, late)] == [[], [], ["stale"]]


def test_what_won_in_a_batch_stands_in_it_however_much_is_looked_at_after_it(inward):
    """As when all of another broker is read, where what was said first came there last."""
    pen = Pen(inward.identity("operator/alice"), 7)
    first, second, others = pen.write("user/f", {}, version=4), pen.write("user/f", {}, version=5), range(6)
    inward.ingest._winners._most = len(others)
    for one in (second, *(pen.write(f"user/{n}", {}, version=1) for n in others), first):
        assert inward.ingest.brought("broker/b2", one) == 0
    inward.ingest.commit()
    assert inward.store.winner("user/f").read().id == second.id


def test_a_tombstone_of_the_same_epoch_may_follow_another_and_one_of_an_earlier_may_not(inward):
    pen = Pen(inward.identity("operator/alice"), 7)
    grave = pen.write("tombstone/service/web", GRAVE, version=1, epoch=2)
    again = pen.write("tombstone/service/web", GRAVE, version=2, epoch=2, replaces=grave.id)
    late = pen.write("tombstone/service/web", GRAVE, version=3, epoch=1, replaces=again.id)
    assert inward.take("operator/alice", grave) == []
    assert inward.take("operator/alice", again) == []
    assert inward.take("operator/alice", late) == ["stale"]
    assert inward.ingest.dropped == 0, "nothing is wrong with who was not first"


def test_an_agent_says_nothing_more_on_its_service_once_that_is_buried(inward):
    alice, agent = Pen(inward.identity("operator/alice"), 7), Pen(inward.identity("agent/n1/web/app/0"), 7)
    controller = Pen(inward.identity("controller/c1"), 7)
    slot = Slot(node="n1", spec="operator/alice#7-1", revision=1, desired="running")
    placed = controller.write("service/web/slot/app/0", to_data(slot), version=1)
    assert inward.take("controller/c1", placed) == []
    inward.ingest.commit()
    assert inward.take("agent/n1/web/app/0", agent.write("app/web/metrics", {})) == []
    assert inward.take("operator/alice", alice.write("tombstone/service/web", GRAVE, version=1)) == []
    inward.ingest.commit()
    assert inward.take("agent/n1/web/app/0", agent.write("app/web/metrics", {})) == ["trust.denied"]


def test_an_agent_whose_slot_is_to_be_gone_says_nothing_more_to_the_others_and_still_how_it_ends(inward):
    agent, controller = Pen(inward.identity("agent/n1/web/app/0"), 7), Pen(inward.identity("controller/c1"), 7)
    slot, topic = Slot(node="n1", spec="operator/alice#7-1", revision=1, desired="running"), "service/web/slot/app/0"
    before: SignedEvent | None = None
    for version, (desired, answer) in enumerate(
        (("running", []), ("stopped", []), ("gone", ["trust.denied"]), ("running", []), ("gone", ["trust.denied"])), 1
    ):
        decided = to_data(msgspec.structs.replace(slot, desired=desired))
        replaces = None if before is None else before.id
        before = controller.write(topic, decided, version=version, replaces=replaces)
        assert inward.take("controller/c1", before) == []
        inward.ingest.commit()
        assert inward.take("agent/n1/web/app/0", agent.write("app/web/metrics", {})) == answer, desired
        assert inward.take("agent/n1/web/app/0", agent.write(f"app/web/t{version}", {}, version=1)) == answer, desired
    withdrawn = to_data(Endpoint(address="", ports={}, generation=5, ready=False))
    assert inward.take("agent/n1/web/app/0", agent.write("service/web/endpoint/app/0/n1", withdrawn)) == []
    assert inward.take("agent/n1/web/app/0", agent.write("service/web/status/app/0/n1/application", to_data(ENDED))) == []


def test_a_node_that_was_told_to_end_what_it_made_up_writes_nothing_to_the_service(inward):
    controller, agent = Pen(inward.identity("controller/c1"), 7), Pen(inward.identity("agent/n2/web/app/7"), 7)
    assert inward.take("agent/n2/web/app/7", agent.write("app/web/x", {})) == ["trust.denied"]
    answer = to_data(Slot(node="n2", spec="", revision=0, desired="gone"))
    assert inward.take("controller/c1", controller.write("service/web/slot/app/7", answer, version=1)) == []
    inward.ingest.commit()
    assert inward.take("agent/n2/web/app/7", agent.write("app/web/x", {})) == ["trust.denied"]


def test_a_number_that_nothing_can_be_meant_by_is_refused(inward):
    node = Pen(inward.identity("node/n1"), 7)
    for about in ({"since_ms": 2**60}, {"since_ms": -1}, {"next_try_ms": 2**60}, {"pid": -1}, {"emit_rate_s": 1e300}):
        said = to_data(msgspec.structs.replace(ENDED, layer=Layer.CONTAINER, **about))
        word = node.write("service/web/status/app/0/n1/container", said)
        assert inward.take("node/n1", word) == ["event.schema"], about
        assert inward.take("node/n1", word, again=True) == ["event.schema"], about


def test_what_a_source_brings_back_of_its_own_and_is_refused_is_no_word_of_what_it_says(inward):
    pen = Pen(inward.identity("operator/alice"), 7)
    first, far, third = pen.write("user/t", {}), pen.write("user/f", {}, version=2**50), pen.write("user/t", {})
    assert inward.take("operator/alice", first, third) == []
    assert inward.take("operator/alice", far, again=True) == ["event.version"]
    assert inward.ingest.holes.wanted("operator/alice") == (7, ((2, 2),))


def gaps(inward: Inward) -> list[tuple[int | None, int | None]]:
    """What is told of as missing, first and last."""
    return [(told["first"], told["last"]) for told in inward.told() if told["kind"] == "gap"]


def test_what_a_source_said_to_another_broker_while_it_was_cut_off_from_this_one_is_no_gap(inward):
    pen = Pen(inward.identity("operator/alice"), 7)
    said = [pen.write("user/t", {}) for _ in range(6)]
    inward.settled_ms = inward.now_ms
    assert inward.take("operator/alice", said[0], said[1]) == []
    inward.ingest.commit()  # its link is silent now, and open here still: it has gone to b2
    assert [inward.ingest.brought("b2", one) for one in said[2:5]] == [0, 0, 0]
    inward.ingest.commit()
    assert inward.take("operator/alice", said[5]) == []
    inward.now_ms = inward.settled_ms = inward.now_ms + 10_000
    inward.ingest.holes.overdue()
    assert gaps(inward) == []


def test_what_an_incarnation_said_to_another_broker_is_waited_for_though_a_newer_one_has_come_here(inward):
    identity = inward.identity("operator/alice")
    older, newer = Pen(identity, 7), Pen(identity, 8)
    said, inward.settled_ms = [older.write("user/t", {}) for _ in range(4)], inward.now_ms - 5_000
    assert inward.take("operator/alice", said[3]) == []
    assert inward.take("operator/alice", newer.write("user/t", {})) == []
    inward.now_ms += 10_000
    inward.ingest.holes.overdue()
    assert gaps(inward) == [], "another broker may have it"
    assert inward.ingest.brought("b2", said[1]) == 0
    inward.ingest.commit()
    inward.settled_ms = inward.now_ms
    inward.ingest.holes.overdue()
    inward.ingest.holes.overdue()
    assert gaps(inward) == [(1, 1), (3, 3)], "nobody has these"


def test_what_is_missing_is_no_gap_while_another_broker_was_not_read_so_far_and_is_one_then(inward):
    pen = Pen(inward.identity("operator/alice"), 7)
    said, inward.settled_ms = [pen.write("user/t", {}) for _ in range(4)], inward.now_ms - 5_000
    assert inward.take("operator/alice", said[0]) == []
    assert inward.take("operator/alice", said[3]) == []
    inward.now_ms += 60_000
    inward.ingest.holes.overdue()
    assert gaps(inward) == [], "the other broker was lost, and may have it"
    assert inward.ingest.brought("b2", said[1]) == 0
    inward.ingest.commit()
    inward.settled_ms = inward.now_ms
    inward.ingest.holes.overdue()
    assert gaps(inward) == [(3, 3)]


def test_of_what_another_broker_may_have_no_more_than_a_bound_is_remembered_and_the_oldest_is_told_first(
    inward, monkeypatch
):
    monkeypatch.setattr(holes, "OWED_MOST", 2)
    identity = inward.identity("operator/alice")
    inward.settled_ms = inward.now_ms - 5_000
    for incarnation in range(7, 12):  # the one before has not said its first, and says it no more
        pen = Pen(identity, incarnation)
        assert inward.take("operator/alice", [pen.write("user/t", {}) for _ in range(2)][1]) == []
    inward.ingest.holes.overdue()
    assert len(inward.ingest.holes._owed) == 2
    assert [told["message"] for told in inward.told()] == ["operator/alice #1..#1 did not come"] * 2


def test_what_is_told_of_a_source_that_leaves_out_numbers_or_gives_them_twice_is_on_its_account(inward):
    """Or it would take the place of what the broker says of itself."""
    pen, twin = (Pen(inward.identity("operator/eve"), 7) for _ in range(2))
    twin.identity, twin.chain.sequence = pen.identity, 8
    said = [pen.write("user/t", {"n": n}) for n in range(9)]
    assert inward.take("operator/eve", *said[::2]) == []
    inward.ingest.commit()
    inward.now_ms += 10_000
    inward.ingest.holes.overdue()
    assert inward.take("operator/eve", twin.write("user/t", {})) == ["event.equivocation"]
    assert [one["kind"] for one in inward.told()] == ["gap"] * 4 + ["equivocation"]
    evidence = inward.store._db.do("SELECT payer, events FROM accounts WHERE class = 0")
    assert dict(evidence) == {"operator/eve": 5}


def test_what_has_expired_stands_in_the_way_of_nothing_that_is_said_anew(inward):
    """It is in the store's history only, as for a broker that was started since."""
    alice, bob = Pen(inward.identity("operator/alice"), 7), Pen(inward.identity("operator/bob"), 7)
    assert inward.take("operator/alice", alice.write("user/f", {"n": 1}, version=5, ttl=60_000)) == []
    inward.ingest.commit()
    inward.now_ms += 120_000
    inward.ingest.expire()
    assert inward.store.winner("user/f") is None
    assert inward.take("operator/bob", bob.write("user/f", {"n": 2}, version=1, ahead_s=120.0)) == []
    inward.ingest.commit()
    found = inward.store.winner("user/f")
    assert found is not None
    assert found.read().event.data == {"n": 2}
