"""What `dsmt replay` prints."""

from __future__ import annotations

import pytest

from dsmt.cli.replay import _show
from dsmt.controllers.decide import RULESET
from dsmt.operations.offline.replaying import Replayed


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
        ok=True, verified=True, controllers=2, same=4, different=0, incomplete=0, other_ruleset=0, stale=stale, decisions=[]
    )
    _show("x.cbor", done)
    assert capsys.readouterr().out.splitlines() == [
        f"x.cbor: 0 decisions of 2 controllers, ruleset {RULESET}",
        "4 the same",
        *said,
    ]
