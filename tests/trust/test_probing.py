"""Probing: an answer proves to anybody that its node lives, and nobody else can make one (rule F4)."""

import cbor2
import pytest

from dsmt.event.burst import assemble
from dsmt.event.codec import protected_header, seal, sig_structure
from dsmt.event.payload import canonical
from dsmt.trust.keys import SecretKey, verify
from dsmt.trust.probing import NONCE_BYTES, REQUEST_BYTES, Answered, answer, answered, request

KEY, OTHER = SecretKey(bytes(32)), SecretKey(b"\1" * 32)
NONCE = bytes(range(NONCE_BYTES))
SAID = Answered(3, 1_700_000_000_000)


def signed(told, key=KEY):
    """An answer with whatever is told, signed."""
    body, protected = canonical(told), protected_header(key.algorithm, key.key_id)
    return assemble(protected, body, key.sign(sig_structure(protected, body)))


def told(**changes):
    return {
        "nonce": NONCE, "node": "n1", "attachment": 3, "time_ms": 1_700_000_000_000, "key": KEY.public, **changes,
    }  # fmt: skip


def heard(content, *, nonce=NONCE, node="n1", key=KEY):
    return answered(content, nonce, node, key.key_id, verify)


def test_an_answer_says_the_attachment_and_the_time_of_the_node_that_was_asked():
    assert heard(answer(request(NONCE), KEY, KEY.public, "n1", SAID)) == SAID
    assert heard(signed(told())) == SAID


@pytest.mark.parametrize(
    "said", [{"attachment": -1}, {"attachment": 2**62 + 1}, {"time_ms": -1}, {"time_ms": 2**63}], ids=str
)
def test_an_answer_of_which_no_observer_could_tell_is_none(said):
    assert heard(signed(told(**said))) is None
    assert heard(signed(told(attachment=2**62))) == Answered(2**62, 1_700_000_000_000)


def test_a_request_is_as_long_as_its_answer_or_longer():
    asked = request(NONCE)
    assert len(asked) == REQUEST_BYTES
    assert len(answer(asked, KEY, KEY.public, "n" * 63, Answered(2**63 - 1, 2**48))) <= REQUEST_BYTES


@pytest.mark.parametrize(("length", "is_one"), [(311, False), (312, True), (328, True), (329, False)])
def test_what_is_not_of_a_request_s_length_is_not_answered(length, is_one):
    bare = len(canonical({"nonce": NONCE, "pad": bytes(260)})) - 260
    asked = canonical({"nonce": NONCE, "pad": bytes(length - bare)})
    assert len(asked) == length
    assert (answer(asked, KEY, KEY.public, "n1", SAID) is not None) == is_one


@pytest.mark.parametrize("nonce", [NONCE[1:], NONCE + b"\0", "x" * NONCE_BYTES, None, 7], ids=str)
def test_a_request_without_a_nonce_is_not_answered(nonce):
    bare = len(canonical({"nonce": nonce, "pad": bytes(260)})) - 260
    asked = canonical({"nonce": nonce, "pad": bytes(REQUEST_BYTES - bare)})
    assert answer(asked, KEY, KEY.public, "n1", SAID) is None


@pytest.mark.parametrize("asked", [bytes(REQUEST_BYTES), b"\xff" * REQUEST_BYTES, canonical([NONCE, bytes(297)])])
def test_noise_is_not_answered(asked):
    assert answer(asked, KEY, KEY.public, "n1", SAID) is None


NONE_OF_ITS = {
    "another nonce": signed(told(nonce=bytes(NONCE_BYTES))),
    "another node": signed(told(node="n2")),
    "another's key": signed(told(key=OTHER.public), OTHER),
    "its key, another's signature": signed(told(), OTHER),
    "another's key in it": signed(told(key=OTHER.public)),
    "no key": signed(told(key=None)),
    "an attachment that is no number": signed(told(attachment=True)),
    "a time that is no number": signed(told(time_ms=1.5)),
    "a list": signed([NONCE, "n1", 3, 4, KEY.public]),
    "no envelope": canonical(told()),
    "nothing": b"",
}


@pytest.mark.parametrize("content", NONE_OF_ITS.values(), ids=NONE_OF_ITS)
def test_what_is_not_the_node_s_own_answer_to_this_nonce_is_not_believed(content):
    assert heard(content) is None


def test_an_answer_with_another_content_under_its_signature_is_not_believed():
    parts, other = cbor2.loads(signed(told())).value, cbor2.loads(signed(told(attachment=4))).value
    forged = b"\xd2" + cbor2.dumps([parts[0], parts[1], other[2], parts[3]])
    assert heard(forged) is None


def test_an_event_of_the_node_is_no_answer(realm):
    event = realm.event("node/n1/heartbeat", source="node/n1")
    assert heard(seal([event], KEY)[0].raw) is None
