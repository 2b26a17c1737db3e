"""Events: a store opens what its signer may say, and nothing that anybody says for another."""

import cbor2
import pytest

from dsmt.errors import UnusableEventError
from dsmt.event.codec import seal
from dsmt.event.hlc import hlc
from dsmt.event.phrases import another_certificate
from dsmt.trust import store as trust_store
from dsmt.trust.certificate import issue
from dsmt.trust.grants import denied, may_say
from dsmt.trust.keys import SecretKey, verify
from dsmt.trust.proven import remembering
from dsmt.trust.store import TrustStore
from tests.trust.refusals import AGENT, NODE, STATUS, certificate, refusal


def test_an_event_within_its_certificate_is_opened(realm):
    signed = realm.store().open(realm.says(AGENT, STATUS))
    assert (signed.event.source, signed.event.topic) == (AGENT, STATUS)
    assert signed.key_id == realm.identities[AGENT].key.key_id


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


def test_who_has_a_certificate_of_before_a_topic_was_there_is_told_to_rotate_it(realm):
    agent, node = realm.identities[AGENT], realm.identities[NODE]
    older = issue(certificate(realm, AGENT, publish=agent.certificate.publish[1:]), node.key)
    store = TrustStore(realm.realm)
    store.add_all([node.chain[0].raw, older.raw])
    lacking = next(topic for topic in ("app/web/x", STATUS, "source/" + AGENT) if not may_say(older.certificate, topic))
    with pytest.raises(UnusableEventError) as caught:
        store.open(realm.says(AGENT, lacking))
    assert (caught.value.code, caught.value.next) == ("trust.denied", another_certificate(NODE))
    assert "its certificate does not grant that" in caught.value.message
    assert denied("operator/alice.x7", "user/x").next == another_certificate("operator/alice")
    assert denied(AGENT, "config/brake").next == "", "no certificate would help"


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
    monkeypatch.setattr("dsmt.trust.proven._REMEMBERED", 2)
    store = TrustStore(realm.realm, verify=counted)
    store.add_all(one.raw for one in realm.identities[name].chain)
    alone = realm.says(name, topic)
    assert opened(store, alone, alone) == 2
    assert opened(store, *bursts[0], *bursts[0]) == 1
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


def test_what_was_good_is_not_checked_again_until_so_many_others_were() -> None:
    asked: list[bytes] = []

    def counted(_algorithm: int, _public: bytes, message: bytes, signature: bytes) -> bool:
        asked.append(message)
        return signature == b"good"

    check = remembering(counted, 2)
    assert check(-8, b"p", b"one", b"good")
    assert check(-8, b"p", b"one", b"good")
    assert asked == [b"one"]
    assert not check(-8, b"p", b"one", b"bad")
    assert not check(-8, b"p", b"one", b"bad")
    assert asked == [b"one"] * 3, "what is bad is no less so the second time"
    others = [(-8, b"q", b"one", b"good"), (-7, b"p", b"one", b"good"), (-8, b"p", b"two", b"good")]
    assert all(check(*other) for other in others)
    assert asked[3:] == [b"one", b"one", b"two"]
    assert check(-8, b"p", b"two", b"good")
    assert len(asked) == 6
    assert check(-8, b"p", b"one", b"good")
    assert len(asked) == 7, "two are remembered"


def test_of_no_more_topics_than_a_bound_it_is_remembered_who_may_say_something_there(realm, monkeypatch):
    monkeypatch.setattr(trust_store, "_REMEMBERED", 3)
    store = realm.store()
    for number in range(10):
        assert store.open(realm.says("operator/alice", f"user/t{number}"))
        assert len(store._terms) <= 3
