"""Purging what a service left that was removed: what is said for it, and of which service it is not said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dsmt.bus.client.client import BusClient
from dsmt.controllers.left_data import data_left
from dsmt.errors import FailedError, NotFoundError
from dsmt.event.kinds.realm import PURGES, LeftData, PurgeWord, Tombstone
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import DataHome
from dsmt.event.records import from_data, to_data
from dsmt.operations.read.realm.facts import stands
from dsmt.operations.read.realm.sight import look
from dsmt.operations.write import removing
from dsmt.operations.write.applying import say_spec
from dsmt.ports.bus import Draft
from tests.bus.idle import run_alone
from tests.bus.realm import memory_network, realm
from tests.controllers.build import spec, web

LEFT = (LeftData(component="app", index=0, home=DataHome(node="n1", key="k")),)


def played(tmp_path: Path, scene: Callable[[BusClient], Awaitable[None]]) -> None:
    async def main() -> None:
        async with realm(memory_network(), tmp_path) as made, asyncio.timeout(40):
            await made.broker()
            await scene(await made.client("operator/bob"))

    run_alone(main())


async def applied(bob: BusClient) -> None:
    await say_spec(bob, await look(bob, of=("web",)), SpecFact(spec=spec(web(1)), by="bob", reason=""), "web")


async def buried(bob: BusClient) -> None:
    record = Tombstone(by="bob", reason="", data=LEFT)
    epoch = (await look(bob, of=("web",))).view.epoch("service/web/spec")
    await bob.publish(Draft("tombstone/service/web", to_data(record), epoch=epoch))


def test_all_nodes_are_told_and_the_service_that_is_made_anew_waits_for_no_node_that_had_its_data(tmp_path: Path) -> None:
    async def scene(bob: BusClient) -> None:
        await applied(bob)
        await buried(bob)
        assert data_left((await look(bob, of=("web",))).fleet, "web") == {("app", 0): LEFT[0].home}
        for data in ({"web/app/0": "n1"}, {}):  # who types it again has it said again
            done = await removing.purge(bob, "web", by="bob", reason="sold")
            assert (done.action, done.data) == ("purge", data)
            said = await stands(bob, f"{PURGES}web")
            assert said is not None
            assert from_data(PurgeWord, said.event.data) == PurgeWord(epoch=1, by="bob", reason="sold")
            assert data_left((await look(bob, of=("web",))).fleet, "web") == {}
        await applied(bob)
        assert (await look(bob, of=("web",))).view.epoch("service/web/spec") == 2

    played(tmp_path, scene)


@pytest.mark.parametrize("made_anew", [False, True])
def test_what_is_there_keeps_its_data(tmp_path: Path, made_anew: bool) -> None:
    async def scene(bob: BusClient) -> None:
        await applied(bob)
        if made_anew:
            await buried(bob)
            await bob.publish(Draft("service/web/spec", to_data(SpecFact(spec=spec(web(1)), by="bob", reason="")), epoch=2))
        with pytest.raises(FailedError, match="its data is kept"):
            await removing.purge(bob, "web", by="bob", reason="")
        assert await stands(bob, f"{PURGES}web") is None

    played(tmp_path, scene)


def test_what_never_was_has_nothing_to_purge(tmp_path: Path) -> None:
    async def scene(bob: BusClient) -> None:
        with pytest.raises(NotFoundError, match="there is no service web"):
            await removing.purge(bob, "web", by="bob", reason="")

    played(tmp_path, scene)
