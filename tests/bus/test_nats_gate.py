"""The gate of a NATS server: whom it lets in, what it says of who is attached, and whom it sends away."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from nats.errors import StaleConnectionError

from dsmt.bus.nats import room
from dsmt.bus.nats.bus import NatsBus
from dsmt.bus.nats.link import NatsLink, Publication
from dsmt.bus.nats.questions import NatsQuestions
from dsmt.bus.nats.streams import head
from dsmt.bus.rules import presence
from dsmt.bus.rules.nats_sessions import how_of
from dsmt.bus.rules.session_words import STATS_S
from dsmt.bus.wire.nats_tokens import certificates_token, connection_name
from dsmt.errors import RefusedError
from dsmt.ports.bus import Draft, Start
from dsmt.ports.realm import About
from dsmt.trust.identity import Identity, root_issued
from dsmt.trust.revocations import topic_of
from tests.bus.realm import Reading, reading
from tests.bus.servers_clock import ServersClock
from tests.bus.test_nats_door import Kept, kept, on_nats
from tests.waiting import timed, until

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("nats")]
UNANSWERED_S = 30.0


def said(got: Reading, name: str) -> list[tuple[str, str | None]]:
    """What was said of a source's session, one after the other."""
    return [(one["state"], one["how"]) for one in got.of(f"broker/s0/session/{name}")]


def states(got: Reading, name: str) -> list[str]:
    return [state for state, _ in said(got, name)]


async def connect(k: Kept, identity: Identity, *, name: str = "", shows: Identity | None = None) -> NatsLink:
    token = certificates_token([one.raw for one in (shows or identity).chain])
    address, realm = k.servers.addresses[0], k.servers.realm()
    return await NatsLink.connect(
        address, realm, key=identity.key, name=connection_name(name or identity.name, About(None, "test"), 1), shows=token
    )


@on_nats
async def test_who_shows_certificates_of_a_key_that_it_has_not_is_kept_out(k: Kept) -> None:
    alice, bob = k.identities["operator/alice"], k.identities["operator/bob"]
    mallory = Identity(bob.key, alice.chain)
    with pytest.raises(RefusedError, match="does not let operator/alice in"):
        await connect(k, mallory, name="operator/alice")
    with pytest.raises(RefusedError, match="does not let operator/alice in"):
        await connect(k, bob, name="operator/alice")
    link = await connect(k, bob)
    await link.close()


@on_nats
async def test_a_key_that_is_made_while_it_runs_comes_in_without_a_new_configuration(k: Kept) -> None:
    node = k.made.identity("node/n7")
    agent = k.made.identity("agent/n7/web/app/0", parent=node)
    bus = await k.bus(agent)
    bob = await k.bus(k.identities["operator/bob"])
    async with reading(bob, "node/n7/") as got:
        bus.heartbeat("node/n7/agent/web/app/0/heartbeat", 1.0)
        await got.until(lambda g: g.of("node/n7/agent/web/app/0/heartbeat"))


@on_nats
async def test_a_revoked_key_is_out_within_a_second_and_does_not_come_back(k: Kept) -> None:
    root, bob = await k.bus(k.made.identity("root")), await k.bus(k.identities["operator/bob"])
    alice = await k.bus(k.identities["operator/alice"])
    below = await k.bus(k.made.identity("operator/alice.x1", parent=k.identities["operator/alice"]))
    async with reading(bob, "broker/s0/session/") as got:
        await got.until(lambda g: states(g, "operator/alice.x1") == ["open"])
        ended = k.identities["operator/alice"].key.key_id
        await root.publish(Draft(topic_of(ended, "root"), {"by": "root", "reason": "stolen"}))
        async with timed() as took_s:
            await got.until(lambda g: all(said(g, n)[-1] == ("closed", "local") for n in (alice.source, below.source)))
            assert took_s() < 1.0
        await until(lambda: alice.refusal and below.refusal)
        assert not alice.attached
        assert "trust.revoked" in k.servers.log()
        assert bob.attached


@on_nats
async def test_two_processes_of_one_name_are_both_kept_out_until_their_key_is_revoked(k: Kept) -> None:
    root, bob = await k.bus(k.made.identity("root")), await k.bus(k.identities["operator/bob"])
    first, key = k.identities["node/n1"], k.identities["node/n1"].key.key_id
    topic = "broker/s0/session/node/n1"
    async with reading(bob, "broker/s0/session/", "broker/s0/notice") as got:
        one = await k.bus(first, wait=False)
        await got.until(lambda g: states(g, "node/n1") == ["open"])  # two that begin in one millisecond have one incarnation
        both = [one, await k.bus(first, wait=False)]
        await got.until(lambda g: "kept_out" in (g.of(topic) or [{}])[-1])
        assert (got.of(topic)[-1]["state"], got.of(topic)[-1]["kept_out"]) == ("closed", key.hex())
        await got.until(lambda g: g.of("broker/s0/notice"))
        said = got.of("broker/s0/notice")[0]
        assert (said["kind"], said["source"]) == ("clone", "node/n1")
        assert said["message"] == "two processes keep attaching as node/n1"
        await until(lambda: not any(one.attached for one in both))
        await until(lambda: all(one.refusal for one in both))
        assert "trust.contested" in k.servers.log()
        await root.publish(Draft(topic_of(key, "root"), {"by": "root", "name": "node/n1"}))
        await got.until(lambda g: "kept_out" not in g.of(topic)[-1])
        again = await k.bus(k.made.identity("node/n1"))
        await got.until(lambda g: states(g, "node/n1")[-1] == "open")
        assert again.attached
    assert not any(one.attached for one in both)


@on_nats
async def test_who_is_kept_out_with_a_certificate_that_has_ended_knows_that_though_no_gate_tells_it(k: Kept) -> None:
    now, key = int(time.time()), k.identities["operator/alice"].key
    ended = root_issued("operator/alice", k.made.root, key=key, now_s=now - 900, serial=b"s" * 16, lifetime_s=600)
    alice = await k.bus(ended, wait=False)
    await until(lambda: alice.refusal)
    assert alice.refusal.code == "trust.expired"
    assert "ended at" in alice.refusal.message
    assert not alice.attached


@on_nats
async def test_who_is_attached_with_a_certificate_that_ends_is_out_then(k: Kept) -> None:
    now, key = int(time.time()), k.identities["operator/alice"].key
    ends = root_issued("operator/alice", k.made.root, key=key, now_s=now - 594, serial=b"e" * 16, lifetime_s=600)
    alice = await k.bus(ends)
    await until(lambda: not alice.attached)
    assert time.time() >= ends.certificate.not_after - 1
    await until(lambda: alice.refusal)
    assert alice.refusal.code == "trust.expired"


@on_nats
async def test_who_was_revoked_while_the_gate_was_away_is_out_when_it_is_back(k: Kept) -> None:
    root, alice = await k.bus(k.made.identity("root")), await k.bus(k.identities["operator/alice"])
    await k.gates.close(0)
    await root.publish(Draft(topic_of(k.identities["operator/alice"].key.key_id, "root"), {"by": "root"}))
    assert alice.attached
    k.gates.open(0)
    await until(lambda: alice.refusal)
    assert not alice.attached
    assert root.attached


@on_nats
async def test_who_ends_is_closed_by_its_peer_and_who_comes_again_has_a_greater_attachment(k: Kept) -> None:
    bob, node = await k.bus(k.identities["operator/bob"]), await k.bus(k.identities["node/n1"])
    async with reading(bob, "broker/s0/session/") as got:
        await got.until(lambda g: states(g, "node/n1") == ["open"])
        first = node.attachment
        assert got.of("broker/s0/session/node/n1")[-1]["attachment"] == first
        await k.made.stop(node)
        await got.until(lambda g: said(g, "node/n1")[-1] == ("closed", "peer"))
        again = await k.bus(k.identities["node/n1"])
        await got.until(lambda g: states(g, "node/n1")[-1] == "open")
        assert got.of("broker/s0/session/node/n1")[-1]["attachment"] == again.attachment > first


@on_nats
async def test_a_gate_says_at_once_that_its_servers_disk_is_full_and_that_there_is_room_again(k: Kept) -> None:
    bob = await k.bus(k.identities["operator/bob"])
    async with reading(bob, "broker/s0/stats") as got:
        for full in ("/disk/b1", ""):
            k.gates.full = full
            async with timed() as took_s:
                await got.until(
                    lambda g, full=full: g.of("broker/s0/stats")[-1:] and g.of("broker/s0/stats")[-1].get("full", "") == full
                )
                assert took_s() < STATS_S / 2


def test_the_oldest_of_the_history_gives_way_while_little_is_left_of_a_disk_and_no_fact_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LOOK_S", 0.05)
    monkeypatch.setattr(room, "LEAST_BYTES", 20_000)

    async def within(k: Kept) -> None:
        alice, bob = await k.bus(k.identities["operator/alice"]), await k.bus(k.identities["operator/bob"])
        administrator = await k.servers.administrator()
        await alice.publish(Draft("user/f", {"n": 0}, version=1))
        for n in range(200):
            alice.emit(Draft("user/t", {"n": n}))
        await alice.publish(Draft("user/t", {"n": 200}))
        before = await head(administrator, k.subjects.history)
        assert before.first == 1
        assert before.size > 2 * room.LEAST_BYTES
        k.gates.low = True
        async with asyncio.timeout(20):
            while (at := await head(administrator, k.subjects.history)).size > room.LEAST_BYTES:
                assert at.first <= before.last
        k.gates.low = False
        assert at.first > before.last // 2
        async with reading(bob, "user/", start=Start.HISTORY) as got:
            assert got.types()[0] == "trimmed"
            assert got.of("user/f") == [{"n": 0}]
            assert got.of("user/t")[-1] == {"n": 200}
            assert 0 < len(got.of("user/t")) < 200

    on_nats(within)(tmp_path)


@on_nats
async def test_a_link_that_was_given_up_is_lost_at_once_though_nobody_answers_the_end_of_its_tls(k: Kept) -> None:
    """Of a process that stood still the server has ended the connection, and does not answer any more."""
    link = await connect(k, k.identities["operator/alice"])

    async def unanswered() -> None:
        await asyncio.sleep(UNANSWERED_S)

    link._client._transport.wait_closed = unanswered
    giving_up = asyncio.create_task(link._client._process_op_err(StaleConnectionError()))
    try:
        await asyncio.wait_for(link.lost, UNANSWERED_S / 2)
    finally:
        giving_up.cancel()
        await link.close()


@on_nats
async def test_who_only_reads_is_not_told(k: Kept) -> None:
    bob = await k.bus(k.identities["operator/bob"])
    reader = NatsBus(
        identity=k.identities["operator/alice"],
        trust=k.made.trust(),
        realm=k.servers.realm(),
        clock=bob._clock,
        entropy=bob._entropy,
        reads=True,
    )
    k.made.tasks[reader] = asyncio.create_task(reader.run())
    await asyncio.wait_for(reader.wait_attached(), 10)
    node = await k.bus(k.identities["node/n1"])
    async with reading(bob, "broker/s0/session/") as got:
        await got.until(lambda g: states(g, node.source) == ["open"])
        assert states(got, "operator/alice") == []


@on_nats
async def test_who_is_asked_and_does_not_answer_is_silent_and_one_that_answers_is_not(k: Kept) -> None:
    bob = await k.bus(k.identities["operator/bob"])

    async def deaf(self: NatsLink, _asked: str, answer: str) -> None:
        await self.send(Publication(answer, b"", {}))

    real, NatsLink.answer = NatsLink.answer, deaf
    try:
        node = await k.bus(k.identities["node/n1"])
    finally:
        NatsLink.answer = real
    async with reading(bob, "broker/s0/session/") as got:
        await got.until(lambda g: states(g, "node/n1") == ["open", "silent"])
        assert states(got, "operator/bob") == ["open"]
        await node.publish(Draft("node/n1/heartbeat", node._said.signer.heartbeat(0.0, 1.0)))
        await got.until(lambda g: states(g, "node/n1")[-1] == "open")


@on_nats
async def test_a_gate_that_begins_anew_goes_on_with_who_is_there_and_finds_who_has_gone(k: Kept) -> None:
    bob, alice = [await k.bus(k.identities[name]) for name in ("operator/bob", "operator/alice")]
    node = await k.bus(k.identities["node/n1"])
    real, presence.REATTACH_GRACE = presence.REATTACH_GRACE, 0.5
    try:
        async with reading(bob, "broker/s0/session/") as got:
            await got.until(lambda g: states(g, "node/n1") == states(g, "operator/alice") == ["open"])
            await k.gates.close(0)
            await k.made.stop(node)
            assert await alice.publish(Draft("user/t", {"n": 1}))
            k.gates.open(0)
            await got.until(lambda g: states(g, "node/n1")[-1] == "silent")
            assert states(got, "operator/alice") == ["open"]
            assert alice.attached
    finally:
        presence.REATTACH_GRACE = real


def test_who_is_attached_is_said_anew_when_the_servers_clock_was_put_ahead(tmp_path: Path, monkeypatch) -> None:
    """What was said of them before lives for a day: when more than that is skipped, nobody would be there for half a day."""

    async def within() -> None:
        clock = ServersClock(monkeypatch, -60_000)
        async with kept(tmp_path) as k:
            bob, node = [await k.bus(k.identities[name]) for name in ("operator/bob", "node/n1")]
            async with reading(bob, "broker/s0/session/") as got:
                await got.until(lambda g: states(g, node.source) == ["open"])
                clock.ahead_ms = 0
                await got.until(lambda g: states(g, node.source) == ["open", "open"])
                first, again = (one.signed.event for one in got.arrived if one.signed.event.topic.endswith(node.source))
                assert again.time_ms - first.time_ms > 50_000
                assert again.data == first.data

    asyncio.run(within())


@pytest.mark.parametrize(
    ("reason", "how"),
    [
        ("Client Closed", "peer"),
        ("Read Error", "peer"),
        ("Stale Connection", "timeout"),
        ("Slow Consumer (Write Deadline)", "timeout"),
        ("Write Error", "timeout"),
        ("", "timeout"),
        ("Kicked", "local"),
        ("Server Shutdown", "local"),
    ],
)
def test_a_close_is_evidence_only_where_the_peer_did_it(reason: str, how: str) -> None:
    assert how_of(reason) == how


def test_nobody_but_brokers_is_let_in_before_the_gate_asks_for_those_who_may_not_read_everything(
    tmp_path, monkeypatch
) -> None:
    """An agent would ask, and nobody would answer."""
    real = NatsQuestions.run

    async def within(k: Kept) -> None:
        gate = k.gates.running[0]
        waits = asyncio.create_task(k.servers.link(k.identities["operator/alice"]))
        await until(lambda: gate._presence.ready.is_set() and gate._answering, 20)
        await (await k.servers.administrator()).close()
        assert not waits.done()
        go_on.set()
        await (await asyncio.wait_for(waits, 20)).close()

    async def later(self: NatsQuestions) -> None:
        await go_on.wait()
        await real(self)

    go_on = asyncio.Event()
    monkeypatch.setattr(NatsQuestions, "run", later)
    on_nats(within)(tmp_path)
