"""Which brokers a realm has: by the newest words on them, and what was given at the start."""

from __future__ import annotations

from typing import Any

import pytest

from dsmt.bus.rules.brokers import BrokerWords, known, leaves
from dsmt.errors import UnusableEventError
from dsmt.event.codec import seal
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.realm import BROKERS, BrokerWord
from dsmt.ports.realm import BrokerAddress
from dsmt.trust.identity import root_issued
from dsmt.trust.keys import SecretKey, key_id_of
from dsmt.trust.store import Realm, TrustStore
from tests.controllers.signing import START_MS, signed


class Keys:
    """What is known of the keys of `b1`, `b2` and so on, each of which is its name 16 times."""

    def __init__(self, *, revoked: tuple[str, ...] = (), **names: str) -> None:
        self.revoked = {key_id_of(key(name)) for name in revoked}
        self.names = {key_id_of(key(one)): f"broker/{name}" for one, name in names.items()}

    def sole_name(self, key_id: bytes) -> str | None:
        return self.names.get(key_id)

    def is_revoked(self, key_id: bytes) -> bool:
        return key_id in self.revoked


def key(name: str) -> bytes:
    return name.encode() * 16


def seed(name: str) -> BrokerAddress:
    return BrokerAddress(f"{name}.first:4000", key(name))


def word(name: str, version: int = 1, **about: Any) -> SignedEvent:
    record = BrokerWord(**{"address": f"{name}.said:4000", "public": key(name), "by": "alice"} | about)
    return signed("operator/alice", f"{BROKERS}{name}", record, version=version)


def names(found: tuple[BrokerAddress, ...]) -> list[str]:
    return [one.address for one in found]


def test_the_newest_word_on_each_counts_whoever_brings_it() -> None:
    said = [word("b2", 2, address="b2.newest:4000"), word("b2", 1), word("b1")]
    assert names(known([seed("b1"), seed("b3")], said, Keys())) == ["b1.said:4000", "b3.first:4000", "b2.newest:4000"]


def test_a_broker_that_is_removed_is_none_also_where_it_was_given_at_the_start() -> None:
    said = [word("b1"), word("b1", 2, removed=True), word("b2", removed=True)]
    assert names(known([seed("b1"), seed("b3")], said, Keys())) == ["b3.first:4000"]


def test_a_broker_that_was_given_at_the_start_and_made_anew_with_another_key_is_none() -> None:
    said = [word("b1", public=key("b7"))]
    assert names(known([seed("b1"), seed("b2")], said, Keys(b1="b1", b2="b2"))) == ["b2.first:4000", "b1.said:4000"]


def test_a_broker_whose_key_was_revoked_is_none() -> None:
    assert names(known([seed("b1"), seed("b2")], [word("b3")], Keys(revoked=("b2", "b3")))) == ["b1.first:4000"]


def test_a_word_that_cannot_be_read_says_nothing_and_hides_no_other() -> None:
    bad = signed("operator/alice", f"{BROKERS}b1", {"address": 7}, version=2)
    assert names(known([seed("b1")], [bad, word("b2")], Keys())) == ["b1.first:4000", "b2.said:4000"]
    assert leaves([bad, word("b2", leaf=True)]) == {"broker/b2": key("b2")}
    words = BrokerWords((), TrustStore(Realm(name="lab", roots=(SecretKey(bytes(32)).public,))))
    assert all(map(words.take, (bad, word("b2"), word("b3", removed=True))))
    assert ([*words.present], [*words.removed]) == (["b2"], ["b3"])


@pytest.mark.parametrize("on_nats", [True, False])
def test_a_word_on_the_other_engine_names_no_broker_but_who_is_removed_is_removed_on_both(on_nats: bool) -> None:
    ours, others = ({"route": "r:1"}, {}) if on_nats else ({}, {"route": "r:1"})
    said = [word("b1", **ours), word("b2", **others), word("b3", **others, removed=True), word("b4", **ours, removed=True)]
    found = known([seed("b3"), seed("b4"), seed("b5")], said, Keys(), on_nats=on_nats)
    assert names(found) == ["b5.first:4000", "b1.said:4000"]


def test_leaves_are_those_of_which_the_newest_word_says_so() -> None:
    said = [word("b1", leaf=True), word("b2", leaf=True), word("b2", 2, leaf=False), word("b3")]
    assert leaves(said) == {"broker/b1": key("b1")}


@pytest.mark.parametrize(
    ("besides", "found"),
    [
        ([], ["b1.said:4000", "b2.said:4000"]),
        ([word("b3")], ["b3.said:4000"]),
        ([word("b3", leaf=True)], ["b1.said:4000", "b2.said:4000", "b3.said:4000"]),
        ([word("b3", leaf=True, removed=True)], ["b1.said:4000", "b2.said:4000"]),
        ([word("b3", route="r:1")], ["b1.said:4000", "b2.said:4000"]),
    ],
    ids=["nothing", "one that is in", "a leaf that is in", "a leaf that was removed", "a NATS server that is in"],
)
def test_where_all_that_are_no_leaves_were_removed_none_of_them_was(besides: list[SignedEvent], found: list[str]) -> None:
    assert names(known([], [word("b1", removed=True), word("b2", removed=True), *besides], Keys())) == found


def test_what_one_process_has_kept_of_brokers_the_next_one_knows_with_what_proves_it() -> None:
    root = SecretKey(bytes(32))
    alice = root_issued("operator/alice", root, key=SecretKey(b"a" * 32), now_s=START_MS // 1000, serial=bytes(16))
    first, then = (BrokerWords((), TrustStore(Realm(name="lab", roots=(root.public,)))) for _ in range(2))
    first._trust.add_all([one.raw for one in alice.chain])
    for said in (word("b1"), word("b2", removed=True)):
        assert first.take(seal([said.event], alice.key)[0])
    then.recall(first.kept())
    assert (then.present, then.removed) == (first.present, first.removed)
    assert names(then.all) == ["b1.said:4000"]
    for damaged in (b"", b"\x01", first.kept()[:-1]):
        with pytest.raises(UnusableEventError, match="what was kept is none"):
            then.recall(damaged)
