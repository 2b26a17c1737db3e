"""Withheld: a broker that does not give what it has said to hold is found out and named (rule E4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dsmt.bus.broker import withheld
from dsmt.bus.broker.broker import Broker
from dsmt.bus.broker.others import copying, examining
from dsmt.bus.broker.others.holders import Holders
from dsmt.cli import member_screens
from dsmt.event.envelope import EventId
from dsmt.event.kinds.broker import Withheld
from dsmt.event.records import to_data
from dsmt.operations.read.realm.sight import look
from dsmt.operations.read.rows.broker_rows import broker_rows
from dsmt.operations.read.screens.summaries import status
from dsmt.operations.words.sentences import sentence
from dsmt.ports.bus import Draft, Start
from dsmt.ports.store import Row
from tests.bus.meshes import at, held, linked, mesh
from tests.bus.realm import Facts, Reading, TestRealm, reading, scenario
from tests.waiting import until


@pytest.fixture(autouse=True)
def often() -> Iterator[None]:
    """Brokers ask each other twice a second, and not once a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying, "ASK_S", 0.5)
        patch.setattr(examining, "SETTLE_S", 0.3)
        patch.setattr(withheld, "NEWEST_MS", 200)
        patch.setattr(withheld, "GIVEN_MS", 100)
        yield


def hide(broker: Broker, hides: Callable[[Any, Row], bool]) -> Callable[[], None]:
    """Have a broker leave rows out of what it gives; what ends that."""
    fan_out = broker._fan_out
    real = fan_out._push

    def push(subscription: Any, parcels: Iterable[Any]) -> int:
        sent = 0
        for parcel in parcels:
            rows = [row for number in parcel.rows for row in broker._store.rows(number - 1, 1)]
            left = [row for row in rows if not hides(subscription.owner, row)]
            if left and not real(subscription, [fan_out._parcel(left)]):
                break
            sent += len(rows)
        return sent

    fan_out._push = push

    def end() -> None:
        fan_out._push = real

    return end


def named(got: Reading, by: str, whom: str) -> list[Any]:
    return got.of(f"broker/{by}/withheld/{whom}")


@scenario
async def test_who_withholds_a_source_from_all_readers_is_named_once_and_again_when_it_gives_it(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    source = await r.client("operator/a", brokers=at(b1))
    async with reading(await r.client("operator/b", brokers=at(b1)), "broker/+/withheld/+", start=Start.HISTORY) as got:
        end = hide(b2, lambda _, row: row.read().event.source == "operator/a")
        await source.publish(Draft("user/x", {"n": 0}))
        await until(lambda: named(got, "b1", "b2"))
        (told,) = named(got, "b1", "b2")
        assert (told["source"], told["count"] > 0) == ("operator/a", True)
        (event,) = [one.signed.event for one in got.arrived if one.signed.event.topic == "broker/b1/withheld/b2"]
        assert sentence(event).startswith("broker/b2 does not give b1 what it has said to hold: operator/a #")
        end()
        await source.publish(Draft("user/x", {"n": 1}))
        await until(lambda: [one["count"] > 0 for one in named(got, "b1", "b2")] == [True, False])
        assert not named(got, "b2", "b1")


@scenario
async def test_who_says_to_hold_what_it_does_not_is_named(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    facts = Facts(await r.client("operator/a", brokers=at(b1)))
    await facts.publish("config/x", {"n": 0})
    await until(lambda: held(b1) == held(b2) and len(b1._fan_out.copying) == 1)
    b2._others.copying._take = lambda *_: 0
    who = await r.client("operator/b", brokers=at(b1))
    async with reading(who, "broker/+/withheld/+") as got:
        while (await facts.emit("config/x", {"n": 1}).acknowledged()).copies != 2:  # it may just be asked for all anew
            pass
        await until(lambda: named(got, "b1", "b2"))
    sight = await look(who, passing=True)
    assert "it does not give b1 what it has said to hold" in member_screens.brokers(broker_rows(sight, []), sight)
    (alert,) = [one for one in status(sight, r.trust(), []).alerts if one.code == "broker.withholds"]
    assert (alert.target, alert.who) == ("broker/b2", "you")
    again = await r.restarted(b1, others=at(b1) + at(b2), born=False)
    assert again._others._withholding._named == {"broker/b2"}


@scenario
async def test_who_lost_its_disk_after_it_had_named_one_says_that_it_gives_everything_again(r: TestRealm) -> None:
    b1, b2 = await mesh(r, "b1", "b2")
    source = await r.client("operator/a", brokers=at(b1))
    async with reading(await r.client("operator/b", brokers=at(b2)), "broker/+/withheld/+", start=Start.HISTORY) as got:
        end = hide(b2, lambda _, row: row.read().event.source == "operator/a")
        await source.publish(Draft("user/x", {"n": 0}))
        await until(lambda: named(got, "b1", "b2"))
        await until(lambda: b2._store.winner("broker/b1/withheld/b2") is not None)
        end()
        await r.restarted(b1, others=at(b1) + at(b2), store=":memory:", born=False)
        await until(lambda: [one["count"] > 0 for one in named(got, "b1", "b2")] == [True, False])


@scenario
async def test_what_is_withheld_from_one_comes_by_another_and_who_withheld_it_is_named(r: TestRealm) -> None:
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    source = await r.client("operator/a", brokers=at(b3))
    await until(lambda: b1._store.winner("broker/b3/session/operator/a") is not None)
    hide(b3, lambda owner, row: owner.name == "broker/b1" and row.read().event.source == "operator/a")
    async with reading(await r.client("operator/b", brokers=at(b1)), "broker/+/withheld/+") as got:
        n = 0
        while not named(got, "b1", "b3"):  # what is found too early is taken, and names nobody
            n += 1
            await source.publish(Draft("user/x", {"n": n}))
            await until(lambda: held(b1) >= held(b2) and any(one.source == "operator/a" for one in held(b1)))
        assert not named(got, "b1", "b2")
        assert not named(got, "b2", "b1")


@scenario
async def test_nobody_is_named_who_is_honest(r: TestRealm) -> None:
    b1, b2, b3 = await mesh(r, "b1", "b2", "b3")
    sources = [await r.client(f"operator/{n}", brokers=at(b1) + at(b2) + at(b3)) for n in range(4)]
    compared = []
    real = withheld.Withholding.judged
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            withheld.Withholding, "judged", lambda self, broker, lacks: compared.append(lacks) or real(self, broker, lacks)
        )
        again = b3
        for n in range(12):
            for source in sources:
                await source.publish(Draft("user/x", {"n": n}))
            asked = len(compared)
            if n == 6:
                others = at(b1) + at(b2) + at(b3)
                again = await r.restarted(b3, others=others, born=False)
            await until(lambda asked=asked: len(compared) > asked + 1)
    assert [] in compared
    assert not [one for one in compared if one]
    await until(lambda: linked(again) == 2 and held(again) == held(b1) == held(b2))


@pytest.mark.parametrize(
    ("told", "gave"),
    [
        ({"b3": ("open", 7, 5)}, ("broker/b3", 9)),
        ({"b2": ("open", 6, 1), "b3": ("open", 7, 5)}, ("broker/b3", 9)),
        ({"b2": ("open", 7, 5), "b3": ("open", 6, 1)}, ("broker/b2", 9)),
        ({"b2": ("open", 6, 1), "b3": ("open", 7, 6)}, ("", 0)),
        ({"b3": ("closed", 7, 5)}, ("", 0)),
        ({}, ("", 0)),
    ],
    ids=["attached there", "came there before", "left another before", "came there since", "closed", "nobody says so"],
)
def test_who_had_a_source_when_it_said_something_must_give_it(told: dict[str, Any], gave: tuple[str, int]) -> None:
    sessions = {
        f"broker/{name}": SimpleNamespace(state=state, attachment=attachment, since_ms=since_ms)
        for name, (state, attachment, since_ms) in told.items()
    }
    own: Any = SimpleNamespace(_said_of=lambda _: sessions, readings=SimpleNamespace(gave_ms=lambda _: 9))
    assert Holders.gave(own, "node/n1", 6) == gave
    assert Holders.gave(own, "broker/b2", 6) == ("broker/b2", 9)


def test_another_owes_what_was_published_here_and_not_what_was_brought_nor_what_a_revoked_key_said() -> None:
    def row(number: int, brought: str, time_ms: int = 0) -> Any:
        signed = SimpleNamespace(id=EventId("node/n1", 1, number), event=SimpleNamespace(time_ms=time_ms))
        return SimpleNamespace(row=number, arrived_ms=0, brought=brought, read=lambda: signed)

    rows = [row(1, ""), row(2, "broker/b3"), row(3, "", time_ms=-1), row(4, "")]  # the third was said long before it came
    log: Any = SimpleNamespace(rows=lambda after, most: rows[after : after + most])
    words: Any = None
    made = withheld.Withholding(
        "broker/b1",
        log,
        words,
        now_ms=lambda: withheld.OLDEST_MS,
        stored=lambda _: 4,
        gave=lambda *_: ("", 0),
        disowns=lambda signed: signed.id.sequence == 4,
    )
    made.published(rows)
    assert [one.sequence for one in made.owed("broker/b2")] == [1]


@pytest.mark.parametrize(
    ("newest", "plus_ms", "stored", "trimmed", "owes"),
    [
        (True, 0, 1, False, True),
        (True, -1, 1, False, False),
        (False, 0, 1, False, True),
        (False, 1, 1, False, False),
        (True, 0, 0, False, False),
        (True, 0, None, False, False),
        (True, 0, 1, True, False),
    ],
    ids=["just due", "too young", "just due still", "too old", "not held there", "not linked", "trimmed here"],
)
def test_another_owes_what_it_said_to_hold_between_two_ages(
    newest: bool, plus_ms: int, stored: int | None, trimmed: bool, owes: bool
) -> None:
    def row(number: int, brought: str) -> Any:
        signed = SimpleNamespace(id=EventId("node/n1", 1, number), event=SimpleNamespace(time_ms=9))
        return SimpleNamespace(row=number, arrived_ms=0, brought=brought, read=lambda: signed)

    rows, nothing = [row(1, ""), row(2, "broker/b3")], cast("Any", None)
    log: Any = SimpleNamespace(rows=lambda after, most: [one for one in rows[trimmed:] if one.row > after][:most])
    age_ms = (withheld.NEWEST_MS if newest else withheld.OLDEST_MS) + plus_ms
    made = withheld.Withholding(
        "broker/b1", log, nothing, now_ms=lambda: age_ms, stored=lambda _: stored, gave=nothing, disowns=lambda _: False
    )
    made.published(rows)
    assert [one.sequence for one in made.owed("broker/b2")] == ([1] if owes else [])


@pytest.mark.parametrize(
    ("holder", "gave_ms", "named"),
    [
        ("broker/b3", 9_000, {"broker/b3"}),
        ("broker/b3", 5_101, {"broker/b3"}),
        ("broker/b3", 5_100, set()),
        ("broker/b2", 9_000, set()),
        ("broker/b1", 9_000, set()),
    ],
)
def test_who_held_the_session_is_named_once_it_has_given_all_of_then_but_not_who_gives_it_now(
    holder: str, gave_ms: int, named: set[str]
) -> None:
    log: Any = SimpleNamespace(leaf=lambda *_: None)
    words: Any = SimpleNamespace(say=lambda *_, **__: None)
    nothing: Any = None
    made = withheld.Withholding(
        "broker/b1", log, words, now_ms=nothing, stored=nothing, gave=lambda *_: (holder, gave_ms), disowns=nothing
    )
    one: Any = SimpleNamespace(signed=SimpleNamespace(event=SimpleNamespace(source="node/n1", time_ms=1, version=None)))
    one.signed.id = EventId("node/n1", 1, 1)
    assert made.found("broker/b2", [one], 5_000) == [one]
    assert made._named == named


def test_whom_it_has_named_is_known_at_the_next_start_whatever_else_stands_there() -> None:
    def row(topic: str, **data: Any) -> Any:
        signed = SimpleNamespace(event=SimpleNamespace(data=data))
        return SimpleNamespace(topic=topic, read=lambda: signed)

    nothing: Any = None
    made = withheld.Withholding("broker/b1", nothing, nothing, now_ms=nothing, stored=nothing, gave=nothing, disowns=nothing)
    one = to_data(Withheld(count=2, source="node/n1", incarnation=1, sequence=1))
    made.restore(
        [
            row("broker/b1/withheld/b2", of="another form"),
            row("broker/b1/withheld/b3", **one),
            row("broker/b1/withheld/b4", **(one | {"count": 0})),
            row("broker/b2/withheld/b5", **one),
        ]
    )
    assert made._named == {"broker/b3"}


@pytest.mark.parametrize(
    ("name", "complete", "stalled", "asked"),
    [
        ("broker/b2", True, False, True),
        ("", True, False, False),
        ("broker/b2", False, False, False),
        ("b2", True, True, False),
    ],
    ids=["read to its end", "not linked", "not read to its end yet", "one whose words wait"],
)
def test_a_broker_is_asked_for_its_last_moments_while_it_is_read_to_its_end_and_no_other_is(
    monkeypatch: pytest.MonkeyPatch, name: str, complete: bool, stalled: bool, asked: bool
) -> None:
    looked, examined, nothing = 0, 0, cast("Any", None)

    class Known:
        def __len__(self) -> int:
            nonlocal looked
            looked += 1
            return 1

    async def examine(*_: Any) -> None:
        nonlocal examined
        examined += 1

    async def play() -> None:
        monkeypatch.setattr(copying, "ASK_S", 0.0)
        monkeypatch.setattr(copying, "examine", examine)
        clock = SimpleNamespace(boottime=lambda: 0.0)
        own: Any = SimpleNamespace(_others=Known(), _clock=clock, _withholding=None)
        other: Any = SimpleNamespace(name=name, complete=complete, is_stalled=lambda _: stalled)
        task = asyncio.create_task(copying.Copying._examine(own, other, nothing))
        await until(lambda: looked > 3)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(play())
    assert (examined > 0) == asked
