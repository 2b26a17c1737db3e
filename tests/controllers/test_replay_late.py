"""Replay of who folded anew at a broker that had no room to let stand again what void words had displaced (rule H2, J3)."""

from math import inf

import pytest

from dsmt.controllers.replay import fold_and_decide
from dsmt.event.envelope import SignedEvent
from dsmt.event.kinds.service import SpecFact
from dsmt.view import View

from .build import Realm, spec, web
from .scenario import Life


def usurped(*services: str) -> tuple[Life, Realm, int]:
    """Services of which a key that ended said the greatest word; the row with which it ended."""
    life = Life(0)
    realm = life.realm = Realm("n1", "n2")
    for service in services:
        realm.apply(web(2, service=service))
        say(realm, "eve", service, 4, version=7)
    life.decide(realm.decide())
    realm.obey()
    return life, realm, len(realm.rows)


def say(realm: Realm, who: str, service: str, instances: int, *, version: int) -> None:
    said = SpecFact(spec=spec(web(instances, service=service)), by=who, reason="")
    realm.say(f"operator/{who}", f"service/{service}/spec", said, version=version)


def begin_without_eve(realm: Realm) -> None:
    """Who reads now is given nothing of that key, nor what it displaces still."""
    held, realm.view = [one for one in realm.view.winners() if one.event.source != "operator/eve"], View()
    for one in held:
        realm.view.apply(one)


def outcomes(life: Life, realm: Realm, revoked: int) -> list[str]:
    """What replay shows of the decision before that key had ended, and of one after."""
    realm.apply(web(1, service="other"))
    life.decide(realm.after(1).decide())

    def ended(one: SignedEvent) -> float:
        return revoked if one.event.source == "operator/eve" else inf

    return [one.outcome for one in fold_and_decide(realm.rows, life.decisions, ended=ended).findings]


def test_what_came_since_and_had_no_room_either_is_not_in_the_view_of_who_folds_anew() -> None:
    """The broker's disk was full: what the owner signed again has a lower number than the void word, and is not given."""
    life, realm, revoked = usurped("web")
    say(realm, "alice", "web", 3, version=2)
    begin_without_eve(realm)
    assert realm.view.winner("service/web/spec") is None
    assert outcomes(life, realm, revoked) == ["same"] * 2


@pytest.mark.parametrize("version", [2, 7])
def test_what_came_before_the_broker_had_seen_to_what_is_void_is_not_in_the_view_of_who_folds_anew(version: int) -> None:
    """It had no room then either; what came after that stood at once. Of two of one number the earlier one wins."""
    life, realm, revoked = usurped("web", "db")
    say(realm.after(1), "alice", "web", 3, version=version)
    begin_without_eve(realm)
    say(realm, "alice", "db", 3, version=2)
    assert [realm.view.winner(f"service/{one}/spec") is None for one in ("web", "db")] == [True, False]
    assert outcomes(life, realm, revoked) == ["same"] * 2
