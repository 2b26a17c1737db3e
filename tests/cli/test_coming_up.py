"""`up` waits while nodes come, and names those that do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dsmt.errors import FailedError, TimedOutError
from dsmt.operations.local import coming_up
from dsmt.operations.local.home import Home
from dsmt.operations.local.machine import StartedRealm, left_out
from dsmt.operations.local.making import ensure_node, init
from dsmt.operations.read import waiting
from dsmt.operations.read.sight import Sight
from dsmt.simulator.engine.run import run
from tests.controllers.build import Realm
from tests.operations.sights import sight

NODES = tuple(f"n{number}" for number in range(1, 9))
EACH_S = 20.0


async def waits_for_controllers(_: object, controllers: Collection[str]) -> list[str]:
    """They are there 5 s later, but for one that hangs."""
    await asyncio.sleep(5.0 if controllers else 0.0)
    return [one for one in controllers if one == "hangs"]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with eight nodes; one more of the first three is alive each 20 s, and nobody after them."""

    async def watch(_: object) -> AsyncIterator[Sight]:
        while True:
            yield sight(Realm(*NODES[: min(3, int(asyncio.get_running_loop().time() / EACH_S))]))
            await asyncio.sleep(1)

    @asynccontextmanager
    async def reading(*_: object, **__: object) -> AsyncIterator[Any]:
        trust = SimpleNamespace(is_revoked=lambda _: False, delegates=list, certificates=lambda _: ())
        yield SimpleNamespace(bus=None, trust=trust, realm=SimpleNamespace(brokers=[("broker/b1", bytes(32))]))

    monkeypatch.setattr(coming_up, "reading", reading)
    monkeypatch.setattr(coming_up, "ended_brokers", lambda *_: {})
    monkeypatch.setattr(waiting, "watch", watch)
    monkeypatch.setattr(coming_up.following, "here", waits_for_controllers)
    monkeypatch.setattr(waiting, "aclosing", aclosing)
    identity = SimpleNamespace(certificate=SimpleNamespace(key_id=bytes(32)))
    monkeypatch.setattr(coming_up, "read_identity", lambda _: identity)
    made = SimpleNamespace(
        is_joined=False, operator=lambda: None, realm=lambda: None, part=lambda *_: Path(), root=Path("/")
    )
    return cast("Home", made)


def test_up_waits_as_long_as_one_more_node_comes_and_names_those_that_do_not(home: Home) -> None:
    told: list[str] = []

    async def main() -> tuple[str, float]:
        with pytest.raises(TimedOutError) as missed:
            await coming_up.attached(home, StartedRealm("r", (), (), NODES, made=False), limit_s=30.0, tell=told.append)
        return missed.value.message, asyncio.get_running_loop().time()

    said, ended = run(main())
    here = "3 of 8 nodes attached and alive"
    assert said == f"{here}; no other node came within 30 s: n4, n5, n6 and 2 more did not; the start goes on"
    assert 90 <= ended <= 120, "the last one came after 60 s"
    assert "not all nodes are attached and alive: 1 of 8; not n2, n3, n4 and 4 more" in told


def test_up_that_nobody_came_to_names_the_full_disk_of_the_home(home: Home, small_disk: Path) -> None:
    cast("Any", home).root = small_disk
    (small_disk / "b1.db").write_bytes(bytes(200 << 10))

    async def main() -> TimedOutError:
        with pytest.raises(TimedOutError) as missed:
            await coming_up.attached(home, StartedRealm("r", (), (), NODES[:4], made=False), limit_s=30.0)
        return missed.value

    missed = run(main())
    assert missed.message.endswith(f"the start goes on; the disk of {small_disk} is full, or nearly so: 56 KiB free")
    assert missed.next == "free space there"


def test_up_returns_when_all_of_its_nodes_are_there(home: Home) -> None:
    async def main() -> float:
        await coming_up.attached(home, StartedRealm("r", (), (), NODES[:3], made=False), limit_s=30.0)
        return asyncio.get_running_loop().time()

    assert run(main()) == 3 * EACH_S


def test_up_returns_when_its_controllers_are_there_too(home: Home) -> None:
    async def main() -> float:
        await coming_up.attached(home, StartedRealm("r", (), ("c1", "c2"), NODES[:3], made=False), limit_s=30.0)
        return asyncio.get_running_loop().time()

    assert run(main()) == 3 * EACH_S + 5


def test_up_names_a_controller_that_hangs_and_says_what_becomes_of_it(home: Home) -> None:
    started = StartedRealm("r", (), ("c1", "hangs"), NODES[:3], made=False)
    said = run(coming_up.attached(home, started, limit_s=30.0))
    assert said == ["controller hangs is not alive yet; one that hangs is ended after 70 s, and started again"]


@pytest.mark.parametrize("of_the_realm", [True, False])
def test_up_ends_for_the_ended_certificate_of_a_broker_of_the_realm_and_not_for_one_that_was_removed(
    home: Home, monkeypatch: pytest.MonkeyPatch, of_the_realm: bool
) -> None:
    ended = SimpleNamespace(public=bytes(32) if of_the_realm else bytes(31) + b"1")
    monkeypatch.setattr(coming_up, "ended_brokers", lambda *_: {"broker/b1": ended})

    async def main() -> None:
        await coming_up.attached(home, StartedRealm("r", (), (), NODES[:1], made=False), limit_s=30.0)

    if not of_the_realm:
        run(main())
        return
    with pytest.raises(FailedError, match="the certificate of broker/b1 has ended"):
        run(main())


def test_what_a_home_holds_is_named_where_fewer_were_asked_for(tmp_path: Path) -> None:
    made = Home(tmp_path / "home")
    init(made, name="test")
    here = [ensure_node(made, name, now_s=0) and name for name in ("n7", "n8", "n9")]
    controllers = tuple(made.names("controllers"))
    nodes = tuple(one for one in made.names("nodes") if one not in here[1:])
    said = left_out(made, StartedRealm("r", (), controllers, nodes, made=False))
    assert said == ["n8, n9 of this home are not started: dsmt up, with no number, starts all of it"]
    assert left_out(made, StartedRealm("r", (), controllers, tuple(made.names("nodes")), made=False)) == []
