"""Certificates from an operator's seat: what is listed and rotated, and how they are dated."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.cli import screens
from dsmt.errors import FailedError, NotFoundError
from dsmt.event.hlc import rfc3339
from dsmt.operations.local.home import notes
from dsmt.operations.local.home.addresses import free_port
from dsmt.operations.local.home.dating import Dated, dated
from dsmt.operations.local.home.home import Home, write_secret
from dsmt.operations.local.home.making import ensure_controller, ensure_node, ensure_operator, init
from dsmt.operations.local.members import certificates
from dsmt.operations.offline.history import export
from dsmt.operations.read.realm.sight import look
from dsmt.operations.read.rows.certificates import in_use, state_of
from dsmt.operations.read.screens.summaries import certs, status
from dsmt.operations.write.revoking import EndedKey
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.configuration import IDENTITY, read_identity
from dsmt.trust.identity import SKEW_S, YEAR_S, dump, root_issued
from dsmt.trust.joining import node_certificate
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import TrustStore
from tests.bus.realm import TestClock, TestRealm, memory_network, realm
from tests.controllers.build import Realm
from tests.loops import in_real_time
from tests.operations.sights import sight

DAY = 86_400
NOW = Dated(int(time.time()), "realm")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    init(made, name="test")
    ensure_node(made, "n1")
    return made


def states(home: Home, now_s: int) -> dict[str, str]:
    return {one.name: one.state for one in certificates.listing(TrustStore(home.realm().realm), home, now_s)}


def test_a_certificate_is_to_be_renewed_from_half_of_its_life_and_ends_after_a_year(home: Home) -> None:
    now = int(time.time())
    for after, state in (
        (0, "valid"),
        (YEAR_S // 2 - DAY, "valid"),
        (YEAR_S // 2 + DAY, "renew"),
        (YEAR_S + DAY, "expired"),
    ):
        assert set(states(home, now + after).values()) == {state}
    ensure_node(home, "n2.example.com")
    assert set(states(home, now)) == {"broker/b1", "node/n1", "node/n2.example.com", home.operator().name}


def test_an_identity_of_another_realm_keeps_nobody_from_seeing_the_others(home: Home) -> None:
    """As where a directory was copied from another home."""
    root, now = SecretKey(bytes(range(32))), int(time.time())
    strange = root_issued("node/n0", root, key=SecretKey(bytes(range(1, 33))), now_s=now, serial=bytes(16))
    write_secret(home.part("nodes", "n0") / IDENTITY, dump(strange))
    assert set(states(home, now)) == {"broker/b1", "node/n1", home.operator().name}


def test_a_rotated_node_has_a_new_key_beside_the_old_and_a_broker_or_an_issuer_keeps_its_own(home: Home) -> None:
    now = int(time.time()) + DAY
    ensure_controller(home, "c1")
    before = {name: read_identity(path) for name, path in certificates.here(home).items()}
    for name, identity in before.items():
        done = certificates.rotate(home, name, Dated(now, "realm"))
        after = read_identity(certificates.here(home)[name])
        assert after.certificate.not_after == now + YEAR_S
        assert (done.key, done.before) == (after.key.key_id.hex(), identity.key.key_id.hex())
        assert (done.key == done.before) == name.startswith(("broker/", "issuer/"))
        trust = TrustStore(home.realm().realm)
        trust.add_all([one.raw for held in (identity, after) for one in held.chain])
        newest = in_use(trust, now)[name]
        assert newest == after.certificate
        if done.key != done.before:
            assert state_of(identity.certificate, trust, now, newest) == "replaced"
        assert not trust.is_revoked(identity.key.key_id)


def test_what_uses_a_new_certificate_is_begun_anew_and_a_controller_for_its_issuer_too(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def ask(directory: Path, program: str) -> bool:
        asked.append((directory.name, program))
        return program == "container_manager"

    monkeypatch.setattr(certificates, "ask_to_end", ask)
    assert not certificates.begin_anew(home, ["issuer/c1", "operator/alice"])
    assert asked == [("c1", "controller")]
    assert not certificates.begin_anew(home, ["issuer/c2", "controller/c2"])
    assert asked[1:] == [("c2", "controller")], "once, for both"
    assert certificates.begin_anew(home, ["node/n1", "broker/b1"])
    assert sorted(asked[2:]) == [("b1", "broker"), ("n1", "container_manager")]


def test_what_lives_elsewhere_is_not_rotated_here_and_without_the_root_key_nothing_is(home: Home) -> None:
    with pytest.raises(NotFoundError, match="node/n9 is not a member of this home"):
        certificates.rotate(home, "node/n9", NOW)
    with pytest.raises(NotFoundError) as caught:
        certificates.rotate(home, "operator/bob", NOW)
    assert caught.value.next.startswith("dsmt operator add bob --into DIR")
    (home.root / "root.key").unlink()
    with pytest.raises(NotFoundError, match="the root key is not in"):
        certificates.rotate(home, "node/n1", NOW)


def test_the_certificate_of_a_node_that_has_left_is_not_the_next_to_be_renewed(home: Home) -> None:
    trust = TrustStore(home.realm().realm)
    certificates.learn(trust, home)
    first = certs(in_use(trust, NOW.now_s), NOW.now_s * 1000)
    assert first.next == "broker/b1"
    left = {one for one in in_use(trust, NOW.now_s) if one != "node/n1"}
    assert certs(in_use(trust, NOW.now_s), NOW.now_s * 1000, left).next == "node/n1"
    stood_in = certificates.stand_in_identity(home.root_key(), now_s=NOW.now_s - 300 * DAY)
    trust.add_all([signed.raw for signed in stood_in.chain])
    assert certs(in_use(trust, NOW.now_s), NOW.now_s * 1000) == first, "nor is that of who stood in for a revoked controller"


def test_nor_is_that_of_a_revoked_key(home: Home) -> None:
    realm, trust, its_key = Realm("n1"), TrustStore(home.realm().realm), SecretKey(bytes(32))
    certificates.learn(trust, home)
    seen = sight(realm)
    begins = seen.now_ms // 1000 - 60
    soon = root_issued("node/n9", home.root_key(), key=its_key, now_s=begins, serial=bytes(16), lifetime_s=DAY)
    trust.add(soon.chain[0].raw)
    assert status(seen, trust, []).certs.next == "node/n9"
    assert status(seen, trust.without(its_key.key_id), []).certs.next != "node/n9"


@pytest.mark.parametrize("alive", [False, True])
def test_nor_is_that_of_the_issuer_beside_a_node_that_has_left_unless_its_controller_lives(home: Home, alive: bool) -> None:
    realm, trust = Realm("n1", "n2"), TrustStore(home.realm().realm)
    realm.controller("n2")
    if not alive:
        realm.session("controller/n2", "closed", how="peer")
    realm.verdict("n2", state="left")
    seen = sight(realm)
    begins = seen.now_ms // 1000 - 60
    for role in ("issuer", "controller"):
        soon = root_issued(
            f"{role}/n2", home.root_key(), now_s=begins, serial=bytes(16), key=SecretKey(bytes(32)), lifetime_s=DAY
        )
        trust.add(soon.chain[0].raw)
    assert status(seen, trust, []).certs.next == ("controller/n2" if alive else None)


def test_who_was_rotated_by_a_clock_that_was_far_ahead_is_rotated_again_and_stands_in_nobodys_place(home: Home) -> None:
    now = int(time.time())
    ahead = Dated(now + 400 * DAY, "machine")
    trust = TrustStore(home.realm().realm)
    certificates.learn(trust, home)
    for name in ("node/n1", "broker/b1"):
        assert certificates.rotate(home, name, ahead).clock == "machine"
        listed = {one.state for one in certificates.one(certificates.listing(trust, home, now), name)}
        assert listed == ({"valid"} if name.startswith("broker/") else {"valid", "early"}), "of a key the one that counts"
        assert in_use(trust, now)[name].issued <= now
        assert in_use(trust, ahead.now_s)[name].issued == ahead.now_s
    assert certs(in_use(trust, now), now * 1000).expires < rfc3339((now + 366 * DAY) * 1000)
    for name in ("node/n1", "broker/b1"):
        done = certificates.rotate(home, name, Dated(now + 5, "realm"))
        after = read_identity(certificates.here(home)[name]).certificate
        assert (after.issued, after.not_before, done.clock) == (now + 5, now + 5 - SKEW_S, "realm")
        certificates.learn(trust, home)
        assert in_use(trust, now)[name] == after


def test_what_is_made_while_a_realm_is_there_is_dated_by_its_time(home: Home) -> None:
    at = NOW.now_s - 500 * DAY
    home.operator_file.unlink()
    ensure_operator(home, now_s=at)
    ensure_controller(home, "c1", now_s=at)
    ensure_node(home, "n2", now_s=at)
    for name in (home.operator().name, "controller/c1", "node/n2"):
        assert read_identity(certificates.here(home)[name]).certificate.issued == at
    assert certificates.root_identity(home.root_key(), now_s=at).certificate.issued == at


@pytest.mark.real
@in_real_time
async def test_a_broker_tells_realm_time_to_anybody_who_asks_and_where_none_answers_the_machines_clock_is_named(
    tmp_path: Path,
) -> None:
    network = ZmqNetwork()
    try:
        async with asyncio.timeout(30), realm(network, tmp_path) as made:
            broker = await made.broker(clock=TestClock(-500.0 * DAY))
            (living,) = made.brokers
            silent = BrokerAddress(f"127.0.0.1:{free_port()}", living.public)
            for brokers in ([living], [silent, living]):
                found = await dated(brokers)
                assert found.clock == "realm"
                assert abs(found.now_s - broker.now_ms() // 1000) <= 2
            found = await dated([silent])
            assert found.clock == "machine"
            assert abs(found.now_s - time.time()) <= 2
    finally:
        network.close()


# Revoking -----------------------------------------------------------------------------------------------------------------


def test_what_the_ended_certificate_of_a_broker_means_is_told_with_the_way_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(30), realm(memory_network(), tmp_path) as made:
            await told(made)

    async def told(made: TestRealm) -> None:
        await made.broker(identity=made.identity("broker/b1", now_s=int(time.time()) - YEAR_S - 60))
        bob = await made.client("operator/bob")
        sight = await look(bob, passing=True)
        seen = status(sight, bob._trust, [])
        (alert,) = [one for one in seen.alerts if one.code == "broker.expired"]
        assert (seen.state, alert.target, alert.who) == ("degraded", "broker/b1", "you")
        assert "no dead node is replaced" in alert.message
        assert alert.next.startswith("dsmt cert rotate broker/b1; on an added host")
        assert alert.message in screens.status(seen, sight)
        more = made.trust()
        for one in (made.identity("broker/b1", now_s=int(time.time()) - YEAR_S - 60), made.identity("broker/b2")):
            more.add_all([signed.raw for signed in one.chain])
        (alert,) = [one for one in status(sight, more, []).alerts if one.code == "broker.expired"]
        assert alert.message.endswith("so who was attached to it goes to another one")
        sight.passing.removed.add("b2")
        (alert,) = [one for one in status(sight, more, []).alerts if one.code == "broker.expired"]
        assert "no dead node is replaced" in alert.message, "the other one has left the realm"
        sight.passing.removed.clear()
        sight.passing.removed.add("b1")
        seen = status(sight, more, [])
        assert seen.alerts == []
        assert (seen.certs.ok, seen.certs.next) == (True, "broker/b2")
        sight.passing.removed.clear()
        with pytest.raises(FailedError, match="the head that broker/b1 signs cannot be believed") as caught:
            await export(bob, bob._trust, lambda _: None)
        assert (caught.value.code, caught.value.next) == ("history.head", alert.next)

    asyncio.run(scenario())


def test_an_issuer_that_was_rotated_is_not_told_as_ended_though_nobody_has_met_its_next_certificate(home: Home) -> None:
    ensure_controller(home, "c1")
    trust, later = TrustStore(home.realm().realm), int(time.time()) + YEAR_S + DAY
    trust.add_all([one.raw for one in read_identity(certificates.here(home)["issuer/c1"]).chain])
    certificates.rotate(home, "issuer/c1", Dated(later, "realm"))
    assert certs(in_use(trust, later), later * 1000).next == "issuer/c1"
    assert len(certificates.learn(trust, home, role="issuer/")) == 1
    told = certs(in_use(trust, later), later * 1000)
    assert (told.ok, told.renew) == (True, False)
    assert "node/n1" not in in_use(trust, later), "of all others what they show counts"


def test_an_issuer_whose_machine_is_lost_is_known_though_it_has_certified_nobody(home: Home) -> None:
    ensure_controller(home, "c1")
    ensure_controller(home, "c1.x")
    shutil.rmtree(home.part("controllers", "c1"))

    def known() -> dict[str, bool]:
        found = certificates.listing(TrustStore(home.realm().realm), home, int(time.time()))
        return {one.name: one.here for one in found if one.name.startswith("issuer/")}

    assert known() == {"issuer/c1": False, "issuer/c1.x": True}
    shutil.rmtree(home.part("controllers", "c1.x"))
    notes.drop(home.issuers, "c1")
    assert known() == {"issuer/c1.x": False}, "and only that one goes, where its key was deleted"


@pytest.mark.parametrize("raw", [b"", b"\x80", b"nonsense"])
def test_what_is_damaged_in_a_home_keeps_nobody_from_seeing_the_certificates_of_all_others(home: Home, raw: bytes) -> None:
    ensure_controller(home, "c1")
    ensure_controller(home, "c2")
    damaged = [certificates.here(home)["issuer/c1"], certificates.here(home)["controller/c2"]]
    for path in [*damaged, *home.issuers.glob("c1.*")]:
        path.write_bytes(raw)
    names = {one.name for one in certificates.listing(TrustStore(home.realm().realm), home, int(time.time()))}
    assert {"controller/c1", "issuer/c2"} <= names
    assert not {"issuer/c1", "controller/c2"} & names


def test_a_certificate_is_named_by_its_name_or_by_the_beginning_of_its_key_but_not_by_too_little_of_it(home: Home) -> None:
    found = certificates.listing(TrustStore(home.realm().realm), home, int(time.time()))
    node = next(held for held in found if held.name == "node/n1")
    assert certificates.one(found, "node/n1") == certificates.one(found, node.key[:8]) == [node]
    for little in ("", node.key[:3]):
        with pytest.raises(NotFoundError, match="no certificate of"):
            certificates.one(found, little)
    with pytest.raises(NotFoundError) as caught:
        certificates.one(found, "n1")
    assert caught.value.next == "did you mean node/n1? dsmt cert list shows them"


ENDED = EndedKey(key=bytes(16).hex(), name="", by="alice", at="2026-11-20T09:00:00.000Z", reason="stolen", signer="root")
THIEF = msgspec.structs.replace(ENDED, by="issuer/c1", signer="issuer/c1")


@pytest.mark.parametrize(
    ("name", "ended", "shown"),
    [
        ("controller/c9", ENDED, True),
        ("node/n9", THIEF, True),
        ("controller/c9", THIEF, False),
        ("", ENDED, True),
        ("", THIEF, False),
        ("agent/n1/web/app/0", ENDED, False),
        ("operator/eve.a59acdca", ENDED, False),
        ("controller/stand-in-1", ENDED, False),
    ],
)
def test_a_revoked_key_of_a_member_is_listed_though_nobody_shows_its_certificate(
    home: Home, name: str, ended: EndedKey, *, shown: bool
) -> None:
    key, ended = bytes(16).hex(), msgspec.structs.replace(ended, name=name)
    found = certificates.listing(TrustStore(home.realm().realm), home, int(time.time()), {key: ended})
    told = [(one.name, one.state, one.revoked) for one in found if one.key == key]
    assert told == ([(name, "revoked", ended)] if shown else [])
    assert "node/n1" in {one.name for one in found}
    if shown:
        assert certificates.one(found, key[:8])


def test_of_a_key_that_was_revoked_it_is_told_who_did_and_of_one_below_a_revoked_issuer_who_revoked_that(home: Home) -> None:
    ensure_controller(home, "c1")
    issuer = read_identity(certificates.here(home)["issuer/c1"])
    now_s = int(time.time())
    joined = node_certificate(issuer, "n9", SecretKey(bytes(32)).public, now_s=now_s, serial=b"1")
    trust = TrustStore(home.realm().realm)
    certificates.learn(trust, home)
    trust.add(joined.raw)
    trust = trust.without(issuer.key.key_id)
    ended = msgspec.structs.replace(ENDED, key=issuer.key.key_id.hex(), name="issuer/c1")
    told = {
        one.name: (one.state, one.revoked)
        for one in certificates.listing(trust, home, now_s, {issuer.key.key_id.hex(): ended})
    }
    assert told["issuer/c1"] == told["node/n9"] == ("revoked", ended)
    assert told["node/n1"] == ("valid", None)
