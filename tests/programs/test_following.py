"""A member keeps where its realm moves, says so, and goes there when nobody carries the realm where it was."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.event.kinds.realm import ENGINE, EngineWord
from dsmt.event.kinds.source import Following
from dsmt.event.records import to_data
from dsmt.operations.local.home.home import Home
from dsmt.operations.read.realm.facts import stands
from dsmt.operations.write import engine
from dsmt.operations.write.engine import tell, unheard
from dsmt.ports.bus import Draft
from dsmt.ports.realm import NatsTerms
from dsmt.programs import container_manager, following
from dsmt.programs.configuration import ControllerFile, NodeFile, RealmConfig, read_config, write_config
from dsmt.programs.following import DESTINATION, LACKS, Follower, written
from dsmt.trust.revocations import topic_of
from tests.bus.realm import TestRealm, memory_network, realm
from tests.controllers.signing import signed
from tests.operations.scripted import ScriptedBus
from tests.waiting import until

HERE = RealmConfig(name="test", roots=(bytes(32),), brokers=(("h:1", b"b1"),))
SERVERS = (("h:9", b"b1"),)
THERE = replace(HERE, brokers=SERVERS, nats=NatsTerms(authority="PEM", replicas=1))
TO_NATS = EngineWord(brokers=SERVERS, authority="PEM", replicas=1, by="operator/alice")
STAYS = EngineWord(brokers=(), by="operator/alice")


class Member:
    """A node's follower in its directory of a home; `attached` is what its bus says, `opens` whether it is let in there."""

    def __init__(self, made: TestRealm, home: Path, realm: RealmConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        self._made, self._realm = made, realm
        self.home, self.directory = home, Home(home).part("nodes", "n1")
        self.attached, self.opens, self.lacks, self.tries = True, False, False, 0
        self.bus: Any = None
        self.monkeypatch = monkeypatch
        self.logged: list[str] = []
        monkeypatch.setattr(following, "TRY_S", 0.01)
        monkeypatch.setattr(following, "Logger", self._logs)
        monkeypatch.setattr(following, "find_spec", lambda name: None if self.lacks or name != "nats" else "there")
        monkeypatch.setattr(following, "_lets_in", self._lets_in)

    async def _lets_in(self, _identity: Any, realm: RealmConfig) -> bool:
        assert realm == THERE
        self.tries += 1
        return self.opens

    def _logs(self, *, source: str) -> Any:
        return SimpleNamespace(warning=lambda said, *, reason: self.logged.append(f"{source}: {said}: {reason}"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bus, name)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        self.bus = self.bus or await self._made.client("node/n1")
        task = asyncio.create_task(self._follower().run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait({task})

    def _follower(self) -> Follower:
        return Follower(self, None, self.directory, self._realm, self.bus._trust)  # type: ignore[arg-type]

    @property
    def plan(self) -> RealmConfig | None:
        path = self.directory / DESTINATION
        return read_config(path, RealmConfig) if path.exists() else None


@asynccontextmanager
async def silence() -> AsyncIterator[AsyncIterator[Any]]:
    """A subscription that brings nothing any more."""

    async def nothing() -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield

    yield nothing()


Scenario = Callable[[Any, Member], Awaitable[None]]


def scenario(test: Scenario) -> Callable[..., None]:
    """A realm with an operator's bus, and a node that is told that it is in `HERE`."""

    def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async def within() -> None:
            async with asyncio.timeout(30), realm(memory_network(), tmp_path) as made:
                await made.broker()
                member = Member(made, tmp_path / "home", HERE, monkeypatch)
                write_config(member.home / "realm.cbor", HERE)
                write_config(member.directory / "node.cbor", NodeFile(node="n1", realm=HERE))
                await test(await made.client("operator/alice"), member)

        asyncio.run(within())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def left(alice: Any, word: str, expected: dict[str, str], *members: str) -> None:
    """Of these members these have not heard a word, and why."""
    async with asyncio.timeout(20):
        while await unheard(alice, word, members, limit_s=0.5) != expected:
            pass


@scenario
async def test_who_has_kept_where_the_realm_moves_says_so_and_goes_there_when_it_has_gone(
    alice: Any, member: Member
) -> None:
    async with member.running() as task:
        word = await tell(alice, TO_NATS)
        await left(alice, word, {"controller/c1": "has not heard of it"}, "node/n1", "controller/c1")
        assert member.plan == THERE
        assert await tell(alice, TO_NATS) == word, "said once"
        word_on_it = await stands(alice, ENGINE)
        assert word_on_it is not None
        assert (str(word_on_it.id), word_on_it.event.subject) == (word, "engine")
        assert member.tries == 0, "the realm is where it was"
        member.attached = False
        await until(lambda: member.tries > 3)
        assert not task.done()
        member.opens = True
        await asyncio.wait_for(task, 20)
    assert read_config(member.home / "realm.cbor", RealmConfig) == THERE
    assert read_config(member.directory / "node.cbor", NodeFile) == NodeFile(node="n1", realm=THERE)
    assert member.plan is None


@scenario
async def test_nobody_goes_where_the_word_of_a_key_that_has_ended_has_sent_it(alice: Any, member: Member) -> None:
    """Nor who was away when the key ended, and finds the word of another one, or none, in its place."""
    async with member.running():
        await tell(alice, TO_NATS)
        await until(lambda: member.plan)
        eve = await member._made.client("operator/eve")
        before = await stands(alice, ENGINE)
        await eve.publish(Draft(ENGINE, to_data(replace(TO_NATS, by="operator/eve")), replaces=before))
        await end(member._made, eve)
        await until(lambda: member.bus._trust.is_revoked(eve._identity.key.key_id))
        await until(lambda: member.plan == THERE)  # what it had displaced stands again, is read, and says the same
        await end(member._made, alice)
        await until(lambda: member.plan is None)
    write_config(member.directory / DESTINATION, THERE)
    async with member.running():
        await until(lambda: member.plan is None)
    assert member.logged == []


@scenario
async def test_who_was_away_when_a_key_ended_goes_nowhere_though_no_store_has_its_word(alice: Any, member: Member) -> None:
    """As where only the broker of the other side of a partition had it, and was removed."""
    async with member.running():
        await tell(alice, TO_NATS)
        await until(lambda: member.plan)
    await end(member._made, alice)
    member.bus = await member._made.client("node/n1", identity=member.bus._identity)
    member.attached, member.opens, member.bus.subscribe = False, True, lambda _: silence()
    async with member.running():
        await until(lambda: member.plan is None)
        assert member.tries == 0


async def end(made: TestRealm, client: Any) -> None:
    """The root ends a client's key."""
    root, key_id = await made.client("root", identity=made.identity("root")), client._identity.key.key_id
    await root.publish(Draft(topic_of(key_id, "root"), {"by": "root", "name": client.source, "reason": ""}))


@scenario
async def test_who_was_started_anew_meanwhile_still_knows_where_to_go(alice: Any, member: Member) -> None:
    async with member.running():
        await tell(alice, TO_NATS)
        await until(lambda: member.plan)
    member.attached, member.opens = False, True
    member.bus.subscribe = lambda _: silence()
    async with member.running() as task:
        await asyncio.wait_for(task, 20)
    assert read_config(member.directory / "node.cbor", NodeFile).realm == THERE


@scenario
async def test_where_the_realm_is_now_is_looked_up_while_nobody_carries_it_where_it_was(alice: Any, member: Member) -> None:
    assert alice.attached
    beside = asyncio.create_task(written(member, member.directory, HERE))  # type: ignore[arg-type]
    await asyncio.wait({beside}, timeout=0.1)
    write_config(member.directory / "node.cbor", NodeFile(node="n1", realm=THERE))
    await asyncio.wait({beside}, timeout=0.1)
    assert not beside.done(), "the realm is where it was"
    member.attached = False
    await asyncio.wait_for(beside, 20)
    (member.directory / "node.cbor").write_bytes(b"\xff")
    damaged = asyncio.create_task(written(member, member.directory, HERE))  # type: ignore[arg-type]
    await asyncio.wait({damaged}, timeout=0.1)
    assert not damaged.done()
    damaged.cancel()


@scenario
async def test_a_realm_that_stays_is_not_looked_for_elsewhere(alice: Any, member: Member) -> None:
    assert await tell(alice, STAYS) == "", "nobody was told otherwise"
    async with member.running() as task:
        first = await tell(alice, TO_NATS)
        await until(lambda: member.plan)
        assert await tell(alice, STAYS) not in ("", first)
        await until(lambda: member.plan is None)
        member.attached, member.opens = False, True
        assert await unheard(alice, "of nothing", ["node/n1"], limit_s=0.2) == {"node/n1": "has not heard of it"}
        assert (task.done(), member.tries) == (False, 0)
        member.attached = True
        again = await tell(alice, TO_NATS)
        assert again != first
        assert await unheard(alice, again, ["node/n1"], limit_s=20) == {}


@scenario
async def test_who_lacks_the_client_says_so_until_it_is_there(alice: Any, member: Member) -> None:
    member.lacks = True
    async with member.running():
        word = await tell(alice, TO_NATS)
        await left(alice, word, {"node/n1": LACKS}, "node/n1")
        member.lacks = False
        assert await unheard(alice, word, ["node/n1"], limit_s=20) == {}


@scenario
async def test_who_cannot_write_it_down_has_not_heard_until_there_is_room(alice: Any, member: Member) -> None:
    (member.directory / DESTINATION).mkdir(parents=True)
    async with member.running() as task:
        word = await tell(alice, TO_NATS)
        assert await unheard(alice, word, ["node/n1"], limit_s=0.5) == {"node/n1": "has not heard of it"}
        assert (await until(lambda: member.logged))[0].startswith("node/n1: where the realm moves is not kept: [Errno")
        assert not task.done()
        (member.directory / DESTINATION).rmdir()
        assert await unheard(alice, word, ["node/n1"], limit_s=20) == {}
        assert member.plan == THERE


@scenario
async def test_where_a_realm_is_already_nobody_moves(alice: Any, member: Member) -> None:
    member._realm = THERE
    write_config(member.directory / DESTINATION, replace(THERE, brokers=(("h:5", b"b1"),)))
    member.attached, member.opens = False, True
    async with member.running() as task:
        await tell(alice, TO_NATS)
        await until(lambda: member.plan is None)
        assert not task.done()
        assert member.tries == 0


@scenario
async def test_of_a_word_that_is_old_all_speak_again(alice: Any, member: Member) -> None:
    """What they have said of it is kept for a day, and who moves the realm may come back later than that."""
    async with member.running():
        word = await tell(alice, TO_NATS)
        assert await unheard(alice, word, ["node/n1"], limit_s=20) == {}
        member.monkeypatch.setattr(engine, "GOOD_MS", 0)
        again = await tell(alice, TO_NATS)
        assert again != word
        assert await unheard(alice, again, ["node/n1"], limit_s=20) == {}


@scenario
async def test_who_cannot_write_down_that_the_realm_has_moved_does_so_when_there_is_room(alice: Any, member: Member) -> None:
    write, full, tried = following.write_config, True, 0

    def write_config(path: Path, config: Any) -> None:
        nonlocal tried
        if full and path.name != DESTINATION:
            tried += 1
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, config)

    member.monkeypatch.setattr(following, "write_config", write_config)
    async with member.running() as task:
        await tell(alice, TO_NATS)
        await until(lambda: member.plan)
        member.attached, member.opens = False, True
        await until(lambda: tried > 3)
        assert (task.done(), read_config(member.directory / "node.cbor", NodeFile).realm) == (False, HERE), "its home first"
        assert member.logged[0].startswith("node/n1: where the realm has moved is not kept: [Errno")
        full = False
        await asyncio.wait_for(task, 20)
    assert read_config(member.directory / "node.cbor", NodeFile).realm == THERE


@scenario
async def test_who_cannot_hear_where_the_realm_moves_is_no_silent_one(alice: Any, member: Member) -> None:
    del alice
    member.bus = await member._made.client("node/n1")
    member.bus.subscribe = None  # as any bug
    async with member.running() as task:
        with pytest.raises(ExceptionGroup):
            await asyncio.wait_for(task, 20)


def test_who_ends_waits_for_a_spawner_that_starts_the_next_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody but the manager restarts a spawner: if both were gone the node would be, for ever."""
    alive: list[Any] = []
    monkeypatch.setattr(container_manager, "spawner_of", lambda _: alive[0] if alive else None)

    async def play() -> None:
        task = asyncio.create_task(container_manager._has_spawner(tmp_path))
        await asyncio.wait({task}, timeout=0.5)
        assert not task.done()
        alive.append("a spawner")
        await asyncio.wait_for(task, 20)

    asyncio.run(play())


def test_of_a_controller_it_is_its_file(tmp_path: Path) -> None:
    directory = Home(tmp_path).part("controllers", "c1")
    write_config(directory / "controller.cbor", ControllerFile(realm=HERE))
    nobody: Any = None
    assert Follower(nobody, nobody, directory, HERE, nobody)._settled(THERE)
    assert read_config(directory / "controller.cbor", ControllerFile).realm == THERE
    assert not (tmp_path / "realm.cbor").exists(), "a home that has none is given none"


def said(word: object) -> Any:
    """A word as it comes, with this in it."""
    return SimpleNamespace(id="an id", event=SimpleNamespace(data=word if isinstance(word, dict) else to_data(word)))


def test_a_word_that_cannot_be_read_and_one_that_changes_nothing_hold_up_none_that_follow(tmp_path: Path) -> None:
    nobody: Any = None
    follower = Follower(nobody, nobody, tmp_path, HERE, nobody)
    assert follower._keep(said({"of": "another form"}))
    assert follower._keep(said(STAYS)), "it has heard of no move, as who came after that was broken off"
    assert not (tmp_path / DESTINATION).exists()


def test_who_says_twice_that_it_has_heard_is_waited_for_no_more() -> None:
    """As a node that is started anew while others are still waited for."""
    left = {"node/n1": "has not heard of it", "node/n2": "has not heard of it"}
    for _ in range(2):
        heard = said(Following(word="w"))
        heard.event.source = "node/n1"
        engine._took(left, heard, "w")
        assert list(left) == ["node/n2"]


def test_a_realm_that_leaves_nats_goes_to_brokers(tmp_path: Path) -> None:
    bus, nobody = cast("Any", ScriptedBus([], now_ms=0)), cast("Any", None)
    bus.proof = lambda _signed: ()
    word = signed("operator/alice", ENGINE, replace(TO_NATS, authority="", replicas=0), version=2)
    assert Follower(bus, nobody, tmp_path, THERE, nobody)._keep(word)
    assert read_config(tmp_path / DESTINATION, RealmConfig) == replace(THERE, nats=None)
    assert [draft.data for draft in bus.emitted] == [to_data(Following(word=str(word.id)))]


def test_who_looks_where_the_realm_goes_is_let_in_by_its_brokers_alone_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        network = ZmqNetwork()
        try:
            async with asyncio.timeout(30), realm(network, tmp_path) as made:
                broker = await made.broker()
                at = tuple((one.address, one.public) for one in made.brokers)
                there = RealmConfig(name=made.name, roots=(made.root.public,), brokers=at)
                node = made.identity("node/n1")
                assert await following._lets_in(node, there)
                assert broker._store.winner("broker/b1/session/node/n1") is None
                monkeypatch.setattr(following, "ANSWER_S", 0.5)
                assert not await following._lets_in(node, replace(there, roots=(bytes(32),))), "it is another realm's"
                await made.stop(broker)
                assert not await following._lets_in(node, there)
        finally:
            network.close()

    asyncio.run(play())


def test_that_a_realm_on_nats_stays_there_is_no_place_to_go_to(tmp_path: Path) -> None:
    write_config(tmp_path / DESTINATION, HERE)
    bus: Any = SimpleNamespace(source="node/n1")
    nobody: Any = None
    assert Follower(bus, nobody, tmp_path, THERE, nobody)._keep(signed("operator/alice", ENGINE, STAYS, version=2))
    assert not (tmp_path / DESTINATION).exists()
