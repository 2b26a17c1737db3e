"""Managers and agents that die, hang or are killed at any moment are followed by ones that take over what runs."""

import asyncio
import signal
from typing import Any

import pytest
from msgspec.structs import replace

from dsmt.agents.node.hearing import Hearing
from dsmt.agents.rules.container import IDENTITY
from dsmt.event.kinds.broker import SessionFact
from dsmt.event.records import to_data
from dsmt.ports.bus import Arrived, Complete, Cursor, Draft
from dsmt.ports.processes import UNSEEN, Exit
from dsmt.ports.realm import NatsTerms
from dsmt.simulator.engine.run import run
from dsmt.trust.identity import load, root_issued
from dsmt.trust.keys import SecretKey
from tests.loops import in_virtual_time

from . import managed
from .managed import SLOT, Managed
from .memory_bus import EPOCH_MS, Bus
from .world import AgentProcess, Agents, node_config


@in_virtual_time
async def test_a_killed_manager_is_followed_by_one_that_takes_over_what_runs() -> None:
    at = await Managed.running()
    assert at.process is not None
    at.process.kill()
    at.start()
    await at.realm.until(lambda: at.manager is not None and at.manager.slots == (SLOT,))
    await asyncio.sleep(30)
    assert len(at.node.agents.started) == 1
    assert len(at.node.machine.programs) == 1
    assert at.states("agent")[-1] == "running"
    assert at.node.bus is not None
    assert [signed.event.topic for signed in at.node.bus.offered] == [SLOT.topic]
    at.end()


@in_virtual_time
async def test_agents_below_a_key_that_was_rotated_are_followed_by_ones_below_the_new_and_their_programs_live_on() -> None:
    at = await Managed.running()
    assert at.process is not None
    at.process.kill()
    root, key = SecretKey(b"r" * 32), SecretKey(b"m" * 32)
    at.node.identity = root_issued("node/n1", root, key=key, now_s=EPOCH_MS // 1000 + 60, serial=b"2" * 16)
    for _ in range(2):
        at.start()
        await asyncio.sleep(30)
        assert len(at.node.agents.started) == 2
        at.process.kill()
    kept = load(at.node.files.read(f"{SLOT.directory}/{IDENTITY}") or b"", where="test")
    assert kept.chain[1].certificate.key_id == key.key_id
    assert len(at.node.machine.programs) == 1
    assert "failed" not in at.states("agent") + at.site.states()
    assert at.states("agent")[-1] == "running"
    at.end()


def test_no_agent_is_followed_before_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them would both obey."""
    start, beside = Agents.start_agent, list[int]()

    async def started(agents: Agents, directory: str) -> AgentProcess:
        beside.append(sum(one.process.alive for one in agents.started))
        return await start(agents, directory)

    def slowly(agent: AgentProcess, number: int) -> None:
        asyncio.get_running_loop().call_later(1.0, agent.process.send_signal, number)

    async def main() -> None:
        monkeypatch.setattr(Agents, "start_agent", started)
        monkeypatch.setattr(AgentProcess, "signal", slowly)
        at = await Managed.running()
        assert at.process is not None
        at.process.kill()
        root, key = SecretKey(b"r" * 32), SecretKey(b"m" * 32)
        at.node.identity = root_issued("node/n1", root, key=key, now_s=EPOCH_MS // 1000 + 60, serial=b"2" * 16)
        at.start()
        await at.realm.until(lambda: len(at.node.agents.started) == 2)
        assert beside == [0, 0]
        at.end()

    run(main())


@in_virtual_time
async def test_agents_that_were_told_another_bus_are_followed_by_ones_of_the_one_that_carries_the_realm_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = await Managed.running()
    assert at.process is not None
    at.process.kill()
    moved = replace(node_config(), nats=NatsTerms(authority="PEM", replicas=1))
    monkeypatch.setattr(managed, "node_config", lambda: moved)
    for _ in range(2):
        at.start()
        await asyncio.sleep(30)
        assert len(at.node.agents.started) == 2
        at.process.kill()
    assert len(at.node.machine.programs) == 1
    assert "failed" not in at.states("agent") + at.site.states()
    at.end()


@in_virtual_time
async def test_an_agent_that_died_is_started_again_and_its_program_lives_on() -> None:
    at = await Managed.running()
    await asyncio.sleep(5)
    at.node.agents.started[0].process.kill()
    await at.realm.until(lambda: len(at.node.agents.started) == 2)
    await at.realm.until(lambda: at.states("agent")[-1] == "running")
    assert at.states("agent")[-4:] == ["failed", "initiated", "instantiated", "running"]
    failed = [told for told in at.told("agent") if told["state"] == "failed"]
    assert failed[0]["reason"]["code"] == "run.signal"
    assert at.told("agent")[-1]["last_exit"] == {**failed[0]["last_exit"], "reason": failed[0]["reason"]}
    await asyncio.sleep(30)
    assert len(at.node.machine.programs) == 1
    at.end()


class Heard:
    """A broker that says of the sessions of a node's sources what a test wants."""

    def __init__(self, at: Managed) -> None:
        self.bus = Bus(at.realm, "broker/b1")
        self.attachments: dict[str, int] = {}

    def say(self, source: str, state: Any, *, how: Any = None) -> None:
        if state == "open":
            self.attachments[source] = self.attachments.get(source, 0) + 1
        told = SessionFact(
            attachment=self.attachments[source],
            state=state,
            how=how,
            since_ms=self.bus.now_ms(),
            incarnation=1,
            pid=1,
            version="0",
            address="127.0.0.1",
        )
        self.bus.emit(Draft(f"broker/b1/session/{source}", to_data(told)))


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "unseen, for its spawner had died"])
def test_an_agent_that_hangs_is_ended_and_followed_by_one_that_takes_over_what_runs(
    seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = AgentProcess.wait

    async def waited(process: AgentProcess) -> Exit:
        ended = await wait(process)
        return ended if seen else UNSEEN

    async def main() -> None:
        monkeypatch.setattr(AgentProcess, "wait", waited)
        at = Managed()
        heard, agent = Heard(at), SLOT.agent("n1")
        at.start()
        at.site.place()
        await at.site.until("running")
        heard.say("node/n1", "open")
        heard.say(agent, "open")
        program = at.node.machine.alive[0]
        heard.say(agent, "silent")
        await asyncio.sleep(25)
        assert len(at.node.agents.started) == 1
        await at.realm.until(lambda: len(at.node.agents.started) == 2, within=20)
        heard.say(agent, "closed", how="timeout")
        heard.say(agent, "open")
        await asyncio.sleep(120)
        assert len(at.node.agents.started) == 2
        assert at.node.machine.alive == [program]

        def reasons() -> list[str]:
            return [told["reason"]["code"] for told in at.told("agent") if told["reason"]]

        assert reasons() == ["run.watchdog"]
        at.node.agents.started[1].signal(signal.SIGKILL)
        await at.realm.until(lambda: len(at.node.agents.started) == 3, within=20)
        assert reasons()[1:] == ["run.signal" if seen else "run.unseen"], "its successor did not hang"
        at.end()

    run(main())


def test_an_agent_that_stands_still_before_it_has_begun_is_ended_and_followed_by_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = Agents.start_agent

    async def started(agents: Agents, directory: str) -> AgentProcess:
        made = await start(agents, directory)
        if len(agents.started) == 1:
            made.process.pause()
        return made

    async def main() -> None:
        monkeypatch.setattr(Agents, "start_agent", started)
        at = Managed()
        at.start()
        at.site.place()
        await asyncio.sleep(25)
        assert (len(at.node.agents.started), at.site.state()) == (1, None)
        await at.site.until("running", within=20)
        await asyncio.sleep(120)
        assert len(at.node.agents.started) == 2
        assert [told["reason"]["code"] for told in at.told("agent") if told["reason"]] == ["run.watchdog"]
        at.end()

    run(main())


@in_virtual_time
async def test_agents_of_a_node_that_is_silent_itself_or_not_attached_are_not_ended_for_their_silence() -> None:
    at = Managed()
    heard, agent = Heard(at), SLOT.agent("n1")
    at.start()
    at.site.place()
    await at.site.until("running")
    for source in ("node/n1", agent):
        heard.say(source, "open")
        heard.say(source, "silent")
    await asyncio.sleep(120)
    heard.say("node/n1", "open")
    await asyncio.sleep(25)
    heard.say(agent, "open")
    heard.say(agent, "silent")
    at.realm.up.clear()
    await asyncio.sleep(120)
    assert len(at.node.agents.started) == 1
    at.end()


@in_virtual_time
async def test_a_silence_counts_only_for_as_long_as_this_manager_itself_saw_it(monkeypatch: pytest.MonkeyPatch) -> None:
    at = Managed()
    heard, agent = Heard(at), SLOT.agent("n1")
    hearing = Hearing("n1", heard.bus)
    heard.say("node/n1", "open")
    heard.say(agent, "open")
    heard.say(agent, "silent")
    for row, signed in enumerate(at.realm.log, 1):
        hearing.take(Arrived(signed, row, live=True))
    hearing.take(Complete(Cursor("store", len(at.realm.log), 0), whole=True))
    ahead_ms = heard.bus.now_ms() + 3_600_000
    monkeypatch.setattr(heard.bus, "now_ms", lambda: ahead_ms)  # realm time steps: that is no silence
    assert not any(hearing.hung(now) for now in (5.0, 10.0, 15.0, 20.0, 25.0, 30.0))
    assert hearing.hung(35.0) == {agent}
    assert not hearing.hung(60.0), "it stood still itself, and what it read before is no evidence"
    assert not any(hearing.hung(now) for now in (65.0, 70.0, 75.0, 80.0, 85.0))
    assert hearing.hung(90.0) == {agent}


@in_virtual_time
async def test_an_agent_that_keeps_dying_is_started_ever_more_slowly() -> None:
    at = Managed()
    at.start()
    at.site.place()
    for count in range(1, 8):
        await at.realm.until(lambda count=count: len(at.node.agents.started) == count)
        await asyncio.sleep(0.01)
        at.node.agents.started[-1].process.kill()
    began = asyncio.get_running_loop().time()
    await at.realm.until(lambda: len(at.node.agents.started) == 8)
    assert asyncio.get_running_loop().time() - began > 1
    at.end()


def test_both_killed_at_any_moment_end_with_one_agent_and_one_program() -> None:
    for step in range(1, 40):

        async def main(step: int = step) -> None:
            at = Managed()
            at.start()
            at.site.place()
            await asyncio.sleep(step * 0.001)
            assert at.process is not None
            at.process.kill()
            if step % 2:
                for one in at.node.agents.started:
                    one.process.kill()
            at.start()
            await at.realm.until(lambda: at.site.health() == "none")
            assert len([one for one in at.node.agents.started if one.process.alive]) == 1
            assert len(at.node.machine.alive) == 1
            at.end()

        run(main())
