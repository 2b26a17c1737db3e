"""What one party may cost a broker (rules A14, D2, B6): who pays, how much, and what is given when there is too much."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.broker.accounts import Accounts
from dsmt.bus.rules.quota import (
    BURST,
    FACT_BYTES,
    LEAST_LIVE_BYTES,
    RATE,
    Certified,
    FactTotals,
    Rates,
    charged,
    is_delegate,
    over_live,
    over_own,
    over_shelf,
)
from dsmt.bus.rules.shares import owed
from dsmt.errors import UnusableEventError
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
    assert is_delegate(chain(*subjects)) == (payer != subjects[0])


def test_nobody_pays_for_an_unknown_key():
    assert charged([]) is None
    assert not is_delegate([])


NONE = FactTotals(0, 0)
MANY = LEAST_LIVE_BYTES // FACT_BYTES
"""Facts of which the bytes are as many as everybody may hold."""


@dataclass
class Case:
    own: FactTotals = NONE
    every: FactTotals = NONE
    size: int = 500
    adds: int = 1
    limit: int = 1024 * MIB
    quota: int = 100


CASES = {
    "the first": (Case(), ""),
    "the last that its certificate allows": (Case(own=FactTotals(99, 0)), ""),
    "one more than its certificate allows": (Case(own=FactTotals(100, 0)), "certificate"),
    "a larger one in the place of another": (Case(own=FactTotals(100, 0), adds=0), ""),
    "a larger one when its bytes are used up": (Case(own=FactTotals(9, LEAST_LIVE_BYTES), adds=0), "bytes"),
    "a smaller one when its bytes are used up": (Case(own=FactTotals(100, LEAST_LIVE_BYTES), adds=0, size=-1), ""),
    "one as large when it has more bytes than it may": (Case(own=FactTotals(9, 2 * LEAST_LIVE_BYTES), adds=0, size=0), ""),
    "one as large when it has more than its new certificate allows": (Case(own=FactTotals(200, 0), adds=0, size=0), ""),
    "a larger one when it has more than its new certificate allows": (Case(own=FactTotals(200, 0), adds=0), "certificate"),
    "one byte more when its bytes are used up": (Case(own=FactTotals(9, LEAST_LIVE_BYTES), adds=0, size=1), "bytes"),
    "the last byte of its own": (Case(own=FactTotals(9, LEAST_LIVE_BYTES - 500)), ""),
    "more bytes for who may have more facts": (Case(own=FactTotals(9, LEAST_LIVE_BYTES), quota=2 * MANY), ""),
    "the last byte for who may have more facts": (Case(own=FactTotals(9, 2 * LEAST_LIVE_BYTES - 500), quota=2 * MANY), ""),
    "too many bytes for who may have more facts": (Case(own=FactTotals(9, 2 * LEAST_LIVE_BYTES), quota=2 * MANY), "bytes"),
    "the last byte of the half that may be live": (Case(every=FactTotals(9, 2 * MIB - 500), limit=4 * MIB), ""),
    "more bytes than a quarter of a small store": (Case(own=FactTotals(9, MIB), limit=4 * MIB), "bytes"),
    "one more when half of the store is live": (Case(every=FactTotals(9, 2 * MIB), limit=4 * MIB), "half"),
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
    assert over_own(certificate("agent/a", 2), 2).startswith("agent/a has 2 live facts")


def test_what_a_delegate_has_ended_makes_room_for_as_much_after_the_next_commit():
    agent, node = certificate("agent/n1/web/app/0", 2), certificate("node/n1", 100)
    signed = [SignedCertificate(one, one.subject.encode(), b"") for one in (agent, node)]
    trust: Any = SimpleNamespace(chain=lambda *_: signed, certificate=lambda *_: signed[0])
    held = [0]
    facts: Any = SimpleNamespace(limit_bytes=2**40, live=lambda _: (held[0], 0), live_facts=lambda _: held[0])
    accounts = Accounts(node, trust, facts)
    said: Any = SimpleNamespace(key_id=b"k", event=SimpleNamespace(source=agent.subject), size=100)
    for _ in range(2):
        accounts.charge(said, None)
    with pytest.raises(UnusableEventError, match="has 2 live facts, and its certificate allows 2"):
        accounts.charge(said, None)
    held[0] = 2
    accounts.committed()
    with pytest.raises(UnusableEventError, match="has 2 live facts, and its certificate allows 2"):
        accounts.charge(said, None)
    held[0] = 1
    accounts.committed()
    accounts.charge(said, None)


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


def test_who_has_a_token_left_may_whatever_it_spent_before():
    rates = Rates(rate=1.0, burst=100.0)
    rates.spend("node/n1", 99.5, 0.0)
    assert rates.may("node/n1", 0.0)
    rates.spend("node/n1", 0.5, 0.0)
    assert not rates.may("node/n1", 0.0)
    rates.forget(99.5)
    rates.spend("node/n1", 99.5, 99.5)
    assert not rates.may("node/n1", 99.5), "half a token that is still missing is not forgotten"


def test_certificates_below_one_ancestor_are_bounded_and_those_that_are_kept_come_again():
    certified = Certified(most=2)
    for raw in (b"a", b"b"):
        assert certified.may("node/n1", raw)
        certified.take("node/n1", raw)
    assert not certified.may("node/n1", b"c")
    assert certified.may("node/n1", b"a")
    assert certified.may("node/n2", b"c")
    certified.drop(b"a")
    assert certified.may("node/n1", b"c")
    certified.take("node/n1", b"c")
    assert not certified.may("node/n1", b"a")
    for raw in (b"b", b"c"):
        certified.drop(raw)
    assert not certified._kept


@pytest.mark.parametrize(
    ("own", "every", "size", "full"),
    [
        (0, 0, 16 * 1024, False),
        (0, 0, 16 * 1024 + 1, True),
        (16 * 1024 - 1, 0, 1, False),
        (16 * 1024, 0, 1, True),
        (0, 64 * 1024 - 1, 1, False),
        (0, 64 * 1024, 1, True),
    ],
)
def test_the_shelf_is_a_sixteenth_of_the_store_and_a_quarter_of_that_for_one_ancestor(own, every, size, full):
    assert over_shelf(own, every, size=size, limit=MIB) is full


@pytest.mark.parametrize(
    ("sizes", "budget", "due"),
    [
        ({"a": 10, "b": 20}, 30, {}),
        ({"a": 10, "b": 90}, 50, {"b": 50}),
        ({"a": 60, "b": 60}, 100, {"a": 10, "b": 10}),
        ({"a": 5, "b": 50, "c": 100}, 65, {"b": 20, "c": 70}),
        ({"a": 100, "b": 5}, 65, {"a": 40}),
        ({"c": 50, "a": 50, "b": 50}, 100, {"a": 17, "b": 17, "c": 16}),
        ({"a": 5}, -1, {"a": 5}),
        ({}, 10, {}),
    ],
)
def test_who_is_below_the_common_share_gives_nothing(sizes, budget, due):
    assert owed(sizes, budget) == due
