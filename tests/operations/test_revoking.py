"""Revoking from an operator's seat: what becomes of what a key had said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dsmt.bus.client.client import BusClient
from dsmt.controllers.pinning import lets_go
from dsmt.errors import InputError, NotFoundError, RefusedError
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.service import SpecFact
from dsmt.event.kinds.slot import Good, Slot, SlotControl
from dsmt.event.records import to_data
from dsmt.operations.connection import Connection
from dsmt.operations.local.members import certificates
from dsmt.operations.read.why.explaining import why
from dsmt.operations.write import revoking
from dsmt.ports.bus import Draft
from dsmt.programs.configuration import RealmConfig
from dsmt.trust.keys import SecretKey
from dsmt.view import View
from tests.bus.idle import run_alone
from tests.bus.meshes import at, held, mesh
from tests.bus.realm import TestRealm, memory_network, realm
from tests.bus.test_leaf import cut
from tests.controllers.build import spec, web
from tests.waiting import told, until

from .test_past import applying_attributes


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

    run_alone(main())


def test_what_a_stolen_laptop_had_applied_stays_when_another_operator_keeps_it(tmp_path: Path) -> None:
    async def test(seat: Seat) -> None:
        (stolen,) = [one for one in await seat.facts() if one.event.topic == "service/web/spec"]
        kept, dropped = await seat.ended()
        assert (kept, dropped) == (["config/colour", "service/web/spec"], [])
        said = seat.said()
        said["service/web/spec"]["same"] = [str(stolen.id)]
        assert await seat.fresh() == {topic: ("operator/alice", data) for topic, data in said.items()}
        assert seat.thief is not None
        assert seat.thief._trust.is_revoked(seat.stolen.key.key_id)
        late = await seat.made.client("operator/late", reads=True)
        (told,) = (await revoking.revoked_keys(late)).values()
        assert (told.key, told.name, told.signer) == (seat.stolen.key.key_id.hex(), "operator/eve", "root")
        assert (told.by, told.reason) == ("alice", "stolen")

    seated(tmp_path, test)


def test_what_was_signed_anew_has_a_why_that_names_what_nobody_believes_any_more(tmp_path: Path) -> None:
    async def test(seat: Seat) -> None:
        await seat.ended()
        late = await seat.connection("operator/late")
        told = (await why(late.bus, late.trust, "web")).explained
        assert [link.event["source"] for link in told.chain] == ["operator/alice"]
        assert told.missing == told.disowned == told.chain[0].because != []
        assert told.missing[0].startswith("operator/eve.x1#")

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


def test_what_a_controller_said_is_said_again_where_no_other_one_lives_and_followed_by_who_begins_later(
    tmp_path: Path,
) -> None:
    async def test(seat: Seat) -> None:
        only = await seat.made.client("controller/c1")
        slot = Slot(node="n1", spec="operator/eve@1-1", revision=1, desired="running")
        for index in range(2):
            about: dict[str, Any] = {"version": 4, "to": ("node/n1",), "ttl_ms": 3_600_000, "subject": "web/app"}
            await only.publish(Draft(f"service/web/slot/app/{index}", to_data(slot), **about))
        other = "service/web/slot/app/2"
        await (await seat.made.client("controller/c9")).publish(Draft(other, to_data(slot), version=1))
        alice, root = await seat.connection("operator/alice"), await seat.connection("root")
        claim = await revoking.claim(alice, "controller/c1")
        assert (claim.ours, len(claim.theirs)) == ([], 2)
        await revoking.stand_in(await seat.connection("controller/stand-in"), claim)
        await revoking.revoke(root, claim, by="alice", reason="rotated")
        assert await revoking.wait_for_successors(alice.bus, claim.theirs) == []

        later = await seat.made.client("controller/c2")
        held = {one.event.topic: one for one in await revoking.shared_facts(later)}
        assert held[other].event.source == "controller/c9"
        for index in range(2):
            topic = f"service/web/slot/app/{index}"
            said = held[topic].event
            assert (said.source, dict(said.data)) == ("controller/stand-in", to_data(slot))
            assert (said.version, said.to, len(said.cause)) == (5, ("node/n1",), 1)
            assert (said.ttl, said.subject) == (3_600_000, "web/app")
            await later.publish(Draft(topic, to_data(replace_node(slot)), replaces=held[topic]))

    seated(tmp_path, test)


def test_what_changes_while_it_is_said_again_is_looked_at_anew(tmp_path: Path, monkeypatch) -> None:
    async def test(seat: Seat) -> None:
        only = await seat.made.client("controller/c1")
        topic, slot = "service/web/slot/app/0", Slot(node="n1", spec="operator/eve@1-1", revision=1, desired="running")
        await only.publish(Draft(topic, to_data(slot), version=4))
        claim = await revoking.claim(await seat.connection("operator/alice"), "controller/c1")
        looked: list[int] = []

        async def look_then_change(bus: Any) -> list[SignedEvent]:
            found = await facts(bus)
            looked.append(len(found))
            if len(looked) < revoking.TRIES:
                (held,) = [one for one in found if one.event.topic == topic]
                await only.publish(Draft(topic, to_data(slot), replaces=held))
            return found

        facts = revoking.shared_facts
        monkeypatch.setattr(revoking, "shared_facts", look_then_change)
        await revoking.stand_in(await seat.connection("controller/stand-in"), claim)
        monkeypatch.undo()
        assert len(looked) == revoking.TRIES
        source, data = (await seat.fresh())[topic]
        assert (source, data) == ("controller/stand-in", to_data(slot))

    seated(tmp_path, test)


def replace_node(slot: Slot) -> Slot:
    return msgspec.structs.replace(slot, node="n2")


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
        (stands,) = [one for one in await revoking.shared_facts(bob) if one.event.topic == "service/web/spec"]
        for index in range(5):
            refused = Good(spec=str(stands.id), revision=2)
            slot = Slot(node="n1", spec=str(good.id), revision=1, desired="running", refuses=refused)
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
        scaled = SpecFact(spec=spec(web(instances)), by="bob", reason="", same=(str(first.id),))
        await bob.publish(Draft("service/web/spec", to_data(scaled), replaces=first))
        good = Good(spec=str(first.id), revision=1)
        slot = Slot(node="n1", spec=str(first.id), revision=1, desired="gone", good=good)
        await controller.publish(Draft("service/web/slot/app/0", to_data(slot), version=1))
        kept, _ = await seat.ended()
        assert "service/web/spec" in kept
        (anew,) = [one for one in await seat.facts() if one.event.topic == "service/web/spec"]
        assert (anew.event.source, anew.event.version) == ("operator/alice", 3)
        assert anew.event.data["same"][1:] == [str(first.id)]
        assert len(anew.event.cause) == 1

    seated(tmp_path, test)


def test_what_was_good_before_another_operator_s_revision_keeps_that_one_as_it_is(tmp_path: Path) -> None:
    async def test(seat: Seat) -> None:
        bob, controller = await seat.made.client("operator/bob"), await seat.made.client("controller/c1")
        (first,) = [one for one in await revoking.shared_facts(bob) if one.event.topic == "service/web/spec"]
        changed = SpecFact(spec=spec(web(3, component="env: {A: b}")), by="bob", reason="")
        await bob.publish(Draft("service/web/spec", to_data(changed), replaces=first))
        slot = Slot(node="n1", spec=str(first.id), revision=1, desired="running", good=Good(spec=str(first.id), revision=1))
        await controller.publish(Draft("service/web/slot/app/0", to_data(slot), version=1))
        assert await seat.ended() == (["config/colour"], [])

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
        with pytest.raises(InputError, match="has several keys") as several:
            revoking.key_of(alice, "operator/eve")
        assert several.value.next == "dsmt cert show operator/eve; then name one: dsmt cert revoke KEY"
        key_id = other.key.key_id
        assert revoking.key_of(alice, key_id.hex()[:8]) == (key_id, "operator/eve")
        assert revoking.key_of(alice, "ab" * 16) == (b"\xab" * 16, "")
        with pytest.raises(NotFoundError, match="no valid key of node/n9"):
            revoking.key_of(alice, "node/n9")
        with pytest.raises(NotFoundError) as caught:
            revoking.key_of(alice, "eve")
        assert caught.value.next == "did you mean operator/eve? dsmt cert list shows them"

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


def test_who_ends_a_key_while_a_broker_is_not_heard_is_told_that_its_words_there_are_not_known(tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), realm(memory_network(), tmp_path) as made:
            b1, b2 = await mesh(made, "b1", "b2")
            await (await made.client("monitor/n1", brokers=at(b1))).publish(applying_attributes())
            client = await made.client("operator/alice", brokers=at(b2))
            config = RealmConfig(name=made.name, roots=(made.root.public,), brokers=())
            alice = Connection(client, client._identity, client._trust, config, "alice", [])
            await until(lambda: held(b1) == held(b2))
            assert await revoking.unheard(alice) == []

            async def warned() -> list[str]:
                return await revoking.unheard(alice)

            async with cut(made, b2, [b1]):
                (said,) = await told(warned, "b1 is lost to who is at b2", 20)
            assert said.startswith("b1 is not heard at b2: what the key has said there since is not known here")

    run_alone(main())


def test_who_ends_a_key_is_told_where_nobody_has_heard_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def gives(of: object, name: str, found: object) -> None:
        async def given(*_: object, **__: object) -> object:
            return found

        monkeypatch.setattr(of, name, given)

    for name, found in (("unheard", ["b2 is not heard"]), ("sign_anew", ([], [])), ("revoke", None)):
        gives(revoking, name, found)
    gives(revoking, "updating", ["an update of web is under way"])
    gives(revoking, "wait_for_successors", [])
    monkeypatch.setattr(certificates, "attached", lambda *_: nullcontext())
    monkeypatch.setattr(certificates, "root_identity", lambda *_, **__: None)
    claim: Any = SimpleNamespace(name="operator/eve", key="aa", ours=(), theirs=())
    connection: Any = SimpleNamespace(bus=SimpleNamespace(now_ms=lambda: 0), realm=None, brokers=[], by="alice")
    done = asyncio.run(certificates.revoke(connection, SecretKey(bytes(32)), claim, reason="stolen"))
    assert done.warnings == ["b2 is not heard", "an update of web is under way"]
