"""Which controllers may be removed, and which not."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from dsmt.errors import DsmtError
from dsmt.operations.local.members.controllers import check
from tests.controllers.build import Realm
from tests.operations.sights import sight


@pytest.mark.parametrize(
    ("name", "here", "closed", "code"),
    [
        ("c1", True, (), None),
        ("c1", True, ("c1",), None),
        ("c1", False, ("c1",), None),
        ("c1", False, (), "controller.alive"),
        ("c1", True, ("c2",), "controller.last"),
        ("c2", False, ("c1", "c2"), "controller.last"),
        ("c3", False, (), "controller.unknown"),
        ("c3", True, (), None),
    ],
)
def test_who_runs_elsewhere_or_alone_stays(name: str, here: bool, closed: tuple[str, ...], code: str | None) -> None:
    realm = Realm("n1")
    for one in ("c1", "c2"):
        realm.controller(one)
    for one in closed:
        realm.session(f"controller/{one}", "closed", how="peer")
    if code is None:
        check(sight(realm), name, here=here, sure=True)
        return
    with pytest.raises(DsmtError) as refused:
        check(sight(realm), name, here=here, sure=True)
    assert refused.value.code == code


@pytest.mark.parametrize(("closed", "code"), [((), "confirm"), (("c1",), None), (("c2",), "controller.last")])
def test_who_is_alive_when_it_is_its_turn_is_not_ended_without_a_yes(closed: tuple[str, ...], code: str | None) -> None:
    """One of two began anew when it was looked whether to ask: of the last one it would be said what is wrong."""
    realm = Realm("n1")
    for one in ("c1", "c2"):
        realm.controller(one)
    for one in closed:
        realm.session(f"controller/{one}", "closed", how="peer")
    with nullcontext() if code is None else pytest.raises(DsmtError) as refused:
        check(sight(realm), "c1", here=True, sure=False)
    assert code is None or refused.value.code == code


def test_who_may_still_come_back_from_a_lost_broker_stays_until_that_is_known() -> None:
    realm = Realm("n1", brokers=("b1", "b2"))
    for one in ("c1", "c2"):
        realm.controller(one)
    realm.session("controller/c2", "open", broker="b2", attachment=2)
    realm.session("broker/b2", "silent", broker="b1")
    with pytest.raises(DsmtError) as refused:
        check(sight(realm), "c2", here=False, sure=True)
    assert refused.value.code == "controller.in_doubt"
    realm.after(11)
    check(sight(realm), "c2", here=False, sure=True)
