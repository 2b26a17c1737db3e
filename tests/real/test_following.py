"""A realm moves, and its members on other machines go with it: no service is restarted, and all is repaired after it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from dsmt.errors import RefusedError
from dsmt.operations.connection import connect
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.moving import far_members
from dsmt.operations.local.processes.ending import down
from tests.real.seat import dsmt
from tests.real.test_joining import alive, realm, until

pytestmark = [pytest.mark.real, pytest.mark.timeout(300), pytest.mark.xdist_group("nats-realm")]
SPEC = """\
service: web
components:
  app:
    instances: 2
    nodes: web-1
    run: sleep 1000
"""
BOTH = pytest.mark.parametrize(("engine", "to"), [("dsmt", "nats"), ("nats", "dsmt")])


async def pids(home: Path) -> dict[str, int]:
    found = (await dsmt(home, "ps", "--json")).json
    return {one["instance"]: one["pid"] for one in found if one["state"] == "running"}


async def joined(home: Path, there: Path) -> dict[str, int]:
    """Another machine's node, with two instances; their pids."""
    token = (await dsmt(home, "token", "create", "--label", "zone=a")).out.strip()
    await dsmt(there, "join", token, "--name", "web-1")
    (home / "web.yaml").write_text(SPEC)
    await dsmt(home, "apply", str(home / "web.yaml"))

    async def runs() -> dict[str, int]:
        found = await pids(home)
        return found if len(found) == 2 else {}

    return await until(runs)


async def kinds(home: Path, topic: str) -> list[Any]:
    said = await dsmt(home, "tail", topic, "--since", "1h", "--no-follow", "--json")
    return [line for line in said.out.splitlines() if line]


@BOTH
def test_a_node_on_another_machine_follows_the_realm_and_what_it_runs_goes_on(tmp_path: Path, engine: str, to: str) -> None:
    async def play() -> None:
        there = tmp_path / "there"
        async with realm(tmp_path, there, engine=engine) as home:
            before = await joined(home, there)
            assert len(before) == 2
            await dsmt(home, "bus", "migrate", to)
            assert Home(there).realm().engine == engine
            told = (await dsmt(home, "bus", "migrate", "--cut", "--json")).json
            assert (told["members"], told["away"]) == (["node/web-1"], [])
            assert Home(there).realm() == Home(home).realm()
            assert Home(there).realm().engine == to
            assert await alive(home) == {"n1", "web-1"}
            assert await pids(home) == before
            assert await kinds(home, "node/+/verdict") == []
            os.kill(before["web/app/0"], signal.SIGKILL)

            async def repaired() -> bool:
                now = await pids(home)
                return len(now) == 2 and now["web/app/0"] != before["web/app/0"]

            await until(repaired)
            assert (await pids(home))["web/app/1"] == before["web/app/1"]
            await dsmt(home, "scale", "web/app", "3")
            await until(lambda: _runs(home, 3))
            assert not list(there.rglob("moves.cbor"))
            await dsmt(there, "down")
            await dsmt(there, "up", "--detach")
            await until(lambda: _is_alive(home))

    asyncio.run(play())


async def _runs(home: Path, number: int) -> bool:
    return len(await pids(home)) == number


async def _is_alive(home: Path) -> bool:
    return await alive(home) == {"n1", "web-1"}


async def _is_dead(home: Path) -> bool:
    return {one["node"]: one["liveness"] for one in (await dsmt(home, "nodes", "--json")).json}["web-1"] == "dead"


async def _is_forgotten(plan: Path) -> bool:
    return not plan.exists()  # noqa: ASYNC240 - a test's own disk


def test_a_realm_is_not_cut_while_a_member_elsewhere_has_not_heard_and_one_that_stays_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far_members, "HEAR_S", 2.0)

    async def play() -> None:
        there = tmp_path / "there"
        async with realm(tmp_path, there) as home:
            before = await joined(home, there)
            await dsmt(home, "bus", "migrate", "nats")
            plan = there / "nodes/web-1/moves.cbor"
            plan.mkdir()  # as a full disk would, it keeps the member from writing it down
            async with connect(Home(home).operator(), Home(home).realm()) as connection:
                with pytest.raises(RefusedError, match="node/web-1 has not heard of it"):
                    await far_members.told(connection.bus, Home(home), by=connection.by)
            assert await pids(home) == before
            plan.rmdir()
            await down(Home(home))
            error = (await dsmt(home, "bus", "migrate", "--cut", "--json", code=4)).error
            assert error["code"] == "migrate.down"
            await dsmt(home, "up", "--detach")
            await until(lambda: _is_alive(home))
            await down(Home(there))
            await until(lambda: _is_dead(home))
            error = (await dsmt(home, "bus", "migrate", "--cut", "--json", code=4)).error
            assert error["code"] == "migrate.away"
            assert "web-1" in error["message"]
            await dsmt(home, "bus", "migrate", "--abort")
            await dsmt(there, "up", "--detach")
            await until(lambda: _is_alive(home))
            await until(lambda: _is_forgotten(plan))

    asyncio.run(play())
