"""Names, and the certificates that are made for them: by whom, with what, for how long."""

import pytest
from msgspec.structs import replace

from dsmt.errors import InputError, UnusableEventError
from dsmt.event.topic import matches
from dsmt.trust.certificate import MAX_BYTES, issue
from dsmt.trust.grants import (
    DEFAULT_QUOTA,
    NAME_LEVELS,
    is_name,
    may_name,
    publish_patterns,
    read_patterns,
    subset,
    widens,
)
from dsmt.trust.identity import SKEW_S, YEAR_S, Identity, certify, delegate, root_issued
from dsmt.trust.store import TrustStore
from tests.trust.refusals import AGENT, NODE

# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "levels"), NAME_LEVELS.items())
def test_a_name_has_the_levels_of_its_role_and_no_others(role, levels):
    for count in range(1, 7):
        assert is_name("/".join([role, *["x"] * (count - 1)])) == (count == levels)


@pytest.mark.parametrize("name", ["", "x", "Node/n1", "node/", "node/n 1", "stranger/x"])
def test_a_text_that_is_of_no_role_is_no_name(name):
    assert not is_name(name)


NAMINGS = [
    # who, whom, and whether it may give it a certificate
    ("operator/alice", "operator/alice.x7", True),
    ("operator/alice", "operator/alice", False),
    ("operator/alice", "operator/alicex7", False),
    ("operator/alice", "operator/bob.x7", False),
    ("operator/alice", "node/n1", False),
    (NODE, "monitor/n1", True),
    (NODE, AGENT, True),
    (NODE, "monitor/n2", False),
    (NODE, "monitor/n1x", False),
    (NODE, "agent/n11/web/app/0", False),
    (NODE, NODE, False),
    ("issuer/i1", NODE, True),
    ("issuer/i1", "issuer/i2", False),
    ("issuer/i1", "monitor/n1", False),
    ("issuer/i1", "nodes/n1", False),
    ("controller/c1", NODE, False),
    ("broker/b1", "node/b1", False),
    (AGENT, "agent/n1/web/app/1", False),
]


@pytest.mark.parametrize(("who", "whom", "may"), NAMINGS, ids=[f"{who} {whom}" for who, whom, _ in NAMINGS])
def test_who_may_be_certified_by_whom(who, whom, may):
    assert may_name(who, whom) == may


# Certificates ---------------------------------------------------------------------------------------------------------


WIDER = [
    # what is changed in the certificate of an agent by its node, and what the refusal names beside the agent
    ({"issuer": "node/n2"}, NODE),
    ({"subject": "monitor/n2"}, NODE),
    ({"depth": 1}, NODE),
    ({"depth": -1}, NODE),
    ({"publish": ("/",)}, NODE),
    ({"quota": 100_001}, NODE),
    ({"not_before": -1}, NODE),
    ({"not_after": 1}, NODE),
]


def changed(certificate, above, changes):
    """A certificate with changes; a time is so many seconds after that of the one above."""
    moved = {name: getattr(above, name) + changes[name] for name in ("not_before", "not_after") if name in changes}
    return replace(certificate, **{**changes, **moved})


@pytest.mark.parametrize(("changes", "names"), WIDER, ids=str)
def test_a_certificate_that_goes_beyond_its_issuer_s_says_how(realm, changes, names):
    above, below = realm.identities[NODE].certificate, realm.identities[AGENT].certificate
    assert widens(above, below) == ""
    wide = changed(below, above, changes)
    told = widens(above, wide)
    assert wide.subject in told
    assert names in told


@pytest.mark.parametrize(
    "changes",
    [{"depth": 0}, {"quota": 100_000}, {"quota": 0}, {"publish": ()}, {"read": ()}, {"not_before": 1}, {"not_after": -1}],
    ids=str,
)
def test_a_certificate_may_have_all_that_its_issuer_has_or_less(realm, changes):
    above, below = realm.identities[NODE].certificate, realm.identities[AGENT].certificate
    assert widens(above, changed(below, above, changes)) == ""


GIVEN = [
    # a name, the depth of its delegations, and its quota
    ("root", 3, DEFAULT_QUOTA),
    ("issuer/i1", 2, DEFAULT_QUOTA),
    ("operator/alice", 1, DEFAULT_QUOTA),
    (NODE, 1, 100_000),
    ("broker/b1", 0, DEFAULT_QUOTA),
    ("controller/c1", 0, DEFAULT_QUOTA),
    ("monitor/n1", 0, 1_000),
    (AGENT, 0, 64),
]


@pytest.mark.parametrize(("name", "depth", "quota"), GIVEN)
def test_the_root_s_certificate_gives_what_the_role_may_have(realm, name, depth, quota):
    one = root_issued(name, realm.root, key=realm.key("k"), now_s=realm.now, serial=b"s" * 16)
    told = one.certificate
    assert (told.issuer, told.subject, told.public, told.serial) == ("root", name, realm.key("k").public, b"s" * 16)
    assert (told.issued, told.not_before, told.not_after) == (realm.now, realm.now - SKEW_S, realm.now + YEAR_S)
    assert (told.depth, told.quota) == (depth, quota)
    assert (told.publish, told.read) == (publish_patterns(name), read_patterns(name))
    assert (one.name, one.certificate.role) == (name, name.split("/")[0])
    assert (told.key_id, one.chain[0].issuer_key_id) == (realm.key("k").key_id, realm.root.key_id)


@pytest.mark.parametrize("skew_s", [-(10**9), -100, 0, 100, 10**9])
def test_a_delegated_certificate_holds_exactly_as_long_as_its_issuer_s_whatever_the_clock_says(realm, skew_s):
    parent = realm.identities[NODE]
    child = delegate(AGENT, parent, key=realm.key("k"), now_s=realm.now + skew_s, serial=bytes(16))
    told, above = child.certificate, parent.certificate
    assert (told.not_before, told.not_after) == (above.not_before, above.not_after)
    assert above.not_before <= told.issued <= above.not_after
    if skew_s in (0, 100):
        assert told.issued == realm.now + skew_s
    assert (told.issuer, child.chain[1:]) == (NODE, parent.chain)
    assert widens(above, told) == ""


def test_a_delegate_of_a_delegate_may_go_no_deeper(realm):
    issuer = realm.identities["issuer/i1"]
    depths = [one.certificate.depth for one in realm.identities["agent/n9/web/app/0"].chain]
    assert (depths, issuer.certificate.depth) == ([0, 1, 2], 2)
    shallow = realm.below("node/n9", realm.below("node/n9", issuer))
    assert shallow.certificate.depth == 0


@pytest.mark.parametrize(("who", "whom"), [(NODE, AGENT), ("operator/alice", "operator/alice.x7")])
def test_who_has_less_than_is_usual_for_its_name_gives_nobody_what_is_usual(realm, who, whom):
    above, below = realm.identities[who].certificate, realm.identities[whom].certificate
    assert widens(above, below) == ""
    lacking = [replace(above, publish=tuple(one for one in above.publish if one != left)) for left in above.publish]
    told = {subset(below.publish, one.publish): widens(one, below) for one in lacking}
    assert told[False] == f"certificate of {whom} grants more than {who} may give"
    assert told.get(True, "") == ""


def test_what_an_earlier_version_did_not_give_is_not_delegated(realm):
    operator = realm.identities["operator/alice"]
    raw = replace(operator.certificate, publish=operator.certificate.publish[1:], quota=500)
    older = Identity(operator.key, (issue(raw, realm.root),))
    told = realm.below("operator/alice.x8", older).certificate
    assert (widens(raw, told), told.quota, operator.certificate.publish[0] in told.publish) == ("", 500, False)
    assert set(told.publish) < set(realm.identities["operator/alice.x7"].certificate.publish)


def test_a_certificate_of_a_name_that_no_source_may_have_is_not_made(realm):
    with pytest.raises(InputError, match="'node'") as caught:
        certify(
            "node", bytes(32), issuer="root", signer=realm.root, now_s=realm.now, lifetime_s=1, serial=bytes(16),
        )  # fmt: skip
    assert caught.value.code == "trust.name"
    assert "node/n1" in caught.value.next


def test_a_certificate_has_a_largest_size(realm):
    with pytest.raises(UnusableEventError, match=str(MAX_BYTES)) as caught:
        TrustStore(realm.realm).add(bytes(MAX_BYTES + 1))
    assert caught.value.code == "trust.certificate"
    with pytest.raises(UnusableEventError) as caught:
        TrustStore(realm.realm).add(bytes(MAX_BYTES))
    assert caught.value.code == "event.form"


# Grants ---------------------------------------------------------------------------------------------------------------


def test_a_grant_holds_no_pattern_that_another_one_covers():
    for name in ("operator/alice", "issuer/i1", NODE, AGENT, "broker/b1", "controller/c1", "monitor/n1", "root"):
        patterns = publish_patterns(name)
        assert list(patterns) == sorted(set(patterns))
        for pattern in patterns:
            topic = pattern.replace("+", "z") + ("z" if pattern.endswith("/") else "")
            assert [other for other in patterns if matches(other, topic)] == [pattern]


READERS = [
    ("agent/n1/web/app/0", {"broker/", "config/", "node/n1/", "service/web/", "app/web/", "tombstone/service/web"}),
    ("monitor/n1", {"broker/", "config/", "node/"}),
    (NODE, {"/"}),
    ("operator/alice", {"/"}),
]


@pytest.mark.parametrize(("name", "patterns"), READERS)
def test_an_agent_and_a_monitor_read_what_concerns_them_and_all_others_everything(name, patterns):
    assert set(read_patterns(name)) == patterns
