"""What keeps whom out on NATS: TLS, the gate, subjects that a source may publish, and readers that believe nobody."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count

import pytest

from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.link import ApiError, NatsLink, Publication
from dsmt.bus.nats.streams import last_on
from dsmt.bus.wire.subjects import Subjects
from dsmt.errors import RefusedError, TransportError
from dsmt.ports.bus import Draft, Start
from dsmt.trust.identity import Identity, root_issued
from dsmt.trust.keys import SecretKey
from dsmt.trust.store import Realm, TrustStore
from tests.bus.nats_servers import Gates, NatsServers
from tests.bus.realm import Pen, TestClock, TestEntropy, TestRealm, memory_network, reading, realm
from tests.waiting import until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("nats")]
NAMES = ("operator/alice", "operator/bob", "node/n1")


class Kept:
    """A realm on one server with TLS, and a gate beside it."""

    def __init__(self, made: TestRealm) -> None:
        self.made = made
        self.identities = {name: made.identity(name) for name in NAMES}
        self.servers = NatsServers(1, tls=True)
        self.subjects = Subjects(made.name)

    async def start(self) -> None:
        self.gates = self.servers.gates = Gates(self.made, self.servers)
        self.servers.start()
        self.gates.open()
        await self.gates.born.wait()

    async def bus(self, identity: Identity, *, wait: bool = True) -> NatsBus:
        bus = NatsBus(
            identity=identity,
            trust=self.made.trust(),
            realm=self.servers.realm(),
            clock=TestClock(),
            entropy=TestEntropy(),
        )
        self.made.tasks[bus] = asyncio.create_task(bus.run())
        if wait:
            await asyncio.wait_for(bus.wait_attached(), 10)
        return bus

    async def link(self, name: str) -> NatsLink:
        """A bare link of a source that minds no rule."""
        return await self.servers.link(self.identities[name])


@asynccontextmanager
async def kept(tmp_path) -> AsyncIterator[Kept]:
    async with asyncio.timeout(45), realm(memory_network(), tmp_path) as made:
        one = Kept(made)
        try:
            await one.start()
            yield one
        finally:
            await one.gates.close()
            one.servers.close()


def on_nats(test: Callable[[Kept], Awaitable[None]]):
    def run(tmp_path) -> None:
        async def within() -> None:
            async with kept(tmp_path) as one:
                await test(one)

        asyncio.run(within())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@on_nats
async def test_sources_talk_over_tls_and_by_their_own_keys(k: Kept) -> None:
    alice, bob = [await k.bus(k.identities[name]) for name in ("operator/alice", "operator/bob")]
    node = await k.bus(k.identities["node/n1"])
    async with reading(bob, "user/", "node/", start=Start.FACTS, inbox=True) as got:
        await alice.publish(Draft("user/t", {"n": 1}, version=1, to=("operator/bob",)))
        node.heartbeat("node/n1/heartbeat", 1.0)
        await got.until(lambda g: g.of("node/n1/heartbeat") and g.of("user/t"))
        assert got.types() == []


@on_nats
async def test_a_link_without_tls_and_one_to_another_authority_are_not_made(k: Kept) -> None:
    known, address = k.servers.realm(), k.servers.addresses[0]
    other = NatsServers(1, tls=True)
    try:
        for wrong in (other.realm().authority, ""):
            apart = type(known)(known.servers, 1, authority=wrong, gated=True)
            with pytest.raises((TransportError, RefusedError)):
                await NatsLink.connect(address, apart, key=k.gates.keys.system, name="gate")
    finally:
        other.close()
    assert ssl.HAS_TLSv1_3


@on_nats
async def test_of_a_link_that_is_closed_no_socket_is_left_though_its_server_answers_nothing(k: Kept) -> None:
    link = await k.link("operator/alice")
    raw = link._client._transport._bare_io_writer.transport
    server = k.servers.processes[0]
    server.send_signal(signal.SIGSTOP)
    try:
        await link.close()
        assert raw.is_closing()
        await until(lambda: raw.get_extra_info("socket").fileno() == -1)
    finally:
        server.send_signal(signal.SIGCONT)


def test_of_a_link_whose_maker_is_ended_while_a_server_answers_nothing_no_socket_is_left(tmp_path, monkeypatch) -> None:
    made: list[NatsLink] = []
    real = NatsLink.__init__
    monkeypatch.setattr(NatsLink, "__init__", lambda self, *given: (real(self, *given), made.append(self))[0])

    async def within(k: Kept) -> None:
        server = k.servers.processes[0]
        server.send_signal(signal.SIGSTOP)
        try:
            connecting = asyncio.create_task(k.link("operator/alice"))
            await until(lambda: [one for one in made if one._name == "operator/alice"])
            client = made[[one._name for one in made].index("operator/alice")]._client
            await until(lambda: getattr(client._transport, "_bare_io_writer", None))
            raw = client._transport._bare_io_writer.transport
            connecting.cancel()
            await asyncio.wait({connecting})
            assert raw.is_closing()
        finally:
            server.send_signal(signal.SIGCONT)

    on_nats(within)(tmp_path)


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_of_a_link_whose_maker_is_ended_just_as_its_client_goes_on_nothing_is_left(tmp_path, monkeypatch, nth: int) -> None:
    """`wait_for` swallows the end of who waits when what it waits for comes in the same moment, and the client goes on."""
    real, there, calls = asyncio.wait_for, asyncio.Event(), count(1)
    makers: list[asyncio.Task[object]] = []

    async def wait_for(awaitable, timeout):  # noqa: ASYNC109 - its signature
        came = await real(awaitable, timeout)
        task = asyncio.current_task()
        if task.get_coro().__qualname__ == "Client.connect" and task.get_coro().cr_frame.f_locals["name"].startswith(
            "operator/alice"
        ):
            makers.append(task)
            if next(calls) == nth:
                there.set()
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(5)
        return came

    async def within(k: Kept) -> None:
        monkeypatch.setattr(asyncio, "wait_for", wait_for)
        connecting = asyncio.create_task(k.link("operator/alice"))
        await there.wait()
        client = makers[0].get_coro().cr_frame.f_locals["self"]
        connecting.cancel()
        await asyncio.wait({connecting})
        assert connecting.cancelled()
        assert makers[0].done()
        assert client._transport._bare_io_writer.transport.is_closing()
        parts = (client._reading_task, client._flusher_task, client._ping_interval_task)
        assert [part for part in parts if part is not None and not part.done()] == []

    on_nats(within)(tmp_path)


@on_nats
async def test_a_key_that_no_root_of_the_realm_has_certified_is_not_let_in_and_told_so(k: Kept) -> None:
    root = SecretKey(os.urandom(32))
    eve = root_issued("operator/eve", root, key=SecretKey(os.urandom(32)), now_s=int(time.time()), serial=os.urandom(16))
    made = NatsBus(
        identity=eve,
        trust=TrustStore(Realm(name=k.made.name, roots=(root.public,))),
        realm=k.servers.realm(),
        clock=TestClock(),
        entropy=TestEntropy(),
    )
    k.made.tasks[made] = asyncio.create_task(made.run())
    await until(lambda: made.refusal)
    assert "does not let operator/eve in" in made.refusal.message
    assert "an issuer that is unknown" in k.servers.log()
    assert not made.attached


@on_nats
async def test_nobody_publishes_under_another_name_nor_beyond_its_grant(k: Kept) -> None:
    alice = await k.bus(k.identities["operator/alice"])
    await alice.publish(Draft("user/f", {"n": 1}, version=1))
    own = k.subjects.event("operator/alice", "user/f", fact=True)
    node = await k.link("node/n1")
    wrong = [
        own,
        k.subjects.event("node/n1", "config/colour", fact=True),
        k.subjects.event("node/n2", "node/n2/heartbeat", fact=False),
        k.subjects.offered("operator/alice", "operator/alice", "user/f"),
        k.subjects.certificate("operator/alice", "operator/alice", k.identities["operator/alice"].key.key_id),
        k.subjects.copy("operator/alice", "operator/bob", "user/f", fact=True),
        k.subjects.asked("operator/alice"),
        k.subjects.answer("operator/alice"),
        "$SYS.REQ.SERVER.PING.CONNZ",
    ]
    for subject in wrong:
        with pytest.raises(RefusedError, match="does not let node/n1 publish") as refused:
            await node.publish(Publication(subject, b"x", {}))
        assert refused.value.code == "trust.denied"
    stored = await last_on(await k.servers.administrator(), k.subjects.facts, own)
    assert stored is not None
    assert stored.raw != b"x"


@pytest.mark.parametrize("asked", ["STREAM.PURGE.{}", "STREAM.DELETE.{}", "STREAM.UPDATE.{}", "STREAM.MSG.DELETE.{}"])
def test_nobody_but_the_administrator_changes_a_stream(tmp_path, asked: str) -> None:
    async def within(k: Kept) -> None:
        node = await k.link("node/n1")
        for stream in (k.subjects.history, k.subjects.facts):
            with pytest.raises(RefusedError):
                await node.api(asked.format(stream), {"seq": 1})

    on_nats(within)(tmp_path)


@on_nats
async def test_what_no_reader_may_believe_is_told_and_nothing_of_it_is_delivered(k: Kept) -> None:
    """The server lets a source say anything under its own name; the readers do not take it."""
    bob, node = await k.bus(k.identities["operator/bob"]), await k.link("operator/alice")
    alice = Pen(k.identities["operator/alice"])
    forged = Pen(Identity(k.made.identity("operator/alice").key, k.identities["operator/alice"].chain))
    later, granted = alice.write("user/late", {"n": 1}, ahead_s=60.0), alice.write("user/moved", {"n": 1})
    bad = {
        "user/junk": b"\x00junk",
        "user/forged": forged.write("user/forged", {"n": 1}).raw,
        "user/late": later.raw,
        "user/elsewhere": granted.raw,
    }
    bus = await k.bus(k.identities["operator/alice"])
    async with reading(bob, "user/", start=Start.LIVE) as got:
        for topic, raw in bad.items():
            await node.publish(Publication(k.subjects.event("operator/alice", topic, fact=False), raw, {}))
        await bus.publish(Draft("user/good", {"n": 1}))
        await got.until(lambda g: g.of("user/good"))
        assert [one.signed.event.topic for one in got.arrived] == ["user/good"]
        assert got.types() == ["badsignature"] * 4
        assert [one.fields["code"] for one in got.notices][2:] == ["clock_ahead", "event.subject"]


@on_nats
async def test_a_consumer_cannot_be_made_to_write_over_the_facts_of_another(k: Kept) -> None:
    alice = await k.bus(k.identities["operator/alice"])
    await alice.publish(Draft("user/f", {"n": 1}, version=1))
    own = k.subjects.event("operator/alice", "user/f", fact=True)
    node, administrator = await k.link("node/n1"), await k.servers.administrator()
    before = await last_on(administrator, k.subjects.history, own)
    for stream in (k.subjects.facts, k.subjects.history):
        name = os.urandom(4).hex()
        config = {"name": name, "deliver_subject": own, "ack_policy": "none", "mem_storage": True, "deliver_policy": "all"}
        with suppress(ApiError):
            await node.api(f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config, "action": "create"})
    for n in range(20):
        await alice.publish(Draft("user/t", {"n": n}))
    assert await last_on(administrator, k.subjects.history, own) == before
