"""Revoking a key in the middle of an update: who revokes is told what would wait for what nobody believes any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good, Slot
from dsmt.event.records import to_data
from dsmt.operations.write import revoking
from dsmt.ports.bus import Draft
from tests.controllers.build import spec, web

from .test_revoking import Seat, seated


@pytest.mark.parametrize("by", ["operator/eve.x1", "operator/bob"])
def test_who_ends_a_key_in_the_middle_of_an_update_is_told_what_would_wait_for_its_revision(tmp_path: Path, by: str) -> None:
    async def test(seat: Seat) -> None:
        assert seat.thief is not None
        bob, controller = await seat.made.client("operator/bob"), await seat.made.client("controller/c1")
        alice = await seat.connection("operator/alice")

        async def warned(*drop: str) -> list[str]:
            return await revoking.updating(alice, await revoking.claim(alice, "operator/eve"), drop=drop)

        async def stands():
            return next(one for one in await revoking.shared_facts(bob) if one.event.topic == "service/web/spec")

        first = await stands()
        good = Good(spec=str(first.id), revision=1)
        before = Slot(node="n1", spec=good.spec, revision=1, desired="running", good=good)
        await controller.publish(Draft("service/web/slot/app/0", to_data(before), version=1))
        assert await warned() == []
        sayer = seat.thief if by == seat.thief.source else bob
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
