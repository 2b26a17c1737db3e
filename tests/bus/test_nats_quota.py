"""What one party may cost NATS servers, which bound nobody (rule D2): the rules, and a real server with its gate."""

from __future__ import annotations

import asyncio
import hashlib
import os
from contextlib import suppress

import msgspec
import pytest

from dsmt.bus.nats import accounts
from dsmt.bus.nats.link import NatsLink, Publication
from dsmt.bus.nats.opener import NatsOpener
from dsmt.bus.nats.streams import last_of_each, last_on
from dsmt.bus.rules import nats_quota
from dsmt.bus.rules.nats_quota import (
    AWAY_S,
    FORGOTTEN_S,
    LENIENCE,
    UNIT_BYTES,
    Counted,
    Work,
    beyond,
    over_held,
    paid_by,
    summed,
    suspected,
)
from dsmt.bus.rules.nats_sessions import ServerConnection
from dsmt.bus.rules.quota import FACT_BYTES, LEAST_LIVE_BYTES, FactTotals
from dsmt.errors import RefusedError, TransportError
from dsmt.ports.bus import Draft
from dsmt.trust.certificate import issue
from dsmt.trust.grants import QUOTAS
from dsmt.trust.identity import Identity
from tests.bus.realm import Pen, reading
from tests.bus.test_nats_door import Kept, on_nats
from tests.waiting import told, until

N1 = "node/n1"
MANY = LEAST_LIVE_BYTES // FACT_BYTES * 3
AT = [ServerConnection("server", number) for number in range(6)]


def certified(k: Kept, name: str, quota: int) -> Identity:
    """Somebody whose certificate allows so many facts."""
    made = k.made.identity(name)
    certificate = msgspec.structs.replace(made.certificate, quota=quota, serial=os.urandom(16))
    return Identity(made.key, (issue(certificate, k.made.root),))


# --- the rules ---------------------------------------------------------------------------------------------------


def work_of(rate: float = 10.0, burst: float = 100.0) -> Work:
    """Of which all was counted at 1 s."""
    work = Work(rate, burst)
    work.counted({}, 1.0)
    return work


def test_who_does_more_than_the_burst_beyond_the_rate_stays_away_for_as_long_as_that_takes() -> None:
    work = work_of()
    work.counted({AT[1]: Counted(N1, 110, 0)}, 2.0)
    assert work.waits_s(N1, 2.0) == 0.0
    work.counted({AT[1]: Counted(N1, 110 + 10 + 300, 0)}, 3.0)
    assert work.waits_s(N1, 3.0) == pytest.approx(30.0)
    assert work.waits_s("node/n2", 3.0) == 0.0
    assert work.waits_s(N1, 23.0) == pytest.approx(10.0)
    assert work.waits_s(N1, 33.0) == 0.0


def test_who_does_so_again_stays_away_twice_as_long_up_to_an_hour_and_a_day_later_as_at_first() -> None:
    work, now, waited = work_of(), 1.0, list[float]()
    for n in range(10):
        work.counted({}, now)
        now += 1.0
        work.ended(AT[1], Counted(N1, 121, 0), now)
        waited.append(work.waits_s(N1, now))
        work.ended(AT[1], Counted(N1, 121, 0), now)  # what comes while it is sent away is of that time
        now += waited[-1] + 100.0
        assert work.waits_s(N1, now) == 0.0, n
    first, most = AWAY_S
    assert waited == pytest.approx([min(most, first * 2**n) for n in range(10)])
    work.counted({}, now + FORGOTTEN_S)
    work.ended(AT[1], Counted(N1, 121, 0), now + FORGOTTEN_S + 1.0)
    assert work.waits_s(N1, now + FORGOTTEN_S + 1.0) == pytest.approx(first)


def test_what_was_sent_before_the_gate_came_is_on_nobodys_account() -> None:
    work = Work(rate=10.0, burst=100.0)
    work.ended(AT[2], Counted("node/n2", 10_000, 0), 1.0)
    work.counted({AT[1]: Counted("", 10_000, 0)}, 1.0)
    work.counted({AT[1]: Counted(N1, 10_020, 0)}, 2.0)
    assert work.waits_s(N1, 2.0) == work.waits_s("node/n2", 2.0) == 0.0


def test_bytes_are_work_and_all_connections_of_a_party_are_counted_together() -> None:
    for size, over in ((50 * UNIT_BYTES, False), (51 * UNIT_BYTES, True)):
        work = work_of()
        work.counted({AT[1]: Counted(N1, 50, 0), AT[2]: Counted(N1, 10, size)}, 2.0)
        assert (work.waits_s(N1, 2.0) > 0) == over


def test_who_says_a_little_for_hours_owes_nothing_however_often_somebody_asks() -> None:
    work = work_of()
    for second in range(1, 3600):
        assert work.waits_s(N1, second) == 0.0
    work.counted({AT[1]: Counted(N1, 9 * 3600, 0)}, 3600.0)
    assert work.waits_s(N1, 3600.0) == 0.0


def test_what_is_owed_is_owed_still_when_it_is_counted_next_however_long_the_gate_has_run() -> None:
    work = work_of()
    work.counted({AT[1]: Counted(N1, 9999 * 10 + 60, 0)}, 10_000.0)
    work.counted({AT[1]: Counted(N1, 9999 * 10 + 60 + 51, 0)}, 10_001.0)
    assert work.waits_s(N1, 10_001.0) > 0


def test_who_sends_much_over_one_connection_after_another_stays_away_too() -> None:
    work, waits = work_of(), list[float]()
    for n in range(4):
        work.ended(AT[n], Counted(N1, 45, 0), n + 2.0)
        waits.append(work.waits_s(N1, n + 2.0))
    assert waits[:2] == [0.0, 0.0]
    assert waits[2] > 0


def test_what_was_counted_of_a_connection_is_not_counted_again_when_it_ends() -> None:
    work = work_of()
    work.counted({AT[1]: Counted(N1, 100, 0)}, 2.0)
    work.ended(AT[1], Counted(N1, 109, 0), 2.0)
    assert work.waits_s(N1, 2.0) == 0.0


@pytest.mark.parametrize(
    ("name", "payer"),
    [
        ("agent/n1/web/app/0", N1),
        ("monitor/n1", N1),
        (N1, N1),
        ("operator/alice.x7", "operator/alice"),
        ("operator/alice", "operator/alice"),
        ("controller/c1", "controller/c1"),
    ],
)
def test_who_pays_stands_in_the_name(name: str, payer: str) -> None:
    assert paid_by(name) == payer


def test_what_is_retained_counts_for_its_source_and_for_who_pays() -> None:
    found = summed([("agent/n1/web/app/0", 10), ("agent/n1/web/app/0", 20), (N1, 5), ("controller/c1", 7)])
    assert found == {"agent/n1/web/app/0": FactTotals(2, 30), N1: FactTotals(3, 35), "controller/c1": FactTotals(1, 7)}


@pytest.mark.parametrize(
    ("quota", "live", "over"),
    [
        (10, FactTotals(LENIENCE * 10, LENIENCE * LEAST_LIVE_BYTES), ""),
        (10, FactTotals(LENIENCE * 10 + 1, 0), "21 retained facts, and its certificate allows 10"),
        (10, FactTotals(1, LENIENCE * LEAST_LIVE_BYTES + 1), "16777217 bytes of retained facts, 16777216 are the limit"),
        (MANY, FactTotals(1, LENIENCE * LEAST_LIVE_BYTES + 1), ""),
        (MANY, FactTotals(1, LENIENCE * LEAST_LIVE_BYTES * 3), ""),
        (
            MANY,
            FactTotals(1, LENIENCE * LEAST_LIVE_BYTES * 3 + 1),
            "50331649 bytes of retained facts, 50331648 are the limit",
        ),
    ],
)
def test_who_has_twice_what_its_certificate_allows_is_over(quota: int, live: FactTotals, over: str) -> None:
    assert over_held(N1, quota, live) == (over and f"{N1} has {over}")


def test_who_is_looked_at_goes_by_what_its_role_may_have() -> None:
    much, more = FactTotals(LENIENCE * QUOTAS["agent"], 1), FactTotals(LENIENCE * QUOTAS["agent"] + 1, 1)
    names = ("agent/n1/web/app/0", "monitor/n1", N1, "operator/alice")
    assert suspected(dict.fromkeys(names, much)) == set()
    assert suspected(dict.fromkeys(names, more)) == {"agent/n1/web/app/0"}
    assert suspected(dict.fromkeys(names, FactTotals(LENIENCE * QUOTAS["node"] + 1, 1))) == {*names[:3]}


def test_of_what_revoked_keys_have_said_what_came_beyond_the_quota_of_a_name_or_of_who_pays_goes() -> None:
    most, agents = QUOTAS["agent"], QUOTAS["node"] // QUOTAS["agent"]
    assert beyond([("agent/n1/web/app/0", 1)] * (most + 2)) == [most, most + 1]
    assert beyond([("agent/n1/web/app/0", LEAST_LIVE_BYTES), ("agent/n1/web/app/0", 1), ("operator/alice", 1)]) == [1]
    full = [(f"agent/n1/web/app/{n}", 1) for n in range(agents) for _ in range(most)]
    left = QUOTAS["node"] - len(full)
    assert beyond([*full, *[(N1, 1)] * left, ("agent/n1/web/other/0", 1)]) == [QUOTAS["node"]]


# --- a server and its gate ---------------------------------------------------------------------------------------


async def flood(link: NatsLink, subject: str, most: int) -> None:
    """Send as fast as it goes, and then nothing."""
    with suppress(TransportError):
        for n in range(most):
            await link.send(Publication(subject, b"x" * 200, {}))
            if not n % 500:
                await asyncio.sleep(0)


@pytest.mark.real
@pytest.mark.xdist_group("nats")
def test_who_floods_a_server_is_sent_away_with_all_below_it_until_that_is_made_up_for(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(accounts, "Work", lambda: Work(2000.0, 4000.0))
    monkeypatch.setattr(accounts, "RATE", 2000.0)
    monkeypatch.setattr(nats_quota, "AWAY_S", (1.0, 60.0))

    async def within(k: Kept) -> None:
        node, alice = k.identities[N1], await k.bus(k.identities["operator/alice"])
        agent = await k.bus(k.made.identity("agent/n1/web/app/0", parent=node))
        link = await k.link(N1)
        subject = k.subjects.event(N1, f"{N1}/heartbeat", fact=False)
        await flood(link, subject, 12_000)
        await until(link.lost.done)
        await until(lambda: not agent.attached)
        with pytest.raises(RefusedError, match="does not let node/n1 in"):
            await k.link(N1)
        await until(lambda: "node/n1 has said far more than" in k.servers.log())
        await alice.publish(Draft("user/t", {"n": 1}))
        await asyncio.wait_for(agent.wait_attached(), 30)
        assert alice.attached

    on_nats(within)(tmp_path)


@pytest.mark.real
@pytest.mark.xdist_group("nats")
@on_nats
async def test_who_has_more_retained_than_its_certificate_allows_is_sent_away_and_kept_out(k: Kept) -> None:
    node, alice = await k.bus(k.identities[N1]), await k.bus(k.identities["operator/alice"])
    agent = k.made.identity("agent/n1/web/app/0", parent=k.identities[N1])
    link, pen = await k.servers.link(agent), Pen(agent)
    link.ask_through(k.subjects.asking(agent.name, agent.certificate.read))
    await NatsOpener(k.made.trust(), k.subjects, lambda: 0.0).introduce(link, agent)
    for n in range(LENIENCE * QUOTAS["agent"] + 10):
        said = pen.write(f"app/web/t{n}", {"n": n}, version=1)
        await link.send(Publication(k.subjects.event(agent.name, f"app/web/t{n}", fact=True), said.raw, {}))
    await until(link.lost.done)
    with pytest.raises(RefusedError, match="does not let agent/n1/web/app/0 in"):
        await k.servers.link(agent)
    await until(lambda: "retained facts, and its certificate allows 64" in k.servers.log())
    assert (alice.attached, node.attached) == (True, True)
    first = k.subjects.event(agent.name, "app/web/t0", fact=True)
    assert await last_on(await k.servers.administrator(), k.subjects.facts, first), "what was acknowledged stays"


@pytest.mark.real
@pytest.mark.xdist_group("nats")
@on_nats
async def test_what_stands_above_a_fact_is_on_the_account_of_who_has_said_it(k: Kept) -> None:
    """Headers are stored with it, and were nobody's: what a node may have retained was 6 GB more with them."""
    monitor = k.made.identity("monitor/n1", parent=k.identities[N1])
    link, pen, above = await k.servers.link(monitor), Pen(monitor), {"Above": "x" * 60_000}
    link.ask_through(k.subjects.asking(monitor.name, monitor.certificate.read))
    await NatsOpener(k.made.trust(), k.subjects, lambda: 0.0).introduce(link, monitor)
    for n in range(LENIENCE * LEAST_LIVE_BYTES // 60_000 + 10):
        said = pen.write(f"node/x{n}/probe/n1", {"result": "failed", "reason": "", "round_trip_s": None})
        await link.send(Publication(k.subjects.event(monitor.name, f"node/x{n}/probe/n1", fact=True), said.raw, above))
    await until(link.lost.done)
    with pytest.raises(RefusedError, match="does not let monitor/n1 in"):
        await k.servers.link(monitor)
    await until(lambda: f"bytes of retained facts, {LENIENCE * LEAST_LIVE_BYTES} are the limit" in k.servers.log())


@pytest.mark.real
@pytest.mark.xdist_group("nats")
@on_nats
async def test_nobody_is_sent_away_for_what_others_have_had_stored_in_its_name_and_that_is_removed(k: Kept) -> None:
    """Who asks names the subject of the answer: so anybody could have anybody sent away."""
    agent = await k.bus(k.made.identity("agent/n1/web/app/0", parent=k.identities[N1]))
    link, answered = await k.link("operator/bob"), k.subjects.event("operator/bob", "user/s", fact=False)
    own = [k.subjects.event(agent.source, f"app/web/t{n}", fact=True) for n in range(LENIENCE * QUOTAS["agent"] + 10)]
    forged = [k.subjects.certificate(agent.source, N1, os.urandom(32)) for _ in range(5)]
    administrator = await k.servers.administrator()
    for subject in (*forged, *own):
        await link.send(Publication(answered, b"x", {}), subject)
    async with asyncio.timeout(20):
        while not await last_on(administrator, k.subjects.history, own[-1]):
            assert agent.attached
        while any([await last_on(administrator, k.subjects.facts, one) for one in (*forged, own[0], own[-1])]):
            assert agent.attached
    agent.heartbeat("node/n1/agent/web/app/0/heartbeat", 1.0)
    assert "authentication error" not in k.servers.log()
    assert agent.attached


@pytest.mark.real
@pytest.mark.xdist_group("nats")
@on_nats
async def test_what_is_answered_under_names_that_nobody_has_goes_and_all_else_stays(k: Kept) -> None:
    alice, link, root = await k.bus(k.identities["operator/alice"]), await k.link("operator/bob"), k.made.identity("root")
    await alice.publish(Draft("user/t", {"n": 1}, version=1))
    await (await k.bus(root)).publish(Draft("trust/revoked/" + "0" * 32 + "/root", {"by": "root", "reason": "test"}))
    administrator, answered = await k.servers.administrator(), k.subjects.event("operator/bob", "user/s", fact=False)
    made_up = [k.subjects.event(f"node/x{n}", "user/t", fact=True) for n in range(accounts.LEAST_FACTS)]
    for subject in made_up:
        await link.send(Publication(answered, b"x", {}), subject)
    before = await last_of_each(administrator, k.subjects.facts, k.subjects.retained("focn"))

    async def gone() -> bool:
        return not any([await last_on(administrator, k.subjects.facts, one) for one in (made_up[0], made_up[-1])])

    await told(lambda: last_on(administrator, k.subjects.history, made_up[-1]), "the last answer", 20.0)
    await told(gone, "that they are gone", 20.0)
    stands = {one.subject for one in await last_of_each(administrator, k.subjects.facts, k.subjects.retained("focn"))}
    assert stands.issuperset({one.subject for one in before} - {*made_up})
    assert k.subjects.event("operator/alice", "user/t", fact=True) in stands


@pytest.mark.real
@pytest.mark.xdist_group("nats")
@on_nats
async def test_a_source_refuses_itself_one_fact_more_than_its_certificate_allows_and_stays(k: Kept) -> None:
    alice = await k.bus(certified(k, "operator/alice", 3))
    told = [alice.emit(Draft(f"user/t{n}", {"n": n}, version=1)).acknowledged() for n in range(5)]
    refused = [one for one in await asyncio.gather(*told, return_exceptions=True) if isinstance(one, RefusedError)]
    assert [one.message for one in refused] == ["operator/alice has 3 live facts, and its certificate allows 3"] * 2
    async with reading(await k.bus(k.identities["operator/bob"]), "user/") as got:
        await got.until(lambda g: g.completes)
        assert len(got.arrived) == 3
    await k.made.stop(alice)
    again = await k.bus(certified(k, "operator/alice", 4))
    await again.publish(Draft("user/t4", {"n": 4}, version=1))
    with pytest.raises(RefusedError, match="has 4 live facts"):
        await again.publish(Draft("user/t5", {"n": 5}, version=1))
    await again.publish(Draft("user/s", {"n": 5}))


@pytest.mark.real
@pytest.mark.xdist_group("nats")
@on_nats
async def test_nobody_but_an_operator_puts_blobs(k: Kept) -> None:
    content = b"x" * 1000
    digest = hashlib.sha256(content).digest()

    async def chunks():
        yield content

    node, alice = await k.bus(k.identities[N1]), await k.bus(k.identities["operator/alice"])
    with pytest.raises(RefusedError, match="does not let node/n1 publish"):
        await node.put_blob(chunks(), digest)
    await alice.put_blob(chunks(), digest)
    administrator = await k.servers.administrator()
    assert await last_on(administrator, k.subjects.blobs, k.subjects.piece("operator/alice", digest, "count"))
    assert await last_on(administrator, k.subjects.blobs, k.subjects.piece(N1, digest, "0")) is None
