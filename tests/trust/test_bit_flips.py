"""Any one flipped bit of a signed event is refused, single or member of a burst, before and after its like was seen."""

import pytest

from dsmt.errors import UnusableEventError
from dsmt.event.codec import seal
from dsmt.event.envelope import EventId

SIZES = [1, 2, 3, 5, 6]


def burst(realm, size):
    source = "controller/c1"
    full = {
        "version": 3, "replaces": EventId("controller/c2", 1, 2), "cause": (EventId("node/n1", 1, 2),), "ttl": 5000,
        "to": ("node/n1",), "declares": (1, 2), "data": {"a": [1, 0.5, None, b"x"]},
    }  # fmt: skip
    events = [
        realm.event(f"service/web/slot/app/{i}", source=source, sequence=1 + i, **(full if i % 2 == 0 else {}))
        for i in range(size)
    ]
    return [signed.raw for signed in seal(events, realm.identities[source].key)]


def flipped(raw):
    for place in range(len(raw)):
        for bit in range(8):
            yield raw[:place] + bytes([raw[place] ^ 1 << bit]) + raw[place + 1 :]


def accepted(store, raws):
    found = []
    for raw in raws:
        try:
            store.open(raw)
        except UnusableEventError:
            continue
        found.append(raw)
    return found


@pytest.mark.parametrize("size", SIZES)
def test_no_flipped_bit_is_accepted(realm, size):
    store = realm.store()
    for raw in burst(realm, size):
        assert accepted(store, flipped(raw)) == [], "before the event itself was seen"
        assert accepted(store, [raw]) == [raw]
        assert accepted(store, flipped(raw)) == [], "after it was seen, with its root remembered"


def test_no_byte_may_be_missing_added_or_be_another_s(realm):
    store = realm.store()
    raws = burst(realm, 3)
    assert accepted(store, raws) == raws
    for raw in raws:
        assert accepted(store, [raw[:i] + raw[i + 1 :] for i in range(len(raw))]) == []
        assert accepted(store, [raw[:i] for i in range(len(raw))]) == []
        assert accepted(store, [raw + b"\x00", b"\xd2" + raw, b"\xd8\x12" + raw[1:], raw[1:]]) == []


def test_no_flipped_bit_of_a_certificate_is_accepted(realm):
    identity = realm.identities["agent/n1/web/app/0"]
    for i, signed in enumerate(identity.chain):
        store = realm.store(*([realm.identities["node/n1"]] if i == 0 else []))
        if i == 1:
            store = realm.store(realm.identities["node/n2"])
        for raw in flipped(signed.raw):
            with pytest.raises(UnusableEventError):
                store.add(raw)
        assert store.add(signed.raw) == signed.certificate
