"""Revoking: a controller's key ends no revocation, and has nobody sign as a service what was never said of it."""

from pathlib import Path
from typing import Any

import pytest

from dsmt.event.kinds.node import NodeVerdict
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good, Slot
from dsmt.event.records import to_data
from dsmt.operations.write import revoking
from dsmt.ports.bus import Draft
from tests.controllers.build import spec, web

from .test_revoking import Seat, seated

OTHER = spec(web(1, service="db").replace("./app", "./another"))


@pytest.mark.parametrize(
    ("topic", "data"),
    [
        ("config/shape", {"value": "round"}),
        ("service/web/spec", to_data(SpecFact(spec={}, by="bob", reason=""))),
        ("service/web/spec", to_data(SpecFact(spec={"components": {"app": 3}}, by="bob", reason=""))),
        ("service/db/spec", to_data(SpecFact(spec=OTHER, by="bob", reason=""))),
    ],
)
def test_what_a_slot_says_to_have_gone_back_to_is_signed_anew_only_if_it_is_a_spec_of_its_service(
    tmp_path: Path, topic: str, data: dict[str, Any]
) -> None:
    async def test(seat: Seat) -> None:
        assert seat.thief is not None
        bob, controller = await seat.made.client("operator/bob"), await seat.made.client("controller/c1")
        first = {one.event.topic: one for one in await seat.facts()}
        before = {"replaces": first[topic]} if topic in first else {"version": 1}
        await bob.publish(Draft(topic, data, **before))
        named = {one.event.topic: one for one in await seat.facts()}[topic]
        if topic in first:
            stands = SpecFact(spec=spec(web(3)), by="eve", reason="")
            await seat.thief.publish(Draft(topic, to_data(stands), replaces=named))
        (stood,) = [one for one in await seat.facts() if one.event.topic == "service/web/spec"]
        refused = Good(spec=str(stood.id), revision=stood.event.version or 0)
        slot = Slot(node="n1", spec=str(named.id), revision=1, desired="running", refuses=refused)
        await controller.publish(Draft("service/web/slot/app/0", to_data(slot), version=1))
        kept, _ = await seat.ended()
        assert "service/web/spec" in kept
        source, said = (await seat.fresh())["service/web/spec"]
        assert (source, said["spec"]) == ("operator/alice", spec(web(3)))

    seated(tmp_path, test)


def test_nobody_is_asked_to_sign_what_a_controller_has_said_of_a_node_or_of_a_removed_service(tmp_path: Path) -> None:
    """Operators may write there, too: the end of a stolen key was refused to who would not sign the thief's words."""

    async def test(seat: Seat) -> None:
        controller = await seat.made.client("controller/c1")
        dead = NodeVerdict(state="left", road="operator", attachments={}, evidence=(), message="it is gone", since_ms=1)
        await controller.publish(Draft("node/n1/verdict", to_data(dead), version=1))
        await controller.publish(Draft("tombstone/service/old", to_data(Tombstone(by="c1", reason="")), version=1, epoch=1))
        alice = await seat.connection("operator/alice")
        claim = await revoking.claim(alice, "controller/c1")
        assert (claim.ours, claim.theirs) == ([], ["node/n1/verdict", "tombstone/service/old"])
        await revoking.stand_in(await seat.connection("controller/stand-in"), claim)
        await revoking.revoke(await seat.connection("root"), claim, by="alice", reason="stolen")
        assert await revoking.wait_for_successors(alice.bus, claim.theirs) == []
        signers = {one.event.topic: one.event.source for one in await seat.facts()}
        assert [signers[topic] for topic in claim.theirs] == ["controller/stand-in"] * 2

    seated(tmp_path, test)
