"""Controllers that contend: each has a taste of its own, takes what there is, and a replay decides as that one did."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from dsmt.controllers.placement import Chooser
from dsmt.simulator.contention import contention, speaking_for
from dsmt.simulator.engine.process import SimProcess
from dsmt.simulator.engine.run import run
from dsmt.view import Fleet
from tests.controllers.build import Realm, key, web

NODES = tuple(f"n{number}" for number in range(1, 10))


@pytest.fixture
def realm() -> Realm:
    made = Realm(*NODES)
    made.apply(web(1))
    return made


def chosen(realm: Realm, avoid: Iterable[str] = ()) -> str | None:
    component = realm.view.services["web"].parsed.components["app"]
    return Chooser(Fleet(realm.view, realm.now_ms, realm.broker), "web", component).choose(key("web/app/0"), avoid)


def order(realm: Realm) -> list[str]:
    """The nodes in the order in which they are chosen, each when those before it are to be avoided."""
    taken: list[str] = []
    for _ in NODES:
        taken.append(chosen(realm, taken) or "nobody")
    return taken


def test_each_controller_takes_its_own_third_of_the_nodes_first_and_the_others_when_there_is_nothing_else(
    realm: Realm,
) -> None:
    thirds = {}
    with contention():
        for name in ("c1", "c2", "c3", "c4", "c11"):
            with speaking_for(name):
                nodes = order(realm)
                assert chosen(realm, NODES) is None
            assert sorted(nodes) == sorted(NODES), "what is disliked is taken in the end"
            thirds[name] = set(nodes[:3])
    assert thirds == {
        "c1": {"n1", "n4", "n7"}, "c2": {"n2", "n5", "n8"}, "c3": {"n3", "n6", "n9"},
        "c4": {"n1", "n4", "n7"}, "c11": {"n2", "n5", "n8"},
    }  # fmt: skip


def test_without_contention_all_choose_the_same_also_after_one_that_was_broken_off(realm: Realm) -> None:
    before = order(realm)
    with contention(), speaking_for("c1"):
        assert order(realm) != before
    with pytest.raises(ZeroDivisionError), contention():
        raise ZeroDivisionError
    assert order(realm) == before
    for name in ("c1", "c2", "c3"):
        with speaking_for(name):
            assert order(realm) == before


def test_who_decides_is_the_running_process_and_outside_of_one_who_is_spoken_for(realm: Realm) -> None:
    async def world() -> dict[str, str | None]:
        found: dict[str, str | None] = {}

        async def decide(name: str) -> None:
            found[name] = chosen(realm)

        for name in ("c1", "c2", "c3"):
            process = SimProcess(f"{name}:controller")
            with speaking_for("c9"):
                process.start(decide(name))
            await process.wait()
        return found

    with contention():
        found = run(world())
        spoken = {}
        for name in found:
            with speaking_for(name):
                spoken[name] = chosen(realm)
                with pytest.raises(ZeroDivisionError), speaking_for("c6"):
                    raise ZeroDivisionError
                assert chosen(realm) == spoken[name], "who spoke before speaks again"
    assert found == spoken
    assert len(set(found.values())) == 3


def test_who_only_looks_where_something_would_go_prefers_none(realm: Realm) -> None:
    before = order(realm)
    with contention(), speaking_for("alice"):
        assert order(realm) == before
