"""Revoking a broker's key: one that is heard ends with it, and whoever looks at the brokers is told why it is away."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from dsmt.cli import member_screens
from dsmt.operations.connection import Reading
from dsmt.operations.read.realm.sight import Sight
from dsmt.operations.read.rows.broker_rows import BrokerRow, broker_rows, with_ended
from dsmt.operations.read.rows.certificates import NO_BROKER, WAY_BACK
from dsmt.operations.read.screens.alert import Found
from dsmt.operations.read.screens.alerting import alerts
from dsmt.operations.write import revoking
from dsmt.operations.write.revoking import Claim
from tests.bus.realm import TestRealm, memory_network
from tests.controllers.build import Realm

from .sights import sight
from .test_alerts import certified, stats

HEARD_MS = 120_000


@pytest.mark.parametrize(
    ("said", "ms_ago", "removed", "lives"),
    [(True, 1_000, False, True), (True, HEARD_MS * 10, False, False), (False, 0, False, False), (True, 1_000, True, False)],
    ids=["heard", "heard long ago", "never heard", "removed"],
)
def test_a_broker_that_is_heard_lives_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, said: bool, ms_ago: int, removed: bool, lives: bool
) -> None:
    made, seen = TestRealm(memory_network(), tmp_path), sight(Realm("n1"))
    trust, broker = made.trust(), made.identity("broker/b2", now_s=seen.now_ms // 1000 - 60)
    trust.add_all([signed.raw for signed in broker.chain])
    if said:
        seen.passing.stats["b2"] = (seen.now_ms - ms_ago, stats())
    seen.passing.removed |= {"b2"} if removed else set()

    async def look(*_: Any, passing: bool = False, **__: Any) -> Sight:
        assert passing, "without it nobody hears of brokers"
        return seen

    monkeypatch.setattr(revoking, "look", look)
    claim = Claim(name="broker/b2", key=broker.certificate.key_id.hex(), ours=[], theirs=[])
    connection = cast("Reading", SimpleNamespace(bus=None, trust=trust))
    assert asyncio.run(revoking.live(connection, claim)) == (["broker/b2"] if lives else [])


def test_of_a_broker_whose_key_is_revoked_the_screen_says_that_and_not_what_the_broker_says_of_itself() -> None:
    seen = sight(Realm("n1"))
    for name in ("b1", "b2"):
        seen.passing.stats[name] = (seen.now_ms, stats())
    asked = "broker/b2 is a broker of this realm no more: use 127.0.0.1:4000"
    first, second = broker_rows(seen, [])
    rows = [first, replace(second, alive=False, fault=asked)]
    told = member_screens.brokers(with_ended(rows, (), {"broker/b2", "node/b1"}), seen)
    assert "its key is revoked; next: dsmt broker remove b2" in told.partition("\nb2 ")[2]
    assert "no more" not in told
    assert told.count("is revoked") == 1


@pytest.mark.parametrize(
    ("revoked", "advice"),
    [({"broker/b1"}, "dsmt broker remove b1"), ({"broker/b1", "broker/b2"}, WAY_BACK)],
    ids=["one of two", "both"],
)
def test_the_last_broker_whose_key_is_revoked_is_not_to_be_removed_for_it_cannot_be(revoked: set[str], advice: str) -> None:
    seen = sight(Realm("n1"))
    for name in ("b1", "b2"):
        seen.passing.stats[name] = (seen.now_ms, stats())
    found = [replace(one, alive=f"broker/{one.broker}" not in revoked) for one in broker_rows(seen, [])]
    told = [one for one in alerts(seen, Found(brokers=found, revoked=revoked)) if one.target == "broker/b1"]
    assert [one.next for one in told] == [advice]
    assert (NO_BROKER in told[0].message) == (advice == WAY_BACK)
    assert f"its key is revoked; next: {advice}" in member_screens.brokers(with_ended(found, (), revoked), seen)


def test_of_one_that_is_revoked_and_whose_certificate_has_ended_it_is_told_too_that_it_is_to_be_removed() -> None:
    fields: dict[str, Any] = dict.fromkeys(BrokerRow.__struct_fields__)
    found = [BrokerRow(**fields | {"broker": name, "address": f"{name}:1", "alive": name == "b2"}) for name in ("b1", "b2")]
    seen = sight(Realm("n1"))
    used = certified(seen.now_ms // 1000, broker_b1=-60)
    told = alerts(seen, Found(brokers=found, used=used, revoked={"broker/b1"}))
    assert [one.next for one in told if one.code == "broker.silent"] == ["dsmt broker remove b1"], "no certificate helps it"
