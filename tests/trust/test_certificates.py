"""Certificates: who may give what to whom, what a renewal changes, and what is none."""

from itertools import permutations

import cbor2
import pytest

from dsmt.errors import InputError, UnusableEventError
from dsmt.event.burst import assemble
from dsmt.event.codec import protected_header, sig_structure
from dsmt.event.payload import canonical
from dsmt.trust.certificate import Certificate, issue, read
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import TrustStore
from tests.trust.refusals import AGENT, NODE, STATUS, certificate, refusal, refused


def test_a_certificate_by_nobody_known_is_refused(realm, other_realm):
    assert refused(TrustStore(realm.realm), realm.identities[AGENT].chain[0].raw) == "trust.stranger"
    assert refused(realm.store(), other_realm.identities["node/n1"].chain[0].raw) == "trust.stranger"


def test_a_certificate_that_its_issuer_did_not_sign_is_refused(realm):
    claimed = issue(certificate(realm, AGENT, serial=b"0" * 16), realm.root)
    parts = list(cbor2.loads(claimed.raw).value)
    forged = issue(certificate(realm, AGENT, serial=b"1" * 16), realm.root)
    parts[2] = cbor2.loads(forged.raw).value[2]
    assert refused(realm.store(), b"\xd2" + cbor2.dumps(parts)) == "trust.signature"


@pytest.mark.parametrize(
    "changes",
    [
        {"publish": ("/",)},
        {"publish": ("service/",)},
        {"publish": ("service/web/status/app/0/+/application",)},
        {"publish": ("service/web/status/app/0/n2/application",)},
        {"publish": ("config/brake",)},
        {"depth": 1},
        {"depth": 5},
        {"depth": -1},
        {"quota": 100_001},
        {"not_after": 2**40},
        {"not_before": 1},
        {"issuer": "root"},
        {"issuer": "node/n2"},
        {"subject": "agent/n2/web/app/0"},
        {"subject": "node/n2"},
        {"subject": "node/n1"},
        {"subject": "monitor/n2"},
        {"subject": "broker/b1"},
        {"subject": "controller/c1"},
        {"subject": "operator/alice"},
        {"subject": "root"},
    ],
    ids=str,
)
def test_a_node_cannot_give_more_than_it_has(realm, changes):
    told = {**changes, "public": SecretKey(b"7" * 32).public, "serial": b"2" * 16}
    wider = issue(certificate(realm, AGENT, **told), realm.identities[NODE].key)
    assert refused(realm.store(), wider.raw) == "trust.widened"
    fair = issue(certificate(realm, AGENT, **{**told, **{k: v for k, v in told.items() if k not in changes}}
                             | {k: getattr(realm.identities[AGENT].certificate, k) for k in changes}),
                 realm.identities[NODE].key)  # fmt: skip
    assert realm.store().add(fair.raw) == fair.certificate


def test_reading_cannot_be_widened_either(realm):
    store = realm.store(realm.by_root("operator/bob"))
    narrow = issue(
        certificate(realm, "node/n1", subject=NODE, read=("node/",), public=SecretKey(b"8" * 32).public), realm.root
    )
    store.add(narrow.raw)
    for patterns, fits in ((("/",), False), (("node/", "service/"), False), (("node/n1/",), True)):
        below = certificate(realm, AGENT, read=patterns, public=SecretKey(b"9" * 32).public, serial=bytes(16))
        raw = issue(below, SecretKey(b"8" * 32)).raw
        if fits:
            assert store.add(raw) == below
        else:
            assert refused(store, raw) == "trust.widened"


def test_delegation_ends_at_its_depth(realm):
    agent = realm.identities[AGENT]
    deeper = certificate(realm, AGENT, issuer=AGENT, public=SecretKey(b"6" * 32).public)
    assert refused(realm.store(), issue(deeper, agent.key).raw) == "trust.widened"
    program = realm.identities["operator/alice.x7"]
    assert program.certificate.depth == 0
    below = realm.below("operator/alice.x7.y", program)
    assert refused(realm.store(), below.chain[0].raw) == "trust.widened"


def test_an_issuer_makes_nodes_that_make_agents_and_nothing_else(realm):
    store = realm.store()
    assert store.open(realm.says("node/n9", "node/n9/heartbeat"))
    assert store.open(realm.says("agent/n9/web/app/0", "service/web/status/app/0/n9/application"))
    for name in ("controller/c9", "broker/b9", "operator/eve", "issuer/i9"):
        raw = realm.below(name, realm.identities["issuer/i1"]).chain[0].raw
        assert refused(store, raw) == "trust.widened"


THEFTS = ("controller/c1", "node/n2", "agent/n2/db/app/0", NODE)


@pytest.mark.parametrize("victim", THEFTS)
@pytest.mark.parametrize("first", ["thief", "owner"])
def test_nobody_takes_another_s_key_by_naming_it_whoever_comes_first(realm, victim, first):
    """Public keys are public: a node that certifies another's key under a name of its own must change nothing."""
    identity, node = realm.identities[victim], realm.identities[NODE]
    theft = certificate(realm, AGENT, public=identity.key.public, issued=realm.now + 1000, serial=b"3" * 16)
    stolen = [issue(theft, node.key).raw]
    own = [one.raw for one in identity.chain]
    store = realm.store(node)
    for raws in (stolen, own) if first == "thief" else (own, stolen):
        store.add_all(raws)
    key_id = identity.key.key_id
    assert store.certificate(key_id, victim).raw == own[0]
    assert [one.raw for one in store.chain(key_id, victim)] == own
    assert store.names(key_id) == sorted([AGENT, victim])
    heartbeat = {"controller/c1": "service/web/slot/app/0", "agent/n2/db/app/0": "service/db/status/app/0/n2/application"}
    topic = heartbeat.get(victim, f"{victim}/heartbeat")
    assert store.open(realm.says(victim, topic))
    assert TrustStore.from_export(store.export()).open(realm.says(victim, topic)), "an export holds both"


def test_others_certificates_of_a_key_push_out_none_of_the_root_s_nor_of_its_own_node(realm):
    victim = realm.identities["agent/n2/db/app/0"]
    store = realm.store(realm.identities[NODE], victim)
    for i in range(200):
        theft = certificate(realm, AGENT, public=victim.key.public, issued=realm.now + 1000 + i)
        store.add(issue(theft, realm.identities[NODE].key).raw)
    assert store.open(realm.says(victim.name, "service/db/status/app/0/n2/application"))
    assert [one.raw for one in store.chain(victim.key.key_id, victim.name)] == [one.raw for one in victim.chain]
    assert len(cbor2.loads(store.export())["certificates"]) == 64 + 3


def test_a_thief_who_revokes_a_key_ends_only_what_it_has_certified_itself(realm):
    victim = realm.identities["agent/n2/db/app/0"]
    store = realm.store(realm.identities[NODE], victim)
    store.add(issue(certificate(realm, AGENT, public=victim.key.public), realm.identities[NODE].key).raw)
    realm.revoke(store, victim.name, by=NODE)
    assert store.open(realm.says(victim.name, "service/db/status/app/0/n2/application"))
    assert refusal(store, realm.says(AGENT, STATUS, key=victim.key)) == "trust.revoked"


@pytest.mark.parametrize("name", ["node", "node/n1/x", "agent/n1", "agent/n1/web/app/0/x", "stranger/x", "root/x"])
def test_a_name_that_no_source_may_have_is_certified_by_nobody(realm, name):
    with pytest.raises(InputError, match="not the name of a source"):
        realm.by_root(name)
    raw = issue(certificate(realm, "node/n1", subject=name), realm.root).raw
    assert refused(realm.store(), raw) == "trust.name"


def test_a_renewal_keeps_what_was_signed_before_it_good(realm):
    key = realm.identities["controller/c1"].key
    old = realm.by_root("controller/c1", lifetime_s=10 * realm.day)
    new = realm.by_root("controller/c1", at=realm.now + 5 * realm.day, lifetime_s=10 * realm.day)
    for order in permutations([old, new]):
        store = realm.store(*order)
        for day in (1, 7, 14):
            store.open(realm.says("controller/c1", "service/web/slot/app/0", at=realm.now + day * realm.day))
        assert refusal(
            store, realm.says("controller/c1", "service/web/slot/app/0", at=realm.now + 16 * realm.day)
        ) == "trust.expired"  # fmt: skip
        assert store.certificate(key.key_id, "controller/c1").raw == new.chain[0].raw


def test_a_child_of_an_older_certificate_stays_good_beside_the_renewed_one(realm):
    old = realm.by_root(NODE, lifetime_s=10 * realm.day)
    child = realm.below(AGENT, old)
    new = realm.by_root(NODE, at=realm.now + 5 * realm.day, lifetime_s=10 * realm.day)
    for order in permutations([*child.chain, *new.chain]):
        store = TrustStore(realm.realm)
        store.add_all(one.raw for one in order)
        assert store.open(realm.says(AGENT, STATUS))
        shown = store.chain(realm.identities[AGENT].key.key_id, AGENT)
        fresh = TrustStore(realm.realm)
        fresh.add_all(one.raw for one in shown)
        assert fresh.open(realm.says(AGENT, STATUS)), "what is shown to a stranger is enough"


def test_a_key_keeps_a_bounded_number_of_certificates(realm):
    store = realm.store(realm.identities[NODE])
    for i in range(200):
        store.add(issue(certificate(realm, AGENT, issued=realm.now + i), realm.identities[NODE].key).raw)
    newest = store.certificate(realm.identities[AGENT].key.key_id, AGENT)
    assert newest.certificate.issued == realm.now + 199
    assert len(cbor2.loads(store.export())["certificates"]) <= 65


def test_certificates_are_taken_in_in_any_order_and_one_without_its_issuer_is_told(realm):
    chain = [signed.raw for signed in realm.identities["agent/n9/web/app/0"].chain]
    for order in permutations(chain):
        store = TrustStore(realm.realm)
        store.add_all(order)
        assert store.certificate(realm.identities["agent/n9/web/app/0"].key.key_id, "agent/n9/web/app/0").raw == chain[0]
    with pytest.raises(UnusableEventError) as caught:
        TrustStore(realm.realm).add_all([chain[0], chain[2]])
    assert caught.value.code == "trust.stranger"


MALFORMED = {
    "no map": [],
    "a claim missing": lambda claims: {k: v for k, v in claims.items() if k != 8},
    "another curve": lambda claims: {**claims, 8: {1: {1: 1, -1: 4, -2: bytes(32)}}},
    "another key type": lambda claims: {**claims, 8: {1: {1: 2, -1: 6, -2: bytes(32)}}},
    "a short key": lambda claims: {**claims, 8: {1: {1: 1, -1: 6, -2: bytes(31)}}},
    "a time that is text": lambda claims: {**claims, 4: "never"},
    "a name outside the grammar": lambda claims: {**claims, 2: "Node/n1"},
    "a pattern outside the grammar": lambda claims: {**claims, -70_001: ["node/n1//"]},
    "patterns as text": lambda claims: {**claims, -70_002: "/"},
    "a depth that is text": lambda claims: {**claims, -70_003: "deep"},
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_certificate_is_refused_although_the_root_signed_it(realm, change):
    claims = cbor2.loads(cbor2.loads(realm.identities[NODE].chain[0].raw).value[2])
    body = canonical(change(claims) if callable(change) else change)
    protected = protected_header(realm.root.algorithm, realm.root.key_id)
    raw = assemble(protected, body, realm.root.sign(sig_structure(protected, body)))
    assert refused(TrustStore(realm.realm), raw) == "trust.certificate"


def test_a_certificate_is_a_cbor_web_token_with_a_confirmation_key(realm):
    raw = realm.identities[NODE].chain[0].raw
    assert cbor2.loads(raw).tag == 18
    claims = cbor2.loads(cbor2.loads(raw).value[2])
    assert (claims[1], claims[2]) == ("root", NODE)
    assert claims[8] == {1: {1: 1, -1: 6, -2: realm.identities[NODE].key.public}}
    assert read(raw)[0].certificate == realm.identities[NODE].certificate
    assert isinstance(read(raw)[0].certificate, Certificate)


def test_an_event_is_no_certificate_and_a_certificate_no_event(realm):
    assert refused(realm.store(), realm.says(AGENT, STATUS)) == "trust.certificate"
    assert refusal(realm.store(), realm.identities[AGENT].chain[0].raw) == "event.form"
