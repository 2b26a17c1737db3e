"""A clock that is far off is shown, whosever it is, and a broker's is taken by an operator's word (rule J4)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from dsmt.cli import member_screens
from dsmt.errors import NotFoundError, RefusedError
from dsmt.event.hlc import PULL
from dsmt.operations.read.realm.sight import Sight, look
from dsmt.operations.read.rows.broker_rows import broker_rows
from dsmt.operations.read.rows.node_rows import node_rows
from dsmt.operations.read.screens.alert import Found
from dsmt.operations.read.screens.alerting import alerts
from dsmt.operations.read.screens.summaries import status
from dsmt.operations.write import brokers, clocks
from dsmt.ports.bus import BusReader
from dsmt.ports.realm import BrokerAddress
from tests.bus.idle import run_alone
from tests.bus.realm import Pen, TestClock, TestRealm, memory_network, realm
from tests.controllers.build import Realm
from tests.operations.sights import sight
from tests.waiting import until


def run(directory: Path, scenario: Callable[[TestRealm], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(40), realm(memory_network(), directory) as made:
            await scenario(made)

    run_alone(main())


def test_a_clock_a_day_ahead_is_shown_with_what_to_do_and_accepted_twice_in_a_row(tmp_path: Path) -> None:
    async def scenario(made: TestRealm) -> None:
        clock = TestClock()
        broker = await made.broker(clock=clock)
        bob = await made.client("operator/bob")
        for days in (1, 2):
            clock.offset_s, since_ms = days * 86_400.0, broker.now_ms()
            sight = await far(bob, since_ms)
            assert "ahead of realm time, so it is not followed" in member_screens.brokers(broker_rows(sight, []), sight)
            (alert,) = [one for one in status(sight, made.trust(), []).alerts if one.code == "broker.clock"]
            assert (alert.target, alert.who) == ("broker/b1", "you")
            assert "dsmt clock accept b1" in alert.next
            at_ms, told = sight.passing.stats["b1"]
            sight.passing.stats["b2"] = (at_ms, msgspec.structs.replace(told, clock_ahead_s=0.0))
            (alert,) = [one for one in status(sight, made.trust(), []).alerts if one.code == "broker.clock"]
            assert (alert.target, alert.next) == ("broker/b1", "set it as those of b2 are"), "nobody is to accept that"
            await clocks.accept(bob, "b1", by="bob", reason="it is right")
            await until(lambda: abs(broker.now_ms() - clock.wall_ms()) < 1_000)

    async def far(bob: object, since_ms: int) -> Sight:
        while True:  # what was said before the last jump is heard no more once the client has made that jump, too
            sight = await look(bob, passing=True)  # type: ignore[arg-type]
            told = sight.passing.stats.get("b1")
            if told is not None and told[0] >= since_ms and abs(told[1].clock_ahead_s) > 10:
                return sight

    run(tmp_path, scenario)


def test_whose_certificate_a_jump_would_end_is_foreseen_and_of_a_lesser_jump_nobodys(tmp_path: Path) -> None:
    async def scenario(made: TestRealm) -> None:
        clock = TestClock()
        await made.broker(clock=clock)
        bob = await made.client("operator/bob")
        for days, ended in ((300, []), (400, ["broker/b1", "operator/bob"])):
            clock.offset_s = days * 86_400.0
            while await told(bob) != days:
                pass
            jump = await clocks.foreseen(bob, bob._trust, "b1")
            assert jump.ended == ended
            assert abs(jump.to_ms - clock.wall_ms()) < 20_000

    async def told(bob: BusReader) -> int:
        await asyncio.sleep(0.5)  # a broker says it each half minute, and whoever looks all the time keeps it from that
        stats = (await look(bob, passing=True)).passing.stats.get("b1")
        return 0 if stats is None else round(stats[1].clock_ahead_s / 86_400)

    run(tmp_path, scenario)


def test_that_what_was_decided_is_refused_for_a_clock_that_is_behind_is_shown_with_what_to_do(tmp_path: Path) -> None:
    async def scenario(made: TestRealm) -> None:
        old_s = int(time.time()) - 86_400
        await made.broker(identity=made.identity("broker/b1", now_s=old_s), clock=TestClock(-3600.0), born=False)
        bob = await made.client("operator/bob", identity=made.identity("operator/bob", now_s=old_s))
        bob.offer([Pen(bob._identity).write("user/x", {}, version=1)])
        while True:
            sight = await look(bob, passing=True)
            found = [one for one in status(sight, made.trust(), []).alerts if one.code == "broker.behind"]
            if found:
                break
        assert (found[0].target, found[0].who) == ("broker/b1", "you")
        assert "s ahead of its time and refused" in found[0].message
        assert "dsmt clock accept b1" in found[0].next

    run(tmp_path, scenario)


def test_a_clock_that_is_near_enough_and_a_broker_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    async def scenario(made: TestRealm) -> None:
        await made.broker()
        bob = await made.client("operator/bob")
        with pytest.raises(RefusedError, match="within 10 s of realm time"):
            await clocks.accept(bob, "b1", by="bob", reason="")
        with pytest.raises(NotFoundError, match="there is no broker b9"):
            await clocks.accept(bob, "b9", by="bob", reason="")
        await brokers.announce(bob, {"b9": BrokerAddress("127.0.0.1:9", bytes([9]) * 32)}, by="bob", made_ms={})
        for asks in (clocks.accept(bob, "b9", by="bob", reason=""), clocks.foreseen(bob, made.trust(), "b9")):
            with pytest.raises(RefusedError, match="b9 says of its clock does not come to broker/b1") as caught:
                await asks
            assert caught.value.next == "dsmt clock accept b9 --bus dsmt://127.0.0.1:9 asks it itself"

    run(tmp_path, scenario)


def test_a_clock_that_is_behind_is_there_as_soon_as_realm_time_may_be_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[object]()

    async def far(_bus: object, **_: object) -> object:
        stats = SimpleNamespace(clock_ahead_s=ahead_s)
        return SimpleNamespace(passing=SimpleNamespace(stats={"b1": (0, stats)}))

    async def say(_bus: object, drafts: object) -> None:
        said.append(drafts)

    async def nothing(*_: object) -> None:
        return None

    for name, does in (("look", far), ("say", say), ("stands", nothing)):
        monkeypatch.setattr(clocks, name, does)
    for ahead_s, there_in_s in ((-60.0, 60.0 / PULL), (60.0, 0.0)):
        clock = asyncio.run(clocks.accept(SimpleNamespace(), "b1", by="bob", reason=""))  # type: ignore[arg-type]
        assert (clock.ahead_s, clock.there_in_s) == (ahead_s, there_in_s)
    assert len(said) == 2


@pytest.mark.parametrize(
    ("offsets", "told"),
    [
        ((0, 3600, 3602), ["realm"]),  # two of three agree: the time is that of the third one's machine, or a server's
        ((-3600, -3600, -3590, 0, 700), ["realm", "node/n5"]),
        ((3600, 3600, 0, 0), ["node/n1", "node/n2"]),  # as many say that it is right
        ((3600, -3600, 0), ["node/n1", "node/n2"]),
        ((3600,), ["node/n1"]),  # one alone: nobody knows which of the two it is
        ((0, 9, -9), []),
    ],
)
def test_where_most_nodes_clocks_agree_on_another_time_it_is_realm_time_that_is_off(
    offsets: tuple[float, ...], told: list[str]
) -> None:
    fleet = Realm()
    for number, offset_s in enumerate(offsets, 1):
        fleet.node(f"n{number}", clock_offset_s=offset_s, boot_id=f"{number}")
    seen = sight(fleet)
    found = alerts(seen, Found(nodes=node_rows(seen)))
    assert [one.target for one in found if one.code.endswith(".clock")] == told
    assert {one.code for one in found if one.target == "realm"} == ({"realm.clock"} if "realm" in told else set())


def test_nodes_of_one_machine_have_one_clock_between_them() -> None:
    fleet = Realm("n0")
    for number in range(3):
        fleet.node(f"w{number}", clock_offset_s=3600, boot_id="theirs")
    seen = sight(fleet)
    found = alerts(seen, Found(nodes=node_rows(seen)))
    assert [one.target for one in found if one.code.endswith(".clock")] == ["node/w0", "node/w1", "node/w2"]


def test_of_realm_time_that_is_off_it_is_told_by_how_much_and_by_whose_clocks() -> None:
    fleet = Realm("n0")
    for number in range(4):
        fleet.node(f"w{number}", clock_offset_s=-7200 + number, boot_id=f"{number}")
    seen = sight(fleet)
    (alert,) = alerts(seen, Found(nodes=node_rows(seen)))
    assert alert.message.startswith("the clocks of w0, w1, w2 and 1 more agree, and are 119 m behind realm time: it is")
