"""What only a node's manager hears reaches the agent of the slot, whose own session may be at a broker that is cut off."""

import asyncio
import signal
from typing import Any

import pytest

from dsmt.agents.node import telling
from dsmt.agents.node.telling import TELL_AFTER_S
from dsmt.agents.rules.container import POKE, SLOT, TOLD
from dsmt.agents.shared.kept import keep
from dsmt.errors import FailedError
from dsmt.event.envelope import Event
from dsmt.event.kinds.slot import Previous
from dsmt.ports.bus import Draft, Interest
from dsmt.ports.processes import Exit
from dsmt.simulator.engine.run import run
from tests.loops import in_virtual_time

from . import memory_bus
from .managed import SLOT as KEY
from .managed import Managed
from .memory_bus import Realm
from .world import AgentProcess, Site

SOON_S = TELL_AFTER_S + 0.2
AGENT = KEY.agent("n1")
DIRECTORY = KEY.directory


class Pokes:
    """The agent hears nothing more of its slot by the bus; the pokes that were sent, which may come to nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent = 0
        self.lost = False
        self.deaf = True
        wants, send = memory_bus.wants, AgentProcess.signal

        def heard(interest: Interest, source: str, event: Event) -> bool:
            return wants(interest, source, event) and not (self.deaf and source == AGENT and event.topic == KEY.topic)

        def signalled(process: AgentProcess, number: int) -> None:
            self.sent += number == POKE
            if number != POKE or not self.lost:
                send(process, number)

        monkeypatch.setattr(memory_bus, "wants", heard)
        monkeypatch.setattr(AgentProcess, "signal", signalled)


@pytest.fixture
def pokes(monkeypatch: pytest.MonkeyPatch) -> Pokes:
    return Pokes(monkeypatch)


async def heard_by_the_agent(at: Managed, pokes: Pokes) -> Any:
    """The spec of what runs, when the agent has kept it, and hears nothing more."""
    pokes.deaf = False
    at.start()
    at.site.place()
    await at.site.until("running")
    await asyncio.sleep(SOON_S)
    pokes.deaf = True
    return at.site.spec_of()


@pytest.mark.parametrize("about", [{"desired": "stopped"}, {"desired": "gone"}, {"node": "n2"}])
@in_virtual_time
async def test_what_only_the_manager_hears_ends_what_runs_within_two_seconds(pokes: Pokes, about: dict[str, Any]) -> None:
    at = Managed()
    at.site.assign(await heard_by_the_agent(at, pokes), version=2, to=("node/n1",), **about)
    await asyncio.sleep(SOON_S)
    assert not at.node.machine.alive
    assert at.site.state() == ("stopped" if "desired" in about and about["desired"] == "stopped" else "gone")
    assert pokes.sent == 1
    at.end()


def test_what_only_an_agent_has_heard_is_obeyed_by_the_next_one_though_neither_it_nor_the_manager_hears_it(
    pokes: Pokes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manager writes down what is the greatest that it knows itself, and no lesser fact over a greater one."""
    hears = memory_bus.wants
    pokes.deaf = False

    def heard(interest: Interest, source: str, event: Event) -> bool:
        return hears(interest, source, event) and (source, event.topic, event.version) != ("node/n1", KEY.topic, 2)

    monkeypatch.setattr(memory_bus, "wants", heard)

    async def main() -> None:
        at = await Managed.running()
        at.site.assign(at.site.spec_of(), version=2, desired="stopped")
        await at.site.until("stopped")
        pokes.deaf = True
        at.node.agents.started[-1].process.kill()
        await at.realm.until(lambda: len(at.node.agents.started) == 2)
        await asyncio.sleep(SOON_S)
        assert (at.site.state(), at.site.statuses()[-1]["generation"]) == ("stopped", 2)
        assert not at.node.machine.alive
        at.end()

    run(main())


@in_virtual_time
async def test_a_copy_that_is_previous_by_a_fact_that_only_the_manager_heard_stays_until_the_deadline(pokes: Pokes) -> None:
    at = Managed()
    spec = await heard_by_the_agent(at, pokes)
    before = Previous(node="n1", generation=1, deadline_ms=memory_bus.Clock().wall_ms() + 60_000)
    at.site.assign(spec, version=2, node="n2", previous=before)
    await asyncio.sleep(50)
    assert at.node.machine.alive
    await asyncio.sleep(15)
    assert not at.node.machine.alive
    at.end()


@in_virtual_time
async def test_what_only_the_manager_hears_starts_again_what_was_stopped(pokes: Pokes) -> None:
    at = Managed()
    spec = await heard_by_the_agent(at, pokes)
    at.site.assign(spec, version=2, desired="stopped")
    await asyncio.sleep(SOON_S)
    at.site.assign(spec, version=3)
    await asyncio.sleep(SOON_S)
    assert len(at.node.machine.alive) == 1
    assert at.site.statuses()[-1]["generation"] == 3
    at.end()


@in_virtual_time
async def test_who_hears_in_time_is_not_poked_and_nothing_is_written(pokes: Pokes) -> None:
    at = Managed()
    spec = await heard_by_the_agent(at, pokes)
    pokes.deaf = False
    for version in (2, 3, 4):
        at.site.assign(spec, version=version, desired="stopped")
        await asyncio.sleep(SOON_S)
    assert at.site.statuses()[-1]["generation"] == 4
    await asyncio.sleep(3600)
    assert pokes.sent == 0
    assert at.node.files.read(f"{DIRECTORY}/{TOLD}") is None
    at.end()


@in_virtual_time
async def test_what_a_manager_told_and_did_not_poke_for_is_obeyed_when_the_next_one_is_there(pokes: Pokes) -> None:
    at = Managed()
    spec = await heard_by_the_agent(at, pokes)
    pokes.lost = True
    at.site.assign(spec, version=2, desired="stopped")
    await asyncio.sleep(SOON_S)
    assert at.node.machine.alive
    assert at.process is not None
    at.process.kill()
    del at.realm.facts[KEY.topic]  # and nobody says it again
    pokes.lost = False
    at.start()
    await asyncio.sleep(SOON_S)
    assert at.site.state() == "stopped"
    assert not at.node.machine.alive
    at.end()


@in_virtual_time
async def test_an_agent_that_knew_no_poke_lives_on_and_the_next_one_obeys(pokes: Pokes) -> None:
    at = Managed()
    spec = await heard_by_the_agent(at, pokes)
    agent = at.node.agents.started[-1]
    agent.process.on_signal(POKE, None)  # as an agent of an earlier version
    at.site.assign(spec, version=2, desired="stopped")
    await asyncio.sleep(SOON_S)
    assert pokes.sent == 1
    assert agent.process.alive
    agent.process.kill()
    await asyncio.sleep(SOON_S)
    assert at.site.state() == "stopped"
    assert not at.node.machine.alive
    at.end()


@in_virtual_time
async def test_an_agent_that_stands_still_when_it_is_poked_obeys_when_it_goes_on(pokes: Pokes) -> None:
    at = Managed()
    spec = await heard_by_the_agent(at, pokes)
    agent = at.node.agents.started[-1].process
    agent.send_signal(signal.SIGSTOP)
    at.site.assign(spec, version=2, desired="stopped")
    await asyncio.sleep(20)
    assert at.node.machine.alive
    agent.send_signal(signal.SIGCONT)
    await asyncio.sleep(SOON_S)
    assert not at.node.machine.alive
    at.end()


@in_virtual_time
async def test_what_comes_while_an_agent_is_on_its_way_is_told_when_it_is_there(pokes: Pokes) -> None:
    at = Managed()
    spec = await heard_by_the_agent(at, pokes)
    processes, start = at.node.agents, at.node.agents.start_agent

    async def slowly(directory: str) -> AgentProcess:
        made = await start(directory)
        await asyncio.sleep(5)
        return made

    processes.start_agent = slowly  # type: ignore[method-assign]
    at.node.agents.started[-1].process.kill()
    await asyncio.sleep(1)
    at.site.assign(spec, version=2, desired="stopped")
    await asyncio.sleep(5 + SOON_S)
    assert not at.node.machine.alive
    at.end()


@in_virtual_time
async def test_a_lesser_fact_that_was_told_undoes_nothing() -> None:
    site = Site(Realm())
    spec = site.spec()
    lesser = site.assign(spec, version=2, desired="stopped")
    site.assign(spec, version=3)
    agent = site.start()
    await site.until("running")
    assert site.bus is not None
    keep(site.files.below(DIRECTORY), TOLD, lesser, site.bus)
    agent.send_signal(POKE)
    await asyncio.sleep(SOON_S)
    assert site.state() == "running"
    assert site.machine.alive
    agent.kill()


@in_virtual_time
async def test_an_agent_looks_at_its_start_for_what_it_was_told_before_it_could_be_poked() -> None:
    site = Site(Realm())
    spec = site.spec()
    site.assign(spec)
    agent = site.start()
    await site.until("running")
    agent.kill()
    greater = site.assign(spec, version=2, desired="stopped")
    del site.realm.facts[KEY.topic]
    assert site.bus is not None
    files = site.files.below(DIRECTORY)
    keep(files, TOLD, greater, site.bus)
    agent = site.start()
    await site.until("stopped")
    assert not site.machine.alive
    assert files.read(SLOT) == files.read(TOLD), "it is kept as what came by the bus is"
    agent.kill()


@in_virtual_time
async def test_a_spec_that_the_agent_lacks_is_left_to_the_bus_and_what_runs_is_started_again_meanwhile(pokes: Pokes) -> None:
    at = Managed()
    spec = await heard_by_the_agent(at, pokes)
    at.site.assign(at.site.spec_bus.seal(Draft(spec.event.topic, spec.event.data, version=2)), version=2)
    await asyncio.sleep(SOON_S)
    assert pokes.sent == 0
    at.node.machine.alive[0].end(Exit(1, None))
    await asyncio.sleep(5)
    assert at.node.machine.alive
    at.end()


def test_a_manager_whose_disk_is_full_lives_on_and_tells_when_there_is_room(
    pokes: Pokes, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = True

    def keep_if_there_is_room(*what: Any) -> None:
        if full:
            raise FailedError("fetch.no_space", "no space", need="1 KiB", path=TOLD, free="0")
        keep(*what)

    async def main() -> None:
        nonlocal full
        monkeypatch.setattr(telling, "keep", keep_if_there_is_room)
        at = Managed()
        at.site.assign(await heard_by_the_agent(at, pokes), version=2, desired="stopped")
        await asyncio.sleep(60)
        assert pokes.sent == 0
        assert at.process is not None
        assert at.process.alive
        full = False
        await asyncio.sleep(SOON_S)
        assert not at.node.machine.alive
        at.end()

    run(main())
