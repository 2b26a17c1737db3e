"""How much of a realm a controller looks at in one turn, where a look at everything takes long."""

import pytest
from msgspec.structs import replace

from dsmt.controllers import decide
from dsmt.controllers.brake import LOOSE, Brake
from dsmt.controllers.look import Look
from dsmt.controllers.loop import portion
from dsmt.controllers.loop.agenda import AGAIN_MS, Agenda
from dsmt.controllers.plan import NOTHING, Outcome, Plan
from dsmt.view import ServiceEntry, SlotEntry

from .build import Realm, web
from .hand import Hand

SLOTS = 200
MICROSECONDS = 1e-6


def looked(hand: Hand, monkeypatch: pytest.MonkeyPatch, costs: dict[str, float]) -> list[str]:
    """The services that are looked at, each of whose slots takes so long (us), by the first letter of its name."""
    found, real = list[str](), decide.decide_service

    def costly(plan: Plan, entry: ServiceEntry, only: object = None) -> Outcome:
        found.append(entry.name)
        hand.clock.now += SLOTS * costs.get(entry.name[0], 0.0) * MICROSECONDS
        return real(plan, entry, only) if entry.name == "zz" else NOTHING  # type: ignore[arg-type]

    monkeypatch.setattr(decide, "decide_service", costly)
    return found


def realm_of(hand: Hand, letters: str, count: int) -> None:
    """So many services of each letter, and two instances of `zz`, the last, that have no place yet."""
    realm = Realm("n1", "n2", "n3")
    for letter in letters:
        for number in range(count):
            realm.apply(web(SLOTS, service=f"{letter}{number:03}"))
    realm.apply(web(2, service="zz"))
    hand.give(*(event for _, event in realm.rows))
    for name, entry in hand.runner.view.services.items():
        for index in range(SLOTS if name != "zz" else 0):
            entry.slots.setdefault(("app", index), SlotEntry())


@pytest.mark.parametrize(("cheap", "dear"), [(50, 50), (50, 400), (100, 300), (120, 260)])
def test_a_look_at_everything_comes_to_its_end_where_what_comes_last_takes_longest(
    cheap: float, dear: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = Hand()
    realm_of(hand, "ay", 60)
    looked(hand, monkeypatch, {"a": cheap, "y": dear})
    said = next((turn for turn in range(40) if any("/zz/" in topic for topic in hand.slots(0.25))), None)
    assert said is not None, "part after part is thrown away"


def test_a_service_that_alone_takes_longer_than_a_second_to_look_at_keeps_no_other_one_from_being_decided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One node's key makes up a hundred thousand statuses in it, and no less than a service is looked at."""
    hand, costs = Hand(), {"a": 7_000.0}
    realm_of(hand, "a", 1)
    looked(hand, monkeypatch, costs)
    said = next((turn for turn in range(40) if any("/zz/" in topic for topic in hand.slots(0.25))), None)
    assert said is not None, "every look is thrown away"


def test_what_was_decided_before_a_stall_is_thrown_away_however_little_was_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hand, costs = Hand(), {"a": 1e6 * (portion.SERVICE_S + 1) / SLOTS}
    realm_of(hand, "a", 1)
    looked(hand, monkeypatch, costs)
    assert not [topic for _ in range(40) for topic in hand.slots(0.25)]


def test_who_was_slow_once_looks_at_as_much_as_before_when_it_is_not_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    hand, costs = Hand(), {"a": 3000.0}
    realm_of(hand, "a", 60)
    looked(hand, monkeypatch, costs)
    hand.slots(2.0)
    assert hand.runner._portion.most < portion.LOOKED_MOST
    costs["a"] = 1.0
    for _ in range(20):
        hand.slots(61.0)
    assert hand.runner._portion.most == portion.LOOKED_MOST


def test_more_is_looked_at_in_a_turn_only_after_a_look_at_everything_of_which_no_part_took_long() -> None:
    most, looks = portion.Portion(), []
    assert [most.is_too_old(1.1) for _ in range(3)] == [True, True, True]
    for took_s in (0.25, 0.24, 0.25, 0.24, 0.24, 0.24):
        looks.append(most.most)
        most.took(took_s, ended=False)
        most.took(0.0, ended=True)
    assert looks == [500, 500, 1000, 1000, 2000, 4000]
    assert most.most == portion.LOOKED_MOST


def test_a_look_at_everything_that_is_not_over_goes_on_at_once_and_one_that_has_not_begun_wakes_nobody() -> None:
    realm, agenda = Realm("n1"), Agenda()
    for name in ("all", "web"):
        realm.apply(web(1, service=name))
    assert agenda.wake_ms is None, "who only watches, or may not decide yet, begins anew each turn"
    assert agenda.due(realm.now_ms)
    agenda.note(realm.decide(look=agenda.look(realm.view, realm.view.take_dirty(), realm.now_ms, most=1)))
    assert (agenda.rest, agenda.wake_ms) == ("web", 0)


def test_what_was_overlooked_is_found_when_everything_is_looked_at_again() -> None:
    realm, agenda = Realm("n1"), Agenda()
    for name in ("all", "web"):
        realm.apply(web(1, service=name))

    def look() -> list[str]:
        decided = realm.decide(look=agenda.look(realm.view, realm.view.take_dirty(), realm.now_ms, most=1))
        agenda.note(decided)
        realm.publish(decided.intents)
        return [intent.subject for intent in decided.intents]

    assert look() + look() == ["all/app/0", "web/app/0"]
    while look() or agenda.rest is not None:
        pass
    realm.apply(web(2, service="web"))
    realm.view.take_dirty()
    assert look() == []
    realm.after(AGAIN_MS / 1000 - 1)
    assert not agenda.due(realm.now_ms)
    realm.after(1)
    assert agenda.due(realm.now_ms)
    assert look() + look() == ["web/app/1"]
    assert agenda.rest is None
    assert not agenda.due(realm.now_ms)
    realm.now_ms -= 5_000
    assert agenda.due(realm.now_ms), "the time of the realm was put back"


@pytest.mark.parametrize("now", [Brake(on=True), Brake(on=False, held=True), Brake(on=True, released=frozenset({"n1"}))])
def test_all_services_are_looked_at_once_the_brake_lets_go_of_other_nodes_than_before(now: Brake) -> None:
    """What it kept back until then is in services of which nothing was said since."""
    few = Look(scope={"web": None}, most=9, before=LOOSE)
    assert few.under(replace(LOOSE, total=9)) is few
    assert few.under(now).places("db") is None
    assert replace(few, before=now).under(now).places("db") == ()
