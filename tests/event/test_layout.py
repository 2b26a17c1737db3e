"""Layouts: what is read or written by the payload before is what it would be in full, and nothing more is taken."""

from contextlib import suppress

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dsmt.errors import InputError, UnusableEventError
from dsmt.event import layout
from dsmt.event.envelope import NO_LEAF, ChainLink, Event, EventId
from dsmt.event.layout import Encoder, Layout, events_of
from dsmt.event.payload import canonical, encode, event_of, payload
from tests.event.events import an_event, events, plain, positive, text

LEAF = bytes(range(32))
links = st.builds(ChainLink, positive, st.binary(min_size=32, max_size=32))
alike = st.builds(
    lambda first, changes: [first, *[replace(first, **dict(change)) for change in changes]],
    events,
    st.lists(
        st.fixed_dictionaries(
            {
                "sequence": positive,
                "chain": links,
                "time": positive,
                "data": st.dictionaries(text, plain, max_size=4)
                | st.fixed_dictionaries({"n": plain, "é": plain, "load": plain, "": plain}, optional={"more": plain}),
            },
            optional={"topic": st.just("another/topic"), "ttl": st.just(7), "version": positive},
        ),
        max_size=4,
    ),
)


def in_full(body, leaf=LEAF):
    with suppress(UnusableEventError):
        return event_of(body, leaf)
    return None


def written_or_refused(write, event):
    with suppress(InputError):
        return write(event)
    return None


def by_the_one_before(body, like, leaf=LEAF):
    return Layout(like).event_of(body, leaf)


def a_user_event(sequence=70_000, **changes):
    fields = {
        "sequence": sequence,
        "chain": ChainLink(sequence - 9, bytes(32)),
        "type": "dsmt.user",
        "topic": "user/p4",
        "subject": "user/p4",
        "time": 1_700_000_000_000 << 16,
        "data": {"n": sequence, "load": [0.25, 0.5], "text": "x" * 20},
    }
    return an_event(**{**fields, **changes})


@given(alike)
def test_a_run_is_read_as_each_of_its_events_is(group):
    bodies = [payload(one) for one in group]
    each = [in_full(body) for body in bodies]
    if all(each):
        assert events_of(bodies, [LEAF] * len(bodies)) == each
    else:
        with pytest.raises(UnusableEventError):
            events_of(bodies, [LEAF] * len(bodies))


@given(alike)
def test_a_run_is_written_as_each_of_its_events_is(group):
    encoder = Encoder()
    for one in group:
        assert written_or_refused(encoder.encode, one) == written_or_refused(encode, one)


OTHERWISE = {
    "source": "node/n2",
    "incarnation": 8,
    "type": "dsmt.other",
    "topic": "user/p5",
    "subject": "user/p5",
    "cause": (EventId("node/n1", 7, 1),),
    "ttl": 7,
    "to": ("node/n2",),
    "epoch": 2,
    "version": 2,
    "replaces": EventId("node/n1", 7, 2),
    "declares": (3, 4),
}


def test_what_is_like_the_event_before_it_is_not_written_in_full(monkeypatch):
    encoder, in_full = Encoder(), []
    monkeypatch.setattr(layout, "encode", lambda event: in_full.append(event.sequence) or encode(event))
    for number in (1, 2, 3, 4):
        event = a_user_event(number, chain=ChainLink(number, bytes(32)))
        assert encoder.encode(event) == encode(event)
    assert in_full == [1]


def test_what_is_like_the_event_before_it_is_not_read_in_full(monkeypatch):
    told, in_full = [a_user_event(70_000 + number) for number in range(4)], []
    monkeypatch.setattr(layout, "event_of", lambda body, leaf: in_full.append(body) or event_of(body, leaf))
    assert events_of([payload(one) for one in told], [LEAF] * 4) == told
    assert in_full == [payload(told[0])]


@pytest.mark.parametrize("number", [end + more for end in (23, 2**8 - 1, 2**16 - 1, 2**32 - 1) for more in (0, 1)])
def test_a_number_is_written_in_as_few_bytes_as_it_needs(number):
    body = payload(a_user_event(ttl=number))
    assert (cbor2.loads(body)["ttl"], canonical(cbor2.loads(body))) == (number, body)


@pytest.mark.parametrize("data", [{"n": float("nan")}, {"n": 2**63}, {"n": {1: 2}}], ids=repr)
def test_data_that_is_refused_in_full_is_not_written_behind_what_is_like_it(data):
    encoder = Encoder()
    encoder.encode(a_user_event(70_000))
    with pytest.raises(InputError):
        encoder.encode(a_user_event(70_001, data=data))


@pytest.mark.parametrize(("field", "value"), OTHERWISE.items(), ids=list(OTHERWISE))
def test_what_differs_in_anything_else_is_written_and_read_as_in_full(field, value):
    like = a_user_event(epoch=1, version=1)
    other = replace(like, **{field: value})
    encoder = Encoder()
    for one in (like, like, other, like):
        assert encoder.encode(one) == encode(one)
    assert by_the_one_before(encode(other), like) is None
    assert {*OTHERWISE, "sequence", "chain", "time", "data"} == set(Event.__struct_fields__)


@pytest.mark.parametrize(("field", "value"), OTHERWISE.items(), ids=list(OTHERWISE))
def test_what_is_alike_in_all_else_is_read_by_the_one_before_with_all_else(field, value):
    about = {"version": 3, "epoch": 1, field: value}
    like, next_ = a_user_event(70_000, **about), a_user_event(70_001, **about)
    assert by_the_one_before(payload(next_), like) == next_
    assert in_full(payload(next_)) == next_


@pytest.mark.parametrize("count", [0, 1, 23, 24, 300])
def test_data_of_any_number_of_keys_is_written_as_in_full(count):
    encoder = Encoder()
    for n in range(3):
        event = a_user_event(70_000 + n, data={f"k{count - at}": at * n for at in range(count)})
        assert encoder.encode(event) == encode(event)


def test_what_one_source_says_on_one_topic_is_read_by_the_one_before():
    first, second = a_user_event(70_000), a_user_event(70_001)
    assert by_the_one_before(payload(second), first) == second


@settings(max_examples=300)
@given(st.data())
def test_a_payload_of_which_one_byte_is_another_is_read_as_in_full_or_not_at_all(data):
    body = bytearray(payload(a_user_event(70_001)))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    read = by_the_one_before(bytes(body), a_user_event())
    assert read is None or read == in_full(bytes(body))


@settings(max_examples=300)
@given(st.binary(max_size=12), st.integers(0, 40), st.integers(0, 40))
def test_a_payload_into_which_something_was_put_is_read_as_in_full_or_not_at_all(put, at, gone):
    body = payload(a_user_event(70_001))
    place = body.index(b"\x64data") + at
    changed = body[:place] + put + body[place + gone :]
    read = by_the_one_before(changed, a_user_event())
    assert read is None or read == in_full(changed)


HIDDEN = canonical({"a": 1})


@pytest.mark.parametrize(
    "data",
    [
        HIDDEN + HIDDEN,
        HIDDEN + b"\x58\x20" + LEAF,
        HIDDEN + b"\x58\x20" + LEAF + HIDDEN,
        b"\xa2\x61a\x01\x61a\x02",
        b"\xbf\x61a\x01\xff",
        b"\xa1\x01\x02",
        b"\xa1\x41a\x02",
        b"\xc2\x41\x01",
        b"\xa1\x61a\xf9\x7e\x00",
        b"\xa1\x61a\x3b" + b"\xff" * 8,
        b"\xa1\x61a\xf7",
        b"\x81\x01",
        b"\x61a",
        b"",
        b"\xa1\x61a" + b"\x81" * 70 + b"\x01",
    ],
    ids=lambda data: data.hex()[:24],
)
def test_data_that_is_refused_in_full_is_not_taken(data):
    body = payload(a_user_event(70_001, data={}))
    at = body.index(b"\x64data") + 5
    changed = body[:at] + data + body[at + 1 :]
    other = LEAF[::-1]
    assert in_full(changed, other) is None
    assert by_the_one_before(changed, a_user_event(), other) is None
    with pytest.raises(UnusableEventError):
        events_of([payload(a_user_event()), changed], [other, other])


@pytest.mark.parametrize(
    "changes",
    [
        {"sequence": 2**63, "chain": ChainLink(2**40, LEAF)},
        {"chain": ChainLink(2**63, LEAF)},
        {"time": 2**63},
        {"chain": ChainLink(1, LEAF)},
    ],
)
def test_numbers_that_are_refused_in_full_are_not_taken(changes):
    like = a_user_event(2**62, chain=ChainLink(2**62, LEAF))
    body = payload(replace(like, **changes))
    assert in_full(body) is None
    assert by_the_one_before(body, like) is None


def test_a_first_event_of_a_chain_is_read_in_full():
    first = a_user_event(70_001, chain=ChainLink(1, NO_LEAF))
    assert events_of([payload(a_user_event()), payload(first)], [LEAF, LEAF])[1] == first
