"""A node of which nothing is known but what is to run there: it died with the only store, and the slot facts came back."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.errors import InputError, NotFoundError
from dsmt.event.hlc import rfc3339
from dsmt.event.status import Shown
from dsmt.operations.read.rows.instance_reason import RETURNED_MS
from dsmt.operations.read.rows.instances import instances, is_problem
from dsmt.operations.read.rows.node_rows import find_node
from dsmt.operations.write import node_control
from dsmt.view.liveness import RETURN_MS
from tests.controllers.build import Realm, key, web

from .sights import sight


@pytest.fixture
def realm() -> Realm:
    """One of two instances is to be on n9, of which nothing has come back."""
    made = Realm("n1", "n2", "n9")
    made.apply(web(3))
    made.settle(seconds=1)
    index = next(at for at in range(3) if made.slot(at).node == "n9")
    again = Realm("n1", "n2")
    applied = again.apply(web(3))
    for at in range(3):
        again.say("controller/c1", key(at).topic, made.slot(at))
        if at != index:
            again.status(key(at), made.slot(at).node or "")
    assert applied
    again.index = index  # type: ignore[attr-defined]
    return again.after(RETURNED_MS / 1000 - 1)


def test_it_says_so_once_all_that_live_have_had_the_time_to_come_back(realm: Realm) -> None:
    at: int = realm.index  # type: ignore[attr-defined]
    first = instances(sight(realm))[at]
    assert (first.node, first.state, first.reason) == ("n9", Shown.WAITING, None)
    realm.after(1)
    row = instances(sight(realm))[at]
    assert row.reason is not None
    assert (row.reason.code, row.reason.who) == ("wait.node", "you")
    until = rfc3339(again_ms(realm) + RETURN_MS)
    assert row.reason.message == f"nothing is known of n9, where it is to run; it has until {until} to come back"
    assert row.reason.next == "bring n9 back, or dsmt node remove n9 --forget"
    assert is_problem(sight(realm), row)
    with pytest.raises(NotFoundError, match=f"nothing is known of n9 but what is to run there: web/app/{at}") as unknown:
        find_node(sight(realm), "n9")
    assert unknown.value.next == "bring it back, or dsmt node remove n9 --forget"


def test_what_was_lost_with_it_does_not_wait_for_it(realm: Realm) -> None:
    at: int = realm.index  # type: ignore[attr-defined]
    realm.after(RETURN_MS / 1000)
    realm.publish([one for one in realm.decide().intents if one.topic == "node/n9/verdict"])
    row = instances(sight(realm))[at]
    assert row.reason is not None
    assert (row.node, row.state, row.reason.code) == ("n9", Shown.LOST, "node.lost")


def again_ms(realm: Realm) -> int:
    """When the store began anew."""
    return realm.now_ms - RETURNED_MS


def test_who_says_that_it_is_gone_has_what_it_ran_placed_elsewhere(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(_bus: object) -> object:
        return sight(realm)

    async def say(_bus: object, drafts: list[Any]) -> None:
        for draft in drafts:
            realm.say("operator/alice", draft.topic, draft.data, version=draft.version)

    async def remove(*, sure: bool) -> node_control.Controlled:
        bus: Any = SimpleNamespace()
        return await node_control.remove(bus, "n9", by="alice", reason="", sure=sure)

    monkeypatch.setattr(node_control, "look", look)
    monkeypatch.setattr(node_control, "say", say)
    with pytest.raises(InputError, match="n9 is suspect"):
        asyncio.run(remove(sure=False))
    assert asyncio.run(remove(sure=True)).changed
    realm.settle(seconds=2)
    assert "n9" not in realm.nodes_of()
