"""An independent COSE library reads what we sign, and we read what it signs."""

import json
import subprocess
from pathlib import Path

import pytest

from dsmt.errors import UnusableEventError
from dsmt.event.codec import decode, open_envelope, seal
from dsmt.event.envelope import NO_LEAF, ChainLink, Event, EventId
from dsmt.event.hlc import hlc
from dsmt.event.payload import payload
from dsmt.trust.keys import SecretKey, verify

KEY = SecretKey(bytes(range(32)))
READER = Path(__file__).with_name("pycose_reader.py")
pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


def events(count):
    return [
        Event(
            source="operator/alice",
            incarnation=1_700_000_000_000,
            sequence=i,
            chain=ChainLink(i, NO_LEAF if i == 1 else bytes([i]) * 32),
            type="dsmt.user",
            topic="user/greeting",
            subject="web",
            time=hlc(1_700_000_000_000, i),
            data={"hello": ["wörld", 1.5, None, b"\x00", {"a": -1}]},
            cause=(EventId("node/n1", 3, 4),),
            epoch=1,
            version=i,
        )
        for i in range(1, count + 1)
    ]


@pytest.fixture
def ask(pycose_python):
    def asked(**question):
        done = subprocess.run(
            [pycose_python, "-I", READER],
            input=json.dumps({"public": KEY.public.hex(), **question}),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return asked


def test_pycose_verifies_single_events_and_every_member_of_bursts_of_all_shapes(ask):
    signed = [one for size in (1, 2, 3, 5, 6, 7, 8, 13) for one in seal(events(size), KEY)]
    answer = ask(do="verify", events=[one.raw.hex() for one in signed])
    assert answer["verdicts"] == [True] * len(signed)
    assert answer["payloads"] == [
        [one.event.source, one.event.incarnation, one.event.sequence, one.event.topic] for one in signed
    ]


def test_pycose_refuses_a_changed_payload_signature_and_path(ask):
    alone, member = seal(events(1), KEY)[0].raw, seal(events(3), KEY)[1].raw
    wrong = []
    for raw in (alone, member):
        wrong += [raw.replace(b"hello", b"jello"), raw[:-1] + bytes([raw[-1] ^ 1])]
    sibling = open_envelope(member).path.siblings[0]
    wrong.append(member.replace(sibling, bytes([sibling[0] ^ 1]) + sibling[1:]))
    assert ask(do="verify", events=[raw.hex() for raw in wrong])["verdicts"] == [False] * 5


def test_an_event_that_pycose_signed_is_read_and_is_byte_for_byte_ours(ask):
    (event,) = events(1)
    raw = bytes.fromhex(ask(do="sign", seed=KEY.seed.hex(), payload=payload(event).hex())["event"])
    envelope = open_envelope(raw)
    assert decode(raw).event == event
    assert verify(envelope.algorithm, KEY.public, envelope.to_be_signed(), envelope.signature)
    assert raw == seal([event], KEY)[0].raw


def test_what_pycose_signed_in_another_form_is_refused_although_the_signature_is_good(ask):
    raw = bytes.fromhex(ask(do="sign", seed=KEY.seed.hex(), payload=b"\xa0".hex())["event"])
    with pytest.raises(UnusableEventError):
        decode(raw)
