"""A frame and its parts as a message, and back; and anything else is refused (rule D2)."""

from __future__ import annotations

import cbor2
import pytest

from dsmt.bus.wire import frames as f
from dsmt.bus.wire.framing import KINDS, MAX_HEAD, MAX_PARTS, pack, unpack
from dsmt.errors import UnusableEventError

ASKS = f.Keepalive(asks=True)


def test_a_message_is_a_map_and_behind_it_the_parts_as_they_are() -> None:
    message = pack(ASKS, b"one", b"")
    assert message[1:] == (b"one", b"")
    assert cbor2.loads(message[0]) == {"t": "keepalive", "asks": True}
    assert unpack(message) == (ASKS, (b"one", b""))


def test_bytes_in_a_frame_stay_bytes() -> None:
    told = f.Attach(statement=b"\x00\xff")
    assert unpack(pack(told)) == (told, ())


def test_each_kind_is_known_by_its_tag_on_the_wire() -> None:
    assert KINDS["keepalive"] is f.Keepalive
    assert KINDS["complete"] is f.CompleteFrame
    assert all(name == kind.__struct_config__.tag for name, kind in KINDS.items())


@pytest.mark.parametrize(
    "message",
    [
        (b"",),
        (b"\xff",),
        (cbor2.dumps([1]),),
        (cbor2.dumps({"asks": True}),),
        (cbor2.dumps({"t": "nothing"}),),
        (cbor2.dumps({"t": "keepalive", "asks": "yes"}),),
        (cbor2.dumps({"t": "keepalive", 1: 2}),),
        (*pack(ASKS), *[b""] * (MAX_PARTS + 1)),
        (cbor2.dumps({"t": "keepalive", "more": bytes(MAX_HEAD)}),),
    ],
    ids=range(9),
)
def test_what_is_no_frame_of_this_protocol_is_refused_as_such(message: tuple[bytes, ...]) -> None:
    with pytest.raises(UnusableEventError) as refused:
        unpack(message)
    assert refused.value.code == "bus.frame"
    assert refused.value.message
    assert len(refused.value.message) < 300


def test_a_message_may_be_as_large_as_it_may_be() -> None:
    head = cbor2.dumps({"t": "keepalive", "x": ""})
    padded = cbor2.dumps({"t": "keepalive", "x": "." * (MAX_HEAD - len(head) - 2)})
    assert len(padded) == MAX_HEAD
    parts = (b"",) * MAX_PARTS
    assert unpack((padded, *parts)) == (f.Keepalive(), parts)
