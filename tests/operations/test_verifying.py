"""Verify: what a recorded stream is worth, offline."""

from time import process_time

import pytest
from msgspec.structs import replace

from dsmt.errors import UnusableEventError
from dsmt.event.envelope import ChainLink, SignedEvent
from dsmt.event.kinds.broker import BrokerNotice
from dsmt.event.records import to_data
from dsmt.operations.offline import items as offline_items
from dsmt.operations.offline.followed import Followed, Gap
from dsmt.operations.offline.items import items
from dsmt.operations.offline.proving import verify
from dsmt.trust.revocations import topic_of
from dsmt.trust.store import TrustStore

from .recorded import Recording, whole


def test_a_whole_stream_verifies_with_what_was_exported() -> None:
    recording = whole()
    found = verify(recording.raw(), TrustStore.from_export(recording.trust.export()))
    assert found.ok
    assert (found.events, found.signers) == (len(recording.events), 4)
    assert (found.bad_signatures, found.unknown_signers, found.equivocations, found.gaps) == (0, 0, 0, [])
    assert found.first is not None
    assert found.last is not None
    assert found.first < found.last


def place_of(recording: Recording, topic: str, number: int) -> int:
    said = ((i, one.event) for i, one in enumerate(recording.events))
    return next(i for i, event in said if event.topic == topic and event.data["number"] == number)


def test_an_empty_file_holds_nothing_wrong() -> None:
    found = verify(b"", whole().trust)
    assert found.ok
    assert (found.events, found.first) == (0, None)


def test_who_reads_a_large_file_hears_how_far_that_is_and_of_a_small_one_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    recording, heard = whole(), list[str]()
    raw = recording.raw()
    list(items(raw, heard.append))
    assert heard == []
    monkeypatch.setattr(offline_items, "PIECE", len(raw) // 4)
    assert verify(raw, recording.trust, heard.append).ok
    shares = [int(said.partition(" % of ")[0]) for said in heard]
    assert len(shares) in (3, 4)
    assert shares == sorted(shares)
    assert all(said.endswith(" are read") for said in heard)


def test_an_event_that_comes_twice_is_nothing() -> None:
    recording = whole()
    found = verify(recording.raw() + recording.events[3].raw, recording.trust)
    assert found.ok
    assert (found.events, found.duplicates) == (len(recording.events), 1)


def test_a_missing_event_shows_in_its_topics_chain() -> None:
    recording = whole()
    place = place_of(recording, "user/count", 1)
    found = verify(recording.raw({place}), recording.trust)
    assert not found.ok
    assert found.gaps == [Gap(source="operator/alice", topic="user/count", first=2, last=2)]


def test_what_its_source_declared_only_later_is_no_gap_and_all_else_is() -> None:
    recording = whole()  # two were dropped when a third one had been signed, and the fourth declares them
    for number, declares in ((3, None), (4, None), (5, None), (6, (4, 4)), (7, (5, 5))):
        recording.say("operator/alice", "user/count", {"number": number}, declares=declares)
    dropped = {place_of(recording, "user/count", number) for number in (3, 4)}
    found = verify(recording.raw(dropped), recording.trust)
    assert (found.ok, found.gaps) == (True, [])
    found = verify(recording.raw({*dropped, place_of(recording, "user/count", 5)}), recording.trust)
    assert found.gaps == [Gap(source="operator/alice", topic="user/count", first=4, last=6)]


def test_a_source_that_declares_as_often_as_it_speaks_is_followed_as_fast_as_any_other() -> None:
    followed, event = Followed(), Recording().say("operator/alice", "user/count", {}).event
    for number in range(1, 60_000, 2):
        about = {"sequence": number, "chain": ChainLink(number, bytes(32)), "declares": (number - 1, number - 1)}
        followed.add(SignedEvent(replace(event, **about), b"", number.to_bytes(32), bytes(16)))
    began = process_time()
    assert followed.chains() == []
    assert process_time() - began < 5, "it looks at each of its words for each of its holes"


def test_the_only_event_of_a_topic_shows_in_the_sequence() -> None:
    recording = whole()
    place, gone = next((i, one) for i, one in enumerate(recording.events) if one.event.topic == "user/note/1")
    found = verify(recording.raw({place}), recording.trust)
    number = gone.event.sequence
    assert found.gaps == [Gap(source="operator/alice", topic=None, first=number, last=number)]
    assert not found.ok


def test_a_stream_of_some_topics_has_no_gap_for_what_was_not_asked() -> None:
    recording = whole()
    raw = b"".join(one.raw for one in recording.events if one.event.topic.startswith("user/note/"))
    assert verify(raw, recording.trust).ok
    raw = b"".join(one.raw for one in recording.events if one.event.topic.startswith("node/"))
    assert verify(raw, recording.trust).ok


def test_a_stream_that_begins_in_the_middle_is_whole_from_there() -> None:
    recording = whole(beats=5)
    assert verify(recording.raw(set(range(9))), recording.trust).ok


@pytest.mark.parametrize("kind", ["declared", "trimmed", "gap"])
def test_what_a_broker_says_of_what_is_missing_explains_no_gap(kind: str) -> None:
    recording = whole()
    place = place_of(recording, "user/count", 1)
    number = recording.events[place].event.sequence
    notice = BrokerNotice(kind=kind, source="operator/alice", topic="user/count", first=2, last=2, message="", unit="number")
    recording.say("broker/b1", "broker/b1/notice", to_data(notice))
    sequence = BrokerNotice(kind=kind, source="operator/alice", topic=None, first=number, last=number, message="")
    recording.say("broker/b1", "broker/b1/notice", to_data(sequence))
    found = verify(recording.raw({place}), recording.trust)
    assert Gap(source="operator/alice", topic="user/count", first=2, last=2) in found.gaps
    assert not found.ok


def test_every_flipped_bit_of_a_signature_or_a_payload_is_found() -> None:
    recording = whole(beats=1)
    victim = recording.events[-1].raw
    before = recording.raw({-1})
    for place in range(0, len(victim), 7):
        flipped = victim[:place] + bytes([victim[place] ^ 1]) + victim[place + 1 :]
        assert not verify(before + flipped, recording.trust).ok, f"byte {place} was flipped, and nobody noticed"


def test_a_signer_whom_nobody_knows_is_told() -> None:
    recording = whole()
    recording.source("controller/c9", known=False)
    recording.say("controller/c9", "controller/c9/heartbeat")
    found = verify(recording.raw(), recording.trust)
    assert not found.ok
    assert found.unknown_signers == 1
    assert found.bad_signatures == 0
    assert found.faults[0].code == "trust.stranger"


def test_a_topic_outside_the_signers_grant_is_bad() -> None:
    recording = whole()
    recording.say("controller/c1", "user/mine", {"x": 1})
    found = verify(recording.raw(), recording.trust)
    assert (found.ok, found.bad_signatures, found.faults[0].code) == (False, 1, "trust.denied")


def test_two_events_with_one_number_are_an_equivocation() -> None:
    recording = Recording()
    signer = recording.source("operator/eve", incarnation=recording.now_ms)
    recording.say("operator/eve", "user/x", {"said": "yes"})
    first = recording.events[:]
    other = Recording()
    other.root, other.trust = recording.root, recording.trust
    other.now_ms = recording.now_ms
    twin = other.source("operator/bob")
    twin.name, twin.key = "operator/eve", signer.key
    twin.begin(first[0].event.incarnation, other.now_ms, previous=None)
    twin.sign()
    other._signers["operator/eve"] = other._signers["operator/bob"]
    other.say("operator/eve", "user/x", {"said": "no"})
    raw = b"".join(one.raw for one in (*first, other.events[-1]))
    found = verify(raw, recording.trust)
    assert not found.ok
    assert found.equivocations >= 1


def revoke(recording: Recording, name: str) -> None:
    key_id = recording._signers[name][1].key.key_id
    recording.say("root", topic_of(key_id, "root"), {"by": "alice"})


def test_what_a_revoked_key_signed_is_unwitnessed_wherever_its_revocation_stands() -> None:
    recording = whole()
    own = sum(one.event.source == "controller/c1" for one in recording.events)
    revoke(recording, "controller/c1")
    found = verify(recording.raw(), TrustStore.from_export(recording.trust.export()))
    assert not found.ok
    assert (found.unwitnessed, found.bad_signatures, found.gaps) == (own, 0, [])
    assert found.events == len(recording.events) - own
    assert {fault.code for fault in found.faults} == {"trust.unwitnessed"}


def test_a_revocation_ends_whom_the_key_has_signed_and_nobody_else() -> None:
    recording = whole()
    recording.source("agent/n1/web/app/0")
    before = sum(one.event.source in ("node/n1", "agent/n1/web/app/0") for one in recording.events)
    revoke(recording, "node/n1")
    assert verify(recording.raw(), recording.trust).unwitnessed == before


def test_a_revocation_that_was_exported_counts_for_a_stream_without_it() -> None:
    recording = whole()
    raw = recording.raw()
    revoke(recording, "node/n1")
    recording.trust.revoke(recording.events[-1])
    found = verify(raw, TrustStore.from_export(recording.trust.export()))
    assert (found.ok, found.unwitnessed) == (False, 4)


def test_what_a_revoked_broker_explained_is_a_gap() -> None:
    recording = whole()
    place = place_of(recording, "user/count", 1)
    for topic, unit in (("user/count", "number"), (None, "sequence")):
        notice = BrokerNotice(kind="declared", source="operator/alice", topic=topic, first=1, last=99, message="", unit=unit)
        recording.say("broker/b1", "broker/b1/notice", to_data(notice))
    revoke(recording, "broker/b1")
    assert (
        Gap(source="operator/alice", topic="user/count", first=2, last=2)
        in verify(recording.raw({place}), recording.trust).gaps
    )


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_file_that_ends_within_an_event_does_not_verify(cut: int) -> None:
    recording = whole()
    found = verify(recording.raw()[:-cut], recording.trust)
    assert not found.ok
    assert found.events >= len(recording.events) - 1


def test_what_is_no_cbor_is_told_and_never_crashes() -> None:
    trust = whole().trust
    for raw in (b"\xff", b"hello", b"\xd2\x84", b"\x9f\x01\xff", b"[" * 1000, b"\x00"):
        assert not verify(raw, trust).ok
    with pytest.raises(UnusableEventError):
        list(items(b"\x5a\xff\xff\xff\xff"))
