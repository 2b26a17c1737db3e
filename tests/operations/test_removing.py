"""Removing a service of which nobody who is believed has said what it is: its operator's key was revoked (rule J3)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsmt.controllers.loop.runner import ControllerRunner
from dsmt.errors import NotFoundError
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Slot
from dsmt.event.records import to_data
from dsmt.operations.read.realm.sight import look
from dsmt.operations.read.screens.alert import Found
from dsmt.operations.read.screens.alerting import alerts
from dsmt.operations.words.targets import Target, slots_of
from dsmt.operations.write import removing
from dsmt.operations.write.applying import say_spec
from dsmt.ports.bus import Draft
from dsmt.trust.revocations import topic_of
from tests.bus.idle import run_alone
from tests.bus.realm import TestRealm, memory_network, realm
from tests.controllers.build import Realm, spec, web
from tests.controllers.test_resaying import controlling
from tests.controllers.test_run_in_fleet import joined
from tests.operations.sights import sight
from tests.waiting import until

EVIL = "service/evil/spec"


def of_evil(instances: int, by: str) -> dict[str, Any]:
    return to_data(SpecFact(spec=spec(web(instances, service="evil")), by=by, reason=""))


async def poisoned(made: TestRealm, *, buried: bool = False) -> None:
    """A service runs at its second revision; `buried`: that of somebody else was ended before."""
    await made.broker()
    await joined(made, "n1")
    eve = await made.client("operator/eve")
    if buried:
        al = await made.client("operator/al")
        await al.publish(Draft(EVIL, of_evil(1, "al")))
        await al.publish(Draft("tombstone/service/evil", {"by": "al", "reason": ""}))
    first = eve.emit(Draft(EVIL, of_evil(1, "eve"), epoch=1 + buried))
    await first.acknowledged()
    await eve.publish(Draft(EVIL, of_evil(2, "eve"), replaces=first))


async def revoke(made: TestRealm) -> None:
    (eve,) = [one for one in made.tasks if getattr(one, "source", "") == "operator/eve"]
    root = await made.client("root", identity=made.identity("root"))
    await root.publish(Draft(topic_of(eve._identity.key.key_id, "root"), {"by": "root", "name": "operator/eve"}))  # type: ignore[attr-defined]


def slots(one: ControllerRunner) -> list[Any]:
    return list(one.view.services["evil"].slots.values()) if "evil" in one.view.services else []


@pytest.mark.parametrize("buried", [False, True])
@pytest.mark.parametrize("ends", [True, False])
def test_what_runs_and_nobody_has_applied_is_told_and_removed_or_applied_anew(
    tmp_path: Path, ends: bool, buried: bool
) -> None:
    async def main() -> None:
        async with realm(memory_network(), tmp_path) as made, asyncio.timeout(40):
            await poisoned(made, buried=buried)
            async with controlling(await made.client("controller/c1")) as one:
                await until(lambda: len(slots(one)) == 2)
                await revoke(made)
                await until(lambda: one.view.winner(EVIL) is None and "evil" in one.view.services)
                bob = await made.client("operator/bob")
                seen = await look(bob)
                told = {alert.target: alert for alert in alerts(seen, Found())}
                assert told["evil"].code == "service.unsaid"
                assert "evil/app/0, evil/app/1" in told["evil"].message
                if ends:
                    done = await removing.remove(bob, "evil", by="bob", reason="")
                    assert done.instances == ["evil/app/0", "evil/app/1"]
                    await until(lambda: all(s.fact is None or s.fact.record.desired == "gone" for s in slots(one)))
                else:
                    record = SpecFact(spec=spec(web(1, service="evil")), by="bob", reason="")
                    assert await say_spec(bob, seen, record, "evil") == 3
                    await until(lambda: next(s.fact.record.revision for s in slots(one) if s.fact is not None) == 3)
                assert "evil" not in {alert.target for alert in alerts(await look(bob), Found())}

    run_alone(main())


def test_of_what_an_operator_has_applied_or_has_removed_nobody_is_told_so() -> None:
    made = Realm("n1")
    made.apply(web(1))
    made.settle()
    assert alerts(sight(made), Found()) == []
    assert removing.epoch_of(sight(made), "web") == 1
    assert slots_of(made.view, Target("web"))
    with pytest.raises(NotFoundError, match="there is no service other"):
        removing.epoch_of(sight(made), "other")


def left_alone(*slots: str, desired: str = "running") -> Realm:
    """Slots that are wanted though no spec of their service is believed."""
    made = Realm("n1")
    for slot in slots:
        made.say("controller/c1", f"service/{slot}", Slot(node="n1", spec="operator/eve@1-1", revision=1, desired=desired))
    return made


def test_slots_that_are_to_go_and_services_that_nobody_can_read_are_not_said_to_run_though_nobody_has_applied_them() -> None:
    made = left_alone("evil/slot/app/0", "evil/slot/db/0", "evil/slot/app/1", "odd/slot/app/0")
    for slot in ("evil/slot/app/1", "old/slot/app/0"):
        made.say("controller/c1", f"service/{slot}", Slot(node="n1", spec="operator/eve@1-1", revision=1, desired="gone"))
    made.say("operator/bob", "service/odd/spec", {"spec": 7})
    seen = sight(made)
    assert {name: list(map(str, keys)) for name, keys in seen.unsaid.items()} == {"evil": ["evil/app/0", "evil/db/0"]}
    assert [one.target for one in alerts(seen, Found()) if one.code == "service.unsaid"] == ["evil"]
    assert not [one for one in alerts(replace(seen, whole=False), Found()) if one.code == "service.unsaid"]
    with pytest.raises(NotFoundError, match="there is no service old"):
        removing.epoch_of(seen, "old")


def test_what_ends_slots_whose_spec_nobody_believes_names_each_of_their_components_once() -> None:
    made = left_alone("evil/slot/app/0", "evil/slot/app/1", "evil/slot/db/0")
    assert set(removing._stood(sight(made), "evil").spec["components"]) == {"app", "db"}


def test_a_service_that_was_removed_and_is_not_buried_yet_is_not_removed_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with realm(memory_network(), tmp_path) as made, asyncio.timeout(40):
            await made.broker()
            bob = await made.client("operator/bob")
            await bob.publish(Draft(EVIL, of_evil(1, "bob"), version=1))
            await removing.remove(bob, "evil", by="bob", reason="it is not needed")
            again = await removing.remove(bob, "evil", by="eve", reason="")
            assert again.action == "remove"
            entry = (await look(bob)).view.services["evil"]
            assert entry.spec is not None
            said = entry.spec.record
            assert (said.removed, said.by, said.reason) == (True, "bob", "it is not needed")

    run_alone(main())
