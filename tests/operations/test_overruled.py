"""Who was overruled on the other side of a partition sees it in `why`: a hold, a move, a drain. At brokers in memory."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dsmt.bus.client.client import BusClient
from dsmt.cli.nodeset import screen as nodeset_screen
from dsmt.cli.screens import overruled
from dsmt.cli.why_screen import screen
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Slot
from dsmt.event.topic import PATTERNS_MOST
from dsmt.operations.read.realm.sight import look
from dsmt.operations.read.rows.overruled import OverruledWord
from dsmt.operations.read.why.explaining import Explained, why
from dsmt.operations.words.targets import Target
from dsmt.operations.write import applying, braking, brokers, controlling, declaring, node_control, nodesets, removing
from dsmt.operations.write.writing import anew, follow, say
from dsmt.spec.parsing import parse
from dsmt.trust.store import Realm as RealmName
from dsmt.trust.store import TrustStore
from tests import waiting
from tests.bus.meshes import at, held, mesh
from tests.bus.realm import memory_network, realm
from tests.bus.test_leaf import cut
from tests.controllers.build import key, spec, web
from tests.loops import in_real_time
from tests.waiting import until

from .test_past import applying_attributes

Says = Callable[[BusClient, str, bool], Awaitable[object]]
TARGET = Target.parse("web/app/0")
TRUST = TrustStore(RealmName(name="test", roots=(bytes(32),)))


async def holds(who: BusClient, by: str, first: bool) -> None:
    known = (await look(who)).view.slot(key())
    held_ = known is not None and known.hold is not None
    act = controlling.stop if first else controlling.start if held_ else controlling.restart
    await act(who, Target.parse("web/app/0"), by=by, reason=f"says {by}")


async def governs(who: BusClient, by: str, first: bool) -> None:
    await node_control.set_mode(who, "n1", "draining" if first else "excluded", by=by, reason=f"says {by}")


@pytest.mark.parametrize("more", [0, 2])
@pytest.mark.parametrize(("says", "target"), [(holds, "web/app/0"), (holds, "web"), (governs, "node/n1")])
@in_real_time
async def test_a_word_that_was_overruled_is_told_by_why_at_each_broker(
    says: Says, target: str, more: int, tmp_path: Path
) -> None:
    """Also where what stands has another number, for more was said on its side."""
    async with asyncio.timeout(60), realm(memory_network(), tmp_path) as made:
        b1, b2 = await mesh(made, "b1", "b2")
        ann, eve = await made.client("operator/ann", brokers=at(b1)), await made.client("operator/eve", brokers=at(b2))
        await (await made.client("monitor/n1", brokers=at(b1))).publish(applying_attributes())
        fact = SpecFact(spec=spec(web(2)), by="ann", reason="")
        await applying.say_spec(ann, await look(ann), fact, "web")
        await until(lambda: held(b1) == held(b2))

        async def told(who: BusClient) -> Explained:
            return (await why(who, TRUST, target)).explained

        async with cut(made, b2, [b1]):
            await says(ann, "ann", True)
            await says(eve, "eve", False)
            for number in range(more):
                await says(ann, "ann", bool(number))
            assert [one.overruled for one in (await told(ann), await told(eve))] == [[], []]
        await until(lambda: held(b1) == held(b2))
        for who in (ann, eve):
            found = await told(who)
            assert [one.event["data"]["by"] for one in found.overruled] == ["eve"]
            (line,) = [one for one in screen(found, events=False) if "overruled" in one]
            assert "another" not in line
            assert "eve" in line
            assert line.endswith("repeat this one if you still want it")
        if target == "web/app/0":
            assert (await why(ann, TRUST, "web/app/1")).explained.overruled == []
        for first in (False, True):
            await says(eve, "eve", first)
            assert (await told(ann)).overruled == [], "it is settled by her next word"


@pytest.mark.parametrize("is_made", [False, True])
@in_real_time
async def test_a_move_that_was_overruled_is_told_by_why_unless_it_was_made(is_made: bool, tmp_path: Path) -> None:
    """Who repeats one that was made moves it once more."""
    async with asyncio.timeout(60), realm(memory_network(), tmp_path) as made:
        b1, b2 = await mesh(made, "b1", "b2")
        ann, eve = await made.client("operator/ann", brokers=at(b1)), await made.client("operator/eve", brokers=at(b2))
        controller = await made.client("controller/c1", brokers=at(b2))
        await (await made.client("monitor/n1", brokers=at(b1))).publish(applying_attributes())
        fact = SpecFact(spec=spec(web(2)), by="ann", reason="")
        await applying.say_spec(ann, await look(ann), fact, "web")
        await until(lambda: held(b1) == held(b2))
        async with cut(made, b2, [b1]):
            await controlling.restart(ann, TARGET, by="ann", reason="")
            await controlling.stop(ann, TARGET, by="ann", reason="")
            await controlling.move(eve, TARGET, None, accept_data_loss=False, by="eve", reason="")
            there = (await look(eve)).view
            asked = there.slot(key())
            assert asked is not None
            slot = Slot(
                node="n2",
                spec=str(there.services["web"].spec.id),  # type: ignore[union-attr]
                revision=1,
                desired="running",
                move_number=asked.effective_control.move_number if is_made else 0,
            )
            await say(controller, [follow(there, key().topic, slot, subject=str(key()))])
        await until(lambda: held(b1) == held(b2))
        found = (await why(ann, TRUST, "web/app/0")).explained.overruled
        assert [one.event["data"]["by"] for one in found] == ([] if is_made else ["eve"])


@pytest.mark.parametrize("again", [False, True])
@in_real_time
async def test_a_hold_on_a_service_that_was_removed_and_made_anew_on_the_other_side_is_told_by_why(
    again: bool, tmp_path: Path
) -> None:
    async with asyncio.timeout(60), realm(memory_network(), tmp_path) as made:
        b1, b2 = await mesh(made, "b1", "b2")
        ann, eve = await made.client("operator/ann", brokers=at(b1)), await made.client("operator/eve", brokers=at(b2))
        controller = await made.client("controller/c1", brokers=at(b1))
        fact = SpecFact(spec=spec(web(2)), by="ann", reason="")
        await applying.say_spec(ann, await look(ann), fact, "web")
        await controlling.stop(ann, Target.parse("web/app/1"), by="ann", reason="says ann")
        await until(lambda: held(b1) == held(b2))
        async with cut(made, b2, [b1]):
            await removing.remove(ann, "web", by="ann", reason="")
            await applying.say_spec(ann, await look(ann), fact, "web")
            placed = Slot(node="n1", spec=str((await look(ann)).view.services["web"].spec.id), revision=1, desired="running")
            for one in (key(), key(1)):
                await controller.publish(anew((await look(ann)).view, one.topic, placed, subject=str(one)))
            if again:  # and spoken of there, before
                await controlling.restart(ann, Target.parse("web/app/0"), by="ann", reason="says ann")
            await controlling.stop(eve, Target.parse("web/app/0"), by="eve", reason="says eve")
            await controlling.start(eve, Target.parse("web/app/0"), by="eve", reason="says more")
        await until(lambda: held(b1) == held(b2))
        for who in (ann, eve):
            found = (await why(who, TRUST, "web/app/0")).explained
            told = [one.event["data"]["reason"] for one in found.overruled]
            assert told == ["says more", "says eve"], "the last first"
            lines = [one for one in screen(found, events=False) if "overruled" in one]
            assert all(line.endswith("repeat this one if you still want it") for line in lines)
            whole = (await why(who, TRUST, "web")).explained.overruled
            assert [one.event["data"]["reason"] for one in whole] == told, "what was said before the end is none"
        await controlling.restart(eve, Target.parse("web/app/0"), by="eve", reason="")
        assert (await why(ann, TRUST, "web/app/0")).explained.overruled == []


@in_real_time
async def test_a_word_on_more_instances_than_one_question_has_topics_is_said_and_explained(tmp_path: Path) -> None:
    async with asyncio.timeout(60), realm(memory_network(), tmp_path) as made:
        (b1,) = await mesh(made, "b1")
        ann = await made.client("operator/ann", brokers=at(b1))
        many = PATTERNS_MOST + 50
        await applying.say_spec(ann, await look(ann), SpecFact(spec=spec(web(many)), by="ann", reason=""), "web")
        for act in (controlling.stop, controlling.start):
            assert len((await act(ann, Target.parse("web"), by="ann", reason="")).instances) == many
        assert (await why(ann, TRUST, "web")).explained.overruled == []


@in_real_time
async def test_who_says_what_is_so_already_is_told_of_a_broker_that_is_not_heard(tmp_path: Path) -> None:
    async with asyncio.timeout(60), realm(memory_network(), tmp_path) as made:
        b1, b2 = await mesh(made, "b1", "b2")
        ann, eve = await made.client("operator/ann", brokers=at(b1)), await made.client("operator/eve", brokers=at(b2))
        await (await made.client("monitor/n1", brokers=at(b1))).publish(applying_attributes())
        declared = [declaring.Declared(parse(web(2), file="t")[0], tmp_path, ())]
        await applying.apply(ann, declared, by="ann", reason="")
        controller = await made.client("controller/c1", brokers=at(b1))
        seen = (await look(ann)).view
        placed = Slot(node="n1", spec=str(seen.services["web"].spec.id), revision=1, desired="running")
        await controller.publish(anew(seen, key().topic, placed, subject=str(key())))
        await until(lambda: held(b1) == held(b2))

        async def says() -> list[list[str]]:
            """What is so already, in three ways: the warnings."""
            start = await controlling.start(eve, Target.parse("web/app/0"), by="eve", reason="")
            include = await node_control.set_mode(eve, "n1", "active", by="eve", reason="")
            (again,) = await applying.apply(eve, declared, by="eve", reason="")
            assert (start.instances, include.changed, again.outcome) == ([], False, "unchanged")
            return [start.warnings, include.warnings, again.warnings]

        async def lost_brokers() -> object:
            return (await look(eve)).fleet.lost_brokers

        assert await says() == [[], [], []]
        async with cut(made, b2, [b1]):
            await controlling.stop(ann, Target.parse("web/app/0"), by="ann", reason="")
            await waiting.told(lost_brokers, "b1 is lost to who is at b2", 20)
            warned = await says()
        assert [len(one) for one in warned] == [1, 1, 1]
        assert all(one[0].startswith("b1 is not heard at b2: what was said there since is not known") for one in warned)


@in_real_time
async def test_nobody_is_warned_of_a_broker_that_was_removed(tmp_path: Path) -> None:
    async with asyncio.timeout(60), realm(memory_network(), tmp_path) as made:
        b1, b2 = await mesh(made, "b1", "b2")
        eve, known = await made.client("operator/eve", brokers=at(b2)), {"b1": at(b1)[0], "b2": at(b2)[0]}
        await (await made.client("monitor/n1", brokers=at(b2))).publish(applying_attributes())
        await brokers.announce(eve, known, by="eve", reason="")
        await made.stop(b1)

        async def lost_brokers() -> object:
            return (await look(eve)).fleet.lost_brokers

        async def warned() -> list[str]:
            return (await node_control.set_mode(eve, "n1", "active", by="eve", reason="")).warnings

        await waiting.told(lost_brokers, "b1 is lost to who is at b2", 20)
        assert len(await warned()) == 1
        await brokers.remove(eve, "b1", known, by="eve", reason="")
        assert await lost_brokers()
        assert await warned() == []


async def names(who: BusClient, by: str, first: bool) -> None:
    await nodesets.define(who, "good", "all_nodes" if first else "minus(all_nodes, failed)", by=by, reason=f"says {by}")


async def brakes(who: BusClient, by: str, first: bool) -> None:
    await (braking.hold if first else braking.release)(who, by=by, reason=f"says {by}")


async def of_the_set(who: BusClient) -> tuple[list[OverruledWord], str]:
    found = await nodesets.show(who, "good")
    return found.overruled, nodeset_screen(found)


async def of_the_brake(who: BusClient) -> tuple[list[OverruledWord], str]:
    found = await braking.show(who)
    return found.overruled, "\n".join(map(overruled, found.overruled))


@pytest.mark.parametrize(
    ("says", "shows", "said"), [(names, of_the_set, "minus(all_nodes, failed)"), (brakes, of_the_brake, "release")]
)
@in_real_time
async def test_a_set_or_a_brake_that_was_overruled_is_told_where_it_is_shown(
    says: Says, shows: Callable[[BusClient], Awaitable[tuple[list[OverruledWord], str]]], said: str, tmp_path: Path
) -> None:
    async with asyncio.timeout(60), realm(memory_network(), tmp_path) as made:
        b1, b2 = await mesh(made, "b1", "b2")
        ann, eve = await made.client("operator/ann", brokers=at(b1)), await made.client("operator/eve", brokers=at(b2))
        async with cut(made, b2, [b1]):
            await says(ann, "ann", True)
            await says(eve, "eve", False)
            assert [(await shows(who))[0] for who in (ann, eve)] == [[], []]
        await until(lambda: held(b1) == held(b2))
        for who in (ann, eve):
            (word,), screen_ = await shows(who)
            assert (word.said, word.by, word.reason) == (said, "eve", "says eve")
            assert f'  overruled: {said}, by eve: "says eve"; another change came first' in screen_
        await says(eve, "eve", False)
        assert await shows(ann) == ([], (await shows(ann))[1])
