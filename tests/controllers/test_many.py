"""Any number of instances may be asked for: what one decision looks at and says is bounded."""

import asyncio

import pytest

from dsmt.controllers import service
from dsmt.controllers.decide import decide
from dsmt.controllers.intents import Intent
from dsmt.controllers.look import Look
from dsmt.controllers.loop.agenda import Agenda
from dsmt.controllers.loop.runner import PRODUCED_MOST, ControllerRunner
from dsmt.controllers.placement import Chooser
from dsmt.controllers.replay import fold_and_decide
from dsmt.controllers.service import AHEAD, AHEAD_LEAST
from dsmt.event.kinds.slot import Slot
from dsmt.event.payload import MAX_BODY_BYTES, canonical
from dsmt.ports.bus import Cursor
from dsmt.view.allocation import MOST_ON_A_NODE

from .build import Attentive, Realm, spec, web
from .fleet import Fleet, Rows, simulate
from .hand import NOBODY_ENDED, HandBus, HandClock, never
from .scenario import FullLife, Life, shown
from .signing import check

ASKED = 100_000
SMALL = "reserve: {memory: 1MiB, cpu: 0, disk: 1MiB}"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What slots were asked what they want, one entry each."""
    found: list[int] = []
    want = service.want

    def counted(context, one):
        found.append(one.index)
        return want(context, one)

    monkeypatch.setattr(service, "want", counted)
    return found


def test_a_decision_looks_at_what_is_somewhere_and_at_so_many_that_are_nowhere(asked: list[int]) -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(ASKED))
    realm.settle(obey=False)
    placed = [node for node in realm.nodes_of() if node is not None]
    assert 0 < len(placed) < len(realm.nodes_of()) <= len(placed) + AHEAD
    asked.clear()
    assert realm.decide().intents == ()
    assert len(asked) <= len(placed) + AHEAD


def test_what_comes_after_it_is_placed_and_replaced_as_ever() -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(ASKED, service="big", component="reserve: {memory: 3GiB}"))
    realm.settle()
    realm.apply(web(2, component=SMALL))
    realm.settle()
    before = realm.nodes_of()
    realm.close(before[0] or "")
    said = realm.settle(seconds=1)
    assert before[0] not in realm.nodes_of()
    assert None not in realm.nodes_of()
    assert len(said) <= AHEAD + 20


def test_a_number_that_fits_is_there_after_some_decisions() -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(2 * AHEAD + 7, component=SMALL))
    assert [len(realm.step()) for _ in range(4)] == [AHEAD, AHEAD, 7, 0]
    assert None not in realm.nodes_of()


def test_a_component_for_which_there_is_no_place_keeps_no_other_one_waiting() -> None:
    realm = Realm("n1", "n2", "n3")
    huge = "".join(f"  a{i:02}:\n    run: ./app\n    instances: 1000\n    reserve: {{memory: 1TiB}}\n" for i in range(20))
    realm.apply(f"{web(600, component=SMALL)}{huge}")
    realm.settle(obey=False)
    facts = [slot.fact.record for slot in realm.view.services["web"].slots.values() if slot.fact is not None]
    assert sum(one.node is not None for one in facts) == 600
    assert len(facts) == 600 + 20 * AHEAD_LEAST


def test_slots_wait_for_their_turn_and_have_it_when_there_is_room() -> None:
    realm = Realm("n1")
    controller = Attentive(realm)
    realm.apply(web(ASKED))
    controller.watch(3)
    few = sum(node is not None for node in realm.nodes_of())
    realm.node("n2")
    controller.watch(3)
    assert sum(node is not None for node in realm.nodes_of()) == 2 * few
    assert controller.overlooked() == []


def test_fewer_are_asked_for_and_all_others_end() -> None:
    realm = Realm("n1", "n2", "n3")
    controller = Attentive(realm)
    realm.apply(web(ASKED))
    controller.watch(3)
    realm.apply(web(1))
    controller.watch(3)
    assert len(realm.nodes_of()) == 1
    assert controller.overlooked() == []


def test_slots_that_stay_with_data_keep_no_other_one_waiting() -> None:
    realm = Realm("n1", "n2")
    kept = "on_partition: pinned\n" + SMALL
    realm.apply(web(2 * AHEAD, component=kept))
    realm.settle(seconds=1)
    realm.apply(web(0, component=kept))
    realm.settle(seconds=1)
    realm.close("n1", "n2")
    realm.settle(seconds=1)
    realm.node("n3")
    realm.apply(web(2 * AHEAD + 3, component=kept))
    realm.settle(seconds=1)
    assert realm.nodes_of().count("n3") == 3


def test_a_node_takes_no_more_than_brokers_know_agents_of() -> None:
    realm = Realm("n1")
    realm.apply(web(ASKED, component="reserve: {memory: 0, cpu: 0, disk: 0}"))
    realm.settle(obey=False)
    assert sum(node is not None for node in realm.nodes_of()) == MOST_ON_A_NODE
    assert realm.slot(MOST_ON_A_NODE).reason is not None


def test_why_there_is_no_place_is_found_once_for_all_of_a_component(monkeypatch: pytest.MonkeyPatch) -> None:
    realm = Realm(*(f"n{i}" for i in range(40)))
    realm.apply(web(AHEAD, component="reserve: {memory: 1TiB}"))
    looks: list[str] = []
    misfit = Chooser.misfit

    def counted(self, node, avoid=()):
        looks.append(node)
        return misfit(self, node, avoid)

    monkeypatch.setattr(Chooser, "misfit", counted)
    assert len(realm.step()) == AHEAD
    assert len(looks) <= 3 * 40


# --- a look at the whole realm -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_look_at_a_part_says_the_first_of_what_a_look_at_all_says(seed: int) -> None:
    life = FullLife(seed + 700)
    for _ in range(60):
        life.happen()
        every = life.realm.decide()
        for most in (0, 1, 4, 8):
            some = life.realm.decide(look=Look(most=most))
            assert shown(some.intents) == shown(every.intents)[: len(some.intents)]
            assert some.left is not None or len(some.intents) == len(every.intents)
        life.decide(every)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [Life, FullLife])
def test_looks_at_one_part_after_the_other_find_what_a_look_at_all_finds_and_replay(seed: int, kind: type[Life]) -> None:
    life, agenda = kind(seed + 900), Agenda(again_ms=None)
    for _ in range(60):
        life.happen()
        view, now_ms = life.realm.view, life.realm.now_ms
        for _ in range(60):
            look = agenda.look(view, view.take_dirty(), now_ms, most=3)
            some = decide(view, now_ms, may_accuse=True, broker="b1", look=look, check=check)
            agenda.note(some)
            life.decide(some)
            if not some.intents and agenda.rest is None:
                break
        assert shown(life.realm.decide().intents) == []
    report = fold_and_decide(life.realm.rows, life.decisions, check=check)
    assert report.count("same") == len(report.findings) > 0, report.findings


# --- the runner --------------------------------------------------------------------------------------------------


def test_a_node_dies_while_far_too_many_are_asked_for_and_others_are_repaired_at_once() -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.up(2, component=SMALL)
        fleet.operator.apply(spec(web(ASKED, service="all", component="reserve: {memory: 1GiB}")), reason="a mistake")
        await fleet.until(lambda: fleet.running("all") >= 3, 20)
        lost = fleet.nodes_of()[0]
        next(node for node in fleet.nodes if node.name == lost).host.power_off()
        await fleet.until(lambda: (view := fleet.view).standing.get(lost or "") is not None and view.services, 20)
        assert await fleet.until(lambda: lost not in fleet.nodes_of() and fleet.running() == 2, 5) < 2
        assert len(fleet.view.services["all"].slots) < 2 * AHEAD
        fleet.operator.apply(spec(web(1, service="all", component="reserve: {memory: 1GiB}")), reason="better")
        await fleet.until(lambda: fleet.running("all") == 1 == len(fleet.nodes_of("all")), 60)
        rows = Rows(fleet.broker)
        report = fold_and_decide(rows.all, rows.on("/decision"), check=lambda *_: True)
        assert report.ok

    simulate(scenario)


def test_more_than_one_decision_event_names_is_said_in_several_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsmt.controllers.loop.runner.PRODUCED_MOST", 4)

    async def scenario(fleet: Fleet) -> None:
        await fleet.up(11, component=SMALL)
        said = [len(one.event.data["produced"]) for one in Rows(fleet.broker).on("/decision")]
        assert sum(said) >= 11
        assert max(said) <= 4

    simulate(scenario)


def test_a_controller_with_the_longest_name_says_as_much_in_a_turn_as_any_other() -> None:
    """What its decisions name are ids, which begin with its name."""
    bus = HandBus(HandClock())
    bus.source, bus.incarnation = f"controller/{'c' * 63}", 1_800_000_000_000
    runner = ControllerRunner(bus, bus._clock, NOBODY_ENDED, version="0.1", pid=None, complain=never)  # type: ignore[arg-type]
    slot = Slot(node="n1", spec="operator/a#1-1", revision=1, desired="running")
    intents = [Intent(f"service/web/slot/app/{n}", slot, None, (), "it is wanted") for n in range(PRODUCED_MOST)]

    async def say() -> None:
        async with asyncio.TaskGroup() as runner._group:
            runner._publish(intents, runner._inputs(Cursor("s" * 16, 2**40, 2**40), 2**40, may_accuse=True), 0.0)

    asyncio.run(say())
    said = [draft.data for draft in bus.said if draft.topic.endswith("/decision")]
    ids = [f"{bus.source}#1800000000000-{n}" for n in range(1, PRODUCED_MOST + 1)]
    assert [one for data in said for one in data["produced"]] == ids
    assert all(len(canonical(data)) < MAX_BODY_BYTES - 1024 for data in said)
    assert runner.decisions == 1


def test_where_instances_of_a_dead_node_go_is_found_without_trying_every_number_of_instances(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    realm = Realm("n1", "n2", "n3")
    realm.apply(web(600, component=SMALL))
    realm.settle()
    realm.close("n1")
    realm.after(1)
    realm.step()
    looks: list[str] = []
    in_order = Chooser._in_order

    def counted(self, start):
        for node in in_order(self, start):
            looks.append(node)
            yield node

    monkeypatch.setattr(Chooser, "_in_order", counted)
    assert len(realm.step()) == 200
    assert len(looks) <= 200 * 2 * 2 * 3
