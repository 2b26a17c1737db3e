"""The container manager with its agents, in the simulator's time, over a bus and a machine in memory."""

import asyncio
import signal
from typing import Any

import pytest

from dsmt.agents.node.container_manager import ContainerManager
from dsmt.agents.node.hearing import Hearing
from dsmt.agents.rules.container import IDENTITY, SlotName
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.broker import Session
from dsmt.event.kinds.realm import Tombstone
from dsmt.event.kinds.slot import Previous
from dsmt.event.records import to_data
from dsmt.ports.bus import Arrived, Complete, Cursor, Draft
from dsmt.ports.processes import Exit
from dsmt.simulator.process import SimProcess
from dsmt.trust.identity import load, root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import Realm as TrustRealm
from dsmt.trust.store import TrustStore

from .world import EPOCH_MS, Bus, Node, Realm, in_virtual_time, node_config, wants

SLOT = SlotName("web", "app", "0")


def buried() -> dict[str, Any]:
    return to_data(Tombstone(by="operator/op", reason="removed"))


TOMBSTONE = "tombstone/service/web"


class Managed:
    """A node whose manager runs as a process of the simulation, and one slot of it."""

    def __init__(self) -> None:
        self.realm = Realm()
        self.node = Node(self.realm)
        self.site = self.node.agents.site(SLOT)
        self.manager: ContainerManager | None = None
        self.process: SimProcess | None = None

    def start(self) -> SimProcess:
        self.process = SimProcess("manager of n1")

        async def main() -> int:
            self.manager = ContainerManager(node_config(), self.node.deps())
            await self.manager.run()
            return 0

        self.process.start(main())
        return self.process

    def told(self, layer: str) -> list[Any]:
        return self.realm.told(f"{SLOT.on('status', 'n1')}/{layer}")

    def states(self, layer: str) -> list[str]:
        return [status["state"] for status in self.told(layer)]

    async def ended(self) -> SignedEvent:
        """Run the slot, and end it; the fact that ended it."""
        spec = self.site.spec()
        self.site.assign(spec)
        await self.site.until("running")
        self.site.assign(spec, version=2, desired="gone")
        await self.realm.until(lambda: self.manager is not None and self.manager.slots == ())
        return self.realm.facts[SLOT.topic]

    def buried(self) -> None:
        self.site.spec_bus.emit(Draft(TOMBSTONE, buried(), version=1))

    def brought(self) -> list[str]:
        """The topics of what was offered since it was asked last."""
        offered, self.node.bus.offered = self.node.bus.offered, []
        return [signed.event.topic for signed in offered]

    def attached(self) -> None:
        for call in self.node.bus.calls:
            call()

    def end(self) -> None:
        for one in (*self.node.agents.started, self):
            if one.process is not None:
                one.process.kill()


def test_a_slot_for_this_node_gets_a_container_and_an_agent_that_runs_it() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        slot = at.site.place()
        await at.site.until("running")
        assert at.states("container") == ["selected", "installing", "installed"]
        await at.realm.until(lambda: at.states("agent") == ["requested", "initiated", "instantiated", "running"])
        assert at.told("agent")[-1]["pid"] == 9000
        assert at.told("agent")[-1]["generation"] == 1
        first = next(s for s in at.realm.log if s.event.source == "node/n1")
        assert first.event.cause == (slot.id,)
        at.end()

    in_virtual_time(main)


def test_the_agents_identity_is_delegated_and_believed() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        at.site.place()
        await at.site.until("running")
        identity = load(at.node.files.read(f"{SLOT.directory}/{IDENTITY}") or b"", where="test")
        assert identity.name == "agent/n1/web/app/0"
        trust = TrustStore(TrustRealm(name="test", roots=(SecretKey(b"r" * 32).public,)))
        trust.add_all([signed.raw for signed in identity.chain])
        assert trust.certificate(identity.key.key_id, identity.name) is not None
        at.end()

    in_virtual_time(main)


def test_a_slot_of_another_node_is_left_alone() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        at.site.place(node="n2")
        await asyncio.sleep(10)
        assert at.manager is not None
        assert at.manager.slots == ()
        assert not at.node.files.content
        at.end()

    in_virtual_time(main)


def test_a_node_says_of_a_copy_that_went_with_its_directory_that_it_is_gone() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        spec = at.site.spec()
        at.site.assign(spec)
        await at.site.until("running")
        at.end()
        at.node.files.content.clear()
        at.start()
        at.site.assign(spec, version=2, node="n2", previous=Previous(node="n1", generation=1, deadline_ms=EPOCH_MS))
        await at.realm.until(lambda: at.states("container")[-1] == "gone")
        assert at.told("container")[-1]["generation"] == 2
        assert at.manager is not None
        assert at.manager.slots == ()
        at.end()

    in_virtual_time(main)


def test_an_older_fact_that_comes_late_makes_no_container() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        spec = at.site.spec()
        at.site.assign(spec, version=8, node="n2")
        await asyncio.sleep(1)
        del at.realm.facts[SLOT.topic]
        at.site.assign(spec, version=7)
        await asyncio.sleep(10)
        assert at.manager is not None
        assert at.manager.slots == ()
        at.end()

    in_virtual_time(main)


def test_a_manager_reads_and_keeps_nothing_of_the_slots_of_others() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        at.site.place()
        await at.site.until("running")
        for number in range(20):
            other = at.node.agents.site(SlotName("web", "app", str(number + 1)))
            other.assign(at.site.spec_of(), node="n2", to=("node/n2",))
        await asyncio.sleep(10)
        assert at.manager is not None
        assert set(at.manager._known) == {SLOT}
        (interest,) = [interest for interest, source, _ in at.realm.readers if source == "node/n1"]
        others = [signed.event for signed in at.realm.facts.values() if signed.event.to == ("node/n2",)]
        assert len(others) == 20
        assert not [event for event in others if wants(interest, "node/n1", event)]
        at.end()

    in_virtual_time(main)


def test_a_winner_that_was_never_addressed_to_this_node_ends_its_copy_for_good() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        spec = at.site.spec()
        at.site.assign(spec, version=8)
        await at.site.until("running")
        at.site.assign(spec, version=9, node="n3", to=("node/n3",))
        await at.realm.until(lambda: at.states("container")[-1] == "gone")
        assert at.told("container")[-1]["generation"] == 9
        await asyncio.sleep(60)
        assert at.states("container")[-1] == "gone"
        assert at.manager is not None
        assert at.manager.slots == ()
        assert not at.node.machine.alive
        at.end()

    in_virtual_time(main)


@pytest.mark.parametrize("tombstone_first", [True, False])
def test_a_service_that_is_applied_again_after_its_removal_starts(tombstone_first: bool) -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        spec = at.site.spec()
        at.site.assign(spec)
        await at.site.until("running")
        at.site.assign(spec, version=2, desired="gone")
        await at.realm.until(lambda: at.manager is not None and at.manager.slots == ())
        await asyncio.sleep(1)
        tombstone = at.site.spec_bus.seal(Draft("tombstone/service/web", buried(), version=1))
        await asyncio.sleep(1)
        if tombstone_first:
            at.realm.publish(tombstone)
        else:
            at.realm.facts.clear()  # another broker: it has not heard of the second fact, nor of the tombstone
        at.site.place(epoch=2)
        await asyncio.sleep(10)
        at.realm.publish(tombstone)
        await at.site.until("running", 10)
        await at.realm.until(lambda: at.told("container")[-1]["generation"] == 1)
        at.end()

    in_virtual_time(main)


def test_a_slot_that_left_takes_its_container_with_it() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        spec = at.site.spec()
        at.site.assign(spec)
        await at.site.until("running")
        at.site.assign(spec, version=2, desired="gone")
        await at.realm.until(lambda: at.states("container")[-1] == "gone")
        assert at.states("agent")[-3:] == ["terminated", "stopped", "gone"]
        assert at.told("container")[-1]["generation"] == 2
        assert at.manager is not None
        await at.realm.until(lambda: at.manager is not None and at.manager.slots == ())
        assert not [name for name in at.node.files.content if "containers" in name]
        at.site.assign(spec, version=3)
        await at.site.until("running")
        assert at.states("container")[-3:] == ["selected", "installing", "installed"]
        at.end()

    in_virtual_time(main)


def test_a_killed_manager_is_followed_by_one_that_takes_over_what_runs() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        at.site.place()
        await at.site.until("running")
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

    in_virtual_time(main)


def test_agents_below_a_key_that_was_rotated_are_followed_by_ones_below_the_new_and_their_programs_live_on() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        at.site.place()
        await at.site.until("running")
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

    in_virtual_time(main)


def test_an_agent_that_died_is_started_again_and_its_program_lives_on() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        at.site.place()
        await at.site.until("running")
        await asyncio.sleep(5)
        at.node.agents.started[0].process.kill()
        await at.realm.until(lambda: len(at.node.agents.started) == 2)
        await at.realm.until(lambda: at.states("agent")[-1] == "running")
        assert at.states("agent")[-4:] == ["failed", "initiated", "instantiated", "running"]
        failed = [told for told in at.told("agent") if told["state"] == "failed"]
        assert failed[0]["reason"]["code"] == "run.signal"
        await asyncio.sleep(30)
        assert len(at.node.machine.programs) == 1
        at.end()

    in_virtual_time(main)


class Heard:
    """A broker that says of the sessions of a node's sources what a test wants."""

    def __init__(self, at: Managed) -> None:
        self.bus = Bus(at.realm, "broker/b1")
        self.attachments: dict[str, int] = {}

    def say(self, source: str, state: Any, *, how: Any = None) -> None:
        if state == "open":
            self.attachments[source] = self.attachments.get(source, 0) + 1
        told = Session(
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


def test_an_agent_that_hangs_is_ended_and_followed_by_one_that_takes_over_what_runs() -> None:
    async def main() -> None:
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
        reasons = [told["reason"]["code"] for told in at.told("agent") if told["reason"]]
        assert reasons == ["run.watchdog"]
        at.end()

    in_virtual_time(main)


def test_agents_of_a_node_that_is_silent_itself_or_not_attached_are_not_ended_for_their_silence() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_a_silence_counts_only_for_as_long_as_this_manager_itself_saw_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
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

    in_virtual_time(main)


def test_an_agent_that_keeps_dying_is_started_ever_more_slowly() -> None:
    async def main() -> None:
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

    in_virtual_time(main)


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

        in_virtual_time(main)


def test_killed_at_any_moment_of_leaving_it_still_ends_gone() -> None:
    for step in range(1, 30):

        async def main(step: int = step) -> None:
            at = Managed()
            at.start()
            spec = at.site.spec()
            at.site.assign(spec)
            await at.site.until("running")
            at.site.assign(spec, version=2, desired="gone")
            await asyncio.sleep(step * 0.001)
            assert at.process is not None
            at.process.kill()
            for one in at.node.agents.started:
                one.process.kill()
            at.start()
            await at.realm.until(lambda: at.manager is not None and not at.manager.slots)
            await asyncio.sleep(10)
            assert not at.node.machine.alive
            assert not [name for name in at.node.files.content if "containers" in name]
            assert at.site.state() == "gone"
            at.end()

        in_virtual_time(main)


def test_escalation_to_a_new_container_keeps_the_count() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        at.node.machine.steps["sleep"] = Exit(1, None)
        at.site.place()
        await at.realm.until(lambda: any(s["parked"] for s in at.site.statuses()), 2000)
        steps = [s["reason"]["step"] for s in at.site.statuses() if s["state"] == "failed"]
        assert steps == ["restart"] * 5 + ["reinstall"] * 2 + ["recreate"] * 2 + ["move"]
        assert at.states("container").count("selected") == 3
        at.end()

    in_virtual_time(main)


def test_a_container_with_no_fact_is_told_as_an_orphan_and_kept() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        at.site.place()
        await at.site.until("running")
        assert at.process is not None
        at.process.kill()
        at.node.agents.started[0].process.kill()
        at.realm.facts.clear()
        at.node.files.remove(f"{SLOT.directory}/slot.event")
        at.start()
        await at.realm.until(lambda: at.told("container")[-1]["orphan"])
        await asyncio.sleep(60)
        assert at.told("agent")[-1]["orphan"]
        assert at.told("container")[-1]["generation"] == 1
        assert len(at.node.machine.alive) == 1
        assert len(at.node.machine.programs) == 1
        at.end()

    in_virtual_time(main)


def test_what_a_tombstone_buried_is_an_orphan_until_a_fact_ends_it() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        spec = at.site.spec()
        at.site.assign(spec)
        await at.site.until("running")
        at.site.spec_bus.emit(Draft("tombstone/service/web", buried(), version=1))
        await at.realm.until(lambda: at.told("container")[-1]["orphan"])
        await asyncio.sleep(30)
        assert len(at.node.machine.alive) == 1
        at.site.assign(spec, version=2, desired="gone", node=None, epoch=2)
        await at.realm.until(lambda: at.states("container")[-1] == "gone")
        assert not at.node.machine.alive
        at.end()

    in_virtual_time(main)


def test_a_slot_that_a_fact_ended_which_is_over_begins_anew_whatever_its_version() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        spec = at.site.spec()
        at.site.assign(spec, version=7)
        await at.site.until("running")
        at.site.assign(spec, version=8, desired="gone", ttl_ms=60_000)
        await at.realm.until(lambda: at.states("container")[-1] == "gone")
        del at.realm.facts[SLOT.topic]  # the store was lost
        at.site.assign(spec, version=3)
        await asyncio.sleep(30)
        assert not at.node.machine.alive
        assert [signed.event.version for signed in at.node.bus.offered] == [8], "who says the next one counts on from it"
        await asyncio.sleep(60)
        del at.realm.facts[SLOT.topic]
        at.site.assign(spec, version=1)
        await at.site.until("running")
        at.end()

    in_virtual_time(main)


def test_what_ended_a_slot_here_is_brought_to_a_store_that_may_lack_it() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        await at.ended()
        at.realm.tell(Complete(Cursor("another", 0, 0), whole=True))
        await asyncio.sleep(1)
        assert at.brought() == [], "it was away while the store was refilled: what was made anew is not ended without need"
        at.realm.tell(Complete(Cursor("a third", 0, 0), whole=False))
        await at.realm.until(lambda: at.node.bus.offered)
        assert at.brought() == [SLOT.topic]
        at.buried()
        at.realm.tell(Complete(Cursor("a fourth", 0, 0), whole=False))
        await at.realm.until(lambda: at.node.bus.offered)
        assert at.brought() == [TOMBSTONE]
        at.end()

    in_virtual_time(main)


@pytest.mark.parametrize("removed", [False, True])
def test_what_is_said_as_if_nothing_had_ended_is_told_what_had_until_something_counts(removed: bool) -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        gone = await at.ended()
        if removed:
            at.buried()
        await asyncio.sleep(1)
        at.realm.facts.clear()  # the store was lost
        at.site.place()
        for _ in range(2):
            await at.realm.until(lambda: at.node.bus.offered)
            assert at.brought() == [TOMBSTONE if removed else gone.event.topic]
            at.attached()  # the link was lost, and what was on its way
        await asyncio.sleep(10)
        assert not at.node.machine.alive, "what was ended never begins again"
        at.site.place(version=3, epoch=2)
        await at.site.until("running")
        at.brought()
        at.attached()
        assert [signed.event.version for signed in at.node.bus.offered] == [3]
        at.end()

    in_virtual_time(main)


def test_what_is_said_to_an_orphan_in_an_epoch_that_has_ended_is_told_so() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        at.site.place()
        await at.site.until("running")
        at.buried()
        await at.realm.until(lambda: at.told("agent")[-1]["orphan"])
        at.realm.facts.clear()  # the store was lost
        at.site.place(version=2)
        await at.realm.until(lambda: at.node.bus.offered)
        assert at.brought() == [TOMBSTONE]
        at.end()

    in_virtual_time(main)


def test_the_spawner_may_be_away_when_an_agent_is_needed() -> None:
    async def main() -> None:
        at = Managed()
        at.node.agents.away = 5
        at.start()
        at.site.place()
        await at.site.until("running")
        assert "failed" not in at.states("agent")
        at.end()

    in_virtual_time(main)


def test_shutdown_ends_every_instance_and_then_the_manager() -> None:
    async def main() -> None:
        at = Managed()
        process = at.start()
        at.site.place()
        other = at.node.agents.site(SlotName("web", "app", "1"))
        other.assign(at.site.spec_of())
        await at.site.until("running")
        await other.until("running")
        assert at.manager is not None
        assert at.manager.slots == (SLOT, SlotName("web", "app", "1"))
        process.call_soon(lambda: asyncio.ensure_future(at.manager.shutdown()))  # type: ignore[union-attr]
        status = await process.wait()
        assert status.code == 0
        assert not at.node.machine.alive
        assert not [one for one in at.node.agents.started if one.process.alive]
        assert at.states("agent")[-1] == "stopped"
        assert at.site.state() == "stopped"
        at.end()

    in_virtual_time(main)


def test_shutdown_kills_what_does_not_stop_in_time() -> None:
    async def main() -> None:
        at = Managed()
        process = at.start()
        at.site.place("service: web\ncomponents:\n  app:\n    run: sleep stubborn\n    stop: {grace: 1h}\n")
        await at.site.until("running")
        assert at.manager is not None
        process.call_soon(lambda: asyncio.ensure_future(at.manager.shutdown(patience_s=5)))  # type: ignore[union-attr]
        assert (await process.wait()).code == 0
        assert asyncio.get_running_loop().time() < 30
        assert not at.node.machine.alive
        assert at.node.machine.programs[0].signals == [signal.SIGTERM]
        at.end()

    in_virtual_time(main)


def test_after_a_reboot_agents_are_started_anew_and_say_so() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        at.site.place()
        await at.site.until("running")
        assert at.process is not None
        at.process.kill()
        at.node.agents.started[0].process.kill()
        at.node.machine.reboot()
        at.start()
        await at.realm.until(lambda: len(at.node.machine.alive) == 1)
        reasons = [told["reason"]["code"] for told in at.told("agent") if told["reason"]]
        assert reasons == ["node.rebooted"]
        at.end()

    in_virtual_time(main)


def test_a_manager_beats_each_second_and_renews_each_half_life() -> None:
    async def main() -> None:
        at = Managed()
        at.start()
        at.site.place()
        await at.site.until("running")
        said = len(at.told("container"))
        await asyncio.sleep(14 * 3600)
        assert len(at.told("container")) == said + 1
        assert at.node.bus is not None
        assert abs(at.node.bus.beats - 14 * 3600) < 10
        at.end()

    in_virtual_time(main)
