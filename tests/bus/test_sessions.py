"""What a broker says of who is attached: session facts, attachment numbers, superseding, silence (rule A11, F1-F3)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from unittest.mock import patch

import pytest

from dsmt.bus.client import client as clients
from dsmt.bus.client.attaching import greet, sign_attachment
from dsmt.bus.client.incarnation import KeptIncarnation
from dsmt.bus.rules import presence
from dsmt.bus.rules.attach_backoff import WAIT_S, AttachBackoff
from dsmt.bus.rules.quiet import LinkWatch
from dsmt.bus.wire import frames as f
from dsmt.errors import DsmtError, RefusedError, TransportError
from dsmt.ports.bus import Draft
from dsmt.ports.realm import About
from dsmt.system.files import DiskFiles
from dsmt.trust.identity import Identity, dump
from dsmt.trust.joining import node_certificate
from dsmt.trust.keys import SecretKey
from dsmt.trust.revocations import topic_of
from tests.bus.realm import TestRealm, reading, scenario
from tests.waiting import timed, until

SESSIONS = "broker/+/session/"


def states(got, name):
    """What was said of a source's sessions, its attachments counted 1, 2... in the order of their numbers."""
    said = got.of(f"broker/b1/session/{name}")
    numbers = sorted({d["attachment"] for d in said})
    return [(d["state"], d["how"], numbers.index(d["attachment"]) + 1) for d in said]


@scenario
async def test_of_two_that_were_let_in_before_either_attached_the_one_with_the_greater_number_stays(r: TestRealm):
    await r.broker()
    node, about = r.identity("node/n1"), About(1, "raw", "")
    both = [await r.raw(node.name, identity=node, attach=False) for _ in range(2)]
    welcomes = [await greet(one.link, node, r.trust(), about, incarnation=0, attachment=1) for one in both]
    assert welcomes[0].attachment < welcomes[1].attachment
    sign_attachment(both[1].link, node, welcomes[1])
    await both[1].next(f.Revocations)
    sign_attachment(both[0].link, node, welcomes[0])
    refused, _ = await both[0].next(f.Refused)
    assert refused.code == "trust.superseded"


@scenario
async def test_an_attachment_is_open_until_its_process_closes_it(r: TestRealm):
    await r.broker()
    bob, identity = await r.client("operator/bob"), r.identity("node/n1")
    async with reading(bob, SESSIONS) as got:
        node = await r.client("node/n1", identity=identity)
        first = node.attachment
        await r.stop(node)
        await got.until(lambda g: len(states(g, "node/n1")) == 2)
        node = await r.client("node/n1", identity=identity)
        await got.until(lambda g: len(states(g, "node/n1")) == 3)
        assert states(got, "node/n1") == [("open", None, 1), ("closed", "peer", 1), ("open", None, 2)]
        assert node.attachment > first > 1_600_000_000_000, "it rises with realm time, whatever a broker forgets"
        record = got.of("broker/b1/session/node/n1")[-1]
        assert (record["pid"], record["version"], record["address"]) == (os.getpid(), "test", "127.0.0.1")
        assert record["incarnation"] == node._publisher.signer.incarnation


@scenario
async def test_a_session_that_says_nothing_is_silent_and_open_again_when_it_speaks(r: TestRealm):
    await r.broker()
    bob = await r.client("operator/bob")
    async with reading(bob, SESSIONS) as got, timed() as took_s:
        began = asyncio.get_running_loop().time()
        raw = await r.raw("operator/eve")
        await got.until(lambda g: len(states(g, "operator/eve")) == 2)
        stood_ms = (asyncio.get_running_loop().time() - began - took_s()) * 1000  # for which a broker accuses nobody
        assert states(got, "operator/eve") == [("open", None, 1), ("silent", None, 1)]
        silent = got.of("broker/b1/session/operator/eve")[-1]
        assert abs(silent["since_ms"] - got.of("broker/b1/session/operator/eve")[0]["since_ms"]) < 1500 + stood_ms
        raw.send(f.Keepalive())
        await got.until(lambda g: len(states(g, "operator/eve")) == 3)
        assert states(got, "operator/eve")[-1] == ("open", None, 1)
        assert states(got, "operator/bob")[-1][0] == "open"


@scenario
async def test_who_is_asked_looks_after_its_link_then_and_is_not_woken_for_that_again(r: TestRealm):
    asked: list[float] = []
    after: list[float] = []
    look = LinkWatch.look
    await r.broker()
    bob = await r.client("operator/bob")
    post = bob._try_post
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bob, "_try_post", lambda frame: (asked.append(bob._clock.boottime()), post(frame)))
        patch.setattr(LinkWatch, "look", lambda watch, now: (after.append(now - asked[-1]), look(watch, now)))
        await until(lambda: len(after) >= 3, 20)
    assert len(after) <= len(asked) <= len(after) + 1
    assert sorted(after)[1] < 0.3


@scenario
async def test_a_silent_peer_whose_connection_then_ends_was_not_closed_by_itself(r: TestRealm):
    await r.broker()
    bob = await r.client("operator/bob")
    async with reading(bob, SESSIONS) as got:
        raw = await r.raw("operator/eve")
        await got.until(lambda g: len(states(g, "operator/eve")) == 2)
        await raw.link.close()
        await got.until(lambda g: len(states(g, "operator/eve")) == 3)
        assert states(got, "operator/eve")[-1] == ("closed", "timeout", 1)
        silent, closed = got.of("broker/b1/session/operator/eve")[-2:]
        assert closed["since_ms"] == silent["since_ms"]  # the last word, not the end of the connection


@scenario
async def test_a_restarted_broker_waits_before_it_calls_its_old_sessions_silent(r: TestRealm):
    broker = await r.broker()
    bob, identity = await r.client("operator/bob"), r.identity("node/n1")
    node = await r.client("node/n1", identity=identity)
    await r.client("operator/quiet")
    async with reading(bob, SESSIONS) as got:
        before = node.attachment
        silent_after, presence.REATTACH_GRACE = presence.REATTACH_GRACE, 4.5
        try:
            node_task = r.tasks.pop(node)
            broker_started = time.monotonic()
            node_task.cancel()
            # the broker is stopped in the same turn: the session is open in its store for ever
            await r.stop(broker)
            broker._store.close()
            await asyncio.wait({node_task})
            await r.broker("b1", identity=r.identities[broker], address=broker.address)
            await got.until(lambda g: states(g, "node/n1")[-1][0] == "silent")
            assert time.monotonic() - broker_started > 4.0
            assert [s for s in states(got, "operator/quiet") if s[0] == "silent"] == []
            node = await r.client("node/n1", identity=identity)
            assert node.attachment > before
            await got.until(lambda g: states(g, "node/n1")[-1][0] == "open")
        finally:
            presence.REATTACH_GRACE = silent_after


@scenario
async def test_the_newer_of_two_processes_of_one_name_stays_and_the_other_is_told(r: TestRealm):
    await r.broker()
    bob, identity = await r.client("operator/bob"), r.identity("operator/eve")
    async with reading(bob, SESSIONS) as got:
        first = await r.raw("operator/eve", identity=identity)
        second = await r.raw("operator/eve", identity=identity)
        refused, _ = await first.next(f.Refused)
        assert refused.code == "trust.superseded"
        assert refused.next
        await first.closed()
        await until(lambda: len(states(got, "operator/eve")) >= 2)
        assert states(got, "operator/eve") == [("open", None, 1), ("open", None, 2)]
        second.send(f.Time(sent=1.0))
        await second.next(f.TimeIs)


@scenario
async def test_two_processes_of_one_name_take_turns_twice_and_then_both_are_kept_out(r: TestRealm):
    known = (await r.broker())._session_words.presence._known
    bob = await r.client("operator/bob")
    old = int(time.time()) - 100
    identity = r.identity("operator/eve", now_s=old)
    async with reading(bob, SESSIONS, "broker/+/notice") as got:
        one = await r.client("operator/eve", identity=identity, wait=False)
        other = await r.client("operator/eve", identity=identity, wait=False)
        for client in (one, other):
            await until(lambda client=client: client.refusal is not None and client.refusal.code == "trust.contested")
        assert "clone" in [d["kind"] for d in got.of("broker/b1/notice")]
        await until(lambda: not one.attached and not other.attached)
        await got.until(lambda g: g.of("broker/b1/session/operator/eve")[-1].get("kept_out") == identity.key.key_id.hex())
        came = known["operator/eve"].heard
        await until(lambda: known["operator/eve"].heard > came)  # who still comes is not forgotten
        renewed = r.identity("operator/eve")
        again = await r.client("operator/eve", identity=renewed)
        await again.publish(Draft("user/t", {}))
        await got.until(lambda g: "kept_out" not in g.of("broker/b1/session/operator/eve")[-1])


@scenario
async def test_two_processes_of_one_name_in_one_incarnation_are_both_kept_out(r: TestRealm):
    await r.broker()
    identity, ahead = r.identity("operator/eve"), int(time.time() * 1000) + 5_000
    both = []
    for name in ("one", "copy"):
        kept = DiskFiles(r.directory / name, durable=False)
        KeptIncarnation(kept).began(ahead)
        both.append(await r.client("operator/eve", identity=identity, wait=False, kept=kept))
    for client in both:
        await until(lambda client=client: client.refusal is not None and client.refusal.code == "trust.contested")


@scenario
async def test_who_was_kept_out_by_a_thief_of_its_name_is_let_in_when_that_key_is_revoked(r: TestRealm):
    await r.broker()
    now = int(time.time())
    issuer, own = r.identity("issuer/i1", now_s=now - 100), r.identity("node/n1", now_s=now - 1000)
    key = SecretKey(os.urandom(32))
    made = node_certificate(issuer, "n1", key.public, now_s=now, serial=os.urandom(16))
    stolen = Identity(key, (made, *issuer.chain))
    for client in [await r.client("node/n1", identity=stolen, wait=False) for _ in range(2)]:
        await until(lambda client=client: client.refusal is not None and client.refusal.code == "trust.contested")
        said = f"dsmt node add it again, or dsmt cert revoke {key.key_id.hex()} here and dsmt join TOKEN there"
        assert client.refusal.next == f"stop one, then dsmt cert rotate node/n1; on a host: {said}"
    node = await r.client("node/n1", identity=own, wait=False)
    await until(lambda: node.refusal is not None and node.refusal.code == "trust.contested")
    root = await r.client("root")
    await root.publish(Draft(topic_of(issuer.key.key_id, "root"), {"by": "root"}))
    await until(lambda: node.attached)


# --- real processes ------------------------------------------------------------------------------------------------------

_CLIENT = """
import asyncio, sys
from pathlib import Path
from dsmt.ports.realm import About
from dsmt.bus.client.client import BusClient
from dsmt.bus.zeromq.network import ZmqNetwork
from dsmt.ports.bus import Draft
from dsmt.ports.realm import BrokerAddress
from dsmt.system.clock import LinuxClock
from dsmt.system.entropy import SystemEntropy
from dsmt.trust.identity import load
from dsmt.trust.store import Realm, TrustStore

async def main(identity, root, address, public):
    bus = BusClient(
        identity=load(Path(identity).read_bytes(), where=identity),
        trust=TrustStore(Realm(name="test", roots=(bytes.fromhex(root),))),
        brokers=[BrokerAddress(address, bytes.fromhex(public))],
        network=ZmqNetwork(), clock=LinuxClock(), entropy=SystemEntropy(), about=About(None, "child"),
    )
    task = asyncio.create_task(bus.run())
    await bus.wait_attached()
    print("attached", flush=True)
    await task

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def zeromq(tmp_path):
    return "zeromq", tmp_path


@pytest.mark.real
def test_a_killed_process_is_named_within_a_second(zeromq):
    @scenario
    async def killed(r: TestRealm):
        broker = await r.broker()
        bob = await r.client("operator/bob")
        path = r.directory / "identity"
        path.write_bytes(dump(r.identity("node/n1")))
        arguments = [str(path), r.root.public.hex(), broker.address, r.identities[broker].key.public.hex()]
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", _CLIENT, *arguments, stdout=subprocess.PIPE)
        try:
            async with reading(bob, SESSIONS) as got:
                await got.until(lambda g: states(g, "node/n1") == [("open", None, 1)])
                async with timed() as took_s:
                    os.kill(child.pid, signal.SIGKILL)
                    await got.until(lambda g: len(states(g, "node/n1")) == 2)
                    assert took_s() < 1.0
                assert states(got, "node/n1")[-1] == ("closed", "peer", 1)
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()

    killed(*zeromq)


@scenario
async def test_a_link_that_is_cut_is_attached_again_with_a_greater_number(r: TestRealm):
    broker = await r.broker()
    bob, eve = await r.client("operator/bob"), await r.client("operator/eve")
    first = eve.attachment
    async with reading(bob, SESSIONS) as got:
        broker._disconnect(broker._sessions.by_name["operator/eve"].peer)
        await got.until(lambda g: len(states(g, "operator/eve")) == 3)
        assert states(got, "operator/eve") == [("open", None, 1), ("closed", "local", 1), ("open", None, 2)]
        await until(lambda: eve.attached)
        assert eve.attachment > first
        with pytest.raises(TransportError):
            await r.network.connect("127.0.0.1:1", SecretKey(os.urandom(32)).link_secret(), server_key=os.urandom(32))


@scenario
async def test_no_heartbeat_is_kept_for_a_broker_to_come(r: TestRealm):
    broker = await r.broker()
    node = await r.client("node/n1")
    await r.stop(broker)
    await until(lambda: not node.attached)
    waiting = len(node._publisher.said.outbox)
    for _ in range(100):
        node.heartbeat("node/n1/heartbeat", 1.0)
    assert len(node._publisher.said.outbox) == waiting


@scenario
async def test_only_who_is_to_probe_a_node_hears_of_it_and_of_its_end(r: TestRealm):
    await r.broker()
    node, other = r.identity("node/n1"), r.identity("node/n2")
    manager = await r.client("node/n1", identity=node)
    monitor = await r.client("monitor/n1", identity=r.identity("monitor/n1", parent=node))
    prober = await r.client("monitor/n2", identity=r.identity("monitor/n2", parent=other))
    await r.client("monitor/n3", identity=r.identity("monitor/n3", parent=r.identity("node/n3")))
    named = {"monitor/n2", "monitor/n3"}
    async with reading(prober, inbox=True, conflate=True, signals=False) as got:
        await r.stop(manager)
        await r.stop(monitor)
        await got.until(lambda g: len(g.arrived) == 2)
        assert {one.signed.event.topic.partition("session/")[2] for one in got.arrived} == {"monitor/n1", "node/n1"}
        assert all(set(one.signed.event.to) == named for one in got.arrived)
        await r.client("node/n1", identity=node)
        await got.until(lambda g: len(g.arrived) == 3)
        assert got.arrived[-1].signed.event.data["state"] == "open"
    async with reading(prober, inbox=True, conflate=True, signals=False) as again:
        assert [one.signed.event.data["state"] for one in again.arrived] == ["open"]


@scenario
async def test_a_broker_that_comes_back_names_who_probes_the_nodes_that_nobody_heard_before(r: TestRealm):
    broker = await r.broker()
    node = r.identity("node/n1")
    manager = await r.client("node/n1", identity=node)
    prober = await r.client("monitor/n2", identity=r.identity("monitor/n2", parent=r.identity("node/n2")))
    async with reading(prober, inbox=True, conflate=True, signals=False) as got:
        await r.stop(manager)
        await got.until(lambda g: g.arrived)
        await r.restarted(broker)
        await got.until(lambda g: g.reattached)
        async with reading(prober, inbox=True, conflate=True, signals=False) as again:
            await again.until(lambda g: g.arrived)
            assert again.arrived[-1].signed.event.to == ("monitor/n2",)
            assert again.arrived[-1].signed.event.data["state"] == "silent"
        await r.client("node/n1", identity=node)
        await got.until(lambda g: g.arrived[-1].signed.event.data["state"] == "open")


@scenario
async def test_who_was_attached_tries_again_at_once_however_often_its_link_was_lost(r: TestRealm) -> None:
    waits: list[float] = []

    class Noted(AttachBackoff):
        def failed(self, error: DsmtError, *, others: bool = False) -> float:
            waits.append(super().failed(error, others=others))
            return waits[-1]

    broker = await r.broker()
    with patch.object(clients, "AttachBackoff", Noted):
        alice = await r.client("operator/alice")
    named = broker._sessions.by_name
    for count in range(1, 5):
        lost = await until(lambda: named.get(alice.source))
        broker._disconnect(lost.peer)
        await until(lambda n=count, lost=lost: len(waits) == n and named.get(alice.source) is not lost)
    assert waits == [WAIT_S[0]] * 4


@scenario
async def test_why_it_was_refused_once_is_told_no_more_when_a_client_is_attached(r: TestRealm) -> None:
    broker, alice = await r.broker(), r.identity("operator/alice")
    reader = await r.client(alice.name, identity=alice, wait=False)
    reader.refusal = RefusedError("trust.expired", "its certificate has ended")
    await until(lambda: reader.attached)
    await until(lambda: broker._sessions.by_name.get(alice.name))
    assert reader.refusal is None, "a link that is lost later would be taken for a refusal"
