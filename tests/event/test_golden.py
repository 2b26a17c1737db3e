"""The wire format, byte for byte: a change here makes every stored history unreadable."""

from pathlib import Path

from dsmt.event.codec import decode, open_envelope, seal
from dsmt.event.envelope import ChainLink, Event, EventId
from dsmt.event.hlc import hlc
from dsmt.trust.keys import SecretKey, verify

GOLDEN = Path(__file__).with_name("golden")
KEY = SecretKey(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
"""The secret key of RFC 8032 7.1, TEST 1."""

EVENT = Event(
    source="controller/c1",
    incarnation=1_700_000_000_000,
    sequence=42,
    chain=ChainLink(7, bytes(range(32))),
    type="dsmt.slot",
    topic="service/web/slot/app/0",
    subject="web/app/0",
    time=hlc(1_700_000_000_123, 5),
    data={
        "node": "n1",
        "none": None,
        "yes": True,
        "int": -1000,
        "half": 0.5,
        "third": 1 / 3,
        "bytes": b"\x00\xff",
        "text": "größer",
        "list": [1, [2], {"deep": {}}],
    },
    cause=(EventId("operator/alice", 3, 4), EventId("agent/n1/web/app/0", 5, 6)),
    ttl=86_400_000,
    to=("node/n1", "node/n2"),
    epoch=8,
    version=9,
    replaces=EventId("controller/c2", 1_600_000_000_000, 1),
    declares=(5, 6),
)
"""Every field is set."""

CHANGED = "the bytes of an event have changed: stored histories and other implementations cannot read this"


def golden(name):
    return [bytes.fromhex(line) for line in (GOLDEN / name).read_text().split()]


def test_every_field_of_an_event_is_in_the_golden_one():
    assert all(getattr(EVENT, name) for name in EVENT.__struct_fields__)


def test_an_event_with_all_fields_has_the_bytes_it_always_had():
    assert [seal([EVENT], KEY)[0].raw] == golden("event.hex"), CHANGED


def test_a_burst_of_three_has_the_bytes_it_always_had():
    assert [one.raw for one in seal([EVENT, EVENT, EVENT], KEY)] == golden("burst.hex"), CHANGED


def test_the_golden_bytes_are_read_and_their_signatures_are_good():
    for raw in [*golden("event.hex"), *golden("burst.hex")]:
        envelope = open_envelope(raw)
        assert decode(raw).event == EVENT
        assert verify(envelope.algorithm, KEY.public, envelope.to_be_signed(), envelope.signature)
