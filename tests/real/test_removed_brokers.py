"""A broker is removed while it alone holds what specs name: it is with another one before that (rule E6)."""

from __future__ import annotations

import asyncio
import os
import signal
from hashlib import sha256
from pathlib import Path

import pytest

from dsmt.operations.connection import reading
from dsmt.operations.local.home.home import Home
from dsmt.operations.local.processes.ending import down
from dsmt.programs.configuration import ControllerFile
from dsmt.system.records import process_of
from tests.real.fleet import end
from tests.real.seat import dsmt
from tests.waiting import told

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
SPEC = """\
service: web
components:
  app:
    instances: 0
    artifact: {url: web.bin}
    run: ./web.bin
"""


def test_what_a_broker_alone_was_given_is_with_another_one_when_it_is_removed(tmp_path: Path) -> None:
    home, content = Home(tmp_path / "home"), os.urandom(3_000_000)
    (tmp_path / "web.bin").write_bytes(content)
    (tmp_path / "web.yaml").write_text(SPEC)

    async def scenario() -> None:
        try:
            await dsmt(home.root, "up", "--nodes", "1", "--brokers", "2", "--detach")
            address = {one["broker"]: one["address"] for one in (await dsmt(home.root, "brokers", "--json")).json}["b2"]
            await dsmt(home.root, "apply", str(tmp_path / "web.yaml"), "--bus", f"dsmt://{address}")
            await dsmt(home.root, "broker", "remove", "b2", "--yes")
            async with reading(home.operator(), home.realm()) as connection:
                chunks = [chunk async for chunk in connection.bus.get_blob(sha256(content).digest())]
            assert b"".join(chunks) == content
        finally:
            await end(home)

    asyncio.run(scenario())


def test_a_node_whose_first_broker_was_replaced_starts_new_instances(tmp_path: Path) -> None:
    """Its agents are configured with the one that is gone, as it was when its manager began."""
    home = Home(tmp_path / "home")
    (tmp_path / "slow.yaml").write_text("service: slow\ncomponents:\n  app: {instances: 1, run: sleep 1000}\n")

    async def scenario() -> None:
        try:
            await dsmt(home.root, "up", "--nodes", "1", "--detach")
            await dsmt(home.root, "broker", "add", "b2")
            await dsmt(home.root, "broker", "remove", "b1", "--yes")
            await dsmt(home.root, "apply", str(tmp_path / "slow.yaml"), "--wait=60s")
        finally:
            await end(home)

    asyncio.run(scenario())


def test_what_runs_elsewhere_begins_anew_where_no_broker_is_left_that_it_was_made_with(tmp_path: Path) -> None:
    """A host that was added is told of later brokers by the realm alone: its node, its controller, and `upgrade` there."""
    home, there = Home(tmp_path / "home"), Home(tmp_path / "there")

    async def scenario() -> None:
        try:
            await dsmt(home.root, "up", "--nodes", "1", "--controllers", "1", "--detach")
            token = (await dsmt(home.root, "token", "create")).out.strip()
            await dsmt(there.root, "join", token, "--name", "web-1")
            first, controller = home.realm(), home.part("controllers", "c1")
            await dsmt(home.root, "broker", "add", "b2")
            await dsmt(home.root, "broker", "remove", "b1", "--yes")
            await dsmt(there.root, "upgrade")

            ControllerFile(realm=first).write(controller)  # as on such a host
            former = process_of(controller, "controller")
            assert former is not None
            os.kill(former.pid, signal.SIGKILL)
            await told(lambda: _alive_as_another(home, former.pid), "the controller is attached again", 60)
        finally:
            try:
                await down(there)
            finally:
                await end(home)

    asyncio.run(scenario())


async def _alive_as_another(home: Home, pid: int) -> bool:
    shown = (await dsmt(home.root, "controllers", "--json")).json
    return any(one["alive"] and one["pid"] != pid for one in shown)
