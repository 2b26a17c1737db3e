"""Revocations that a client was told of: believed where they may be, brought back to who has lost them (J3, R5)."""

from __future__ import annotations

from dsmt.bus.rules.ended_keys import EndedKeys
from dsmt.event.codec import seal
from dsmt.event.envelope import NO_LEAF, ChainLink, Event, SignedEvent
from dsmt.event.hlc import hlc
from dsmt.trust.identity import Identity, root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.revocations import topic_of
from dsmt.trust.store import Realm, TrustStore

NOW_S = 1_700_000_000
ROOT = SecretKey(bytes(range(32)))


def named(number: int, name: str) -> Identity:
    key, serial = SecretKey(bytes([number]) * 32), bytes([number]) * 16
    return root_issued(name, ROOT, key=key, now_s=NOW_S - 60, serial=serial)


EVE, MALLORY = named(1, "node/eve"), named(2, "node/mallory")
ROOTS = root_issued("root", ROOT, key=ROOT, now_s=NOW_S - 60, serial=bytes(16))


def revoked(who: Identity, sequence: int, *, by: str = "root", key: SecretKey = ROOT, at_s: int = NOW_S) -> SignedEvent:
    event = Event(
        source=by, incarnation=1, sequence=sequence, chain=ChainLink(1, NO_LEAF), type="dsmt.revoked",
        topic=topic_of(who.key.key_id, by), subject=who.name, time=hlc(at_s * 1000), data={"by": by, "name": who.name},
    )  # fmt: skip
    return seal([event], key)[0]


def client() -> tuple[TrustStore, EndedKeys]:
    trust = TrustStore(Realm(name="test", roots=(ROOT.public,)))
    for one in (ROOTS, EVE, MALLORY):
        trust.add_all([signed.raw for signed in one.chain])
    return trust, EndedKeys(trust)


def test_what_may_be_believed_ends_its_key_and_what_may_not_is_told_and_holds_up_nothing() -> None:
    trust, ended = client()
    stranger = revoked(EVE, 1, key=SecretKey(bytes([9]) * 32))
    refused = ended.told([b"nothing", stranger.raw, revoked(EVE, 1).raw])
    assert len(refused) == 2
    assert trust.is_revoked(EVE.key.key_id, EVE.name)
    assert not trust.is_revoked(MALLORY.key.key_id, MALLORY.name)


def test_who_may_not_end_a_key_ends_none() -> None:
    trust, ended = client()
    ended.told([revoked(EVE, 1, by=MALLORY.name, key=MALLORY.key).raw])
    assert not trust.is_revoked(EVE.key.key_id, EVE.name)


def test_what_the_next_broker_does_not_tell_is_missing_there() -> None:
    _, ended = client()
    first, second = revoked(EVE, 1), revoked(MALLORY, 2)
    ended.told([first.raw, second.raw])
    assert ended.missing() == []
    ended.attached()
    assert [one.id for one in ended.missing()] == [first.id, second.id]
    ended.told([second.raw])
    assert [one.id for one in ended.missing()] == [first.id]


def test_of_others_that_had_its_name_the_one_that_ended_last_counts_and_nobody_else() -> None:
    trust, ended = client()
    others = [named(number, EVE.name) for number in (3, 4, 5)]
    for one in others:
        trust.add_all([signed.raw for signed in one.chain])
    assert ended.namesake_ended_ms(EVE.certificate) == 0
    ended.told([revoked(MALLORY, 1, at_s=NOW_S + 50).raw, revoked(EVE, 2, at_s=NOW_S + 40).raw])
    assert ended.namesake_ended_ms(EVE.certificate) == 0
    ended.told(
        [revoked(one, 3 + n, at_s=NOW_S + at).raw for n, (one, at) in enumerate(zip(others, (5, 20, 10), strict=True))]
    )
    assert ended.namesake_ended_ms(EVE.certificate) == (NOW_S + 20) * 1000
