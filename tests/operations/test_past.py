"""A service's past: its revisions and what became of each; and back to one of them. At a broker in memory."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dsmt.bus.client.client import BusClient
from dsmt.errors import InputError, NotFoundError
from dsmt.event.envelope import ChainLink, Event
from dsmt.event.hlc import hlc
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good, Slot
from dsmt.event.reason import reason
from dsmt.event.records import to_data
from dsmt.event.status import State
from dsmt.operations.read.realm.sight import look
from dsmt.operations.read.rows.past import Revision, ServicePast, good_now, history, running_now
from dsmt.operations.words.targets import Target
from dsmt.operations.write import applying, braking, nodesets, revising
from dsmt.operations.write.rolling_back import rollback
from dsmt.operations.write.writing import bury, follow, say
from dsmt.ports.bus import Draft
from dsmt.view import SlotKey
from tests.bus.meshes import at, held, mesh
from tests.bus.realm import memory_network, realm
from tests.bus.test_leaf import cut
from tests.controllers.build import Realm, spec, web
from tests.loops import in_real_time
from tests.waiting import until

from .sights import sight
from .test_writing import ATTRIBUTES

Work = Callable[[BusClient, BusClient], Awaitable[None]]


def run(directory: Path, work: Work) -> None:
    """Do something as alice, beside a controller, where three revisions of web were applied and the third refused."""

    async def main() -> None:
        specs: dict[int, str] = {}
        async with asyncio.timeout(30), realm(memory_network(), directory) as made:
            await made.broker()
            alice, controller = await made.client("operator/alice"), await made.client("controller/c1")
            node = await made.client("monitor/n1")
            await node.publish(applying_attributes())
            for number in (1, 2, 3):
                text = web(1, component=f"env: {{LOG: '{number}'}}\n")
                fact = SpecFact(spec=spec(text), by="alice", reason=f"the {number}.")
                await applying.say_spec(alice, await look(alice), fact, "web")
                specs[number] = await spec_id(alice)
            why = reason("rollout.rolled_back", rev="r3", its="it was not ready", good="r2")
            good, bad = (Good(spec=specs[number], revision=number) for number in (2, 3))
            for slot in (
                Slot(node="n1", spec=good.spec, revision=2, desired="running", good=good),
                Slot(node="n1", spec=good.spec, revision=2, desired="running", refuses=bad, reason=why, good=good),
            ):
                view = (await look(controller)).view
                await say(controller, [follow(view, "service/web/slot/app/0", slot, subject="web/app/0")])
            await work(alice, controller)

    asyncio.run(main())


async def spec_id(bus: BusClient) -> str:
    stands = (await look(bus)).view.services["web"].spec
    assert stands is not None
    return str(stands.id)


def applying_attributes() -> Draft:
    return Draft("node/n1/attributes", to_data(ATTRIBUTES))


def test_history_says_of_each_revision_by_whom_why_and_what_became_of_it(tmp_path: Path) -> None:
    async def work(alice: BusClient, _: BusClient) -> None:
        found = await history(alice, await look(alice), "web")
        assert [(one.revision, one.by, one.reason, one.state) for one in found] == [
            (3, "alice", "the 3.", ["current", "refused"]),
            (2, "alice", "the 2.", ["good"]),
            (1, "alice", "the 1.", []),
        ]
        assert "r3 failed (it was not ready)" in (found[0].refusal or "")
        with pytest.raises(NotFoundError, match="there is no service db"):
            await history(alice, await look(alice), "db")

    run(tmp_path, work)


def test_what_follows_a_refused_revision_with_another_number_is_said_to_be_refused_as_everywhere_else(
    tmp_path: Path,
) -> None:
    async def work(alice: BusClient, _: BusClient) -> None:
        await revising.scale(alice, Target.parse("web/app"), 2, by="alice", reason="")
        found = (await history(alice, await look(alice), "web"))[:2]
        assert [(one.revision, one.state) for one in found] == [(4, ["current", "refused"]), (3, ["refused"])]

    run(tmp_path, work)


def test_what_another_number_of_instances_followed_was_good_as_that_is(tmp_path: Path) -> None:
    async def work(alice: BusClient, controller: BusClient) -> None:
        await rollback(alice, "web", 1, by="alice", reason="")
        await revising.scale(alice, Target.parse("web/app"), 2, by="alice", reason="")
        good = Good(spec=await spec_id(alice), revision=5)
        slot = Slot(node="n1", spec=good.spec, revision=5, desired="running", good=good)
        await say(controller, [follow((await look(controller)).view, "service/web/slot/app/0", slot, subject="web/app/0")])
        found = await history(alice, await look(alice), "web")
        assert [one.revision for one in found if "good" in one.state] == [5, 4, 2]

    run(tmp_path, work)


def test_a_rollback_says_the_last_good_revision_again_as_a_new_one(tmp_path: Path) -> None:
    async def work(alice: BusClient, _: BusClient) -> None:
        done = await rollback(alice, "web", None, by="alice", reason="slow")
        assert (done.outcome, done.revision) == ("applied", 4)
        entry = (await look(alice)).view.services["web"]
        assert entry.spec is not None
        assert entry.spec.record.spec == spec(web(1, component="env: {LOG: '2'}\n"))
        assert entry.spec.record.reason == "back to r2: slow"

    run(tmp_path, work)


def test_a_rollback_to_what_was_never_good_names_it(tmp_path: Path) -> None:
    async def work(alice: BusClient, _: BusClient) -> None:
        assert (await rollback(alice, "web", None, by="alice", reason="")).warnings == []
        twice, said = (await rollback(alice, "web", None, by="alice", reason="")).warnings
        assert twice == 'r4 was a rollback itself, by alice: "back to r2"; dsmt rollback web --to 4 is the way back to it'
        assert said.startswith("no revision before was good in each component: this is r1 again, the one before")

    run(tmp_path, work)


def test_a_rollback_to_a_revision_by_its_number_and_to_none_that_is_there(tmp_path: Path) -> None:
    async def work(alice: BusClient, _: BusClient) -> None:
        done = await rollback(alice, "web", 1, by="alice", reason="")
        assert done.revision == 4
        assert (await rollback(alice, "web", 1, by="alice", reason="")).outcome == "unchanged"
        with pytest.raises(NotFoundError, match="the history has no r9 of web") as refused:
            await rollback(alice, "web", 9, by="alice", reason="")
        assert "r1, r2, r3, r4" in refused.value.next

    run(tmp_path, work)


def test_a_rollback_to_what_was_refused_says_so(tmp_path: Path) -> None:
    async def work(alice: BusClient, _: BusClient) -> None:
        assert (await rollback(alice, "web", 2, by="alice", reason="")).warnings == []
        (said,) = (await rollback(alice, "web", 3, by="alice", reason="")).warnings
        assert said.startswith("r3 was refused when it was applied: ")
        assert said.endswith("; it is tried again")

    run(tmp_path, work)


def test_who_changes_only_the_number_of_what_was_refused_is_told_so_by_each_screen(tmp_path: Path) -> None:
    async def work(alice: BusClient, _: BusClient) -> None:
        await revising.scale(alice, Target("web"), 2, by="alice", reason="")
        more, tried, *_ = await history(alice, await look(alice), "web")
        assert (more.revision, more.state, tried.state) == (4, ["current", "refused"], ["refused"])
        assert tried.refusal == "r3 failed (it was not ready); back on r2"
        assert more.refusal == f"as r3, with another number of instances: {tried.refusal}"
        (said,) = (await rollback(alice, "web", 3, by="alice", reason="")).warnings
        assert said.endswith("back on r2; it stays so, for only the number of instances is another one")

    run(tmp_path, work)


def test_a_rollback_wants_the_instances_of_the_revision_that_it_goes_back_to(tmp_path: Path) -> None:
    async def work(alice: BusClient, _: BusClient) -> None:
        more = SpecFact(spec=spec(web(5, component="env: {LOG: '4'}\n")), by="alice", reason="")
        await applying.say_spec(alice, await look(alice), more, "web")
        assert (await rollback(alice, "web", 2, by="alice", reason="")).wanted == 1

    run(tmp_path, work)


def test_a_second_hold_of_the_brake_keeps_the_first_reason_or_names_it(tmp_path: Path) -> None:
    async def work(alice: BusClient, _: BusClient) -> None:
        first = await braking.hold(alice, by="operator/bob", reason="new switches")
        assert (first.kept, first.replaced_by) == (False, None)
        second = await braking.hold(alice, by="operator/alice", reason="")
        assert (second.kept, second.by, second.reason) == (True, "bob, signed by alice", "new switches")
        third = await braking.hold(alice, by="operator/alice", reason="new cables")
        assert (third.by, third.reason) == ("alice", "new cables")
        assert (third.replaced_by, third.replaced_reason) == ("bob, signed by alice", "new switches")

    run(tmp_path, work)


def test_no_set_hides_a_node_and_what_is_said_of_one_keeps_its_reason(tmp_path: Path) -> None:
    async def work(alice: BusClient, _: BusClient) -> None:
        with pytest.raises(InputError, match="n1 is a node, and a set of that name would hide it"):
            await nodesets.define(alice, "n1", "all_nodes", by="alice")
        made = await nodesets.define(alice, "good", "n1", by="alice", reason="no broken ones")
        assert (made.reason, made.hides) == ("no broken ones", None)
        await nodesets.forget(alice, "good", by="alice", used=False, reason="not needed")
        grave = (await look(alice)).view.winner("tombstone/nodeset/good")
        assert grave is not None
        assert grave.event.data["reason"] == "not needed"

    run(tmp_path, work)


def test_what_is_unchanged_says_how_much_of_it_is_ready(tmp_path: Path) -> None:
    async def work(alice: BusClient, controller: BusClient) -> None:
        sight = await look(alice)
        assert (applying.unchanged(sight, "web", 3).ready, applying.unchanged(sight, "web", 3).wanted) == (0, 1)
        done = await revising.scale(alice, Target("web", "app"), 1, by="alice", reason="")
        assert (done.outcome, done.ready, done.wanted) == ("unchanged", 0, 1)

    run(tmp_path, work)


def test_a_revision_has_the_reason_that_it_was_given_and_no_earlier_one(tmp_path: Path) -> None:
    async def work(alice: BusClient, _: BusClient) -> None:
        for count, why in ((2, "the fair begins"), (3, "")):
            await revising.scale(alice, Target("web", "app"), count, by="alice", reason=why)
            held = (await look(alice)).view.services["web"].spec
            assert held is not None
            assert held.record.reason == why

    run(tmp_path, work)


def test_a_count_that_is_likely_a_slip_needs_a_yes(tmp_path: Path) -> None:
    async def work(alice: BusClient, _: BusClient) -> None:
        for count in (100, 1000, 10_101, 0, 99):
            likely = "from 1000 to 10101 instances of web/app is more than 10 times as many" if count == 10_101 else ""
            assert await revising.slip(alice, Target("web"), count) == likely
            await revising.scale(alice, Target("web"), count, by="alice", reason="")

    run(tmp_path, work)


def test_a_service_of_one_component_stands_for_it_and_one_of_two_is_asked_which(tmp_path: Path) -> None:
    async def work(alice: BusClient, _: BusClient) -> None:
        scaled = await revising.scale(alice, Target("web"), 2, by="alice", reason="")
        assert scaled.wanted == 2
        both = SpecFact(spec=spec(web(1) + "  cron:\n    run: [./cron]\n    instances: 1\n"), by="alice", reason="")
        await applying.say_spec(alice, await look(alice), both, "web")
        for change in (
            revising.scale(alice, Target("web"), 3, by="alice", reason=""),
            revising.use_nodes(alice, Target("web"), "n1", by="alice", reason=""),
        ):
            with pytest.raises(InputError, match="web is not a component") as told:
                await change
            assert told.value.next == "write SERVICE/COMPONENT: web/app or web/cron"

    run(tmp_path, work)


def test_what_runs_on_is_good_when_it_has_been_ready_for_long_enough_though_nobody_says_so() -> None:
    made = Realm("n1")
    made.apply(web(1))
    made.settle()
    assert good_now(sight(made), "web") == {}
    made.now_ms += 20_000
    assert {good.revision for good in good_now(sight(made), "web")["app"]} == {1}


def test_a_revision_was_good_when_each_component_was_that_was_ever_to_run() -> None:
    two = web(1) + "  more:\n    run: serve\n  never:\n    run: serve\n"
    told = ServicePast()
    for number in (1, 2, 3):
        told.take(said_by("ann", number, version=number, text=two))
    for component, revision, good in (("app", 1, 1), ("more", 1, 1), ("app", 2, 2), ("more", 2, 1)):
        said = Good(spec=str(told.said[good].id), revision=good)
        told.take_slot(component, Slot(node="n1", spec="x", revision=revision, desired="running", good=said))
    told.take_slot("never", Slot(node="n1", spec="x", revision=2, desired="stopped"))
    assert [told.was_good(number) for number in (1, 2, 3)] == [True, False, False]
    assert [told.was_good(number, in_part=True) for number in (1, 2, 3)] == [True, True, False]


def test_a_revision_runs_when_an_instance_of_it_does_and_not_when_it_is_only_to() -> None:
    made, first = Realm("n1"), SlotKey("web", "app", 0)
    made.apply(web(1))
    made.settle()
    made.status(first, "n1", revision=1)
    earlier = made.slot().spec
    made.apply(web(1, component="env: {LOG: '2'}"))
    made.step()
    assert made.slot().spec != earlier
    assert running_now(sight(made), "web") == {earlier}
    made.status(first, "n1", State.FAILED, revision=2, parked=True)
    assert running_now(sight(made), "web") == set()
    made.status(first, "n1", revision=2)
    assert running_now(sight(made), "web") == {made.slot().spec}


def said_by(by: str, at_ms: int, *, version: int, text: str = "") -> Event:
    """A revision of web."""
    text = text or web(1, component=f"env: {{BY: {by}}}\n")
    return Event(
        source=f"operator/{by}",
        incarnation=1,
        sequence=version,
        chain=ChainLink(version, b""),
        type="dsmt.service.spec",
        topic="service/web/spec",
        subject="web",
        time=hlc(at_ms),
        data=to_data(SpecFact(spec=spec(text), by=by, reason="")),
        version=version,
        epoch=1,
    )


@pytest.mark.parametrize("order", [1, -1], ids=["as it was said", "as it came to the other side"])
def test_of_two_revisions_that_were_said_on_both_sides_of_a_partition_each_is_told_and_the_first_is_gone_back_to(
    order: int,
) -> None:
    first, here, there = (said_by(by, at, version=n) for by, at, n in (("ann", 1, 1), ("bob", 2, 2), ("eve", 3, 2)))
    told = ServicePast()
    for event in (first, *(here, there)[::order], said_by("ann", 4, version=3)):
        told.take(event)
        told.take(event)
    assert [told.specs[number].by for number in (1, 2, 3)] == ["ann", "bob", "ann"]
    assert told.overruled == {there.id: there}
    for spec_id, good in ((there.id, False), (here.id, True)):
        said = Good(spec=str(spec_id), revision=2)
        told.take_slot("app", Slot(node="n1", spec="x", revision=2, desired="running", good=said))
        assert told.was_good(2) == good


async def applies(who: BusClient, said: str, *, removed: bool = False) -> None:
    """Have somebody apply `web` as his own, or remove it, and say so."""
    plain = spec(web(1, component=f"env: {{BY: {said}}}\n"))
    fact = SpecFact(spec=plain, removed=removed, by=said.partition(" ")[0], reason=said)
    await applying.say_spec(who, await look(who), fact, "web")


@in_real_time
async def test_who_was_overruled_on_the_other_side_of_a_partition_sees_it_at_each_broker(tmp_path: Path) -> None:
    async with asyncio.timeout(60), realm(memory_network(), tmp_path) as made:
        b1, b2 = await mesh(made, "b1", "b2")
        ann = await made.client("operator/ann", brokers=at(b1))
        eve = await made.client("operator/eve", brokers=at(b2))

        async def told(who: BusClient) -> list[Revision]:
            return await history(who, await look(who), "web")

        await applies(ann, "ann")
        await until(lambda: held(b1) == held(b2))
        async with cut(made, b2, [b1]):
            await applies(ann, "ann again")
            await applies(eve, "eve")
            assert [one.reason for one in await told(eve)] == ["eve", "ann"]
        await until(lambda: held(b1) == held(b2))
        for who in (ann, eve):
            assert [(one.revision, one.reason, one.state) for one in await told(who)] == [
                (2, "ann again", ["current"]),
                (2, "eve", ["overruled"]),
                (1, "ann", []),
            ]
        await applies(eve, "eve again")
        assert [one.reason for one in await told(eve)] == ["eve again", "ann again", "eve", "ann"]
        await rollback(eve, "web", 2, by="eve", reason="")
        assert (await look(eve)).view.services["web"].parsed.components["app"].env == {"BY": "ann again"}


@in_real_time
async def test_what_was_applied_while_another_one_removed_the_service_is_told_as_overruled(tmp_path: Path) -> None:
    async with asyncio.timeout(60), realm(memory_network(), tmp_path) as made:
        b1, b2 = await mesh(made, "b1", "b2")
        ann = await made.client("operator/ann", brokers=at(b1))
        eve = await made.client("operator/eve", brokers=at(b2))

        async def told(who: BusClient) -> list[tuple[int, str, bool, list[str]]]:
            found = await history(who, await look(who), "web")
            assert all(one.by == one.reason.partition(" ")[0] for one in found)
            return [(one.revision, one.reason, one.removed, one.state) for one in found]

        await applies(ann, "ann")
        await until(lambda: held(b1) == held(b2))
        async with cut(made, b2, [b1]):
            await applies(ann, "ann ends it", removed=True)
            await ann.publish(bury((await look(ann)).view, "service/web", by="c1", reason="it was removed"))
            await applies(eve, "eve")
            await applies(eve, "eve again")
        await until(lambda: held(b1) == held(b2))
        lost = [(3, "eve again", False, ["overruled"]), (2, "eve", False, ["overruled"])]
        for who in (ann, eve):
            assert await told(who) == [lost[0], (2, "ann ends it", True, []), lost[1], (1, "ann", False, [])]
            with pytest.raises(NotFoundError, match="no service web any more: it was removed") as gone:
                await rollback(who, "web", None, by="eve", reason="")
            assert gone.value.next == "dsmt history web"
        await applies(ann, "ann anew")
        assert await told(eve) == [*lost, (1, "ann anew", False, ["current"])]
