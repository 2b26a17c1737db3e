"""What one party may cost a broker (rules A14, D2, B6): who pays, how much, and what is given when there is too much."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from dsmt.bus.rules.quota import BURST, LEAST_LIVE_BYTES, RATE, Certified, Live, Rates, charged, over_live, over_own
from dsmt.bus.rules.shares import owed
from dsmt.trust.certificate import Certificate, SignedCertificate

MIB = 1024 * 1024


def certificate(subject: str, quota: int = 100) -> Certificate:
    return Certificate(
        issuer="x",
        subject=subject,
        public=os.urandom(32),
        issued=0,
        not_before=0,
        not_after=1,
        publish=(),
        read=(),
        depth=0,
        quota=quota,
        serial=b"",
    )


def chain(*subjects: str) -> list[SignedCertificate]:
    return [SignedCertificate(certificate(subject), subject.encode(), b"") for subject in subjects]


@pytest.mark.parametrize(
    ("subjects", "payer"),
    [
        (("node/n1",), "node/n1"),
        (("agent/n1/web/app/0", "node/n1"), "node/n1"),
        (("agent/n1/web/app/0", "node/n1", "issuer/east"), "node/n1"),
        (("operator/alice", "issuer/east"), "operator/alice"),
        (("issuer/east",), "issuer/east"),
    ],
)
def test_what_a_node_certifies_goes_to_the_nodes_account(subjects, payer):
    found = charged(chain(*subjects))
    assert found is not None
    assert found.subject == payer


def test_nobody_pays_for_an_unknown_key():
    assert charged([]) is None


NONE = Live(0, 0)


@dataclass
class Case:
    own: Live = NONE
    every: Live = NONE
    size: int = 500
    adds: int = 1
    limit: int = 1024 * MIB
    quota: int = 100


CASES = {
    "the first": (Case(), ""),
    "the last that its certificate allows": (Case(own=Live(99, 0)), ""),
    "one more than its certificate allows": (Case(own=Live(100, 0)), "certificate"),
    "a larger one in the place of another": (Case(own=Live(100, 0), adds=0), ""),
    "a larger one when its bytes are used up": (Case(own=Live(9, LEAST_LIVE_BYTES), adds=0), "bytes"),
    "a smaller one when its bytes are used up": (Case(own=Live(100, LEAST_LIVE_BYTES), adds=0, size=-1), ""),
    "more bytes than a quarter of a small store": (Case(own=Live(9, MIB), limit=4 * MIB), "bytes"),
    "one more when half of the store is live": (Case(every=Live(9, 2 * MIB), limit=4 * MIB), "half"),
}


@pytest.mark.parametrize("name", CASES)
def test_retained_facts_are_bounded_line_by_line(name):
    case, word = CASES[name]
    said = over_live(
        certificate("node/n1", case.quota), case.own, case.every, size=case.size, adds=case.adds, limit=case.limit
    )
    assert (word in said) if word else not said


def test_a_delegate_has_its_own_quota_beside_its_ancestors():
    assert not over_own(certificate("agent/a", 2), 1)
    assert "agent/a" in over_own(certificate("agent/a", 2), 2)


def test_who_has_spent_its_tokens_waits_and_has_them_again_after_a_while():
    rates = Rates()
    assert rates.may("node/n1", 0.0)
    rates.spend("node/n1", BURST, 0.0)
    assert not rates.may("node/n1", 0.0)
    assert rates.may("node/n2", 0.0)
    assert rates.may("node/n1", 1.0 / RATE * 2)
    rates.spend("node/n1", RATE, 1.0)
    assert not rates.may("node/n1", 1.0)
    rates.forget(1000.0)
    assert rates.may("node/n1", 1000.0)
    assert not rates._spent


def test_who_has_spent_a_part_of_its_tokens_does_not_have_them_again_because_others_are_forgotten():
    rates = Rates(rate=100.0, burst=100.0)
    rates.spend("node/n1", 60.0, 0.0)
    rates.forget(0.1)
    rates.spend("node/n1", 60.0, 0.1)
    assert not rates.may("node/n1", 0.1)


def test_certificates_below_one_ancestor_are_bounded_and_those_that_are_kept_come_again():
    certified = Certified(most=2)
    for raw in (b"a", b"b"):
        assert certified.may("node/n1", raw)
        certified.take("node/n1", raw)
    assert not certified.may("node/n1", b"c")
    assert certified.may("node/n1", b"a")
    assert certified.may("node/n2", b"c")


@pytest.mark.parametrize(
    ("sizes", "budget", "due"),
    [
        ({"a": 10, "b": 20}, 30, {}),
        ({"a": 10, "b": 90}, 50, {"b": 50}),
        ({"a": 60, "b": 60}, 100, {"a": 10, "b": 10}),
        ({"a": 5, "b": 50, "c": 100}, 65, {"b": 20, "c": 70}),
        ({"a": 5}, -1, {"a": 5}),
        ({}, 10, {}),
    ],
)
def test_who_is_below_the_common_share_gives_nothing(sizes, budget, due):
    assert owed(sizes, budget) == due
