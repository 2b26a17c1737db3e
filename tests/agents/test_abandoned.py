"""What a node holds by the word of a stolen controller's key: when nobody says it again, what stands is obeyed (J3)."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

from dsmt.agents.node.abandoned import ASK_S, Abandoned
from dsmt.event.envelope import SignedEvent
from dsmt.event.slots import SlotKey
from dsmt.ports.bus import Complete, Cursor, Interest, Notice
from dsmt.ports.realm import KEY_ENDED
from dsmt.together import end_all
from tests.loops import in_virtual_time

from .managed import Managed


def end(at: Managed, *void: SignedEvent) -> None:
    """The key ends that has said these, and the broker gives none of them any more."""
    for one in void:
        at.realm.facts.pop(one.event.topic, None)
    at.realm.void += void
    at.realm.tell(Notice(KEY_ENDED, ""))


@in_virtual_time
async def test_what_stands_is_obeyed_again_though_the_node_had_let_go_of_it() -> None:
    at = Managed()
    at.start()
    spec = at.site.spec()
    good = at.site.assign(spec)
    await at.site.until("running")
    evil = at.site.assign(spec, version=7, desired="gone")
    await at.realm.until(lambda: at.manager is not None and at.manager.slots == ())
    end(at, evil)
    at.realm.facts[good.event.topic] = good
    await at.site.until("running", 2 * ASK_S)
    assert at.told("container")[-1]["generation"] == 1
    at.end()


@in_virtual_time
async def test_what_runs_by_it_goes_on_and_what_stands_is_obeyed() -> None:
    at = Managed()
    at.start()
    spec = at.site.spec()
    good = at.site.assign(spec)
    await at.site.until("running")
    evil = at.site.assign(spec, version=7, restart=9)
    await at.realm.until(lambda: at.told("container")[-1]["generation"] == 7)
    end(at, evil)
    at.realm.facts[good.event.topic] = good
    await at.realm.until(lambda: at.told("container")[-1]["generation"] == 1, 2 * ASK_S)
    assert not at.told("container")[-1]["orphan"]
    assert len(at.node.machine.alive) == 1
    at.site.assign(spec, version=2, desired="stopped")
    await at.realm.until(lambda: not at.node.machine.alive, 60)
    at.end()


@in_virtual_time
async def test_what_runs_here_by_it_alone_ends_where_what_stands_is_earlier_and_names_another_node() -> None:
    """Its agent had heard the later word, and was not told of the earlier one: both nodes ran it for good."""
    at = Managed()
    at.start()
    spec = at.site.spec()
    good = at.site.assign(spec, node="n2", to=("node/n2",))
    at.realm.facts.pop(good.event.topic)
    evil = at.site.assign(spec, version=2)
    await at.site.until("running")
    end(at, evil)
    at.realm.facts[good.event.topic] = good
    await at.realm.until(lambda: at.manager is not None and at.manager.slots == (), 3 * ASK_S)
    assert not at.node.machine.alive
    assert at.told("container")[-1]["state"] == "gone"
    at.end()


@in_virtual_time
async def test_where_nothing_stands_it_is_told_as_an_orphan_and_goes_on_until_somebody_says_what_is_to_be() -> None:
    at = Managed()
    at.start()
    spec = at.site.spec()
    evil = at.site.assign(spec)
    await at.site.until("running")
    end(at, evil)
    await asyncio.sleep(ASK_S / 2)
    assert not at.told("container")[-1]["orphan"], "others have time to say it again"
    await at.realm.until(lambda: at.told("container")[-1]["orphan"] and at.told("agent")[-1]["orphan"], 2 * ASK_S)
    assert len(at.node.machine.alive) == 1
    at.site.assign(spec, version=2, desired="gone")
    await at.realm.until(lambda: at.manager is not None and at.manager.slots == ())
    at.end()


@in_virtual_time
async def test_a_manager_that_begins_after_the_end_asks_too() -> None:
    at = Managed()
    at.start()
    evil = at.site.assign(at.site.spec())
    await at.site.until("running")
    at.realm.facts.pop(evil.event.topic)
    at.realm.void.append(evil)
    assert at.process is not None
    at.process.kill()
    at.start()
    await at.realm.until(lambda: at.told("container")[-1]["orphan"], 3 * ASK_S)
    at.end()


@in_virtual_time
async def test_what_somebody_has_said_again_in_time_is_all_that_is_obeyed() -> None:
    at = Managed()
    at.start()
    spec = at.site.spec()
    evil = at.site.assign(spec)
    await at.site.until("running")
    end(at, evil)
    at.site.assign(spec, version=2)
    await asyncio.sleep(2 * ASK_S)
    assert {told["orphan"] for told in at.told("container")} == {False}
    assert len(at.node.machine.alive) == len(at.node.machine.programs) == 1
    at.end()


@in_virtual_time
async def test_each_key_that_ends_has_its_time_and_what_came_while_it_was_asked_is_not_told_as_left() -> None:
    first, second = SlotKey("web", "app", 0), SlotKey("web", "app", 1)
    held, asked, left = [first], list[float](), list[SlotKey]()
    clock = asyncio.get_running_loop().time

    class Bus:
        @asynccontextmanager
        async def subscribe(self, _interest: Interest) -> AsyncIterator[AsyncIterator[list[Complete]]]:
            async def batches() -> AsyncGenerator[list[Complete], None]:
                asked.append(clock() - began)
                held.append(second)
                yield [Complete(Cursor("s", 1, 0), whole=True)]

            async with aclosing(batches()) as found:
                yield found

    began, never = clock(), cast(Any, None)
    abandoned = Abandoned(cast(Any, Bus()), lambda: list(held), never, left.append)
    task = asyncio.create_task(abandoned.run())
    await asyncio.sleep(ASK_S - 1)
    abandoned.ended()
    await asyncio.sleep(2)
    assert (asked, left) == ([ASK_S], [first])
    await asyncio.sleep(2 * ASK_S)
    assert asked == [ASK_S, 2 * ASK_S]
    await end_all(task)
