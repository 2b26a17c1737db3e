"""A broker that is named by its address, and that the home was never told of: whose key it has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.bus.rules.brokers import BROKERS_FILE, BrokerWords
from dsmt.errors import TransportError
from dsmt.operations.local.home.home import Home, write_secret
from dsmt.operations.local.members import brokers
from dsmt.ports.realm import BrokerAddress
from tests.bus.test_known_brokers import word
from tests.bus.test_next_broker import Trust

OWN = BrokerAddress("10.0.0.1:1", b"own")
LEAF = BrokerAddress("10.0.0.9:1", b"the leaf's key")
REALM: Any = SimpleNamespace(nats=None, addresses=(OWN,), realm=None)
OPERATOR: Any = None


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, BrokerAddress]:
    """What the realm tells of its brokers; while it is empty nobody answers."""
    found: dict[str, BrokerAddress] = {}

    @asynccontextmanager
    async def reading(*_: Any, **__: Any) -> AsyncIterator[Any]:
        if not found:
            raise TransportError("bus.unreachable", "the uplink is down")
        yield SimpleNamespace(bus=None)

    async def announced(_: Any) -> dict[str, BrokerAddress]:
        return found

    monkeypatch.setattr(brokers, "reading", reading)
    monkeypatch.setattr(brokers.brokers, "announced", announced)
    return found


def located(home: Path, *named: str) -> dict[str, bytes]:
    at = [BrokerAddress(address, b"a guess") for address in named]
    return {one.address: one.public for one in asyncio.run(brokers.located(Home(home), OPERATOR, REALM, at))}


def test_the_key_of_a_leaf_that_the_realm_has_told_is_known_while_the_uplink_is_down(
    tmp_path: Path, told: dict[str, BrokerAddress]
) -> None:
    assert located(tmp_path, LEAF.address) == {LEAF.address: b"a guess"}
    told.update(b1=OWN, site=LEAF)
    assert located(tmp_path, LEAF.address) == {LEAF.address: LEAF.public}
    told.clear()
    assert located(tmp_path, LEAF.address) == {LEAF.address: LEAF.public}
    assert located(tmp_path, LEAF.address, "10.0.0.5:1") == {LEAF.address: LEAF.public, "10.0.0.5:1": b"a guess"}
    assert located(tmp_path, OWN.address) == {OWN.address: b"a guess"}, "the home knows its own"


@pytest.mark.usefixtures("told")
def test_the_key_of_one_that_commands_here_were_told_of_is_known_while_no_other_broker_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home that was made before it: on its side of a partition there is no other one that would tell of it."""
    there = [word("b2"), word("l1", leaf=True)]
    trust: Any = Trust(*there)
    words = BrokerWords((), trust)
    assert all(map(words.take, there))
    directory = Home(tmp_path).operator_file.parent
    directory.mkdir(parents=True)
    (directory / BROKERS_FILE).write_bytes(words.kept())
    monkeypatch.setattr("dsmt.programs.bus.TrustStore", lambda _: trust)
    keys = {one.address: one.public for one in words.all}
    assert located(tmp_path, *keys) == keys
    assert len(keys) == len(there)


def test_a_key_that_the_realm_tells_anew_takes_the_place_of_what_was_kept(
    tmp_path: Path, told: dict[str, BrokerAddress]
) -> None:
    told.update(site=LEAF)
    located(tmp_path, LEAF.address)
    told.update(site=BrokerAddress(LEAF.address, b"another"))
    assert located(tmp_path, LEAF.address) == {LEAF.address: b"another"}
    told.clear()
    assert located(tmp_path, LEAF.address) == {LEAF.address: b"another"}
    write_secret(tmp_path / brokers.ADDRESSES, b"no such thing")
    assert located(tmp_path, LEAF.address) == {LEAF.address: b"a guess"}
