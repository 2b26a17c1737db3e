"""Revoking a key in the middle of an update: who revokes is told what would wait for what nobody believes any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsmt.bus.client.client import BusClient
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good, Slot
from dsmt.event.records import to_data
from dsmt.operations.write import revoking
from dsmt.ports.bus import Draft
from tests.controllers.build import spec, web

from .test_revoking import Seat, seated


async def other_commands(seat: Seat, bob: BusClient) -> BusClient:
    """Another command of the same key, that says something; of the first one nothing stands but the spec."""
    program = seat.made.identity("operator/eve.x2", parent=seat.stolen)
    again = await seat.made.client(program.name, identity=program)
    (colour,) = [one for one in await revoking.shared_facts(bob) if one.event.topic == "config/colour"]
    await again.publish(Draft("config/colour", {"value": "blue"}, replaces=colour))
    return again


@pytest.mark.parametrize("by", ["operator/eve.x2", "operator/bob"])
def test_who_ends_a_key_in_the_middle_of_an_update_is_told_what_would_wait_for_its_revision(tmp_path: Path, by: str) -> None:
    async def test(seat: Seat) -> None:
        bob, controller = await seat.made.client("operator/bob"), await seat.made.client("controller/c1")
        eve, alice = await other_commands(seat, bob), await seat.connection("operator/alice")

        async def warned(*drop: str) -> list[str]:
            return await revoking.updating(alice, await revoking.claim(alice, "operator/eve"), drop=drop)

        async def stands():
            return next(one for one in await revoking.shared_facts(bob) if one.event.topic == "service/web/spec")

        first = await stands()
        good = Good(spec=str(first.id), revision=1)
        before = Slot(node="n1", spec=good.spec, revision=1, desired="running", good=good)
        await controller.publish(Draft("service/web/slot/app/0", to_data(before), version=1))
        assert await warned() == []
        sayer = eve if by == eve.source else bob
        changed = SpecFact(spec=spec(web(3, component="env: {A: b}")), by="x", reason="")
        await sayer.publish(Draft("service/web/spec", to_data(changed), replaces=first))
        (said,) = await warned()
        assert said.startswith("an update of web is under way, and what was there before was applied with this key")
        assert await warned("web") == []
        held = next(one for one in await revoking.shared_facts(bob) if one.event.topic == "service/web/slot/app/0")
        now = Good(spec=str((await stands()).id), revision=2)
        done = Slot(node="n1", spec=now.spec, revision=2, desired="running", former=good, good=now)
        await controller.publish(Draft("service/web/slot/app/0", to_data(done), replaces=held))
        assert await warned() == [], "where it is good it goes back no more"

    seated(tmp_path, test)


def test_what_is_good_by_another_command_of_the_key_is_signed_anew_though_only_its_number_was_changed_since(
    tmp_path: Path,
) -> None:
    """Who revokes has not seen that command's certificate before it asks for what it had said."""

    async def test(seat: Seat) -> None:
        bob, controller = await seat.made.client("operator/bob"), await seat.made.client("controller/c1")
        await other_commands(seat, bob)
        (first,) = [one for one in await revoking.shared_facts(bob) if one.event.topic == "service/web/spec"]
        scaled = SpecFact(spec=spec(web(5)), by="bob", reason="", same=(str(first.id),))
        await bob.publish(Draft("service/web/spec", to_data(scaled), replaces=first))
        good = Good(spec=str(first.id), revision=1)
        slot = Slot(node="n1", spec=str(first.id), revision=1, desired="running", good=good)
        await controller.publish(Draft("service/web/slot/app/0", to_data(slot), version=1))
        claim = await revoking.claim(await seat.connection("operator/alice"), "operator/eve")
        assert "service/web/spec" in claim.ours

    seated(tmp_path, test)
