"""A process on a machine whose clock is wrong: what it says before it reaches a broker is not lost (rule J4)."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from dsmt.bus.client import client as client_module
from dsmt.bus.rules.attach_backoff import ENDED_S
from dsmt.errors import TransportError
from dsmt.event.kinds.realm import ClockWord
from dsmt.event.records import to_data
from dsmt.ports.bus import Draft, Start
from dsmt.system.files import DiskFiles
from dsmt.trust.identity import delegate
from dsmt.trust.keys import SecretKey
from tests.bus.meshes import at
from tests.bus.realm import TestClock, TestRealm, reading, scenario
from tests.waiting import timed, until


@pytest.mark.parametrize("hours", [-72, 1, 48])
def test_what_is_said_before_realm_time_is_known_is_said_by_realm_time(network_kind, tmp_path, hours):
    kept = DiskFiles(str(tmp_path / "kept"))

    @scenario
    async def said(r: TestRealm):
        await r.broker()
        bob = await r.client("operator/bob")
        identity = r.identity("operator/eve")
        first = await r.client("operator/eve", identity=identity, kept=kept)
        await first.publish(Draft("user/t", {"n": 1}))
        await r.stop(first)
        async with reading(bob, "/", start=Start.HISTORY) as got:
            clock = TestClock(hours * 3600.0)
            again = await r.client("operator/eve", identity=identity, kept=kept, clock=clock, wait=False)
            emissions = [again.emit(Draft("user/t", {"n": n})) for n in range(2, 50)]
            for one in emissions:
                await one.acknowledged()
            assert abs(emissions[0].signed.event.time_ms - time.time() * 1000) < 10_000
            await got.until(lambda g: [d["n"] for d in g.of("user/t")] == list(range(1, 50)))
            told = got.of("source/operator/eve")
            assert [t["previous_incarnation"] for t in told] == [None, first._publisher.signer.incarnation]
            assert got.types() == []

    said(network_kind, tmp_path)


@pytest.mark.parametrize("known", [False, True], ids=["first", "again"])
@pytest.mark.parametrize("seconds", [-6.0, 6.0, -86400.0])
def test_the_times_of_what_is_said_before_realm_time_is_known_are_put_right(network_kind, tmp_path, seconds, known):
    """Those that the source has read itself; others are left as they are."""
    kept = DiskFiles(str(tmp_path / "kept"))

    @scenario
    async def said(r: TestRealm):
        await r.broker()
        bob = await r.client("operator/bob")
        identity = r.identity("operator/eve")
        if known:
            first = await r.client("operator/eve", identity=identity, kept=kept)
            await first.publish(Draft("user/t", {"since_ms": None}))
            await r.stop(first)
        async with reading(bob, "/", start=Start.HISTORY) as got:
            clock = TestClock(seconds)
            again = await r.client("operator/eve", identity=identity, kept=kept, clock=clock, wait=False)
            guessed = again.now_ms()
            data = {"since_ms": guessed, "taken_ms": guessed, "last": {"at_ms": guessed, "code": 7}, "none": None}
            own = ("since_ms", "last.at_ms", "none", "nowhere")
            emission = again.emit(Draft("user/t", data, own_times=own))
            after = again.emit(Draft("user/t", {"n": 2}, cause=(emission,)))
            await got.until(lambda g: {"n": 2} in g.of("user/t"))
            (right,) = [one for one in got.of("user/t") if one.get("since_ms")]
            assert abs(right["since_ms"] - (guessed - seconds * 1000)) < 1000
            assert right == {**data, "since_ms": right["since_ms"], "last": {"at_ms": right["since_ms"], "code": 7}}
            assert after.signed.event.cause == (emission.id,)
            assert abs(emission.signed.event.time_ms - right["since_ms"]) < 1000
            later = again.now_ms()
            await again.publish(Draft("user/t", {"since_ms": later, "n": 3}, own_times=("since_ms",)))
            await got.until(lambda g: g.of("user/t")[-1] == {"since_ms": later, "n": 3})

    said(network_kind, tmp_path)


def test_what_is_said_between_a_measurement_and_the_attachment_is_right_already(
    network_kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who measures, and is then refused or loses its link, knows realm time."""

    @scenario
    async def said(r: TestRealm) -> None:
        await r.broker()
        bob = await r.client("operator/bob")
        greet, told = client_module.greet, list[int]()

        async def refused(*about: Any, **more: Any) -> Any:
            if not told:
                raise TransportError("link.lost", "the link was lost")
            return await greet(*about, **more)

        monkeypatch.setattr(client_module, "greet", refused)
        async with reading(bob, "user/") as got:
            slow = await r.client("operator/eve", clock=TestClock(-3600.0), wait=False)
            slow.on_time_known.append(told.append)
            await until(lambda: told)
            at = slow.now_ms()
            assert abs(at - time.time() * 1000) < 1000
            await slow.publish(Draft("user/t", {"since_ms": at}, own_times=("since_ms",)))
            await got.until(lambda g: g.of("user/t") == [{"since_ms": at}])
        assert len(told) == 1
        assert abs(told[0] - 3_600_000) < 1000

    said(network_kind, tmp_path)


@pytest.mark.parametrize("days", [-30, 1, 500])
def test_who_delegates_by_a_wrong_clock_delegates_all_the_same(network_kind, tmp_path, days):
    @scenario
    async def attached(r: TestRealm):
        await r.broker()
        node = r.identity("node/n1")
        now_s = int(time.time()) + days * 86400
        monitor = delegate("monitor/n1", node, key=SecretKey(os.urandom(32)), now_s=now_s, serial=os.urandom(16))
        client = await r.client("monitor/n1", identity=monitor, clock=TestClock(days * 86400.0))
        assert client.attached
        above, own = node.certificate, monitor.certificate
        assert (own.not_before, own.not_after) == (above.not_before, above.not_after)
        assert above.not_before <= own.issued <= above.not_after

    attached(network_kind, tmp_path)


@scenario
async def test_one_whose_clock_is_wrong_keeps_nobody_from_the_others(r: TestRealm) -> None:
    certified = r.identity("broker/behind", now_s=int(time.time()) - 7200)
    behind = await r.broker("behind", identity=certified, clock=TestClock(-3600.0))
    right = await r.broker("right")
    for number in range(8):
        async with timed() as took_s:
            client = await r.client(f"operator/{number}", brokers=at(behind) + at(right))
            assert client.broker == "broker/right"
            assert took_s() < ENDED_S[0] / 2, "it waits for so long only when it has tried all"


@scenario
async def test_the_only_broker_whose_machine_boots_years_ahead_of_its_certificate_goes_on_from_what_it_has_stored(
    r: TestRealm,
) -> None:
    """Realm time never goes back: everybody's certificate would have ended for ever, though the clock is right soon."""
    clock = TestClock()
    broker = await r.broker(clock=clock)
    alice = await r.client("operator/alice")
    await alice.publish(Draft("user/t", {"n": 1}))
    stored_ms = broker._store.rows(broker._store.head - 1, 1)[0].arrived_ms
    clock.offset_s = 2 * 365 * 86_400.0
    broker = await r.restarted(broker, clock=clock)  # of no boot is known that it is the same one
    assert 0 <= broker.now_ms() - stored_ms < 30_000
    await until(lambda: broker._recorder.time.ahead_s > 86_400)
    await alice.publish(Draft("user/t", {"n": 2}))
    clock.offset_s = 0.0
    await until(lambda: abs(broker._recorder.time.ahead_s) < 10)


@scenario
async def test_the_only_broker_that_begins_with_no_store_and_no_time_is_set_right_by_an_operator(r: TestRealm) -> None:
    """Its machine lost its disk and knows no time yet: nobody's certificate would have begun, and no word could say so."""
    clock = TestClock(10_000 - time.time())
    broker = await r.broker(clock=clock)
    begins_ms = broker._identity.certificate.not_before * 1000
    assert 0 <= broker.now_ms() - begins_ms < 10_000
    bob = await r.client("operator/bob")
    clock.offset_s = 0.0
    await until(lambda: broker._recorder.time.ahead_s > 30)
    word = ClockWord(ahead_s=broker._recorder.time.ahead_s, by="bob", reason="it knows the time")
    await bob.publish(Draft("config/clock/b1", to_data(word)))
    await until(lambda: abs(broker.now_ms() - clock.wall_ms()) < 1_000)
    assert bob.attached
