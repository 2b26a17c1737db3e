"""What `dsmt replay` prints."""

from __future__ import annotations

import pytest

from dsmt.cli.replay import _show
from dsmt.controllers.decide import RULESET
from dsmt.operations.offline.replaying import Replay, Replayed, Undecided


@pytest.mark.parametrize(
    ("stale", "said"),
    [
        (0, []),
        (1, ["1 fact of these was refused as stale: another controller's was first"]),
        (3, ["3 facts of these were refused as stale: another controller's was first"]),
    ],
)
def test_what_was_refused_as_stale_is_said_in_a_line_of_its_own(capsys, stale, said):
    done = Replayed(
        ok=True,
        verified=True,
        controllers=2,
        same=4,
        different=0,
        incomplete=0,
        other_ruleset=0,
        stale=stale,
        before=0,
        decisions=[],
        undecided=[],
    )
    _show("x.cbor", done)
    assert capsys.readouterr().out.splitlines() == [
        f"x.cbor: 0 decisions of 2 controllers, ruleset {RULESET}",
        "4 the same",
        *said,
    ]


def test_what_many_decisions_have_in_common_is_said_once(capsys):
    def decision(number, outcome, *details):
        return Replay(decision=f"controller/c1@1:{number}", row=number, outcome=outcome, details=list(details), stale=0)

    decisions = [
        decision(1, "same"),
        *(decision(number, "inputs incomplete", "it was b2's") for number in (2, 3, 5)),
        decision(4, "different", "it said a"),
        decision(6, "different", "it said b"),
    ]
    done = Replayed(
        ok=False,
        verified=True,
        controllers=1,
        same=1,
        different=2,
        incomplete=3,
        other_ruleset=0,
        stale=0,
        before=0,
        decisions=decisions,
        undecided=[],
    )
    _show("x.cbor", done)
    assert capsys.readouterr().out.splitlines()[:3] == [
        "INCOMPLETE  controller/c1@1:2 and 2 more  it was b2's",
        "DIFFERENT   controller/c1@1:4  it said a",
        "DIFFERENT   controller/c1@1:6  it said b",
    ]


def test_what_a_controller_says_of_its_broker_makes_no_line_of_its_own(capsys):
    one = Replay(decision="controller/c1#1-1", row=1, outcome="inputs incomplete", details=["of b\n9 the same"], stale=0)
    counts = {"same": 0, "different": 0, "incomplete": 1, "other_ruleset": 0, "stale": 0, "before": 0}
    _show("x.cbor", Replayed(ok=True, verified=True, controllers=1, decisions=[one], undecided=[], **counts))
    assert capsys.readouterr().out.splitlines()[0] == "INCOMPLETE  controller/c1#1-1  of b\\n9 the same"


def test_what_no_decision_names_is_said_by_its_id_and_topic_and_counted(capsys):
    alone = [Undecided(event="controller/c9#1-2", topic="service/web/slot/app/0")]
    counts = {"same": 1, "different": 0, "incomplete": 0, "other_ruleset": 0, "stale": 0, "before": 0}
    _show("x.cbor", Replayed(ok=True, verified=True, controllers=1, decisions=[], undecided=alone, **counts))
    assert capsys.readouterr().out.splitlines() == [
        "UNDECIDED   controller/c9#1-2  service/web/slot/app/0: no decision of its controller names it",
        f"x.cbor: 0 decisions of 1 controller, ruleset {RULESET}",
        "1 the same",
        "1 fact of controllers that no decision names: a controller was killed as it said that, or its key is stolen",
    ]
