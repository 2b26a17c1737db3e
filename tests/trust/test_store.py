"""Trust: who may say what, and all the ways in which somebody might try to say more."""

from itertools import permutations

import cbor2
import msgspec
import pytest

from dsmt.errors import InputError, UnusableEventError
from dsmt.event.burst import assemble
from dsmt.event.codec import protected_header, seal, sig_structure
from dsmt.event.hlc import hlc
from dsmt.event.payload import canonical
from dsmt.trust.certificate import Certificate, issue, read
from dsmt.trust.identity import dump, load
from dsmt.trust.keys import SecretKey, link_key, verify
from dsmt.trust.store import TrustStore, revoked_by

AGENT, NODE = "agent/n1/web/app/0", "node/n1"
STATUS = "service/web/status/app/0/n1/application"


def refusal(store, raw):
    with pytest.raises(UnusableEventError) as caught:
        store.open(raw)
    assert caught.value.message, "a refusal is a sentence"
    return caught.value.code


def refused(store, raw):
    with pytest.raises(UnusableEventError) as caught:
        store.add(raw)
    assert caught.value.message, "a refusal is a sentence"
    return caught.value.code


def certificate(realm, name, **changes):
    """The certificate of a name with changes."""
    return msgspec.structs.replace(realm.identities[name].certificate, **changes)


def test_an_event_within_its_certificate_is_opened(realm):
    signed = realm.store().open(realm.says(AGENT, STATUS))
    assert (signed.event.source, signed.event.topic) == (AGENT, STATUS)
    assert signed.key_id == realm.identities[AGENT].key.key_id


# Events ---------------------------------------------------------------------------------------------------------------


def test_a_stranger_s_event_is_refused(realm, other_realm):
    assert refusal(realm.store(), realm.says(AGENT, STATUS, key=SecretKey(bytes(32)))) == "trust.stranger"
    assert refusal(realm.store(), other_realm.says(AGENT, STATUS)) == "trust.stranger"


def test_an_event_signed_as_another_is_refused(realm):
    store = realm.store()
    topic = "service/db/status/app/0/n2/application"
    assert refusal(store, realm.says(AGENT, topic, source="agent/n2/db/app/0")) == "trust.name"
    assert refusal(store, realm.says(NODE, STATUS, source=AGENT)) == "trust.name"
    assert refusal(store, realm.says("operator/alice.x7", "user/x", source="operator/alice")) == "trust.name"


def test_a_node_cannot_publish_another_node_s_topics(realm):
    store = realm.store()
    for topic in ("node/n2/heartbeat", "service/web/status/app/0/n2/container", "source/node/n2"):
        assert refusal(store, realm.says(NODE, topic)) == "trust.denied"


def test_a_node_cannot_publish_what_it_holds_only_to_delegate_it(realm):
    store = realm.store()
    for topic in ("node/n1/attributes", STATUS, "app/web/x", "source/monitor/n1"):
        assert refusal(store, realm.says(NODE, topic)) == "trust.denied"
    assert refusal(store, realm.says("issuer/i1", "node/n1/heartbeat")) == "trust.denied"
    assert refusal(store, realm.says("operator/alice", "source/operator/alice.x7")) == "trust.denied"


def test_an_agent_publishes_its_slot_only(realm):
    store = realm.store()
    assert store.open(realm.says(AGENT, "app/web/progress"))
    for topic in (
        "service/web/status/app/1/n1/application",
        "service/web/status/app/0/n2/application",
        "service/web/status/app/0/n1/agent",
        "service/db/status/app/0/n1/application",
        "service/web/slot/app/0",
        "node/n1/heartbeat",
        "app/db/progress",
        "user/x",
        "config/brake",
    ):
        assert refusal(store, realm.says(AGENT, topic)) == "trust.denied"


def test_a_topic_that_is_in_no_row_is_refused_to_everybody(realm):
    store = realm.store()
    for name in realm.identities:
        assert refusal(store, realm.says(name, "nowhere/at/all")) == "trust.denied"


def test_a_certificate_counts_at_the_time_of_the_event(realm):
    identity = realm.by_root("controller/c1", lifetime_s=realm.day)
    store, (held,) = realm.store(identity), identity.chain
    for at in (held.certificate.not_before, realm.now + realm.day):
        assert store.open(realm.says("controller/c1", "service/web/slot/app/0", at=at))
    for at in (held.certificate.not_before - 1, realm.now + realm.day + 1):
        assert refusal(store, realm.says("controller/c1", "service/web/slot/app/0", at=at)) == "trust.expired"
    within = realm.event("service/web/slot/app/0", source="controller/c1", time=hlc((realm.now + realm.day) * 1000 + 999))
    assert store.open(seal([within], identity.key)[0].raw), "to the end of its last second"


def test_a_member_of_a_burst_does_not_pass_for_a_single_event_nor_for_another_s(realm):
    name, topic = "controller/c1", "service/web/slot/app/0"
    events = [realm.event(topic, source=name, sequence=i) for i in (1, 2)]
    one, two = (cbor2.loads(signed.raw).value for signed in seal(events, realm.identities[name].key))
    store = realm.store()

    def forged(*parts):
        return b"\xd2" + cbor2.dumps(list(parts))

    assert store.open(forged(*one))
    alone = cbor2.loads(realm.says(name, topic, at=realm.now + 7)).value
    for parts in (
        (one[0], {}, one[2], one[3]),
        (one[0], one[1], two[2], one[3]),
        (one[0], two[1], one[2], one[3]),
        (alone[0], one[1], alone[2], alone[3]),
        (alone[0], one[1], alone[2], one[3]),
    ):
        assert refusal(store, forged(*parts)) == "trust.signature"


def test_the_signature_of_a_burst_is_checked_once_while_it_is_remembered_and_that_of_an_event_alone_each_time(
    realm, monkeypatch
):
    checked = []

    def counted(*told):
        checked.append(told)
        return verify(*told)

    def opened(store, *raws):
        checked.clear()
        for raw in raws:
            store.open(raw)
        return len(checked)

    name, topic = "controller/c1", "service/web/slot/app/0"
    bursts = [
        [
            signed.raw
            for signed in seal([realm.event(topic, source=name, sequence=n + i) for i in (0, 1)], realm.speaker(name))
        ]
        for n in (1, 3, 5)
    ]
    store = TrustStore(realm.realm, verify=counted)
    store.add_all(one.raw for one in realm.identities[name].chain)
    alone = realm.says(name, topic)
    assert opened(store, alone, alone) == 2
    assert opened(store, *bursts[0], *bursts[0]) == 1
    monkeypatch.setattr("dsmt.trust.proven._REMEMBERED", 2)
    assert opened(store, bursts[1][0], bursts[0][0]) == 1, "two are remembered"
    assert opened(store, bursts[2][0], bursts[2][1], bursts[1][0]) == 1
    assert opened(store, bursts[0][0]) == 1, "the first of three is forgotten"


def test_a_signature_of_another_algorithm_is_refused(realm):
    identity = realm.identities["controller/c1"]
    event = realm.event("service/web/slot/app/0", source="controller/c1")

    class Other:
        algorithm, key_id = -7, identity.key.key_id
        sign = staticmethod(identity.key.sign)

    assert refusal(realm.store(), seal([event], Other)[0].raw) == "trust.signature"


# Certificates ---------------------------------------------------------------------------------------------------------


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


# Revocation -----------------------------------------------------------------------------------------------------------


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


# Files ----------------------------------------------------------------------------------------------------------------


def test_an_exported_store_judges_as_the_first_one_does(realm):
    store = realm.store()
    realm.revoke(store, "node/n2")
    again = TrustStore.from_export(store.export())
    assert again.export() == store.export()
    assert again.open(realm.says(AGENT, STATUS))
    assert refusal(again, realm.says("node/n2", "node/n2/heartbeat")) == "trust.revoked"
    assert again.realm == realm.realm


def test_a_trust_file_that_is_none_is_refused(realm):
    good = cbor2.loads(realm.store().export())
    stranger = {**good, "roots": [bytes(32)]}
    missing = {k: v for k, v in good.items() if k != "revoked"}
    damaged = {**good, "certificates": [good["certificates"][0][:-1]]}
    odd = [{**good, "roots": 7}, {**good, "roots": ["x"]}, {**good, "certificates": [None]}, {**good, "revoked": [[]]}]
    for told in (stranger, missing, damaged, [], 7, None, *odd):
        with pytest.raises(InputError, match="trust file"):
            TrustStore.from_export(canonical(told))
    for raw in (b"", b"not cbor", realm.store().export()[:-1]):
        with pytest.raises(InputError, match="trust file"):
            TrustStore.from_export(raw)


def test_an_identity_is_read_from_what_it_was_written_as(realm):
    identity = realm.identities[AGENT]
    again = load(dump(identity), where="id")
    assert (again.name, again.key.seed, again.chain) == (AGENT, identity.key.seed, identity.chain)


def test_a_file_that_holds_no_identity_is_refused_with_its_name(realm):
    told = cbor2.loads(dump(realm.identities[AGENT]))
    other = {**told, "seed": realm.identities[NODE].key.seed}
    for raw in (b"", b"\xa0", canonical({**told, "chain": []}), canonical({**told, "seed": b"x"}), canonical(other)):
        with pytest.raises(InputError, match=r"alice\.key"):
            load(raw, where="alice.key")


def test_a_secret_is_not_shown_by_a_key(realm):
    key = realm.identities[NODE].key
    assert key.seed.hex() not in repr(key)
    assert repr(key.seed) not in repr(key)


# Keys -----------------------------------------------------------------------------------------------------------------


def test_ed25519_is_that_of_rfc_8032():
    key = SecretKey(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert key.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert key.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
        "b00d291612bb0c00"
    )


def test_a_signature_with_a_multiple_of_the_order_added_is_refused():
    """Ed25519 is malleable unless S is checked to be below L (RFC 8032, 5.1.7)."""
    key, order = SecretKey(bytes(32)), 2**252 + 27742317777372353535851937790883648493
    signature = key.sign(b"word")
    other = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    assert verify(-8, key.public, b"word", signature)
    assert not verify(-8, key.public, b"word", other)


@pytest.mark.parametrize(
    ("public", "signature"),
    [(bytes(31), bytes(64)), (bytes(32), bytes(63)), (bytes(32), bytes(64)), (b"\x01" + bytes(31), b"\x01" + bytes(63))],
)
def test_keys_of_small_order_and_wrong_lengths_verify_nothing(public, signature):
    assert not verify(-8, public, b"word", signature)


def test_only_eddsa_is_accepted():
    key = SecretKey(bytes(32))
    for algorithm in (-7, -37, 5, -65537, 0):
        assert not verify(algorithm, key.public, b"word", key.sign(b"word"))


def test_a_link_key_is_the_public_part_of_the_link_secret():
    from nacl.public import PrivateKey  # noqa: PLC0415 - used by this oracle only

    key = SecretKey(b"5" * 32)
    assert bytes(PrivateKey(key.link_secret()).public_key) == link_key(key.public)


@pytest.mark.parametrize("public", [b"", bytes(31), b"\xff" * 32])
def test_what_is_no_key_is_refused(public):
    with pytest.raises(InputError):
        link_key(public)
    with pytest.raises(InputError):
        SecretKey(bytes(31))
