"""What would have waited for long enough if realm time went on to another, as an operator is told before it does."""

import pytest

from dsmt.cli.clock import running_out_said
from dsmt.event.status import State
from dsmt.operations.read.rows.running_out import running_out
from dsmt.operations.write.clocks import Jump
from tests.controllers.build import Realm, key, web
from tests.controllers.rollouts import running
from tests.controllers.test_brake import lose, realm_of

from .sights import sight


@pytest.mark.parametrize(("policy", "told"), [("", True), ("update: {rollback: false}\n", False)])
def test_a_revision_that_is_tried_is_told_where_its_deadline_would_be_over(policy: str, told: bool) -> None:
    realm = running(component=policy)
    assert running_out(sight(realm), realm.now_ms + 10**9) == []
    realm.apply(web(4, component=policy + "env: {A: b}"))
    realm.step()
    assert running_out(sight(realm), realm.now_ms + 300_000) == [], "nobody has said that it is not ready"
    realm.status(key(), realm.slot().node or "", State.INSTALLING)
    late = ["web/app goes back, for its new revision would be late"] if told else []
    assert running_out(sight(realm), realm.now_ms + 10_000) == []
    assert running_out(sight(realm), realm.now_ms + 300_000) == late
    realm.obey()
    realm.after(5)
    assert running_out(sight(realm), realm.now_ms + 6_000) == [], "it will be good then"
    realm.settle(seconds=11)
    assert running_out(sight(realm), realm.now_ms + 300_000) == [], "it was good"


def test_the_first_revision_has_nothing_to_go_back_to() -> None:
    realm = Realm("n1")
    realm.apply(web(1))
    realm.step()
    assert running_out(sight(realm), realm.now_ms + 10**9) == []


def test_that_the_brake_would_let_go_is_told() -> None:
    realm = realm_of(10)
    lose(realm, 4)
    assert running_out(sight(realm), realm.now_ms + 299_000) == []
    assert running_out(sight(realm), realm.now_ms + 300_000) == ["the brake lets go"]


def test_it_stands_in_the_question() -> None:
    jump = Jump(ahead_s=400.0, to_ms=0, ended=[], runs_out=["the brake lets go"])
    assert running_out_said(jump) == ["what waits will have waited for long enough: the brake lets go"]
    assert running_out_said(Jump(ahead_s=400.0, to_ms=0, ended=[], runs_out=[])) == []
