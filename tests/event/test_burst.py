"""Bursts: what travels together is proven together, and each event of it is what it would be alone."""

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dsmt.errors import UnusableEventError
from dsmt.event import codec
from dsmt.event.burst import RUN_BYTES, RUN_EVENTS, content_of, disassemble, parts_of, raws_of
from dsmt.event.codec import decode, decode_part, events_in, prepare, protected_header, seal, sign_burst, sign_bursts
from dsmt.event.envelope import NO_LEAF, ChainLink, Event
from dsmt.event.merkle import root, tree
from dsmt.trust.keys import SecretKey, verify

KEY = SecretKey(bytes(range(32)))
PROTECTED = protected_header(KEY.algorithm, KEY.key_id)


def events(count, size=20):
    return [
        Event(
            source="node/n1",
            incarnation=7,
            sequence=n,
            chain=ChainLink(1, NO_LEAF),
            type="dsmt.user",
            topic=f"user/t{n}",
            subject="node/n1",
            time=n << 16,
            data={"n": n, "x": "x" * size},
        )
        for n in range(1, count + 1)
    ]


def sealed(signed):
    return [one.sealed for one in signed]


def read(parts):
    return [one for part in parts for one in decode_part(part).events]


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=70))
def test_the_root_is_the_one_that_paths_lead_to(leaves):
    assert root(leaves) == tree(leaves)[0]


def test_a_whole_burst_is_one_run_of_its_payloads_one_header_and_one_signature():
    signed = seal(events(64), KEY)
    (run,) = parts_of(sealed(signed))
    part = decode_part(run)
    assert part.events == tuple(signed)
    assert [one.event for one in part.events] == events(64)
    assert verify(part.algorithm, KEY.public, part.message, part.signature)
    assert len(run) < sum(len(one.sealed.body) + 4 for one in signed) + 120
    assert events_in(run) == 64


@given(st.integers(2, 40).flatmap(lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1), min_size=1))))
def test_any_part_of_a_burst_comes_as_it_was_signed_in_as_few_bytes_as_may_be(told):
    size, chosen = told
    signed = seal(events(size), KEY)
    some = [signed[at] for at in sorted(chosen)]
    parts = parts_of(sealed(some))
    assert read(parts) == some
    assert sum(map(events_in, parts)) == len(some)
    for part in parts:
        found = decode_part(part)
        assert verify(found.algorithm, KEY.public, found.message, found.signature)
    assert sum(map(len, parts)) <= sum(len(one.raw) for one in some)


def test_where_the_leaves_of_the_others_are_as_many_as_the_hashes_of_paths_a_run_saves_a_signature():
    some = seal(events(8), KEY)[:2]
    (run,) = parts_of(sealed(some))
    assert len(run) < sum(len(one.raw) for one in some)


def test_what_is_in_another_order_or_of_several_bursts_keeps_its_order():
    a, b, alone = seal(events(3), KEY), seal(events(5), KEY), seal(events(1), KEY)
    mixed = [a[2], a[0], a[1], alone[0], *b, a[1]]
    assert read(parts_of(sealed(mixed))) == mixed


def test_what_is_held_is_given_alone_and_read_as_it_was_signed():
    a, alone, b = seal(events(3), KEY), seal(events(1), KEY), seal(events(2), KEY)
    mixed = [*a[:2], *alone, *b, a[2]]
    assert raws_of(sealed(mixed)) == [one.raw for one in mixed]
    assert list(map(codec.read, sealed(mixed))) == mixed
    assert [one.leaf for one in map(codec.read, sealed(mixed))] == [one.leaf for one in mixed]
    assert content_of(a[1].sealed) == a[1].sealed.body
    assert content_of(alone[0].sealed) == alone[0].sealed


def test_a_member_alone_is_equal_to_itself_in_its_run():
    signed = seal(events(5), KEY)
    assert [decode(one.raw) for one in signed] == signed
    assert len({*signed, *(decode(one.raw) for one in signed)}) == 5


@pytest.mark.parametrize("size", [1, 100, 300, 10_000])
def test_what_is_alone_is_taken_apart_by_where_its_parts_stand_however_long_it_is(size):
    (one,) = seal(events(1, size=size), KEY)
    assert disassemble(one.raw) is not None


def test_one_payload_under_two_signatures_is_two_events():
    (one,) = seal(events(1), KEY)
    other = replace(one, sealed=one.raw[:-1] + bytes([one.raw[-1] ^ 1]))
    assert (one == other, one == replace(one), one == one.raw) == (False, True, False)


def test_one_signature_stands_over_no_more_than_a_run_may_hold():
    prepared = [prepare(one, PROTECTED) for one in events(3 * RUN_EVENTS + 1)]
    signed = sign_bursts(prepared, KEY)
    assert [one.event.sequence for one in signed] == list(range(1, 3 * RUN_EVENTS + 2))
    assert [events_in(part) for part in parts_of(sealed(signed))] == [RUN_EVENTS] * 3 + [1]
    large = sign_bursts([prepare(one, PROTECTED) for one in events(10, size=6_000)], KEY)
    assert [events_in(part) for part in parts_of(sealed(large))] == [2] * 5
    giants = sign_bursts([prepare(one, PROTECTED) for one in events(3, size=20_000)], KEY)
    assert [len(parts_of([one.sealed])) for one in giants] == [1, 1, 1]
    assert read(parts_of(sealed(giants))) == giants


def changed(run, change):
    protected, signature, members = cbor2.loads(run)
    return cbor2.dumps(change(protected, signature, members))


WRONG_FORMS = {
    "one member": lambda p, s, m: [p, s, m[:1]],
    "none": lambda p, s, _: [p, s, []],
    "too many": lambda p, s, m: [p, s, m * RUN_EVENTS],
    "a text among them": lambda p, s, m: [p, s, [*m, "x"]],
    "two parts": lambda p, _, m: [p, m, m],
}
WRONG_RUNS = WRONG_FORMS | {
    "more behind": lambda p, s, m: [p, s, m, 1],
    "another header": lambda _, s, m: [cbor2.dumps({1: -8}), s, m],
    "a payload that is none": lambda p, s, m: [p, s, [*m, b"\xa0"]],
    "a giant payload": lambda p, s, m: [p, s, [*m, bytes(70_000)]],
}


@pytest.mark.parametrize("change", WRONG_RUNS.values(), ids=WRONG_RUNS)
def test_a_run_of_another_form_is_refused_whole(change):
    (run,) = parts_of(sealed(seal(events(3), KEY)))
    with pytest.raises(UnusableEventError) as refused:
        decode_part(changed(run, change))
    if change in WRONG_FORMS.values():
        assert (refused.value.code, refused.value.message) == ("event.form", "not a run of header, signature and members")


FORGED_RUNS = {
    "a member cut out": lambda p, s, m: [p, s, m[1:]],
    "a member twice": lambda p, s, m: [p, s, [*m, m[0]]],
    "two in the other's place": lambda p, s, m: [p, s, [m[1], m[0], *m[2:]]],
    "another's leaf": lambda p, s, m: [p, s, [bytes(32), *m[1:]]],
    "another content": lambda p, s, m: [p, s, [m[0].replace(b"xxx", b"xyx"), *m[1:]]],
    "another signature": lambda p, s, m: [p, bytes([s[0] ^ 1]) + s[1:], m],
}


@pytest.mark.parametrize("change", FORGED_RUNS.values(), ids=FORGED_RUNS)
def test_a_run_that_was_tampered_with_bears_no_signature(change):
    (run,) = parts_of(sealed(seal(events(4), KEY)))
    part = decode_part(changed(run, change))
    assert not verify(part.algorithm, KEY.public, part.message, part.signature)


def test_the_signature_of_one_event_is_none_of_a_burst_of_one_leaf_and_the_other_way_round():
    signed = seal(events(2), KEY)
    run = decode_part(parts_of(sealed(signed))[0])
    alone = decode_part(seal(events(1), KEY)[0].raw)
    assert not verify(run.algorithm, KEY.public, alone.message, run.signature)
    assert not verify(run.algorithm, KEY.public, run.message, alone.signature)


def test_each_single_bit_of_a_run_counts():
    signed = seal(events(5, size=3), KEY)
    (run,) = parts_of(sealed([*signed[:2], *signed[3:]]))
    assert events_in(run) == 4
    for at in range(8 * len(run)):
        flipped = bytearray(run)
        flipped[at // 8] ^= 1 << at % 8
        try:
            part = decode_part(bytes(flipped))
        except UnusableEventError:
            continue
        assert not verify(part.algorithm, KEY.public, part.message, part.signature) or part.key_id != KEY.key_id, at


@pytest.mark.parametrize("kept", [[0], [3], [0, 63], [0, 1, 2]])
def test_a_run_of_more_leaves_than_it_is_worth_is_refused(kept):
    """Leaves are kept with a burst: many for few events would fill a store by what nobody is charged for."""
    signed = seal(events(64), KEY)
    leaves = [one.leaf for one in signed]
    members = [signed[at].sealed.body if at in kept else leaves[at] for at in range(64)]
    burst = signed[0].sealed.burst
    with pytest.raises(UnusableEventError, match="more leaves than"):
        decode_part(cbor2.dumps([burst.protected, burst.signature, members]))
    assert read(parts_of(sealed([signed[at] for at in kept]))) == [signed[at] for at in kept]


def test_a_run_of_as_many_bytes_as_may_be_is_read():
    body = len(prepare(events(1, size=8_000)[0], PROTECTED).body)
    signed = sign_burst([prepare(one, PROTECTED) for one in events(2, size=8_000 + RUN_BYTES // 2 - body)], KEY)
    assert sum(len(one.sealed.body) for one in signed) == RUN_BYTES
    assert read(parts_of(sealed(signed))) == signed


def test_a_run_of_too_many_bytes_is_refused():
    signed = sign_burst([prepare(one, PROTECTED) for one in events(2, size=20_000)], KEY)
    with pytest.raises(UnusableEventError) as told:
        read(parts_of(sealed(signed)))
    assert told.value.code == "event.too_big"
