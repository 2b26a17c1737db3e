"""Rolling back: what is said of artifacts that are gone; and past what nobody can read."""

from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from dsmt.bus.client.client import BusClient
from dsmt.event.envelope import Event
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good, Slot
from dsmt.operations.read.realm.sight import look
from dsmt.operations.read.rows.past import ServicePast, history
from dsmt.operations.write import applying
from dsmt.operations.write.rolling_back import rollback
from dsmt.operations.write.writing import follow, say
from dsmt.spec.mistakes import BadSpecEventError
from tests.controllers.build import spec, web
from tests.controllers.signing import signed

from .test_past import run, spec_id


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_rollback_to_what_needs_an_artifact_that_is_in_the_depot_no_more_says_so(tmp_path: Path, is_kept: bool) -> None:
    digest = sha256(b"content").digest()

    async def content() -> AsyncIterator[bytes]:
        yield b"content"

    async def work(alice: BusClient, _: BusClient) -> None:
        needs = f"artifact: {{url: 'depot:a.tar', sha256: '{digest.hex()}'}}\n"
        for text in (web(1, component=needs), web(1)):
            fact = SpecFact(spec=spec(text), by="alice", reason="")
            await applying.say_spec(alice, await look(alice), fact, "web")
        if is_kept:
            await alice.put_blob(content(), digest)
        done = await rollback(alice, "web", 4, by="alice", reason="")
        gone = "r4 names a.tar, which is in the depot no more: it is not installed where no node has kept it"
        assert done.warnings == ([] if is_kept else [f"{gone}; next: apply its file again, with that"])

    run(tmp_path, work)


def test_who_names_no_revision_does_not_end_the_service_by_going_back(tmp_path: Path) -> None:
    """It had been scaled to nothing for a while."""

    async def work(alice: BusClient, controller: BusClient) -> None:
        async def applied(instances: int, env: int) -> None:
            plain = spec(web(instances, component=f"env: {{LOG: '{env}'}}\n"))
            fact = SpecFact(spec=plain, by="alice", reason="")
            await applying.say_spec(alice, await look(alice), fact, "web")

        await applied(1, 4)
        good = Good(spec=await spec_id(alice), revision=4)
        slot = Slot(node="n1", spec=good.spec, revision=4, desired="running", good=good)
        await say(controller, [follow((await look(controller)).view, "service/web/slot/app/0", slot, subject="web/app/0")])
        await applied(0, 4)
        await applied(1, 6)
        assert (await rollback(alice, "web", None, by="alice", reason="")).again == 4
        assert (await rollback(alice, "web", 5, by="alice", reason="")).again == 5

    run(tmp_path, work)


@pytest.mark.parametrize("unreadable", [{}, {"components": None}, {"components": 5}, {"components": "app"}])
def test_a_revision_that_nobody_can_read_keeps_nobody_from_the_history_and_from_the_way_back(
    tmp_path: Path, unreadable: dict[str, Any]
) -> None:
    async def work(alice: BusClient, _: BusClient) -> None:
        for said in (unreadable, spec(web(4))):
            record = SpecFact(spec=said, by="alice", reason="")
            await say(alice, [follow((await look(alice)).view, "service/web/spec", record, subject="web")])
        found = await history(alice, await look(alice), "web")
        assert [(one.revision, one.state) for one in found][:3] == [(5, ["current"]), (4, []), (3, ["refused"])]
        with pytest.raises(BadSpecEventError):
            await rollback(alice, "web", 4, by="alice", reason="")
        done = await rollback(alice, "web", None, by="alice", reason="")
        assert (done.revision, done.again) == (6, 2)
        assert (await history(alice, await look(alice), "web"))[0].reason == "back to r2"

    run(tmp_path, work)


def test_of_however_many_revisions_with_another_number_of_instances_each_is_looked_at_once() -> None:
    class Counted(dict[str, tuple[str, ...]]):
        looked = 0

        def get(self, key: str, default: Any = None) -> Any:
            Counted.looked += 1
            return super().get(key, default)

    told, events, plain = ServicePast(_same=Counted()), list[Event](), spec(web(1))
    for number in range(1, 401):
        record = SpecFact(spec=plain, by="alice", reason="", same=tuple(str(one.id) for one in events[:-9:-1]))
        about = {"version": number, "sequence": number}
        events.append(signed("operator/alice", "service/web/spec", record, **about).event)
        told.take(events[-1])
    told.good = {"app": {Good(spec=str(events[0].id), revision=1)}}
    assert all(map(told.is_good, events))
    assert Counted.looked <= len(events)
