"""A host that is removed, and a node that is forgotten: what is done, in which order, and what keeps it from being done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsmt.errors import NotFoundError, RefusedError, TransportError
from dsmt.operations.local.home import notes
from dsmt.operations.local.home.home import Home, write_secret
from dsmt.operations.remote import removing
from dsmt.operations.remote.places import NodePlace, keep_place, places
from dsmt.operations.words.telling import silent
from dsmt.operations.write.node_control import Controlled

CONNECTION: Any = SimpleNamespace(bus=None, by="a", realm=SimpleNamespace(name="test", roots=(b"root",), nats=None))
DONE = Controlled(node="one", mode="removed", changed=True, version=3, instances=0)
PLACE = NodePlace(host="one", user=True, roles=("broker", "controller"))


class Removal:
    """A home that knows of a host, and that host, in a test's hands; `steps` is what was done, in order."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = Home(directory / "home")
        self.steps: list[str] = []
        self.ours, self.known, self.freed, self.broker = True, True, False, True
        self.cut: list[TransportError] = []
        self.liveness = ["alive", "suspect", "dead"]
        asyncio.run(keep_place(self.home, "one", PLACE))
        for place, name, done in (
            (removing, "reached", self.reached),
            (removing, "until", self.until),
            (removing, "look", self.look),
            (removing, "left_on", lambda *_: []),
            (removing, "data_on", lambda *_: []),
            (removing, "find_node", lambda *_: None),
            (removing.brokers, "remove", self.remove_broker),
            (removing.node_control, "free", self.free),
            (removing.node_control, "remove", self.remove_node),
        ):
            monkeypatch.setattr(place, name, done)

    @asynccontextmanager
    async def reached(self, address: Any, **_: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(address=address, do=self.do)

    async def do(self, verb: str, _: Any) -> dict[str, Any]:
        self.steps.append(f"there: {verb}")
        return {"ours": self.ours, "more": False}

    async def until(self, _: Any, seen: Callable[[Any], bool | None], **__: Any) -> None:
        while seen(SimpleNamespace(fleet=SimpleNamespace(state=lambda _: self.liveness[0]))) is None:
            self.steps.append(f"it is {self.liveness.pop(0)}")

    async def look(self, _: Any) -> Any:
        return None

    async def remove_broker(self, *_: Any, **__: Any) -> None:
        if self.cut:
            raise self.cut.pop()
        self.steps.append("its broker is none")
        if not self.broker:
            raise NotFoundError("broker.unknown", "there is no broker one")

    async def free(self, *_: Any, **__: Any) -> bool:
        return self.freed

    async def remove_node(self, *_: Any, **__: Any) -> Controlled:
        self.steps.append("it has left")
        if not self.known:
            raise NotFoundError("node.unknown", "there is no node one")
        return DONE

    def remove(self, place: NodePlace = PLACE) -> Controlled:
        work = removing.remove(CONNECTION, self.home, "one", place, reason="", sure=False, tell=lambda *_: None)
        return asyncio.run(work)

    def forget(self, node: str) -> Controlled:
        return asyncio.run(removing.forget(CONNECTION, self.home, node, reason="", sure=True, waits=silent))


@pytest.fixture
def removal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Removal:
    return Removal(tmp_path, monkeypatch)


def test_a_host_is_cleared_when_its_broker_is_none_and_its_node_has_left_when_nobody_hears_it(removal: Removal) -> None:
    assert removal.remove() == DONE
    assert removal.steps == [
        "its broker is none",
        "there: state",
        "there: remove",
        "it is alive",
        "it is suspect",
        "it has left",
        "its broker is none",
    ]
    assert places(removal.home) == {}


def test_the_issuer_of_a_host_that_was_cleared_is_noted_no_more_and_others_are(removal: Removal) -> None:
    for name in ("one", "ones"):
        write_secret(notes.place(removal.home.issuers, name, bytes(16)), b"certificate")
    removal.remove()
    assert [path.name.partition(".")[0] for path in removal.home.issuers.iterdir()] == ["ones"]


def test_a_broker_and_an_issuer_of_its_name_that_are_of_this_home_stay(removal: Removal) -> None:
    """So it is after a version that had noted what a host was refused."""
    removal.home.part("brokers", "one").mkdir(parents=True)
    (removal.home.part("brokers", "one") / "identity").touch()
    write_secret(notes.place(removal.home.issuers, "one", bytes(16)), b"certificate")
    removal.remove(NodePlace(host="one", user=True, roles=("broker",)))
    assert "its broker is none" not in removal.steps
    assert [*removal.home.issuers.iterdir()]


def test_a_removal_goes_on_where_its_broker_was_none_before(removal: Removal) -> None:
    removal.broker = False
    assert removal.remove() == DONE
    assert places(removal.home) == {}


def test_who_is_cut_off_before_the_broker_of_a_host_is_none_types_it_again_and_it_is(removal: Removal) -> None:
    removal.cut.append(TransportError("link.lost", "the link is lost", next="try again"))
    with pytest.raises(TransportError):
        removal.forget("one")
    assert places(removal.home) == {"one": PLACE}
    assert removal.forget("one") == DONE
    assert removal.steps == ["it has left", "it has left", "its broker is none"]
    assert places(removal.home) == {}


def test_a_host_that_belongs_to_another_realm_by_now_is_left_as_it_is_and_not_forgotten(removal: Removal) -> None:
    removal.ours = False
    with pytest.raises(RefusedError, match="one belongs to another realm than test"):
        removal.remove()
    assert "there: remove" not in removal.steps
    assert "it has left" not in removal.steps
    assert places(removal.home) == {"one": PLACE}


def test_a_node_that_never_came_is_forgotten_where_it_was_added_or_its_name_is_freed(removal: Removal) -> None:
    removal.known = False
    assert removal.forget("one") == Controlled(node="one", mode="removed", changed=True, version=0, instances=0)
    with pytest.raises(NotFoundError):
        removal.forget("one")
    removal.freed = True
    assert removal.forget("one").changed
