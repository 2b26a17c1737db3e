"""Certificates from an operator's seat: what is listed, rotated and revoked, and what becomes of what a key had said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsmt.bus.adapters.zeromq import ZmqNetwork
from dsmt.bus.client.client import BusClient
from dsmt.cli import screens
from dsmt.controllers.pinning import lets_go
from dsmt.errors import FailedError, InputError, NotFoundError, RefusedError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good, Slot, SlotControl
from dsmt.event.records import to_data
from dsmt.operations.local import certificates
from dsmt.operations.local.connection import Connection
from dsmt.operations.local.dating import Dated, dated
from dsmt.operations.local.home import Home, ensure_controller, ensure_node, ensure_operator, free_port, init
from dsmt.operations.offline.history import export
from dsmt.operations.read.sight import look
from dsmt.operations.read.summaries import certs, status
from dsmt.operations.words.times import rfc3339
from dsmt.operations.write import revoking
from dsmt.ports.bus import Draft
from dsmt.ports.realm import BrokerAddress
from dsmt.programs.configuration import RealmConfig
from dsmt.trust.identity import SKEW_S, YEAR_S
from dsmt.trust.store import TrustStore
from dsmt.view import View
from tests.bus.realm import TestClock, TestRealm, memory_network, realm
from tests.controllers.build import spec, web

DAY = 86_400
NOW = Dated(int(time.time()), "realm")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    init(made, name="test")
    ensure_node(made, "n1")
    return made


def states(home: Home, now_s: int) -> dict[str, str]:
    return {one.name: one.state for one in certificates.listing(TrustStore(home.realm().realm), home, now_s)}


def test_a_certificate_is_to_be_renewed_from_half_of_its_life_and_ends_after_a_year(home: Home) -> None:
    now = int(time.time())
    for after, state in (
        (0, "valid"),
        (YEAR_S // 2 - DAY, "valid"),
        (YEAR_S // 2 + DAY, "renew"),
        (YEAR_S + DAY, "expired"),
    ):
        assert set(states(home, now + after).values()) == {state}
    assert set(states(home, now)) == {"broker/b1", "node/n1", home.operator().name}


def test_a_rotated_node_has_a_new_key_beside_the_old_and_a_broker_keeps_its_own(home: Home) -> None:
    now = int(time.time()) + DAY
    before = {name: home.identity(path) for name, path in certificates.here(home).items()}
    for name, identity in before.items():
        done = certificates.rotate(home, name, Dated(now, "realm"))
        after = home.identity(certificates.here(home)[name])
        assert after.certificate.not_after == now + YEAR_S
        assert (done.key, done.before) == (after.key.key_id.hex(), identity.key.key_id.hex())
        assert (done.key == done.before) == name.startswith("broker/")
        trust = TrustStore(home.realm().realm)
        trust.add_all([one.raw for held in (identity, after) for one in held.chain])
        newest = certificates.in_use(trust, now)[name]
        assert newest == after.certificate
        if done.key != done.before:
            assert certificates.state_of(identity.certificate, trust, now, newest) == "replaced"
        assert not trust.is_revoked(identity.key.key_id)


def test_what_lives_elsewhere_is_not_rotated_here_and_without_the_root_key_nothing_is(home: Home) -> None:
    with pytest.raises(NotFoundError, match="node/n9 is not a member of this home"):
        certificates.rotate(home, "node/n9", NOW)
    (home.root / "root.key").unlink()
    with pytest.raises(NotFoundError, match="the root key is not in"):
        certificates.rotate(home, "node/n1", NOW)


def test_the_certificate_of_a_node_that_has_left_is_not_the_next_to_be_renewed(home: Home) -> None:
    trust = TrustStore(home.realm().realm)
    certificates.learn(trust, home)
    first = certs(trust, NOW.now_s * 1000)
    assert first.next == "broker/b1"
    left = {one for one in certificates.in_use(trust, NOW.now_s) if one != "node/n1"}
    assert certs(trust, NOW.now_s * 1000, left).next == "node/n1"


def test_who_was_rotated_by_a_clock_that_was_far_ahead_is_rotated_again_and_stands_in_nobodys_place(home: Home) -> None:
    now = int(time.time())
    ahead = Dated(now + 400 * DAY, "machine")
    trust = TrustStore(home.realm().realm)
    certificates.learn(trust, home)
    for name in ("node/n1", "broker/b1"):
        assert certificates.rotate(home, name, ahead).clock == "machine"
        listed = {one.state for one in certificates.one(certificates.listing(trust, home, now), name)}
        assert listed == ({"valid"} if name.startswith("broker/") else {"valid", "early"}), "of a key the one that counts"
        assert certificates.in_use(trust, now)[name].issued <= now
        assert certificates.in_use(trust, ahead.now_s)[name].issued == ahead.now_s
    assert certs(trust, now * 1000).expires < rfc3339((now + 366 * DAY) * 1000)
    for name in ("node/n1", "broker/b1"):
        done = certificates.rotate(home, name, Dated(now + 5, "realm"))
        after = home.identity(certificates.here(home)[name]).certificate
        assert (after.issued, after.not_before, done.clock) == (now + 5, now + 5 - SKEW_S, "realm")
        certificates.learn(trust, home)
        assert certificates.in_use(trust, now)[name] == after


def test_what_is_made_while_a_realm_is_there_is_dated_by_its_time(home: Home) -> None:
    at = NOW.now_s - 500 * DAY
    home.operator_file.unlink()
    ensure_operator(home, now_s=at)
    ensure_controller(home, "c1", now_s=at)
    ensure_node(home, "n2", now_s=at)
    for name in (home.operator().name, "controller/c1", "node/n2"):
        assert home.identity(certificates.here(home)[name]).certificate.issued == at
    assert certificates.root_identity(home.root_key(), now_s=at).certificate.issued == at


@pytest.mark.real
def test_a_broker_tells_realm_time_to_anybody_who_asks_and_where_none_answers_the_machines_clock_is_named(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        network = ZmqNetwork()
        try:
            async with asyncio.timeout(30), realm(network, tmp_path) as made:
                broker = await made.broker(clock=TestClock(-500.0 * DAY))
                (living,) = made.brokers
                silent = BrokerAddress(f"127.0.0.1:{free_port()}", living.public)
                for brokers in ([living], [silent, living]):
                    found = await dated(brokers)
                    assert found.clock == "realm"
                    assert abs(found.now_s - broker.now_ms() // 1000) <= 2
                found = await dated([silent])
                assert found.clock == "machine"
                assert abs(found.now_s - time.time()) <= 2
        finally:
            network.close()

    asyncio.run(main())


# Revoking -----------------------------------------------------------------------------------------------------------------


class Seat:
    """A realm in which a stolen laptop had applied `web` and said more; another operator sits here."""

    def __init__(self, made: TestRealm) -> None:
        self.made = made
        self.stolen = made.identity("operator/eve")
        self.thief: BusClient | None = None

    async def begin(self) -> None:
        await self.made.broker()
        program = self.made.identity("operator/eve.x1", parent=self.stolen)
        self.thief = await self.made.client(program.name, identity=program)
        for topic, data in self.said().items():
            await asyncio.wait_for(self.thief.publish(Draft(topic, data, version=1)), 10)

    @staticmethod
    def said() -> dict[str, dict[str, Any]]:
        record = SpecFact(spec=spec(web(3)), by="eve", reason="")
        return {"service/web/spec": to_data(record), "config/colour": {"value": "red"}}

    async def connection(self, name: str, **more: Any) -> Connection:
        client = await self.made.client(name, **more)
        config = RealmConfig(name=self.made.name, roots=(self.made.root.public,), brokers=())
        return Connection(client, client._identity, client._trust, config, name.rsplit("/", maxsplit=1)[-1], [])

    async def ended(self, *, drop: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
        alice, root = await self.connection("operator/alice"), await self.connection("root")
        claim = await revoking.claim(alice, "operator/eve")
        done = await revoking.sign_anew(alice, claim, drop=drop)
        await revoking.revoke(root, claim, by="alice", reason="stolen")
        assert await revoking.wait_for_successors(alice.bus, claim.theirs) == []
        return done

    async def fresh(self) -> dict[str, tuple[str, dict[str, Any]]]:
        return {one.event.topic: (one.event.source, dict(one.event.data)) for one in await self.facts()}

    async def facts(self) -> list[SignedEvent]:
        return await revoking.shared_facts(await self.made.client("operator/late", reads=True))


def seated(tmp_path: Path, test: Callable[[Seat], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), realm(memory_network(), tmp_path) as made:
            seat = Seat(made)
            await seat.begin()
            await test(seat)

    asyncio.run(main())


def test_what_a_stolen_laptop_had_applied_stays_when_another_operator_keeps_it(tmp_path: Path) -> None:
    async def test(seat: Seat) -> None:
        kept, dropped = await seat.ended()
        assert (kept, dropped) == (["config/colour", "service/web/spec"], [])
        said = seat.said()
        said["service/web/spec"]["since"] = 1
        assert await seat.fresh() == {topic: ("operator/alice", data) for topic, data in said.items()}
        assert seat.thief is not None
        assert seat.thief._trust.is_revoked(seat.stolen.key.key_id)

    seated(tmp_path, test)


def test_a_move_that_was_done_is_not_asked_for_again_by_who_keeps_the_rest(tmp_path: Path) -> None:
    async def test(seat: Seat) -> None:
        assert seat.thief is not None
        controller = await seat.made.client("controller/c1")
        asked = SlotControl(restart=3, move="", move_number=2, accept_data_loss=True)
        for index, number in enumerate((2, 1)):
            await seat.thief.publish(Draft(f"service/control/control/app/{index}", to_data(asked), version=1))
            slot = Slot(node="n1", spec="operator/eve@1-1", revision=1, desired="running", move_number=number)
            await controller.publish(Draft(f"service/control/slot/app/{index}", to_data(slot), version=1))
        await seat.ended()
        fresh, view = await seat.facts(), View()
        for signed in fresh:
            view.apply(signed)
        slots = view.services["control"].slots
        assert {slot.control.signed.event.source for slot in slots.values() if slot.control} == {"operator/alice"}
        assert (slots["app", 0].move_asked, slots["app", 1].move_asked) == (None, "")
        assert not lets_go(slots["app", 0])
        assert lets_go(slots["app", 1])

    seated(tmp_path, test)


@pytest.mark.parametrize("by", ["operator/eve.x1", "operator/bob"])
def test_what_slots_went_back_to_is_the_next_revision_whoever_had_said_the_one_that_was_refused(
    tmp_path: Path, by: str
) -> None:
    async def test(seat: Seat) -> None:
        assert seat.thief is not None
        bob, controller = await seat.made.client("operator/bob"), await seat.made.client("controller/c1")
        (good,) = [one for one in await revoking.shared_facts(bob) if one.event.topic == "service/web/spec"]
        bad = SpecFact(spec=spec(web(5).replace("./app", "./app fails")), by="bob", reason="")
        sayer = seat.thief if by == seat.thief.source else bob
        await sayer.publish(Draft("service/web/spec", to_data(bad), replaces=good))
        for index in range(5):
            slot = Slot(node="n1", spec=str(good.id), revision=1, desired="running", refused=2)
            await controller.publish(Draft(f"service/web/slot/app/{index}", to_data(slot), version=1))
        kept, _ = await seat.ended()
        assert "service/web/spec" in kept
        source, data = (await seat.fresh())["service/web/spec"]
        assert (source, data["spec"]) == ("operator/alice", spec(web(5)))
        (anew,) = [one for one in await seat.facts() if one.event.topic == "service/web/spec"]
        assert good.id in anew.event.cause, "it is known for what the slots implement"

    seated(tmp_path, test)


@pytest.mark.parametrize("instances", [0, 5])
def test_what_slots_go_back_to_is_signed_anew_though_another_operator_only_changed_how_many_there_are(
    tmp_path: Path, instances: int
) -> None:
    """What stands is bob's; but of the slot that is gone, and of one on a dead node, the good revision is the thief's."""

    async def test(seat: Seat) -> None:
        bob, controller = await seat.made.client("operator/bob"), await seat.made.client("controller/c1")
        (first,) = [one for one in await revoking.shared_facts(bob) if one.event.topic == "service/web/spec"]
        scaled = SpecFact(spec=spec(web(instances)), by="bob", reason="", since=1)
        await bob.publish(Draft("service/web/spec", to_data(scaled), replaces=first))
        good = Good(spec=str(first.id), revision=1)
        slot = Slot(node="n1", spec=str(first.id), revision=1, desired="gone", good=good)
        await controller.publish(Draft("service/web/slot/app/0", to_data(slot), version=1))
        kept, _ = await seat.ended()
        assert "service/web/spec" in kept
        (anew,) = [one for one in await seat.facts() if one.event.topic == "service/web/spec"]
        assert (anew.event.source, anew.event.version, anew.event.data["since"]) == ("operator/alice", 3, 1)
        assert len(anew.event.cause) == 1

    seated(tmp_path, test)


def test_a_service_that_is_dropped_is_ended_and_all_else_kept(tmp_path: Path) -> None:
    async def test(seat: Seat) -> None:
        kept, dropped = await seat.ended(drop=("web",))
        assert (kept, dropped) == (["config/colour"], ["service/web/spec"])
        source, data = (await seat.fresh())["service/web/spec"]
        assert (source, data["removed"], data["by"]) == ("operator/alice", True, "alice")

    seated(tmp_path, test)


def test_without_being_signed_anew_it_is_gone_for_who_comes_later(tmp_path: Path) -> None:
    async def test(seat: Seat) -> None:
        alice, root = await seat.connection("operator/alice"), await seat.connection("root")
        claim = await revoking.claim(alice, "operator/eve")
        assert (claim.ours, claim.theirs) == (["config/colour", "service/web/spec"], [])
        await revoking.revoke(root, claim, by="alice", reason="")
        assert await seat.fresh() == {}

    seated(tmp_path, test)


def test_nobody_signs_anew_with_the_key_that_ends_and_nothing_is_dropped_that_it_did_not_say(tmp_path: Path) -> None:
    async def test(seat: Seat) -> None:
        own = await seat.connection("operator/eve.x2", identity=seat.made.identity("operator/eve.x2", parent=seat.stolen))
        with pytest.raises(RefusedError, match="would end with it"):
            await revoking.claim(own, "operator/eve")
        with pytest.raises(RefusedError, match="would end with it"):  # also where nothing of it is to be signed anew
            await revoking.claim(await seat.connection("operator/bob"), "operator/bob")
        alice = await seat.connection("operator/alice")
        claim = await revoking.claim(alice, "operator/eve")
        with pytest.raises(InputError, match="service/db/spec was not said by that key"):
            await revoking.sign_anew(alice, claim, drop=("db",))

    seated(tmp_path, test)


def test_the_only_broker_that_is_left_is_told_as_such(tmp_path: Path) -> None:
    async def test(seat: Seat) -> None:
        alice, root = await seat.connection("operator/alice"), await seat.connection("root")
        held = {name: seat.made.identity(name) for name in ("broker/b8", "broker/b9")}
        alice.trust.add_all([one.raw for identity in held.values() for one in identity.chain])
        brokers = tuple((f"127.0.0.1:{n}", one.certificate.public) for n, one in enumerate(held.values(), 1))
        alice = replace(alice, realm=RealmConfig(name=seat.made.name, roots=(seat.made.root.public,), brokers=brokers))
        first = await revoking.claim(alice, "broker/b8")
        assert not first.only_broker
        assert not (await revoking.claim(alice, "operator/eve")).only_broker
        await revoking.revoke(root, first, by="alice", reason="")
        await revoking.shared_facts(alice.bus)  # it has heard of that
        assert (await revoking.claim(alice, "broker/b9")).only_broker

    seated(tmp_path, test)


def test_a_name_with_two_keys_must_be_told_by_its_key_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    async def test(seat: Seat) -> None:
        alice = await seat.connection("operator/alice")
        other = seat.made.identity("operator/eve")
        alice.trust.add_all([one.raw for held in (seat.stolen, other) for one in held.chain])
        with pytest.raises(InputError, match="has several keys"):
            revoking.key_of(alice, "operator/eve")
        key_id = other.key.key_id
        assert revoking.key_of(alice, key_id.hex()[:8]) == (key_id, "operator/eve")
        assert revoking.key_of(alice, "ab" * 16) == (b"\xab" * 16, "")
        with pytest.raises(NotFoundError, match="no valid key of node/n9"):
            revoking.key_of(alice, "node/n9")

    seated(tmp_path, test)


def test_a_tombstone_of_a_revoked_operator_is_said_again_in_its_own_epoch(tmp_path: Path) -> None:
    async def test(seat: Seat) -> None:
        assert seat.thief is not None
        await asyncio.wait_for(
            seat.thief.publish(Draft("nodeset/good", {"expression": "all_nodes", "by": "eve"}, version=1)), 10
        )
        await asyncio.wait_for(
            seat.thief.publish(Draft("tombstone/nodeset/good", {"by": "eve", "reason": ""}, version=1, epoch=1)), 10
        )
        kept, _ = await seat.ended()
        assert "tombstone/nodeset/good" in kept
        found = await seat.fresh()
        assert found["tombstone/nodeset/good"][0] == "operator/alice"
        assert "nodeset/good" not in found

    seated(tmp_path, test)


def test_what_the_ended_certificate_of_a_broker_means_is_told_with_the_way_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(30), realm(memory_network(), tmp_path) as made:
            await told(made)

    async def told(made: TestRealm) -> None:
        await made.broker(identity=made.identity("broker/b1", now_s=int(time.time()) - YEAR_S - 60))
        bob = await made.client("operator/bob")
        sight = await look(bob, passing=True)
        seen = status(sight, bob._trust, [])
        (alert,) = [one for one in seen.alerts if one.code == "broker.expired"]
        assert (seen.state, alert.target, alert.who) == ("degraded", "broker/b1", "you")
        assert "no dead node is replaced" in alert.message
        assert alert.next.startswith("dsmt cert rotate broker/b1, then restart it")
        assert alert.message in screens.status(seen, sight)
        with pytest.raises(FailedError, match="the head that broker/b1 signs cannot be believed") as caught:
            await export(bob, bob._trust, lambda _: None)
        assert (caught.value.code, caught.value.next) == ("history.head", alert.next)

    asyncio.run(scenario())
