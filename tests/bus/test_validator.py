"""What a broker takes, by its time, its numbers and whose word it is; and which fact stands (rules A2, A3, A11, R5)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.nats import door
from dsmt.bus.rules.validator import NOWHERE, EventValidator, Standing
from dsmt.errors import UnusableEventError
from dsmt.event.codec import seal
from dsmt.event.envelope import NO_LEAF, ChainLink, Event, EventId, SignedEvent
from dsmt.event.hlc import BOUND_MS, hlc
from dsmt.event.order import MAX_STEP
from dsmt.event.registry import lookup
from dsmt.trust.identity import Identity, root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.revocations import topic_of
from dsmt.trust.store import Realm, TrustStore

NOW = 1_700_000_000_000
ALICE, BOB = "operator/alice", "operator/bob"
ROOT = SecretKey(bytes(range(32)))


def identity(number: int, name: str) -> Identity:
    serial = bytes([number]) * 16
    return root_issued(name, ROOT, key=SecretKey(bytes([number]) * 32), now_s=NOW // 1000 - 60, serial=serial)


ALICES, THIEFS = identity(1, ALICE), identity(2, "node/n1")
KEY = ALICES.key


def signed(topic: str = "user/f", *, at_ms: int = NOW, key: SecretKey = KEY, **about: Any) -> SignedEvent:
    match = lookup(topic)
    told: dict[str, Any] = {
        "source": ALICE,
        "incarnation": 1,
        "sequence": 1,
        "chain": ChainLink(1, NO_LEAF),
        "type": match.row.event_type if match else "dsmt.user",
        "topic": topic,
        "subject": "",
        "time": hlc(at_ms),
        "data": {},
    }
    if "version" in about:
        told["epoch"] = 1
    return seal([Event(**{**told, **about})], key)[0]


def checked(one: SignedEvent, *, session: str = ALICE, granted: int = 0, trust: TrustStore | None = None) -> bool:
    """Whether it is taken as a fact."""
    store = TrustStore(Realm(name="test", roots=(ROOT.public,))) if trust is None else trust
    return EventValidator(store).check(one, session=session, now_ms=NOW, granted=granted)[1]


FAR = NOW + BOUND_MS


@pytest.mark.parametrize(
    ("one", "session", "granted", "expected"),
    [
        (signed(version=1), ALICE, 0, True),
        (signed("user/s"), ALICE, 0, False),
        (signed(version=1, at_ms=1), ALICE, 0, True),
        (signed(version=1, at_ms=FAR), ALICE, 0, True),
        (signed(version=1, at_ms=FAR + 1), ALICE, 0, "clock_ahead"),
        (signed(version=1, at_ms=FAR + 1), BOB, 0, "clock_ahead"),
        (signed(version=1, incarnation=FAR), ALICE, 0, True),
        (signed(version=1, incarnation=FAR + 1), ALICE, 0, "event.incarnation"),
        (signed(version=1, incarnation=FAR + 1), ALICE, FAR, "event.incarnation"),
        (signed(version=1, incarnation=FAR + 1), ALICE, FAR + 1, True),
        (signed(version=1, incarnation=FAR + 1), BOB, FAR + 1, "event.incarnation"),
        (signed(version=1), BOB, 0, True),
        (signed("user/s"), BOB, 0, "trust.relayed"),
        (signed("nobody/knows", type="dsmt.user"), ALICE, 0, "event.topic"),
    ],
)  # fmt: skip
def test_what_needs_no_store_is_judged_by_time_number_and_whose_word_it_is(one, session, granted, expected) -> None:
    if isinstance(expected, bool):
        assert checked(one, session=session, granted=granted) is expected
    else:
        with pytest.raises(UnusableEventError) as refused:
            checked(one, session=session, granted=granted)
        assert refused.value.code == expected


@pytest.mark.parametrize("about", [{"at_ms": NOW + 90_500}, {"incarnation": NOW + 91_000}])
def test_who_is_refused_for_its_clock_hears_by_how_much_and_what_to_do(about: dict[str, int]) -> None:
    with pytest.raises(UnusableEventError, match=rf"{ALICE}.* 9[01](\.5)? s ahead of realm time") as refused:
        checked(signed(version=1, **about))
    assert "set the clock" in (refused.value.next or "")


@pytest.mark.parametrize("ahead_ms", [0, BOUND_MS + 1])
def test_a_revocation_ends_its_key_also_where_it_is_refused_for_its_time(ahead_ms: int) -> None:
    trust = TrustStore(Realm(name="test", roots=(ROOT.public,)))
    for known in (ALICES, THIEFS):
        trust.add_all([one.raw for one in known.chain])
    said = {"by": "root", "name": THIEFS.name}
    topic = topic_of(THIEFS.key.key_id, "root")
    word = signed(topic, source="root", at_ms=NOW + ahead_ms, key=ROOT, data=said)
    if ahead_ms:
        with pytest.raises(UnusableEventError):
            checked(word, session="root", trust=trust)
    else:
        assert checked(word, session="root", trust=trust)
    assert trust.is_revoked(THIEFS.key.key_id, THIEFS.name)
    vain = signed(topic_of(ALICES.key.key_id, "node/n1"), source="node/n1", key=THIEFS.key, data={"by": "eve"})
    with pytest.raises(UnusableEventError) as refused:
        checked(vain, session="node/n1", trust=trust)
    assert refused.value.code == "trust.denied"
    assert not trust.is_revoked(ALICES.key.key_id, ALICE)


def admitted(one: SignedEvent, at: Standing, *, own: bool = True) -> Any:
    """Whether it is the winner, or the words of why it is refused."""
    match = lookup(one.event.topic)
    assert match is not None
    fact = match.row.takes_as_fact(one.event.version)
    try:
        found = EventValidator.admit(one, match, fact=fact, at=at, own=own, now_ms=NOW)
    except UnusableEventError as error:
        return error.code, error.message
    assert (found.signed, found.fact, found.budget) == (one, fact, match.row.budget)
    return found.winner


GRAVE = "tombstone/service/web"
HELD = signed(version=5, sequence=7)
NEXT = signed(version=6, sequence=8, replaces=HELD.id)
DEAD = signed(version=5, sequence=7, at_ms=NOW - 2000, ttl=1000)


def status(sequence: int) -> SignedEvent:
    return signed("service/web/status/app/0/n1/application", sequence=sequence)


@pytest.mark.parametrize(
    ("one", "at", "expected"),
    [
        (signed("user/s"), NOWHERE, False),
        (signed(version=1), Standing(None), True),
        (NEXT, Standing(HELD), True),
        (signed(version=7, sequence=8), Standing(HELD), ("stale", "was first")),
        (signed(version=5, sequence=8, replaces=HELD.id), Standing(HELD), ("stale", "does not come after")),
        (NEXT, Standing(None), ("stale", "is not held here")),
        (signed(GRAVE, version=6, replaces=HELD.id), Standing(None), True),
        (signed(GRAVE, version=6, replaces=NEXT.id), Standing(HELD), ("stale", "was first")),
        (NEXT, Standing(DEAD), True),
        (signed(version=6, sequence=8), Standing(DEAD), True),
        (signed(version=6, sequence=9, replaces=NEXT.id), Standing(DEAD), ("stale", "is not held here")),
        (signed(version=1, epoch=3), Standing(None, ended=2), True),
        (signed(version=1, epoch=2), Standing(None, ended=2), ("stale", "its epoch 2 has ended")),
        (signed(version=1, at_ms=NOW - 2000, ttl=1000), Standing(None), False),
    ],
)  # fmt: skip
def test_a_shared_fact_stands_where_its_source_says_it_only_if_it_follows_what_is_held(one, at, expected) -> None:
    found = admitted(one, at)
    if isinstance(expected, bool):
        assert found is expected
    else:
        assert found[0] == expected[0]
        assert expected[1] in found[1]


@pytest.mark.parametrize(
    ("one", "at", "expected"),
    [
        (signed(version=6, sequence=8), Standing(HELD), True),
        (signed(version=4, sequence=8), Standing(HELD), False),
        (NEXT, Standing(None), True),
        (HELD, Standing(HELD), False),
        (signed(version=9, epoch=2), Standing(None, ended=2), False),
        (status(8), Standing(status(7)), True),
        (status(6), Standing(status(7)), False),
    ],
)
def test_what_is_re_offered_and_what_a_source_owns_is_merged_by_fact_order(one, at, expected) -> None:
    assert admitted(one, at, own=False) is expected
    if one.event.version is None:
        assert admitted(one, at) is expected


@pytest.mark.parametrize("word", ["epoch", "version"])
@pytest.mark.parametrize(
    ("at", "known"),
    [
        (Standing(None), {"epoch": 0, "version": 0}),
        (Standing(None, ended=9), {"epoch": 9, "version": 0}),
        (Standing(signed(epoch=4, version=5)), {"epoch": 4, "version": 5}),
        (Standing(signed(epoch=4, version=5), ended=9), {"epoch": 9, "version": 5}),
        (Standing(status(1)), {"epoch": 0, "version": 0}),
    ],
)
def test_no_number_is_taken_that_is_so_far_above_what_is_held_that_nobody_can_follow(word, at, known) -> None:
    most = known[word] + MAX_STEP
    usual = {"epoch": known["epoch"] + 1, "version": 1}
    assert admitted(signed(**{**usual, word: most}), at, own=False) is True
    brought = signed(**{**usual, word: most + 1})
    assert admitted(signed(**{**usual, word: brought.event.time_ms}), at, own=False) is True, "it was raised in steps"
    for own, far in ((True, most + 1), (False, brought.event.time_ms + 1)):
        code, message = admitted(signed(**{**usual, word: far}), at, own=own)
        assert code == "event.version"
        assert f"{word} {far}" in message


@pytest.mark.parametrize(
    ("held", "named", "stands"),
    [(None, None, None), (1, None, 1), (None, 2, 2), (1, 2, 2), (2, 1, 2)],
    ids=["nothing", "what is held", "what is replaced", "the newer one is replaced", "the newer one is held"],
)
def test_a_decision_stands_on_what_is_held_or_on_what_it_replaces_that_is_disowned_by_now_and_is_newer(
    monkeypatch: pytest.MonkeyPatch, held: int | None, named: int | None, stands: int | None
) -> None:
    monkeypatch.setattr(door, "newer", lambda one, other: one.version > other.version)
    asked: list[str] = []
    signed: Any = [None, *(SimpleNamespace(event=SimpleNamespace(epoch=4, version=number)) for number in (1, 2))]
    fold = SimpleNamespace(get=lambda _: signed[held or 0], ended=lambda thing: asked.append(thing) or 3)
    look: Any = SimpleNamespace(fold=fold, disowned={} if named is None else {"its id": signed[named]})
    event: Any = SimpleNamespace(topic="service/web/spec", replaces="its id", ends=False, epoch=4, version=2)
    at = door._standing(event, look)
    assert (at.winner, at.ended, asked) == (signed[stands or 0], 3, ["service/web"])


@pytest.mark.parametrize(("held", "stands"), [(None, 2), (1, 2), (2, None), (3, None)])
def test_what_a_void_word_has_taken_the_place_of_stands_unless_as_high_a_number_is_believed(
    held: int | None, stands: int | None
) -> None:
    """On NATS the thief's word, 7, has the place of the owner's, 2, of which nothing is known but its id."""
    void = signed(epoch=1, version=7)
    was = EventId(void.event.source, 5, 9)
    believed = None if held is None else SimpleNamespace(event=SimpleNamespace(epoch=1, version=held))
    look: Any = SimpleNamespace(disowned={void.id: void})
    event: Any = SimpleNamespace(replaces=was, epoch=1, version=3)
    found = door._displaced(event, look, believed)  # type: ignore[arg-type]
    assert (None if found is None else (found.id, found.event.version)) == (None if stands is None else (was, stands))
