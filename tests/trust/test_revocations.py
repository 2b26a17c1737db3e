"""Revoked keys: who may end whom, in any order, and what ends with them."""

from itertools import permutations

import pytest

from dsmt.event.codec import seal
from dsmt.trust.revocations import is_void, revoked_by
from dsmt.trust.store import TrustStore
from tests.trust.refusals import AGENT, NODE, STATUS, refusal


def test_a_revoked_key_and_all_below_it_are_refused_and_nobody_else(realm):
    store = realm.store()
    realm.revoke(store, NODE)
    assert refusal(store, realm.says(NODE, "node/n1/heartbeat")) == "trust.revoked"
    assert refusal(store, realm.says(AGENT, STATUS)) == "trust.revoked"
    assert store.open(realm.says("node/n2", "node/n2/heartbeat"))
    assert store.open(realm.says("agent/n2/db/app/0", "service/db/status/app/0/n2/application"))


def test_a_revoked_issuer_ends_its_nodes_and_their_agents(realm):
    store = realm.store()
    realm.revoke(store, "issuer/i1")
    assert refusal(store, realm.says("node/n9", "node/n9/heartbeat")) == "trust.revoked"
    raw = realm.says("agent/n9/web/app/0", "service/web/status/app/0/n9/application")
    assert refusal(store, raw) == "trust.revoked"


def test_a_revocation_counts_whenever_it_comes_and_a_new_certificate_does_not_lift_it(realm):
    store = TrustStore(realm.realm)
    realm.revoke(store, NODE)
    store.add_all(c.raw for c in realm.identities[AGENT].chain)
    store.add(realm.by_root(NODE, at=realm.now + 50).chain[0].raw)
    assert refusal(store, realm.says(AGENT, STATUS)) == "trust.revoked"
    assert store.is_revoked(realm.identities[AGENT].key.key_id)


def test_a_node_whose_issuer_is_revoked_goes_on_when_the_root_has_signed_it_too(realm):
    store = realm.store()
    realm.revoke(store, "issuer/i1")
    store.add(realm.by_root("node/n9", at=realm.now + 5).chain[0].raw)
    assert store.open(realm.says("node/n9", "node/n9/heartbeat"))


def test_of_two_certificates_under_one_name_the_one_that_stands_is_shown(realm):
    node = realm.identities["node/n9"]
    by_root = realm.by_root("node/n9", key=node.key, at=realm.now - realm.day)
    store = realm.store(node, by_root)
    assert [one.raw for one in store.chain(node.key.key_id, "node/n9")] == [one.raw for one in node.chain]
    realm.revoke(store, "issuer/i1")
    assert [one.raw for one in store.chain(node.key.key_id, "node/n9")] == [by_root.chain[0].raw]


def test_who_had_ended_goes_on_when_another_way_to_the_root_becomes_known(realm):
    node, agent = realm.identities["node/n9"], realm.identities["agent/n9/web/app/0"]
    store = realm.store(agent)
    realm.revoke(store, "node/n9", by="issuer/i1")
    assert store.is_revoked(agent.key.key_id)
    store.add(realm.by_root("node/n9", key=node.key).chain[0].raw)
    assert not store.is_revoked(agent.key.key_id)


def test_a_burst_that_was_remembered_is_refused_once_its_signer_is_revoked(realm):
    store, name = realm.store(), "controller/c1"
    events = [realm.event("service/web/slot/app/0", source=name, sequence=i) for i in (1, 2)]
    one, two = seal(events, realm.identities[name].key)
    store.open(one.raw)
    realm.revoke(store, name)
    assert refusal(store, two.raw) == "trust.revoked"


WORDS = [
    # who, whom, and whether that ends it
    ("root", "controller/c1", True),
    ("root", "issuer/i1", True),
    ("root", AGENT, True),
    ("issuer/i1", "node/n9", True),
    ("issuer/i1", "agent/n9/web/app/0", True),
    ("issuer/i1", "node/n1", False),
    ("issuer/i1", "issuer/i1", False),
    ("node/n9", "issuer/i1", False),
    ("node/n9", "agent/n9/web/app/0", True),
    (NODE, AGENT, True),
    (NODE, "monitor/n1", True),
    (NODE, "monitor/n2", False),
    (NODE, "node/n2", False),
    (AGENT, NODE, False),
    ("operator/alice", "operator/alice.x7", True),
    ("operator/alice.x7", "operator/alice", False),
    ("operator/alice", "controller/c1", False),
    ("operator/alice", NODE, False),
]


@pytest.mark.parametrize(("who", "whom", "ends"), WORDS, ids=[f"{who} {whom}" for who, whom, _ in WORDS])
def test_a_key_is_ended_by_the_root_or_by_who_stands_above_it_and_by_nobody_else(realm, who, whom, ends):
    store, key_id = realm.store(), realm.identities[whom].key.key_id
    assert store.may_revoke(realm.speaker(who).key_id, key_id) == ends
    realm.revoke(store, whom, by=who)
    assert store.is_revoked(key_id) == ends
    assert TrustStore.from_export(store.export()).is_revoked(key_id) == ends


@pytest.mark.parametrize("who", ["root", "issuer/i1", "operator/alice", NODE])
def test_a_key_of_the_root_is_ended_by_nobody(realm, who):
    store = realm.store()
    store.revoke(realm.revocation(realm.root.key_id, by=who))
    assert not store.may_revoke(realm.speaker(who).key_id, realm.root.key_id)
    for name in ("controller/c1", NODE, "issuer/i1"):
        assert not store.is_revoked(realm.identities[name].key.key_id)


def test_a_revocation_with_a_time_to_live_ends_nothing(realm):
    store, key_id = realm.store(), realm.identities[NODE].key.key_id
    assert not store.revoke(realm.revocation(key_id, by="root", ttl=1000))
    assert not store.is_revoked(key_id)


def test_what_a_revoked_node_had_revoked_has_ended_with_it_in_any_order(realm):
    for order in permutations([("root", NODE), (NODE, AGENT)]):
        store = realm.store()
        for who, whom in order:
            realm.revoke(store, whom, by=who)
        assert store.is_revoked(realm.identities[AGENT].key.key_id)
        assert not store.is_revoked(realm.identities["monitor/n2"].key.key_id)


@pytest.mark.parametrize(
    "topic", ["trust/revoked/00", f"trust/revoked/{'00' * 16}", "trust/revoked/xyz/root", f"trust/revoked/{'00' * 16}/x"]
)
def test_a_topic_that_names_no_key_or_no_revoker_is_no_revocation(topic):
    assert revoked_by(topic) is None


def test_above_a_key_the_certificate_is_shown_that_stands(realm):
    """Who is told whom an agent stands for would believe nothing of it."""
    agent, node = realm.identities["agent/n9/web/app/0"], realm.identities["node/n9"]
    by_root = realm.by_root("node/n9", key=node.key, at=realm.now - realm.day, lifetime_s=400 * realm.day)
    store = realm.store(agent, by_root)

    def shown():
        return [one.raw for one in store.chain(agent.key.key_id, agent.name)]

    assert shown() == [one.raw for one in agent.chain]
    realm.revoke(store, "issuer/i1")
    assert shown() == [agent.chain[0].raw, by_root.chain[0].raw]


def test_what_a_stranger_is_shown_of_a_signer_begins_with_whoever_stands_highest(realm):
    agent = realm.identities["agent/n9/web/app/0"]
    node, issuer = realm.identities["node/n9"], realm.identities["issuer/i1"]
    proof = realm.store(agent).proof(agent.key.key_id, agent.name)
    assert list(proof) == [one.chain[0].raw for one in (issuer, node, agent)]
    stranger = TrustStore(realm.realm)
    for raw in proof:
        stranger.add(raw)


@pytest.mark.parametrize(
    ("source", "topic", "version", "void"),
    [
        ("operator/alice", "config/brake", 1, True),
        ("operator/alice", "service/web/spec", 1, True),
        ("controller/c1", "service/web/slot/app/0", 1, False),  # controllers say it again
        ("node/n1", "node/n1/attributes", None, False),  # nobody else may say it
        ("operator/alice", "tombstone/service/web", 1, True),  # where a controller was it is said again
        ("controller/c1", "tombstone/service/web", 1, False),
    ],
)
def test_a_shared_fact_of_a_revoked_key_is_void_unless_controllers_say_it_again(realm, source, topic, version, void):
    event = realm.event(topic, source=source, version=version)
    (signed,) = seal([event], realm.identities[source].key)
    assert is_void(signed, lambda one: one is signed) is void
    assert not is_void(signed, lambda _: False)
