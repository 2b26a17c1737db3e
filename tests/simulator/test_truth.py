"""What a run's events are held against: an event that was lost, and a move that was made twice, are told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.event.envelope import EventId
from dsmt.event.kinds.instance import Status
from dsmt.event.records import to_data
from dsmt.event.status import Layer, State
from dsmt.simulator import scenarios
from dsmt.simulator.engine.host import ProgramLife
from dsmt.simulator.fleet import Scale, SimFleet
from dsmt.simulator.invariants import ViewWatch
from dsmt.simulator.moves import moved_as_asked
from dsmt.simulator.play import Play
from dsmt.simulator.scenarios import SCENARIOS, Scenario, play
from dsmt.simulator.scenes.brokers import same
from dsmt.simulator.truth import kept, never_ready, placed_on_excluded, true_words
from dsmt.simulator.will import Will

SLOT = "web/app/0"


def said(number: int, kind: str, cause: tuple[int, ...] = (), **data: Any) -> Any:
    topic = f"service/web/{'control' if kind.endswith('control') else 'slot'}/app/0"
    causes = tuple(EventId("a", 1, one) for one in cause)
    order: Any = {"version": number, "time": number, "source": "a", "incarnation": 1, "sequence": number, "replaces": None}
    event = SimpleNamespace(type=kind, topic=topic, epoch=1, cause=causes, data=data, **order)
    return SimpleNamespace(id=EventId("a", 1, number), event=event)


def test_what_was_acknowledged_and_is_in_no_store_is_told() -> None:
    emitted = [SimpleNamespace(id=EventId("a", 1, n), acked=acked) for n, acked in ((1, 5), (2, 6), (3, None))]
    world = SimpleNamespace(said=emitted)
    fleet: Any = SimpleNamespace(stores=["s"], rows=lambda _: [(1, SimpleNamespace(id=emitted[0].id))], world=world)
    assert kept(fleet) == [f"D1: {emitted[1].id} was acknowledged, and is in no store"]


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        (["n1", "n2"], []),
        (["n1", "n2", "n3"], ["12.2: web/app/0 was moved 2 times for one word (a#1-2)"]),
        (["n1"], ["12.2: web/app/0 was to be moved to another node, and never was (a#1-2)"]),
    ],
)
def test_a_move_that_was_asked_for_is_made_once(nodes: list[str], told: list[str]) -> None:
    first, *others = [said(n if n == 1 else n + 1, "dsmt.slot", (2,), node=node, desired="running")
                      for n, node in enumerate(nodes, 1)]  # fmt: skip
    events = [first, said(2, "dsmt.slot.control", move="", move_number=1, leave=""), *others]
    fleet: Any = SimpleNamespace(rows=lambda: enumerate(events), in_turn=lambda *_: events, wanted=lambda: [SLOT], will=None)
    assert moved_as_asked(fleet) == told


@pytest.mark.parametrize(
    ("came_from", "told"),
    [("n2", []), ("n1", ["12.2: web/app/0 was to be moved to another node, and never was (a#1-3)"])],
)
def test_a_move_whose_fact_comes_before_what_it_follows_was_made(came_from: str, told: list[str]) -> None:
    """As from the other side of a partition: there it was moved from n2 to n1, where it had been on this side."""
    here = said(1, "dsmt.slot", node="n1", desired="running")
    before = said(2, "dsmt.slot", node=came_from, desired="running")
    word = said(3, "dsmt.slot.control", move="", move_number=1, leave="n2")
    there = said(4, "dsmt.slot", (3,), node="n1", desired="running", move_number=1)
    there.event.replaces = before.id
    events = [here, there, before, word]
    fleet: Any = SimpleNamespace(rows=lambda: enumerate(events), in_turn=lambda *_: events, wanted=lambda: [SLOT], will=None)
    assert moved_as_asked(fleet) == told


@pytest.mark.parametrize(
    ("nodes", "follows", "told"),
    [
        (["n2", "n2"], 1, []),
        (["n1", "n2"], 1, ["12.2: web/app/0 came to n2, which is excluded (a#1-2)"]),
        (["n2", "n1", "n2"], 1, []),
        (["n1", "n2", "n2"], 1, [f"12.2: web/app/0 came to n2, which is excluded (a#1-{n})" for n in (2, 3)]),
        (["n1", "n2"], None, ["12.2: web/app/0 came to n2, which is excluded (a#1-2)"]),
    ],
    ids=["it stays", "it comes", "another was overruled", "it comes twice", "it follows nothing"],
)
def test_what_was_on_a_node_before_it_was_excluded_may_stay_there(
    nodes: list[str], follows: int | None, told: list[str]
) -> None:
    facts = [said(n, "dsmt.slot", node=node, desired="running") for n, node in enumerate(nodes, 1)]
    for fact, at_s in zip(facts, (1, 60, 70), strict=False):
        fact.event.time_ms, fact.event.replaces = at_s * 1000, None
    for fact in facts[1:]:
        fact.event.replaces = None if follows is None else facts[follows - 1].id
    world = SimpleNamespace(now_ms=100_000, loop=SimpleNamespace(time=lambda: 100.0))
    will = SimpleNamespace(excluded_s={"n2": 30.0})
    fleet: Any = SimpleNamespace(
        world=world, will=will, named_in_turn=lambda: [(SLOT, fact, fact.event.data["node"]) for fact in facts]
    )
    assert placed_on_excluded(fleet) == told


@pytest.mark.parametrize(
    ("node", "pid", "told"),
    [
        ("n1", 7, []),
        ("n1", 8, ["truth: pid 8 on n1 was never web/app/0 (a#1-1)"]),
        ("n1", 9, ["truth: pid 9 on n1 was never web/app/0 (a#1-1)"]),
        ("n2", 7, ["truth: pid 7 on n2 was never web/app/0 (a#1-1)"]),
        ("n1", None, ["truth: web/app/0 is said to run on n1, without a pid (a#1-1)"]),
    ],
    ids=["it does", "another slot's", "nobody's", "on another node", "without a pid"],
)
def test_a_program_that_is_said_to_run_was_started_there_for_its_slot(node: str, pid: int | None, told: list[str]) -> None:
    status = Status(
        state=State.RUNNING, layer=Layer.APPLICATION, node=node, generation=1, attempt=0, since_ms=0, emit_rate_s=30, pid=pid
    )
    word = said(1, "dsmt.status", **to_data(status))
    word.event.topic, word.event.subject = f"service/web/status/app/0/{node}/application", SLOT
    lives = [ProgramLife(7, SLOT, "1", 0.0), ProgramLife(8, "web/app/1", "1", 0.0)]
    fleet: Any = SimpleNamespace(
        nodes={"n1": SimpleNamespace(name="n1", host=SimpleNamespace(lives=lives))}, rows=lambda: [(1, word)]
    )
    assert true_words(fleet) == told


@pytest.mark.parametrize(
    ("code", "ended", "told"),
    [
        ("rollout.rolled_back", 9.0, []),
        ("rollout.rolled_back", 0.1, ["O2: web/app/0 went back to revision 1 on n1, which never ran (a#1-2)"]),
        ("rollout.applied", 0.1, []),
    ],
)
def test_what_is_gone_back_to_has_run_for_long_enough(code: str, ended: float, told: list[str]) -> None:
    spec = said(1, "dsmt.service.spec", spec={"components": {"app": {"env": {"REVISION": "1"}}}})
    fact = said(2, "dsmt.slot", spec=str(spec.id), reason={"code": code})
    lives = [ProgramLife(7, SLOT, "1", 0.0, ended), ProgramLife(8, "other/app/0", "1", 0.0)]
    fleet: Any = SimpleNamespace(
        nodes={"n1": SimpleNamespace(host=SimpleNamespace(lives=lives))},
        rows=lambda: [(1, spec)],
        named_in_turn=lambda: [(SLOT, fact, "n1")],
        world=SimpleNamespace(loop=SimpleNamespace(time=lambda: 100.0)),
    )
    assert never_ready(fleet) == told


def test_what_one_broker_has_and_another_lacks_is_told_but_what_came_in_the_last_moment() -> None:
    def held(*rows: tuple[int, int]) -> list[tuple[Any, Any]]:
        return [(SimpleNamespace(arrived_ms=at), SimpleNamespace(id=EventId("a", 1, number))) for number, at in rows]

    stores = {"b1": held((1, 5_000), (2, 8_000), (3, 9_500)), "b2": held((1, 6_000), (4, 9_900))}
    fleet: Any = SimpleNamespace(held=lambda store: stores[store])
    brokers: list[Any] = [SimpleNamespace(name=name, store=name, now_ms=10_000) for name in stores]
    assert same(fleet, brokers) == ["E1: b2 lacks 1 events that others have: a#1-2"]
    assert same(fleet, brokers[:1]) == []


def test_a_node_that_is_in_use_again_is_excluded_no_more() -> None:
    will = Will()
    will.used("n1", "excluded", 5.0)
    assert (will.mode("n1"), will.excluded_s) == ("excluded", {"n1": 5.0})
    will.used("n1", "active", 9.0)
    assert (will.mode("n1"), will.excluded_s) == ("active", {})


def test_a_controller_lags_behind_only_where_what_it_sees_was_not_so_lately_all_the_time() -> None:
    process = SimpleNamespace(sim=SimpleNamespace(state="running"))
    kept_running = SimpleNamespace(process=process)
    view, clock = SimpleNamespace(digest=b"good"), SimpleNamespace(now=0.0)
    bus, runner = SimpleNamespace(broker="broker/b1"), SimpleNamespace(view=view)
    fleet: Any = SimpleNamespace(
        world=SimpleNamespace(loop=SimpleNamespace(time=lambda: clock.now)),
        view=lambda: None,
        broker=SimpleNamespace(kept=kept_running, identity=SimpleNamespace(name="broker/b1")),
        controllers={"c1": SimpleNamespace(kept=kept_running, runner=runner, bus=bus)},
        recent={b"good"},
    )
    watch = ViewWatch(fleet)
    for at_s, digest, wrong in (
        (0, b"good", 0),
        (10, b"bad", 0),
        (15, b"good", 0),
        (20, b"bad", 0),
        (30, b"bad", 0),
        (31, b"bad", 1),
    ):
        clock.now, view.digest = at_s, digest
        watch.look()
        assert len(watch.wrong) == wrong, at_s


@pytest.mark.parametrize(("loses", "unproven"), [(False, ["proven"]), (True, [])])
def test_each_invariant_is_asked_of_each_run(monkeypatch: pytest.MonkeyPatch, loses: bool, unproven: list[str]) -> None:
    """What a store has lost its history cannot prove, and that alone is not asked then."""

    async def nothing(playing: Play) -> None:
        playing.wrong.append("the scenario's own")
        playing.world.crashes.append("crashes")
        playing.fleet.complaints.append("complaints")

    async def not_proven(_: SimFleet) -> list[str]:
        return ["proven"]

    def watch(self: ViewWatch) -> None:
        self.wrong[:] = ["watch"]

    for name in ("replicas", "replayed", "all_true"):
        monkeypatch.setattr(scenarios, name, lambda *_, name=name: [name])
    monkeypatch.setattr(scenarios, "proven", not_proven)
    monkeypatch.setattr(ViewWatch, "look", watch)
    monkeypatch.setitem(SCENARIOS, "nothing", Scenario(nothing, "nothing", placed=False, loses=loses))  # type: ignore[arg-type]
    report = play(1, scenario="nothing", scale=Scale(nodes=1, services=0, controllers=1), seconds=20.0)
    asked = [*unproven, "the scenario's own", "watch", "crashes", "complaints", "replicas", "replayed", "all_true"]
    assert report.wrong == asked
