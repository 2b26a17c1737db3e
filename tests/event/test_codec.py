"""Bytes of events: what goes in comes out, and nothing that is not exactly ours is read."""

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsmt.errors import InputError, UnusableEventError
from dsmt.event import codec
from dsmt.event.burst import PATH_LABEL, Burst, Member, assemble, disassemble, parts_of, raw_of
from dsmt.event.codec import decode, decode_part, open_envelope, seal, sig_structure
from dsmt.event.envelope import MAX_EVENT_BYTES, NO_LEAF, ChainLink, Event, EventId
from dsmt.event.merkle import leaf_hash, root
from dsmt.event.payload import MAX_BODY_BYTES, MAX_DEPTH, _map_of, canonical, payload
from tests.event.events import KEY, PROTECTED, an_event, events, ids


@given(events)
def test_an_event_comes_out_of_its_bytes_as_it_went_in(event):
    (signed,) = seal([event], KEY)
    read = decode(signed.raw)
    assert (read.event, read.raw, read.leaf, read.key_id) == (event, signed.raw, signed.leaf, KEY.key_id)
    assert decode(seal([read.event], KEY)[0].raw).raw == signed.raw


@given(st.lists(events, min_size=2, max_size=4))
@settings(max_examples=20)
def test_each_event_of_a_burst_is_read_alone_and_has_the_hash_it_has_outside_it(burst):
    for event, signed in zip(burst, seal(burst, KEY), strict=True):
        read = decode(signed.raw)
        assert read.event == event
        assert read.leaf == seal([event], KEY)[0].leaf


@given(events)
def test_equal_events_have_equal_bytes_whatever_the_order_of_their_keys(event):
    turned = Event(**{**{f: getattr(event, f) for f in event.__struct_fields__}, "data": dict(reversed(event.data.items()))})
    assert payload(turned) == payload(event)


@given(events)
@settings(max_examples=30)
def test_the_bytes_are_the_core_deterministic_encoding_of_rfc_8949(event):
    body = payload(event)
    assert body == _core_deterministic(cbor2.loads(body))


def _core_deterministic(value):
    """Encode by RFC 8949 4.2.1, maps sorted bytewise by encoded key: an encoder apart from cbor2's canonical mode."""
    match value:
        case dict():
            pairs = sorted((_core_deterministic(k), _core_deterministic(v)) for k, v in value.items())
            return _head(5, len(pairs)) + b"".join(k + v for k, v in pairs)
        case list():
            return _head(4, len(value)) + b"".join(map(_core_deterministic, value))
        case str():
            return _head(3, len(value.encode())) + value.encode()
        case bytes():
            return _head(2, len(value)) + value
        case None | bool():
            return {None: b"\xf6", False: b"\xf4", True: b"\xf5"}[value]
        case int():
            return _head(0, value) if value >= 0 else _head(1, -1 - value)
        case float():
            return _shortest_float(value)
    raise AssertionError(value)


def _head(major, number):
    for limit, extra, width in ((24, number, 0), (2**8, 24, 1), (2**16, 25, 2), (2**32, 26, 4), (2**64, 27, 8)):
        if number < limit:
            return bytes([major << 5 | extra]) + (number.to_bytes(width, "big") if width else b"")
    raise AssertionError(number)


def _shortest_float(value):
    import struct  # noqa: PLC0415 - used by this oracle only

    for form, first in ((">e", b"\xf9"), (">f", b"\xfa"), (">d", b"\xfb")):
        try:
            packed = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, packed)[0] == value:
            return first + packed
    raise AssertionError(value)


BAD_EVENTS = [
    {"source": "Node/n1"},
    {"source": "node//n1"},
    {"source": "node/.."},
    {"topic": ""},
    {"topic": "a/" * 16 + "a"},
    {"topic": "a\n"},
    {"to": ("somebody else",)},
    {"type": "dsmt\x1b[2J"},
    {"subject": "x" * 513},
    {"subject": "two\nlines"},
    {"incarnation": 0},
    {"incarnation": True},
    {"sequence": -1},
    {"sequence": 2**63},
    {"time": 1.5},
    {"time": 0},
    {"chain": ChainLink(0, NO_LEAF)},
    {"chain": ChainLink(2, b"short")},
    {"chain": ChainLink(2, "x" * 32)},
    {"chain": ChainLink(1, b"\x01" * 32)},
    {"ttl": 0},
    {"ttl": 2**53 + 1},
    {"version": 0},
    {"version": 2**63},
    {"version": "3"},
    {"replaces": EventId("operator/x", 0, 1)},
    {"cause": (EventId("not a name", 1, 1),)},
    {"cause": (EventId("operator/x", 1, 2**70),)},
    {"declares": (0, 1)},
    {"data": {"x": float("nan")}},
    {"data": {"x": [float("inf")]}},
    {"data": {"x": 2**64}},
    {"data": {"x": {1: "y"}}},
    {"data": {"x": {1, 2}}},
    {"data": {"x": cbor2.CBORTag(4242, "y")}},
    {"data": {"x": cbor2.undefined}},
    {"data": [1]},
]


@pytest.mark.parametrize("changes", BAD_EVENTS, ids=str)
def test_an_event_outside_the_form_is_neither_signed_nor_read(changes):
    event = an_event(**changes)
    with pytest.raises(InputError) as caught:
        seal([event], KEY)
    assert caught.value.code == "event.form"
    assert repr(event.topic) in caught.value.message
    body = canonical(_map_of(event))
    assert refused(assemble(PROTECTED, body, KEY.sign(sig_structure(PROTECTED, body)))) == "event.form"


@pytest.mark.parametrize("deep", [[], {}])
def test_data_nested_too_deep_is_neither_signed_nor_read(deep):
    value = "x"
    for _ in range(MAX_DEPTH):
        value = [value] if isinstance(deep, list) else {"a": value}
    event = an_event(data={"x": value})
    with pytest.raises(InputError):
        seal([event], KEY)
    body = payload(event)
    with pytest.raises(UnusableEventError):
        decode(assemble(PROTECTED, body, bytes(64)))
    inside = value[0] if isinstance(deep, list) else value["a"]
    assert decode(seal([an_event(data={"x": inside})], KEY)[0].raw).event.data == {"x": inside}


def test_text_that_is_no_unicode_is_refused_before_it_is_signed():
    with pytest.raises(InputError, match="node/n1/heartbeat") as caught:
        seal([an_event(data={"x": "\ud800"})], KEY)
    assert caught.value.code == "event.form"


def test_an_event_at_the_limit_is_signed_in_a_burst_and_read_and_one_beyond_is_refused():
    room = MAX_BODY_BYTES - len(payload(an_event(data={"x": b""}))) - 2
    largest = an_event(data={"x": bytes(room)})
    for signed in [*seal([largest], KEY), *seal([largest] * 40, KEY)]:
        assert decode(signed.raw).event == largest
    with pytest.raises(InputError, match=f"limit is {MAX_BODY_BYTES}") as caught:
        seal([an_event(data={"x": bytes(room + 1)})], KEY)
    assert caught.value.code == "event.too_big"
    assert "depot" in caught.value.next
    assert refused(bytes(MAX_EVENT_BYTES + 1)) == "event.too_big"
    assert refused(bytes(MAX_EVENT_BYTES)) == "event.form"


def wire(**changes):
    told = cbor2.loads(payload(an_event()))
    told.update(changes)
    return {key: value for key, value in told.items() if value is not ...}


WRONG_FORMS = [
    wire(source=...),
    wire(data=...),
    wire(more=1),
    wire(id={1: 2, 3: 4}),
    wire(id=[1]),
    wire(id=b"\x01\x02"),
    wire(chain=[1]),
    wire(chain=None),
    wire(chain=[1, NO_LEAF, 3]),
    wire(cause=None),
    wire(cause=[["a", 1]]),
    wire(cause="abc"),
    wire(to="abc"),
    wire(to=[None]),
    wire(replaces={}),
    wire(replaces=["a", 1, 1, 1]),
    wire(declares={}),
    wire(declares=[1]),
    wire(declares=[1, 2, 3]),
    wire(declares=7),
    wire(data=None),
    wire(data=b"{}"),
    [],
    None,
    7,
    {},
    {1: 2},
]


@pytest.mark.parametrize("told", WRONG_FORMS, ids=str)
def test_a_signed_payload_of_another_form_is_refused_at_the_door(told):
    body = canonical(told)
    for raw in forms(body):
        assert refused(raw) in {"event.form", "event.too_big"}


def forms(body):
    """A payload as it may come: signed alone, and as a member of a burst, in a run and with its path."""
    other = payload(an_event(sequence=4))
    leaves = [leaf_hash(PROTECTED, one) for one in (body, other)]
    burst = Burst(PROTECTED, KEY.sign(sig_structure(PROTECTED, root(leaves))), b"".join(leaves))
    members = [Member(burst, at, one) for at, one in enumerate((body, other))]
    return [assemble(PROTECTED, body, KEY.sign(sig_structure(PROTECTED, body))), *parts_of(members), raw_of(members[0])]


TWO_READINGS = {
    "bytes behind": lambda body: body + b"\x00",
    "its own leaf behind": lambda body: body + b"\x58\x20" + leaf_hash(PROTECTED, body),
    "another event behind": lambda body: body + body,
    "a key twice": lambda body: bytes([body[0] + 1]) + body[1:] + cbor2.dumps("data") + cbor2.dumps({"lag_s": 0.5}),
    "a key twice in data": lambda body: body.replace(b"\x64data\xa1", b"\x64data\xa2\x65lag_s\xf9\x00\x00"),
    "a map of unknown length": lambda body: b"\xbf" + body[1:] + b"\xff",
    "a text of unknown length": lambda body: body.replace(b"\x67node/n1", b"\x7f\x67node/n1\xff"),
    "a tag": lambda body: b"\xd9\xd9\xf7" + body,
    "cut": lambda body: body[:-1],
}


@pytest.mark.parametrize("change", TWO_READINGS.values(), ids=TWO_READINGS)
def test_what_could_be_read_in_two_ways_is_refused(change):
    body = payload(an_event())
    other = change(body)
    assert other != body
    for raw in forms(other):
        assert refused(raw) == "event.form"


OTHER_ENCODINGS = {
    "keys out of order": lambda body: cbor2.dumps(dict(sorted(cbor2.loads(body).items(), reverse=True))),
    "a long float": lambda body: body.replace(b"\xf9\x38\x00", b"\xfb\x3f\xe0" + bytes(6)),
    "what is left out": lambda body: canonical({**cbor2.loads(body), "cause": [], "to": [], "ttl": None, "version": None}),
    "a long integer": lambda body: body.replace(b"\x62id\x82\x07", b"\x62id\x82\x18\x07"),
}


@pytest.mark.parametrize("change", OTHER_ENCODINGS.values(), ids=OTHER_ENCODINGS)
def test_another_encoding_of_the_same_event_is_read_as_that_event_and_kept_as_it_was_signed(change):
    other = change(payload(an_event()))
    alone, run, member = forms(other)
    for raw in (alone, member):
        read = decode(raw)
        assert read.event == an_event()
        assert read.raw == raw
    assert decode_part(run).events[0].raw == member


def refused(raw):
    """The code by which bytes are refused, with a sentence."""
    with pytest.raises(UnusableEventError) as caught:
        decode(raw)
    assert caught.value.message, "a refusal is a sentence"
    return caught.value.code


def _rewrapped(unprotected, *, member=1, size=3):
    signed = seal([an_event(sequence=3 + i) for i in range(size)], KEY)[member]
    outer = cbor2.loads(signed.raw).value
    path = outer[1][PATH_LABEL]
    return b"\xd2" + cbor2.dumps([outer[0], unprotected(path), outer[2], outer[3]])


OTHER_HEADERS = {
    "a second header": lambda path: {PATH_LABEL: path, 3: "text/plain"},
    "another header": lambda path: {33: path},
}
OTHER_PATHS = {
    "index as a boolean": lambda path: {PATH_LABEL: [True, *path[1:]]},
    "a float": lambda path: {PATH_LABEL: [float(path[0]), *path[1:]]},
    "more behind": lambda path: {PATH_LABEL: [*path, 1]},
    "index beyond": lambda path: {PATH_LABEL: [path[1], *path[1:]]},
    "negative index": lambda path: {PATH_LABEL: [-1, *path[1:]]},
    "too large a size": lambda path: {PATH_LABEL: [1, 2**20 + 1, path[2]]},
    "siblings as bytes": lambda path: {PATH_LABEL: [*path[:2], b"".join(path[2])]},
    "short sibling": lambda path: {PATH_LABEL: [*path[:2], [path[2][0][:31], *path[2][1:]]]},
    "no path": lambda path: {PATH_LABEL: None},
}


@pytest.mark.parametrize(
    ("unprotected", "code"),
    [(other, "event.form") for other in OTHER_HEADERS.values()] + [(other, "event.path") for other in OTHER_PATHS.values()],
    ids=[*OTHER_HEADERS, *OTHER_PATHS],
)
def test_an_unprotected_header_holds_nothing_but_a_path(unprotected, code):
    assert decode(_rewrapped(lambda path: {PATH_LABEL: path}))
    assert refused(_rewrapped(unprotected)) == code


def test_an_envelope_that_is_taken_apart_has_the_parts_that_were_written():
    for signed in (seal([an_event()], KEY)[0], *seal([an_event(sequence=3), an_event(sequence=4)], KEY)):
        envelope = open_envelope(signed.raw)
        protected, unprotected, body, signature = cbor2.loads(signed.raw).value
        assert (envelope.protected, envelope.payload, envelope.signature) == (protected, body, signature)
        assert (envelope.path is None) is (not unprotected)


def test_what_is_refused_for_its_path_says_so():
    with pytest.raises(UnusableEventError, match="not an inclusion path"):
        decode(_rewrapped(OTHER_PATHS["no path"]))


def test_a_burst_has_at_most_two_to_the_twentieth_members():
    def of(size):
        return _rewrapped(lambda path: {PATH_LABEL: [0, size, [bytes(32)] * (size - 1).bit_length()]})

    assert open_envelope(of(2**20)).path.size == 2**20
    assert refused(of(2**20 + 1)) == "event.path"


@pytest.mark.parametrize(
    "header",
    [
        {1: -8},
        {4: KEY.key_id},
        {1: -8, 4: KEY.key_id, 3: "x"},
        {True: -8, 4: KEY.key_id},
        {1: "EdDSA", 4: KEY.key_id},
        {1: -8, 4: "key"},
        [1, 4],
        None,
    ],
    ids=str,
)
def test_a_protected_header_holds_algorithm_and_key_id_and_nothing_else(header):
    body = payload(an_event())
    protected = cbor2.dumps(header)
    assert refused(assemble(protected, body, KEY.sign(sig_structure(protected, body)))) == "event.form"


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_nothing_else_happens(raw):
    for candidate in (raw, b"\xd2" + raw, b"\xd2\x84" + raw):
        with pytest.raises(UnusableEventError):
            decode(candidate)


@given(st.data())
def test_a_signed_event_with_random_changes_is_read_or_refused_and_nothing_else_happens(data):
    raw = bytearray(seal([an_event(), an_event(sequence=4)], KEY)[1].raw)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        decode(bytes(raw))
    except UnusableEventError as error:
        refused = error.code
    else:
        refused = "event."
    assert refused.startswith("event.")


@given(ids)
def test_an_event_id_is_read_from_its_text(name):
    assert EventId.parse(str(name)) == name


@pytest.mark.parametrize(
    "written",
    ["", "node/n1", "node/n1#1", "node/n1#1-", "node/n1#1-x", "#1-2", "a b#1-2", "a#1-2\n", "a#01-2", "a#0-1",
     "a#\u0661-\u0662", "a#1-" + "9" * 5000, "/a#1-2", "a//b#1-2", "a/#1-2"],
)  # fmt: skip
def test_what_is_no_event_id_is_refused_with_an_example(written):
    with pytest.raises(InputError, match="controller/c1#"):
        EventId.parse(written)


def test_an_envelope_is_taken_apart_into_what_it_was_put_together_of(monkeypatch):
    (alone,), pair = seal([an_event()], KEY), seal([an_event(), an_event(sequence=2)], KEY)
    for signed in (alone, *pair):
        found = open_envelope(signed.raw)
        assert (found.protected, found.payload, found.leaf()) == (PROTECTED, payload(signed.event), signed.leaf)
        assert (found.algorithm, found.key_id) == (KEY.algorithm, KEY.key_id)
        assert (found.path is None) == (signed is alone)
    usual = disassemble(alone.raw)
    assert usual is not None, "by where its parts stand, for a fraction of what a decoder takes"
    assert usual[:2] == (PROTECTED, payload(alone.event))
    monkeypatch.setattr(codec, "_array_of_four", None)  # that decoder
    assert open_envelope(alone.raw).leaf() == alone.leaf
