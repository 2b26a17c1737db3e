"""Renewing: which certificate a node goes on with (rule J1)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.agents.node.delegation import delegated
from dsmt.agents.node.renewing import _back, _taken
from dsmt.event.kinds.joining import Renewed
from dsmt.system.entropy import SystemEntropy
from dsmt.trust.identity import load, root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import Realm
from tests.controllers.signing import signed

ROOT, KEY = SecretKey(b"r" * 32), SecretKey(b"n" * 32)
NOW_S = 1_800_000_000


@pytest.mark.parametrize(("later_s", "goes_on"), [(-1, False), (0, False), (1, True)])
def test_a_node_goes_on_with_a_certificate_that_ends_later_than_its_own_and_with_no_other(
    later_s: int, goes_on: bool
) -> None:
    own, other = (root_issued("node/n1", ROOT, key=KEY, now_s=NOW_S + s, serial=bytes([7 + s] * 16)) for s in (0, later_s))
    bus: Any = SimpleNamespace(now_ms=lambda: own.certificate.not_after * 1000 - 1000, proof=lambda _: [])
    answer = signed("issuer/root", "node/n1/certificate", Renewed(certificate=other.chain[0].raw))
    found = _taken(bus, own, Realm(name="test", roots=(ROOT.public,)), answer)
    assert (None if found is None else found.certificate) == (other.certificate if goes_on else None)


def test_a_node_takes_no_certificate_before_half_of_its_own_has_passed() -> None:
    own, other = (root_issued("node/n1", ROOT, key=KEY, now_s=NOW_S + s, serial=bytes([7 + s] * 16)) for s in (0, 9))
    answer = signed("issuer/root", "node/n1/certificate", Renewed(certificate=other.chain[0].raw))
    for now_s, takes in ((own.certificate.renew_s - 1, False), (own.certificate.not_after - 1, True)):
        bus: Any = SimpleNamespace(now_ms=lambda now_s=now_s: now_s * 1000, proof=lambda _: [])
        assert (_taken(bus, own, Realm(name="test", roots=(ROOT.public,)), answer) is not None) is takes


@pytest.mark.parametrize(("name", "key"), [("node/n2", KEY), ("node/n1", SecretKey(b"o" * 32)), ("node/n1", KEY)])
def test_a_node_goes_on_with_no_certificate_of_another_name_or_key(name: str, key: SecretKey) -> None:
    own = root_issued("node/n1", ROOT, key=KEY, now_s=NOW_S, serial=bytes([7] * 16))
    other = root_issued(name, ROOT, key=key, now_s=NOW_S + 1, serial=bytes([8] * 16))
    bus: Any = SimpleNamespace(now_ms=lambda: own.certificate.not_after * 1000 - 1000, proof=lambda _: [])
    answer = signed("issuer/root", "node/n1/certificate", Renewed(certificate=other.chain[0].raw))
    found = _taken(bus, own, Realm(name="test", roots=(ROOT.public,)), answer)
    assert (found is not None) is ((name, key) == ("node/n1", KEY))


@pytest.mark.parametrize(
    ("revoked", "goes_on"), [(["issuer/east"], True), (["node/n1"], False), (["issuer/east", "node/n1"], False), ([], False)]
)
def test_a_node_whose_issuer_was_revoked_goes_on_with_another_certificate_of_its_key(
    revoked: list[str], goes_on: bool
) -> None:
    def shown(subject: str, not_after: int) -> Any:
        return SimpleNamespace(certificate=SimpleNamespace(key_id=subject.encode(), subject=subject, not_after=not_after))

    key: Any = SimpleNamespace(key_id=b"node/n1")
    own: Any = SimpleNamespace(key=key, name="node/n1", chain=(shown("node/n1", 500), shown("issuer/east", 900)))
    other = shown("node/n1", 100)
    trust: Any = SimpleNamespace(is_revoked=lambda _, name: name in revoked, chain=lambda *_: [other])
    found = _back(own, trust, 99)
    assert (None if found is None else found.chain) == ((other,) if goes_on else None)
    assert _back(own, trust, 100) is None, "it has ended"


def test_an_identity_whose_key_was_damaged_is_made_anew() -> None:
    """A monitor, or an agent, could not begin with it, for ever."""
    parent, entropy = root_issued("node/n1", ROOT, key=KEY, now_s=NOW_S, serial=bytes(16)), SystemEntropy()
    about: dict[str, Any] = {"now_s": NOW_S, "make_key": SecretKey, "entropy": entropy}
    kept = delegated(None, "monitor/n1", parent, **about)
    assert delegated(kept, "monitor/n1", parent, **about) == kept
    seed = load(kept, where="test").key.seed
    made = delegated(kept.replace(seed, bytes([seed[0] ^ 1]) + seed[1:]), "monitor/n1", parent, **about)
    assert load(made, where="test").name == "monitor/n1"
