"""Who is let in: what a hello shows, what an attach statement signs, and what each refusal says (rules A11, F1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from dsmt.bus.wire.frames import PROTOCOL, Hello
from dsmt.bus.wire.handshake import (
    MAX_CHAIN,
    check_attach,
    check_hello,
    check_valid,
    is_valid,
    out_of_time,
    revoked,
    statement,
)
from dsmt.errors import RefusedError
from dsmt.event.burst import assemble
from dsmt.event.codec import protected_header, sig_structure
from dsmt.event.phrases import another_certificate, another_name
from dsmt.trust.certificate import Certificate
from dsmt.trust.identity import Identity, delegate, root_issued
from dsmt.trust.keys import SecretKey, link_key
from dsmt.trust.store import Realm, TrustStore

NOW_S = 1_700_000_000
DAY = 86_400
ROOT = SecretKey(bytes(range(32)))


def named(number: int, name: str) -> Identity:
    key, serial = SecretKey(bytes([number]) * 32), bytes([number]) * 16
    return root_issued(name, ROOT, key=key, now_s=NOW_S, serial=serial, lifetime_s=10 * DAY)


NODE, ALICE = named(1, "node/n1"), named(2, "operator/alice")
AGENT = delegate("agent/n1/web/app/0", NODE, key=SecretKey(bytes([3]) * 32), now_s=NOW_S, serial=bytes(16))


def store() -> TrustStore:
    return TrustStore(Realm(name="test", roots=(ROOT.public,)))


def hello(name: str = NODE.name, **about: Any) -> Hello:
    usual: dict[str, Any] = {
        "protocol": PROTOCOL, "realm": "test", "name": name, "incarnation": 0, "firm": False, "attachment": 1, "pid": 1,
        "version": "", "address": "",
    }  # fmt: skip
    return Hello(**{**usual, **about})


def raws(*identities: Identity) -> tuple[bytes, ...]:
    return tuple(one.raw for identity in identities for one in identity.chain)


def link_of(identity: Identity) -> bytes:
    return link_key(identity.key.public)


@pytest.mark.parametrize("who", [NODE, AGENT, ALICE], ids=lambda one: one.name)
def test_who_shows_its_own_certificate_over_a_link_of_its_key_is_let_in(who: Identity) -> None:
    found = check_hello(store(), hello(who.name), raws(who), link_of(who), NOW_S * 1000)
    assert found == who.certificate


@pytest.mark.parametrize(
    ("frame", "parts", "key", "code", "says"),
    [
        (hello(protocol=PROTOCOL + 1), raws(NODE), NODE, "bus.protocol", f"you speak {PROTOCOL + 1}"),
        (hello(realm="other"), raws(NODE), NODE, "trust.realm", "serves realm test, not other"),
        (hello(), raws(NODE) * (MAX_CHAIN + 1), NODE, "bus.frame", f"{MAX_CHAIN + 1} certificates"),
        (hello(), (), NODE, "trust.stranger", "no certificate of its own"),
        (hello(), raws(ALICE), NODE, "trust.stranger", "no certificate of its own"),
        (hello(), raws(ALICE, NODE), NODE, "trust.stranger", "no certificate of its own"),
        (hello(), raws(NODE), ALICE, "trust.stranger", "not encrypted with the key of node/n1"),
        (hello(AGENT.name), raws(AGENT)[:1], AGENT, "trust.stranger", "an issuer that is unknown in realm test"),
        (hello(), (b"nothing",), NODE, "event.form", "COSE"),
    ],
)  # fmt: skip
def test_who_does_not_belong_here_hears_why(frame, parts, key, code, says) -> None:
    with pytest.raises(RefusedError) as refused:
        check_hello(store(), frame, parts, link_of(key), NOW_S * 1000)
    assert refused.value.code == code
    assert says in refused.value.message
    assert refused.value.next or code != "bus.protocol"


def test_as_many_certificates_as_a_chain_may_have_are_looked_at() -> None:
    parts = raws(NODE) * MAX_CHAIN
    assert check_hello(store(), hello(), parts, link_of(NODE), NOW_S * 1000) == NODE.certificate


FROM, TO = NODE.certificate.not_before, NODE.certificate.not_after


@pytest.mark.parametrize(
    ("who", "now_s", "says"),
    [
        (NODE, FROM, None),
        (NODE, TO, None),
        (NODE, FROM - 1, "one of the two is of a wrong clock"),
        (NODE, TO + 1, "the certificate of node/n1 ended at 2023-11-24"),
        (AGENT, AGENT.certificate.not_after + 1, "the certificate of agent/n1/web/app/0 ended at"),
    ],
)
def test_a_certificate_is_valid_from_its_first_second_to_its_last(who: Identity, now_s: int, says: str | None) -> None:
    error = out_of_time(who.certificate, now_s * 1000)
    if says is None:
        assert error is None
        assert out_of_time(who.certificate, now_s * 1000 + 999) is None
        return
    assert error is not None
    assert error.code == "trust.expired"
    assert says in error.message
    with pytest.raises(RefusedError):
        check_valid(store(), who.certificate, now_s * 1000)


@pytest.mark.parametrize(
    ("subject", "issuer", "todo"),
    [
        ("node/n1", "root", "dsmt cert rotate node/n1; on a host: dsmt node add it again, or dsmt join TOKEN, there"),
        ("node/n1", "issuer/east", "dsmt cert rotate node/n1; on a host: dsmt node add it again, or dsmt join TOKEN, there"),
        (
            "agent/n1/web/app/0",
            "node/n1",
            "dsmt cert rotate node/n1; on a host: dsmt node add it again, or dsmt join TOKEN, there",
        ),
        ("broker/b1", "root", "dsmt cert rotate broker/b1; on an added host: its dsmt node add again"),
        ("joining/17", "operator/alice", "another token: dsmt token create"),
        ("operator/alice", "root", another_certificate("operator/alice")),
        ("operator/alice.x7", "operator/alice", another_certificate("operator/alice")),
    ],
)
def test_whose_certificate_has_ended_hears_which_one_to_rotate(subject, issuer, todo) -> None:
    ended = replace(NODE.certificate, subject=subject, issuer=issuer)
    error = out_of_time(ended, (TO + 1) * 1000)
    assert error is not None
    assert error.next == todo


def test_whose_certificate_has_not_begun_hears_both_times() -> None:
    error = out_of_time(NODE.certificate, (FROM - 90 * DAY) * 1000)
    assert error is not None
    begins, _, now = error.message.partition("realm time is")
    assert begins.startswith("the certificate of node/n1 begins at 2023-11-1")
    assert now.startswith(" 2023-08-1")


@dataclass
class Session:
    name: str = NODE.name
    certificate: Certificate | None = NODE.certificate
    incarnation: int = 7
    attachment: int = 9
    nonce: bytes = b"once"


SAID: dict[str, Any] = {"nonce": b"once", "broker": "broker/b1", "name": NODE.name, "incarnation": 7, "attachment": 9}


def refusal(signed: bytes, session: Session, *, trust: TrustStore | None = None, now_s: int = NOW_S) -> str:
    """Why it is refused."""
    with pytest.raises(RefusedError, match=session.name) as refused:
        check_attach(trust or store(), signed, session, "broker/b1", now_s * 1000)
    return refused.value.code


def test_an_attachment_is_signed_by_who_attaches() -> None:
    check_attach(store(), statement(NODE.key, **SAID), Session(), "broker/b1", NOW_S * 1000)


@pytest.mark.parametrize(
    ("about", "code"),
    [
        ({"nonce": b"twice"}, "trust.attach"),
        ({"broker": "broker/b2"}, "trust.attach"),
        ({"name": "node/n2"}, "trust.attach"),
        ({"incarnation": 8}, "trust.attach"),
        ({"attachment": 10}, "trust.attach"),
    ],
)
def test_no_broker_can_use_what_was_signed_for_another_attachment(about: dict[str, Any], code: str) -> None:
    assert refusal(statement(NODE.key, **{**SAID, **about}), Session()) == code


def test_what_is_no_statement_of_this_key_is_refused() -> None:
    good = statement(NODE.key, **SAID)
    assert refusal(b"nothing", Session()) == "trust.attach"
    assert refusal(good, Session(certificate=None)) == "trust.attach"
    assert refusal(statement(ALICE.key, **SAID), Session()) == "trust.attach"
    protected = protected_header(NODE.key.algorithm, NODE.key.key_id)
    garbled = assemble(protected, b"\xff", NODE.key.sign(sig_structure(protected, b"\xff")))
    assert refusal(garbled, Session()) == "trust.attach"
    assert refusal(good[:-1] + bytes([good[-1] ^ 1]), Session()) == "trust.signature"


def test_a_certificate_that_ended_since_the_hello_or_was_revoked_is_refused_at_attach() -> None:
    good = statement(NODE.key, **SAID)
    assert refusal(good, Session(), now_s=TO + 1) == "trust.expired"
    trust = store()
    trust.is_revoked = lambda key_id, name: (key_id, name) == (NODE.key.key_id, NODE.name)  # type: ignore[method-assign]
    assert refusal(good, Session(), trust=trust) == "trust.revoked"
    with pytest.raises(RefusedError, match="dsmt cert rotate node/n1"):
        check_valid(trust, NODE.certificate, NOW_S * 1000)


AGAIN = named(4, "node/n1")
"""Another key of that name."""


def revokes(*keys: SecretKey) -> TrustStore:
    """Who knows both keys, and that some are revoked."""
    trust, ended = store(), {key.key_id for key in keys}
    trust.add_all((*raws(NODE), *raws(AGAIN)))
    trust.is_revoked = lambda key_id, _name: key_id in ended  # type: ignore[method-assign]
    return trust


@pytest.mark.parametrize(
    ("ended", "now_s", "valid"),
    [
        ((), FROM, True),
        ((), FROM - 1, False),
        ((), TO + 1, False),
        ((NODE.key,), FROM, False),
        ((NODE.key,), TO + 1, False),
        ((AGAIN.key,), FROM, True),
    ],
)
def test_a_certificate_is_valid_where_its_key_is_not_revoked_and_its_time_has_come_and_not_passed(
    ended: tuple[SecretKey, ...], now_s: int, valid: bool
) -> None:
    assert is_valid(revokes(*ended), NODE.certificate, now_s * 1000) is valid


@pytest.mark.parametrize("name", ["node/n1", "monitor/n1", "agent/n1/web/app/0"])
@pytest.mark.parametrize(("ended", "now_s", "another"), [((), FROM, True), ((AGAIN.key,), FROM, False), ((), TO + 1, False)])
def test_who_is_of_a_node_whose_name_has_another_key_by_now_is_told_that_it_is_out_for_good(
    name: str, ended: tuple[SecretKey, ...], now_s: int, another: bool
) -> None:
    said = revoked(revokes(NODE.key, *ended), name, now_s * 1000)
    assert said.code == "trust.revoked"
    assert said.next == (another_name("node/n1") if another else another_certificate(name))
    other = revoked(revokes(NODE.key), "operator/n1", FROM * 1000)
    assert other.next == another_certificate("operator/n1"), "no machine has that name"
    assert revoked(revokes(NODE.key), "joining/17", FROM * 1000).next == "another token: dsmt token create"
