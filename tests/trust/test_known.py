"""What a store knows of keys and names, what it lets go, and what a shelf beside it is for (rules 4, 5, 7 of the store)."""

from itertools import permutations

import cbor2
import pytest
from msgspec.structs import replace

from dsmt.errors import InputError, UnusableEventError
from dsmt.event.codec import open_envelope, seal
from dsmt.event.payload import canonical
from dsmt.trust.certificate import issue
from dsmt.trust.identity import dump, load, root_issued
from dsmt.trust.keys import SecretKey, link_key
from dsmt.trust.revocations import Revocations, revoked_by, topic_of
from dsmt.trust.store import Realm, TrustStore
from tests.trust.refusals import AGENT, NODE, STATUS


@pytest.fixture
def key_id(realm):
    """The id of the key of a name."""
    return lambda name: realm.identities[name].key.key_id


def again(realm, name, issuer, **changes):
    """The certificate of a name with changes, signed by another."""
    return issue(replace(realm.identities[name].certificate, issuer=issuer, **changes), realm.speaker(issuer))


# Keys and names -------------------------------------------------------------------------------------------------------


def test_a_key_is_known_by_the_names_that_are_certified_for_it(realm, key_id):
    store, key = realm.store(), realm.identities[AGENT].key
    assert (store.names(key.key_id), store.sole_name(key.key_id)) == ([AGENT], AGENT)
    store.add(again(realm, AGENT, NODE, issued=realm.now + 1).raw)
    assert (store.names(key.key_id), store.sole_name(key.key_id)) == ([AGENT], AGENT)
    second = "agent/n2/db/app/0"
    store.add(again(realm, second, "node/n2", public=key.public).raw)
    assert (store.names(key.key_id), store.sole_name(key.key_id)) == ([AGENT, second], None)
    assert (store.names(bytes(16)), store.sole_name(bytes(16))) == ([], None)


def test_the_newest_certificate_of_each_key_and_name_is_given(realm, key_id):
    store = realm.store(realm.identities[AGENT])
    newer = again(realm, AGENT, NODE, issued=realm.now + 1)
    older = again(realm, AGENT, NODE, issued=realm.now - 1)
    for one in (newer, older):
        assert store.add(one.raw) == one.certificate
    assert store.in_memory(key_id(AGENT)) == [newer, realm.identities[AGENT].chain[0], older]
    assert store.certificate(key_id(AGENT), AGENT) == newer
    assert store.certificate(key_id(AGENT), NODE) is None
    assert sorted(one.subject for one in store.certificates()) == [AGENT, NODE]
    assert newer.certificate in store.certificates()
    assert older.certificate not in store.certificates()


def test_a_certificate_is_held_as_the_very_bytes_that_were_taken_in(realm, key_id):
    store, held = realm.store(realm.identities[NODE]), realm.identities[NODE].chain[0]
    assert store.holds(held.raw, key_id(NODE))
    assert not store.holds(held.raw, key_id(AGENT))
    assert not store.holds(realm.identities[AGENT].chain[0].raw, key_id(NODE))
    store.add(held.raw)
    assert store.in_memory(key_id(NODE)) == [held], "said twice, kept once"


def test_what_a_stranger_needs_is_the_certificate_and_those_above_it(realm, key_id):
    store, name = realm.store(), "agent/n9/web/app/0"
    chain = list(realm.identities[name].chain)
    assert store.chain(key_id(name), name) == chain
    assert store.above(chain[0]) == chain[1:]
    assert store.above(chain[-1]) == []
    assert store.chain(key_id(name), NODE) == []
    realm.revoke(store, "issuer/i1")
    assert store.chain(key_id(name), name) == chain, "one that has ended is shown, too: its events are stored"


def shown(realm, store, name):
    """A stranger who was shown, one by one and in this order, what proves a name's words."""
    stranger = TrustStore(realm.realm)
    for raw in store.proof(realm.identities[name].key.key_id, name):
        stranger.add(raw)
    return stranger


def test_what_is_shown_of_a_renewed_key_proves_its_words_before_between_and_after_its_renewals(realm):
    held = [realm.by_root("controller/c1", at=realm.now + at * realm.day, lifetime_s=10 * realm.day) for at in (0, 8, 16)]
    for order in permutations(held):
        stranger = shown(realm, realm.store(*order), "controller/c1")
        for day in (1, 12, 25):
            said = realm.says("controller/c1", "service/web/slot/app/0", at=realm.now + day * realm.day)
            assert stranger.open(said).event.source == "controller/c1"


def test_what_is_shown_of_who_stands_below_a_renewed_key_proves_its_words_of_both_times(realm):
    node = [realm.by_root(NODE, at=realm.now + at * realm.day, lifetime_s=10 * realm.day) for at in (0, 8)]
    agent = [realm.below(AGENT, above) for above in node]
    stranger = shown(realm, realm.store(*agent), AGENT)
    for day in (1, 17):
        assert stranger.open(realm.says(AGENT, STATUS, at=realm.now + day * realm.day))


def test_what_is_shown_is_asked_for_anew_when_a_certificate_came_or_went(realm, key_id):
    old, new = (realm.by_root(NODE, at=realm.now + at) for at in (0, 5))
    store = realm.store(old)
    assert store.proof(key_id(NODE), NODE) == (old.chain[0].raw,)
    store.add(new.chain[0].raw)
    assert store.proof(key_id(NODE), NODE) == (new.chain[0].raw, old.chain[0].raw)
    store.forget(key_id(NODE), NODE)
    assert store.proof(key_id(NODE), NODE) == ()


def test_a_fresh_store_knows_the_same_certificates_and_no_revocation(realm):
    store = realm.store()
    realm.revoke(store, AGENT)
    fresh = store.fresh()
    assert (fresh.realm, fresh.certificates(), fresh.revocations) == (realm.realm, store.certificates(), 0)
    assert fresh.open(realm.says(AGENT, STATUS))
    realm.revoke(fresh, NODE)
    fresh.add(realm.by_root("node/n7").chain[0].raw)
    assert (store.revocations, store.names(realm.key("node/n7").key_id)) == (1, []), "each goes its own way"


# Letting go -----------------------------------------------------------------------------------------------------------


def test_only_keys_that_the_root_has_not_certified_and_that_certified_nobody_may_be_let_go(realm, key_id):
    store = realm.store()
    leaves = {"monitor/n1", "monitor/n2", AGENT, "agent/n1/web/app/1", "agent/n2/db/app/0", "operator/alice.x7",
              "agent/n9/web/app/0", "joining/a1", "joining/a2"}  # fmt: skip
    assert set(store.delegates()) == {(key_id(name), name) for name in leaves}
    assert set(store.delegated()) == {key_id(name) for name in leaves}


def test_what_is_let_go_is_one_name_of_a_key_and_is_shown_again(realm, key_id):
    store, key = realm.store(), realm.identities[AGENT].key
    second = again(realm, "agent/n2/db/app/0", "node/n2", public=key.public)
    store.add(second.raw)
    assert store.forget(key.key_id, "nobody") == []
    assert store.forget(key.key_id, AGENT) == [realm.identities[AGENT].chain[0]]
    assert store.names(key.key_id) == ["agent/n2/db/app/0"]
    assert store.forget(key.key_id, "agent/n2/db/app/0") == [second]
    assert store.in_memory(key.key_id) == []
    assert store.forget(key.key_id, AGENT) == []
    with pytest.raises(UnusableEventError) as caught:
        store.open(realm.says(AGENT, STATUS))
    assert caught.value.code == "trust.stranger"
    store.add(realm.identities[AGENT].chain[0].raw)
    assert store.open(realm.says(AGENT, STATUS))


def test_a_key_of_which_nothing_is_in_memory_is_looked_for_on_the_shelf(realm, key_id):
    store, asked = realm.store(), []
    shelf = {key_id(AGENT): store.forget(key_id(AGENT), AGENT)}

    def look(key):
        asked.append(key)
        return shelf.get(key, [])

    store.look_on(look)
    assert store.open(realm.says(AGENT, STATUS))
    assert store.names(key_id(AGENT)) == [AGENT]
    assert store.in_memory(key_id(AGENT)) == []
    assert not store.holds(shelf[key_id(AGENT)][0].raw, key_id(AGENT))
    asked.clear()
    store.open(realm.says(NODE, "node/n1/heartbeat"))
    assert asked == [], "who is in memory is looked for nowhere else"
    newer = again(realm, AGENT, NODE, issued=realm.now + 1)
    store.add(newer.raw)
    assert store.in_memory(key_id(AGENT)) == [newer, *shelf[key_id(AGENT)]], "what is on the shelf comes with it"


def test_a_key_on_the_shelf_ends_with_the_one_above_it(realm, key_id):
    store = realm.store()
    kept = store.forget(key_id(AGENT), AGENT)
    store.look_on(lambda key: kept if key == key_id(AGENT) else ())
    realm.revoke(store, NODE)
    assert store.is_revoked(key_id(AGENT), AGENT)


# Endings --------------------------------------------------------------------------------------------------------------


def test_a_revocation_ends_something_known_and_is_counted_once(realm, key_id):
    store = realm.store()
    word = realm.revocation(key_id(AGENT), by=NODE)
    assert (store.revoke(word), store.revocations) == (True, 1)
    assert (store.revoke(word), store.revocations) == (True, 1)
    assert (store.revoke(realm.revocation(key_id(NODE), by=AGENT)), store.revocations) == (False, 2)
    stranger = seal([realm.event("node/n1/heartbeat", source=NODE)], realm.identities[NODE].key)[0]
    assert (store.revoke(stranger), store.revocations) == (False, 2)
    assert store.is_revoked(key_id(AGENT))
    assert not store.is_revoked(key_id(NODE))


def test_what_the_root_has_ended_is_ended_also_where_nobody_has_met_it(realm, key_id):
    store = TrustStore(realm.realm)
    realm.revoke(store, NODE)
    assert store.is_revoked(key_id(NODE))
    assert not store.is_revoked(key_id(AGENT))


def test_a_key_that_has_two_names_ends_under_the_one_whose_issuer_ended(realm, key_id):
    store, key = realm.store(), realm.identities[AGENT].key
    second = "agent/n2/db/app/0"
    store.add(again(realm, second, "node/n2", public=key.public).raw)
    realm.revoke(store, "node/n2")
    assert store.is_revoked(key.key_id, second)
    assert not store.is_revoked(key.key_id, AGENT)
    assert not store.is_revoked(key.key_id)
    assert not store.is_revoked(key.key_id, "nobody")
    assert not store.is_revoked(bytes(16))


def test_a_store_says_how_it_would_judge_without_a_key_and_stays_as_it_is(realm, key_id):
    store = realm.store()
    after = store.without(key_id(NODE))
    assert after.is_revoked(key_id(AGENT))
    assert not after.is_revoked(key_id("node/n2"))
    assert not store.is_revoked(key_id(AGENT))
    assert store.revocations == 0


def test_an_event_that_was_opened_is_disowned_once_its_key_has_ended(realm, key_id):
    store = realm.store()
    signed = store.open(realm.says(AGENT, STATUS))
    assert not store.disowns(signed)
    realm.revoke(store, AGENT, by=NODE)
    assert store.disowns(signed)


def test_revocations_are_pairs_in_order_each_once_and_none_of_the_root():
    roots = {b"root"}
    known = Revocations(roots)
    assert [known.add(key, by) for key, by in [(b"b", b"x"), (b"a", b"y"), (b"a", b"x"), (b"a", b"x"), (b"root", b"x")]] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert list(known) == [(b"a", b"x"), (b"a", b"y"), (b"b", b"x")]
    assert (len(known), known.of(b"a"), known.of(b"root")) == (3, {b"x", b"y"}, frozenset())


def test_a_revocation_s_topic_names_the_key_and_who_says_so():
    key = bytes(range(16))
    assert topic_of(key, NODE) == f"trust/revoked/{key.hex()}/node/n1"
    assert revoked_by(topic_of(key, NODE)) == key
    assert revoked_by(topic_of(key, "root")) == key
    for topic in (topic_of(key[1:], NODE), topic_of(key + b"x", NODE), topic_of(key, "x"), f"x{topic_of(key, NODE)}"):
        assert revoked_by(topic) is None


# Statements that are no events ----------------------------------------------------------------------------------------


def test_a_statement_is_checked_against_a_key(realm):
    store, key = realm.store(), realm.identities[NODE].key
    envelope = open_envelope(realm.says(NODE, "node/n1/heartbeat"))
    assert store.check(key.public, envelope)
    assert not store.check(realm.root.public, envelope)


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_trust_file_holds_the_realm_its_roots_and_all_that_is_known_in_order(realm, key_id):
    store = realm.store()
    realm.revoke(store, NODE)
    realm.revoke(store, AGENT)
    told = cbor2.loads(store.export())
    assert (told["realm"], told["roots"]) == ("test", [realm.root.public])
    raws = {one.raw for identity in realm.identities.values() for one in identity.chain}
    assert told["certificates"] == sorted(raws)
    assert told["revoked"] == sorted([key_id(name), realm.root.key_id] for name in (NODE, AGENT))


def test_a_trust_file_is_checked_by_what_its_reader_brings(realm):
    raw, seen = realm.store().export(), []

    def believes(*told):
        seen.append(told)
        return True

    forged = cbor2.loads(raw)
    store = TrustStore.from_export(canonical(forged), verify=believes)
    assert len(seen) == len(forged["certificates"])
    assert store.open(realm.says(AGENT, STATUS))


def test_a_realm_may_have_several_roots_and_old_ones_hold_what_they_signed(realm):
    new = realm.key("new root")
    store = TrustStore(Realm(name="test", roots=(new.public, realm.root.public)))
    store.add(realm.identities[NODE].chain[0].raw)
    store.add(root_issued("node/n3", new, key=realm.key("n3"), now_s=realm.now, serial=bytes(16)).chain[0].raw)
    assert store.open(realm.says(NODE, "node/n1/heartbeat"))
    assert store.open(realm.says("node/n3", "node/n3/heartbeat", key=realm.key("n3")))
    assert not store.may_revoke(realm.root.key_id, new.key_id)


def test_an_identity_of_another_key_is_refused_as_such_and_a_file_that_is_none_as_unreadable(realm):
    told = cbor2.loads(dump(realm.identities[NODE]))
    for raw in (b"", canonical({**told, "seed": SecretKey(bytes(32)).seed}), canonical({**told, "chain": []})):
        with pytest.raises(InputError, match=r"alice\.key") as caught:
            load(raw, where="alice.key")
        assert caught.value.code == "trust.identity"
        assert caught.value.next


def test_a_refused_key_is_shown_and_so_is_the_length_of_a_seed():
    with pytest.raises(InputError, match="ff" * 32) as caught:
        link_key(b"\xff" * 32)
    assert caught.value.code == "trust.key"
    with pytest.raises(InputError, match="31") as caught:
        SecretKey(bytes(31))
    assert caught.value.code == "trust.key"
    assert repr(SecretKey(bytes(32))) == f"SecretKey({SecretKey(bytes(32)).key_id.hex()})"
