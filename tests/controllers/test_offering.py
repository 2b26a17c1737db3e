"""What controllers held of one store is brought to the next one, over a real bus in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dsmt.bus.broker.broker import Broker
from dsmt.controllers.loop.named import AGAIN_S, NamedSpecs
from dsmt.controllers.loop.offering import PATIENCE_S, Offering, in_order
from dsmt.controllers.loop.runner import ControllerRunner
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.realm import BrakeWord, NodesetFact, Tombstone
from dsmt.event.kinds.service import SpecFact
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft
from dsmt.trust.revocations import topic_of
from dsmt.view import View
from tests.bus.idle import run_alone
from tests.bus.realm import TestClock, TestRealm, memory_network, realm
from tests.bus.stored import copy_store
from tests.waiting import until

from .build import Realm, key, spec, web
from .hand import never

SPEC, TOMBSTONE = "service/old/spec", "tombstone/service/old"


@asynccontextmanager
async def controlling(made: TestRealm, name: str = "controller/c1") -> AsyncIterator[ControllerRunner]:
    client = await made.client(name)
    runner = ControllerRunner(client, TestClock(), client._trust, version="test", pid=None, complain=never)
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        task.cancel()
        await asyncio.wait({task})


def run(directory: Path, scenario) -> None:
    async def main() -> None:
        async with realm(memory_network(), directory) as made, asyncio.timeout(40):
            await scenario(made)

    run_alone(main())


async def command(made: TestRealm, *drafts: Draft) -> list[SignedEvent]:
    """What a command line says, under an identity that ends with it."""
    alice = made.identity("operator/alice")
    name = f"operator/alice.{len(made.identities) + len(made.tasks)}{drafts[0].topic.count('/')}"
    bus = await made.client(name, identity=made.identity(name, parent=alice))
    said = [bus.emit(draft) for draft in drafts]
    for emission in said:
        await emission.acknowledged()
    await made.stop(bus)
    return [emission.signed for emission in said if emission.signed is not None]


def applied(instances: int = 1) -> Draft:
    record = SpecFact(spec=spec(web(instances, service="old")), by="alice", reason="")
    return Draft(SPEC, to_data(record), subject="old")


def held(broker: Broker, topic: str) -> bool:
    return broker._store.winner(topic) is not None


def test_an_old_store_that_comes_back_brings_nothing_back(tmp_path: Path) -> None:
    """A service was removed, and a node set deleted, after the copy was made."""

    async def scenario(made: TestRealm) -> None:
        broker = await made.broker()
        nodeset = Draft("nodeset/a", to_data(NodesetFact(expression="all_nodes", by="alice")))
        _, first = await command(made, applied(), nodeset)
        broker = await made.restarted(broker)
        await made.stop(broker)
        broker._store.close()
        copy_store(tmp_path / "b1.db", tmp_path / "old.db")
        broker = await made.broker("b1", identity=made.identities[broker], address=broker.address)
        async with controlling(made) as runner:
            tombstone = Tombstone(by="alice", reason="")
            later = Draft("nodeset/a", to_data(NodesetFact(expression="n1", by="alice")), replaces=first)
            await command(made, Draft(TOMBSTONE, to_data(tombstone), subject="old"), later)
            await until(lambda: runner.view.winner(TOMBSTONE) and not runner.view.winner(SPEC))
            broker = await made.restarted(broker, store=str(tmp_path / "old.db"))
            assert held(broker, SPEC), "it knows the service that was removed"
            assert not held(broker, TOMBSTONE)
            broker = await made.renewed(broker)
            await until(lambda: held(broker, TOMBSTONE) and not held(broker, SPEC))
            await until(lambda: broker._store.winner("nodeset/a").raw != first.raw)
            await until(lambda: runner.view.winner(TOMBSTONE) and not runner.view.winner(SPEC))
            async with controlling(made, "controller/c2") as other:
                await until(lambda: other.view.winner(TOMBSTONE))
                assert other.view.winner(SPEC) is None
                assert other.decisions == 0

    run(tmp_path, scenario)


class LaterClock(TestClock):
    """A clock two seconds on: so long it took to bring the copy."""

    def __init__(self) -> None:
        super().__init__(offset_s=2.0)

    def boottime(self) -> float:
        return super().boottime() + self.offset_s


def test_who_was_away_while_an_old_store_numbered_its_rows_again_folds_anew_and_brings_what_it_held(tmp_path: Path) -> None:
    """The controller comes when there is again a row of the number that it read last."""

    async def scenario(made: TestRealm) -> None:
        broker = await made.broker()
        await command(made, applied())
        await made.stop(broker)
        broker._store.close()
        copy_store(tmp_path / "b1.db", tmp_path / "old.db")
        broker = await made.broker("b1", identity=made.identities[broker], address=broker.address)
        async with controlling(made) as runner:
            client = runner._bus
            await command(made, Draft(TOMBSTONE, to_data(Tombstone(by="alice", reason="")), subject="old"))
            await until(lambda: runner.view.winner(TOMBSTONE) and not runner.view.winner(SPEC))
            read = runner._following.row
            await made.stop(client)
            broker = await made.restarted(broker, store=str(tmp_path / "old.db"), clock=LaterClock())
            assert broker._store.head < read
            said = []
            while broker._store.head <= read:
                fact = NodesetFact(expression="n1", by="alice")
                said += await command(made, Draft(f"nodeset/x{len(said)}", to_data(fact)))
            made.tasks[client] = asyncio.get_running_loop().create_task(client.run())
            broker = await made.renewed(broker)
            await until(lambda: held(broker, TOMBSTONE) and not held(broker, SPEC))
            await until(lambda: all(runner.view.winner(one.event.topic) for one in said))

    run(tmp_path, scenario)


def test_a_blank_store_gets_what_commands_said_that_ended_long_ago(tmp_path: Path) -> None:
    async def scenario(made: TestRealm) -> None:
        broker = await made.broker()
        async with controlling(made) as runner:
            said = await command(
                made, applied(), Draft("config/brake", to_data(BrakeWord(held=True, released_ms=0, by="alice", reason="")))
            )
            ended = made.identity("operator/eve").key.key_id
            root = await made.client("root")
            revoked = root.emit(Draft(topic_of(ended, "root"), {"by": "alice"}))
            await revoked.acknowledged()
            await made.stop(root)
            said.append(revoked.signed)
            await until(lambda: all(runner.view.winner(one.event.topic) for one in said))
            await until(lambda: runner.view.services["old"].slots)
            broker = await made.restarted(broker, store=str(tmp_path / "blank.db"), born=False)
            await until(lambda: all(held(broker, one.event.topic) for one in said))
            assert held(broker, "service/old/slot/app/0"), "its own words, too"
            rows = [row.topic for row in broker._store.rows(0, 1000)]
            assert rows.index(said[-1].event.topic) < rows.index(SPEC), "what ends comes first"
            decisions = runner.decisions
            await until(lambda: runner._gate.cursor(TestClock().boottime()))
            await until(lambda: runner._offering.is_over(runner.view, TestClock().boottime()))
            assert runner.decisions == decisions, "nothing is decided anew"

    run(tmp_path, scenario)


def test_a_blank_store_gets_what_slots_name_though_it_wins_no_more_and_nobody_else_has_it(tmp_path: Path) -> None:
    """One controller saw it win, the other one came later; each brings it alone."""

    async def scenario(made: TestRealm) -> None:
        broker = await made.broker()
        async with controlling(made) as first:
            (before,) = await command(made, applied())
            await until(lambda: first.view.services["old"].slots)
            changed = SpecFact(spec=spec(web(1, service="old", component="env: {A: b}")), by="alice", reason="")
            (after,) = await command(made, Draft(SPEC, to_data(changed), replaces=before))
            await until(lambda: str(before.id) in named(first) and str(after.id) in named(first))
            await until(lambda: len(first._named.events()) == 1)
            broker = await made.restarted(broker, store=str(tmp_path / "blank.db"), born=False)
            await until(lambda: broker._store.leaf(*before.id) == before.leaf)
            async with controlling(made, "controller/c2") as second:
                await until(lambda: len(second._named.events()) == 1)
                await made.stop(first._bus)
                broker = await made.restarted(broker, store=str(tmp_path / "blank2.db"), born=False)
                await until(lambda: broker._store.leaf(*before.id) == before.leaf)
                assert broker._store.winner(SPEC).raw == after.raw

    run(tmp_path, scenario)


def test_a_blank_store_whose_brokers_clock_is_behind_gets_all_of_it_at_once(tmp_path: Path) -> None:
    """Its own former word, of a session, is brought back with the rest: realm time does not go back behind it (J4)."""

    async def scenario(made: TestRealm) -> None:
        broker = await made.broker()
        async with controlling(made) as runner:
            said = await command(made, applied())
            await until(lambda: runner.view.services["old"].slots)
            clock = TestClock(-50.0)
            broker = await made.restarted(broker, store=str(tmp_path / "blank.db"), born=False, clock=clock)
            await until(lambda: all(held(broker, one.event.topic) for one in said))
            await until(lambda: held(broker, "service/old/slot/app/0"))
            assert broker.now_ms() - clock.wall_ms() > 35_000

    run(tmp_path, scenario)


def named(runner: ControllerRunner) -> tuple[str, ...]:
    fact = runner.view.services["old"].slots["app", 0].fact
    return () if fact is None else fact.record.names


# --- the rules, by hand ------------------------------------------------------------------------------------------


def stands(_signed: SignedEvent) -> bool:
    """No key has ended: nothing is void or disowned."""
    return False


class Sent:
    def __init__(self) -> None:
        self.offers: list[list[str]] = []
        self.complaints: list[str] = []
        self.offering = Offering(
            lambda signed: self.offers.append([s.event.topic for s in signed]), self.complaints.append, stands, stands
        )


def some() -> Realm:
    made = Realm("n1", "n2")
    made.apply(web(1))
    made.settle(seconds=1)
    made.hold(key(0))
    made.control_node("n2", "excluded")
    made.say("operator/alice", "trust/revoked/ab/operator/alice", {"by": "alice"})
    made.say("controller/c1", "tombstone/service/x", Tombstone(by="alice", reason=""))
    return made


def test_what_ends_or_restrains_goes_before_what_it_ends_or_restrains() -> None:
    topics = [signed.event.topic for signed in in_order(some().view.winners()) if signed.event.expires_ms is None]
    assert topics == [
        "trust/revoked/ab/operator/alice",
        "tombstone/service/x",
        "node/n2/control",
        "service/web/control/app/0",
        "service/web/slot/app/0",
        "service/web/spec",
    ]


def test_only_what_lasts_is_offered_and_again_at_each_attachment_until_the_store_is_whole() -> None:
    sent, made = Sent(), some()
    sent.offering.attached()
    assert sent.offers == []
    sent.offering.lost(made.view)
    sent.offering.attached()
    sent.offering.attached()
    assert sent.offers[0] == sent.offers[1]
    assert not [topic for topic in sent.offers[0] if "attributes" in topic]
    assert [topic for topic in sent.offers[0] if "session" in topic] == sent.offers[0][:1], "the broker's word on the time"
    assert sent.offering.is_over(made.view, 100.0)
    sent.offering.attached()
    assert len(sent.offers) == 2


def test_nothing_is_decided_before_all_has_come_back_or_patience_ends() -> None:
    sent, made, anew = Sent(), some(), View()
    sent.offering.lost(made.view)
    sent.offering.attached()
    assert not sent.offering.is_over(anew, 100.0)
    for topic in sent.offers[0][:-1]:
        anew.apply(made.view.winner(topic))
    assert not sent.offering.is_over(anew, 100.0 + PATIENCE_S - 0.1)
    assert sent.offering.is_over(anew, 100.0 + PATIENCE_S)
    assert sent.complaints == ["service/web/spec: what was known there did not come back from the new store"]


def test_what_is_offered_again_at_another_attachment_has_its_time_again() -> None:
    sent, made = Sent(), some()
    sent.offering.lost(made.view)
    sent.offering.attached()
    assert not sent.offering.is_over(View(), 100.0)
    sent.offering.attached()
    assert not sent.offering.is_over(View(), 100.0 + 2 * PATIENCE_S)
    assert sent.complaints == []
    assert sent.offering.is_over(View(), 100.0 + 3 * PATIENCE_S)


def test_what_a_broker_whose_clock_is_behind_refuses_is_never_let_go_and_told_once() -> None:
    sent, made = Sent(), some()
    sent.offering.lost(made.view)
    sent.offering.attached()
    for second in range(0, 3600, 10):
        sent.offering.look(3600.0 - second)
        assert not sent.offering.is_over(View(), 100.0 + second, 3600.0 - second)
    said = "the clock of the broker's machine is 3600 s behind what was known before"
    assert [one.split(",")[0] for one in sent.complaints] == [said]
    assert not sent.offering.is_over(View(), 3692.0), "what was offered again then has its time to come"
    assert not sent.offering.is_over(View(), 3690.0 + PATIENCE_S - 0.1)
    assert sent.offering.is_over(made.view, 3700.0)
    assert len(sent.complaints) == 1


def test_that_a_brokers_clock_is_behind_is_told_each_time_that_it_becomes_so() -> None:
    sent, made = Sent(), some()
    sent.offering.lost(made.view)
    for early_s in (0.0, 60.0, 50.0, 0.0, 30.0):
        sent.offering.look(early_s)
    said = "the clock of the broker's machine is {} s behind what was known before"
    assert [one.split(",")[0] for one in sent.complaints] == [said.format(60), said.format(30)]


def test_what_two_stores_held_is_brought_to_the_third() -> None:
    sent, made, second = Sent(), some(), Realm("n1")
    sent.offering.lost(made.view)
    sent.offering.attached()
    second.apply(web(1, service="db"))
    sent.offering.lost(second.view)
    sent.offering.attached()
    assert {"service/web/spec", "service/db/spec"} <= set(sent.offers[1])


def test_what_was_removed_meanwhile_is_waited_for_no_more_and_not_complained_of() -> None:
    sent, made = Sent(), Realm("n1")
    made.apply(web(1))
    made.settle(seconds=1)
    sent.offering.lost(made.view.copy())
    sent.offering.attached()
    said = Tombstone(by="alice", reason="")
    made.say("controller/c1", "tombstone/service/web", said, epoch=made.view.epoch("service/web/spec"))
    assert made.view.winner("service/web/slot/app/0") is None
    assert sent.offering.is_over(made.view, 0.0)
    assert sent.complaints == []


def test_of_what_a_key_had_said_that_has_ended_meanwhile_nobody_complains() -> None:
    """A thief's words were offered, and its key ended before they had come back, as they never do."""
    ended: list[str] = []
    complaints: list[str] = []
    offering = Offering(lambda _: None, complaints.append, stands, lambda signed: signed.event.source in ended)
    for those in (["operator/alice"], [signed.event.source for signed in some().view.winners()]):
        ended[:] = those
        offering.lost(some().view)
        offering.attached()
        assert not offering.is_over(View(), 0.0)
        assert offering.is_over(View(), PATIENCE_S)
    (told,) = complaints
    assert "service/web/spec" not in told
    assert "slot" in told or "tombstone" in told


def test_what_slots_named_is_offered_to_the_store_that_follows_and_to_none_after_that() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    named = realm.view.winner("service/web/spec")
    assert named is not None
    offered: list[SignedEvent] = []
    offering = Offering(offered.extend, never, stands, stands)
    for names, is_offered in (([named], True), ([], False)):
        offered.clear()
        offering.lost(View(), names)
        offering.attached()
        assert (named in offered) is is_offered
        assert offering.is_over(View(), 1.0)


def test_what_slots_of_one_service_name_is_asked_for_whatever_is_applied_of_another() -> None:
    realm, named = Realm("n1"), NamedSpecs()
    before = [realm.apply(web(1, service=service)).id for service in ("db", "web")]
    realm.settle(seconds=1)
    for service in ("db", "web"):
        realm.apply(web(1, service=service, component="env: {A: b}"))
        named.folded(realm.view, f"service/{service}/spec")
    assert named.due(1.0) == before
    assert named.due(AGAIN_S) == []
    assert named.due(1.0 + AGAIN_S) == before
