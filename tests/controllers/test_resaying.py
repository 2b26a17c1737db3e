"""What a revoked controller signed lives on as another's word: nothing moves, and who comes later sees the same."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dsmt.bus.client.client import BusClient
from dsmt.controllers.loop.resaying import Resaying, again
from dsmt.controllers.loop.runner import ControllerRunner
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good, Slot
from dsmt.event.records import to_data
from dsmt.event.status import State
from dsmt.operations.read.realm.sight import look
from dsmt.ports.bus import Draft
from dsmt.trust.revocations import topic_of
from dsmt.view import View
from tests.bus.idle import run_alone
from tests.bus.realm import TestClock, TestRealm, memory_network, realm
from tests.waiting import until

from .build import Realm, key, spec, web
from .hand import never
from .signing import signed
from .test_run_in_fleet import joined

SLOT, SPEC = "service/web/slot/app/0", "service/web/spec"


@asynccontextmanager
async def controlling(client: BusClient) -> AsyncIterator[ControllerRunner]:
    runner = ControllerRunner(client, TestClock(), client._trust, version="test", pid=None, complain=never)
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        task.cancel()
        await asyncio.wait({task})


def contents(view: View, *prefixes: str) -> dict[str, object]:
    """What stands on the topics below some prefixes."""
    return {s.event.topic: s.event.data for s in view.winners() if s.event.topic.startswith(prefixes)}


def test_a_revoked_controller_s_slots_stay_where_they_are_and_a_late_reader_sees_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with realm(memory_network(), tmp_path) as made, asyncio.timeout(40):
            await made.broker()
            for name in ("n1", "n2", "n3"):
                await joined(made, name)
            eve = made.identity("controller/eve")
            operator = await made.client("operator/alice")
            record = SpecFact(spec=spec(web(3)), by="alice", reason="")
            await operator.publish(Draft("service/web/spec", to_data(record), subject="web"))
            async with controlling(await made.client(eve.name, identity=eve)) as first:
                await until(lambda: len(contents(first.view, "service/web/slot/")) == 3)
                before = contents(first.view, "service/web/slot/")
                async with controlling(await made.client("controller/c1")) as second:
                    await until(lambda: contents(second.view, "service/web/slot/") == before)
                    await _revoke(made, eve.key.key_id)
                    await until(lambda: all(_signer(second.view, topic) == "controller/c1" for topic in before))
                    fresh = (await look(await made.client("operator/late", reads=True))).view
                    assert contents(fresh, "service/web/slot/") == before
                    assert contents(fresh, "service/") == contents(second.view, "service/")
                    assert {fresh.winner(topic).event.version for topic in before} == {2}

    run_alone(main())


def test_what_a_revoked_operator_said_since_counts_for_no_controller_and_what_stood_before_does(tmp_path: Path) -> None:
    """It was said where nobody who could have signed it anew had heard of it."""

    async def main() -> None:
        async with realm(memory_network(), tmp_path) as made, asyncio.timeout(40):
            await made.broker()
            await joined(made, "n1")
            bob, eve = [await made.client(f"operator/{name}") for name in ("bob", "eve")]
            good = bob.emit(
                Draft("service/web/spec", to_data(SpecFact(spec=spec(web(1)), by="bob", reason="")), subject="web")
            )
            await good.acknowledged()
            async with controlling(await made.client("controller/c1")) as one:
                await until(lambda: SLOT in contents(one.view, SLOT))
                poison = to_data(SpecFact(spec=spec(web(3)), by="eve", reason=""))
                await eve.publish(Draft("service/web/spec", poison, subject="web", replaces=good))
                await eve.publish(Draft("service/evil/spec", to_data(SpecFact(spec=spec(web(1)), by="eve", reason=""))))
                await until(lambda: {key.event.topic for key in one.view.winners()} >= {"service/evil/slot/app/0"})
                await until(lambda: len(contents(one.view, "service/web/slot/")) == 3)
                slots = contents(one.view, "service/evil/slot/", "service/web/slot/")
                await _revoke(made, eve._identity.key.key_id)
                await until(lambda: _signer(one.view, SPEC) == "operator/bob" and contents(one.view, SLOT))
                assert "service/evil/spec" not in contents(one.view, "service/")
                await until(lambda: contents(one.view, "service/evil/slot/", "service/web/slot/") == slots)
                anew = to_data(SpecFact(spec=spec(web(1)), by="bob", reason="again"))
                await bob.publish(Draft(SPEC, anew, subject="web", replaces=good))
                gone = "service/web/slot/app/2"
                await until(lambda: dict(contents(one.view, gone)[gone])["desired"] == "gone")  # type: ignore[call-overload]

    run_alone(main())


async def _revoke(made: TestRealm, key_id: bytes) -> None:
    root = await made.client("root")
    await asyncio.wait_for(root.publish(Draft(topic_of(key_id, "root"), {"by": "root"})), 10)


def _signer(view: View, topic: str) -> str:
    held = view.winner(topic)
    return "" if held is None else held.event.source


def test_only_what_a_controller_may_write_is_said_again_with_all_its_data() -> None:
    made = Realm("n1")
    made.apply(web(1))
    made.step()
    slot = made.view.winner(SLOT)
    assert slot is not None
    found = again(made.view.winners(), "controller/c9", lambda signed: signed.event.topic in (SLOT, "service/web/spec"))
    assert [(one.topic, one.data, one.replaces) for one in found] == [(SLOT, slot.event.data, slot)]
    assert found[0].next_version == (slot.event.version or 0) + 1
    assert (found[0].to, found[0].subject) == (slot.event.to, slot.event.subject)
    assert again(made.view.winners(), "controller/c9", lambda _signed: False) == []


@pytest.mark.parametrize(
    ("topic", "data"), [("service/web/barrier/begin/released", {"at_ms": 7}), (SLOT, {"of": "another version"})]
)
def test_what_has_no_record_or_one_of_another_version_is_said_again_as_it_is(topic: str, data: dict[str, Any]) -> None:
    said = signed("controller/eve", topic, data, version=4, ttl=5)
    (found,) = again([said], "controller/c1", lambda _signed: True)
    assert (found.topic, found.data, found.replaces, found.ttl_ms) == (topic, data, said, 5)
    assert found.cause == (said.id,)


def test_a_revision_that_was_rolled_back_is_not_tried_again_when_its_refusal_is_said_by_another() -> None:
    made = Realm("n1", "n2", "n3")
    made.apply(web(3))
    made.settle(seconds=1)
    made.after(100).apply(web(3, component="env: {A: b}"))
    made.step()
    made.status(key(0), made.slot(0).node or "", State.FAILED, parked=True)
    made.settle(seconds=5)
    assert [made.slot(index).revision for index in range(3)] == [1, 1, 1]
    made.publish(
        again(made.view.winners(), "controller/c2", lambda signed: signed.event.source == "controller/c1"), controller="c2"
    )
    made.obey()
    assert made.after(100).settle(seconds=5) == []


YET_TO_COME = Good(spec="nobody#1-1", revision=2**62)


@pytest.mark.parametrize(
    "poison", [{"refuses": YET_TO_COME}, {"refuses": YET_TO_COME, "spec": YET_TO_COME.spec, "revision": 2**62}]
)
def test_no_revision_to_come_is_refused_by_what_a_revoked_controller_said(poison: dict[str, Any]) -> None:
    made = Realm("n1", "n2", "n3")
    made.apply(web(2))
    made.settle(seconds=1)
    made.say("controller/eve", SLOT, msgspec.structs.replace(made.slot(), **poison))
    made.publish(again(made.view.winners(), "controller/c1", lambda signed: signed.event.source == "controller/eve"))
    made.after(100).apply(web(2, component="env: {A: b}"))
    made.settle(seconds=5)
    assert [made.slot(index).revision for index in range(2)] == [2, 2]


def test_no_revision_to_come_was_good_by_what_a_revoked_controller_said() -> None:
    made = Realm("n1", "n2", "n3")
    made.apply(web(2))
    made.settle(seconds=1)
    made.after(100)
    for index in range(2):
        good = Good(spec=made.slot(index).spec, revision=2**62)
        made.say("controller/eve", f"service/web/slot/app/{index}", msgspec.structs.replace(made.slot(index), good=good))
    made.publish(again(made.view.winners(), "controller/c1", lambda signed: signed.event.source == "controller/eve"))
    made.apply(web(2, component="health: {exec: ./check}\nupdate: {deadline: 20s}"))
    made.settle(seconds=1)
    made.after(100).settle(seconds=5)
    assert [made.slot(index).revision for index in range(2)] == [1, 1]


@pytest.mark.parametrize("besides", [set(), {SLOT}])
def test_it_is_said_once_by_turns_and_not_where_something_else_is_decided(besides: set[str]) -> None:
    made = Realm("n1")
    made.apply(web(1))
    made.step()
    assert key(0).service == "web"
    resaying = Resaying("controller/c9", lambda signed: signed.event.topic == SLOT, lambda: 1)

    def due(now: float) -> list[str]:
        return [one.topic for one in resaying.due(made.view, now, waits=lambda _topic: 0.5, besides=besides)]

    said = [] if besides else [SLOT]
    assert [due(now) for now in (0.0, 0.4, 0.6, 1.0, 5.5, 5.7)] == [[], [], said, [], [], said]


def test_each_turn_begins_when_a_key_ends_though_the_same_was_said_again_for_another_before() -> None:
    """All controllers would say it at once."""
    made, ended = Realm("n1"), [1]
    made.apply(web(1))
    made.step()
    resaying = Resaying("controller/c9", lambda one: one.event.topic == SLOT and ended[-1] != 2, lambda: ended[-1])

    def due(now: float, known: int) -> int:
        ended.append(known)
        return len(resaying.due(made.view, now, waits=lambda _topic: 0.5, besides=()))

    turns = ((0.0, 1), (0.6, 1), (9.0, 2), (20.0, 3), (20.4, 3), (20.6, 3))
    assert [due(now, known) for now, known in turns] == [0, 1, 0, 0, 0, 1]


def test_what_was_said_by_a_later_version_and_cannot_be_said_by_this_one_ends_no_controller(tmp_path: Path) -> None:
    async def main() -> None:
        async with realm(memory_network(), tmp_path) as made, asyncio.timeout(40):
            await made.broker()
            client, complaints = await made.client("controller/c1"), list[str]()
            left = again(
                [signed("controller/eve", SLOT, {"of": "another version"}, version=4, ttl=5)],
                "controller/c1",
                lambda _: True,
            )
            resaying: Any = Resaying(client.source, lambda _: False, lambda: 0)
            resaying.due = lambda *_, **__: left
            told = complaints.append
            runner = ControllerRunner(client, TestClock(), client._trust, version="test", pid=None, complain=told)
            runner._resaying = resaying
            task = asyncio.create_task(runner.run())
            await until(lambda: complaints or task.done())
            assert not task.done()
            assert "cannot be said on service/web/slot/app/0" in complaints[0]
            task.cancel()
            await asyncio.wait({task})

    run_alone(main())


def test_the_node_that_a_slot_names_is_told_though_a_thief_has_addressed_it_to_another_one() -> None:
    evil = Slot(node="n2", spec="operator/alice@1:1", revision=1, desired="running")
    said = signed("controller/eve", SLOT, evil, version=2, epoch=1, to=("node/n1",))
    (intent,) = again([said], "controller/c1", lambda _: True)
    assert intent.to == ("node/n1", "node/n2")
