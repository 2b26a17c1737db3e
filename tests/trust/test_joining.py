"""Tokens as a line, who may ask with one, and which certificate stands when a token was used twice."""

import msgspec
import pytest
from msgspec.structs import replace

from dsmt.errors import InputError, RefusedError, UnusableEventError
from dsmt.event.kinds import joining as kinds
from dsmt.trust.certificate import issue
from dsmt.trust.grants import read_patterns, widens
from dsmt.trust.identity import SKEW_S, YEAR_S, Identity, delegate, root_issued
from dsmt.trust.joining import (
    NODE_S,
    PREFIX,
    Token,
    Use,
    check_request,
    is_due,
    joining_identity,
    lost,
    node_certificate,
    read_token,
)

ID = bytes(range(16))


def token_of(realm, operator="operator/alice", lifetime_s=3600):
    identity = joining_identity(
        realm.identities[operator], key=realm.key("token"), token_id=ID, now_s=realm.now, lifetime_s=lifetime_s
    )
    return Token(
        realm=realm.name,
        roots=(realm.root.public,),
        brokers=(("10.0.0.1:4000", realm.identities["broker/b1"].key.public),),
        seed=identity.key.seed,
        chain=tuple(one.raw for one in identity.chain),
    )


def fact(**more):
    told = {"role": "node", "name": "web-*", "labels": {}, "expires_ms": 2_000_000, "by": "alice"}
    return kinds.TokenFact(**{**told, **more})


@pytest.mark.parametrize("nats", [None, ("authority" * 80, 3)], ids=["brokers", "NATS servers"])
def test_a_token_is_one_printable_line_that_comes_back_as_it_was(realm, nats):
    token = msgspec.structs.replace(token_of(realm), nats=nats)
    line = token.line()
    assert line.isascii()
    assert line.isprintable()
    assert " " not in line
    assert len(line) < 4000, "a terminal takes no longer lines"
    assert read_token(f"  {line[:60]}\n{line[60:]}\n") == token, "a line that was broken in the mail is the same"
    assert token.identity.name == f"joining/{ID.hex()}"


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda line: "",
        lambda line: line.removeprefix(PREFIX),
        lambda line: line[:-40],
        lambda line: line[:100] + ("A" if line[100] != "A" else "B") + line[101:],
        lambda line: PREFIX,
        lambda line: line + line,
        lambda line: f"{PREFIX}\u00e9",
    ],
)
def test_a_line_that_is_no_whole_token_is_told_as_such(realm, spoiled):
    with pytest.raises(InputError) as caught:
        read_token(spoiled(token_of(realm).line()))
    assert caught.value.code == "token.form"
    assert caught.value.next


def test_two_tokens_on_one_line_are_told_as_that(realm):
    line = token_of(realm).line()
    with pytest.raises(InputError) as caught:
        read_token(line + line.removeprefix(PREFIX))
    assert (caught.value.code, caught.value.next) == ("token.form", "copy the whole line that dsmt token create printed")
    assert caught.value.message == "something follows the token: another one, perhaps"


@pytest.mark.parametrize("empty", [{"brokers": ()}, {"roots": ()}, {"chain": ()}])
def test_a_token_that_nobody_could_join_with_is_told_as_damaged(realm, empty):
    with pytest.raises(InputError) as caught:
        read_token(msgspec.structs.replace(token_of(realm), **empty).line())
    assert caught.value.message == "the token is damaged: it holds no key that may join"
    assert caught.value.next == "copy the whole line that dsmt token create printed"


def test_a_token_s_key_may_ask_and_nothing_else(realm):
    token = token_of(realm)
    store = realm.store()
    store.add_all(token.chain)
    own = f"joining/{ID.hex()}"
    realm.identities[own] = token.identity
    try:
        assert store.open(realm.says(own, f"{own}/request")).event.source == own
        for topic in ("joining/a1/request", f"{own}/refused", f"trust/token/{ID.hex()}", "node/n1/heartbeat", "user/x"):
            with pytest.raises(UnusableEventError):
                store.open(realm.says(own, topic))
    finally:
        del realm.identities[own]
    assert read_patterns(own) == (f"{own}/", f"trust/token/{ID.hex()}")
    made = delegate("node/n7", token.identity, key=realm.key("node/n7"), now_s=realm.now, serial=ID)
    with pytest.raises(UnusableEventError):
        store.add(made.chain[0].raw)


def test_a_token_lives_no_longer_than_it_was_asked_for_nor_than_its_operator(realm):
    assert token_of(realm, lifetime_s=600).identity.certificate.not_after == realm.now + 600
    far = token_of(realm, lifetime_s=realm.day * 1000).identity.certificate
    assert far.not_after == realm.identities["operator/alice"].certificate.not_after


def test_who_may_not_give_a_token_hears_what_to_do(realm):
    with pytest.raises(RefusedError) as caught:
        token_of(realm, operator="operator/alice.x7")
    assert caught.value.code == "token.operator"
    assert caught.value.message
    assert caught.value.next == "dsmt cert rotate operator/alice.x7, then try again"


SAID = {
    "token.unknown": ("no operator has made this token", "dsmt token create makes one"),
    "token.revoked": ("the token was revoked", "ask for another: dsmt token create"),
    "token.expired": ("the token has expired", "ask for another: dsmt token create"),
    "token.name": ("", "dsmt join TOKEN --name NAME"),
    "token.taken": (
        "there is a node web-1 already, with another key",
        "choose another with --name; if web-1 is gone for good: dsmt node remove web-1",
    ),
    "token.used": ("the token was used already, by web-3", "each machine needs its own: dsmt token create"),
}


@pytest.mark.parametrize(
    ("token", "asked", "holders", "code"),
    [
        (None, "web-1", (), "token.unknown"),
        (fact(revoked=True), "web-1", (), "token.revoked"),
        (fact(expires_ms=1), "web-1", (), "token.expired"),
        (fact(), "db-1", (), "token.name"),
        (fact(), "web-1", (b"another key",), "token.taken"),
        (fact(key="00" * 16, member="web-3"), "web-1", (), "token.used"),
        (fact(name="*"), "../etc", (), "token.name"),
        (fact(name="*"), "", (), "token.name"),
    ],
)
def test_a_request_that_is_not_answered_is_told_why_and_what_to_do(realm, token, asked, holders, code):
    request = kinds.JoinRequest(name=asked, public=realm.key("new").public)
    with pytest.raises(RefusedError) as caught:
        check_request(request, token, now_ms=1_000_000, holders=lambda _: holders)
    assert caught.value.code == code
    said = SAID[code]
    assert said[0] in ("", caught.value.message)
    assert said[1] == caught.value.next


def test_who_may_take_one_name_alone_is_not_told_to_choose_another(realm):
    """The name of its token was taken: with `--name` it was told that the token is not for that name."""
    request = kinds.JoinRequest(name="web-1", public=realm.key("new").public)
    with pytest.raises(RefusedError) as caught:
        check_request(request, fact(name="web-1"), now_ms=1_000_000, holders=lambda _: (b"another key",))
    assert caught.value.code == "token.taken"
    assert caught.value.next == "ask for a token for another name; if web-1 is gone for good: dsmt node remove web-1"


def test_a_request_that_fits_passes_also_when_its_own_key_has_used_the_token_before(realm):
    key = realm.key("new")
    request = kinds.JoinRequest(name="web-1", public=key.public)
    check_request(request, fact(), now_ms=1_000_000, holders=lambda _: ())
    again = fact(key=key.key_id.hex(), member="web-1")
    check_request(request, again, now_ms=1_000_000, holders=lambda _: (key.key_id,))


def test_what_an_issuer_certifies_is_a_node_within_its_own_life_and_its_agents_below(realm):
    issuer = realm.identities["issuer/i1"]
    made = node_certificate(issuer, "n7", realm.key("n7").public, now_s=realm.now + 99, serial=ID)
    assert made.certificate.not_after == realm.now + 99 + NODE_S
    late = issuer.certificate.not_after - 50
    assert node_certificate(issuer, "n7", realm.key("n7").public, now_s=late, serial=ID).certificate.not_after == late + 50
    store = realm.store()
    store.add(made.raw)
    assert [one.certificate.subject for one in store.chain(made.certificate.key_id, "node/n7")] == ["node/n7", "issuer/i1"]


@pytest.mark.parametrize(("begun_s", "before_s"), [(5, 5), (SKEW_S, SKEW_S), (SKEW_S + 5, SKEW_S)])
def test_what_an_issuer_certifies_holds_for_clocks_that_are_behind_and_from_no_earlier_on_than_its_own(
    realm, begun_s, before_s
):
    """Else nobody would believe who joins by an issuer that has just begun."""
    issuer = realm.identities["issuer/i1"]
    raw = replace(issuer.certificate, not_before=realm.now - begun_s)
    made = node_certificate(
        Identity(issuer.key, (issue(raw, realm.root),)), "n7", realm.key("n7").public, now_s=realm.now, serial=ID
    )
    assert made.certificate.not_before == realm.now - before_s
    assert widens(raw, made.certificate) == ""


def test_an_issuer_of_an_earlier_version_certifies_no_more_than_it_may_itself(realm):
    """Else nobody would believe who joins by it."""
    issuer = realm.identities["issuer/i1"]
    raw = replace(issuer.certificate, publish=issuer.certificate.publish[1:])
    older = Identity(issuer.key, (issue(raw, realm.root),))
    made = node_certificate(older, "n7", realm.key("n7").public, now_s=realm.now, serial=ID)
    assert widens(raw, made.certificate) == ""


def test_of_two_uses_of_a_token_the_one_that_stands_ends_the_other(realm):
    issuer = realm.identities["issuer/i1"]
    first, second, other = (
        node_certificate(issuer, name, realm.key(name).public, now_s=realm.now, serial=serial).certificate
        for name, serial in (("n7", ID), ("n8", ID), ("n9", bytes(16)))
    )
    known = [issuer.certificate, first, second, other]

    def ended(version=2, days=0, **more):
        uses = {ID.hex(): Use(0, version, ID.hex(), fact(**more))}
        return [one for one, _ in lost(known, uses, lambda *_: True, now_ms=1000 * (realm.now + 1 + days * 86400))]

    assert ended(key=first.key_id.hex(), member="n7") == [second]
    assert ended(key=second.key_id.hex(), member="n8") == [first]
    assert ended() == []
    assert ended(revoked=True) == [first, second]
    assert ended(revoked=True, days=1) == [], "who has been there for a day is not ended by a time that may be made up"
    assert ended(version=3, revoked=True) == ended(version=3, key="00", member="n7") == [], "what follows a use ends nothing"
    assert list(lost(known, {}, lambda *_: True, now_ms=0)) == []


def test_of_two_keys_under_one_name_the_one_that_was_given_first_stands_unless_the_name_was_free_since(realm):
    issuer = realm.identities["issuer/i1"]
    ids = ID, bytes(16)
    first, second = (
        node_certificate(issuer, "n7", realm.key(name).public, now_s=realm.now, serial=serial).certificate
        for name, serial in zip(("a", "b"), ids, strict=True)
    )

    def ended(freed_ms, *, stands=True, said_ms=(5, 6), days=0):
        uses = {
            serial.hex(): Use(at, 2, serial.hex(), fact(key=one.key_id.hex(), member="n7", freed_ms=freed_ms))
            for serial, one, at in zip(ids, (first, second), said_ms, strict=True)
        }
        now_ms = 1000 * (realm.now + 1 + days * 86400)
        keys = {first.key_id.hex(), second.key_id.hex()} if stands else set()
        return [
            one for one, _ in lost([first, second], uses, lambda key, name: key in keys and name == "node/n7", now_ms=now_ms)
        ]

    assert ended(0) == [second]
    assert ended(0, said_ms=(6, 5)) == [first]
    assert ended(5) == [], "the first was said before the name was free"
    assert ended(0, stands=False) == []
    assert ended(0, days=1) == []
    assert ended(None) == [], "by an issuer that did not say it"


def test_a_certificate_is_due_from_the_middle_of_its_life_on(realm):
    issuer = realm.identities["issuer/i1"]
    made = node_certificate(issuer, "n7", realm.key("n7").public, now_s=realm.now, serial=ID).certificate
    assert not is_due(made, realm.now + NODE_S // 2 - 1)
    assert is_due(made, realm.now + NODE_S // 2)


def test_a_certificate_of_a_year_is_due_when_the_next_one_ends_later_and_not_asked_for_each_minute_before(realm):
    made = root_issued("node/n7", realm.root, key=realm.key("n7"), now_s=realm.now, serial=ID).certificate
    for before in (YEAR_S // 2, YEAR_S - NODE_S):
        assert not is_due(made, realm.now + before)
    assert is_due(made, realm.now + YEAR_S - NODE_S + 1)
