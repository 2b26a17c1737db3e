"""Keys, signatures of Ed25519, and the files of identities and trust."""

import cbor2
import pytest

from dsmt.errors import InputError
from dsmt.event.payload import canonical
from dsmt.trust.identity import dump, load
from dsmt.trust.keys import SecretKey, link_key, verify
from dsmt.trust.store import TrustStore
from tests.trust.refusals import AGENT, NODE, STATUS, refusal

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
        with pytest.raises(InputError, match="the trust file is none that dsmt trust export has written") as refused:
            TrustStore.from_export(canonical(told))
        assert not any(word in refused.value.message for word in ("indices", "object", "Error"))
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
