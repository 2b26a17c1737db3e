"""What was cut short in a home: who types it again, or goes back, has all of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import AsyncMock

import msgspec
import pytest

from dsmt.operations.local.home import making
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.home.making import ensure_broker, init
from dsmt.operations.local.members import servers
from dsmt.operations.local.members.brokers import meshed, of_home
from dsmt.operations.local.moving import migrating, ways
from dsmt.programs.configuration import BrokerFile

from .test_migrating import under_way
from .test_more_brokers import KilledError, killing


def test_a_broker_that_is_made_again_at_another_address_is_known_there_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    with monkeypatch.context() as patch:
        killing(patch, making, "write_secret")
        with pytest.raises(KilledError):
            ensure_broker(home, "b2", listen="127.0.0.1:19998")
    ensure_broker(home, "b2", listen="127.0.0.1:19999")
    assert home.realm().brokers == tuple((at.address, at.public) for at in of_home(home).values())


@pytest.mark.parametrize("step", ["set_realm", "reach_at", "write_secret"])
def test_a_broker_whose_making_was_cut_short_is_known_in_its_home_when_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    home = Home(tmp_path / "home")
    init(home, name="test")
    with monkeypatch.context() as patch:
        killing(patch, making, step)
        with pytest.raises(KilledError):
            ensure_broker(home, "b2")
    ensure_broker(home, "b2")
    assert meshed(home).keys() == {"b1", "b2"}, "whom dsmt up announces"
    told = [BrokerFile.read(home.part("brokers", name)).realm for name in ("b1", "b2")]
    assert told == [home.realm()] * 2
    assert len(home.realm().brokers) == 2


def test_who_aborts_a_cut_that_was_killed_has_the_key_for_further_servers_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "nats")
    realm = init(home, name="test", nats=True, brokers=3)
    under_way(home, cut=True, engine="dsmt")
    made = home.root / "migration/brokers/b1"
    way = ways.WAYS["dsmt"]
    way.make(home, [made], msgspec.structs.replace(realm, brokers=realm.brokers[:1], nats=None))
    way.settle(made)
    monkeypatch.setattr(migrating, "start_all", AsyncMock())
    asyncio.run(migrating.abort(home))
    assert servers.key_of(home)
